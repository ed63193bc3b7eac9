//! What becomes of a complete message: facts in, ruling out. Pure.
//!
//! The checks that need no waiting stand here; what `verify` and `filter` found comes in as facts of the same kind.

use std::borrow::Cow;

use crate::config::limits::Limits;
use crate::config::settings::Role;
use crate::spool::queue::Disposition;
use crate::wire::header::{HeaderFacts, fields};
use crate::wire::reply::{Enhanced, Reply};

/// Times that one message may come back to us before it counts as looping: forwarding, a list and a release from
/// quarantine are a few honest ones.
const OWN_HOPS_MAX: u32 = 6;

/// What is known of the content once it is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentFacts {
    /// The header section.
    pub header: HeaderFacts,
    /// `Received` fields that we wrote.
    pub own_hops: u32,
}

impl ContentFacts {
    /// `header` is what the session found in `content`; `hostname` is ours.
    pub fn of(header: HeaderFacts, content: &[u8], hostname: &str) -> Self {
        let own_hops = if header.received == 0 { 0 } else { own_hops(content, hostname) };
        ContentFacts { header, own_hops }
    }
}

fn own_hops(content: &[u8], hostname: &str) -> u32 {
    let mark = format!("by {hostname} (Weir)");
    let is_ours = |value: &[u8]| memchr::memmem::find(value, mark.as_bytes()).is_some();
    fields(content).filter(|field| field.is("Received") && is_ours(field.value)).count() as u32
}

/// What to do, and why; the reason is a word for metrics and logs.
#[derive(Clone, Debug, PartialEq)]
pub enum Ruling {
    /// Keep it and do this with it.
    Keep {
        /// Deliver, hold, quarantine, discard.
        disposition: Disposition,
        /// Why, in a word or a line.
        reason: Cow<'static, str>,
    },
    /// Say no.
    Refuse {
        /// The reply.
        reply: Reply,
        /// Why.
        reason: &'static str,
    },
}

impl Ruling {
    fn refuse(code: u16, enhanced: Enhanced, text: &'static str, reason: &'static str) -> Self {
        Ruling::Refuse { reply: Reply::fixed(code, enhanced, text), reason }
    }

    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            Ruling::Keep { reason, .. } => reason,
            Ruling::Refuse { reason, .. } => reason,
        }
    }
}

/// Rules on what the content itself shows: loops and header sections beyond the bound.
pub fn at_content(facts: &ContentFacts, limits: &Limits) -> Ruling {
    if facts.header.received > limits.hops {
        return Ruling::refuse(554, Enhanced(5, 4, 6), "Too many hops: the message is looping", "hops");
    }
    if facts.own_hops > OWN_HOPS_MAX {
        return Ruling::refuse(554, Enhanced(5, 4, 6), "The message came back here too often: it is looping", "loop");
    }
    if facts.header.bytes > limits.header_bytes as usize {
        return Ruling::refuse(552, Enhanced(5, 3, 4), "The header section is too large", "header_bytes");
    }
    Ruling::Keep { disposition: Disposition::Deliver, reason: "ordinary".into() }
}

/// True for mail that begins its way here, which is completed where it lacks fields (RFC 6409 §8): another host's mail is
/// not ours to mend.
pub fn is_submission(role: Role, has_login: bool) -> bool {
    has_login || role == Role::Submission
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts_of(content: &[u8], hostname: &str) -> ContentFacts {
        ContentFacts::of(HeaderFacts::of(content), content, hostname)
    }

    fn reason(content: &str) -> String {
        let limits = Limits { hops: 3, header_bytes: 2000, ..Limits::default() };
        at_content(&facts_of(content.as_bytes(), "mx.test"), &limits).reason().to_owned()
    }

    #[test]
    fn loops_are_seen_by_hops_and_by_our_own_marks() {
        let hop = "Received: from a by b; date\r\n";
        assert_eq!(reason(&hop.repeat(3)), "ordinary");
        assert_eq!(reason(&hop.repeat(4)), "hops");
        let ours = "Received: from a\r\n\tby mx.test (Weir) with SMTP; date\r\n";
        let facts = facts_of(ours.repeat(7).as_bytes(), "mx.test");
        assert_eq!(at_content(&facts, &Limits::default()).reason(), "loop");
        assert_eq!(
            at_content(&facts_of(ours.repeat(7).as_bytes(), "mx2.test"), &Limits::default()).reason(),
            "ordinary"
        );
    }

    #[test]
    fn a_header_section_has_a_bound() {
        assert_eq!(reason(&format!("Subject: {}\r\n\r\nbody", "x".repeat(3000))), "header_bytes");
        assert_eq!(reason(&format!("Subject: x\r\n\r\n{}", "x".repeat(3000))), "ordinary");
    }
}
