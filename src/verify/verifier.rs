//! The one entry for flow: begins early, ends bounded. I/O: DNS.
//!
//! The client's name is asked for when it connects, SPF of its HELO when it says it, SPF of the reverse-path at MAIL, while content
//! is still to come; DKIM keys, DMARC and ARC follow at the end of the content. Answers are held, not asked for twice, so a TTL
//! of zero costs nothing. All look-ups of a message share one budget of questions and time, and a message that uses it up gets
//! temporary errors, never "none".

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::asked::{Asked, Log};
use super::early::Early;
use super::lookup::{Bounded, Lookup};
use super::message::Message;
use super::meters::Meters;
use super::spf::{self, SpfResult};
use super::{Results, arc, author, dkim, dmarc, reverse};

use crate::base::unix::now_secs;

/// Look-ups of one message: SPF 10 with 10 addresses each and HELO besides stay below; 10 DKIM keys; a few walks.
pub const LOOKUPS_MAX: u32 = 128;
/// PTR and the addresses of ten names.
const NAME_LOOKUPS_MAX: u32 = 11;
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

/// A client that has said its name. Its SPF is found once, whatever number of messages it sends.
#[derive(Debug)]
pub struct Greeted {
    ip: IpAddr,
    helo: String,
    spf: Early<SpfResult>,
    log: Arc<Log>,
}

impl Greeted {
    /// True if this is that client, by that name.
    pub fn is(&self, ip: IpAddr, helo: &str) -> bool {
        self.ip == ip && self.helo == helo
    }
}

/// The identity of one message, under way as far as it was begun; dropped, it stops.
#[derive(Debug)]
pub struct Begun<L> {
    facts: Facts,
    greeted: Option<Arc<Greeted>>,
    mail_from: Option<Early<SpfResult>>,
    dns: Arc<Bounded<L>>,
}

impl<L> Begun<L> {
    /// What it was begun with.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl<L: Lookup> Verifier<L> {
    /// `receiver` is our own name, for SPF's `%{r}`.
    pub fn new(dns: Arc<L>, receiver: &str, meters: Meters) -> Self {
        Verifier { dns, receiver: receiver.to_owned(), meters }
    }

    /// Begins with the connection: the client's verified name. Call this and the next two within the tokio runtime.
    pub fn connected(&self, ip: IpAddr) -> Early<Option<String>> {
        let dns = self.bounded(NAME_LOOKUPS_MAX);
        Early::start(async move { reverse::verified_name(&*dns, ip).await })
    }

    /// Begins with HELO.
    pub fn greeted(&self, ip: IpAddr, helo: &str) -> Arc<Greeted> {
        let (dns, query) = (self.bounded(LOOKUPS_MAX), spf::Query::helo(ip, helo, &self.receiver));
        let log = dns.log().clone();
        let spf = Early::start(async move { spf::check(&*dns, &query, now_secs()).await });
        Arc::new(Greeted { ip, helo: helo.to_owned(), spf, log })
    }

    /// Begins with MAIL. `greeted` is what HELO began.
    pub fn begin(&self, facts: Facts, greeted: Option<Arc<Greeted>>) -> Begun<L> {
        let known = greeted.filter(|greeted| greeted.is(facts.ip, &facts.helo));
        let greeted = Some(known.unwrap_or_else(|| self.greeted(facts.ip, &facts.helo)));
        let dns = self.bounded(LOOKUPS_MAX);
        let mail_from = self.mail_from_query(&facts).map(|query| {
            let dns = dns.clone();
            Early::start(async move { spf::check(&*dns, &query, now_secs()).await })
        });
        Begun { facts, greeted, mail_from, dns }
    }

    /// Begins nothing: the content is here already, and all is done at once.
    pub fn late(&self, facts: Facts) -> Begun<L> {
        Begun { facts, greeted: None, mail_from: None, dns: self.bounded(LOOKUPS_MAX) }
    }

    fn mail_from_query(&self, facts: &Facts) -> Option<spf::Query> {
        let path = facts.reverse_path.as_deref().filter(|path| !path.is_empty())?;
        Some(spf::Query::mail_from(facts.ip, &facts.helo, Some(path), &self.receiver))
    }

    fn bounded(&self, lookups: u32) -> Arc<Bounded<L>> {
        Arc::new(Bounded::new(self.dns.clone(), lookups, Instant::now() + LOOKUP_TIME_MAX))
    }

    /// SPF of both identities; what was not begun, or lost, is asked now.
    async fn spf(&self, begun: &Begun<L>, dns: &Bounded<L>) -> (SpfResult, Option<SpfResult>) {
        let helo = async {
            let query = || spf::Query::helo(begun.facts.ip, &begun.facts.helo, &self.receiver);
            match &begun.greeted {
                Some(greeted) => greeted.spf.get(|| async { spf::check(dns, &query(), now_secs()).await }).await,
                None => spf::check(dns, &query(), now_secs()).await,
            }
        };
        let mail_from = async {
            let query = self.mail_from_query(&begun.facts)?;
            Some(match &begun.mail_from {
                Some(early) => early.get(|| spf::check(dns, &query, now_secs())).await,
                None => spf::check(dns, &query, now_secs()).await,
            })
        };
        tokio::join!(helo, mail_from)
    }

    /// Ends with the content.
    pub async fn finish(&self, begun: Begun<L>, message: &Message) -> Results {
        let started = Instant::now();
        // The content took as long as it took; what is left gets its own time.
        let dns = begun.dns.until(started + LOOKUP_TIME_MAX);
        let now = now_secs();
        let (dkim, arc, (helo, mail_from)) =
            tokio::join!(dkim::check(&dns, message, now), arc::check(&dns, message), self.spf(&begun, &dns));
        let author = author::author(message);
        let found = author.as_ref().map_err(|error| *error);
        let decides = mail_from.as_ref().unwrap_or(&helo);
        let dmarc = dmarc::check(&dns, found, Some(decides), &dkim, fastrand::u8(0..100)).await;
        let lookups_spent = dns.left() == 0;
        let results = Results { helo, mail_from, dkim, dmarc, arc, author, lookups_spent };
        self.count_bounds(message, &dns);
        self.meters.count(&results, started.elapsed(), LOOKUPS_MAX - dns.left());
        results
    }

    fn count_bounds(&self, message: &Message, dns: &Bounded<L>) {
        for (reached, bound) in [
            (message.named("DKIM-Signature").nth(dkim::SIGNATURES_MAX).is_some(), "dkim_signatures"),
            (message.named("ARC-Seal").nth(arc::SETS_MAX).is_some(), "arc_sets"),
            (message.is_overlong(), "header_fields"),
            (dns.left() == 0, "lookups"),
        ] {
            if reached {
                self.meters.bound_reached(bound);
            }
        }
    }

    /// What the meters of this room count.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// The same, and what was asked of DNS on the way.
    pub async fn finish_and_tell(&self, begun: Begun<L>, message: &Message) -> (Results, Vec<Asked>) {
        let logs = [begun.greeted.as_ref().map(|greeted| greeted.log.clone()), Some(begun.dns.log().clone())];
        let results = self.finish(begun, message).await;
        (results, logs.iter().flatten().flat_map(|log| log.all()).collect())
    }

    /// Both at once, for messages that are whole already.
    pub async fn check(&self, facts: &Facts, message: &Message) -> Results {
        self.finish(self.late(facts.clone()), message).await
    }
}
