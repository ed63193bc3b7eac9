//! `weir replay`: what would have become of recorded mail under other rules or scores. I/O: the trace; the API of a running Weir.
//!
//! Standard output is the same for the same records and rules; what it costs, which is not, goes to standard error.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rayon::prelude::*;
use serde_json::json;

use super::api::Api;
use super::table::{plain, say};
use super::{ConfigFile, Exit};
use crate::config::Config;
use crate::config::units::duration;
use crate::filter::{Action, Engine, Points};
use crate::flow::again::{Again, Court};
use crate::observe::trace::read::{Found, Wanted, each};
use crate::observe::trace::{self, Entry, Record};
use crate::policy::Domains;

/// Arguments of `weir replay`.
#[derive(clap::Args)]
pub struct Args {
    /// How far back.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = duration)]
    since: Duration,
    /// Rule files or folders, in place of the configured ones.
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// Another score for an action, for all mail: reject=12, or quarantine=off.
    #[arg(long = "set", value_name = "ACTION=SCORE")]
    scores: Vec<String>,
    /// Rules, scores, listeners and domains of this configuration, in place of --config's; the records are still --config's.
    #[arg(long, value_name = "FILE")]
    with: Option<PathBuf>,
    /// Name at most so many messages of each kind.
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// Judges again, prints what changes. The exit code is `No` if nothing was recorded.
pub fn run(args: &Args) -> Result<(), Exit> {
    let records = replay(args).map_err(|why| Exit::Usage.because(why))?;
    Exit::No.unless(records > 0)
}

fn replay(args: &Args) -> Result<usize, String> {
    let running = args.config.load().map_err(|problems| problems.to_string())?;
    let candidate = Arc::new(candidate(args, &running)?);
    let engine = Engine::open(&candidate.filter, None).map_err(|error| error.to_string())?;
    let domains = Domains::new(candidate.clone());
    let court = Court { engine: &engine, config: &candidate, domains: &domains };
    let wanted = Wanted { since: SystemTime::now().checked_sub(args.since), ..Wanted::default() };
    let (mut sums, mut batch) = (Sums::default(), Vec::new());
    let api = Api::running(&running);
    let mut judge = |batch: &mut Vec<Found>| {
        let began = Instant::now();
        let judged: Vec<_> = batch.par_drain(..).map(|found| judged(&court, api.as_ref(), &found)).collect();
        sums.elapsed += began.elapsed();
        judged.into_iter().for_each(|(record, outcomes)| sums.add(&record, outcomes));
    };
    let read = each(&running.data_dir.join(trace::FOLDER), &wanted, |found| {
        if matches!(&found.entry, Entry::Decision(_)) {
            batch.push(found);
        }
        if batch.len() == BATCH_RECORDS {
            judge(&mut batch);
        }
        true
    });
    read.map_err(|error| format!("the trace can't be read: {error}"))?;
    judge(&mut batch);
    say(&if args.json { sums.json(args.limit) } else { sums.text(args.limit) });
    eprintln!("{}", sums.cost());
    Ok(sums.records)
}

/// Records that are judged before the next are read.
const BATCH_RECORDS: usize = 4096;

fn candidate(args: &Args, running: &Config) -> Result<Config, String> {
    let mut config = match &args.with {
        Some(path) => Config::load(path).map_err(|problems| problems.to_string())?,
        None => running.clone(),
    };
    if !args.rules.is_empty() {
        config.filter.rules.clone_from(&args.rules);
        config.filter.rules_shipped = false;
    }
    for word in &args.scores {
        let (action, score) = word.split_once('=').ok_or_else(|| format!("`{word}`: write --set reject=12"))?;
        config.set_score(action, score)?;
    }
    Ok(config)
}

/// The bytes that were recorded, or those that the queue still has.
fn content_of(api: Option<&Api>, found: &Found, record: &Record) -> Option<Vec<u8>> {
    let recorded = found.content(record).ok().flatten();
    recorded.or_else(|| {
        let kept = record.parcels.iter().find(|parcel| ["held", "quarantined"].contains(&parcel.fate.as_str()))?;
        api?.bytes(&format!("/v1/queue/{}/content", kept.id))
    })
}

fn judged(court: &Court<'_>, api: Option<&Api>, found: &Found) -> (Record, Vec<Again>) {
    let Entry::Decision(record) = &found.entry else { unreachable!("only decisions are judged") };
    let content = content_of(api, found, record);
    (Record::clone(record), court.judge(record, content.as_deref()))
}

/// What changed.
#[derive(Default)]
struct Sums {
    records: usize,
    whole: usize,
    weighed: usize,
    others: usize,
    up: usize,
    down: usize,
    shift: f64,
    changed: Vec<Again>,
    before_micros: u64,
    elapsed: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Rejected,
    Accepted,
    Other,
}

fn change_of(again: &Again) -> Change {
    let refuses = |action| matches!(action, Action::Reject | Action::Discard);
    let (before, after) = (again.before.1, again.after.1);
    if refuses(after) && !refuses(before) {
        Change::Rejected
    } else if before.is_kept_back() && !after.is_kept_back() {
        Change::Accepted
    } else {
        Change::Other
    }
}

impl Sums {
    fn add(&mut self, record: &Record, outcomes: Vec<Again>) {
        self.records += 1;
        match outcomes.first() {
            None => self.others += 1,
            Some(first) if first.whole => self.whole += 1,
            Some(_) => self.weighed += 1,
        }
        let filter = record.checks.iter().find(|check| check.name == "filter");
        self.before_micros += filter.map_or(0, |check| check.micros);
        for again in outcomes {
            let shift = again.after.0.value() - again.before.0.value();
            self.up += usize::from(shift > 0.0);
            self.down += usize::from(shift < 0.0);
            self.shift += shift;
            if again.before.1 != again.after.1 {
                self.changed.push(again);
            }
        }
    }

    fn of(&self, change: Change) -> Vec<&Again> {
        self.changed.iter().filter(|again| change_of(again) == change).collect()
    }

    fn mean_shift(&self) -> Points {
        Points::new(self.shift / (self.whole + self.weighed).max(1) as f64)
    }

    fn text(&self, limit: usize) -> String {
        let mut out = format!(
            "{} decisions: {} judged again whole, {} only weighed again (their bytes are not there), {} that no score decided\n",
            self.records, self.whole, self.weighed, self.others
        );
        for (title, change) in [
            ("newly rejected", Change::Rejected),
            ("newly accepted", Change::Accepted),
            ("otherwise treated", Change::Other),
        ] {
            let rows = self.of(change);
            writeln!(out, "{title}: {}", rows.len()).expect(INFALLIBLE);
            rows.iter().take(limit).for_each(|again| out.push_str(&row(again)));
        }
        write!(out, "scores: {} higher, {} lower, {} on average", self.up, self.down, self.mean_shift())
            .expect(INFALLIBLE);
        out
    }

    fn json(&self, limit: usize) -> String {
        let list = |change| self.of(change).into_iter().take(limit).map(row_json).collect::<Vec<_>>();
        let count = |change| self.of(change).len();
        json!({
            "decisions": self.records, "judged_whole": self.whole, "weighed": self.weighed, "not_by_score": self.others,
            "newly_rejected": count(Change::Rejected), "newly_accepted": count(Change::Accepted),
            "otherwise": count(Change::Other), "higher": self.up, "lower": self.down,
            "mean_shift": self.mean_shift().value(), "rejected": list(Change::Rejected),
            "accepted": list(Change::Accepted), "other": list(Change::Other),
        })
        .to_string()
    }

    fn cost(&self) -> String {
        let judged = (self.whole + self.weighed).max(1) as u128;
        format!(
            "cost: {} µs a message then, {} µs now (all cores together, with reading)",
            u128::from(self.before_micros) / judged,
            self.elapsed.as_micros() / judged
        )
    }
}

const INFALLIBLE: &str = "a String takes any write";

fn row(again: &Again) -> String {
    let points = |points: Option<Points>| points.map_or("-".to_owned(), |points| points.to_string());
    let shift = |(name, then, now): &(String, Option<Points>, Option<Points>)| {
        format!("{name} {} -> {}", points(*then), points(*now))
    };
    let shifts: Vec<String> = again.shifts.iter().map(shift).collect();
    let weighed = if again.whole { "" } else { " (weighed)" };
    format!(
        "  {} <{}> to <{}>: {} {} -> {} {}{weighed} {}\n",
        again.id,
        plain(&again.from),
        plain(&again.to),
        again.before.1.as_str(),
        again.before.0,
        again.after.1.as_str(),
        again.after.0,
        shifts.join(", ")
    )
}

fn row_json(again: &Again) -> serde_json::Value {
    json!({
        "id": again.id, "from": again.from, "to": again.to, "whole": again.whole,
        "before": { "action": again.before.1.as_str(), "score": again.before.0.value() },
        "after": { "action": again.after.1.as_str(), "score": again.after.0.value() },
        "shifts": again.shifts.iter().map(|(name, then, now)| json!({
            "symbol": name, "before": then.map(Points::value), "after": now.map(Points::value),
        })).collect::<Vec<_>>(),
    })
}
