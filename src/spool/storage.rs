//! The storage seam: everything that the spool asks of a disk, as one narrow trait. I/O: disk.
//!
//! The journal, the recovery and the cleaner touch files through [`Storage`] only, so that tests can fail the Nth call, drop
//! what was not synced, tear a write, and stop at any point. Names are flat: one directory, no paths.
//! Fails as the file system fails; nothing is retried here.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags};

pub use crate::base::content::Mapped;
use crate::base::sys;

/// One directory of files.
pub trait Storage: Send + Sync {
    /// Opens an existing file for reading and writing.
    /// # Errors
    /// As the file system.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>>;
    /// Makes a new, empty file; an old one of that name is emptied.
    /// # Errors
    /// As the file system.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>>;
    /// Renames, replacing what was there. Durable after [`Storage::sync_dir`].
    /// # Errors
    /// As the file system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    /// # Errors
    /// As the file system.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files, in no order.
    /// # Errors
    /// As the file system.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes creations, renames and removals durable.
    /// # Errors
    /// As the file system.
    fn sync_dir(&self) -> io::Result<()>;
    /// Free space for us, in bytes.
    /// # Errors
    /// As the file system.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// One open file.
pub trait StoredFile: Send + Sync {
    /// Writes all of `slices`, one behind the other, at `offset`.
    /// # Errors
    /// As the file system; part of it may have been written.
    fn write_at(&self, offset: u64, slices: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Fills `buffer` from `offset`; returns less than its length only at the end of the file.
    /// # Errors
    /// As the file system.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Length in bytes.
    /// # Errors
    /// As the file system.
    fn size(&self) -> io::Result<u64>;
    /// Makes all that was written durable (`fdatasync`).
    /// # Errors
    /// As the file system; what was written since the last success may be lost.
    fn sync(&self) -> io::Result<()>;
    /// Makes the file `bytes` long, filled with zeros that lie on the disk, so that a later sync has no metadata to wait for.
    /// # Errors
    /// As the file system.
    fn preallocate(&self, bytes: u64) -> io::Result<()>;
    /// Makes the file `bytes` long with space for all of them, at once and cheaply; the first sync behind each write has
    /// the file system's own journal to wait for.
    /// # Errors
    /// As the file system.
    fn reserve(&self, bytes: u64) -> io::Result<()>;
    /// Maps `bytes` from `offset`.
    /// # Errors
    /// As the file system.
    fn map(&self, offset: u64, bytes: usize) -> io::Result<Mapped>;
}

/// The real thing: a directory, held by one process at a time.
pub struct Directory {
    path: PathBuf,
    handle: File,
    _lock: Option<File>,
}

/// Held by `flock` as long as the spool is open, so that two processes never write one journal.
const LOCK_NAME: &str = "lock";
/// Zeros are written in pieces of this size: large enough for few calls, small enough not to hold up a commit beside it
/// (measured: at 1 MiB a commit takes twice as long as at 256 KiB).
const ZERO_FILL_BYTES: usize = 256 * 1024;
/// What direct I/O wants memory and offsets to be a multiple of (open(2)): no disk has larger blocks.
const DIRECT_ALIGNMENT: usize = 4096;
/// `UIO_MAXIOV` of Linux.
const SLICES_MAX: usize = 1024;

impl Directory {
    /// Opens (and makes, if need be) the directory for writing.
    /// # Errors
    /// `WouldBlock` if another process has it; else as the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK_NAME))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Directory { path: path.to_owned(), handle: File::open(path)?, _lock: Some(lock) })
    }

    /// Opens the directory without holding it, for a reader.
    /// # Errors
    /// As the file system.
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        Ok(Directory { path: path.to_owned(), handle: File::open(path)?, _lock: None })
    }
}

impl Storage for Directory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let path = self.path.join(name);
        // A reader may have no right to write.
        let file = match self._lock {
            Some(_) => OpenOptions::new().read(true).write(true).open(path)?,
            None => File::open(path)?,
        };
        Ok(Arc::new(PlainFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StoredFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(self.path.join(name))?;
        Ok(Arc::new(PlainFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let facts = rustix::fs::fstatvfs(&self.handle)?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }
}

struct PlainFile(File);

impl PlainFile {
    /// Writes zeros from the start up to `bytes`.
    fn fill(&self, bytes: u64) -> io::Result<()> {
        let zeros = vec![0u8; ZERO_FILL_BYTES + DIRECT_ALIGNMENT];
        let zeros = &zeros[zeros.as_ptr().align_offset(DIRECT_ALIGNMENT)..][..ZERO_FILL_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let piece = (bytes - offset).min(ZERO_FILL_BYTES as u64) as usize;
            self.0.write_all_at(&zeros[..piece], offset)?;
            offset += piece as u64;
        }
        Ok(())
    }
}

impl StoredFile for PlainFile {
    fn write_at(&self, mut offset: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        while !slices.is_empty() {
            let most = slices.len().min(SLICES_MAX);
            let written = match rustix::io::pwritev(&self.0, &slices[..most], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            offset += written as u64;
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn preallocate(&self, bytes: u64) -> io::Result<()> {
        self.reserve(bytes)?;
        // Past the page cache: filling through it cost twenty times the processor time, and one sync of all of it
        // held up the commits beside it. Where it can't be done, as in memory, the cache is as good.
        let usual = rustix::fs::fcntl_getfl(&self.0)?;
        let _ = rustix::fs::fcntl_setfl(&self.0, usual | OFlags::DIRECT);
        let filled = self.fill(bytes).or_else(|_| {
            rustix::fs::fcntl_setfl(&self.0, usual)?;
            self.fill(bytes)
        });
        rustix::fs::fcntl_setfl(&self.0, usual)?;
        filled?;
        self.0.sync_all()
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        use rustix::io::Errno;
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill(bytes)?,
            other => other?,
        }
        self.0.sync_all()
    }

    fn map(&self, offset: u64, bytes: usize) -> io::Result<Mapped> {
        Ok(Arc::new(sys::map(&self.0, offset, bytes)?))
    }
}
