//! Filters of others that are asked beside ours: clamd, spamd, Rspamd, milters. I/O: their sockets, through [`ask`].
//!
//! Each has its time, its places and a circuit [`breaker`]; what its silence or its finding means is the configuration's choice,
//! and becomes a [`Consequence`] here. Opinions come in as symbols, so that the score still adds up.

pub mod ask;
pub mod breaker;
pub mod edit;
pub mod meters;
pub mod milter;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::base::content::Content;
use crate::config::Config;
use crate::config::scanners::{OnFailure, OnFound, Scanner, ScannerKind};
use crate::config::settings::Listener;
use crate::filter::verdict::{Judge, Points, Symbol};
use crate::wire::checkv2::Judgement;
use crate::wire::milter::{Edit, Options, step};
use crate::wire::reply::{Enhanced, Reply};
use crate::wire::spamd;

use ask::{Resolve, ScanFault};
use breaker::Breaker;
use milter::{End, Transaction};

/// A milter that keeps saying "progress" may take this many times its timeout in all.
const MILTER_TIMEOUTS: u32 = 10;
/// Points of a message that is too large for a scanner: it is not judged by it, and not waved through unmarked.
const TOO_LARGE_POINTS: f64 = 1.0;
/// Names of another filter's symbols that are kept as evidence.
const EVIDENCE_BYTES_MAX: usize = 400;

/// What a scanner's answer, or its silence, makes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Accepted and thrown away, with the reason.
    Discard(String),
    /// Kept back, with the reason.
    Quarantine(String),
    /// Refused.
    Refuse(Reply),
}

/// What one scanner said.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// It joins the verdict.
    pub symbols: Vec<Symbol>,
    /// What must happen, whatever the score.
    pub consequence: Option<Consequence>,
    /// Header fields that it wants added.
    pub fields: Vec<(String, String)>,
    /// Its place in the configuration.
    pub setting: String,
}

/// What all milters together made of a message.
#[derive(Clone, Debug, Default)]
pub struct Milled {
    /// The content, if it was changed.
    pub content: Option<Content>,
    /// Changes of the envelope, in their order.
    pub envelope: Vec<Edit>,
    /// What must happen.
    pub consequence: Option<Consequence>,
    /// The place in the configuration of whoever says so.
    pub setting: String,
}

/// One scanner with its state.
struct Asked {
    settings: Scanner,
    places: Semaphore,
    breaker: Mutex<Breaker>,
    /// What a milter negotiated, as version and steps; 0: not yet known.
    negotiated: AtomicU64,
}

/// All scanners of a configuration.
pub struct Scanners {
    all: Vec<Asked>,
    hostname: String,
    resolve: Resolve,
    meters: meters::Meters,
}

impl Scanners {
    /// Those that the configuration names; state begins anew.
    pub fn new(config: &Config, resolve: Resolve, meters: meters::Meters) -> Self {
        let asked = |scanner: &Scanner| Asked {
            places: Semaphore::new(scanner.concurrency),
            breaker: Mutex::new(Breaker::new(scanner.breaker_failures, scanner.breaker_pause)),
            negotiated: AtomicU64::new(0),
            settings: scanner.clone(),
        };
        let all = config.scanners.iter().map(asked).collect();
        Scanners { all, hostname: config.hostname.clone(), resolve, meters }
    }

    /// Our host name, as milters and scanners are told.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// True if one of them sees mail of `listener`.
    pub fn see(&self, listener: &Listener) -> bool {
        self.all.iter().any(|asked| asked.settings.sees(listener))
    }

    fn of<'a>(&'a self, listener: &'a Listener, milters: bool) -> impl Iterator<Item = &'a Asked> {
        let is_wanted = move |asked: &&Asked| (asked.settings.kind == ScannerKind::Milter) == milters;
        self.all.iter().filter(is_wanted).filter(|asked| asked.settings.sees(listener))
    }

    /// Asks all but milters, at once.
    pub async fn scan(&self, listener: &Listener, subject: &Transaction) -> Vec<Report> {
        let mut questions: Vec<_> =
            self.of(listener, false).map(|asked| Box::pin(self.opinion(asked, subject))).collect();
        let mut reports = Vec::new();
        // Each is bounded by its own timeout; polling all of them in turn needs no task of its own.
        std::future::poll_fn(|context| {
            questions.retain_mut(|question| match question.as_mut().poll(context) {
                std::task::Poll::Ready(report) => {
                    reports.push(report);
                    false
                }
                std::task::Poll::Pending => true,
            });
            if questions.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        reports
    }

    async fn opinion(&self, asked: &Asked, subject: &Transaction) -> Report {
        let settings = &asked.settings;
        if subject.content.as_ref().is_some_and(|content| content.len() as u64 > settings.size) {
            self.count(asked, "skipped");
            let name = symbol_name(settings, "TOO_LARGE");
            return Report::of(symbol(name, TOO_LARGE_POINTS, "Too large for a scanner", None));
        }
        let (place, resolve) = (&settings.place, &self.resolve);
        let answer = self.guarded(asked, async {
            match settings.kind {
                ScannerKind::Clamd => {
                    let content = subject.content.as_deref().unwrap_or_default();
                    ask::clamd(place, resolve, content).await.map(|found| found.map(|name| by_virus(settings, &name)))
                }
                ScannerKind::Rspamd => {
                    ask::rspamd(place, resolve, subject).await.map(|said| Some(by_rspamd(settings, said)))
                }
                ScannerKind::Spamd => {
                    ask::spamd(place, resolve, subject).await.map(|said| Some(by_spamd(settings, &said)))
                }
                ScannerKind::Milter => Ok(None),
            }
        });
        let report = match answer.await {
            Ok(None) => Report::default(),
            Ok(Some(report)) => report,
            Err(fault) => by_failure(settings, &fault, &subject.id),
        };
        Report { setting: settings.setting(), ..report }
    }

    /// Runs `question` within the scanner's time and places, and tells the breaker and the meters.
    async fn guarded<T>(
        &self,
        asked: &Asked,
        question: impl Future<Output = Result<Option<T>, ScanFault>>,
    ) -> Result<Option<T>, ScanFault> {
        let began = Instant::now();
        if !asked.breaker.lock().admit(began) {
            self.count(asked, "failed");
            return Err(ScanFault::Busy("it failed too often and is left alone for a while"));
        }
        let limit =
            asked.settings.timeout * if asked.settings.kind == ScannerKind::Milter { MILTER_TIMEOUTS } else { 1 };
        let within = async {
            let place = timeout(asked.settings.timeout, asked.places.acquire()).await;
            let _place = place.map_err(|_| ScanFault::Busy("all its places are taken"))?;
            question.await
        };
        let answer = timeout(limit, within).await.unwrap_or(Err(ScanFault::Timeout));
        let state = {
            let mut breaker = asked.breaker.lock();
            if !matches!(answer, Err(ScanFault::Busy(_))) {
                breaker.report(Instant::now(), answer.is_ok());
            }
            breaker.state()
        };
        let name = &*asked.settings.name;
        self.meters.breaker.with_label_values(&[name]).set(state.number());
        self.meters.seconds.with_label_values(&[name]).observe(began.elapsed().as_secs_f64());
        self.count(
            asked,
            match &answer {
                Ok(None) => "clean",
                Ok(Some(_)) => "found",
                Err(_) => "failed",
            },
        );
        answer
    }

    fn count(&self, asked: &Asked, answer: &str) {
        self.meters.answers.with_label_values(&[&asked.settings.name, answer]).inc();
    }

    /// Plays a whole message through all milters, in the order of the configuration; each sees what the one before made of it.
    pub async fn mill(&self, listener: &Listener, subject: &Transaction) -> Milled {
        let mut milled = Milled::default();
        let mut subject = subject.clone();
        for asked in self.of(listener, true) {
            match self.converse(asked, &subject).await {
                Err(fault) => {
                    milled.consequence = by_failure(&asked.settings, &fault, &subject.id).consequence;
                }
                Ok(End::Discard) => {
                    milled.consequence = Some(Consequence::Discard(format!("by {}", asked.settings.name)))
                }
                Ok(End::Refuse(reply)) => milled.consequence = Some(Consequence::Refuse(reply)),
                Ok(End::Keep(wishes)) => {
                    if let Some(reason) = wishes.quarantine {
                        milled
                            .consequence
                            .get_or_insert(Consequence::Quarantine(format!("{}: {reason}", asked.settings.name)));
                    }
                    let (envelope, content): (Vec<Edit>, Vec<Edit>) =
                        wishes.edits.into_iter().partition(is_of_envelope);
                    milled.envelope.extend(envelope);
                    if let (Some(before), false) = (&subject.content, content.is_empty()) {
                        let after = edit::apply(before, &content, wishes.leading_space);
                        subject.content = Some(after.clone());
                        milled.content = Some(after);
                    }
                }
            }
            if milled.consequence.is_some() && milled.setting.is_empty() {
                milled.setting = asked.settings.setting();
            }
            if matches!(milled.consequence, Some(Consequence::Refuse(_) | Consequence::Discard(_))) {
                milled.setting = asked.settings.setting();
                break;
            }
        }
        milled
    }

    /// Asks the milters that want to see recipients about the one of `subject`, whose content is not there yet; the refusal with
    /// its place in the configuration, if there is one. A milter that only wants what comes before RCPT is asked with the `first` recipient.
    pub async fn rcpt(&self, listener: &Listener, subject: &Transaction, first: bool) -> Option<(Reply, String)> {
        for asked in self.of(listener, true).filter(|asked| asked.wants_envelope(first)) {
            match self.converse(asked, subject).await {
                Ok(End::Refuse(reply)) => return Some((reply, asked.settings.setting())),
                Ok(End::Keep(_) | End::Discard) => {}
                // The end of DATA meets the same failure and answers as the configuration wants, but for a whole refusal.
                Err(fault) => tracing::warn!(scanner = %asked.settings.name, %fault, "a milter failed at RCPT"),
            }
        }
        None
    }

    /// True if a milter of `listener` may have an opinion on a recipient; on the `first` of a message more do.
    pub fn see_rcpt(&self, listener: &Listener, first: bool) -> bool {
        self.of(listener, true).any(|asked| asked.wants_envelope(first))
    }

    async fn converse(&self, asked: &Asked, subject: &Transaction) -> Result<End, ScanFault> {
        let settings = &asked.settings;
        let question = async {
            let (end, options) = ask::milter(&settings.place, &self.resolve, subject.clone(), settings.timeout).await?;
            asked.negotiated.store(u64::from(options.version) << 32 | u64::from(options.steps), Ordering::Relaxed);
            Ok(Some(end))
        };
        let end = self.guarded(asked, question).await?;
        Ok(end.expect("a conversation has an end"))
    }
}

impl Asked {
    fn wants_envelope(&self, first: bool) -> bool {
        let known = self.negotiated.load(Ordering::Relaxed);
        let options = Options { version: (known >> 32) as u32, actions: 0, steps: known as u32 };
        let before = step::NO_CONNECT | step::NO_HELO | step::NO_MAIL;
        !options.has(step::NO_RCPT) || first && options.steps & before != before
    }
}

impl Report {
    fn of(symbol: Symbol) -> Self {
        Report { symbols: vec![symbol], ..Report::default() }
    }
}

fn is_of_envelope(edit: &Edit) -> bool {
    matches!(edit, Edit::AddRecipient(_) | Edit::ChangeSender(_) | Edit::RemoveRecipient(_))
}

fn symbol(name: String, points: f64, description: &str, evidence: Option<String>) -> Symbol {
    Symbol { evidence, ..Symbol::new(Judge::Scanner, name, Points::new(points), description) }
}

/// `CLAMD_FOUND` of a scanner that is named `clamd`.
fn symbol_name(settings: &Scanner, what: &str) -> String {
    let name = settings.name.to_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("{name}_{what}")
}

fn by_virus(settings: &Scanner, signature: &str) -> Report {
    let text = format!("{} found {signature}", settings.name);
    Report {
        symbols: vec![symbol(
            symbol_name(settings, "FOUND"),
            settings.weight,
            "A scanner found a virus",
            Some(signature.to_owned()),
        )],
        consequence: found(settings.on_found, text),
        ..Report::default()
    }
}

fn found(on_found: OnFound, text: String) -> Option<Consequence> {
    match on_found {
        OnFound::Discard => Some(Consequence::Discard(text)),
        OnFound::Quarantine => Some(Consequence::Quarantine(text)),
        OnFound::Reject => Some(Consequence::Refuse(Reply::new(550, Enhanced(5, 7, 1), format!("Refused: {text}")))),
        OnFound::Score => None,
    }
}

fn by_spamd(settings: &Scanner, said: &spamd::Response) -> Report {
    let (score, threshold) = said.score.unwrap_or_default();
    let evidence = shortened(&format!("{score} of {threshold}: {}", said.body.trim()));
    let text = format!("{} gives {score} of {threshold}", settings.name);
    Report {
        symbols: vec![symbol(
            symbol_name(settings, "SCORE"),
            score * settings.weight,
            "SpamAssassin's own score",
            Some(evidence),
        )],
        consequence: if said.spam { found(settings.on_found, text) } else { None },
        ..Report::default()
    }
}

fn by_rspamd(settings: &Scanner, said: Judgement) -> Report {
    let names: Vec<&str> = said.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    let evidence = shortened(&format!("{}: {}", said.action, names.join(",")));
    let text = format!("{} gives {} and says {}", settings.name, said.score, said.action);
    let later =
        || Reply::new(451, Enhanced(4, 7, 1), said.smtp_message.clone().unwrap_or("Try again later".to_owned()));
    let consequence = match said.action.as_str() {
        "reject" | "quarantine" | "discard" => found(settings.on_found, text),
        // "greylist" alone is a hint: Rspamd's own greylisting, where it runs, turns it into a soft reject.
        "soft reject" if settings.on_found != OnFound::Score => Some(Consequence::Refuse(later())),
        _ => None,
    };
    Report {
        symbols: vec![symbol(
            symbol_name(settings, "SCORE"),
            said.score * settings.weight,
            "Rspamd's own score",
            Some(evidence),
        )],
        consequence,
        fields: said.add_headers,
        ..Report::default()
    }
}

fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(EVIDENCE_BYTES_MAX).collect()
}

/// What the configuration makes of a scanner that could not be asked.
fn by_failure(settings: &Scanner, fault: &ScanFault, id: &str) -> Report {
    tracing::warn!(%id, scanner = %settings.name, %fault, "a scanner failed");
    let consequence = match settings.on_failure {
        OnFailure::Defer => {
            let reply =
                Reply::new(451, Enhanced(4, 7, 1), format!("A filter is not available, try again later; ref {id}"));
            Some(Consequence::Refuse(reply))
        }
        OnFailure::Open => None,
        OnFailure::Quarantine => Some(Consequence::Quarantine(format!("{} failed: {fault}", settings.name))),
    };
    let symbols =
        vec![symbol(symbol_name(settings, "FAILED"), 0.0, "A scanner could not be asked", Some(fault.to_string()))];
    Report { symbols, consequence, ..Report::default() }
}
