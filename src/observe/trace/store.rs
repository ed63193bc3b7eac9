//! Writes records behind the back of those who decide. I/O: one thread, files in `data_dir/trace`.
//!
//! The queue to the thread is bounded: what does not fit is dropped and counted, and nobody ever waits. Segments are
//! `YYYYMMDD-NNNN.jsonl`, with the messages' bytes, where they are kept, in `.mail` beside it; they go by age and by
//! total size, the oldest first. Nothing is synced: a trace is no promise, and a torn last line is passed over by readers.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus::{IntCounter, Registry};

use super::DOOR_FOLDER;
use super::allowance::Allowance;
use super::read::segments;
use super::record::Entry;
use crate::base::content::Content;
use crate::config::scores::Trace as Settings;

/// Entries that wait for the thread: about half a second of what two cores can judge.
const QUEUE_ENTRIES: usize = 2_048;
/// Bytes of contents that wait for it; beyond, records go without them.
const CONTENT_BYTES_MAX: u64 = 64 << 20;
/// A segment is small enough to be read whole, and many make up the total.
const SEGMENT_BYTES: u64 = 64 << 20;
const SEGMENTS_MIN: u64 = 8;
/// The part of all bytes that refusals before DATA may take: half a million of them with the default size.
const DOOR_SHARE: u64 = 4;
/// Bytes written at once, but for what the last message of a piece is larger.
const BATCH_BYTES: usize = 1 << 20;
/// How long entries gather behind a write: a busy gateway pays for a call and a wake-up a hundred times a second, not once an entry.
const REST: Duration = Duration::from_millis(10);
/// What a segment's last piece may be over its share.
const ROOM_OVER: u64 = 2 * BATCH_BYTES as u64;

struct Waiting {
    entry: Entry,
    content: Option<Content>,
}

impl Waiting {
    fn is_of_door(&self) -> bool {
        matches!(&self.entry, Entry::Decision(record) if record.is_of_door())
    }
}

/// The trace of a gateway.
pub struct Trace {
    queue: Mutex<Option<SyncSender<Waiting>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    waiting_bytes: Arc<AtomicU64>,
    allowance: Allowance,
    meters: Meters,
}

#[derive(Clone)]
struct Meters {
    written: IntCounter,
    dropped: IntCounter,
    spared: IntCounter,
}

impl Trace {
    /// Opens the folder and starts the thread.
    /// # Errors
    /// If the folder can't be made, or a metric's name is taken.
    pub fn open(folder: &Path, settings: &Settings, registry: &Registry) -> io::Result<Self> {
        let meters = Meters::register(registry).map_err(io::Error::other)?;
        let door = folder.join(DOOR_FOLDER);
        if !door.is_dir() {
            DirBuilder::new().mode(0o700).recursive(true).create(door)?;
        }
        let (sender, receiver) = sync_channel(QUEUE_ENTRIES);
        let waiting_bytes = Arc::new(AtomicU64::new(0));
        let door_bytes = settings.size / DOOR_SHARE;
        let writer = |folder: &Path, bytes_max| Writer {
            folder: folder.to_owned(),
            keep: settings.keep,
            bytes_max,
            segment: None,
            waiting_bytes: waiting_bytes.clone(),
        };
        let writers = Writers {
            mail: writer(folder, settings.size - door_bytes),
            door: writer(&folder.join(DOOR_FOLDER), door_bytes),
            written: meters.written.clone(),
        };
        let thread = std::thread::Builder::new().name("trace".to_owned()).spawn(move || writers.run(&receiver))?;
        let (queue, writer) = (Mutex::new(Some(sender)), Mutex::new(Some(thread)));
        Ok(Trace { queue, writer, waiting_bytes, allowance: Allowance::default(), meters })
    }

    /// Takes an entry, and the bytes of its message if they are to be kept. Never waits; what does not fit is dropped.
    pub fn add(&self, entry: Entry, content: Option<Content>) {
        let bytes = content.as_ref().map_or(0, |content| content.len() as u64);
        let fits = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= CONTENT_BYTES_MAX;
        let waiting = Waiting { entry, content: content.filter(|_| fits) };
        if waiting.content.is_none() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        let sent = self.queue.lock().as_ref().map(|queue| queue.try_send(waiting));
        if let Some(Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost))) = sent {
            let bytes = lost.content.as_ref().map_or(0, |content| content.len() as u64);
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.meters.dropped.inc();
        }
    }

    /// True if one more refusal before DATA may be recorded for this client; what is not is counted.
    pub fn has_room_for_door(&self, client: IpAddr, now: SystemTime) -> bool {
        let has = self.allowance.take(client, now);
        if !has {
            self.meters.spared.inc();
        }
        has
    }

    /// Writes what waits and ends the thread.
    pub fn close(&self) {
        self.queue.lock().take();
        if let Some(thread) = self.writer.lock().take() {
            // Its panic is its own; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Meters {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone())).map(|()| counter)
        };
        Ok(Meters {
            written: counter("weir_trace_written_total", "Decisions recorded")?,
            dropped: counter("weir_trace_dropped_total", "Decisions not recorded because the disk was too slow")?,
            spared: counter(
                "weir_trace_spared_total",
                "Refusals before DATA not recorded because there were too many",
            )?,
        })
    }
}

struct Segment {
    path: PathBuf,
    lines: File,
    mail: Option<File>,
    day: String,
    line_bytes: u64,
    mail_bytes: u64,
}

struct Writer {
    folder: PathBuf,
    keep: Duration,
    bytes_max: u64,
    segment: Option<Segment>,
    waiting_bytes: Arc<AtomicU64>,
}

/// Messages, and refusals before them.
struct Writers {
    mail: Writer,
    door: Writer,
    written: IntCounter,
}

impl Writers {
    fn run(mut self, queue: &Receiver<Waiting>) {
        let mut batch = Vec::new();
        while let Ok(first) = queue.recv() {
            batch.push(first);
            let mut bytes = 0;
            while bytes < BATCH_BYTES
                && let Ok(more) = queue.try_recv()
            {
                bytes += more.content.as_ref().map_or(0, |content| content.len());
                batch.push(more);
            }
            let (door, mail): (Vec<_>, Vec<_>) = batch.drain(..).partition(Waiting::is_of_door);
            for (writer, entries) in [(&mut self.mail, mail), (&mut self.door, door)] {
                let count = entries.len() as u64;
                match writer.write(entries.into_iter()) {
                    Ok(()) => self.written.inc_by(count),
                    Err(error) => {
                        tracing::error!(%error, "decisions can't be recorded");
                        writer.segment = None;
                    }
                }
            }
            std::thread::sleep(REST);
        }
    }
}

impl Writer {
    fn write(&mut self, batch: impl Iterator<Item = Waiting>) -> io::Result<()> {
        let (mut lines, mut content_bytes) = (Vec::new(), 0);
        for Waiting { mut entry, content } in batch {
            // A line and its content belong to one segment, so another begins between pieces only.
            let waiting_bytes = self.waiting_bytes.clone();
            let segment = if lines.is_empty() { self.segment()? } else { self.begun() };
            if let Some(content) = content {
                waiting_bytes.fetch_sub(content.len() as u64, Ordering::Relaxed);
                content_bytes += content.len();
                if let Entry::Decision(record) = &mut entry {
                    record.content = Some(segment.keep(&content)?);
                }
            }
            serde_json::to_writer(&mut lines, &entry)?;
            lines.push(b'\n');
            if lines.len() + content_bytes >= BATCH_BYTES {
                segment.put(&mut lines)?;
                content_bytes = 0;
            }
        }
        if lines.is_empty() { Ok(()) } else { self.begun().put(&mut lines) }
    }

    fn begun(&mut self) -> &mut Segment {
        self.segment.as_mut().expect("a piece begins with its segment")
    }

    /// The segment of today with room in it; makes room when one begins.
    fn segment(&mut self) -> io::Result<&mut Segment> {
        let now = SystemTime::now();
        let day = day_of(now);
        let most = SEGMENT_BYTES.min(self.bytes_max / SEGMENTS_MIN);
        let goes_on = |segment: &Segment| {
            segment.day == day && segment.line_bytes + segment.mail_bytes < most && segment.path.exists()
        };
        if !self.segment.as_ref().is_some_and(goes_on) {
            self.tidy(now, most)?;
            self.segment = Some(Segment::begin(&self.folder, day)?);
        }
        Ok(self.segment.as_mut().expect("made above"))
    }

    /// Removes what is too old, and then the oldest until a new segment fits.
    fn tidy(&self, now: SystemTime, room: u64) -> io::Result<()> {
        let all = segments(&self.folder)?;
        let mut total: u64 = all.iter().map(|segment| segment.bytes).sum();
        for segment in all {
            let age = now.duration_since(segment.changed).unwrap_or_default();
            if age <= self.keep && total + room + ROOM_OVER <= self.bytes_max {
                continue;
            }
            total -= segment.bytes;
            for path in [segment.mail(), segment.path] {
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Segment {
    fn begin(folder: &Path, day: String) -> io::Result<Self> {
        let used = segments(folder)?;
        let mine = used.iter().filter_map(|segment| segment.name().strip_prefix(&day)?.strip_prefix('-')?.parse().ok());
        let number = mine.max().unwrap_or(0u32) + 1;
        let path = folder.join(format!("{day}-{number:04}.jsonl"));
        let lines = private().open(&path)?;
        Ok(Segment { path, lines, mail: None, day, line_bytes: 0, mail_bytes: 0 })
    }

    /// Writes lines, and leaves none.
    fn put(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        self.line_bytes += lines.len() as u64;
        self.lines.write_all(lines)?;
        lines.clear();
        Ok(())
    }

    /// Keeps a message's bytes; where they stand.
    fn keep(&mut self, content: &[u8]) -> io::Result<(u64, u64)> {
        if self.mail.is_none() {
            self.mail = Some(private().open(self.path.with_extension("mail"))?);
        }
        let place = (self.mail_bytes, content.len() as u64);
        self.mail.as_mut().expect("opened above").write_all(content)?;
        self.mail_bytes += place.1;
        Ok(place)
    }
}

/// A new file for our own user only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create_new(true).mode(0o600);
    options
}

fn day_of(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "00000000".to_owned(), |stamp| stamp.strftime("%Y%m%d").to_string())
}

#[cfg(test)]
mod tests {
    use super::super::read::{Wanted, each};
    use super::super::record::Event;
    use super::*;
    use crate::config::scores::Kept;

    const MIB: usize = 1 << 20;

    fn event(number: usize) -> Entry {
        Entry::Event(Event { at: number as u64, id: format!("{number:013}"), what: "x".repeat(MIB / 4) })
    }

    fn ids(folder: &Path, words: &[&str]) -> Vec<String> {
        let mut ids = Vec::new();
        let wanted = Wanted { words: words.iter().map(|word| (*word).to_owned()).collect(), ..Wanted::default() };
        each(folder, &wanted, |found| {
            if let Entry::Event(event) = found.entry {
                ids.push(event.id);
            }
            true
        })
        .unwrap();
        ids
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room_and_a_torn_line_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let size = 16 * MIB as u64;
        let settings = Settings {
            record: Kept::All,
            keep: Duration::from_secs(3600),
            size,
            content: Kept::None,
            content_bytes: 1024,
        };
        for round in 0..2 {
            let trace = Trace::open(folder.path(), &settings, &Registry::new()).unwrap();
            (0..100).for_each(|number| trace.add(event(100 * round + number), None));
            trace.close();
            assert_eq!(trace.meters.dropped.get(), 0);
        }
        let total: u64 = segments(folder.path()).unwrap().iter().map(|segment| segment.bytes).sum();
        let found = ids(folder.path(), &[]);
        assert!(total <= size && found.len() > 20, "{total} bytes, {} entries", found.len());
        assert_eq!(found.last().map(String::as_str), Some("0000000000199"), "the newest are there, in order");
        assert_eq!(ids(folder.path(), &["0000000000198"]), ["0000000000198"]);
        let last = segments(folder.path()).unwrap().pop().unwrap();
        let mut torn = OpenOptions::new().append(true).open(&last.path).unwrap();
        torn.write_all(b"{\"event\":{\"at\":1,\"id\":\"00").unwrap();
        assert_eq!(ids(folder.path(), &[]), found);
    }
}
