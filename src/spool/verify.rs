//! Proof that memory, index and journal say the same. I/O: reads the whole journal.
//!
//! The journal is read anew, every checksum checked, into a second state, and the two are compared message by message.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::io;
use std::time::SystemTime;

use super::handle::Spool;
use super::recover::{Damage, Limits, Recovered, recover};
use super::state::State;
use super::storage::Storage;
use crate::base::audit::Audit;
use crate::base::id::QueueId;
use crate::base::unix::millis;

/// Differences that are named in a report; more are only counted.
const NAMED_MAX: usize = 100;

/// What a comparison came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records read and checked.
    pub records: u64,
    /// Messages in the queue, by the journal.
    pub messages: u64,
    /// Pieces of the journal that can't be read.
    pub damage: Vec<Damage>,
    /// Messages that the two sides know differently.
    pub differences: u64,
    /// The first of these.
    pub named: Vec<QueueId>,
    /// True if the books (see `audit`) agree as well.
    pub books_agree: bool,
}

impl Report {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.damage.is_empty() && self.differences == 0 && self.books_agree
    }
}

type Digest = BTreeMap<u64, u64>;

impl Spool {
    /// Compares memory with the journal while the spool runs. The queue stands still for about half a second per million messages.
    /// # Errors
    /// If the journal's directory or a whole file can't be read.
    pub fn verify(&self) -> io::Result<Report> {
        let _pause = self.shared.cleaning.lock();
        let (mine, limits, ledger) = {
            let state = self.shared.state.lock();
            let limits: Limits = state.segments.0.iter().map(|(generation, s)| (*generation, s.bytes)).collect();
            (digest(&state), limits, state.ledger.clone())
        };
        let read = recover(&*self.shared.storage, &mut |_| None, Some(&limits), true)?;
        let agree = read.state.ledger == ledger || self.opening().lost_recipients != 0;
        Ok(compare(&mine, &read, agree))
    }
}

/// Reads the journal of a stopped spool, and compares it with what a start from the index would give.
/// # Errors
/// If another process has the spool, or it can't be read.
pub fn verify_stopped(directory: &std::path::Path) -> io::Result<Report> {
    let storage = super::storage::Directory::open(directory)?;
    let index = directory.join("index");
    let by_index = super::index::recover_with(&storage, Some(&index), false)?.0;
    verify_against(&storage, &by_index.state)
}

/// The equation of a stopped spool, from its journal alone.
/// # Errors
/// If another process has the spool, or it can't be read.
pub fn audit_stopped(directory: &std::path::Path, from: SystemTime, to: SystemTime) -> io::Result<Audit> {
    let storage = super::storage::Directory::open(directory)?;
    let read = recover(&storage, &mut |_| None, None, true)?;
    let counts = read.state.table.counts;
    let (queued, quarantined) = (counts.recipients as i64, counts.quarantined_recipients as i64);
    Ok(read.state.ledger.audit(millis(from), millis(to), queued, quarantined))
}

fn verify_against(storage: &dyn Storage, other: &State) -> io::Result<Report> {
    let read = recover(storage, &mut |_| None, None, true)?;
    Ok(compare(&digest(other), &read, other.ledger == read.state.ledger))
}

fn compare(mine: &Digest, read: &Recovered, books_agree: bool) -> Report {
    let theirs = digest(&read.state);
    let missing = mine.iter().filter(|(id, hash)| theirs.get(id) != Some(hash)).map(|(id, _)| *id);
    let more = theirs.keys().filter(|id| !mine.contains_key(id)).copied();
    let different: Vec<u64> = missing.chain(more).collect();
    Report {
        records: read.records,
        messages: theirs.len() as u64,
        damage: read.damage.clone(),
        differences: different.len() as u64,
        named: different.into_iter().take(NAMED_MAX).map(QueueId).collect(),
        books_agree,
    }
}

/// One hash per message over all that its records say.
fn digest(state: &State) -> Digest {
    let keys = foldhash::quality::FixedState::with_seed(0);
    let of = |id: u64| {
        let message = state.table.find(id)?;
        let mut hasher = keys.build_hasher();
        message.place().segment.hash(&mut hasher);
        message.place().offset.hash(&mut hasher);
        let mut facts = state.table.facts(message);
        facts.sort_by_key(|item| item.destination);
        for item in facts {
            (item.destination, item.due, item.reply, item.reason).hash(&mut hasher);
            for (recipient, domain) in item.recipients {
                (recipient.index, recipient.attempts, recipient.flags, domain).hash(&mut hasher);
            }
        }
        Some((id, hasher.finish()))
    };
    state.table.ids_from(0).filter_map(of).collect()
}
