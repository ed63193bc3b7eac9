//! The one entry for flow: begins early, ends bounded. I/O: DNS.
//!
//! SPF starts at MAIL, while content is still coming in; DKIM keys, DMARC and ARC follow at the end of the content. All look-ups
//! of a message share one budget of questions and time, and a message that uses it up gets temporary errors, never "none".

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::lookup::{Bounded, Lookup};
use super::message::Message;
use super::meters::Meters;
use super::spf::{self, SpfResult};
use super::{Results, arc, author, dkim, dmarc};

/// Look-ups of one message: SPF 10 with 10 addresses each and HELO besides stay below; 10 DKIM keys; a few walks.
const LOOKUPS_MAX: u32 = 128;
/// RFC 7208 §4.6.4 asks for at least 20 seconds.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(20);

/// What a session knows before the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The client.
    pub ip: IpAddr,
    /// What it said in HELO or EHLO.
    pub helo: String,
    /// `local-part@domain`; nothing for `<>`.
    pub reverse_path: Option<String>,
}

/// Verifies messages; one for the process.
#[derive(Debug)]
pub struct Verifier<L> {
    dns: Arc<L>,
    receiver: String,
    meters: Meters,
}

/// SPF under way; dropped, it stops.
#[derive(Debug)]
pub struct Begun<L> {
    dns: Arc<Bounded<L>>,
    queries: Arc<Queries>,
    spf: JoinHandle<(SpfResult, Option<SpfResult>)>,
}

impl<L> Begun<L> {
    /// Waits for the look-ups, whose answers are in the resolver's cache then, and for nothing else.
    pub async fn warm(mut self) {
        // A panic is SPF's own and is seen again where the result is needed.
        let _ = (&mut self.spf).await;
    }
}

#[derive(Debug)]
struct Queries {
    helo: spf::Query,
    mail_from: Option<spf::Query>,
}

impl Queries {
    async fn check<L: Lookup>(&self, dns: &Bounded<L>, now: u64) -> (SpfResult, Option<SpfResult>) {
        let mail_from = async {
            match &self.mail_from {
                Some(query) => Some(spf::check(dns, query, now).await),
                None => None,
            }
        };
        tokio::join!(spf::check(dns, &self.helo, now), mail_from)
    }
}

impl<L> Drop for Begun<L> {
    fn drop(&mut self) {
        self.spf.abort();
    }
}

impl<L: Lookup> Verifier<L> {
    /// `receiver` is our own name, for SPF's `%{r}`.
    pub fn new(dns: Arc<L>, receiver: &str, meters: Meters) -> Self {
        Verifier { dns, receiver: receiver.to_owned(), meters }
    }

    /// Begins with what is known at MAIL. Call within the tokio runtime.
    pub fn begin(&self, facts: &Facts) -> Begun<L> {
        let dns = Arc::new(Bounded::new(self.dns.clone(), LOOKUPS_MAX, Instant::now() + LOOKUP_TIME_MAX));
        let helo = spf::Query::helo(facts.ip, &facts.helo, &self.receiver);
        let path = facts.reverse_path.as_deref().filter(|path| !path.is_empty());
        let mail_from = path.map(|path| spf::Query::mail_from(facts.ip, &facts.helo, Some(path), &self.receiver));
        let queries = Arc::new(Queries { helo, mail_from });
        let (budget, asked, now) = (dns.clone(), queries.clone(), now_secs());
        let spf = tokio::spawn(async move { asked.check(&budget, now).await });
        Begun { dns, queries, spf }
    }

    /// Ends with the content.
    pub async fn finish(&self, begun: Begun<L>, message: &Message) -> Results {
        let started = Instant::now();
        let mut begun = begun;
        // The content took as long as it took; what is left gets its own time.
        let dns = Bounded::new(self.dns.clone(), begun.dns.left(), started + LOOKUP_TIME_MAX);
        let now = now_secs();
        let (dkim, arc, spf) = tokio::join!(dkim::check(&dns, message, now), arc::check(&dns, message), &mut begun.spf);
        let (helo, mail_from) = match spf {
            Ok(found) => found,
            // Only a runtime that is shutting down takes the task away; what was not asked is asked again.
            Err(_) => begun.queries.check(&dns, now).await,
        };
        let author = author::author(message);
        let found = author.as_ref().map_err(|error| *error);
        let decides = mail_from.as_ref().unwrap_or(&helo);
        let dmarc = dmarc::check(&dns, found, Some(decides), &dkim, fastrand::u8(0..100)).await;
        let results = Results { helo, mail_from, dkim, dmarc, arc, author };
        self.meters.count(&results, started.elapsed(), LOOKUPS_MAX - dns.left());
        results
    }

    /// Both at once, for messages that are whole already.
    pub async fn check(&self, facts: &Facts, message: &Message) -> Results {
        let begun = self.begin(facts);
        self.finish(begun, message).await
    }
}

fn now_secs() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
