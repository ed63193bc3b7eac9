//! Rows with counts, by period and domain: what DMARC and TLS reports are made of. Pure; time is passed in.
//!
//! A period is a day in UTC, or the part of one since an operator had reports sent. Rows with the same facts are one row with a count. Domains,
//! rows of one domain and rows in total are bounded; what does not fit is counted, told in the report and in the metrics. Every
//! change can be told as [`Entry`]s, from which the same ledger grows again. Nothing is forgotten before [`Ledger::done`] says so.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use super::DAY_SECS;

/// Domains of one period; with more there would be more reports to send than a night has seconds.
const DOMAINS_MAX: usize = 20_000;
/// Different rows of one domain: a report of 10 MB in XML.
const DOMAIN_ROWS_MAX: usize = 10_000;

/// The row was not counted: a bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A change of a ledger, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry<H, R> {
    /// A domain was seen for the first time in a period.
    Head(u64, String, H),
    /// So often a row was seen, all in all.
    Row(u64, String, R, u64),
    /// So many were not counted, all in all.
    Left(u64, String, u64),
    /// A period that ended before its day did.
    End(u64, u64),
    /// A domain's report of a period is made; all of it goes.
    Done(u64, String),
}

/// What was seen of one domain in one period.
#[derive(Clone, Debug)]
pub struct Tally<H, R> {
    /// What is the same for all rows: the policy, where reports go.
    pub head: H,
    /// Rows with their counts.
    pub rows: HashMap<R, u64>,
    /// How many did not fit.
    pub left_out: u64,
    changed: HashMap<R, u64>,
    head_written: bool,
    left_written: u64,
}

#[derive(Clone, Debug)]
struct Period<H, R> {
    end: u64,
    domains: HashMap<String, Tally<H, R>>,
}

/// A report that is due.
#[derive(Clone, Debug)]
pub struct Due<H, R> {
    /// From, in seconds since 1970.
    pub begin: u64,
    /// To, inclusive.
    pub end: u64,
    /// The policy's domain.
    pub domain: String,
    /// What was seen.
    pub tally: Tally<H, R>,
}

/// All that was seen and not reported yet.
#[derive(Clone, Debug)]
pub struct Ledger<H, R> {
    periods: BTreeMap<u64, Period<H, R>>,
    ended: Vec<Entry<H, R>>,
    rows: usize,
}

impl<H, R> Default for Ledger<H, R> {
    fn default() -> Self {
        Ledger { periods: BTreeMap::new(), ended: Vec::new(), rows: 0 }
    }
}

impl<H: Clone, R: Clone + Eq + Hash> Ledger<H, R> {
    /// Counts a row at `now` (seconds since 1970).
    /// # Errors
    /// If there is no place for one more; with a domain that is known, that is counted.
    pub fn note(
        &mut self,
        domain: &str,
        head: impl FnOnce() -> H,
        row: R,
        now: u64,
        rows_max: usize,
    ) -> Result<(), Full> {
        let begin = self.period(now);
        let is_full = self.rows >= rows_max;
        let period = self.periods.entry(begin).or_insert_with(|| Period::new(begin));
        if !period.domains.contains_key(domain) {
            if is_full || period.domains.len() >= DOMAINS_MAX {
                return Err(Full);
            }
            period.domains.insert(domain.to_owned(), Tally::new(head()));
        }
        let tally = period.domains.get_mut(domain).expect("it was put there");
        if let Some(count) = tally.rows.get_mut(&row) {
            *count += 1;
            tally.changed.insert(row, *count);
            return Ok(());
        }
        if is_full || tally.rows.len() >= DOMAIN_ROWS_MAX {
            tally.left_out += 1;
            return Err(Full);
        }
        tally.rows.insert(row.clone(), 1);
        tally.changed.insert(row, 1);
        self.rows += 1;
        Ok(())
    }

    /// The beginning of the period that `now` is in, which may be a new one.
    fn period(&self, now: u64) -> u64 {
        let day = now - now % DAY_SECS;
        match self.periods.range(day..=now).next_back() {
            Some((begin, period)) if now <= period.end => *begin,
            Some((_, period)) => period.end + 1,
            None => day,
        }
    }

    /// Ends the period that `now` is in, so that it is due; what comes from now on is of the next one.
    pub fn close(&mut self, now: u64) {
        let begin = self.period(now);
        let end = begin.max(now.saturating_sub(1));
        if let Some(period) = self.periods.get_mut(&begin).filter(|period| period.end > end) {
            period.end = end;
            self.ended.push(Entry::End(begin, end));
        }
    }

    /// Beginning and domain of the reports of periods that are over at `now`.
    pub fn due(&self, now: u64) -> Vec<(u64, String)> {
        let over = self.periods.iter().filter(|(_, period)| period.end <= now);
        over.flat_map(|(begin, period)| period.domains.keys().map(|domain| (*begin, domain.clone()))).collect()
    }

    /// What such a report is made of.
    pub fn report(&self, begin: u64, domain: &str) -> Option<Due<H, R>> {
        let period = self.periods.get(&begin)?;
        let tally = period.domains.get(domain)?.clone();
        Some(Due { begin, end: period.end, domain: domain.to_owned(), tally })
    }

    /// True if [`Ledger::due`] would give something.
    pub fn is_due(&self, now: u64) -> bool {
        self.periods.values().any(|period| period.end <= now && !period.domains.is_empty())
    }

    /// A report is on its way, or can't be: its rows go.
    pub fn done(&mut self, begin: u64, domain: &str) {
        let Some(period) = self.periods.get_mut(&begin) else { return };
        if let Some(tally) = period.domains.remove(domain) {
            self.rows -= tally.rows.len();
            self.ended.push(Entry::Done(begin, domain.to_owned()));
        }
    }

    /// Forgets empty periods that are over; the present one stays, for its end is known by it.
    pub fn prune(&mut self, now: u64) {
        let today = now - now % DAY_SECS;
        self.periods.retain(|begin, period| !period.domains.is_empty() || *begin >= today);
    }

    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What waits: beginning, domain, rows, how many they count.
    pub fn waiting(&self) -> impl Iterator<Item = (u64, &str, usize, u64)> {
        self.periods.iter().flat_map(|(begin, period)| {
            let told = |(domain, tally)| {
                let Tally { rows, .. }: &Tally<H, R> = tally;
                (*begin, String::as_str(domain), rows.len(), rows.values().sum())
            };
            period.domains.iter().map(told)
        })
    }

    /// What changed since this was asked last.
    pub fn changes(&mut self) -> Vec<Entry<H, R>> {
        // What ended did so before rows of the same domain came again.
        let mut entries = std::mem::take(&mut self.ended);
        for (begin, period) in &mut self.periods {
            for (domain, tally) in &mut period.domains {
                if tally.changed.is_empty() && tally.left_written == tally.left_out {
                    continue;
                }
                if !tally.head_written {
                    tally.head_written = true;
                    entries.push(Entry::Head(*begin, domain.clone(), tally.head.clone()));
                }
                let rows = tally.changed.drain().map(|(row, count)| Entry::Row(*begin, domain.clone(), row, count));
                entries.extend(rows);
                if tally.left_written != tally.left_out {
                    tally.left_written = tally.left_out;
                    entries.push(Entry::Left(*begin, domain.clone(), tally.left_out));
                }
            }
        }
        entries
    }

    /// Everything, as if it had just happened.
    pub fn everything(&mut self) -> Vec<Entry<H, R>> {
        for tally in self.periods.values_mut().flat_map(|period| period.domains.values_mut()) {
            tally.head_written = false;
            tally.left_written = 0;
            tally.changed = tally.rows.clone();
        }
        self.ended.clear();
        let mut entries = self.changes();
        let cut = self.periods.iter().filter(|(begin, period)| period.end != day_end(**begin));
        entries.extend(cut.map(|(begin, period)| Entry::End(*begin, period.end)));
        entries
    }

    /// Grows again from what was kept, under the bounds of today.
    pub fn restore(&mut self, entry: Entry<H, R>, rows_max: usize) {
        match entry {
            Entry::Head(begin, domain, head) => {
                let period = self.periods.entry(begin).or_insert_with(|| Period::new(begin));
                if period.domains.len() < DOMAINS_MAX {
                    period.domains.entry(domain).or_insert_with(|| Tally { head_written: true, ..Tally::new(head) });
                }
            }
            Entry::Row(begin, domain, row, count) => {
                let Some(tally) = self.tally(begin, &domain) else { return };
                let known = tally.rows.contains_key(&row);
                if known || (tally.rows.len() < DOMAIN_ROWS_MAX && self.rows < rows_max) {
                    let tally = self.tally(begin, &domain).expect("it was there");
                    tally.rows.insert(row, count);
                    self.rows += usize::from(!known);
                }
            }
            Entry::Left(begin, domain, count) => {
                if let Some(tally) = self.tally(begin, &domain) {
                    (tally.left_out, tally.left_written) = (count, count);
                }
            }
            Entry::End(begin, end) => self.periods.entry(begin).or_insert_with(|| Period::new(begin)).end = end,
            Entry::Done(begin, domain) => {
                self.done(begin, &domain);
                self.ended.clear();
            }
        }
    }

    fn tally(&mut self, begin: u64, domain: &str) -> Option<&mut Tally<H, R>> {
        self.periods.get_mut(&begin)?.domains.get_mut(domain)
    }
}

fn day_end(begin: u64) -> u64 {
    begin - begin % DAY_SECS + DAY_SECS - 1
}

impl<H, R> Period<H, R> {
    fn new(begin: u64) -> Self {
        Period { end: day_end(begin), domains: HashMap::new() }
    }
}

impl<H, R> Tally<H, R> {
    fn new(head: H) -> Self {
        Tally { head, rows: HashMap::new(), left_out: 0, changed: HashMap::new(), head_written: false, left_written: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Small = Ledger<u8, u8>;

    type Counted = (u64, String, Vec<(u8, u64)>, u64);

    fn counts(ledger: &Small) -> Vec<Counted> {
        let mut all: Vec<_> = ledger
            .due(u64::MAX)
            .into_iter()
            .map(|(begin, domain)| {
                let due = ledger.report(begin, &domain).unwrap();
                let mut rows: Vec<_> = due.tally.rows.into_iter().collect();
                rows.sort_unstable();
                (due.begin, format!("{} {}", due.domain, due.end), rows, due.tally.left_out)
            })
            .collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn a_day_is_a_period_and_a_close_cuts_it() {
        let mut ledger = Small::default();
        let day = 5 * DAY_SECS;
        ledger.note("a", || 1, 7, day + 10, 99).unwrap();
        assert!(!ledger.is_due(day + DAY_SECS - 2) && ledger.is_due(day + DAY_SECS));
        ledger.close(day + 20);
        assert!(ledger.is_due(day + 20));
        ledger.note("a", || 1, 7, day + 20, 99).unwrap();
        ledger.note("a", || 1, 7, day + 30, 99).unwrap();
        let due = ledger.due(day + 30);
        assert_eq!(due, [(day, "a".to_owned())]);
        assert_eq!(ledger.report(day, "a").unwrap().end, day + 19);
        ledger.done(day, "a");
        ledger.prune(day + 30);
        assert!(ledger.due(day + 30).is_empty());
        ledger.note("a", || 1, 7, day + 40, 99).unwrap();
        assert_eq!(counts(&ledger), [(day + 20, format!("a {}", day + DAY_SECS - 1), vec![(7, 3)], 0)]);
    }

    #[test]
    fn what_does_not_fit_is_counted_and_what_is_known_still_counts() {
        let mut ledger = Small::default();
        ledger.note("a", || 1, 1, 5, 2).unwrap();
        ledger.note("a", || 1, 2, 5, 2).unwrap();
        assert_eq!(ledger.note("a", || 1, 3, 5, 2), Err(Full));
        assert_eq!(ledger.note("b", || 1, 3, 5, 2), Err(Full));
        ledger.note("a", || 1, 2, 5, 2).unwrap();
        assert_eq!(counts(&ledger)[0].2, [(1, 1), (2, 2)]);
        assert_eq!(counts(&ledger)[0].3, 1);
    }

    proptest! {
        #[test]
        fn what_was_kept_grows_into_the_same_ledger(
            steps in proptest::collection::vec((0u8..6, 0u8..4, 0u8..5, 0u64..40_000), 0..120),
        ) {
            let (mut ledger, mut kept, mut now) = (Small::default(), Vec::new(), 0);
            for (what, domain, row, pass) in steps {
                now += pass;
                match what {
                    0..=2 => {
                        let _full = ledger.note(&domain.to_string(), || domain, row, now, 12);
                    }
                    3 => ledger.close(now),
                    4 => {
                        let due = ledger.due(now);
                        due.iter().for_each(|(begin, domain)| ledger.done(*begin, domain));
                        ledger.prune(now);
                    }
                    _ => kept.extend(ledger.changes()),
                }
            }
            let everything = ledger.clone().everything();
            kept.extend(ledger.changes());
            for entries in [kept, everything] {
                let mut again = Small::default();
                entries.into_iter().for_each(|entry| again.restore(entry, 12));
                prop_assert_eq!(again.rows(), ledger.rows());
                prop_assert_eq!(counts(&again), counts(&ledger));
            }
        }
    }
}
