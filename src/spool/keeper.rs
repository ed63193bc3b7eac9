//! The keeper: a background thread that keeps segment files ready, gives back what is not needed, and watches the disk. I/O: disk.
//!
//! Nothing here is on anybody's way: what fails is logged and tried again at the next round.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admin::{Action, Filter};
use super::ages::Stay;
use super::clean;
use super::index::{Checkpointer, Source};
use super::journal::FreeFiles;
use super::queue::ItemState;
use super::shared::Shared;
use crate::base::clock;
use crate::base::unix::millis;

/// Rounds come at least this often.
const ROUND: Duration = Duration::from_millis(500);

/// How often the quarantine is looked through for what is too old.
const RETENTION_EVERY: Duration = Duration::from_secs(60);

/// The keeper's own things.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    source: Option<Source>,
    index: Option<Checkpointer>,
    checkpointed: Instant,
    /// When the quarantine is looked through next.
    retention_due: Instant,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, source: Option<Source>) -> Self {
        let now = Instant::now();
        let retention_due = now + shared.options.quarantine_rest;
        Keeper { shared, source, index: None, checkpointed: now, retention_due }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        while wait(&self.shared) {
            self.round();
        }
        self.begin_index();
        // The committer has ended: the index can be brought up to date to the last record.
        self.checkpoint();
    }

    fn begin_index(&mut self) {
        match self.source.take().map(Source::begin) {
            Some(Ok(index)) => self.index = Some(index),
            Some(Err(error)) => self.give_up_index(&error),
            None => {}
        }
    }

    fn give_up_index(&mut self, error: &io::Error) {
        tracing::error!(%error, "the index can't be written; the next start reads the whole journal");
        self.index = None;
        let mut state = self.shared.state.lock();
        state.indexed = false;
        state.changed = Default::default();
    }

    fn round(&mut self) {
        let shared = self.shared.clone();
        let cleaning = shared.cleaning.lock();
        let steps: [(&str, io::Result<()>); 4] = [
            ("free space", watch_space(&shared)),
            ("copy forward", clean::copy_forward(&shared)),
            ("give back segments", give_back(&shared)),
            ("make segments ready", make_ready(&shared)),
        ];
        drop(cleaning);
        for (step, result) in steps {
            if let Err(error) = result {
                tracing::warn!(%error, step, "the spool's keeper failed; it will try again");
            }
        }
        self.begin_index();
        if self.checkpoint_is_due() {
            self.checkpoint();
        }
        if self.retention_due <= Instant::now() {
            self.retention_due = Instant::now() + RETENTION_EVERY;
            self.empty_quarantine();
        }
        measure(&shared);
    }

    /// In its time, or when segments wait for it to be given back.
    fn checkpoint_is_due(&self) -> bool {
        let shared = &self.shared;
        let state = shared.state.lock();
        let held = state.segments.0.range(state.checkpoint..).filter(|(_, s)| s.sealed && s.bodies == 0).count();
        let age = self.checkpointed.elapsed();
        self.index.is_some()
            && (age >= shared.options.checkpoint_every || (held > SEGMENTS_HELD_MAX && age >= CHECKPOINT_PAUSE))
    }

    fn checkpoint(&mut self) {
        self.checkpointed = Instant::now();
        let Some(index) = &mut self.index else { return };
        if let Err(error) = index.checkpoint(&self.shared) {
            self.give_up_index(&error);
        }
    }

    fn empty_quarantine(&self) {
        let shared = &self.shared;
        let cutoff = clock::now().checked_sub(shared.options.quarantine_keep);
        if shared.state.lock().table.counts.items[ItemState::Quarantined as usize] == 0 {
            return;
        }
        let filter = Filter { states: vec![ItemState::Quarantined], accepted_before: cutoff, ..Filter::default() };
        match cutoff.map(|_| shared.act(&filter, &Action::Drop)) {
            Some(Ok(dropped)) if dropped > 0 => tracing::info!(dropped, "quarantined mail was too old"),
            Some(Err(error)) => tracing::warn!(%error, "quarantined mail that is too old can't be dropped now"),
            _ => {}
        }
    }
}

/// Sealed segments without content that may wait for a checkpoint before one is made early.
const SEGMENTS_HELD_MAX: usize = 4;
/// Checkpoints are at least so far apart.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(1);

fn wait(shared: &Shared) -> bool {
    let mut orders = shared.orders.lock();
    if !orders.woken && !orders.stop {
        shared.keeper.wait_for(&mut orders, ROUND);
    }
    orders.woken = false;
    !orders.stop
}

fn watch_space(shared: &Shared) -> io::Result<()> {
    let free = shared.storage.free_bytes()?;
    shared.set_disk_full(free < shared.options.free_space_min);
    Ok(())
}

/// Free files kept of those that were used, as a multiple of those made ahead. They come in bursts, behind a checkpoint, and a
/// used file is worth more than a new one.
const FREE_FACTOR: usize = 4;

/// True if there is a place for another free file that was used.
pub(super) fn wants_free(shared: &Shared, free: &FreeFiles) -> bool {
    free.names.len() < FREE_FACTOR * shared.options.segments_ahead
}

/// Makes free files until enough wait.
pub(super) fn make_ready(shared: &Shared) -> io::Result<()> {
    let bytes = shared.options.segment_bytes;
    while shared.free.lock().names.len() < shared.options.segments_ahead {
        if shared.storage.free_bytes()? < shared.options.free_space_min + bytes {
            return Ok(());
        }
        let name = shared.free.lock().fresh_name();
        let file = shared.storage.create(&name)?;
        let filled = !shared.free.lock().large_batches;
        let made = if filled { file.preallocate(bytes) } else { file.reserve(bytes) };
        if let Err(error) = made {
            shared.storage.remove(&name)?;
            return Err(error);
        }
        shared.storage.sync_dir()?;
        shared.free.lock().names.push(name);
    }
    Ok(())
}

/// Segments with nothing needed in them become free files, or go. Each is durable before the next, because a segment may hold
/// the ends of messages whose bodies stand in an older one.
fn give_back(shared: &Shared) -> io::Result<()> {
    loop {
        let free = {
            let state = shared.state.lock();
            state
                .segments
                .free_one(state.keep_from())
                .map(|generation| (generation, state.segments.0[&generation].name.clone()))
        };
        let Some((generation, name)) = free else { return Ok(()) };
        let reuse = {
            let state = shared.state.lock();
            let segment = &state.segments.0[&generation];
            !segment.poisoned && segment.file_bytes == shared.options.segment_bytes
        };
        let fresh = {
            let mut free = shared.free.lock();
            (reuse && wants_free(shared, &free)).then(|| free.fresh_name())
        };
        let gone = match &fresh {
            Some(fresh) => shared.storage.rename(&name, fresh),
            None => shared.storage.remove(&name),
        };
        // If the last round came so far and no further, only the directory is left to sync.
        let again = gone.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if !again {
            gone?;
        }
        shared.storage.sync_dir()?;
        shared.state.lock().segments.0.remove(&generation);
        shared.free.lock().names.extend(fresh.filter(|_| !again));
    }
}

fn measure(shared: &Shared) {
    let meters = &shared.meters;
    let mut state = shared.state.lock();
    for stay in Stay::ALL {
        if let Some(oldest) = state.table.oldest(stay) {
            let age = oldest.map_or(0, |id| millis(clock::now()).saturating_sub(id >> 20));
            meters.oldest_seconds.with_label_values(&[stay.name()]).set((age / 1000) as i64);
        }
    }
    for kind in ItemState::ALL {
        meters.items.with_label_values(&[kind.name()]).set(state.table.counts.items[kind as usize] as i64);
    }
    let poisoned = state.segments.poisoned().len() as i64;
    meters.segments.with_label_values(&["poisoned"]).set(poisoned);
    meters.segments.with_label_values(&["live"]).set(state.segments.0.len() as i64 - poisoned);
    meters.segments.with_label_values(&["free"]).set(shared.free.lock().names.len() as i64);
    meters.file_bytes.set(state.segments.file_bytes() as i64);
    meters.live_bytes.set(state.segments.live_bytes() as i64);
    meters.index_lag.set((state.changed.len() as u64 + state.fresh) as i64);
    drop(state);
    meters.submissions.set(shared.submissions.len() as i64);
}
