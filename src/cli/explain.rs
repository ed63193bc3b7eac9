//! `weir explain REFERENCE`: why a message was refused, kept or taken. I/O: the trace of `data_dir`; the API of a running Weir.

use std::fmt::Write;
use std::path::Path;

use super::api::Api;
use super::table::{plain, print_json, say};
use super::{ConfigFile, Exit};
use crate::admin::model::Sentence;
use crate::config::Config;
use crate::filter::Points;
use crate::observe::trace::read::{Wanted, as_json, each};
use crate::observe::trace::{self, Entry, Event, Parcel, Reason, Record};

/// Arguments of `weir explain`.
#[derive(clap::Args)]
pub struct Args {
    /// The reference of a refusal, a queue id, X-Weir-Id or a Message-ID.
    reference: String,
    /// The record as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// Looks, prints.
pub fn run(args: &Args) -> Result<(), Exit> {
    let config = args.config.load_or_complain()?;
    let told = find(&config.data_dir.join(trace::FOLDER), &args.reference).map_err(unreadable)?;
    if told.is_empty() {
        let reference = plain(&args.reference);
        return Err(Exit::No.because(format!(
            "nothing is recorded of {reference}; [trace] says which messages are, and for how long"
        )));
    }
    for Told { record, events } in &told {
        if args.json {
            print_json(&serde_json::json!({ "decision": record, "later": events }));
        } else {
            say(&story(record, events));
            now(&config, record);
        }
    }
    Ok(())
}

/// For all who read the trace.
pub(super) fn unreadable(error: std::io::Error) -> Exit {
    Exit::Temporary.because(format!("the trace can't be read: {error}"))
}

/// A record with what happened later.
pub struct Told {
    /// The decision.
    pub record: Record,
    /// Later acts.
    pub events: Vec<Event>,
}

/// All records that `reference` names, oldest first; a `Message-ID` may come by several times.
/// # Errors
/// If the trace can't be read.
pub fn find(folder: &Path, reference: &str) -> std::io::Result<Vec<Told>> {
    let mut told: Vec<Told> = Vec::new();
    let bare = reference.trim_matches(['<', '>']);
    let is_id = bare.parse::<crate::base::id::QueueId>().is_ok();
    let word = if is_id { bare.to_ascii_lowercase() } else { as_json(bare) };
    let wanted = Wanted { words: vec![word], since: None, door: true };
    each(folder, &wanted, |found| {
        match found.entry {
            Entry::Decision(record) if record.is_called(bare) => {
                told.push(Told { record: *record, events: Vec::new() })
            }
            Entry::Decision(_) => {}
            Entry::Event(event) => {
                let mine = told.iter_mut().find(|told| told.record.is_called(&event.id));
                mine.into_iter().for_each(|told| told.events.push(event.clone()));
            }
        }
        true
    })?;
    Ok(told)
}

/// Where the message is now, if a running Weir has it.
fn now(config: &Config, record: &Record) {
    let Some(api) = Api::running(config) else { return };
    for parcel in &record.parcels {
        if let Some(sentence) = api.look::<Sentence>(&format!("/v1/queue/{}/why", parcel.id)) {
            say(&format!("now          {}: {}", parcel.id, plain(&sentence.text)));
        }
    }
}

/// The whole story, in lines.
pub fn story(record: &Record, events: &[Event]) -> String {
    let mut out = Lines::default();
    let client = &record.client;
    out.line("reference", &format!("{}, {}", record.id, time(record.at)));
    out.line("decision", &format!("{}: {}", record.fate, record.decided.reply));
    out.line("reason", &record.decided.reason);
    out.line("setting", &record.decided.setting);
    let direction = if record.outbound { "outbound" } else { "inbound" };
    let from = format!("<{}>", record.from.as_deref().unwrap_or_default());
    match record.stage.as_str() {
        "" => {
            out.line("from", &format!("{from}, {direction}"));
            out.line("to", &record.to.join(", "));
            out.line("message", &format!("{} bytes {}", record.size, record.message_id));
        }
        "connect" => out.line("at", "connect"),
        stage => {
            out.line("at", &stage.to_uppercase());
            out.line("from", &from);
            out.line("to", &record.to.join(", "));
        }
    }
    let host = client.host.as_ref().map(|host| format!(" {host}")).unwrap_or_default();
    let login = client.login.as_ref().map(|login| format!(", login {login}")).unwrap_or_default();
    let tls = client.tls.as_ref().map(|tls| format!(", {tls}")).unwrap_or_default();
    out.line(
        "client",
        &format!(
            "[{}]:{}{host}, HELO {}, {} on {}{login}{tls}",
            client.ip, client.port, client.helo, client.protocol, client.listener
        ),
    );
    out.line("checks", &format!("{} in all", millis(record.micros)));
    record
        .checks
        .iter()
        .for_each(|check| out.item(&millis(check.micros), &format!("{}: {}", check.name, check.result)));
    if !record.dns.is_empty() {
        out.line("dns", &format!("{} questions", record.dns.len()));
        record
            .dns
            .iter()
            .for_each(|asked| out.item(&millis(asked.micros), &format!("{}  {}", asked.question, asked.answer)));
    }
    record.parcels.iter().for_each(|parcel| sheet(&mut out, record, parcel));
    for event in events {
        out.line("later", &format!("{}, {}", event.what, time(event.at)));
    }
    out.0.pop();
    out.0
}

/// The score sheet of some recipients: what is printed adds up to the sum below it.
fn sheet(out: &mut Lines, record: &Record, parcel: &Parcel) {
    let Some(score) = parcel.score else { return };
    out.line("score sheet", &format!("for {}", parcel.to.join(", ")));
    record.sheet(parcel).for_each(|reason| out.reason(reason));
    out.item(&Points::new(score).to_string(), "= score");
    let bounds: Vec<String> =
        parcel.scores.iter().map(|(name, score, line)| format!("{name} {score} ({line})")).collect();
    out.line("thresholds", &bounds.join(", "));
    out.line("outcome", &format!("{}, so {}: {}", parcel.action, parcel.fate, parcel.id));
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            writeln!(self.0, "{name:<12} {}", plain(text)).expect("a String takes any write");
        }
    }

    fn item(&mut self, number: &str, text: &str) {
        writeln!(self.0, "{number:>12}  {}", plain(text)).expect("a String takes any write");
    }

    fn reason(&mut self, reason: &Reason) {
        let shadow = if reason.shadow { " (shadow, not counted)" } else { "" };
        let evidence = reason.evidence.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        let points = if reason.shadow { String::new() } else { Points::new(reason.points).to_string() };
        self.item(&points, &format!("{} {}{evidence}{shadow}", reason.name, reason.description));
    }
}

fn millis(micros: u64) -> String {
    format!("{:.2} ms", micros as f64 / 1000.0)
}

/// `2026-11-22 03:50:01 UTC`
pub fn time(at_ms: u64) -> String {
    let stamp = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| "at no time".to_owned(), |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}
