//! The oldest message that is to be delivered, on hold or in quarantine, for the metrics. Pure.
//!
//! A queue is sorted by age but not by state, and a million held messages may stand before one that is not. So a search is bounded,
//! and goes on next time where it ended: below the place it reached there is nobody, until somebody comes.

use super::queue::ItemState;

/// Messages looked at in one search: a millisecond under the table's lock.
const SEARCH_MAX: usize = 20_000;

/// What the age of the oldest is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// To be delivered, now or later.
    Queued = 0,
    Held = 1,
    Quarantined = 2,
}

impl Stay {
    pub(super) const ALL: [Stay; 3] = [Stay::Queued, Stay::Held, Stay::Quarantined];

    /// The name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Stay::Queued => "queued",
            Stay::Held => "held",
            Stay::Quarantined => "quarantined",
        }
    }
}

impl From<ItemState> for Stay {
    fn from(state: ItemState) -> Self {
        match state {
            ItemState::Waiting | ItemState::Ready | ItemState::Leased => Stay::Queued,
            ItemState::Held => Stay::Held,
            ItemState::Quarantined => Stay::Quarantined,
        }
    }
}

/// How far the searches have come: ids below which there is nobody.
#[derive(Default)]
pub(super) struct Ages([u64; Stay::ALL.len()]);

impl Ages {
    /// A message is in `stay` that may be older than all others there.
    pub(super) fn note(&mut self, stay: Stay, id: u64) {
        let reached = &mut self.0[stay as usize];
        *reached = id.min(*reached);
    }

    /// Where the next search begins.
    pub(super) fn from(&self, stay: Stay) -> u64 {
        self.0[stay as usize]
    }

    /// The first of `ids`, which begin at [`Ages::from`], that is in `stay`; nothing if the search has to go on.
    pub(super) fn search(&mut self, stay: Stay, ids: impl Iterator<Item = (u64, bool)>) -> Option<u64> {
        for (id, is_there) in ids.take(SEARCH_MAX) {
            self.0[stay as usize] = id;
            if is_there {
                return Some(id);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_goes_on_where_it_ended_and_starts_anew_for_an_older_one() {
        let mut ages = Ages::default();
        let held = 2 * SEARCH_MAX as u64 + 5;
        let ids = |ages: &Ages| (ages.from(Stay::Held)..=held).map(|id| (id, id == held)).collect::<Vec<_>>();
        let mut searches = 0;
        while ages.search(Stay::Held, ids(&ages).into_iter()).is_none() {
            searches += 1;
        }
        assert_eq!((searches, ages.from(Stay::Held)), (2, held));
        ages.note(Stay::Held, 7);
        ages.note(Stay::Held, 9);
        assert_eq!((ages.from(Stay::Held), ages.from(Stay::Queued)), (7, 0));
    }
}
