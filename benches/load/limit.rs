//! The limit: no parsing beyond SMTP's shape, no queue, no index; bytes into one preallocated, zero-filled file that is
//! used again from its start, one fdatasync for all who wait, then all the answers.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use mio::Waker;

use crate::options::{Options, cpu_seconds};
use crate::relay::{Committed, Relay};
use crate::server::{Server, Take, WAKER};

/// Length of the file.
const FILE_BYTES: u64 = 256 * 1024 * 1024;
/// Records begin at multiples of this, as a journal's do.
const ALIGN: usize = 8;

/// What waits for one sync.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    messages: Vec<Range<usize>>,
    clients: Vec<usize>,
}

/// The file and where the next batch goes.
struct Disk {
    file: File,
    at: u64,
}

impl Disk {
    fn create(path: &str) -> io::Result<Self> {
        let file = File::create(path)?;
        let zeros = vec![0; 1024 * 1024];
        for start in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, start)?;
        }
        file.sync_all()?;
        Ok(Disk { file, at: 0 })
    }

    fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        let bytes = batch.bytes.len() as u64;
        if self.at + bytes > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(&batch.bytes, self.at)?;
        self.at += bytes;
        self.file.sync_data()
    }
}

enum Sync {
    Inline(Disk),
    Thread { send: Sender<Batch>, done: Receiver<Batch>, under_way: bool },
}

struct Limit {
    sync: Sync,
    relay: Option<Relay>,
    batch: Batch,
    deadline: Instant,
    messages: u64,
    syncs: u64,
}

impl Take for Limit {
    fn take(&mut self, client: usize, content: &[u8]) -> bool {
        self.messages += 1;
        let start = self.batch.bytes.len();
        self.batch.messages.push(start..start + content.len());
        self.batch.bytes.extend_from_slice(content);
        self.batch.bytes.resize(self.batch.bytes.len().next_multiple_of(ALIGN), 0);
        self.batch.clients.push(client);
        false
    }

    fn settle(&mut self) -> io::Result<Vec<usize>> {
        let finished = match &mut self.sync {
            Sync::Inline(disk) if !self.batch.clients.is_empty() => {
                disk.commit(&self.batch)?;
                self.syncs += 1;
                Some(std::mem::take(&mut self.batch))
            }
            Sync::Inline(_) => None,
            Sync::Thread { send, done, under_way } => {
                let finished = done.try_recv().ok();
                *under_way &= finished.is_none();
                if !*under_way && !self.batch.clients.is_empty() {
                    send.send(std::mem::take(&mut self.batch)).expect("the thread lives as long as its channel");
                    self.syncs += 1;
                    *under_way = true;
                }
                finished
            }
        };
        let Some(Batch { bytes, messages, clients }) = finished else { return Ok(Vec::new()) };
        if let Some(relay) = &self.relay {
            relay.pass(Committed { bytes, messages })?;
        } else if self.batch.bytes.is_empty() {
            // The memory is used again.
            self.batch.bytes = bytes;
            self.batch.bytes.clear();
        }
        Ok(clients)
    }

    fn is_over(&self, now: Instant) -> bool {
        now > self.deadline
    }
}

/// Commits on a thread of its own; the next batch gathers meanwhile.
fn sync_thread(mut disk: Disk, waker: Arc<Waker>) -> Sync {
    let (send, batches) = channel::<Batch>();
    let (finished, done) = channel();
    std::thread::spawn(move || {
        for batch in batches {
            disk.commit(&batch).unwrap();
            if finished.send(batch).is_err() {
                return;
            }
            waker.wake().unwrap();
        }
    });
    Sync::Thread { send, done, under_way: false }
}

pub fn run(options: &Options) -> io::Result<serde_json::Value> {
    let disk = Disk::create(options.text("file", "limit.bin"))?;
    let mut server = Server::bind(options.address("on"))?;
    let waker = Arc::new(Waker::new(server.poll.registry(), WAKER)?);
    let sync = match options.text("sync", "inline") {
        "thread" => sync_thread(disk, waker),
        _ => Sync::Inline(disk),
    };
    let deadline = Instant::now() + options.seconds("seconds", "15");
    let relay = options.given("relay").then(|| Relay::start(options.address("relay"))).transpose()?;
    let mut limit = Limit { sync, relay, batch: Batch::default(), deadline, messages: 0, syncs: 0 };
    server.serve(&mut limit)?;
    Ok(serde_json::json!({
        "messages": limit.messages,
        "syncs": limit.syncs,
        "messages_per_sync": limit.messages as f64 / (limit.syncs.max(1)) as f64,
        "cpu_seconds": cpu_seconds(),
        "cpu_microseconds_per_message": cpu_seconds() * 1e6 / (limit.messages.max(1)) as f64,
    }))
}
