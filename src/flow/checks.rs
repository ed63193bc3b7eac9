//! The checks of a message that leave the reactor's thread: who sent it, what it is, and our signature. I/O: DNS; rayon.
//!
//! Facts are gathered here ([`Checks::gather`]); [`rule`], a pure function, turns them into what becomes of the message.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::base::content::Content;
use crate::config::settings::{Listener, Mode};
use crate::dns::Resolver;
use crate::filter::scanners::Scanners;
use crate::filter::{self, Engine, Verdict};
use crate::observe::meters::{self, Stage};
use crate::spool::queue::Disposition;
use crate::verify::decide::{self, Decision, Overrides};
use crate::verify::{self, Begun, Message, Results, Signer, Verifier, arc, authres};
use crate::wire::envelope::Envelope;
use crate::wire::reply::{Enhanced, Reply};

use super::judge::Ruling;
use super::scanning::Scanned;

/// The stages that judge messages.
pub struct Checks {
    /// SPF, DKIM, DMARC, ARC.
    pub verifier: Verifier<Resolver>,
    /// Rules and classifier; none while no listener filters.
    pub engine: Option<Arc<Engine>>,
    /// What the engine's verdicts are counted by.
    pub filter_meters: Arc<filter::meters::Meters>,
    /// Filters of others.
    pub scanners: Scanners,
    /// Our keys.
    pub signer: Signer,
    /// The operator's exceptions.
    pub overrides: Overrides,
    /// `[verify] trusted_hops`.
    pub trusted_hops: Vec<IpNet>,
    /// `[verify] seal_as`.
    pub seal_as: Option<String>,
    /// `[verify] authserv_id`.
    pub authserv_id: String,
}

/// What a message is checked with.
pub struct Question<'a> {
    /// The listener that took it.
    pub listener: &'a Listener,
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// Its content.
    pub content: &'a Content,
    /// Its id, the reference of refusals.
    pub reference: &'a str,
    /// True if it begins its way here, or with a host that may relay, so that it is ours to sign.
    pub signs: bool,
    /// True if a recipient's mail goes on to a host that is not of one of our domains.
    pub forwards: bool,
}

/// Who sent it, as far as could be found.
struct Identity {
    /// The client that the results are about: behind a trusted hop not the peer.
    facts: verify::Facts,
    results: Results,
    decision: Decision,
}

/// What was found.
#[derive(Default)]
pub struct Found {
    identity: Option<Identity>,
    verdict: Option<Verdict>,
    pub(super) scanned: Scanned,
    seal: String,
    signatures: String,
}

impl Found {
    /// Whom the results are about, the results, and what they ask for.
    pub fn identity(&self) -> Option<(&verify::Facts, &Results, &Decision)> {
        self.identity.as_ref().map(|identity| (&identity.facts, &identity.results, &identity.decision))
    }

    /// What the filter says, if it was asked.
    pub fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }
}

impl Checks {
    /// Runs what the listener asks for.
    /// `begun` is what HELO and MAIL set going.
    pub async fn gather(
        self: &Arc<Self>,
        question: &Question<'_>,
        begun: Option<Begun<Resolver>>,
        meters: &meters::Meters,
    ) -> Found {
        let mut found = Found::default();
        let message = Message::parse(question.content.clone());
        if question.listener.verify != Mode::Off {
            let began = Instant::now();
            found.identity = Some(self.identify(question, begun, &message).await);
            meters.stage(Stage::Verify, began.elapsed());
        }
        found.scanned = self.scan(question).await;
        if question.listener.filter != Mode::Off && self.engine.is_some() {
            let began = Instant::now();
            found.verdict = self.judge(question, &found).await;
            meters.stage(Stage::Filter, began.elapsed());
        }
        // What is refused already needs no milter; what milters change is signed as they left it.
        if matches!(rule(question.listener, &found, question.reference), Ruling::Keep { .. }) {
            found.scanned.milled = self.mill(question).await;
        }
        let message = found.scanned.content().map_or(message, |content| Message::parse(content.clone()));
        if question.signs {
            let (checks, message) = (self.clone(), message.clone());
            found.signatures = on_rayon(move || checks.signer.sign(&message, now_secs())).await.unwrap_or_default();
        }
        // Mail that bears our signature is our own: it was not received, so it begins no chain (RFC 8617 §5.1).
        if question.forwards && found.signatures.is_empty() {
            found.seal = self.seal(&message, &found).await;
        }
        found
    }

    async fn identify(&self, question: &Question<'_>, begun: Option<Begun<Resolver>>, message: &Message) -> Identity {
        let origin = &question.envelope.origin;
        // Behind another gateway of the operator's the client is the one that gateway saw.
        let hop = verify::hops::client(message, origin.ip, &self.trusted_hops);
        let facts = verify::Facts {
            ip: hop.as_ref().map_or(origin.ip, |hop| hop.ip),
            helo: hop.map_or_else(|| origin.helo.clone(), |hop| hop.helo),
            reverse_path: question.envelope.reverse_path.as_ref().map(|path| path.as_str().to_owned()),
        };
        let begun = begun.filter(|begun| *begun.facts() == facts);
        let begun = begun.unwrap_or_else(|| self.verifier.begin(facts.clone(), None));
        let results = self.verifier.finish(begun, message).await;
        let mode = question.listener.verify;
        let decision = decide::decide(&results, mode, &self.overrides, facts.ip, question.reference);
        Identity { facts, results, decision }
    }

    /// Our link of the ARC chain (RFC 8617 §5.1), for mail that goes on to another domain's host.
    async fn seal(self: &Arc<Self>, message: &Message, found: &Found) -> String {
        let (Some(domain), Some(identity)) = (self.seal_as.clone(), &found.identity) else { return String::new() };
        let (checks, message, results) = (self.clone(), message.clone(), identity.results.clone());
        let seal = on_rayon(move || {
            let findings = authres::write_value(&checks.authserv_id, &results);
            let key = checks.signer.sealing_key(&domain)?;
            arc::seal::seal(&message, &results.arc, &findings, key, now_secs())
        });
        seal.await.flatten().unwrap_or_default()
    }

    async fn judge(&self, question: &Question<'_>, found: &Found) -> Option<Verdict> {
        let engine = self.engine.clone()?;
        let origin = &question.envelope.origin;
        let mut facts = filter::Facts {
            ip: Some(origin.ip),
            helo: origin.helo.clone(),
            host: origin.host.clone(),
            reverse_path: question.envelope.reverse_path.as_ref().map(|path| path.as_str().to_owned()),
            recipients: question.envelope.recipients.iter().map(|r| r.mailbox.as_str().to_owned()).collect(),
            trusted: origin.login.is_some(),
            symbols: found.identity.as_ref().map_or_else(Vec::new, |identity| symbols(&identity.results)),
        };
        facts.symbols.extend(found.scanned.symbols());
        let (content, meters) = (question.content.clone(), self.filter_meters.clone());
        on_rayon(move || {
            let began = Instant::now();
            let verdict = engine.judge(&content, &facts);
            meters.count(&verdict, began.elapsed().as_secs_f64());
            verdict
        })
        .await
    }

    /// The fields that tell what was found, for the top of the message.
    pub fn fields(&self, found: &Found) -> Vec<u8> {
        let mut fields = String::new();
        fields.push_str(&found.seal);
        fields.push_str(&found.signatures);
        if let Some(Identity { facts, results, .. }) = &found.identity {
            fields.push_str(&authres::write(&self.authserv_id, results));
            fields.push_str(&authres::write_received_spf(&self.authserv_id, facts.ip, &facts.helo, results.spf()));
        }
        if let Some(verdict) = &found.verdict {
            fields.push_str(&verdict.header_fields());
        }
        fields.push_str(&found.scanned.fields());
        fields.into_bytes()
    }
}

/// Symbols of the identity's results, as SpamAssassin's users know them. They carry no points: rules give them theirs.
fn symbols(results: &Results) -> Vec<filter::Symbol> {
    let symbol = |name: String, description: String| {
        filter::Symbol::new(filter::Judge::Identity, name, filter::Points::default(), description)
    };
    let spf = results.spf().outcome;
    let mut found = vec![
        symbol(format!("SPF_{}", spf.as_str().to_uppercase()), format!("SPF of the sender: {spf}")),
        symbol(
            format!("DMARC_{}", results.dmarc.outcome.as_str().to_uppercase()),
            format!("DMARC of the author's domain: {}", results.dmarc.outcome),
        ),
    ];
    if results.dkim.iter().any(|result| result.outcome == verify::Outcome::Pass) {
        found.push(symbol("DKIM_VALID".into(), "A DKIM signature holds".into()));
    }
    found
}

/// Runs `work` on the rayon pool; nothing if it panicked.
pub(super) async fn on_rayon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // The receiver is gone when the gateway stops; then nobody waits for the result.
        let _ = sender.send(done.ok());
    });
    receiver.await.ok().flatten()
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What becomes of a message: identity first, since it names the sender's own wish; then what it is.
pub fn rule(listener: &Listener, found: &Found, reference: &str) -> Ruling {
    found.scanned.rule(listener, judged(listener, found, reference))
}

fn judged(listener: &Listener, found: &Found, reference: &str) -> Ruling {
    if let Some(identity) = &found.identity
        && let Some(ruling) = by_identity(&identity.decision)
    {
        return ruling;
    }
    match &found.verdict {
        Some(verdict) if listener.filter == Mode::Enforce => by_verdict(verdict, reference),
        _ => Ruling::Keep { disposition: Disposition::Deliver, reason: "ordinary".into() },
    }
}

fn by_identity(decision: &Decision) -> Option<Ruling> {
    match decision.action {
        decide::Action::Accept => None,
        decide::Action::Quarantine => Some(Ruling::Keep {
            disposition: Disposition::Quarantine(decision.reason.clone()),
            reason: "identity".into(),
        }),
        decide::Action::Defer | decide::Action::Reject => {
            let reply = decision.reply.clone().unwrap_or(Reply::LOCAL_TROUBLE);
            Some(Ruling::Refuse { reply, reason: "identity" })
        }
    }
}

fn by_verdict(verdict: &Verdict, reference: &str) -> Ruling {
    let summary = verdict.summary();
    match verdict.action {
        filter::Action::Accept | filter::Action::Tag | filter::Action::Subject => {
            Ruling::Keep { disposition: Disposition::Deliver, reason: summary.into() }
        }
        filter::Action::Hold => {
            Ruling::Keep { disposition: Disposition::Hold(summary.clone()), reason: summary.into() }
        }
        filter::Action::Discard => {
            Ruling::Keep { disposition: Disposition::Discard(summary.clone()), reason: summary.into() }
        }
        filter::Action::Quarantine => {
            Ruling::Keep { disposition: Disposition::Quarantine(summary.clone()), reason: summary.into() }
        }
        filter::Action::Greylist => Ruling::Refuse {
            reply: Reply::new(451, Enhanced(4, 7, 1), format!("Please come again: {summary}; ref {reference}")),
            reason: "greylist",
        },
        filter::Action::Reject => Ruling::Refuse {
            reply: Reply::new(550, Enhanced(5, 7, 1), format!("Refused as spam: {summary}; ref {reference}")),
            reason: "spam",
        },
    }
}
