//! What the spool's threads share. I/O: none of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::committer::Submissions;
use super::journal::FreeFiles;
use super::meters::Meters;
use super::queue::{FreshListener, SpoolFault};
use super::state::State;
use super::storage::Storage;
use crate::base::id::IdSource;

/// Bounds of a spool; from `[spool]`.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of one journal segment file.
    pub segment_bytes: u64,
    /// Segment files that are kept ready.
    pub segments_ahead: usize,
    /// Below this much free disk space nothing is accepted.
    pub free_space_min: u64,
    /// Messages in the queue at most.
    pub messages_max: u64,
    /// How long quarantined mail is kept.
    pub quarantine_keep: Duration,
    /// Behind a start nothing of it goes for so long: until then a clock that was wrong has been set right, or seen to be wrong.
    pub quarantine_rest: Duration,
    /// Where the index is kept; none: each start reads the whole journal.
    pub index: Option<std::path::PathBuf>,
    /// How often the index is brought up to date.
    pub checkpoint_every: Duration,
    /// No item that was tried waits longer; see [`super::Spool::set_delay_max`].
    pub delay_max: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 64 * 1024 * 1024,
            segments_ahead: 2,
            free_space_min: 256 * 1024 * 1024,
            messages_max: 10_000_000,
            quarantine_keep: Duration::from_secs(30 * 24 * 3600),
            quarantine_rest: Duration::from_secs(3600),
            index: None,
            checkpoint_every: Duration::from_secs(60),
            delay_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// What the keeper is told.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) woken: bool,
    pub(super) stop: bool,
}

pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) options: Options,
    pub(super) meters: Meters,
    pub(super) ids: IdSource,
    pub(super) state: Mutex<State>,
    pub(super) submissions: Submissions,
    pub(super) listener: Mutex<Option<FreshListener>>,
    pub(super) free: Arc<Mutex<FreeFiles>>,
    pub(super) orders: Mutex<Orders>,
    pub(super) keeper: Condvar,
    /// Held while segments are copied forward or given back, and while they must stay.
    pub(super) cleaning: Mutex<()>,
    /// Messages in the queue, as of the last commit.
    queued: AtomicU64,
    disk_full: AtomicBool,
    /// What the last write came to, if it failed.
    failing: Mutex<Option<SpoolFault>>,
}

impl Shared {
    pub(super) fn new(storage: Arc<dyn Storage>, options: Options, meters: Meters, state: State) -> Self {
        let queued = AtomicU64::new(state.table.len() as u64);
        Shared {
            storage,
            options,
            meters,
            ids: IdSource::after(crate::base::id::QueueId(state.last_id.max(state.table.last_id()))),
            state: Mutex::new(state),
            submissions: Submissions::default(),
            listener: Mutex::new(None),
            free: Arc::default(),
            orders: Mutex::default(),
            keeper: Condvar::new(),
            cleaning: Mutex::new(()),
            queued,
            disk_full: AtomicBool::new(false),
            failing: Mutex::default(),
        }
    }

    pub(super) fn count(&self, state: &State) {
        self.queued.store(state.table.len() as u64, Ordering::Relaxed);
    }

    /// True if nothing more may be accepted.
    pub(super) fn is_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed) || self.queued.load(Ordering::Relaxed) >= self.options.messages_max
    }

    /// Why nothing would be accepted now. A failed write counts until the next one succeeds.
    pub(super) fn trouble(&self) -> Option<SpoolFault> {
        if self.submissions.is_closing() {
            return Some(SpoolFault::Stopping);
        }
        if self.is_full() { Some(SpoolFault::Full) } else { self.failing.lock().clone() }
    }

    pub(super) fn set_failing(&self, fault: Option<SpoolFault>) {
        *self.failing.lock() = fault;
    }

    pub(super) fn set_disk_full(&self, full: bool) {
        if self.disk_full.swap(full, Ordering::Relaxed) != full {
            tracing::warn!(full, floor_bytes = self.options.free_space_min, "free space of the spool's disk");
        }
    }

    pub(super) fn wake_keeper(&self) {
        self.orders.lock().woken = true;
        self.keeper.notify_one();
    }
}
