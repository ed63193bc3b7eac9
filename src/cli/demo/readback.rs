//! Reads what was delivered and holds it against what was sent. I/O: POP3; the comparison itself is pure.
//!
//! A stored message must be fields that a gateway may add, then the content as it was sent, byte for byte; only fields
//! that the gateway must not let in from outside (`Return-Path` and its own marks) are left out of what was sent.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::pop3::{Pop3, Tls};
use super::samples::{PASSWORD, USERS};
use super::world::{HOST, World};
use crate::base::id::QueueId;
use crate::base::secret::Secret;
use crate::deliver::transport::tls::ClientTls;
use crate::wire::header::{fields, forged_fields, kept_parts};

/// Reading one maildrop on loopback takes less than a second.
const MAILDROP_WAIT_MAX: Duration = Duration::from_secs(60);
/// Fields that may stand in front of every message.
const ADDED: [&str; 9] = [
    "Return-Path",
    "Delivered-To",
    "Received",
    "Authentication-Results",
    "Received-SPF",
    "X-Spam-Flag",
    "X-Spam-Level",
    "X-Spam-Status",
    "X-Weir-Id",
];
/// Fields that a submitted message gets: our signatures, and what it lacks.
const ADDED_ON_SUBMISSION: [&str; 3] = ["Date", "DKIM-Signature", "Message-ID"];

/// One message that must be in one mailbox.
pub struct Expected<'a> {
    /// Position among the samples.
    pub sample: usize,
    /// Whose mailbox.
    pub user: &'static str,
    /// Its id in the gateway.
    pub id: QueueId,
    /// The reverse-path; empty for the null one.
    pub from: &'a str,
    /// As it was sent.
    pub content: &'a [u8],
    /// It came from a login.
    pub submitted: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Messages that are as they must be.
    pub good: usize,
    /// Bytes of all messages read.
    pub bytes: usize,
    /// What the gateway wrote about a sample's message.
    pub reasons: BTreeMap<usize, String>,
    /// What the gateway found out about who sent it.
    pub identities: BTreeMap<usize, String>,
    /// What is wrong, with the sample that it is about.
    pub faults: Vec<(usize, String)>,
    /// What is wrong and is no sample's.
    pub strange: Vec<String>,
}

/// The user who reads mail for a recipient: role addresses go to the first user (RFC 2142 §5).
pub fn reader_of(recipient: &str) -> &'static str {
    let local = recipient.rsplit_once('@').map_or(recipient, |(local, _)| local);
    USERS.into_iter().find(|user| *user == local).unwrap_or(USERS[0])
}

/// Reads all mailboxes.
pub async fn read_all(world: &World, expected: &[Expected<'_>]) -> Findings {
    let mut findings = Findings::default();
    for (place, user) in USERS.into_iter().enumerate() {
        // Both ways to begin TLS are walked.
        let (name, tls) = if place % 2 == 0 { ("pop3", Tls::Stls) } else { ("pop3s", Tls::Implicit) };
        match timeout(MAILDROP_WAIT_MAX, maildrop(world, user, name, tls)).await {
            Ok(Ok(mails)) => findings.compare(user, expected, &mails),
            Ok(Err(error)) => findings.strange.push(format!("{user}'s mailbox can't be read: {error}")),
            Err(_) => findings.strange.push(format!("{user}'s mailbox takes too long to read")),
        }
    }
    findings
}

/// The message `id` as it lies in the mailbox of `user`.
/// # Errors
/// In words.
pub async fn stored(world: &World, user: &str, id: QueueId) -> Result<Vec<u8>, String> {
    let mails = timeout(MAILDROP_WAIT_MAX, maildrop(world, user, "pop3", Tls::Stls)).await;
    let mails = mails.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let found = mails.into_iter().find(|mail| id_of(mail).as_deref() == Some(&id.to_string()));
    found.ok_or_else(|| format!("{id} is not in {user}'s mailbox"))
}

/// Our Authentication-Results, in one line, without our name.
fn identity(mail: &[u8]) -> Option<String> {
    let field = fields(mail).find(|field| field.is("Authentication-Results"))?;
    let text = String::from_utf8_lossy(field.value);
    Some(text.split_once(';')?.1.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

async fn maildrop(world: &World, user: &str, listener: &str, tls: Tls) -> io::Result<Vec<Vec<u8>>> {
    let connector = ClientTls::with_roots(Ok(world.roots.clone())).connector(true);
    let connector = connector.map_err(|why| io::Error::other(why.to_string()))?;
    let mut session = Pop3::open(world.address(listener), tls, &connector, HOST).await?;
    session.login(user, &Secret::new(PASSWORD)).await?;
    let messages = session.messages().await?;
    session.quit().await?;
    Ok(messages)
}

impl Findings {
    /// Holds one mailbox against what must be in it.
    fn compare(&mut self, user: &str, expected: &[Expected<'_>], mails: &[Vec<u8>]) {
        let mut open: BTreeMap<String, &Expected<'_>> = expected
            .iter()
            .filter(|wanted| wanted.user == user)
            .map(|wanted| (wanted.id.to_string(), wanted))
            .collect();
        for mail in mails {
            self.bytes += mail.len();
            let Some(wanted) = id_of(mail).and_then(|id| open.remove(&id)) else {
                self.strange.push(format!("{user} has a message of {} bytes that was not sent, or twice", mail.len()));
                continue;
            };
            match wanted.check(mail) {
                Ok(reason) => {
                    self.good += 1;
                    self.identities.extend(identity(mail).map(|found| (wanted.sample, found)));
                    self.reasons.insert(wanted.sample, reason);
                }
                Err(why) => self.faults.push((wanted.sample, format!("in {user}'s mailbox: {why}"))),
            }
        }
        self.faults.extend(open.values().map(|lost| (lost.sample, format!("is not in {user}'s mailbox"))));
    }
}

/// The id in the first `Received` field: ours.
fn id_of(mail: &[u8]) -> Option<String> {
    let received = fields(mail).find(|field| field.is("Received"))?;
    let text = String::from_utf8_lossy(received.value);
    text.split_once(" id ")?.1.split_ascii_whitespace().next().map(|id| id.trim_end_matches(';').to_owned())
}

impl Expected<'_> {
    /// The gateway's findings, if the message is as it must be.
    fn check(&self, mail: &[u8]) -> Result<String, String> {
        let content = kept_parts(self.content, &forged_fields(self.content, HOST, !self.submitted)).concat();
        let added = mail.len().checked_sub(content.len());
        let added = added.ok_or_else(|| format!("{} bytes of {} came back", mail.len(), content.len()))?;
        let (prefix, rest) = mail.split_at(added);
        if let Some(at) = rest.iter().zip(&content).position(|(found, sent)| found != sent) {
            return Err(format!("byte {at} of {} is not as it was sent", content.len()));
        }
        let mut walk = fields(prefix);
        for field in walk.by_ref() {
            if !self.may_be_added(|name| field.is(name)) {
                return Err(format!("a field was added: {}", field.name.escape_ascii()));
            }
        }
        if walk.position() != prefix.len() {
            return Err("something other than fields was added".to_owned());
        }
        let path = fields(prefix).find(|field| field.is("Return-Path"));
        match path {
            Some(path) if path.value.trim_ascii() == format!("<{}>", self.from).as_bytes() => {
                Ok(reason(prefix, self.submitted))
            }
            _ => Err("Return-Path is not the sender".to_owned()),
        }
    }

    fn may_be_added(&self, is: impl Fn(&str) -> bool) -> bool {
        ADDED.into_iter().any(&is) || self.submitted && ADDED_ON_SUBMISSION.into_iter().any(&is)
    }
}

/// What the added fields say of the message, in a few words.
fn reason(prefix: &[u8], submitted: bool) -> String {
    let text = |name: &str| {
        let field = fields(prefix).find(|field| field.is(name))?;
        Some(String::from_utf8_lossy(field.value).trim().to_owned())
    };
    let spf = text("Received-SPF").and_then(|value| Some(format!("SPF {}", value.split(' ').next()?)));
    let score = text("X-Spam-Status").and_then(|value| {
        let score = value.split(' ').find_map(|word| word.strip_prefix("score="))?.to_owned();
        Some(format!("score {score}{}", if value.starts_with("Yes") { ": spam" } else { "" }))
    });
    let login = submitted.then(|| "by login".to_owned());
    [login, spf, score].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &[u8] = b"Return-Path: <forged>\r\nSubject: x\r\n\r\nbody\r\n";

    fn expected(submitted: bool) -> Expected<'static> {
        Expected { sample: 3, user: "bob", id: QueueId(7), from: "a@b.example", content: CONTENT, submitted }
    }

    fn stored(prefix: &str, content: &str) -> Vec<u8> {
        format!("Return-Path: <a@b.example>\r\nReceived: from x\r\n\tby y id {}; now\r\n{prefix}{content}", QueueId(7))
            .into()
    }

    #[test]
    fn only_fields_that_a_gateway_adds_may_stand_before_the_same_bytes() {
        let kept = "Subject: x\r\n\r\nbody\r\n";
        assert_eq!(expected(false).check(&stored("", kept)), Ok(String::new()));
        assert_eq!(expected(true).check(&stored("Date: now\r\n", kept)), Ok("by login".into()));
        assert!(expected(false).check(&stored("Date: now\r\n", kept)).unwrap_err().contains("Date"));
        assert!(
            expected(false).check(&stored("", "Subject: x\r\n\r\nbodY\r\n")).unwrap_err().contains("byte 17 of 20")
        );
        assert!(expected(false).check(b"x").unwrap_err().contains("1 bytes of 20"));
        assert!(expected(false).check(&stored("\r\n", kept)).unwrap_err().contains("other than fields"));
    }

    #[test]
    fn what_is_missing_strange_or_twice_is_found() {
        let good = stored("", "Subject: x\r\n\r\nbody\r\n");
        let mut findings = Findings::default();
        findings.compare("bob", &[expected(false)], &[good.clone(), good.clone(), b"Subject: y\r\n\r\n".to_vec()]);
        assert_eq!((findings.good, findings.faults.len(), findings.strange.len()), (1, 0, 2));
        let mut findings = Findings::default();
        findings.compare("bob", &[expected(false)], &[]);
        assert_eq!(findings.faults, [(3, "is not in bob's mailbox".to_owned())]);
    }

    #[test]
    fn the_gateways_own_fields_give_the_reason() {
        let prefix =
            b"Received-SPF: pass (x) receiver=y\r\nX-Spam-Status: Yes, score=5.5 required=5\r\n\ttests=A=5.5\r\n";
        assert_eq!(reason(prefix, false), "SPF pass, score 5.5: spam");
        assert_eq!(reason(b"", true), "by login");
    }

    #[test]
    fn a_role_address_is_the_first_users() {
        assert_eq!(reader_of("jürgen@weir.example"), "jürgen");
        assert_eq!(reader_of("postmaster@weir.example"), "alice");
    }
}
