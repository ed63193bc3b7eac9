//! The client behind our own gateways: its address and HELO, read from `Received`. Pure. RFC 5321 §4.4.
//!
//! Behind another gateway every message comes from that gateway, and SPF must be asked about the host that handed it in. Only fields
//! that trusted hosts wrote are read, from the top: the first address that is not trusted is the client. What stands below
//! it is the client's own word and is never read.

use std::net::IpAddr;

use ipnet::IpNet;

use super::message::{Message, unfold};

/// Fields that are read at most; a chain of gateways of our own is short.
const HOPS_MAX: usize = 10;

/// Where a message came from, as a trusted host saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The client's address.
    pub ip: IpAddr,
    /// What it said in HELO.
    pub helo: String,
}

/// The client behind `peer`, if `peer` is trusted and the fields say who it was; nothing means that `peer` is the client.
pub fn client(message: &Message, peer: IpAddr, trusted: &[IpNet]) -> Option<Hop> {
    if !is_trusted(peer, trusted) {
        return None;
    }
    for field in message.named("Received").take(HOPS_MAX) {
        // A trusted host that does not say whom it took the message from ends the search.
        let hop = parse(&unfold(message.value(field)))?;
        if !is_trusted(hop.ip, trusted) {
            return Some(hop);
        }
    }
    None
}

/// True if `ip` is one of the operator's own gateways.
pub fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&ip.to_canonical()))
}

/// `from HELO (name [address])` or `from HELO ([address])`, as Postfix, Exim, Sendmail and we write it.
fn parse(value: &str) -> Option<Hop> {
    let rest = value.strip_prefix("from ")?;
    let source = rest.split(" by ").next().unwrap_or_default();
    let helo = source.split(' ').next().unwrap_or_default();
    let bracketed = |text: &str| {
        let (_, inner) = text.rsplit_once('[')?;
        let (address, _) = inner.split_once(']')?;
        address.strip_prefix("IPv6:").unwrap_or(address).parse().ok()
    };
    // The comment's address is what the server saw; a literal in HELO is only what the client said.
    let ip = bracketed(&source[helo.len()..])?;
    Some(Hop { ip, helo: helo.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::content::Content;
    use proptest::prelude::*;

    fn found(fields: &[&str]) -> Option<String> {
        let text: String = fields.iter().map(|field| format!("Received: {field}\r\n")).collect();
        let message = Message::parse(Content::from_bytes(text.into_bytes()));
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        client(&message, "10.0.0.1".parse().unwrap(), &trusted).map(|hop| format!("{} {}", hop.ip, hop.helo))
    }

    #[test]
    fn the_first_stranger_is_the_client() {
        let inner = "from gw.us (gw.us [10.0.0.2])\r\n\tby mx.us (Postfix) with ESMTP id 1; date";
        let outer = "from out.example (unknown [192.0.2.7]) by gw.us with ESMTP; date";
        let lie = "from bank.example (bank.example [198.51.100.1]) by out.example; date";
        assert_eq!(found(&[inner, outer, lie]).as_deref(), Some("192.0.2.7 out.example"));
        assert_eq!(
            found(&["from [198.51.100.9] ([IPv6:2001:db9::1]) by mx.us; x"]).as_deref(),
            Some("2001:db9::1 [198.51.100.9]")
        );
        assert_eq!(found(&[inner, "by localhost; date", outer]), None);
        assert_eq!(found(&[inner]), None);
    }

    #[test]
    fn an_address_behind_by_is_not_the_source() {
        assert_eq!(found(&["from a.example by mx.us ([192.0.2.1]); x"]), None);
    }

    proptest! {
        #[test]
        fn any_field_is_a_hop_or_none(value in "from .{0,40}") {
            let _ = parse(&value);
        }
    }
}
