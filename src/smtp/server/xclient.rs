//! XCLIENT: a trusted proxy says for whom it speaks. Pure. Postfix's XCLIENT_README.
//!
//! Only a peer in the listener's `xclient` networks may use it; the peer is judged by the address of its connection, never by what an
//! earlier XCLIENT said. A success starts the session anew, from the banner.

use std::net::{IpAddr, Ipv6Addr};

use super::ask::Ask;
use super::replies;
use super::session::Session;
use super::state::{Asked, State};
use crate::wire::envelope::Origin;
use crate::wire::reply::{Enhanced, Reply};
use crate::wire::xtext;

/// Longest value that is taken; a host name has 255 bytes at most, and a login no more.
const VALUE_BYTES_MAX: usize = 255;

/// One attribute.
#[derive(Debug, PartialEq, Eq)]
enum Attribute {
    Addr(IpAddr),
    Helo(Option<String>),
    /// Known and of no use to us: PROTO, DESTADDR, DESTPORT, or an address that is not available.
    Ignored,
    Login(Option<String>),
    Name(Option<String>),
    Port(u16),
}

impl Attribute {
    fn parse(word: &str) -> Option<Self> {
        let (name, value) = word.split_once('=')?;
        let value = parse_value(value)?;
        let is = |attribute: &str| name.eq_ignore_ascii_case(attribute);
        match (value, name) {
            (value, _) if is("NAME") => Some(Attribute::Name(value)),
            (value, _) if is("HELO") => Some(Attribute::Helo(value)),
            (value, _) if is("LOGIN") => Some(Attribute::Login(value)),
            (Some(value), _) if is("ADDR") => parse_address(&value).map(Attribute::Addr),
            (Some(value), _) if is("PORT") => value.parse().ok().map(Attribute::Port),
            (Some(value), _) if is("PROTO") => {
                ["SMTP", "ESMTP"].iter().any(|p| value.eq_ignore_ascii_case(p)).then_some(Attribute::Ignored)
            }
            (Some(value), _) if is("DESTADDR") => parse_address(&value).map(|_| Attribute::Ignored),
            (Some(value), _) if is("DESTPORT") => value.parse::<u16>().ok().map(|_| Attribute::Ignored),
            (None, _) if ["ADDR", "PORT", "PROTO", "DESTADDR", "DESTPORT"].into_iter().any(is) => {
                Some(Attribute::Ignored)
            }
            _ => None,
        }
    }

    fn apply(self, origin: &mut Origin) {
        match self {
            Attribute::Addr(ip) => origin.ip = ip,
            Attribute::Helo(helo) => origin.helo = helo.unwrap_or_default(),
            Attribute::Ignored => {}
            Attribute::Login(login) => origin.login = login.map(Into::into),
            Attribute::Name(host) => origin.host = host,
            Attribute::Port(port) => origin.port = port,
        }
    }
}

/// xtext; nothing for what the proxy doesn't know. The outer `None` is a bad value.
fn parse_value(value: &str) -> Option<Option<String>> {
    if value.eq_ignore_ascii_case("[UNAVAILABLE]") || value.eq_ignore_ascii_case("[TEMPUNAVAIL]") {
        return Some(None);
    }
    let value = xtext::decode_utf8(value)?;
    (!value.is_empty() && value.len() <= VALUE_BYTES_MAX).then_some(Some(value))
}

fn parse_address(value: &str) -> Option<IpAddr> {
    let address = match value.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPV6:") => value[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => value.parse().ok(),
    };
    address.map(|address| address.to_canonical())
}

impl Session {
    pub(super) fn xclient(&mut self, state: State, attributes: &str) -> State {
        if !self.context.xclient_trusted {
            return self.context.error(&replies::NO_XCLIENT, state);
        }
        if !matches!(state, State::Ready) {
            return self.context.error(&replies::IN_TRANSACTION, state);
        }
        let words = attributes.split(' ').filter(|word| !word.is_empty());
        let parsed: Result<Vec<Attribute>, &str> = words.map(|word| Attribute::parse(word).ok_or(word)).collect();
        let attributes = match parsed {
            Ok(attributes) => attributes,
            Err(word) => {
                let reply = Reply::new(501, Enhanced(5, 5, 4), format!("Bad XCLIENT attribute: {word}"));
                return self.context.error(&reply, state);
            }
        };
        self.context.hello = None;
        self.context.change_origin(|origin| {
            origin.helo.clear();
            attributes.into_iter().for_each(|attribute| attribute.apply(origin));
        });
        let ip = self.context.origin.ip;
        self.context.ask(Ask::Connect { ip }, Asked::Connect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_postfix_writes_them() {
        let parse = Attribute::parse;
        assert_eq!(parse("ADDR=192.0.2.1"), Some(Attribute::Addr([192, 0, 2, 1].into())));
        assert_eq!(parse("addr=IPV6:2001:db8::1"), Some(Attribute::Addr("2001:db8::1".parse().unwrap())));
        assert_eq!(parse("NAME=[UNAVAILABLE]"), Some(Attribute::Name(None)));
        assert_eq!(parse("LOGIN=a+2Bb"), Some(Attribute::Login(Some("a+b".into()))));
        assert_eq!(parse("DESTPORT=25"), Some(Attribute::Ignored));
        for bad in ["ADDR=x", "PORT=70000", "NAME=", "NAME", "X=1", "HELO=+0D+0A", "PROTO=HTTP", "DESTADDR=1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
