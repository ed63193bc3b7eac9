//! The checks of a message that leave the reactor's thread: who sent it, what it is, and our signature. I/O: DNS; rayon.
//!
//! Facts are gathered here ([`Checks::gather`]); [`by_identity`] and `parcels`, pure functions, turn them into what becomes of the message.

use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::base::content::Content;
use crate::base::unix::now_secs;
use crate::config::settings::{Listener, Mode};
use crate::dns::Resolver;
use crate::filter::scanners::Scanners;
use crate::filter::{self, Engine, Verdict};
use crate::observe::meters::{self, Stage};
use crate::observe::trace::Check;
use crate::spool::queue::Disposition;
use crate::verify::decide::{self, Decision, Overrides};
use crate::verify::{self, Begun, Message, Results, Signer, Verifier, arc, authres};
use crate::wire::envelope::Envelope;
use crate::wire::reply::Reply;

use super::docket::{Case, Docket};
use super::judge::Ruling;
use super::record;
use super::scanning::Scanned;
use super::symbols;

/// The stages that judge messages.
pub struct Checks {
    /// SPF, DKIM, DMARC, ARC.
    pub verifier: Verifier<Resolver>,
    /// Where messages wait for rules and classifier; none while no listener filters.
    pub docket: Option<Arc<Docket>>,
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
pub struct Identity {
    /// The client that the results are about: behind a trusted hop not the peer.
    facts: verify::Facts,
    /// SPF, DKIM, DMARC, ARC.
    pub results: Results,
    /// What they come to.
    pub decision: Decision,
    /// What was asked of DNS.
    pub asked: Vec<verify::Asked>,
}

/// What was found.
#[derive(Default)]
pub struct Found {
    /// Who sent it.
    pub identity: Option<Identity>,
    /// What it is.
    pub verdict: Option<Verdict>,
    /// What was checked, in order.
    pub checks: Vec<Check>,
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
    /// Rules and classifier; none while no listener filters.
    pub fn engine(&self) -> Option<Arc<Engine>> {
        self.docket.as_ref().map(|docket| docket.engine().clone())
    }

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
            let identity = self.identify(question, begun, &message).await;
            meters.stage(Stage::Verify, began.elapsed());
            found.checks.push(record::check("identity", began.elapsed(), story_of(&identity)));
            found.identity = Some(identity);
        }
        let began = Instant::now();
        found.scanned = self.scan(question).await;
        if self.scanners.see(question.listener) {
            let symbols: Vec<String> = found.scanned.symbols().into_iter().map(|symbol| symbol.name).collect();
            let result = if symbols.is_empty() { "nothing found".to_owned() } else { symbols.join(", ") };
            found.checks.push(record::check("scanners", began.elapsed(), result));
        }
        if question.listener.filter != Mode::Off && self.docket.is_some() {
            let began = Instant::now();
            found.verdict = self.judge(question, &found).await;
            meters.stage(Stage::Filter, began.elapsed());
            let summary = found.verdict.as_ref().map_or_else(|| "could not judge".to_owned(), Verdict::summary);
            found.checks.push(record::check("filter", began.elapsed(), summary));
        }
        found
    }

    /// What is left to do for a message that somebody takes: milters, our signature, our seal.
    pub async fn complete(self: &Arc<Self>, question: &Question<'_>, found: &mut Found) {
        let began = Instant::now();
        found.scanned.milled = self.mill(question).await;
        if self.scanners.see(question.listener) {
            found.checks.push(record::check("milters", began.elapsed(), "asked"));
        }
        // What milters change is signed as they left it.
        let content = found.scanned.content().unwrap_or(question.content);
        let message = Message::parse(content.clone());
        if question.signs {
            let (checks, message) = (self.clone(), message.clone());
            let began = Instant::now();
            found.signatures = on_rayon(move || checks.signer.sign(&message, now_secs())).await.unwrap_or_default();
            let result = if found.signatures.is_empty() { "no key for the author's domain" } else { "signed" };
            found.checks.push(record::check("DKIM signature of ours", began.elapsed(), result));
        }
        // Mail that bears our signature is our own: it was not received, so it begins no chain (RFC 8617 §5.1).
        if question.forwards && found.signatures.is_empty() {
            found.seal = self.seal(&message, found).await;
        }
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
        let begun = begun.unwrap_or_else(|| self.verifier.late(facts.clone()));
        let (results, asked) = self.verifier.finish_and_tell(begun, message).await;
        let mode = question.listener.verify;
        let decision = decide::decide(&results, mode, &self.overrides, facts.ip, question.reference);
        self.verifier.meters().decided(&decision);
        log_identity(question.reference, &facts, &results, &decision);
        Identity { facts, results, decision, asked }
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
        let docket = self.docket.as_ref()?;
        let origin = &question.envelope.origin;
        let mut facts = filter::Facts {
            ip: Some(origin.ip),
            helo: origin.helo.clone(),
            host: origin.host.clone(),
            reverse_path: question.envelope.reverse_path.as_ref().map(|path| path.as_str().to_owned()),
            recipients: question.envelope.recipients.iter().map(|r| r.mailbox.as_str().to_owned()).collect(),
            trusted: origin.login.is_some(),
            came_secs: Some(now_secs()),
            symbols: found
                .identity
                .as_ref()
                .map_or_else(Vec::new, |identity| symbols::of(&identity.results, &identity.asked)),
        };
        facts.symbols.extend(found.scanned.symbols());
        docket.judge(Case { content: question.content.clone(), facts, id: question.reference.to_owned() }).await
    }

    /// Counts what a verdict comes to for those who share it. Where the sender's own policy decided, the score did not.
    pub fn count(&self, verdict: Option<&Verdict>, reason: &str) {
        if let Some(verdict) = verdict {
            self.filter_meters.acted(if reason == "identity" { "overruled" } else { verdict.action.as_str() });
        }
    }

    /// The fields that tell who sent it, for the top of the message.
    pub fn fields(&self, found: &Found) -> String {
        let mut fields = String::new();
        fields.push_str(&found.seal);
        fields.push_str(&found.signatures);
        if let Some(Identity { facts, results, .. }) = &found.identity {
            fields.push_str(&authres::write(&self.authserv_id, results));
            fields.push_str(&authres::write_received_spf(&self.authserv_id, facts.ip, &facts.helo, results.spf()));
        }
        fields.push_str(&found.scanned.fields());
        fields
    }
}

/// One event a message, with every result: the log is where a postmaster looks first.
fn log_identity(id: &str, facts: &verify::Facts, results: &Results, decision: &Decision) {
    let signatures: Vec<String> =
        results.dkim.iter().map(|one| format!("{} ({}: {})", one.outcome, one.domain, one.reason)).collect();
    tracing::info!(
        target: "weir::identity",
        id,
        client = %facts.ip,
        spf_helo = results.helo.outcome.as_str(),
        spf = results.spf().outcome.as_str(),
        spf_of = results.spf().sender,
        dkim = signatures.join(", "),
        dmarc = results.dmarc.outcome.as_str(),
        author = results.dmarc.domain,
        arc = results.arc.outcome.as_str(),
        decision = decision.action.as_str(),
        overridden = decision.overridden,
        reason = decision.reason,
        "identity"
    );
}

/// The results in a line.
fn story_of(identity: &Identity) -> String {
    let results = &identity.results;
    let signatures: Vec<String> =
        results.dkim.iter().map(|found| format!("dkim={} ({})", found.outcome, found.domain)).collect();
    let dkim = if signatures.is_empty() { "dkim=none".to_owned() } else { signatures.join(", ") };
    let spf = results.spf();
    format!(
        "spf={} ({}: {}), {dkim}, dmarc={} ({}), arc={}; {}",
        spf.outcome,
        spf.domain,
        spf.reason,
        results.dmarc.outcome,
        results.dmarc.reason,
        results.arc.outcome,
        identity.decision.reason
    )
}

/// Runs `work` on the rayon pool; nothing if it panicked.
pub(super) async fn on_rayon<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        // The receiver is gone when the gateway stops; then nobody waits for the result.
        let _ = sender.send(caught(work));
    });
    receiver.await.ok().flatten()
}

/// Runs `work` here; nothing if it panicked.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok()
}

/// What the identity alone decides, since it is the sender's own wish: refusal, or quarantine.
pub fn by_identity(found: &Found) -> Option<Ruling> {
    let decision = &found.identity.as_ref()?.decision;
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
