//! What a configuration means, for people; no secrets. Pure.

use std::fmt::Write;

use super::Config;
use super::settings::{FailureReports, Listener, ListenerTls, NextHop, Recipients, Reports, Scores};
use super::units::{show_duration, show_size};

impl Config {
    /// What a configuration means, for people; no secrets.
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: String| writeln!(text, "{key:<12}{value}").expect("a String takes any write");
        line("hostname", self.hostname.clone());
        line("data_dir", self.data_dir.display().to_string());
        let certificate = self.tls.pair.as_ref().map(|pair| pair.certificate.display().to_string());
        line("certificate", certificate.unwrap_or_else(|| "self-signed, made in data_dir".to_owned()));
        self.tls
            .also
            .iter()
            .for_each(|pair| line("certificate", format!("{}, by its names", pair.certificate.display())));
        self.listeners.iter().for_each(|listener| line("listener", listener_line(listener)));
        for domain in &self.domains {
            let below = if domain.subdomains { " and below" } else { "" };
            let recipients = recipients_text(&domain.recipients);
            line("domain", format!("{}{below} -> {} (recipients: {recipients})", domain.name, domain.deliver_to));
        }
        let route = self.relay.smarthost.as_ref().unwrap_or(&NextHop::Mx);
        line("relay", format!("other domains -> {route}; without AUTH from {}", list(&self.relay.networks)));
        for rate in &self.rates {
            let keys: Vec<&str> = rate.key.iter().map(|key| key.as_str()).collect();
            let windows: Vec<String> = rate
                .windows
                .iter()
                .map(|window| format!("{}/{}", window.limit, show_duration(window.period)))
                .collect();
            let (count, action) = (rate.count.as_str(), rate.action.as_str());
            line("rate", format!("{count} by {}: {}, then {action}", keys.join("+"), windows.join(", ")));
        }
        let filter = &self.filter;
        for scanner in &self.scanners {
            line("scanner", format!("{} by {} at {}", scanner.name, scanner.kind.as_str(), scanner.place));
        }
        line("filter", filter.scores.to_string());
        if filter.outbound != Scores::default() {
            line("outbound", filter.outbound.to_string());
        }
        let trace = &self.trace;
        line("trace", format!("{} for {}, up to {}", trace.record, show_duration(trace.keep), show_size(trace.size)));
        let retry = &self.retry;
        let (first, max, expire) = (show_duration(retry.first), show_duration(retry.max), show_duration(retry.expire));
        line("retry", format!("{first} x{} up to {max}, bounced after {expire}", retry.factor));
        line("reports", reports_text(&self.reports));
        let address =
            |address: Option<std::net::SocketAddr>| address.map_or("off".to_owned(), |address| address.to_string());
        let service = &self.service;
        for (kind, place) in [("milter", service.milter), ("spamd", service.spamd), ("rspamd", service.rspamd)] {
            place.into_iter().for_each(|place| line("service", format!("{kind} at {place}")));
        }
        line("pop3", format!("{}, with TLS {}", address(self.store.pop3), address(self.store.pop3s)));
        line("admin", address(self.admin.address));
        text
    }
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

fn reports_text(reports: &Reports) -> String {
    let Some(from) = &reports.from else { return "none are sent".to_owned() };
    let kinds = [
        (reports.aggregate, "DMARC"),
        (reports.failure != FailureReports::Off, "DMARC failures"),
        (reports.tls, "TLS"),
    ];
    let kinds: Vec<&str> = kinds.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
    let minutes = reports.daily_at.as_secs() / 60;
    format!("{} from {from}, daily at {:02}:{:02} UTC", kinds.join(", "), minutes / 60, minutes % 60)
}

fn list(networks: &[ipnet::IpNet]) -> String {
    let names: Vec<String> = networks.iter().map(ToString::to_string).collect();
    if names.is_empty() { "nowhere".to_owned() } else { names.join(", ") }
}
