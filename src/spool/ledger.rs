//! The books: recipients taken and let go, by the hour. Pure. `accepted = delivered + bounced + … + queued` is proved from them.
//!
//! A snapshot stands at the start of each segment and is exact there; the records behind it are counted again when the
//! journal is read, so the books survive both crashes and the recycling of segments.

use std::collections::BTreeMap;

use super::codec::{Reader, Writer};
use crate::base::audit::Audit;

/// One column of the books, counted in recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Taken from clients or made by ourselves (bounces).
    Accepted,
    /// Given to a next hop or store.
    Delivered,
    /// Returned to the sender, or ended without return where none is due.
    Bounced,
    /// Too old.
    Expired,
    /// Thrown away because the configuration says so.
    Discarded,
    /// Thrown away by an operator or because the quarantine's time is over.
    Dropped,
    /// Lost through damage of the disk (positive), or found again after it (negative).
    Lost,
}

/// How many accounts there are.
const ACCOUNTS: usize = 7;
const HOUR_MS: u64 = 3_600_000;
/// Hours kept apart: 40 days, longer than any queue lifetime; older ones are summed up.
const HOURS_KEPT: u64 = 40 * 24;

type Row = [i64; ACCOUNTS];

/// All books.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    before: Row,
    hours: BTreeMap<u64, Row>,
}

impl Ledger {
    /// Enters `recipients` at `at_ms`.
    pub(super) fn enter(&mut self, at_ms: u64, account: Account, recipients: i64) {
        if recipients == 0 {
            return;
        }
        let hour = at_ms / HOUR_MS;
        let sum = &mut self.hours.entry(hour).or_default()[account as usize];
        *sum = sum.saturating_add(recipients);
        while let Some(first) = self.hours.first_entry()
            && *first.key() < hour.saturating_sub(HOURS_KEPT)
        {
            let row = first.remove();
            add(&mut self.before, &row);
        }
    }

    /// What must be in the queue at the start of `hour`, or at the end of all time.
    fn balance_before(&self, hour: u64) -> i64 {
        let mut sum = self.before;
        self.hours.range(..hour).for_each(|(_, row)| add(&mut sum, row));
        sum[Account::Delivered as usize..]
            .iter()
            .fold(sum[Account::Accepted as usize], |left, gone| left.saturating_sub(*gone))
    }

    /// What must be in the queue now.
    pub(super) fn balance(&self) -> i64 {
        self.balance_before(u64::MAX)
    }

    /// The equation for the hours that `from_ms` and `to_ms` lie in and those between, against the counted queue.
    pub(super) fn audit(&self, from_ms: u64, to_ms: u64, queued: i64, quarantined: i64) -> Audit {
        let (from, to) = (from_ms / HOUR_MS, to_ms / HOUR_MS + 1);
        let mut sum = Row::default();
        self.hours.range(from..to.max(from)).for_each(|(_, row)| add(&mut sum, row));
        let of = |account: Account| sum[account as usize];
        Audit {
            opening: self.balance_before(from),
            accepted: of(Account::Accepted),
            delivered: of(Account::Delivered),
            bounced: of(Account::Bounced),
            expired: of(Account::Expired),
            discarded: of(Account::Discarded),
            dropped: of(Account::Dropped),
            lost: of(Account::Lost),
            closing: self.balance_before(to),
            queued_now: queued,
            quarantined_now: quarantined,
            balanced: self.balance() == queued,
        }
    }

    pub(super) fn write(&self, w: &mut Writer) {
        self.before.iter().for_each(|value| w.number(zigzag(*value)));
        w.number(self.hours.len() as u64);
        for (hour, row) in &self.hours {
            w.number(*hour);
            row.iter().for_each(|value| w.number(zigzag(*value)));
        }
    }

    pub(super) fn read(r: &mut Reader) -> Option<Self> {
        let before = read_row(r)?;
        let count = r.count()?;
        let hours = (0..count).map(|_| Some((r.number()?, read_row(r)?))).collect::<Option<_>>()?;
        Some(Ledger { before, hours })
    }
}

/// Numbers of a damaged journal may be of any size; true ones never come near the bounds.
fn add(sum: &mut Row, row: &Row) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum = sum.saturating_add(*value));
}

fn read_row(r: &mut Reader) -> Option<Row> {
    let mut row = Row::default();
    for value in &mut row {
        let coded = r.number()?;
        *value = (coded >> 1) as i64 ^ -((coded & 1) as i64);
    }
    Some(row)
}

/// Small numbers of either sign become small numbers.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_read_back_and_balance() {
        let mut ledger = Ledger::default();
        ledger.enter(HOUR_MS, Account::Accepted, 5);
        ledger.enter(2 * HOUR_MS, Account::Delivered, 2);
        ledger.enter(3 * HOUR_MS, Account::Lost, -1);
        let mut bytes = Vec::new();
        ledger.write(&mut Writer(&mut bytes));
        assert_eq!(Ledger::read(&mut Reader(&bytes)), Some(ledger.clone()));
        let audit = ledger.audit(2 * HOUR_MS, 2 * HOUR_MS, 4, 0);
        assert_eq!((audit.opening, audit.delivered, audit.closing, audit.balanced), (5, 2, 3, true));
    }

    #[test]
    fn numbers_of_any_size_are_borne() {
        let mut ledger = Ledger::default();
        let mut bytes = Vec::new();
        let mut w = Writer(&mut bytes);
        (0..ACCOUNTS).for_each(|_| w.number(zigzag(i64::MAX)));
        w.number(1);
        w.number(u64::MAX);
        (0..ACCOUNTS).for_each(|_| w.number(zigzag(i64::MIN)));
        for at_ms in [0, u64::MAX] {
            ledger.enter(at_ms, Account::Dropped, i64::MIN);
            ledger.enter(at_ms, Account::Accepted, i64::MAX);
            ledger.enter(at_ms, Account::Accepted, i64::MAX);
            ledger = Ledger::read(&mut Reader(&bytes)).unwrap();
        }
        ledger.enter(u64::MAX, Account::Dropped, i64::MIN);
        assert!(!ledger.audit(0, u64::MAX, 0, 0).balanced);
    }

    #[test]
    fn old_hours_are_summed_up_and_still_count() {
        let mut ledger = Ledger::default();
        ledger.enter(0, Account::Accepted, 5);
        ledger.enter(HOUR_MS * (HOURS_KEPT + 5), Account::Delivered, 5);
        assert_eq!((ledger.balance(), ledger.hours.len()), (0, 1));
    }
}
