//! `weir check`: reads the configuration with the code that serves, and shows what it means. I/O: files, standard output.

use std::fmt::Write;

use super::table::say;
use super::{ConfigFile, Exit};
use crate::config::Config;
use crate::config::settings::{Listener, ListenerTls, NextHop, Recipients};
use crate::config::units::{show_duration, show_size};

/// Arguments of `weir check`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// Print nothing if all is well.
    #[arg(long, short)]
    quiet: bool,
}

/// Checks, and prints the summary or every error.
pub fn run(args: &Args) -> Exit {
    let config = match args.config.load_or_complain() {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if !args.quiet {
        let source = args.config.path().map_or("built-in defaults".to_owned(), |path| path.display().to_string());
        say(&format!("{source}: no errors\n\n{}", summary(&config).trim_end()));
    }
    Exit::Done
}

/// What a configuration means, for people; no secrets.
pub fn summary(config: &Config) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| writeln!(text, "{key:<12}{value}").expect("a String takes any write");
    line("hostname", config.hostname.clone());
    line("data_dir", config.data_dir.display().to_string());
    let certificate = config.tls.certificate.as_ref();
    line(
        "certificate",
        certificate.map_or("self-signed, made in data_dir".to_owned(), |path| path.display().to_string()),
    );
    config.listeners.iter().for_each(|listener| line("listener", listener_line(listener)));
    for domain in &config.domains {
        let below = if domain.subdomains { " and below" } else { "" };
        let recipients = recipients_text(&domain.recipients);
        line("domain", format!("{}{below} -> {} (recipients: {recipients})", domain.name, domain.deliver_to));
    }
    let route = config.relay.smarthost.as_ref().unwrap_or(&NextHop::Mx);
    line("relay", format!("other domains -> {route}; without AUTH from {}", list(&config.relay.networks)));
    for rate in &config.rates {
        let keys: Vec<&str> = rate.key.iter().map(|key| key.as_str()).collect();
        let windows: Vec<String> =
            rate.windows.iter().map(|window| format!("{}/{}", window.limit, show_duration(window.period))).collect();
        let (count, action) = (rate.count.as_str(), rate.action.as_str());
        line("rate", format!("{count} by {}: {}, then {action}", keys.join("+"), windows.join(", ")));
    }
    let filter = &config.filter;
    line("filter", format!("tag {}, quarantine {}, reject {}", filter.tag, filter.quarantine, filter.reject));
    let retry = &config.retry;
    let (first, max, expire) = (show_duration(retry.first), show_duration(retry.max), show_duration(retry.expire));
    line("retry", format!("{first} x{} up to {max}, bounced after {expire}", retry.factor));
    let address =
        |address: Option<std::net::SocketAddr>| address.map_or("off".to_owned(), |address| address.to_string());
    line("pop3", format!("{}, with TLS {}", address(config.store.pop3), address(config.store.pop3s)));
    line("admin", address(config.admin.address));
    text
}

fn listener_line(listener: &Listener) -> String {
    let tls = match listener.tls {
        ListenerTls::Implicit => "TLS",
        ListenerTls::None => "no TLS",
        ListenerTls::StartTls => "STARTTLS",
    };
    let auth = if listener.auth { ", AUTH" } else { "" };
    let name =
        if &*listener.name == listener.role.as_str() { String::new() } else { format!(" \"{}\"", listener.name) };
    let size = show_size(listener.limits.size);
    format!("{} {}{name}, {tls}{auth}, messages up to {size}", listener.address, listener.role.as_str())
}

fn recipients_text(recipients: &Recipients) -> String {
    match recipients {
        Recipients::Any => "any".to_owned(),
        Recipients::List(names) => format!("{} listed", names.len()),
        Recipients::Store => "users of the store".to_owned(),
        Recipients::Verify => "asked of the next hop".to_owned(),
    }
}

fn list(networks: &[ipnet::IpNet]) -> String {
    let names: Vec<String> = networks.iter().map(ToString::to_string).collect();
    if names.is_empty() { "nowhere".to_owned() } else { names.join(", ") }
}
