//! The one entry of this room: content and facts in, a verdict out. I/O: reads rules and model at the start, and the clock.
//!
//! [`Engine::judge`] asks no network and takes no lock for longer than a copy of a pointer or one message's learning; it is
//! CPU work of 0.1 to some milliseconds and belongs on the rayon pool. Rules and model can be exchanged while it runs.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustix::time::{ClockId, clock_gettime};

use super::attachment::{self, Extensions};
use super::budget::{Budget, Clock, LimitRow};
use super::classifier::file::ModelError;
use super::classifier::{Label, Learned, Models, Opinion, features};
use super::duplicates::{self, Digest};
use super::message::View;
use super::rules::cost::Cost;
use super::rules::{Examined, Hit, Problem, Rules, Source, messages};
use super::verdict::{Judge, Points, Symbol, Thresholds, Verdict};
use crate::base::sys::give_back_memory;
use crate::config::settings::Filter;

/// What is known about a message beside its bytes.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The client's address.
    pub ip: Option<IpAddr>,
    /// What it said in EHLO.
    pub helo: String,
    /// Its verified host name.
    pub host: Option<String>,
    /// MAIL FROM without brackets; nothing for the null reverse-path or if unknown.
    pub reverse_path: Option<String>,
    /// All RCPT TO.
    pub recipients: Vec<String>,
    /// The client authenticated or is in a trusted network.
    pub trusted: bool,
    /// Symbols that other rooms found, such as the results of SPF, DKIM and DMARC; they join the verdict as they are, and
    /// rules ask for them by `eval:check_symbol('NAME')`.
    pub symbols: Vec<Symbol>,
    /// When it came, in seconds since 1970; nothing: it is not counted among those that came.
    pub came_secs: Option<u64>,
}

impl Facts {
    /// The recipients' domain in lower case, if it is one.
    fn domain(&self) -> Option<&str> {
        let mut domains = self.recipients.iter().map(|recipient| recipient.rsplit_once('@').map(|(_, domain)| domain));
        let first = domains.next()??;
        domains.all(|other| other == Some(first)).then_some(first)
    }
}

/// Judges messages.
pub struct Engine {
    policy: ArcSwap<Policy>,
    models: Models,
    duplicates: Option<duplicates::Store>,
    /// Where the digests are kept.
    digests_path: Option<PathBuf>,
}

/// A message of which everything is known but what the rules say.
struct Opened<'c> {
    view: View<'c>,
    budget: Budget,
    facts: Cow<'c, Facts>,
    believed: Vec<Symbol>,
    /// What the classifier thinks.
    probability: Option<f32>,
}

impl<'c> Opened<'c> {
    fn of(mut view: View<'c>) -> Self {
        let budget = std::mem::take(&mut view.budget);
        Opened { view, budget, facts: Cow::Owned(Facts::default()), believed: Vec::new(), probability: None }
    }

    fn examined(&mut self) -> Examined<'_, 'c> {
        Examined { view: &self.view, facts: &self.facts, budget: &mut self.budget }
    }
}

/// Messages that take turns at the rules: half of them need a thirtieth more time each, an eighth a tenth. The first one has its verdict
/// with the last, some 30 ms behind.
pub const TOGETHER_MAX: usize = messages::MOST;
/// Their bytes; larger ones take so long that what they share is little of it.
pub const TOGETHER_BYTES_MAX: usize = 512 * 1024;

/// How many of the first messages of these lengths are judged together.
pub fn together(lengths: impl Iterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fit = lengths.take(TOGETHER_MAX).take_while(|length| {
        bytes += length;
        bytes <= TOGETHER_BYTES_MAX
    });
    fit.count().max(1)
}

/// What a reload exchanges.
struct Policy {
    thresholds: Thresholds,
    rules: Rules,
    extensions: Extensions,
}

impl Policy {
    fn load(filter: &Filter) -> Self {
        let rules = Rules::load(Source::configured(filter));
        let extensions = Extensions {
            dangerous: rules.listed("dangerous_extensions"),
            harmless: rules.listed("harmless_extensions"),
        };
        let policy = Policy { thresholds: Thresholds::from(&filter.scores), rules, extensions };
        // Compiling a large set leaves a fifth of all memory free in places that the threads which judge don't use.
        give_back_memory();
        policy
    }
}

impl Engine {
    /// An engine with the rules that `filter` names and the model at `model_path`, if there is one.
    /// # Errors
    /// If the model is damaged. Rules that can't be loaded are listed by [`Engine::problems`] and left out.
    pub fn open(filter: &Filter, model_path: Option<&Path>) -> Result<Self, ModelError> {
        let digests_path = model_path.map(|path| path.with_file_name(duplicates::store::FILE_NAME));
        let duplicates = duplicates::Store::new(&filter.duplicates);
        if let (Some(store), Some(path)) = (&duplicates, &digests_path)
            && let Err(error) = store.restore(path)
        {
            tracing::warn!(path = %path.display(), %error, "what came lately is forgotten");
        }
        Ok(Engine {
            duplicates,
            digests_path,
            models: Models::open(&filter.classifier, model_path)?,
            policy: ArcSwap::from_pointee(Policy::load(filter)),
        })
    }

    /// Takes over rules and thresholds of a new configuration.
    pub fn reload(&self, filter: &Filter) {
        self.policy.store(Arc::new(Policy::load(filter)));
    }

    /// Everything in the rule files that is not in force.
    pub fn problems(&self) -> Vec<Problem> {
        self.policy.load().rules.problems.clone()
    }

    /// What each rule has cost since it was loaded, by name.
    pub fn rule_costs(&self) -> Vec<(String, Cost)> {
        self.policy.load().rules.rules.iter().map(|rule| (rule.name.clone(), rule.counters.read())).collect()
    }

    /// Rules that can hit.
    pub fn rules_loaded(&self) -> usize {
        self.policy.load().rules.loaded()
    }

    /// The verdict on one message.
    pub fn judge(&self, content: &[u8], facts: &Facts) -> Verdict {
        self.judge_timed(content, facts, cpu_millis)
    }

    /// The same by another clock: once it is past the limit, no further rule is worked out and no further archive opened.
    pub fn judge_timed(&self, content: &[u8], facts: &Facts, clock: Clock) -> Verdict {
        self.judge_cases(&[(content, facts)], clock).remove(0)
    }

    /// The verdicts on messages that wait at the same time, each with its facts: the same as one by one, in less time.
    pub fn judge_together(&self, cases: &[(&[u8], &Facts)]) -> Vec<Verdict> {
        self.judge_together_timed(cases, cpu_millis)
    }

    /// The same by another clock.
    pub fn judge_together_timed(&self, mut cases: &[(&[u8], &Facts)], clock: Clock) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(cases.len());
        while !cases.is_empty() {
            let some = cases.split_off(..together(cases.iter().map(|(content, _)| content.len()))).unwrap_or_default();
            verdicts.extend(self.judge_cases(some, clock));
        }
        verdicts
    }

    fn judge_cases(&self, cases: &[(&[u8], &Facts)], clock: Clock) -> Vec<Verdict> {
        let began = clock();
        let views: Vec<View<'_>> = cases.iter().map(|(content, _)| View::read(content)).collect();
        let opened = views.into_iter().zip(cases).map(|(mut view, (_, facts))| {
            view.budget.time(clock, began);
            let facts = self.with_bulk(facts, &view);
            let opinion = self.models.judge(&features::extract(&view), facts.domain());
            let believed = classifier_symbol(&opinion).into_iter().collect();
            Opened { facts, believed, probability: Some(opinion.probability), ..Opened::of(view) }
        });
        let mut opened: Vec<Opened<'_>> = opened.collect();
        let budgets: Vec<Budget> = opened.iter().map(|case| case.budget.clone()).collect();
        let verdicts = self.decide(&mut opened);
        if opened.len() == 1 || !opened.iter().any(|case| case.budget.was_late()) {
            return verdicts;
        }
        // Whose time it was that ran out is known when each has its own.
        let alone = opened.iter_mut().zip(budgets).map(|(case, budget)| {
            case.budget = budget;
            case.budget.time(clock, clock());
            self.decide(std::slice::from_mut(case)).remove(0)
        });
        alone.collect()
    }

    /// The verdict on a recorded message: rules, attachments and limits are asked again, `facts` and `believed` taken as they were.
    pub fn judge_again(&self, content: &[u8], facts: &Facts, believed: Vec<Symbol>) -> Verdict {
        // The same answer on any day: how long it takes today is no matter.
        let mut opened = Opened { facts: Cow::Borrowed(facts), believed, ..Opened::of(View::read(content)) };
        self.decide(std::slice::from_mut(&mut opened)).remove(0)
    }

    fn decide(&self, cases: &mut [Opened<'_>]) -> Vec<Verdict> {
        let policy = self.policy.load();
        let hits = policy.rules.run_together(cases.iter_mut().map(Opened::examined));
        let decided = cases.iter_mut().zip(hits).map(|(case, hits)| {
            let mut symbols: Vec<Symbol> = hits.into_iter().filter_map(|hit| rule_symbol(&policy.rules, hit)).collect();
            join(&mut symbols, &case.facts.symbols);
            symbols.extend(attachment::inspect(&case.view, &policy.extensions, &mut case.budget));
            symbols.extend(case.believed.iter().cloned());
            case.budget.is_late();
            symbols.extend(case.budget.exceeded().map(limit_symbol));
            Verdict::new(symbols, policy.thresholds, case.probability)
        });
        decided.collect()
    }

    /// The points of a rule in force; nothing if there is none of this name.
    pub fn points_of(&self, name: &str) -> Option<Points> {
        let policy = self.policy.load();
        policy.rules.rules.iter().find(|rule| rule.name == name).map(|rule| rule.points)
    }

    /// `facts`, and how many messages like this one came before.
    fn with_bulk<'f>(&self, facts: &'f Facts, view: &View<'_>) -> Cow<'f, Facts> {
        let Some((store, came_secs)) = self.duplicates.as_ref().zip(facts.came_secs) else {
            return Cow::Borrowed(facts);
        };
        let times = Digest::of(view).map_or(0.0, |digest| store.count(&digest, came_secs));
        let Some((name, description)) = duplicates::symbol(times) else { return Cow::Borrowed(facts) };
        let mut facts = facts.clone();
        let symbol = Symbol::new(Judge::Scanner, name, Points::default(), description.to_owned());
        facts.symbols.push(symbol.because(format!("about {times:.0} of them")));
        Cow::Owned(facts)
    }

    /// Teaches the classifier what the message `content` is; `domain` is the recipient's, if it is known. Call it on rayon.
    pub fn learn(&self, label: Label, content: &[u8], domain: Option<&str>) {
        self.models.learn(label, &features::extract(&View::read(content)), domain);
    }

    /// Messages learned.
    pub fn learned(&self) -> Learned {
        self.models.learned()
    }

    /// Writes to disk what was learned since the last time.
    /// # Errors
    /// If that fails; the old files still stand, and the next call tries again.
    pub fn save(&self) -> Result<(), ModelError> {
        if let (Some(store), Some(path)) = (&self.duplicates, &self.digests_path) {
            store.save(path).map_err(|error| ModelError::Io(path.clone(), error))?;
        }
        self.models.save()
    }
}

/// Milliseconds of processor time that this thread has had, to within a tick of the kernel's clock: those that others had are not the
/// message's fault. Asking for them takes a call of the kernel, which is made once in a tick.
fn cpu_millis() -> u64 {
    thread_local! {
        /// The tick of the last call, and what it said.
        static KNOWN: Cell<(u64, u64)> = const { Cell::new((u64::MAX, 0)) };
    }
    let millis = |clock| {
        let time = clock_gettime(clock);
        time.tv_sec.unsigned_abs() * 1_000 + time.tv_nsec.unsigned_abs() / 1_000_000
    };
    let tick = millis(ClockId::MonotonicCoarse);
    let (known, mut had) = KNOWN.get();
    if tick != known {
        had = millis(ClockId::ThreadCPUTime);
        KNOWN.set((tick, had));
    }
    had
}

/// The classifier's symbol; nothing if it has no opinion worth a tenth of a point.
fn classifier_symbol(opinion: &Opinion) -> Option<Symbol> {
    if opinion.score == 0.0 {
        return None;
    }
    let (name, word) = if opinion.score > 0.0 { ("CLASSIFIER_SPAM", "spam") } else { ("CLASSIFIER_HAM", "ham") };
    let points = Points::new(f64::from(opinion.score));
    let symbol = Symbol::new(Judge::Classifier, name, points, format!("The classifier thinks of {word}"));
    Some(symbol.because(format!("probability of spam {:.4}", opinion.probability)))
}

/// The symbol of a rule that hit; nothing for rules that only serve others.
fn rule_symbol(rules: &Rules, hit: Hit) -> Option<Symbol> {
    let rule = &rules.rules[hit.rule];
    if rule.points == Points::default() && !rule.shadow {
        return None;
    }
    let mut evidence = String::new();
    let matched = hit.evidence.iter().try_for_each(|text| write!(evidence, "`{text}` "));
    let times = if hit.count > 1 { write!(evidence, "{} times ", hit.count) } else { Ok(()) };
    matched.and(times).and_then(|()| write!(evidence, "({})", rule.place)).expect("a string takes any write");
    Some(Symbol {
        name: rule.name.clone(),
        points: rule.points,
        description: rule.description.clone(),
        evidence: Some(evidence),
        shadow: rule.shadow,
        judge: Judge::Rule,
        found: None,
    })
}

/// Adds what other rooms found. A rule that gives points to one of these symbols is that symbol, and shows what it is about.
fn join(symbols: &mut Vec<Symbol>, found: &[Symbol]) {
    for symbol in found {
        match symbols.iter_mut().find(|rule| rule.name == symbol.name) {
            Some(rule) => {
                let place = rule.evidence.take().unwrap_or_default();
                rule.evidence = Some(format!("{} {place}", symbol.evidence.as_deref().unwrap_or_default()));
                rule.found = Some((symbol.judge, symbol.points));
                if rule.description.is_empty() {
                    rule.description.clone_from(&symbol.description);
                }
            }
            None => symbols.push(symbol.clone()),
        }
    }
}

fn limit_symbol(row: &'static LimitRow) -> Symbol {
    Symbol::new(Judge::Limit, row.symbol, Points::new(row.points), format!("Over the limit of {}", row.default))
}
