//! The header fields that the gateway adds in front of a message. Pure. RFC 5321 §4.4, RFC 5322 §3.6.
//!
//! They are a slice of their own, sent before the content: bytes that were signed stay as received. Whatever a
//! peer said (HELO, host names) is data here: what could break a field or close a comment becomes `?`.

use std::io::Write;

use crate::base::id::QueueId;
use crate::wire::envelope::{Envelope, Origin};

/// What the fields are made of.
pub struct Stamp<'a> {
    /// Our name.
    pub hostname: &'a str,
    /// The message's id.
    pub id: QueueId,
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// Now, as [`crate::wire::date::rfc5322`] writes it.
    pub date: &'a str,
}

impl Stamp<'_> {
    /// Appends `Received`: from, by, with, id, and `for` where there is one recipient only, so that no blind copy is told.
    pub fn received(&self, out: &mut Vec<u8>) {
        let origin = &self.envelope.origin;
        write!(
            out,
            "Received: from {} ({})\r\n\tby {} (Weir) with {} id {}",
            helo(origin),
            client(origin),
            self.hostname,
            origin.protocol,
            self.id
        )
        .expect(INFALLIBLE);
        if let Some(tls) = &origin.tls {
            write!(out, "\r\n\t({})", clean(tls, self.envelope.smtputf8)).expect(INFALLIBLE);
        }
        if let [only] = self.envelope.recipients.as_slice() {
            write!(out, "\r\n\tfor <{}>", only.mailbox).expect(INFALLIBLE);
        }
        write!(out, "; {}\r\n", self.date).expect(INFALLIBLE);
    }
}

const INFALLIBLE: &str = "a Vec takes any write";

fn helo(origin: &Origin) -> String {
    if origin.helo.is_empty() { "unknown".into() } else { clean(&origin.helo, false) }
}

/// `host [192.0.2.1]`, or `[192.0.2.1]` (`[IPv6:2001:db8::1]`) where no name is known.
fn client(origin: &Origin) -> String {
    let literal = match origin.ip {
        std::net::IpAddr::V4(ip) => format!("[{ip}]"),
        std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    };
    match &origin.host {
        Some(host) => format!("{} {literal}", clean(host, false)),
        None => literal,
    }
}

/// What may stand in a comment or as a domain; the rest becomes `?`.
fn clean(text: &str, utf8: bool) -> String {
    let fits =
        |c: char| if c.is_ascii() { c == ' ' || c.is_ascii_graphic() && !"()\\\"<>;,".contains(c) } else { utf8 };
    text.chars().map(|c| if fits(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::address::Mailbox;
    use crate::wire::envelope::Recipient;

    fn envelope(helo: &str, recipients: &[&str]) -> Envelope {
        let origin = Origin {
            ip: "2001:db8::1".parse().unwrap(),
            helo: helo.into(),
            login: Some("alice".into()),
            tls: Some("TLSv1.3 TLS13_AES_256_GCM_SHA384".into()),
            protocol: "ESMTPSA",
            ..Origin::local("submission")
        };
        let recipient = |text: &&str| Recipient::plain(Mailbox::parse(text, false).unwrap());
        Envelope::plain(origin, None, recipients.iter().map(recipient).collect())
    }

    fn received(envelope: &Envelope) -> String {
        let stamp = Stamp { hostname: "mx.test", id: QueueId(1), envelope, date: "Sun, 22 Nov 2026 10:00:00 +0000" };
        let mut out = Vec::new();
        stamp.received(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn received_tells_the_way_of_the_message() {
        assert_eq!(
            received(&envelope("client.test", &["bob@weir.test"])),
            "Received: from client.test ([IPv6:2001:db8::1])\r\n\tby mx.test (Weir) with ESMTPSA id 0000000000001\
             \r\n\t(TLSv1.3 TLS13_AES_256_GCM_SHA384)\r\n\tfor <bob@weir.test>; Sun, 22 Nov 2026 10:00:00 +0000\r\n"
        );
    }

    #[test]
    fn no_blind_copy_is_told_and_no_field_forged() {
        let text = received(&envelope("a\r\nBcc: x) (y", &["a@weir.test", "b@weir.test"]));
        assert!(!text.contains("for <"), "{text}");
        assert!(text.starts_with("Received: from a??Bcc: x? ?y ("), "{text}");
    }
}
