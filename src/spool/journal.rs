//! The write side of the journal: the segment that is written now, and how the next one is begun. I/O: disk.
//!
//! Invariant: a segment in which a write or sync failed is never written again, and nothing behind its last good batch is ever
//! believed: the next segment's head says so, and is durable before anyone hears of the failure if the disk allows it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;

use super::batch::{Batch, NewRecord};
use super::codec::Writer;
use super::payload::{SegmentHead, write_head};
use super::record::Kind;
use super::recover::{FREE_PREFIX, segment_name};
use super::segments::Segment;
use super::state::State;
use super::storage::{Storage, StoredFile};

/// Offsets are kept in 32 bits.
pub(super) const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64 - 4096;
/// Filling a segment with zeros costs the disk as much as writing it, and saves each sync the wait for the file system's
/// journal. From so many batches a segment on it pays (measured: 130 ms against 0.3 ms a sync).
const BATCHES_WORTH_FILLING: u32 = 256;
/// A batch is written up to the end of its last page: else a page that is not in memory would be read first.
const PAGE_BYTES: u64 = 4096;

struct Current {
    generation: u32,
    seal: u64,
    file: Arc<dyn StoredFile>,
    file_bytes: u64,
    at: u64,
    batches: u32,
}

/// Files that wait to become segments.
#[derive(Default)]
pub(super) struct FreeFiles {
    pub(super) names: Vec<String>,
    /// The last segment took few, large batches: the next ones need not be filled with zeros.
    pub(super) large_batches: bool,
    made: u64,
}

impl FreeFiles {
    /// Takes a file of an earlier start. Its name is given to no other: whoever takes it away still has to rename it.
    pub(super) fn keep(&mut self, name: String) {
        let number = name.strip_prefix(FREE_PREFIX).and_then(|number| number.parse().ok());
        self.made = self.made.max(number.unwrap_or(0));
        self.names.push(name);
    }

    /// A name that no free file has or had.
    pub(super) fn fresh_name(&mut self) -> String {
        self.made += 1;
        format!("{FREE_PREFIX}{}", self.made)
    }
}

/// The journal's writer; one thread has it.
pub(super) struct Journal {
    storage: Arc<dyn Storage>,
    segment_bytes: u64,
    free: Arc<Mutex<FreeFiles>>,
    next_generation: u32,
    current: Option<Current>,
}

impl Journal {
    pub(super) fn new(
        storage: Arc<dyn Storage>,
        segment_bytes: u64,
        free: Arc<Mutex<FreeFiles>>,
        next_generation: u32,
    ) -> Self {
        Journal { storage, segment_bytes, free, next_generation, current: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.current.is_some()
    }

    /// Prepares `batch` for what is left of the segment.
    pub(super) fn begin(&self, batch: &mut Batch) {
        match &self.current {
            Some(c) => batch.begin(c.generation, c.seal, c.at as u32, c.file_bytes.saturating_sub(c.at)),
            None => batch.begin(0, 0, 0, 0),
        }
    }

    /// Writes and syncs `batch`; after an error the segment is not used again.
    pub(super) fn write(&mut self, batch: &Batch, state: &Mutex<State>) -> io::Result<()> {
        let current = self.current.as_mut().expect("begin() gave room, so a segment is open");
        match write_and_sync(current, batch) {
            Ok(()) => {
                current.at += batch.bytes;
                current.batches += 1;
                Ok(())
            }
            Err(error) => {
                let generation = current.generation;
                self.current = None;
                let mut state = state.lock();
                let segment = state.segments.0.get_mut(&generation).expect("the open segment is known");
                (segment.poisoned, segment.sealed) = (true, true);
                Err(error)
            }
        }
    }

    /// Ends the present segment, if any, and begins one with room for `need` bytes.
    pub(super) fn roll(&mut self, need: u64, state: &Mutex<State>) -> io::Result<()> {
        if let Some(full) = &self.current {
            self.free.lock().large_batches = full.batches < BATCHES_WORTH_FILLING;
        }
        self.seal(state);
        let (generation, seal) = (self.next_generation, new_seal());
        self.next_generation += 1;
        let head = head_record(generation, state);
        let head = NewRecord::plain(Kind::Segment, &head);
        let wanted = self.segment_bytes.max(need + head.bytes());
        if wanted > SEGMENT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let name = segment_name(generation, seal);
        let file = self.take_file(wanted, &name)?;
        let file_bytes = file.size()?;
        let mut batch = Batch::default();
        batch.begin(generation, seal, 0, file_bytes);
        batch.push(&head);
        // Known before its head is written: if that fails, the file stays and is poisoned from its first byte.
        state.lock().segments.0.insert(generation, Segment::new(name, seal, file.clone(), file_bytes));
        self.current = Some(Current { generation, seal, file, file_bytes, at: 0, batches: 0 });
        self.write(&batch, state)?;
        state.lock().segments.set_bytes(generation, batch.bytes as u32);
        Ok(())
    }

    /// Ends the present segment.
    pub(super) fn seal(&mut self, state: &Mutex<State>) {
        if let Some(current) = self.current.take()
            && let Some(segment) = state.lock().segments.0.get_mut(&current.generation)
        {
            segment.sealed = true;
        }
    }

    /// A file of `bytes` under `name`, from those that wait if one fits; the directory is synced.
    fn take_file(&mut self, bytes: u64, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let waiting = if bytes == self.segment_bytes { self.free.lock().names.pop() } else { None };
        let file = match waiting {
            Some(free) => {
                self.storage.rename(&free, name)?;
                self.storage.open(name)?
            }
            None => {
                let free = self.free.lock().fresh_name();
                let file = self.storage.create(&free)?;
                // Those who wait for this batch do not wait for zeros too.
                file.reserve(bytes)?;
                self.storage.rename(&free, name)?;
                file
            }
        };
        self.storage.sync_dir()?;
        Ok(file)
    }
}

fn write_and_sync(current: &Current, batch: &Batch) -> io::Result<()> {
    let mut slices = batch.slices();
    let end = current.at + batch.bytes;
    let rest_of_page = end.next_multiple_of(PAGE_BYTES).min(current.file_bytes) - end;
    slices.push(IoSlice::new(&[0; PAGE_BYTES as usize][..rest_of_page as usize]));
    current.file.write_at(current.at, &mut slices)?;
    batch.release();
    current.file.sync()
}

fn head_record(generation: u32, state: &Mutex<State>) -> Vec<u8> {
    let state = state.lock();
    let mut out = Vec::new();
    let head = SegmentHead {
        generation,
        last_id: state.last_id,
        poisoned: state.segments.poisoned(),
        damage: state.damage.iter().filter(|(segment, ..)| state.segments.get(*segment).is_some()).copied().collect(),
        ledger: state.ledger.clone(),
    };
    write_head(&mut Writer(&mut out), &head);
    out
}

/// Unguessable, so that no message can carry a record that would be believed: the standard library keys its
/// hasher from the system's random source.
fn new_seal() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_being_taken_is_not_given_again() {
        let mut free = FreeFiles::default();
        let of = |number: u64| format!("{FREE_PREFIX}{number}");
        [of(3), of(1)].into_iter().for_each(|name| free.keep(name));
        let taken: Vec<String> = free.names.drain(..).collect();
        let fresh: Vec<String> = (0..4).map(|_| free.fresh_name()).collect();
        assert!(fresh.iter().all(|name| !taken.contains(name)), "{fresh:?}");
    }
}
