//! Everything that the journal says, in memory: the queue, the segments, the books. Pure.
//!
//! Invariant: [`State::apply`] is the one way to change it, behind a commit and while the journal is read alike, so that what
//! runs and what a restart would find can't differ.

use super::codec::{Reader, Writer};
use super::ledger::{Account, Ledger};
use super::message;
use super::payload::{self, Act};
use super::record::Kind;
use super::segments::Segments;
use super::table::{Change, Message, Place, Table};

/// All of it.
#[derive(Default)]
pub(super) struct State {
    pub(super) table: Table,
    pub(super) segments: Segments,
    pub(super) ledger: Ledger,
    /// Damaged pieces that are reported already, bounded: segment, offset, bytes.
    pub(super) damage: Vec<(u32, u32, u32)>,
    /// The highest id seen.
    pub(super) last_id: u64,
    /// Segments from this one on hold what the index has not seen; they must stay.
    pub(super) checkpoint: u32,
    /// Messages that the index may know, changed since the last checkpoint. Newer ones need no list: all that live have changed.
    pub(super) changed: std::collections::HashSet<u64, foldhash::fast::RandomState>,
    /// The highest id that the last checkpoint can know.
    pub(super) indexed_to: u64,
    /// Live messages above that.
    pub(super) fresh: u64,
    /// True if `changed` is kept.
    pub(super) indexed: bool,
}

/// What of a record could not be applied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable;

impl State {
    /// Applies one record that stands at `place`. With `lent`, items of a new message start leased.
    pub(super) fn apply(&mut self, kind: Kind, meta: &[u8], place: Place, lent: bool) -> Result<(), Unreadable> {
        let r = &mut Reader(meta);
        let applied = match kind {
            Kind::Segment => payload::read_head(r).map(|head| {
                self.ledger = head.ledger;
                self.last_id = self.last_id.max(head.last_id);
            }),
            Kind::Accepted => message::read_index(r).map(|part| self.accepted(&part, place, lent)),
            Kind::Moved => message::read_index(r).map(|part| self.insert(&part, place, false)),
            Kind::Attempt => payload::read_attempt(r).map(|attempt| self.attempted(attempt, place.segment)),
            Kind::State => self.stated(r, place.segment),
            Kind::Admin => payload::read_act(r).map(|(act, at, dropped, set)| {
                self.segments.add_act(place.segment);
                self.ledger.enter(at, Account::Dropped, dropped as i64);
                self.table.advance(at);
                self.acted(&act, &set, place.segment);
            }),
            Kind::Dead => payload::read_dead(r).map(|dead| self.buried(dead, place.segment)),
            Kind::Discarded => payload::read_discarded(r).map(|discarded| {
                self.last_id = self.last_id.max(discarded.id);
                self.ledger.enter(discarded.at_ms, Account::Accepted, discarded.recipients as i64);
                self.ledger.enter(discarded.at_ms, Account::Discarded, discarded.recipients as i64);
            }),
        };
        applied.ok_or(Unreadable)
    }

    fn accepted(&mut self, part: &message::IndexPart, place: Place, lent: bool) {
        self.ledger.enter(part.accepted_ms, Account::Accepted, part.recipients.len() as i64);
        self.insert(part, place, lent);
    }

    fn insert(&mut self, part: &message::IndexPart, place: Place, lent: bool) {
        self.last_id = self.last_id.max(part.id);
        self.touch(part.id);
        let old = self.table.find(part.id).map(Message::place);
        self.fresh += u64::from(old.is_none() && part.id > self.indexed_to);
        if let Some(old) = old {
            self.segments.remove_body(old.segment, old.bytes);
            self.segments.add_end(place.segment, old.segment);
            self.segments.inherit_ends(place.segment, old.segment);
        }
        self.segments.add_body(place.segment, place.bytes);
        self.table.insert(part, place, lent);
    }

    fn attempted(&mut self, attempt: payload::Attempt, segment: u32) {
        for (_, account) in &attempt.changes {
            if let Some(account) = account {
                self.ledger.enter(attempt.at_ms, *account, 1);
            }
        }
        if self.table.find(attempt.id).is_none() {
            // The checkpoint was written behind this record; the body may still be on disk, and must stay dead.
            self.segments.add_end(segment, attempt.body);
            return;
        }
        let changes: Vec<Change> = attempt.changes.into_iter().map(|(change, _)| change).collect();
        self.touch(attempt.id);
        self.state_in(attempt.id, segment);
        let ended = match attempt.ends {
            true => self.table.remove(attempt.id),
            false => self.table.change(attempt.id, &changes),
        };
        self.ended(ended, segment);
    }

    /// The message's state stands in `segment` from now on.
    fn state_in(&mut self, id: u64, segment: u32) {
        if let Some(message) = self.table.find_mut(id) {
            let before = std::mem::replace(&mut message.state_segment, segment);
            self.segments.move_state(before, segment);
        }
    }

    fn ended(&mut self, message: Option<Message>, segment: u32) {
        let Some(message) = message else { return };
        self.fresh -= u64::from(message.id > self.indexed_to);
        self.segments.move_state(message.state_segment, 0);
        self.segments.remove_body(message.body_segment, message.body_bytes);
        self.segments.add_end(segment, message.body_segment);
    }

    fn stated(&mut self, r: &mut Reader, segment: u32) -> Option<()> {
        let id = r.fixed()?;
        let facts = payload::read_facts(r)?;
        self.touch(id);
        self.state_in(id, segment);
        self.table.replace(id, &facts);
        Some(())
    }

    fn acted(&mut self, act: &Act, set: &payload::ActSet, segment: u32) {
        for (destination, ids) in set {
            for id in ids {
                self.touch(*id);
                match act {
                    Act::Hold { reason } => self.table.set_stopped(*id, destination, Some(reason), None),
                    Act::Release { due } => self.table.set_stopped(*id, destination, None, Some(*due)),
                    Act::Retry { due } => self.table.set_due(*id, destination, *due),
                    Act::Drop if self.table.find(*id).is_none() => self.segments.add_end_of_unknown(segment),
                    Act::Drop => {
                        let ended = self.table.drop_item(*id, destination);
                        self.ended(ended, segment);
                    }
                }
            }
        }
        self.table.sweep();
    }

    /// Messages that an older record ended; that record's segment may go now.
    fn buried(&mut self, dead: payload::Dead, segment: u32) {
        for body in dead.bodies {
            self.segments.add_end(segment, body);
        }
        for id in dead.ids {
            self.touch(id);
            let ended = self.table.remove(id);
            self.ended(ended, segment);
        }
    }

    /// Segments from this one on must stay, whatever is in them.
    pub(super) fn keep_from(&self) -> u32 {
        if self.indexed && self.checkpoint != 0 { self.checkpoint } else { u32::MAX }
    }

    fn touch(&mut self, id: u64) {
        if self.indexed && id <= self.indexed_to {
            self.changed.insert(id);
        }
    }

    /// The meta part of a state record for `id`, if the message lives.
    pub(super) fn state_record(&self, id: u64) -> Option<Vec<u8>> {
        let message = self.table.find(id)?;
        let mut out = Vec::new();
        let w = &mut Writer(&mut out);
        w.fixed(id);
        payload::write_facts(w, &self.table.facts(message));
        Some(out)
    }

    /// After damage the queue may have more or less than the books say; the difference is entered as lost.
    pub(super) fn reconcile(&mut self, now_ms: u64) -> i64 {
        let missing = self.ledger.balance() - self.table.counts.recipients as i64;
        self.ledger.enter(now_ms, Account::Lost, missing);
        missing
    }
}

/// Reads `bytes` as recovery reads the record whose kind is their first byte; for fuzzing, for a checksum holds mutations back.
pub fn fuzz_record(bytes: &[u8]) {
    let Some((kind, meta)) = bytes.split_first() else { return };
    let Some(kind) = Kind::from_byte(*kind) else { return };
    let place = Place { segment: 1, offset: 0, bytes: meta.len() as u64 };
    let mut state = State::default();
    // A record must be readable or not, whatever it says of itself, and a second time too.
    let _ = state.apply(kind, meta, place, false);
    let _ = state.apply(kind, meta, place, true);
    let _ = message::read_accepted(meta);
}
