//! Recorded mail judged again, under other rules or scores, with the inputs of its day. Pure.
//!
//! With the message's bytes, rules, attachments and limits are asked again; without them, the rules that hit then are weighed
//! with the points of now. What others said (identity, classifier, lists, scanners) is believed as it was recorded, so that two
//! runs over the same records say the same.

use crate::config::Config;
use crate::config::settings::Scores;
use crate::filter::{Action, Engine, Facts, Judge, Points, Symbol, Thresholds, Verdict};
use crate::observe::trace::{Parcel, Reason, Record};
use crate::policy::Domains;

/// One decision, then and now.
#[derive(Clone, Debug, PartialEq)]
pub struct Again {
    /// The message.
    pub id: String,
    /// Reverse-path.
    pub from: String,
    /// The recipient who stands for those with the same outcome.
    pub to: String,
    /// Then.
    pub before: (Points, Action),
    /// Now.
    pub after: (Points, Action),
    /// The rules were asked again; else only weighed again.
    pub whole: bool,
    /// Symbols that are new, gone, or weigh something else: name, points then, points now.
    pub shifts: Vec<(String, Option<Points>, Option<Points>)>,
}

/// What judges.
pub struct Court<'a> {
    /// The engine with the rules of now.
    pub engine: &'a Engine,
    /// The scores of now.
    pub config: &'a Config,
    /// Our domains.
    pub domains: &'a Domains,
}

impl Court<'_> {
    /// Judges a record again, for each of its outcomes; nothing if no score decided then.
    pub fn judge(&self, record: &Record, content: Option<&[u8]>) -> Vec<Again> {
        if record.decided.reason == "identity" {
            return Vec::new();
        }
        let shared = match content {
            Some(content) => self.asked_again(record, content),
            None => self.weighed_again(record),
        };
        let scored = record.parcels.iter().filter_map(|parcel| Some((parcel, parcel.score?)));
        scored.flat_map(|(parcel, score)| self.parcel(record, parcel, Points::new(score), &shared, content)).collect()
    }

    fn parcel(
        &self,
        record: &Record,
        parcel: &Parcel,
        score: Points,
        shared: &Verdict,
        content: Option<&[u8]>,
    ) -> Vec<Again> {
        let more: Vec<Symbol> = parcel.more.iter().map(symbol).collect();
        let before = (score, action_of(parcel));
        let mut found: Vec<Again> = Vec::new();
        // Who asks as a spamd client need not say for whom.
        let nobody = [String::new()];
        for to in if parcel.to.is_empty() { &nobody[..] } else { &parcel.to } {
            let mut thresholds = Thresholds::from(&self.scores_for(record, to));
            // Who came again then would do so now; and a login is never asked to.
            if record.outbound || came_again(parcel, score) {
                thresholds.greylist = f64::INFINITY;
            }
            let verdict = shared.under(thresholds, more.iter().cloned());
            let after = (verdict.score, verdict.action);
            if !found.iter().any(|again| again.after == after) {
                found.push(Again {
                    id: parcel.id.clone(),
                    from: record.from.clone().unwrap_or_default(),
                    to: to.clone(),
                    before,
                    after,
                    whole: content.is_some(),
                    shifts: shifts(record, shared),
                });
            }
        }
        found
    }

    /// The scores of now for one recipient, laid over each other as at the door.
    fn scores_for(&self, record: &Record, to: &str) -> Scores {
        let filter = &self.config.filter;
        let direction = if record.outbound { filter.outbound.over(&filter.scores) } else { filter.scores.clone() };
        let mut listeners = self.config.listeners.iter();
        let listener = listeners.find(|listener| *listener.name == *record.client.listener);
        let scores = listener.map_or(direction.clone(), |listener| listener.scores.over(&direction));
        let domain = to.rsplit_once('@').and_then(|(_, domain)| self.domains.find(domain));
        domain.map_or(scores.clone(), |domain| domain.scores.over(&scores))
    }

    fn asked_again(&self, record: &Record, content: &[u8]) -> Verdict {
        let symbols = || record.symbols.iter().map(symbol);
        let believed = |symbol: &Symbol| matches!(symbol.judge, Judge::Classifier | Judge::List);
        let facts = Facts {
            came_secs: None,
            ip: Some(record.client.ip),
            helo: record.client.helo.clone(),
            host: record.client.host.clone(),
            reverse_path: record.from.clone(),
            recipients: record.to.clone(),
            trusted: record.client.login.is_some(),
            symbols: symbols().filter_map(as_found).collect(),
        };
        self.engine.judge_again(content, &facts, symbols().filter(believed).collect())
    }

    fn weighed_again(&self, record: &Record) -> Verdict {
        let weigh = |mut symbol: Symbol| {
            if symbol.judge == Judge::Rule {
                // A rule that is gone, or was switched off, says nothing now.
                symbol.points = self.engine.points_of(&symbol.name)?;
            }
            Some(symbol)
        };
        let symbols = record.symbols.iter().map(symbol).filter_map(weigh).collect();
        Verdict::new(symbols, Thresholds::from(&self.config.filter.scores), record.probability)
    }
}

/// A symbol as another room or program found it, without what a rule made of it; nothing if it is no such symbol. Rules may ask for
/// these, so they go in before the rules: among them how often messages like this one had come by then.
fn as_found(symbol: Symbol) -> Option<Symbol> {
    let (judge, points) = symbol.found.unwrap_or((symbol.judge, symbol.points));
    matches!(judge, Judge::Identity | Judge::Scanner).then_some(Symbol { judge, points, found: None, ..symbol })
}

/// A reason of a record as a symbol.
pub fn symbol(reason: &Reason) -> Symbol {
    // A judge of another version said something; it is believed.
    let judge = |word: &str| serde_json::from_value(word.into()).unwrap_or(Judge::Scanner);
    Symbol {
        name: reason.name.clone(),
        points: Points::new(reason.points),
        description: reason.description.clone(),
        evidence: reason.evidence.clone(),
        shadow: reason.shadow,
        judge: judge(&reason.judge),
        found: reason.found.as_ref().map(|(word, points)| (judge(word), Points::new(*points))),
    }
}

/// The thresholds that were in force for a parcel.
pub fn thresholds_of(parcel: &Parcel) -> Thresholds {
    Thresholds::by_name(|wanted| parcel.scores.iter().find(|(name, ..)| name == wanted).map(|(_, score, _)| *score))
}

/// What the score asked for then.
pub fn action_of(parcel: &Parcel) -> Action {
    Action::ALL.into_iter().find(|action| action.as_str() == parcel.action).unwrap_or(Action::Accept)
}

/// True if the greylist let it through although its score asked for a wait.
fn came_again(parcel: &Parcel, score: Points) -> bool {
    thresholds_of(parcel).action(score) == Action::Greylist && action_of(parcel) != Action::Greylist
}

fn shifts(record: &Record, now: &Verdict) -> Vec<(String, Option<Points>, Option<Points>)> {
    let then: Vec<Symbol> = record.symbols.iter().map(symbol).collect();
    let points = |symbols: &[Symbol], name: &str| {
        symbols.iter().find(|symbol| symbol.name == name && !symbol.shadow).map(|symbol| symbol.points)
    };
    let mut names: Vec<&String> = then.iter().chain(&now.symbols).map(|symbol| &symbol.name).collect();
    names.sort();
    names.dedup();
    let shift = |name: &String| (name.clone(), points(&then, name), points(&now.symbols, name));
    names.into_iter().map(shift).filter(|(_, then, now)| then.unwrap_or_default() != now.unwrap_or_default()).collect()
}
