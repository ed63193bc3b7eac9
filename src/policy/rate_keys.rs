//! What a rate is keyed by: facts of a session to one text. Pure.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::settings::RateKey;
use crate::wire::address::Mailbox;

/// Facts of a session that rates are keyed by, as far as they are known at the moment.
#[derive(Clone, Copy, Debug)]
pub struct RateFacts<'a> {
    /// The client.
    pub ip: IpAddr,
    /// The listener's name.
    pub listener: &'a str,
    /// HELO, EHLO or LHLO.
    pub helo: &'a str,
    /// The login, or the one that was tried.
    pub login: Option<&'a str>,
    /// The reverse-path: nothing before MAIL, `Some(None)` for `<>`.
    pub sender: Option<Option<&'a Mailbox>>,
    /// The recipient: nothing before RCPT.
    pub recipient: Option<&'a Mailbox>,
}

/// Longest fact in a key; a longer one is cut, so that a client can't fill memory with names of its choice.
const FACT_BYTES_MAX: usize = 320; // RFC 5321 §4.5.3.1: 64 + 1 + 255
/// IPv4 networks are counted by /24, IPv6 by /64: what one customer usually has.
const NET_V6_BITS: u128 = !0 << 64;

/// The key of `facts` under `keys`, such as `login=alice ip=192.0.2.1`; nothing if a fact is not there, and so the rate does not apply.
pub(super) fn key_of(keys: &[RateKey], facts: &RateFacts<'_>) -> Option<String> {
    let mut text = String::new();
    for key in keys {
        let value = value_of(*key, facts)?;
        if !text.is_empty() {
            text.push(' ');
        }
        write!(text, "{}=", key.as_str()).expect("a String takes any write");
        // A space would end the fact for whoever reads the key, a control character would steer a terminal.
        let plain = value.chars().map(|c| if c.is_control() || c == ' ' { '_' } else { c });
        let room = text.len() + FACT_BYTES_MAX;
        for c in plain.flat_map(char::to_lowercase) {
            if text.len() + c.len_utf8() > room {
                break;
            }
            text.push(c);
        }
    }
    Some(text)
}

fn value_of(key: RateKey, facts: &RateFacts<'_>) -> Option<String> {
    let sender = |part: fn(&Mailbox) -> &str| facts.sender.map(|path| path.map_or("<>", part).to_owned());
    Some(match key {
        RateKey::Helo => facts.helo.to_owned(),
        RateKey::Ip => facts.ip.to_canonical().to_string(),
        RateKey::Listener => facts.listener.to_owned(),
        RateKey::Login => facts.login?.to_owned(),
        RateKey::Net => network_of(facts.ip),
        RateKey::Recipient => facts.recipient?.as_str().to_owned(),
        RateKey::RecipientDomain => facts.recipient?.domain().to_owned(),
        RateKey::Sender => sender(Mailbox::as_str)?,
        RateKey::SenderDomain => sender(Mailbox::domain)?,
    })
}

fn network_of(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(ip) => format!("{}/64", Ipv6Addr::from_bits(ip.to_bits() & NET_V6_BITS)),
    }
}

/// True if `wanted` names `key`: the whole, one of its facts (`login=alice`), or a fact's value (`alice`).
pub(super) fn names(wanted: &str, key: &str) -> bool {
    let fact_is = |fact: &str| fact == wanted || fact.split_once('=').is_some_and(|(_, value)| value == wanted);
    key == wanted || key.split(' ').any(fact_is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_plain_and_bounded() {
        let long = "x".repeat(1000);
        let facts = RateFacts {
            ip: "::ffff:192.0.2.77".parse().unwrap(),
            listener: "mx",
            helo: &long,
            login: Some("Al ice\n"),
            sender: Some(None),
            recipient: None,
        };
        assert_eq!(key_of(&[RateKey::Login, RateKey::Net], &facts).unwrap(), "login=al_ice_ net=192.0.2.0/24");
        assert_eq!(key_of(&[RateKey::Sender], &facts).unwrap(), "sender=<>");
        assert_eq!(key_of(&[RateKey::Recipient], &facts), None);
        assert!(key_of(&[RateKey::Helo], &facts).unwrap().len() <= FACT_BYTES_MAX + 5);
        assert!(names("al_ice_", "login=al_ice_ ip=::1") && names("ip=::1", "login=al_ice_ ip=::1"));
        assert!(!names("ice", "login=alice"));
    }
}
