//! `weir verify`: what a message's identity is worth, and why. I/O: one file, DNS.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::table::{plain, print_json, say};
use super::{ConfigFile, Exit};
use crate::base::content::Content;
use crate::config::Config;
use crate::config::settings::Mode;
use crate::dns::Resolver;
use crate::verify::decide::{Action, Decision, Overrides, decide};
use crate::verify::meters::Meters;
use crate::verify::{Facts, Message, Results, Verifier};

/// Arguments of `weir verify`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// The message; `-` for standard input
    file: PathBuf,
    /// The client's address
    #[arg(long)]
    ip: IpAddr,
    /// What the client said in HELO or EHLO
    #[arg(long, default_value = "localhost")]
    helo: String,
    /// The reverse-path; nothing, or `<>`, for the null one
    #[arg(long, default_value = "")]
    mail_from: String,
    /// Ask this DNS server and no other
    #[arg(long, value_name = "HOST:PORT")]
    dns: Option<SocketAddr>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What stands where a queue id would.
const REFERENCE: &str = "weir-verify";

/// Reads, checks, prints.
pub fn run(args: Args) -> Result<(), Exit> {
    let mut config = args.config.load_or_complain()?;
    if let Some(server) = args.dns {
        config.dns.servers = vec![server];
    }
    let content = read(&args.file).map_err(|error| Exit::No.because(format!("{}: {error}", args.file.display())))?;
    let checked = with_runtime(check(&args, &config, &Message::parse(content)));
    let results = checked.map_err(|error| Exit::Temporary.because(error))?;
    let overrides = Overrides::from_settings(&config.verify);
    let decision = decide(&results, Mode::Enforce, &overrides, args.ip, REFERENCE);
    if args.json {
        print_json(&as_json(&results, &decision));
    } else {
        lines(&results, &decision).iter().for_each(|line| say(&plain(line)));
    }
    match decision.action {
        Action::Accept | Action::Quarantine => Ok(()),
        Action::Reject => Err(Exit::No),
        Action::Defer => Err(Exit::Temporary),
    }
}

/// Runs a future on a small runtime of its own.
pub fn with_runtime<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| error.to_string())?.block_on(work)
}

async fn check(args: &Args, config: &Config, message: &Message) -> Result<Results, String> {
    let resolver = Resolver::new(&config.dns)?;
    let meters = Meters::register(&prometheus::Registry::new()).map_err(|error| error.to_string())?;
    let path = args.mail_from.trim_start_matches('<').trim_end_matches('>');
    let reverse_path = Some(path.to_owned()).filter(|path| !path.is_empty());
    let facts = Facts { ip: args.ip, helo: args.helo.clone(), reverse_path };
    Ok(Verifier::new(Arc::new(resolver), &config.hostname, meters).check(&facts, message).await)
}

/// The content as it was on the wire: a file with bare line feeds was saved by something that converts line ends.
fn read(file: &Path) -> std::io::Result<Content> {
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes)?;
    } else {
        bytes = std::fs::read(file)?;
    }
    if memchr::memmem::find(&bytes, b"\r\n").is_some() {
        return Ok(Content::from_bytes(bytes));
    }
    let mut wire = Vec::with_capacity(bytes.len() + bytes.len() / 32);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(text) => wire.extend_from_slice(&[text, b"\r\n"].concat()),
            None => wire.extend_from_slice(line),
        }
    }
    Ok(Content::from_bytes(wire))
}

fn lines(results: &Results, decision: &Decision) -> Vec<String> {
    let line = |method: &str, outcome: &str, what: String| format!("{method:<9}{outcome:<11}{what}");
    let mut out = Vec::new();
    for spf in results.mail_from.iter().chain([&results.helo]) {
        out.push(line("spf", spf.outcome.as_str(), format!("{}: {}", spf.sender, spf.reason)));
        out.extend(spf.explanation.as_ref().map(|text| line("", "", format!("{} explains: {text}", spf.domain))));
    }
    for dkim in &results.dkim {
        let testing = if dkim.testing { " (testing)" } else { "" };
        let what = format!("d={} s={} {}: {}{testing}", dkim.domain, dkim.selector, dkim.algorithm, dkim.reason);
        out.push(line("dkim", dkim.outcome.as_str(), what));
    }
    if results.dkim.is_empty() {
        out.push(line("dkim", "none", "no signature".to_owned()));
    }
    out.push(line(
        "dmarc",
        results.dmarc.outcome.as_str(),
        format!("{}: {}", results.dmarc.domain, results.dmarc.reason),
    ));
    let arc = &results.arc;
    out.push(line("arc", arc.outcome.as_str(), format!("{} {}", arc.sealers.join(", "), arc.reason)));
    let said = decision.reply.as_ref().map_or_else(|| decision.reason.clone(), ToString::to_string);
    out.push(line("->", decision.action.as_str(), said));
    out
}

fn as_json(results: &Results, decision: &Decision) -> serde_json::Value {
    json!({
        "spf": results.mail_from.iter().chain([&results.helo]).collect::<Vec<_>>(),
        "dkim": results.dkim,
        "dmarc": results.dmarc,
        "arc": results.arc,
        "author": results.author.as_ref().map_or_else(|error| error.to_string(), |author| author.address.clone()),
        "action": decision.action.as_str(),
        "reason": decision.reason,
        "reply": decision.reply.as_ref().map(ToString::to_string),
        "overridden": decision.overridden,
    })
}
