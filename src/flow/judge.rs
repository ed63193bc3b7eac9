//! What becomes of a complete message: facts in, ruling out. Pure.
//!
//! The checks that need no waiting stand here; what `verify` and `filter` found comes in as facts of the same kind.

use std::borrow::Cow;

use crate::config::settings::Role;
use crate::spool::queue::Disposition;
use crate::wire::header::{HeaderFacts, fields};
use crate::wire::reply::{Enhanced, Reply};

/// Times that one message may come back to us before it counts as looping: forwarding, a list and a release from
/// quarantine are a few honest ones.
const OWN_HOPS_MAX: u32 = 6;

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
    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            Ruling::Keep { reason, .. } => reason,
            Ruling::Refuse { reason, .. } => reason,
        }
    }
}

/// Rules on what the content itself shows: whether it came back to us, who are `hostname`, too often (RFC 5321 §6.3). Hops of
/// all hosts and the size of the header section are the session's to count.
pub fn at_content(header: &HeaderFacts, content: &[u8], hostname: &str) -> Ruling {
    if header.received > OWN_HOPS_MAX && own_hops(content, hostname) > OWN_HOPS_MAX {
        let reply = "The message came back here too often: it is looping";
        return Ruling::Refuse { reply: Reply::fixed(554, Enhanced(5, 4, 6), reply), reason: "loop" };
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

    #[test]
    fn loops_are_seen_by_our_own_marks() {
        let reason = |count: usize, hostname: &str| {
            let content = "Received: from a\r\n\tby mx.test (Weir) with SMTP; date\r\n".repeat(count);
            at_content(&HeaderFacts::of(content.as_bytes()), content.as_bytes(), hostname).reason().to_owned()
        };
        assert_eq!(reason(OWN_HOPS_MAX as usize, "mx.test"), "ordinary");
        assert_eq!(reason(OWN_HOPS_MAX as usize + 1, "mx.test"), "loop");
        assert_eq!(reason(OWN_HOPS_MAX as usize + 1, "mx2.test"), "ordinary");
    }
}
