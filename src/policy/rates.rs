//! `[[rate]]`: how much of what, by whom, in how long. Pure; time is passed in. Safe to share between threads.
//!
//! Counted exactly: one recipient is one, whoever asks; what is refused is not counted. Entries are bounded
//! ([`ENTRIES_MAX`]): what counts no more is dropped first, then what counts least, so a flood of new names can't push out
//! a sender who is at the limit. The state can be carried over a restart ([`Rates::snapshot`]) and a reload.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::decision::{Decision, Reason};
pub use super::rate_keys::RateFacts;
use super::rate_keys::{key_of, names};
use super::window::Window;
use crate::base::unix::millis;
use crate::config::settings::{Line, Rate, RateAction, RateCount, RateWindow};
use crate::config::units::show_duration;
use crate::wire::reply::{Enhanced, Reply};

/// Keys counted at most, over all rates; about 300 bytes each.
pub const ENTRIES_MAX: usize = 1 << 20;
const SHARDS: usize = 64;
/// Entries that are compared when one must go although all of them count.
const EVICTION_SAMPLE: usize = 32;

/// A rate that was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The rate, as `messages by login (200/1h)`.
    pub rate: String,
    /// What it counts.
    pub count: RateCount,
    /// Whose, as `login=alice`.
    pub key: String,
    /// The window that is full.
    pub window: RateWindow,
    /// What happens.
    pub action: RateAction,
    /// When it fits again, at the earliest.
    pub retry_after: Duration,
    /// Where the rate stands.
    pub line: Line,
}

impl Hit {
    /// True if the event must be refused; otherwise it was counted and goes on.
    pub fn refuses(&self) -> bool {
        matches!(self.action, RateAction::Defer | RateAction::Reject)
    }

    /// What to say.
    pub fn decision(&self) -> Decision {
        let (limit, count, period) = (self.window.limit, self.count.as_str(), show_duration(self.window.period));
        let text = format!("Rate limit reached: {limit} {} in {period}", count.replace('_', " "));
        let at_login = self.count == RateCount::AuthFailures;
        let reply = match self.action {
            // RFC 4954 §6: what AUTH may be answered.
            RateAction::Defer if at_login => {
                Some(Reply::new(454, Enhanced(4, 7, 0), format!("{text}, try again later")))
            }
            RateAction::Reject if at_login => Some(Reply::new(535, Enhanced(5, 7, 8), text)),
            RateAction::Defer => Some(Reply::new(450, Enhanced(4, 7, 1), format!("{text}, try again later"))),
            RateAction::Reject => Some(Reply::new(550, Enhanced(5, 7, 1), text)),
            RateAction::Alert | RateAction::Hold => None,
        };
        Decision { reply, reason: Reason::Rate, setting: self.setting() }
    }

    /// As a decision names it: `[[rate]] messages by login (200/1h) (weir.toml:12), login=alice`.
    pub fn setting(&self) -> String {
        format!("[[rate]] {} ({}), {}", self.rate, self.line, self.key)
    }
}

/// One line of [`Rates::list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The rate.
    pub rate: String,
    /// The key.
    pub key: String,
    /// Used, and the window, for each window.
    pub windows: Vec<(u64, RateWindow)>,
}

struct Rule {
    rate: Rate,
    name: String,
}

type Key = (u16, String);

#[derive(Default)]
struct Shard {
    entries: HashMap<Key, Vec<Window>>,
    purged_millis: u64,
}

/// All rates and their counts.
pub struct Rates {
    rules: Vec<Rule>,
    shards: Vec<Mutex<Shard>>,
    shard_entries_max: usize,
    hasher: foldhash::fast::RandomState,
}

impl Rates {
    /// Nothing counted yet.
    pub fn new(rates: &[Rate]) -> Self {
        Rates::with_entries_max(rates, ENTRIES_MAX)
    }

    /// The same with another bound.
    pub fn with_entries_max(rates: &[Rate], entries_max: usize) -> Self {
        let rule = |rate: &Rate| Rule { name: name_of(rate), rate: rate.clone() };
        Rates {
            rules: rates.iter().map(rule).collect(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_entries_max: (entries_max / SHARDS).max(1),
            hasher: foldhash::fast::RandomState::default(),
        }
    }

    /// The same counts under other rules, after a reload. Rates that stayed the same keep what they counted.
    pub fn reconfigured(&self, rates: &[Rate], now: SystemTime) -> Self {
        let next = Rates::new(rates);
        next.restore(&self.snapshot(now), now).expect("a snapshot of our own reads back");
        next
    }

    /// Counts `amount` of `count`, unless that would pass a limit that refuses: then nothing of it is counted. Answers the
    /// limits that were reached, a refusing one first.
    pub fn charge(&self, count: RateCount, facts: &RateFacts<'_>, amount: u64, now: SystemTime) -> Vec<Hit> {
        let now = millis(now);
        let mut hits = Vec::new();
        let mut charged: Vec<(Key, Vec<RateWindow>)> = Vec::new();
        for (at, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.rate.count == count) {
            let Some(text) = key_of(&rule.rate.key, facts) else { continue };
            let key = (at as u16, text);
            match self.charge_one(rule, &key, amount, now) {
                None => charged.push((key, rule.rate.windows.clone())),
                Some(hit) if hit.refuses() => {
                    charged.iter().for_each(|(key, _)| self.take_back(key, amount));
                    return vec![hit];
                }
                Some(hit) => {
                    charged.push((key, rule.rate.windows.clone()));
                    hits.push(hit);
                }
            }
        }
        hits
    }

    /// The limit that would refuse `amount` more of `count`, if any; counts nothing.
    pub fn would_refuse(&self, count: RateCount, facts: &RateFacts<'_>, amount: u64, now: SystemTime) -> Option<Hit> {
        let now = millis(now);
        let rules = self.rules.iter().enumerate().filter(|(_, rule)| rule.rate.count == count);
        rules
            .filter_map(|(at, rule)| self.peek(rule, (at as u16, key_of(&rule.rate.key, facts)?), amount, now))
            .find(Hit::refuses)
    }

    fn peek(&self, rule: &Rule, key: Key, amount: u64, now: u64) -> Option<Hit> {
        let mut shard = self.shard(&key).lock();
        let cells = shard.entries.get_mut(&key)?;
        full_window(rule, &key, cells, amount, now)
    }

    fn charge_one(&self, rule: &Rule, key: &Key, amount: u64, now: u64) -> Option<Hit> {
        let windows = &rule.rate.windows;
        let mut shard = self.shard(key).lock();
        if !shard.entries.contains_key(key) {
            self.make_room(&mut shard, now);
        }
        let cells = shard.entries.entry(key.clone()).or_insert_with(|| vec![Window::default(); windows.len()]);
        let hit = full_window(rule, key, cells, amount, now);
        if !hit.as_ref().is_some_and(Hit::refuses) {
            for (cell, window) in cells.iter_mut().zip(windows) {
                cell.used(now, *window);
                cell.add(amount);
            }
        }
        hit
    }

    fn take_back(&self, key: &Key, amount: u64) {
        if let Some(cells) = self.shard(key).lock().entries.get_mut(key) {
            cells.iter_mut().for_each(|cell| cell.take_back(amount));
        }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[(self.hasher.hash_one(key) >> 32) as usize % SHARDS]
    }

    /// Drops an entry if the shard is full: at most once a second all that count no more, else one that counts little.
    fn make_room(&self, shard: &mut Shard, now: u64) {
        const PURGE_EVERY_MILLIS: u64 = 1000;
        if shard.entries.len() < self.shard_entries_max {
            return;
        }
        if now >= shard.purged_millis.saturating_add(PURGE_EVERY_MILLIS) {
            shard.purged_millis = now;
            shard.entries.retain(|key, cells| !self.is_over(key, cells, now));
        }
        if shard.entries.len() >= self.shard_entries_max {
            let counted = |cells: &[Window]| cells.iter().map(|cell| cell.cells.iter().sum::<u64>()).max();
            let sample = shard.entries.iter().take(EVICTION_SAMPLE);
            let least = sample.min_by_key(|(_, cells)| counted(cells)).map(|(key, _)| key.clone());
            least.and_then(|key| shard.entries.remove(&key));
        }
    }

    fn is_over(&self, key: &Key, cells: &[Window], now: u64) -> bool {
        let windows = &self.rules[key.0 as usize].rate.windows;
        cells.iter().zip(windows).all(|(cell, window)| cell.is_over(now, *window))
    }

    /// Keys counted now.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().entries.len()).sum()
    }

    /// True if nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `most` keys that count something, the fullest first; only those that `wanted` names, if given.
    pub fn list(&self, wanted: Option<&str>, most: usize, now: SystemTime) -> Vec<Usage> {
        let now = millis(now);
        let mut usages = Vec::new();
        for shard in &self.shards {
            for (key, cells) in &mut shard.lock().entries {
                if wanted.is_some_and(|wanted| !names(wanted, &key.1)) {
                    continue;
                }
                let rule = &self.rules[key.0 as usize];
                let used = cells.iter_mut().zip(&rule.rate.windows).map(|(cell, w)| (cell.used(now, *w), *w)).collect();
                usages.push(Usage { rate: rule.name.clone(), key: key.1.clone(), windows: used });
            }
        }
        usages.retain(|usage| usage.windows.iter().any(|(used, _)| *used > 0));
        usages.sort_by(|a, b| fullness(b).total_cmp(&fullness(a)).then_with(|| a.key.cmp(&b.key)));
        usages.truncate(most);
        usages
    }

    /// Forgets what is counted for every key that `wanted` names; answers how many.
    pub fn reset(&self, wanted: &str) -> usize {
        let drop_in = |shard: &Mutex<Shard>| {
            let entries = &mut shard.lock().entries;
            let before = entries.len();
            entries.retain(|key, _| !names(wanted, &key.1));
            before - entries.len()
        };
        self.shards.iter().map(drop_in).sum()
    }

    /// Everything that still counts, as bytes for [`Rates::restore`].
    pub fn snapshot(&self, now: SystemTime) -> Vec<u8> {
        let now = millis(now);
        let mut writer = super::rate_snapshot::Writer::default();
        for shard in &self.shards {
            for (key, cells) in &shard.lock().entries {
                if !self.is_over(key, cells, now) {
                    writer.entry(&self.rules[key.0 as usize].name, &key.1, cells);
                }
            }
        }
        writer.finish()
    }

    /// Takes over a snapshot. Entries of rates that are no longer configured are left out; answers how many were taken.
    /// # Errors
    /// If the bytes are damaged; then nothing is taken.
    pub fn restore(&self, bytes: &[u8], now: SystemTime) -> Result<usize, super::rate_snapshot::Damaged> {
        let now = millis(now);
        let mut taken = 0;
        for (name, key, cells) in super::rate_snapshot::read(bytes)? {
            let Some(at) = self.rules.iter().position(|rule| rule.name == name) else { continue };
            let key = (at as u16, key);
            if cells.len() != self.rules[at].rate.windows.len() || self.is_over(&key, &cells, now) {
                continue;
            }
            let mut shard = self.shard(&key).lock();
            self.make_room(&mut shard, now);
            shard.entries.insert(key, cells);
            taken += 1;
        }
        Ok(taken)
    }
}

/// The first window without room for `amount`.
fn full_window(rule: &Rule, key: &Key, cells: &mut [Window], amount: u64, now: u64) -> Option<Hit> {
    let full = cells.iter_mut().zip(&rule.rate.windows).find_map(|(cell, window)| {
        (!cell.has_room(amount, now, *window)).then(|| (*window, cell.wait_millis(amount, now, *window)))
    });
    full.map(|(window, wait)| Hit {
        rate: rule.name.clone(),
        count: rule.rate.count,
        key: key.1.clone(),
        window,
        action: rule.rate.action,
        retry_after: Duration::from_millis(wait),
        line: rule.rate.line.clone(),
    })
}

/// `recipients by login+ip (200/1h, 1000/1d)`: the same for the same rate, across restarts.
fn name_of(rate: &Rate) -> String {
    let keys: Vec<&str> = rate.key.iter().map(|key| key.as_str()).collect();
    let windows: Vec<String> =
        rate.windows.iter().map(|window| format!("{}/{}", window.limit, show_duration(window.period))).collect();
    format!("{} by {} ({})", rate.count.as_str(), keys.join("+"), windows.join(", "))
}

fn fullness(usage: &Usage) -> f64 {
    usage.windows.iter().map(|(used, window)| *used as f64 / window.limit as f64).fold(0.0, f64::max)
}
