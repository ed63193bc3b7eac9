//! The index: the table on disk, written behind, so that a start need not read the whole journal. I/O: disk (sled).
//!
//! sled 0.34 may lose everything at a power cut, and its open may panic, hang or come up empty. So it is believed only if a checkpoint
//! file, durable on its own, says that nothing was being written, and count and checksum are right; else the journal is read whole.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::codec::{Reader, Writer};
use super::ledger::Ledger;
use super::payload;
use super::recover::{Recovered, recover};
use super::shared::{Options, Shared};
use super::state::State;
use super::storage::Storage;
use super::table::{Message, Place};

/// Gets one key and value.
pub(super) type Each<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> io::Result<()>;

/// A key-value store that is told what changed.
pub(super) trait Index: Send {
    /// Sets a value; gives the one before.
    fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// Removes a value and gives it.
    fn remove(&mut self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// All values whose key begins with `prefix`, in the order of keys; ends with the first error of `each`.
    fn range(&self, prefix: &[u8], each: Each) -> io::Result<()>;
    /// Makes all of it durable.
    fn checkpoint(&mut self) -> io::Result<()>;
}

/// Cache of sled: the index is read once and written in batches.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Longest wait for sled to open; a million messages take two seconds.
const OPEN_TIME_MAX: Duration = Duration::from_secs(20);
/// Larger values go to files of their own in sled, which it never syncs; ours are cut below it.
const VALUE_BYTES_MAX: usize = 4096;
const CHECKPOINT_MAGIC: &[u8; 8] = b"WEIRCP01";
/// Messages coded under one lock.
const PIECE_MESSAGES: usize = 1000;

struct SledIndex {
    db: sled::Db,
    directory: PathBuf,
}

impl SledIndex {
    /// Opens it on a thread of its own, which is left behind if it panics or hangs.
    fn open(directory: &Path) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let path = directory.to_owned();
        std::thread::Builder::new().name("spool-index".into()).spawn(move || {
            let opened = std::panic::catch_unwind(|| {
                let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
                config.mode(sled::Mode::HighThroughput).flush_every_ms(None).open()
            });
            let _ = sender.send(opened);
        })?;
        match receiver.recv_timeout(OPEN_TIME_MAX) {
            Ok(Ok(Ok(db))) => Ok(SledIndex { db, directory: directory.to_owned() }),
            Ok(Ok(Err(error))) => Err(io::Error::other(error)),
            _ => Err(io::Error::other("sled panicked or hung")),
        }
    }

    /// Opens it empty.
    fn create(directory: &Path) -> io::Result<Self> {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        SledIndex::open(directory)
    }
}

impl Index for SledIndex {
    fn put(&mut self, key: &[u8], value: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.db.insert(key, value).map_err(io::Error::other)?.map(|old| old.to_vec()))
    }

    fn remove(&mut self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.db.remove(key).map_err(io::Error::other)?.map(|old| old.to_vec()))
    }

    fn range(&self, prefix: &[u8], each: Each) -> io::Result<()> {
        for entry in self.db.scan_prefix(prefix) {
            let (key, value) = entry.map_err(io::Error::other)?;
            each(&key, &value)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        self.db.flush().map_err(io::Error::other)?;
        // sled's own flush does not sync on Linux.
        for entry in std::fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if path.is_file() {
                std::fs::File::open(path)?.sync_all()?;
            }
        }
        std::fs::File::open(&self.directory)?.sync_all()
    }
}

/// What the checkpoint file says.
#[derive(Default)]
struct Checkpoint {
    place: Place,
    last_id: u64,
    values: u64,
    checksum: u64,
    ledger: Ledger,
    segments: Vec<(u32, u32, Vec<u32>)>,
}

impl Checkpoint {
    fn write(&self) -> Vec<u8> {
        let mut out = CHECKPOINT_MAGIC.to_vec();
        let mut w = Writer(&mut out);
        w.number(self.place.segment.into());
        w.number(self.place.offset.into());
        [self.last_id, self.values, self.checksum].into_iter().for_each(|value| w.fixed(value));
        self.ledger.write(&mut w);
        w.number(self.segments.len() as u64);
        for (generation, acts, ends) in &self.segments {
            w.number((*generation).into());
            w.number((*acts).into());
            w.number(ends.len() as u64);
            ends.iter().for_each(|body| w.number((*body).into()));
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut r = Reader(body.strip_prefix(CHECKPOINT_MAGIC)?);
        let place = Place { segment: r.small()?, offset: r.small()?, bytes: 0 };
        let (last_id, values, checksum) = (r.fixed()?, r.fixed()?, r.fixed()?);
        let ledger = Ledger::read(&mut r)?;
        let count = r.count()?;
        let read_segment = |r: &mut Reader| {
            let (generation, acts, count) = (r.small()?, r.small()?, r.count()?);
            Some((generation, acts, (0..count).map(|_| r.small()).collect::<Option<Vec<_>>>()?))
        };
        let segments = (0..count).map(|_| read_segment(&mut r)).collect::<Option<_>>()?;
        Some(Checkpoint { place, last_id, values, checksum, ledger, segments })
    }
}

/// Where the keeper has its index from.
pub(super) enum Source {
    /// The one that was believed.
    Known(Checkpointer),
    /// An empty one in this directory, which is told all. Making it waits for the disk, so no start does.
    Fresh(PathBuf),
}

impl Source {
    /// The index to write to, if there is to be one.
    pub(super) fn of(known: Option<Checkpointer>, options: &Options) -> Option<Self> {
        known.map(Source::Known).or_else(|| options.index.clone().map(Source::Fresh))
    }

    /// The index itself.
    pub(super) fn begin(self) -> io::Result<Checkpointer> {
        match self {
            Source::Known(index) => Ok(index),
            Source::Fresh(directory) => Checkpointer::create(&directory),
        }
    }
}

/// Writes the table's changes into the index, and the checkpoint file behind them.
pub(super) struct Checkpointer {
    index: Box<dyn Index>,
    file: PathBuf,
    values: u64,
    checksum: u64,
}

fn checkpoint_file(directory: &Path) -> PathBuf {
    directory.with_extension("checkpoint")
}

/// Reads the journal, from the index's checkpoint if there is one to believe. Gives what was read and, with it, the index as it stands.
/// # Errors
/// Only if the journal's directory or a whole file can't be read; the index's faults cost time only.
pub(super) fn recover_with(
    storage: &dyn Storage,
    directory: Option<&Path>,
    check_all: bool,
) -> io::Result<(Recovered, Option<Checkpointer>)> {
    let mut loaded = None;
    let recovered = recover(
        storage,
        &mut |state| {
            let (checkpoint, index) = load(directory?, state)
                .inspect_err(|error| tracing::info!(%error, "the index is not used; reading the whole journal"))
                .ok()?;
            let place = checkpoint.place;
            loaded = Some((checkpoint, index));
            Some(place)
        },
        None,
        check_all,
    )?;
    let file = directory.map(checkpoint_file).unwrap_or_default();
    let checkpointer = loaded.map(|(checkpoint, index)| Checkpointer {
        index,
        file,
        values: checkpoint.values,
        checksum: checkpoint.checksum,
    });
    Ok((recovered, checkpointer))
}

fn load(directory: &Path, state: &mut State) -> io::Result<(Checkpoint, Box<dyn Index>)> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let bytes = std::fs::read(checkpoint_file(directory))?;
    let checkpoint = Checkpoint::read(&bytes).ok_or_else(|| wrong("the checkpoint is damaged"))?;
    let known = state.segments.get(checkpoint.place.segment).is_some() || checkpoint.place.segment == 0;
    if !known {
        return Err(wrong("the checkpoint's segment is gone"));
    }
    let index = SledIndex::open(directory)?;
    let (mut values, mut checksum) = (0, 0u64);
    let mut whole = Vec::new();
    index.range(&[], &mut |key, value| {
        values += 1;
        checksum = checksum.wrapping_add(sum(key, value));
        let (last, part) = value.split_first().ok_or_else(|| wrong("an empty value"))?;
        whole.extend_from_slice(part);
        if *last == 1 {
            load_message(state, &whole).ok_or_else(|| wrong("a value can't be read"))?;
            whole.clear();
        }
        Ok(())
    })?;
    if (values, checksum) != (checkpoint.values, checkpoint.checksum) {
        return Err(wrong("count or checksum of the index is wrong"));
    }
    state.ledger = checkpoint.ledger.clone();
    state.last_id = checkpoint.last_id;
    (state.checkpoint, state.indexed_to) = (checkpoint.place.segment, checkpoint.last_id);
    for (generation, acts, ends) in &checkpoint.segments {
        ends.iter().for_each(|body| state.segments.add_end(*generation, *body));
        (0..*acts).for_each(|_| state.segments.add_act(*generation));
    }
    state.indexed = true;
    Ok((checkpoint, Box::new(index)))
}

fn load_message(state: &mut State, bytes: &[u8]) -> Option<()> {
    let mut r = Reader(bytes);
    let (id, segment, offset, bytes) = (r.fixed()?, r.small()?, r.small()?, r.number()?);
    let state_segment = r.small()?;
    let (sender, domain, null) = (r.text()?, r.text()?, r.byte()? != 0);
    let facts = payload::read_facts(&mut r)?;
    state.segments.get(segment)?;
    state.table.insert_bare(id, sender, domain, null, Place { segment, offset, bytes });
    state.segments.add_body(segment, bytes);
    state.segments.move_state(0, state_segment);
    state.table.find_mut(id).expect("inserted above").state_segment = state_segment;
    state.table.replace(id, &facts);
    Some(())
}

fn write_message(state: &State, message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer(&mut out);
    let place = message.place();
    w.fixed(message.id);
    w.number(place.segment.into());
    w.number(place.offset.into());
    w.number(place.bytes);
    w.number(message.state_segment.into());
    w.text(state.table.senders.text(message.sender));
    w.text(state.table.domains.text(message.sender_domain));
    w.byte(state.table.has_null_sender(message.id) as u8);
    payload::write_facts(&mut w, &state.table.facts(message));
    out
}

fn sum(key: &[u8], value: &[u8]) -> u64 {
    u64::from(crc32c::crc32c_append(crc32c::crc32c(key), value)) | (value.len() as u64) << 32
}

impl Checkpointer {
    /// An empty index in `directory`; everything must be written to it.
    fn create(directory: &Path) -> io::Result<Self> {
        let file = checkpoint_file(directory);
        remove_if_there(&file)?;
        Ok(Checkpointer { index: Box::new(SledIndex::create(directory)?), file, values: 0, checksum: 0 })
    }

    /// Brings the index up to date. From the first change until the end there is no checkpoint file.
    pub(super) fn checkpoint(&mut self, shared: &Shared) -> io::Result<()> {
        remove_if_there(&self.file)?;
        let (mut checkpoint, changed) = begin(shared);
        for ids in changed.chunks(PIECE_MESSAGES) {
            for (id, alive, value) in code(shared, ids) {
                match value {
                    Some(value) => self.put(id, &value)?,
                    // Alive when we began, and gone since: the journal behind the checkpoint says so.
                    None if alive => {}
                    None => self.remove(id, 0)?,
                }
            }
        }
        self.index.checkpoint()?;
        (checkpoint.values, checkpoint.checksum) = (self.values, self.checksum);
        write_durably(&self.file, &checkpoint.write())
    }

    fn put(&mut self, id: u64, value: &[u8]) -> io::Result<()> {
        let pieces = value.chunks(VALUE_BYTES_MAX).enumerate();
        let last = pieces.len() - 1;
        for (part, piece) in pieces {
            let mut stored = vec![(part == last) as u8];
            stored.extend_from_slice(piece);
            let key = key(id, part as u32);
            let old = self.index.put(&key, &stored)?;
            self.forget(&key, old.as_deref());
            self.values += 1;
            self.checksum = self.checksum.wrapping_add(sum(&key, &stored));
        }
        self.remove(id, last as u32 + 1)
    }

    /// Removes the parts of a value from `part` on.
    fn remove(&mut self, id: u64, mut part: u32) -> io::Result<()> {
        while let Some(old) = self.index.remove(&key(id, part))? {
            self.forget(&key(id, part), Some(&old));
            part += 1;
        }
        Ok(())
    }

    fn forget(&mut self, key: &[u8], old: Option<&[u8]>) {
        if let Some(old) = old {
            self.values -= 1;
            self.checksum = self.checksum.wrapping_sub(sum(key, old));
        }
    }
}

fn key(id: u64, part: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&id.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Takes the list of what changed, and with it the place in the journal up to which it speaks.
fn begin(shared: &Shared) -> (Checkpoint, Vec<(u64, bool)>) {
    let mut state = shared.state.lock();
    let newest = state.segments.0.last_key_value().map(|(generation, s)| (*generation, s.bytes)).unwrap_or_default();
    let checkpoint = Checkpoint {
        place: Place { segment: newest.0, offset: newest.1, bytes: 0 },
        last_id: state.last_id,
        ledger: state.ledger.clone(),
        segments: state.segments.0.iter().map(|(g, s)| (*g, s.acts, s.ends.keys().copied().collect())).collect(),
        ..Checkpoint::default()
    };
    let mut changed: Vec<u64> = std::mem::take(&mut state.changed).into_iter().collect();
    changed.sort_unstable();
    let known = changed.into_iter().map(|id| (id, state.table.find(id).is_some()));
    let changed = known.chain(state.table.ids_from(state.indexed_to + 1).map(|id| (id, true))).collect();
    (state.checkpoint, state.indexed_to, state.fresh) = (newest.0, state.last_id, 0);
    (checkpoint, changed)
}

type Coded = Vec<(u64, bool, Option<Vec<u8>>)>;

fn code(shared: &Shared, ids: &[(u64, bool)]) -> Coded {
    let state = shared.state.lock();
    let value = |id: u64| state.table.find(id).map(|message| write_message(&state, message));
    ids.iter().map(|(id, alive)| (*id, *alive, value(*id))).collect()
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    sync_parent(file)
}

fn write_durably(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("checkpoint-new");
    let mut out = std::fs::File::create(&fresh)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(fresh, file)?;
    sync_parent(file)
}

fn sync_parent(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
