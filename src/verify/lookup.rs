//! The seam between identity checks and DNS: what they ask, what they may be told. Pure; implementations do the I/O.
//!
//! An answer is never guessed: SERVFAIL and time-outs are [`Answer::Temporary`], and only a server's word makes
//! [`Answer::NoData`] or [`Answer::NxDomain`]. [`Bounded`] holds the two bounds of one message: look-ups and time.

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use tokio::time::Instant;

use super::asked::{ANSWER_CHARS_MAX, Log};

/// RFC 1035 §2.3.4, without the root's dot.
pub const NAME_BYTES_MAX: usize = 253;
/// RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// What DNS said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// At least one record.
    Found(T),
    /// The name exists, but has no such record.
    NoData,
    /// The name does not exist, nor anything below it (RFC 8020).
    NxDomain,
    /// SERVFAIL, time-out, or a bound of ours: nothing is known.
    Temporary,
}

impl<T> Answer<T> {
    /// A void look-up (RFC 7208 §4.6.4).
    pub fn is_void(&self) -> bool {
        matches!(self, Answer::NoData | Answer::NxDomain)
    }

    /// What was found, if anything.
    pub fn found(self) -> Option<T> {
        match self {
            Answer::Found(value) => Some(value),
            _ => None,
        }
    }

    /// The same answer about something made of what was found.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Answer::Found(value) => Answer::Found(f(value)),
            Answer::NoData => Answer::NoData,
            Answer::NxDomain => Answer::NxDomain,
            Answer::Temporary => Answer::Temporary,
        }
    }
}

/// Asks DNS. Names come without a trailing dot, in A-labels; CNAMEs are followed by the implementation.
pub trait Lookup: Send + Sync + 'static {
    /// TXT records, the strings of each joined (RFC 7208 §3.3), as bytes.
    fn txt(&self, name: &str) -> impl Future<Output = Answer<Vec<Vec<u8>>>> + Send;
    /// Hosts of the MX records by preference.
    fn mx(&self, name: &str) -> impl Future<Output = Answer<Vec<String>>> + Send;
    /// IPv4 addresses.
    fn a(&self, name: &str) -> impl Future<Output = Answer<Vec<Ipv4Addr>>> + Send;
    /// IPv6 addresses.
    fn aaaa(&self, name: &str) -> impl Future<Output = Answer<Vec<Ipv6Addr>>> + Send;
    /// Names of an address.
    fn ptr(&self, ip: IpAddr) -> impl Future<Output = Answer<Vec<String>>> + Send;
}

/// A name that can be asked for: labels of 1 to 63 bytes, 253 in all.
pub fn is_askable(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= NAME_BYTES_MAX && name.split('.').all(|label| (1..=LABEL_BYTES_MAX).contains(&label.len()))
}

/// One message's share of look-ups and time over any [`Lookup`].
#[derive(Debug)]
pub struct Bounded<L> {
    inner: Arc<L>,
    left: Arc<AtomicU32>,
    until: Instant,
    log: Arc<Log>,
}

impl<L: Lookup> Bounded<L> {
    /// At most `lookups` questions, all answered before `until`.
    pub fn new(inner: Arc<L>, lookups: u32, until: Instant) -> Self {
        Bounded { inner, left: Arc::new(AtomicU32::new(lookups)), until, log: Arc::default() }
    }

    /// The same share and the same memory with a time of its own: what is still asked there counts here too.
    pub fn until(&self, until: Instant) -> Self {
        Bounded { inner: self.inner.clone(), left: self.left.clone(), until, log: self.log.clone() }
    }

    /// What was asked so far.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Look-ups that are left.
    pub fn left(&self) -> u32 {
        self.left.load(Ordering::Relaxed)
    }

    async fn ask<T>(&self, question: impl Future<Output = Answer<T>> + Send) -> Answer<T> {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if taken.is_err() {
            return Answer::Temporary;
        }
        let mut question = std::pin::pin!(question);
        // Most answers are in the cache: a timer is made, and its memory taken, only for those that are not.
        let at_once = poll_fn(|cx| Poll::Ready(question.as_mut().poll(cx))).await;
        match at_once {
            Poll::Ready(answer) => answer,
            Poll::Pending => Box::pin(tokio::time::timeout_at(self.until, question)).await.unwrap_or(Answer::Temporary),
        }
    }

    async fn ask_name<T>(&self, name: &str, question: impl Future<Output = Answer<T>> + Send) -> Answer<T> {
        // A name that can't be written in a query can't exist either (RFC 7208 §4.3 asks for the same).
        if is_askable(name) { self.ask(question).await } else { Answer::NxDomain }
    }
}

impl<L: Lookup> Lookup for Bounded<L> {
    async fn txt(&self, name: &str) -> Answer<Vec<Vec<u8>>> {
        self.log
            .ask(question("TXT", name), self.ask_name(name, self.inner.txt(name)), |found, out| texts(found, out))
            .await
    }
    async fn mx(&self, name: &str) -> Answer<Vec<String>> {
        self.log
            .ask(question("MX", name), self.ask_name(name, self.inner.mx(name)), |found, out| words(found, out))
            .await
    }
    async fn a(&self, name: &str) -> Answer<Vec<Ipv4Addr>> {
        self.log.ask(question("A", name), self.ask_name(name, self.inner.a(name)), |found, out| words(found, out)).await
    }
    async fn aaaa(&self, name: &str) -> Answer<Vec<Ipv6Addr>> {
        self.log
            .ask(question("AAAA", name), self.ask_name(name, self.inner.aaaa(name)), |found, out| words(found, out))
            .await
    }
    async fn ptr(&self, ip: IpAddr) -> Answer<Vec<String>> {
        self.log.ask(format!("PTR {ip}"), self.ask(self.inner.ptr(ip)), |found, out| words(found, out)).await
    }
}

fn question(kind: &str, name: &str) -> String {
    [kind, name].join(" ")
}

fn words<T: ToString>(found: &[T], out: &mut String) {
    *out = found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
}

/// Each in quotes; of a long one no more than is remembered.
fn texts(found: &[Vec<u8>], out: &mut String) {
    for record in found {
        if out.len() >= ANSWER_CHARS_MAX {
            return;
        }
        out.push_str(if out.is_empty() { "\"" } else { " \"" });
        let shown = &record[..record.len().min(ANSWER_CHARS_MAX)];
        match std::str::from_utf8(shown) {
            Ok(plain) if shown.iter().all(|b| matches!(b, b' '..=b'~') && !b"\\\"'".contains(b)) => out.push_str(plain),
            _ => out.push_str(&shown.escape_ascii().to_string()),
        }
        out.push('"');
    }
}

/// Waits for all of a few futures at once; results in the order given.
pub async fn join_all<'a, T: 'a>(futures: Vec<Pin<Box<dyn Future<Output = T> + Send + 'a>>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.into_iter().map(Some).collect();
    let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (slot, result) in waiting.iter_mut().zip(&mut done) {
            let Some(future) = slot else { continue };
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                *result = Some(value);
                *slot = None;
            }
        }
        if waiting.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().map(|result| result.expect("every future is done")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_dns_cannot_carry_are_not_asked() {
        assert!(is_askable("a.example"));
        assert!(is_askable("a.example."));
        assert!(!is_askable("a..example"));
        assert!(!is_askable(""));
        assert!(!is_askable(&format!("{}.example", "x".repeat(64))));
        assert!(is_askable(&"x.".repeat(127)));
        assert!(!is_askable(&"x.".repeat(128)));
    }
}
