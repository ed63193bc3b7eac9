//! How a message goes to a server: what it needs against what is offered, and the commands that say so. Pure.
//!
//! RFC 1870 (SIZE), RFC 3030 (BINARYMIME), RFC 3461 (DSN), RFC 6152 (8BITMIME), RFC 6531 (SMTPUTF8), RFC 8689 (REQUIRETLS). What can't go is
//! refused here, before a word is said. Whether content is converted for a server without 8BITMIME or BINARYMIME is the driver's affair.

use std::io::Write as _;

use super::capabilities::Capabilities;
use super::content::ContentNeeds;
use crate::wire::address::Mailbox;
use crate::wire::envelope::{BodyType, Envelope, Notify, Recipient, Return};
use crate::wire::reply::{Enhanced, Reply};
use crate::wire::xtext;

/// How the content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Dot-stuffed, ended by the final dot; `repair`: bare CR and LF become CR LF, long lines are broken.
    Data {
        /// The content has bare CR or LF, or lines that are too long.
        repair: bool,
    },
    /// `BDAT … LAST`, as it is.
    Bdat,
    /// DATA was answered 354 though nobody was accepted: just the final dot.
    LoneDot,
}

/// Why a message cannot go to this server, before a word is said: the reply that its sender's report will quote.
pub type Unfit = Reply;

/// The line to the server, as far as REQUIRETLS cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// TLS, on the terms that the message asks for.
    Encrypted,
    /// It does not leave this machine.
    Local,
    /// Neither.
    Plain,
}

/// How a message goes to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    tail: Tail,
    require_tls: bool,
    body: Option<&'static str>,
    utf8: bool,
    bytes: u64,
}

const NOT_UTF8: Unfit =
    Reply::fixed(553, Enhanced(5, 6, 7), "The next hop does not take internationalized addresses (SMTPUTF8)");
const NOT_REQUIRETLS: Unfit = Reply::fixed(550, Enhanced(5, 7, 30), "The next hop does not offer REQUIRETLS");
const TOO_LARGE: Unfit = Reply::fixed(552, Enhanced(5, 3, 4), "The message is larger than the next hop takes");
const NOT_BINARY: Unfit =
    Reply::fixed(554, Enhanced(5, 6, 3), "The next hop does not take binary content (BINARYMIME)");
const NUL: Unfit = Reply::fixed(554, Enhanced(5, 6, 0), "The content has NUL bytes, which the next hop does not take");

impl Plan {
    /// Decides how `envelope` with content of these needs and `bytes` goes to `to` over a server that offers `offers`.
    /// # Errors
    /// The reply for the sender when the server can't take the message at all.
    pub fn new<'a>(
        envelope: &Envelope,
        mut to: impl Iterator<Item = &'a Recipient>,
        needs: ContentNeeds,
        bytes: u64,
        offers: &Capabilities,
        link: Link,
    ) -> Result<Self, Unfit> {
        let is_utf8 = |mailbox: &Mailbox| !mailbox.as_str().is_ascii();
        let utf8 = needs.utf8_header && envelope.smtputf8
            || envelope.reverse_path.as_ref().is_some_and(is_utf8)
            || to.any(|recipient| is_utf8(&recipient.mailbox));
        if utf8 && !offers.smtputf8 {
            return Err(NOT_UTF8);
        }
        let require_tls = envelope.require_tls && link == Link::Encrypted && offers.require_tls;
        if envelope.require_tls && !require_tls && link != Link::Local {
            return Err(NOT_REQUIRETLS);
        }
        if offers.size.is_some_and(|limit| bytes > limit) {
            return Err(TOO_LARGE);
        }
        let binary = needs.binary || needs.nul;
        if binary && !offers.binary_mime {
            return Err(if needs.nul { NUL } else { NOT_BINARY });
        }
        let tail = if offers.chunking { Tail::Bdat } else { Tail::Data { repair: needs.bare || needs.long_line } };
        let eight_bit = needs.eight_bit || envelope.body == BodyType::EightBitMime;
        let body = match () {
            () if binary => Some(" BODY=BINARYMIME"),
            () if eight_bit && offers.eight_bit_mime => Some(" BODY=8BITMIME"),
            () => None,
        };
        Ok(Plan { tail, require_tls, body, utf8, bytes })
    }

    /// How the content goes.
    pub fn tail(&self) -> Tail {
        self.tail
    }
}

/// `MAIL`, with what the server offers for it.
pub(super) fn mail_command(offers: &Capabilities, plan: &Plan, envelope: &Envelope) -> Vec<u8> {
    let mut line = Vec::with_capacity(96);
    let path = envelope.reverse_path.as_ref().map_or("", Mailbox::as_str);
    put(&mut line, format_args!("MAIL FROM:<{path}>"));
    if offers.size.is_some() {
        put(&mut line, format_args!(" SIZE={}", plan.bytes));
    }
    line.extend_from_slice(plan.body.unwrap_or_default().as_bytes());
    if plan.utf8 {
        line.extend_from_slice(b" SMTPUTF8");
    }
    if plan.require_tls {
        line.extend_from_slice(b" REQUIRETLS");
    }
    if offers.dsn {
        if let Some(ret) = envelope.ret {
            put(&mut line, format_args!(" RET={}", if ret == Return::Full { "FULL" } else { "HDRS" }));
        }
        if let Some(envid) = &envelope.envid {
            put(&mut line, format_args!(" ENVID={}", xtext::encode(envid)));
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// `RCPT`, likewise.
pub(super) fn rcpt_command(offers: &Capabilities, recipient: &Recipient) -> Vec<u8> {
    let mut line = Vec::with_capacity(64);
    put(&mut line, format_args!("RCPT TO:<{}>", recipient.mailbox));
    if offers.dsn {
        if let Some(notify) = recipient.notify {
            put(&mut line, format_args!(" NOTIFY={}", notify_words(notify)));
        }
        // RFC 6533's utf-8 addresses may hold what xtext can't; they are left out rather than mangled.
        if let Some(orcpt) = recipient.orcpt.as_ref().filter(|text| text.is_ascii())
            && let Some((kind, address)) = orcpt.split_once(';')
        {
            put(&mut line, format_args!(" ORCPT={kind};{}", xtext::encode(address)));
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

fn put(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    line.write_fmt(text).expect("a Vec takes any write");
}

fn notify_words(notify: Notify) -> String {
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let chosen: Vec<&str> = words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
    if chosen.is_empty() { "NEVER".into() } else { chosen.join(",") }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wire::envelope::Origin;

    pub(in crate::smtp::client) fn envelope(recipients: usize) -> Envelope {
        let mailbox = |n| Mailbox::parse(&format!("r{n}@b.example"), false).unwrap();
        let to = (0..recipients).map(|n| Recipient::plain(mailbox(n))).collect();
        Envelope::plain(Origin::local("relay"), None, to)
    }

    #[test]
    fn parameters_go_only_where_they_are_offered() {
        let mut envelope = envelope(1);
        envelope.envid = Some("a+b c".into());
        envelope.ret = Some(Return::Headers);
        envelope.body = BodyType::EightBitMime;
        envelope.recipients[0].notify = Some(Notify { success: true, failure: true, delay: false });
        envelope.recipients[0].orcpt = Some("rfc822;x=y@b.example".into());
        let all = Capabilities { dsn: true, eight_bit_mime: true, ..Capabilities::default() };
        let line = |offers: &Capabilities| {
            let needs = ContentNeeds::default();
            let plan = Plan::new(&envelope, envelope.recipients.iter(), needs, 9, offers, Link::Plain).unwrap();
            let mut line = mail_command(offers, &plan, &envelope);
            line.extend(rcpt_command(offers, &envelope.recipients[0]));
            String::from_utf8(line).unwrap().replace("\r\n", "|")
        };
        let full = "MAIL FROM:<> BODY=8BITMIME RET=HDRS ENVID=a+2Bb+20c|RCPT TO:<r0@b.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x+3Dy@b.example|";
        assert_eq!(line(&all), full);
        assert_eq!(line(&Capabilities::default()), "MAIL FROM:<>|RCPT TO:<r0@b.example>|");
    }

    #[test]
    fn what_a_server_can_not_take_is_refused_before_a_word() {
        let plain = Capabilities::default();
        let binary = Capabilities { chunking: true, binary_mime: true, ..Capabilities::default() };
        let small = Capabilities { size: Some(5), ..Capabilities::default() };
        let (base, mut secret, mut utf8) = (envelope(1), envelope(1), envelope(1));
        secret.require_tls = true;
        utf8.reverse_path = Some(Mailbox::parse("ä@b.example", true).unwrap());
        let nul = ContentNeeds { nul: true, ..ContentNeeds::default() };
        let bin = ContentNeeds { binary: true, ..ContentNeeds::default() };
        let none = ContentNeeds::default();
        let table = [
            (&base, none, &plain, None),
            (&base, none, &small, Some(Enhanced(5, 3, 4))),
            (&base, nul, &plain, Some(Enhanced(5, 6, 0))),
            (&base, nul, &binary, None),
            (&base, bin, &plain, Some(Enhanced(5, 6, 3))),
            (&base, bin, &binary, None),
            (&utf8, none, &plain, Some(Enhanced(5, 6, 7))),
            (&secret, none, &plain, Some(Enhanced(5, 7, 30))),
        ];
        for (envelope, needs, offers, refusal) in table {
            let plan = Plan::new(envelope, envelope.recipients.iter(), needs, 9, offers, Link::Plain);
            assert_eq!(plan.err().and_then(|reply| reply.enhanced), refusal);
        }
    }
}
