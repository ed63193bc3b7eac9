//! What the journal says of a message: the coding of accepted records. Pure.
//!
//! An accepted record begins with an index part, enough to queue the message, so that recovery never decodes an envelope;
//! behind it come the envelope, the header fields in front, and the verdict.

use std::net::IpAddr;
use std::sync::Arc;

use super::codec::{Reader, Writer};
use super::queue::{Disposition, NewMessage};
use crate::wire::address::Mailbox;
use crate::wire::envelope::{BodyType, Envelope, Notify, Origin, Recipient, Return};

/// The index part of an accepted record.
#[derive(Clone, Debug)]
pub(super) struct IndexPart<'a> {
    pub(super) id: u64,
    pub(super) accepted_ms: u64,
    pub(super) disposition: u8,
    pub(super) reason: &'a str,
    pub(super) sender: &'a str,
    pub(super) sender_domain: &'a str,
    pub(super) null_sender: bool,
    pub(super) names: Vec<&'a str>,
    /// For each recipient the destination and the domain, as indexes into `names`.
    pub(super) recipients: Vec<(u32, u32)>,
}

pub(super) const DELIVER: u8 = 0;
pub(super) const HOLD: u8 = 1;
pub(super) const QUARANTINE: u8 = 2;

fn disposition_code(disposition: &Disposition) -> (u8, &str) {
    match disposition {
        Disposition::Deliver => (DELIVER, ""),
        Disposition::Hold(why) => (HOLD, why),
        Disposition::Quarantine(why) => (QUARANTINE, why),
        Disposition::Discard(why) => (3, why),
    }
}

/// Who must share fairly with others: the login, else the reverse-path's domain, else nobody in particular.
pub(super) fn sender_key(envelope: &Envelope) -> &str {
    match (&envelope.origin.login, &envelope.reverse_path) {
        (Some(login), _) => login,
        (None, Some(path)) => path.domain(),
        (None, None) => "",
    }
}

/// The meta part of an accepted record.
pub(super) fn write_accepted(message: &NewMessage) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + message.prefix.len());
    let mut w = Writer(&mut out);
    let (code, reason) = disposition_code(&message.disposition);
    w.fixed(message.id.0);
    w.number(message.id.0 >> 20);
    w.byte(code);
    w.text(reason);
    w.text(sender_key(&message.envelope));
    w.text(message.envelope.reverse_path.as_ref().map_or("", |path| path.domain()));
    w.byte(message.envelope.reverse_path.is_none() as u8);
    write_names(&mut w, message);
    write_envelope(&mut w, &message.envelope);
    w.bytes(&message.prefix);
    w.text(&message.verdict);
    out
}

fn write_names(w: &mut Writer, message: &NewMessage) {
    let mut names: Vec<&str> = Vec::new();
    let mut pairs = Vec::with_capacity(message.destinations.len());
    let mut intern = |name| match names.iter().rposition(|n| *n == name) {
        Some(known) => known,
        None => {
            names.push(name);
            names.len() - 1
        }
    };
    for (recipient, destination) in message.envelope.recipients.iter().zip(&message.destinations) {
        pairs.push((intern(destination), intern(recipient.mailbox.domain())));
    }
    w.number(names.len() as u64);
    names.iter().for_each(|name| w.text(name));
    w.number(pairs.len() as u64);
    for (destination, domain) in pairs {
        w.number(destination as u64);
        w.number(domain as u64);
    }
}

/// Reads the index part; `r` stands behind it afterwards.
pub(super) fn read_index<'a>(r: &mut Reader<'a>) -> Option<IndexPart<'a>> {
    let id = r.fixed()?;
    let accepted_ms = r.number()?;
    let (disposition, reason, sender, sender_domain) = (r.byte()?, r.text()?, r.text()?, r.text()?);
    let null_sender = r.byte()? != 0;
    let count = r.count()?;
    let names = (0..count).map(|_| r.text()).collect::<Option<Vec<_>>>()?;
    let count = r.count()?;
    let known = |n: u32| ((n as usize) < names.len()).then_some(n);
    let recipients = (0..count)
        .map(|_| Some((r.small().and_then(known)?, r.small().and_then(known)?)))
        .collect::<Option<Vec<_>>>()?;
    Some(IndexPart { id, accepted_ms, disposition, reason, sender, sender_domain, null_sender, names, recipients })
}

/// All of an accepted record but its content.
pub(super) struct Stored {
    pub(super) id: u64,
    pub(super) envelope: Envelope,
    pub(super) prefix: Arc<[u8]>,
    pub(super) verdict: String,
}

pub(super) fn read_accepted(meta: &[u8]) -> Option<Stored> {
    let mut r = Reader(meta);
    let index = read_index(&mut r)?;
    let envelope = read_envelope(&mut r)?;
    let (prefix, verdict) = (r.bytes()?.into(), r.text()?.to_owned());
    (envelope.recipients.len() == index.recipients.len()).then_some(Stored { id: index.id, envelope, prefix, verdict })
}

/// Protocol names of RFC 3848 and RFC 6531 §4.3, and those of mail that is our own.
const PROTOCOLS: [&str; 19] = [
    "SMTP",
    "ESMTP",
    "ESMTPA",
    "ESMTPS",
    "ESMTPSA",
    "LMTP",
    "LMTPA",
    "LMTPS",
    "LMTPSA",
    "UTF8SMTP",
    "UTF8SMTPA",
    "UTF8SMTPS",
    "UTF8SMTPSA",
    "UTF8LMTP",
    "UTF8LMTPA",
    "UTF8LMTPS",
    "UTF8LMTPSA",
    "local",
    "HTTP",
];

fn write_envelope(w: &mut Writer, envelope: &Envelope) {
    let origin = &envelope.origin;
    match origin.ip {
        IpAddr::V4(ip) => w.bytes(&ip.octets()),
        IpAddr::V6(ip) => w.bytes(&ip.octets()),
    }
    w.number(origin.port.into());
    w.text(&origin.helo);
    w.optional(origin.host.as_deref());
    w.optional(origin.login.as_deref());
    w.optional(origin.tls.as_deref());
    w.text(origin.protocol);
    w.text(&origin.listener);
    w.optional(envelope.reverse_path.as_ref().map(Mailbox::as_str));
    w.number(envelope.recipients.len() as u64);
    for recipient in &envelope.recipients {
        w.text(recipient.mailbox.as_str());
        w.byte(recipient.notify.map_or(0, |n| 8 | n.success as u8 | (n.failure as u8) << 1 | (n.delay as u8) << 2));
        w.optional(recipient.orcpt.as_deref());
    }
    w.byte(envelope.body as u8);
    w.byte(envelope.smtputf8 as u8 | (envelope.require_tls as u8) << 1);
    w.byte(envelope.ret.map_or(0, |ret| if ret == Return::Full { 1 } else { 2 }));
    w.optional(envelope.envid.as_deref());
}

fn read_envelope(r: &mut Reader) -> Option<Envelope> {
    let origin = read_origin(r)?;
    let reverse_path = match r.optional()? {
        Some(text) => Some(Mailbox::parse(text, true).ok()?),
        None => None,
    };
    let count = r.count()?;
    let recipients = (0..count).map(|_| read_recipient(r)).collect::<Option<Vec<_>>>()?;
    let body = match r.byte()? {
        0 => BodyType::SevenBit,
        1 => BodyType::EightBitMime,
        _ => BodyType::BinaryMime,
    };
    let bits = r.byte()?;
    let ret = match r.byte()? {
        0 => None,
        1 => Some(Return::Full),
        _ => Some(Return::Headers),
    };
    let envid = r.optional()?.map(str::to_owned);
    Some(Envelope {
        origin,
        reverse_path,
        recipients,
        body,
        smtputf8: bits & 1 != 0,
        require_tls: bits & 2 != 0,
        ret,
        envid,
    })
}

fn read_origin(r: &mut Reader) -> Option<Origin> {
    let ip = match r.bytes()? {
        ip if ip.len() == 4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        ip => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
    };
    let port = r.small()?.try_into().ok()?;
    let helo = r.text()?.to_owned();
    let host = r.optional()?.map(str::to_owned);
    let login = r.optional()?.map(Arc::from);
    let tls = r.optional()?.map(str::to_owned);
    let protocol = r.text()?;
    // The name is a `&'static str` elsewhere; one that a later version made is kept as plain ESMTP.
    let protocol = PROTOCOLS.iter().find(|p| **p == protocol).copied().unwrap_or("ESMTP");
    Some(Origin { ip, port, helo, host, login, tls, protocol, listener: r.text()?.into() })
}

fn read_recipient(r: &mut Reader) -> Option<Recipient> {
    let mailbox = Mailbox::parse(r.text()?, true).ok()?;
    let bits = r.byte()?;
    let notify = Notify { success: bits & 1 != 0, failure: bits & 2 != 0, delay: bits & 4 != 0 };
    let orcpt = r.optional()?.map(str::to_owned);
    Some(Recipient { mailbox, notify: (bits & 8 != 0).then_some(notify), orcpt })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::content::Content;
    use crate::base::id::QueueId;

    #[test]
    fn an_accepted_record_reads_back_as_itself() {
        let mut recipient = Recipient::plain(Mailbox::parse("b@example.net", false).unwrap());
        recipient.notify = Some(Notify::DEFAULT);
        recipient.orcpt = Some("rfc822;b@example.net".into());
        let envelope = Envelope {
            origin: Origin {
                ip: "2001:db8::1".parse().unwrap(),
                port: 25,
                helo: "client".into(),
                host: None,
                login: Some("alice".into()),
                tls: Some("TLSv1.3".into()),
                protocol: "ESMTPSA",
                listener: "mx".into(),
            },
            reverse_path: Some(Mailbox::parse("a@example.org", false).unwrap()),
            recipients: vec![recipient],
            body: BodyType::EightBitMime,
            smtputf8: true,
            require_tls: true,
            ret: Some(Return::Headers),
            envid: Some("id".into()),
        };
        let message = NewMessage {
            id: QueueId(5 << 20),
            envelope: Arc::new(envelope.clone()),
            destinations: vec!["smtp://next".into()],
            prefix: b"Received: x\r\n"[..].into(),
            content: Content::from_bytes(*b"x"),
            disposition: Disposition::Hold("why".into()),
            verdict: "ok".into(),
        };
        let meta = write_accepted(&message);
        let stored = read_accepted(&meta).unwrap();
        assert_eq!(
            (stored.envelope, &stored.prefix[..], stored.verdict.as_str()),
            (envelope, &message.prefix[..], "ok")
        );
        let index = read_index(&mut Reader(&meta)).unwrap();
        assert_eq!((index.id, index.accepted_ms, index.disposition, index.reason), (5 << 20, 5, HOLD, "why"));
        assert_eq!((index.sender, index.names), ("alice", vec!["smtp://next", "example.net"]));
        for cut in 0..meta.len() {
            assert!(read_accepted(&meta[..cut]).is_none());
        }
    }
}
