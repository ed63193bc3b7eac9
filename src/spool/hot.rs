//! Lending items: hot ones straight behind the commit, cold ones read back from their segment. I/O: reads segments.
//!
//! Invariant: what is read back is checked against its checksum; a message that does not pass is never lent, but held as damaged.

use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use super::message::{self, Stored};
use super::queue::{FreshListener, Lease, LeasedRecipient, NewMessage};
use super::record::{HEADER_BYTES, Header, Kind};
use super::shared::Shared;
use super::state::State;
use super::storage::{Mapped, StoredFile};
use super::table::Place;
use crate::base::content::{Content, MappedBytes};
use crate::base::id::QueueId;

/// Content up to this size is read into memory; larger content is mapped, so that a slow next hop does not hold heap.
const READ_BYTES_MAX: u64 = 256 * 1024;

/// Leases on all items of `message`, which is in the table with its items marked as leased.
pub(super) fn lend(state: &State, message: &NewMessage, fresh: &mut Vec<Lease>) {
    let Some(entry) = state.table.find(message.id.0) else { return };
    for (_, item) in state.table.items_of(entry) {
        if item.state != super::queue::ItemState::Leased {
            continue;
        }
        fresh.push(Lease {
            id: message.id,
            envelope: message.envelope.clone(),
            destination: state.table.destination(item),
            recipients: state.table.leased_recipients(item),
            accepted: message.id.time(),
            prefix: message.prefix.clone(),
            content: message.content.clone(),
        });
    }
}

/// Offers fresh leases; those handed back wait in line.
pub(super) fn offer(shared: &Shared, listener: &FreshListener, fresh: Vec<Lease>) {
    let back: Vec<Lease> = fresh.into_iter().filter_map(|lease| listener(lease)).collect();
    if !back.is_empty() {
        let mut state = shared.state.lock();
        back.iter().for_each(|lease| super::committer::release(&mut state, lease.id.0, &lease.destination));
    }
}

/// An item that is leased, before its message is read.
pub(super) struct Reading {
    pub(super) id: u64,
    pub(super) destination: Arc<str>,
    pub(super) recipients: Vec<LeasedRecipient>,
    pub(super) place: Place,
    pub(super) seal: u64,
    /// Holds the segment.
    pub(super) file: Arc<dyn StoredFile>,
}

impl Reading {
    pub(super) fn new(state: &State, number: u32) -> Option<Self> {
        let item = state.table.item(number);
        let message = state.table.message(item.message);
        let segment = state.segments.get(message.body_segment)?;
        Some(Reading {
            id: message.id,
            destination: state.table.destination(item),
            recipients: state.table.leased_recipients(item),
            place: message.place(),
            seal: segment.seal,
            file: segment.file.clone(),
        })
    }

    /// Reads and checks the message.
    pub(super) fn read(&self) -> io::Result<Lease> {
        let (stored, content) = read_message(&self.file, self.seal, self.place, self.id)?;
        Ok(Lease {
            id: QueueId(self.id),
            envelope: Arc::new(stored.envelope),
            destination: self.destination.clone(),
            recipients: self.recipients.clone(),
            accepted: QueueId(self.id).time(),
            prefix: stored.prefix,
            content,
        })
    }
}

/// A piece of a segment that keeps the segment from being used again.
struct Held {
    bytes: Mapped,
    _file: Arc<dyn StoredFile>,
}

impl MappedBytes for Held {
    fn release(&self, range: Range<usize>) {
        self.bytes.release(range);
    }
}

impl Deref for Held {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A message from its segment, all checksums checked.
/// # Errors
/// `InvalidData` if it is damaged.
pub(super) fn read_message(
    file: &Arc<dyn StoredFile>,
    seal: u64,
    place: Place,
    id: u64,
) -> io::Result<(Stored, Content)> {
    let (header, meta, content) = read_record(file, seal, place)?;
    let stored = message::read_accepted(&meta).filter(|stored| stored.id == id);
    match (header.kind, stored) {
        (Kind::Accepted | Kind::Moved, Some(stored)) => Ok((stored, content)),
        _ => Err(damaged()),
    }
}

/// All of a message but its content, and how many bytes that has; the content is neither read nor checked.
/// # Errors
/// `InvalidData` if it is damaged.
pub(super) fn read_stored(file: &Arc<dyn StoredFile>, seal: u64, place: Place, id: u64) -> io::Result<(Stored, u64)> {
    let mut bytes = vec![0; HEADER_BYTES];
    fill(file, place.offset.into(), &mut bytes)?;
    let header =
        Header::read(&bytes, seal).filter(|header| header.record_bytes() == place.bytes).ok_or_else(damaged)?;
    let mut meta = vec![0; header.meta_bytes as usize];
    fill(file, u64::from(place.offset) + HEADER_BYTES as u64, &mut meta)?;
    let stored = message::read_accepted(&meta).filter(|stored| stored.id == id);
    match (crc32c::crc32c(&meta) == header.meta_crc, stored) {
        (true, Some(stored)) => Ok((stored, header.content_bytes)),
        _ => Err(damaged()),
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the record is damaged")
}

/// A record from its segment, all checksums checked.
pub(super) fn read_record(
    file: &Arc<dyn StoredFile>,
    seal: u64,
    place: Place,
) -> io::Result<(Header, Vec<u8>, Content)> {
    let small = place.bytes <= READ_BYTES_MAX;
    let at = u64::from(place.offset);
    let mut bytes = vec![0; if small { place.bytes as usize } else { HEADER_BYTES }];
    fill(file, at, &mut bytes)?;
    let header =
        Header::read(&bytes, seal).filter(|header| header.record_bytes() == place.bytes).ok_or_else(damaged)?;
    let meta_end = HEADER_BYTES + header.meta_bytes as usize;
    let content_end = meta_end + header.content_bytes as usize;
    let (meta, content) = if small {
        (bytes[HEADER_BYTES..meta_end].to_vec(), Content::from_bytes(&bytes[meta_end..content_end]))
    } else {
        let mut meta = vec![0; header.meta_bytes as usize];
        fill(file, at + HEADER_BYTES as u64, &mut meta)?;
        let (from, bytes) = (at + meta_end as u64, header.content_bytes as usize);
        let held = Held { bytes: file.map(from, bytes)?, _file: file.clone() };
        (meta, Content::from_mapped(Arc::new(held), sum_of(file, from, bytes)?))
    };
    if crc32c::crc32c(&meta) != header.meta_crc || content.crc32c() != header.content_crc {
        return Err(damaged());
    }
    Ok((header, meta, content))
}

/// The checksum of a piece of a file, read in bounded pieces: a map would leave all of it resident.
fn sum_of(file: &Arc<dyn StoredFile>, mut at: u64, bytes: usize) -> io::Result<u32> {
    let mut buffer = vec![0; bytes.min(READ_BYTES_MAX as usize)];
    let (mut left, mut sum) = (bytes, 0);
    while left > 0 {
        let piece = left.min(buffer.len());
        fill(file, at, &mut buffer[..piece])?;
        sum = crc32c::crc32c_append(sum, &buffer[..piece]);
        (at, left) = (at + piece as u64, left - piece);
    }
    Ok(sum)
}

fn fill(file: &Arc<dyn StoredFile>, at: u64, buffer: &mut [u8]) -> io::Result<()> {
    if file.read_at(at, buffer)? < buffer.len() { Err(damaged()) } else { Ok(()) }
}
