//! The relays that a message came through, read from its Received fields. Pure. RFC 5321 §4.4.
//!
//! Rules match them in SpamAssassin's notation, `[ ip=… rdns=… helo=… by=… … ]`, newest first. Ours are those up to the first
//! client with a public address that did not authenticate; what stands below that one's is a claim.

mod received;

use std::net::IpAddr;

use crate::filter::engine::Facts;
use crate::filter::message::View;
use received::Parsed;

/// One hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relay {
    /// The client's address.
    pub ip: String,
    /// Its name by reverse DNS, as the relay noted it.
    pub rdns: String,
    /// The relay looked for that name and found none.
    pub nameless: bool,
    /// What it said in HELO.
    pub helo: String,
    /// Who received it.
    pub by: String,
    /// Who the client's own host says it is (RFC 1413).
    pub ident: String,
    /// By which queue id.
    pub id: String,
    /// How the client authenticated (`ESMTPA` and its kin, RFC 3848); empty if it did not.
    pub auth: String,
    /// The sender of the envelope, where it is noted.
    pub envfrom: Option<String>,
}

/// All relays of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relays {
    /// Newest first; the client that we spoke with ourselves is the first.
    pub all: Vec<Relay>,
    /// Received fields that should name a client and name none that can be read.
    pub unreadable: usize,
    /// How many of `all` are ours.
    inside: usize,
    /// How many Received fields ours have written.
    pub fields_inside: usize,
}

/// Received fields that are read; a loop is stopped elsewhere.
const RELAYS_MAX: usize = 50;

impl Relays {
    /// Reads them all.
    pub fn read(view: &View<'_>, facts: &Facts) -> Self {
        let mut relays = Relays::default();
        let mut ours = true;
        if let Some(ip) = facts.ip {
            ours = facts.trusted || is_private(&ip.to_string());
            relays.all.push(Relay {
                ip: ip.to_string(),
                rdns: facts.host.clone().unwrap_or_default(),
                nameless: facts.host.is_none(),
                helo: facts.helo.clone(),
                auth: if facts.trusted { "ESMTPA".to_owned() } else { String::new() },
                envfrom: facts.reverse_path.clone(),
                ..Relay::default()
            });
            relays.inside = usize::from(ours);
        }
        for field in view.header.all("Received").take(RELAYS_MAX) {
            match received::parse(&field.unfolded()) {
                Parsed::Relay(relay) => {
                    ours &= is_private(&relay.ip) || !relay.auth.is_empty();
                    relays.inside += usize::from(ours);
                    relays.all.push(*relay);
                }
                Parsed::Unreadable => relays.unreadable += 1,
                Parsed::NoClient => {}
            }
            relays.fields_inside += usize::from(ours);
        }
        relays
    }

    /// Those that are not ours, as far as the fields tell.
    pub fn external(&self) -> &[Relay] {
        &self.all[self.inside..]
    }

    /// Those that are ours.
    pub fn internal(&self) -> &[Relay] {
        &self.all[..self.inside]
    }

    /// External relays in the notation that rules match.
    pub fn external_notation(&self) -> String {
        notation(self.external(), false)
    }

    /// Our relays in the notation that rules match.
    pub fn internal_notation(&self) -> String {
        notation(self.internal(), true)
    }
}

/// True for addresses that nobody outside can have.
pub fn is_private(ip: &str) -> bool {
    match ip.parse() {
        Ok(IpAddr::V4(ip)) => {
            let [first, second, ..] = ip.octets();
            // RFC 6598: between a carrier and its customers.
            let carrier = first == 100 && second & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || first == 0 || carrier
        }
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => false,
    }
}

/// What a relay takes in the notation, more or less.
const NOTATION_BYTES: usize = 256;

fn notation(relays: &[Relay], internal: bool) -> String {
    let mut out = String::with_capacity(relays.len() * NOTATION_BYTES);
    for relay in relays {
        let Relay { ip, rdns, helo, by, ident, id, auth, .. } = relay;
        let envfrom = relay.envfrom.as_deref().unwrap_or_default();
        let intl = if internal { "1" } else { "0" };
        let pieces = [
            ["[ ip=", ip],
            [" rdns=", rdns],
            [" helo=", helo],
            [" by=", by],
            [" ident=", ident],
            [" envfrom=", envfrom],
            [" intl=", intl],
            [" id=", id],
            [" auth=", auth],
            [" msa=0 ]", " "],
        ];
        pieces.iter().flatten().for_each(|piece| out.push_str(piece));
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_fields_become_relays() {
        let raw = b"Received: from mx (unknown [10.0.0.1]) by a.example with ESMTP id 7; x\n\
            Received: from helo.example (rdns.example [192.0.2.9])\n by b.example (Postfix) with ESMTP id Q99; x\n\
            Received: by 10.1.1.1 with SMTP id z; x\n\nbody";
        let relays = Relays::read(&View::read(raw), &Facts::default());
        assert_eq!((relays.all.len(), relays.fields_inside, relays.unreadable), (2, 1, 0));
        assert_eq!(
            relays.external_notation(),
            "[ ip=192.0.2.9 rdns=rdns.example helo=helo.example by=b.example ident= envfrom= intl=0 id=Q99 auth= msa=0 ]"
        );
        assert!(relays.internal_notation().contains("ip=10.0.0.1 rdns= helo=mx by=a.example"));
    }

    #[test]
    fn who_authenticated_is_ours() {
        let raw = b"Received: from me (pool.example [192.0.2.9]) by b.example (Postfix) with ESMTPSA id Q99; x\n\nbody";
        let relays = Relays::read(&View::read(raw), &Facts::default());
        assert!(relays.external().is_empty() && relays.internal()[0].auth == "ESMTPSA");
    }
}
