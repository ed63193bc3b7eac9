//! The relays that a message came through, read from its Received fields. Pure. RFC 5321 §4.4.
//!
//! Rules match them in SpamAssassin's notation, `[ ip=… rdns=… helo=… by=… … ]`, newest first. What a client told a
//! relay of ours is a fact; what stands below is a claim.

use std::fmt::Write;
use std::net::IpAddr;

use crate::filter::engine::Facts;
use crate::filter::message::View;

/// One hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// The client's address.
    pub ip: String,
    /// Its name by reverse DNS, as the relay noted it.
    pub rdns: String,
    /// What it said in HELO.
    pub helo: String,
    /// Who received it.
    pub by: String,
    /// By which queue id.
    pub id: String,
    /// The client authenticated (`with ESMTPA` and its kin, RFC 3848).
    pub auth: bool,
    /// The sender of the envelope, where it is noted.
    pub envfrom: String,
}

/// Received fields that are read; a loop is stopped elsewhere.
const RELAYS_MAX: usize = 50;

/// All relays of a message, newest first; the client that we spoke with ourselves is the first.
pub fn read(view: &View<'_>, facts: &Facts) -> Vec<Relay> {
    let mut relays = Vec::new();
    if let Some(ip) = facts.ip {
        relays.push(Relay {
            ip: ip.to_string(),
            rdns: facts.host.clone().unwrap_or_default(),
            helo: facts.helo.clone(),
            auth: facts.trusted,
            envfrom: facts.reverse_path.clone().unwrap_or_default(),
            ..Relay::default()
        });
    }
    let fields = view.header.all("Received").take(RELAYS_MAX);
    relays.extend(fields.filter_map(|field| parse(&field.unfolded())));
    relays
}

/// Those from the first with a public address on: what came from outside, as far as the fields tell.
pub fn external(relays: &[Relay]) -> &[Relay] {
    let first = relays.iter().position(|relay| !is_private(&relay.ip)).unwrap_or(relays.len());
    &relays[first..]
}

/// True for addresses that nobody outside can have.
pub fn is_private(ip: &str) -> bool {
    match ip.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.octets()[0] == 0,
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => false,
    }
}

/// The notation that rules match.
pub fn notation(relays: &[Relay]) -> String {
    let mut out = String::new();
    for relay in relays {
        let auth = if relay.auth { "ESMTPA" } else { "" };
        write!(
            out,
            "[ ip={} rdns={} helo={} by={} ident= envfrom={} intl=0 id={} auth={auth} msa=0 ] ",
            relay.ip, relay.rdns, relay.helo, relay.by, relay.envfrom, relay.id
        )
        .expect("a String takes any write");
    }
    out.truncate(out.trim_end().len());
    out
}

fn parse(text: &str) -> Option<Relay> {
    let text = text.split(';').next().unwrap_or(text);
    let mut relay = Relay::default();
    let from = text.trim_start().strip_prefix("from ")?;
    let by_at = from.find(" by ").unwrap_or(from.len());
    let (client, rest) = from.split_at(by_at);
    let helo = client.split_ascii_whitespace().next().unwrap_or_default();
    relay.helo = clean(helo);
    relay.ip = address(client)?;
    if let Some(inner) = client.split_once('(').map(|(_, inner)| inner) {
        for word in inner.split(['(', ')', ' ', '[', ']', ',']) {
            if let Some(helo) = word.strip_prefix("HELO=").or_else(|| word.strip_prefix("helo=")) {
                relay.helo = clean(helo);
            } else if relay.rdns.is_empty()
                && word.contains('.')
                && word.parse::<IpAddr>().is_err()
                && !word.contains('@')
            {
                relay.rdns = clean(word);
            }
        }
    }
    if relay.rdns == "unknown" {
        relay.rdns.clear();
    }
    let mut words = rest.split_ascii_whitespace();
    while let Some(word) = words.next() {
        match word {
            "by" => relay.by = clean(words.next().unwrap_or_default()),
            "id" => relay.id = clean(words.next().unwrap_or_default()),
            "with" => {
                relay.auth = matches!(words.next(), Some("ESMTPA" | "ESMTPSA" | "ASMTP" | "UTF8SMTPA" | "UTF8SMTPSA"))
            }
            _ => {}
        }
    }
    if let Some(sender) = text.split("envelope-from <").nth(1).and_then(|rest| rest.split('>').next()) {
        relay.envfrom = clean(sender);
    }
    Some(relay)
}

/// The address in brackets, or in parentheses as some programs write it.
fn address(client: &str) -> Option<String> {
    let words = client.split(['[', ']', '(', ')', ' ']).map(|word| word.strip_prefix("IPv6:").unwrap_or(word));
    words.filter_map(|word| word.parse::<IpAddr>().ok()).next_back().map(|ip| ip.to_string())
}

/// Without blanks and brackets, which mean something in the notation.
fn clean(word: &str) -> String {
    word.chars().filter(|c| !c.is_whitespace() && !"[]()<>;".contains(*c)).take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_fields_become_relays() {
        let raw = b"Received: from mx (unknown [10.0.0.1]) by a.example with ESMTP id 7; x\n\
            Received: from helo.example (rdns.example [192.0.2.9])\n by b.example (Postfix) with ESMTPSA id Q9; x\n\
            Received: by 10.1.1.1 with SMTP id z; x\n\nbody";
        let relays = read(&View::read(raw), &Facts::default());
        assert_eq!(relays.len(), 2);
        assert_eq!(
            notation(external(&relays)),
            "[ ip=192.0.2.9 rdns=rdns.example helo=helo.example by=b.example ident= envfrom= intl=0 id=Q9 auth=ESMTPA msa=0 ]"
        );
    }
}
