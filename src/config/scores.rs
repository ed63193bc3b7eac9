//! What follows from a score and for whom: `scores` of `[filter]`, listeners and domains, `[[list]]`, `[greylist]`, `[trace]`. Pure.
//!
//! Every bound remembers the line that set it, so that a decision can name it.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Config;
use super::node::Value;
use super::section::Section;
use super::units::{self, Wrong};
use crate::wire::address::{Mailbox, check_domain};

/// Where a setting stands: `weir.toml:12`, or nowhere for a default.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Line(Option<Arc<str>>);

impl Line {
    /// A line of a file.
    pub(super) fn new(text: String) -> Self {
        Line(Some(text.into()))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("default"))
    }
}

/// Where something stands is no part of what it is: configurations are compared by what they say.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

/// A score from which something is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The score; infinite for `"off"`.
    pub score: f64,
    /// Where it is set.
    pub line: Line,
}

/// The words of actions, as the configuration knows them.
pub const ACTIONS: [&str; 7] = ["tag", "subject", "greylist", "hold", "quarantine", "discard", "reject"];
/// Scores beyond these are mistakes.
const SCORES: RangeInclusive<f64> = -1000.0..=1000.0;

/// Scores by action; what is not set is left to whom these are laid over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores([Option<Bound>; ACTIONS.len()]);

impl Scores {
    /// `tag` 5, `quarantine` 8, `reject` 15, nothing else.
    fn defaults() -> Self {
        let default = |name| match name {
            "tag" => 5.0,
            "quarantine" => 8.0,
            "reject" => 15.0,
            _ => f64::INFINITY,
        };
        Scores(ACTIONS.map(|name| Some(Bound { score: default(name), line: Line::default() })))
    }

    /// The bound of an action, if it is set.
    pub fn bound(&self, name: &str) -> Option<&Bound> {
        let place = ACTIONS.iter().position(|action| *action == name)?;
        self.0[place].as_ref()
    }

    /// These, and where they say nothing those of `base`.
    pub fn over(&self, base: &Scores) -> Scores {
        let mut merged = base.clone();
        for (into, own) in merged.0.iter_mut().zip(&self.0) {
            if own.is_some() {
                into.clone_from(own);
            }
        }
        merged
    }

    fn score(&self, name: &str) -> f64 {
        self.bound(name).map_or(f64::INFINITY, |bound| bound.score)
    }

    /// The keys of `section`.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let scores = Scores(ACTIONS.map(|name| bound(section, name)));
        let finite = |name| scores.bound(name).map(|bound| bound.score).filter(|score| score.is_finite());
        let order = ["tag", "quarantine", "reject"].map(|name| (name, finite(name)));
        for pair in order.windows(2) {
            if let [(low, Some(a)), (_, Some(b))] = pair
                && a > b
            {
                let help = "the defaults are 5, 8 and 15";
                section.fault(low, "the scores must grow: tag <= quarantine <= reject", help);
            }
        }
        scores
    }

    /// The keys of [filter], over the defaults.
    pub(super) fn of_filter(section: &mut Section<'_>) -> Self {
        let own = Scores::read(section);
        let merged = own.over(&Scores::defaults());
        let grows =
            merged.score("tag") <= merged.score("quarantine") && merged.score("quarantine") <= merged.score("reject");
        let is_off = ["tag", "quarantine", "reject"].iter().any(|name| merged.score(name).is_infinite());
        if !grows && !is_off && section.cx.sink.is_empty() {
            let at = if merged.score("quarantine") > merged.score("reject") { "quarantine" } else { "tag" };
            section.fault(at, "the scores must grow: tag <= quarantine <= reject", "the defaults are 5, 8 and 15");
        }
        merged
    }

    /// `scores = { … }` of a listener or domain, `outbound = { … }` of [filter].
    pub(super) fn table(section: &mut Section<'_>, key: &'static str) -> Self {
        let mut inner = section.section(key);
        let scores = Scores::read(&mut inner);
        inner.finish();
        scores
    }
}

impl fmt::Display for Scores {
    /// `tag 5, quarantine 8, reject 15`; what is off is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = ACTIONS.iter().zip(&self.0).filter_map(|(name, bound)| Some((name, bound.as_ref()?)));
        let on = set.filter(|(_, bound)| bound.score.is_finite());
        let words: Vec<String> = on.map(|(name, bound)| format!("{name} {}", bound.score)).collect();
        f.write_str(&words.join(", "))
    }
}

impl Config {
    /// Sets the score of an action for all mail; `score` is a number or `off`.
    /// # Errors
    /// If there is no such action, or it is no score.
    pub fn set_score(&mut self, action: &str, score: &str) -> Result<(), String> {
        let place = ACTIONS.iter().position(|name| *name == action);
        let place = place.ok_or_else(|| format!("there is no action `{action}` but {}", ACTIONS.join(", ")))?;
        let number = if score == "off" { Ok(f64::INFINITY) } else { score.parse().map_err(|_| ()) };
        let fits = |score: &f64| score.is_infinite() || SCORES.contains(score);
        let score = number.ok().filter(fits).ok_or_else(|| format!("`{score}` is neither a score nor off"))?;
        self.filter.scores.0[place] = Some(Bound { score, line: Line::new("--set".to_owned()) });
        let listeners = self.listeners.iter_mut().map(|listener| &mut listener.scores);
        let domains = self.domains.iter_mut().map(|domain| &mut domain.scores);
        let over = listeners.chain(domains).chain([&mut self.filter.outbound]);
        over.for_each(|scores| scores.0[place] = None);
        Ok(())
    }
}

/// A number, or `"off"`.
fn bound(section: &mut Section<'_>, name: &'static str) -> Option<Bound> {
    let node = section.node(name)?;
    let line = section.line_of(name);
    if let Value::String(text) = &node.value {
        if text == "off" {
            return Some(Bound { score: f64::INFINITY, line });
        }
        section.fault(name, format!("`{name}` must be a score or \"off\""), format!("{name} = 8.0"));
        return None;
    }
    Some(Bound { score: section.float(name, 0.0, SCORES), line })
}

/// Whom an entry of a list means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// One address, in lower case.
    Address(String),
    /// Everybody at a domain, in lower case.
    Domain(String),
    /// Clients in a network.
    Network(IpNet),
}

impl Sender {
    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some(domain) = text.strip_prefix('@') {
            let ascii = idna::domain_to_ascii(domain).unwrap_or_default();
            return match check_domain(&ascii) {
                Ok(()) => Ok(Sender::Domain(ascii)),
                Err(_) => Err(format!("`{text}` names no domain")),
            };
        }
        if text.contains('@') {
            let parsed = Mailbox::parse(text, true).map_err(|_| format!("`{text}` is no address"))?;
            return Ok(Sender::Address(parsed.as_str().to_lowercase()));
        }
        let help = || format!("`{text}` is neither an address, nor @domain, nor a network");
        units::network(text).map(Sender::Network).map_err(|_| help())
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sender::Address(address) => f.write_str(address),
            Sender::Domain(domain) => write!(f, "@{domain}"),
            Sender::Network(network) => write!(f, "{network}"),
        }
    }
}

/// `[[list]]`: senders that some recipients, or all, want or do not want.
#[derive(Clone, Debug)]
pub struct List {
    /// Recipients' addresses and domains, in lower case; empty: everybody.
    pub recipients: HashSet<String>,
    /// Wanted.
    pub allow: Vec<Sender>,
    /// Not wanted.
    pub block: Vec<Sender>,
    /// Where `allow` and `block` stand.
    pub lines: [Line; 2],
}

/// Entries of one list: each is compared with each message.
const LIST_ENTRIES_MAX: usize = 10_000;

pub(super) fn lists(sections: Vec<Section<'_>>) -> Vec<List> {
    sections.into_iter().map(list).collect()
}

fn list(mut section: Section<'_>) -> List {
    let list = List {
        recipients: section.list("for", recipient).unwrap_or_default().into_iter().collect(),
        allow: section.list("allow", Sender::parse).unwrap_or_default(),
        block: section.list("block", Sender::parse).unwrap_or_default(),
        lines: ["allow", "block"].map(|key| section.line_of(key)),
    };
    if !section.has("allow") && !section.has("block") {
        section.fault("allow", "a list needs `allow` or `block`", "allow = [\"@partner.example\", \"192.0.2.0/24\"]");
    }
    if list.allow.len().max(list.block.len()) > LIST_ENTRIES_MAX {
        section.fault("allow", format!("more than {LIST_ENTRIES_MAX} entries in one list"), "write another [[list]]");
    }
    section.finish();
    list
}

/// `alice@example.org`, or a domain.
fn recipient(text: &str) -> Result<String, Wrong> {
    let text = text.strip_prefix('@').unwrap_or(text);
    let is_right = match text.contains('@') {
        true => Mailbox::parse(text, true).is_ok(),
        false => check_domain(text).is_ok(),
    };
    if is_right { Ok(text.to_lowercase()) } else { Err(format!("`{text}` is neither an address nor a domain")) }
}

/// `[greylist]`: who is asked to come again, and how long that is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greylist {
    /// Earliest return.
    pub delay: Duration,
    /// Latest return.
    pub window: Duration,
    /// How long a pair of network and addresses that came again is let through.
    pub keep: Duration,
    /// Returns after which a network is not asked any more; 0: it always is.
    pub auto_allow: u32,
    /// Triplets and networks that are remembered.
    pub entries: usize,
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn greylist(mut section: Section<'_>) -> Greylist {
    let greylist = Greylist {
        delay: section.duration("delay", 5 * MINUTE, Duration::from_secs(1)..=DAY),
        window: section.duration("window", 2 * DAY, MINUTE..=30 * DAY),
        keep: section.duration("keep", 35 * DAY, HOUR..=365 * DAY),
        auto_allow: section.number32("auto_allow", 5, 0..=1000),
        entries: section.number("entries", 200_000, 1000..=10_000_000) as usize,
    };
    if greylist.delay >= greylist.window {
        section.fault("delay", "`delay` must be shorter than `window`, or nobody can come back in time", "");
    }
    section.finish();
    greylist
}

/// Of which messages something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// None.
    None,
    /// Those that were refused or kept back.
    Refused,
    /// Those that were judged, and all that were refused or kept back.
    Judged,
    /// All.
    All,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = KEPT.iter().find(|(_, kept)| kept == self).map(|(word, _)| *word);
        f.write_str(word.expect("the table names every value"))
    }
}

/// `[trace]`: what is remembered of decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Which messages get a record.
    pub record: Kept,
    /// How long.
    pub keep: Duration,
    /// Bytes of all records and contents.
    pub size: u64,
    /// Which messages' bytes are kept beside their records, for replay.
    pub content: Kept,
    /// Messages larger than this are recorded without their bytes.
    pub content_bytes: u64,
}

const KEPT: [(&str, Kept); 4] =
    [("none", Kept::None), ("refused", Kept::Refused), ("judged", Kept::Judged), ("all", Kept::All)];
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(super) fn trace(mut section: Section<'_>) -> Trace {
    let trace = Trace {
        record: section.word("record", &KEPT, &[]).unwrap_or(Kept::Judged),
        keep: section.duration("keep", 14 * DAY, HOUR..=365 * DAY),
        size: section.size("size", GIB, 16 * MIB..=1024 * GIB),
        content: section.word("content", &KEPT, &[]).unwrap_or(Kept::None),
        content_bytes: section.size("content_bytes", 256 * KIB, KIB..=16 * MIB),
    };
    if trace.content > trace.record {
        section.fault("content", "`content` can't be kept of messages without a record", "set `record` as wide");
    }
    section.finish();
    trace
}
