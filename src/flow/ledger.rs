//! What each rule did, by the records: hits, hits that decided, hits on mail that was released after all. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use crate::filter::{Judge, Points};
use crate::observe::trace::{Entry, Record};

use super::again::{symbol, thresholds_of};

/// One rule's account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Messages that it hit.
    pub hits: u64,
    /// Of these, marked as spam at least.
    pub spam: u64,
    /// Of these, such as would have had another fate without it.
    pub deciding: u64,
    /// Of these, taken out of quarantine or hold by an operator.
    pub released: u64,
}

/// All accounts.
#[derive(Default)]
pub struct Ledger {
    /// By rule.
    pub accounts: BTreeMap<String, Account>,
    /// Messages judged.
    pub messages: u64,
    /// Rules that hit what may be released, by message.
    kept_back: HashMap<String, Vec<String>>,
    released: HashSet<String>,
}

impl Ledger {
    /// Adds one entry of the trace.
    pub fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Decision(record) if record.parcels.iter().any(|parcel| parcel.score.is_some()) => {
                self.record(record)
            }
            Entry::Decision(_) => {}
            Entry::Event(event) if event.what == "released" && self.released.insert(event.id.clone()) => {
                for name in self.kept_back.get(&event.id).into_iter().flatten() {
                    self.accounts.entry(name.clone()).or_default().released += 1;
                }
            }
            Entry::Event(_) => {}
        }
    }

    fn record(&mut self, record: &Record) {
        self.messages += 1;
        let symbols: Vec<_> = record.symbols.iter().map(symbol).collect();
        let is_spam = record
            .parcels
            .iter()
            .any(|parcel| parcel.score.is_some_and(|score| Points::new(score).reaches(thresholds_of(parcel).tag)));
        for rule in symbols.iter().filter(|symbol| symbol.judge == Judge::Rule) {
            let account = self.accounts.entry(rule.name.clone()).or_default();
            account.hits += 1;
            account.spam += u64::from(is_spam);
            account.deciding += u64::from(!rule.shadow && decides(record, rule.points));
        }
        for parcel in record.parcels.iter().filter(|parcel| ["held", "quarantined"].contains(&parcel.fate.as_str())) {
            let rules = symbols.iter().filter(|symbol| symbol.judge == Judge::Rule).map(|symbol| symbol.name.clone());
            self.kept_back.insert(parcel.id.clone(), rules.collect());
        }
    }
}

/// True if some recipients' mail would have had another fate without these points.
fn decides(record: &Record, points: Points) -> bool {
    record.parcels.iter().any(|parcel| {
        let Some(score) = parcel.score.map(Points::new) else { return false };
        let thresholds = thresholds_of(parcel);
        thresholds.action(score) != thresholds.action(score.without(points))
    })
}
