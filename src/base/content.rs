//! Message content: built once while it comes in, then immutable and shared. Pure; a spill file is behind a trait.
//!
//! Small messages grow in one heap buffer; beyond `spill_at_bytes` the content moves into a file that the
//! spool provides, and is mapped when complete, so resident memory does not grow with message size times connections.
//! All heap bytes in flight are counted against one [`MemoryBudget`]; a builder that can't get its share spills early. Pages of
//! a map count as resident once they were read: whoever has read large content through [releases](Content::release) it.
//!
//! The checksum that the journal keeps is made while the bytes come in and lie in the processor's cache.

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts heap bytes held by all content in flight.
#[derive(Debug)]
pub struct MemoryBudget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of `limit_bytes` for the whole process.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(MemoryBudget { limit_bytes, used_bytes: AtomicUsize::new(0) })
    }

    /// Bytes reserved now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The bound.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.limit_bytes {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        true
    }

    fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Makes files for content that is too large for memory.
pub trait SpillSpace: Send + Sync {
    /// A new, empty, unnamed file.
    /// # Errors
    /// When the disk is full or the directory is gone; the message is refused with a 4xx.
    fn create(&self) -> io::Result<Box<dyn SpillFile>>;
}

/// One such file, written front to back.
pub trait SpillFile: Send {
    /// Appends `bytes`.
    /// # Errors
    /// As for any write.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Ends writing and gives the bytes as one slice.
    /// # Errors
    /// When the file can't be mapped.
    fn finish(self: Box<Self>) -> io::Result<Mapped>;
}

/// The bytes of a mapped piece of a file.
pub trait MappedBytes: Deref<Target = [u8]> + Send + Sync {
    /// The pages of `range` need not be resident any more; they come again from the file when they are read.
    fn release(&self, range: Range<usize>);
}

/// What is not mapped has nothing to release: for storage that lies in memory.
impl MappedBytes for Vec<u8> {
    fn release(&self, _: Range<usize>) {}
}

/// A shared mapped piece of a file.
pub type Mapped = Arc<dyn MappedBytes>;

struct Heap {
    bytes: Vec<u8>,
    reserved_bytes: usize,
    budget: Arc<MemoryBudget>,
}

impl Drop for Heap {
    fn drop(&mut self) {
        self.budget.give_back(self.reserved_bytes);
    }
}

#[derive(Clone)]
enum Place {
    Empty,
    Heap(Arc<Heap>),
    Plain(Arc<[u8]>),
    Mapped(Mapped),
}

/// The bytes of a message as received (after dot-unstuffing), immutable; a clone shares them.
#[derive(Clone)]
pub struct Content {
    place: Place,
    crc32c: u32,
}

impl Content {
    /// Content that is known already and not counted against a budget: a report of our own, a test's message.
    pub fn from_bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Content { crc32c: crc32c::crc32c(&bytes), place: Place::Plain(bytes) }
    }

    /// Content that lies in a mapped file, with its checksum, which the caller has seen to be right.
    pub fn from_mapped(bytes: Mapped, crc32c: u32) -> Self {
        Content { place: Place::Mapped(bytes), crc32c }
    }

    /// True if the bytes lie in a file and not on the heap.
    pub fn is_mapped(&self) -> bool {
        matches!(self.place, Place::Mapped(_))
    }

    /// CRC-32C of all bytes; known without looking at them.
    pub fn crc32c(&self) -> u32 {
        self.crc32c
    }

    /// Says that nobody reads the bytes soon: those in a file are not resident until they are read again.
    pub fn release(&self) {
        self.release_range(0..self.len());
    }

    /// The same for a part, as a reader leaves it behind.
    pub fn release_range(&self, range: Range<usize>) {
        if let Place::Mapped(bytes) = &self.place {
            bytes.release(range);
        }
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.place {
            Place::Empty => &[],
            Place::Heap(heap) => &heap.bytes,
            Place::Plain(bytes) => bytes,
            Place::Mapped(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.len())
    }
}

/// Where builders get their memory from, and where they go when there is none.
#[derive(Clone)]
pub struct ContentSource {
    /// The process's budget.
    pub budget: Arc<MemoryBudget>,
    /// A message above this many bytes goes to a file.
    pub spill_at_bytes: usize,
    /// Makes those files.
    pub spill: Arc<dyn SpillSpace>,
}

impl ContentSource {
    /// A builder for one message.
    pub fn builder(&self) -> ContentBuilder {
        ContentBuilder { source: self.clone(), heap: Vec::new(), reserved_bytes: 0, file: None, len: 0, crc32c: 0 }
    }

    /// Content made of several parts.
    /// # Errors
    /// As [`ContentBuilder::append`].
    pub fn join(&self, parts: &[&[u8]]) -> io::Result<Content> {
        let mut builder = self.builder();
        parts.iter().try_for_each(|part| builder.append(part))?;
        builder.finish()
    }

    /// A source that never spills, for tests and tools that judge files.
    pub fn unbounded() -> Self {
        ContentSource {
            budget: MemoryBudget::new(usize::MAX / 2),
            spill_at_bytes: usize::MAX,
            spill: Arc::new(NoSpill),
        }
    }
}

struct NoSpill;

impl SpillSpace for NoSpill {
    fn create(&self) -> io::Result<Box<dyn SpillFile>> {
        Err(io::Error::other("this content source has no file to spill into"))
    }
}

/// Grows one message's content.
pub struct ContentBuilder {
    source: ContentSource,
    heap: Vec<u8>,
    reserved_bytes: usize,
    file: Option<Box<dyn SpillFile>>,
    len: u64,
    crc32c: u32,
}

/// First reservation of a builder; it doubles from there.
const FIRST_RESERVATION_BYTES: usize = 8 * 1024;

impl ContentBuilder {
    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True before the first byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `bytes`.
    /// # Errors
    /// When the spill file can't be made or written.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        if let Some(file) = &mut self.file {
            return file.append(bytes);
        }
        if self.reserve(bytes.len()) {
            self.heap.extend_from_slice(bytes);
            return Ok(());
        }
        self.spill()?;
        self.file.as_mut().expect("spill() made it").append(bytes)
    }

    /// Room for `more` bytes on the heap, or false.
    fn reserve(&mut self, more: usize) -> bool {
        let wanted = self.heap.len() + more;
        if wanted > self.source.spill_at_bytes {
            return false;
        }
        if wanted > self.reserved_bytes {
            let target = wanted.next_power_of_two().max(FIRST_RESERVATION_BYTES);
            if !self.source.budget.take(target - self.reserved_bytes) {
                return false;
            }
            self.heap.reserve_exact(target - self.heap.len());
            self.reserved_bytes = target;
        }
        true
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut file = self.source.spill.create()?;
        file.append(&self.heap)?;
        self.file = Some(file);
        self.heap = Vec::new();
        self.source.budget.give_back(std::mem::take(&mut self.reserved_bytes));
        Ok(())
    }

    /// Ends building.
    /// # Errors
    /// When the spill file can't be mapped.
    pub fn finish(mut self) -> io::Result<Content> {
        let crc32c = self.crc32c;
        if let Some(file) = self.file.take() {
            return Ok(Content { place: Place::Mapped(file.finish()?), crc32c });
        }
        if self.heap.is_empty() {
            return Ok(Content { place: Place::Empty, crc32c });
        }
        let heap = Heap {
            bytes: std::mem::take(&mut self.heap),
            reserved_bytes: std::mem::take(&mut self.reserved_bytes),
            budget: self.source.budget.clone(),
        };
        Ok(Content { place: Place::Heap(Arc::new(heap)), crc32c })
    }
}

impl Drop for ContentBuilder {
    fn drop(&mut self) {
        self.source.budget.give_back(self.reserved_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct InMemory;
    struct File(Vec<u8>);
    impl SpillSpace for InMemory {
        fn create(&self) -> io::Result<Box<dyn SpillFile>> {
            Ok(Box::new(File(Vec::new())))
        }
    }
    impl SpillFile for File {
        fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
        fn finish(self: Box<Self>) -> io::Result<Mapped> {
            Ok(Arc::new(self.0))
        }
    }

    fn source(limit: usize, spill_at: usize) -> ContentSource {
        ContentSource { budget: MemoryBudget::new(limit), spill_at_bytes: spill_at, spill: Arc::new(InMemory) }
    }

    #[test]
    fn large_content_moves_to_a_file_and_stays_the_same() {
        let source = source(1 << 20, 10_000);
        let mut builder = source.builder();
        let text: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
        for piece in text.chunks(777) {
            builder.append(piece).unwrap();
        }
        let content = builder.finish().unwrap();
        assert!(content.is_mapped());
        assert_eq!(&content[..], &text[..]);
        assert_eq!(content.crc32c(), crc32c::crc32c(&text));
        assert_eq!(source.budget.used_bytes(), 0);
    }

    #[test]
    fn the_budget_is_given_back_with_the_last_clone() {
        let source = source(20_000, 1 << 20);
        let mut builder = source.builder();
        builder.append(b"hello").unwrap();
        let content = builder.finish().unwrap();
        let clone = content.clone();
        assert_eq!(source.budget.used_bytes(), FIRST_RESERVATION_BYTES);
        drop(content);
        assert_eq!(&clone[..], b"hello");
        drop(clone);
        assert_eq!(source.budget.used_bytes(), 0);
    }

    #[test]
    fn a_builder_without_budget_spills_instead_of_growing() {
        let source = source(10_000, 1 << 20);
        let mut first = source.builder();
        first.append(&[1; 5000]).unwrap();
        let mut second = source.builder();
        second.append(&[2; 5000]).unwrap();
        assert!(second.finish().unwrap().is_mapped());
        drop(first);
        assert_eq!(source.budget.used_bytes(), 0);
    }
}
