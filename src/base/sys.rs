//! The one module that may say `unsafe`: calls whose safety the compiler can't check. I/O: memory maps.
//!
//! Each block states why it is sound. Nothing of the house's logic lives here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use memmap2::{Mmap, MmapOptions};

/// Maps `bytes` of `file` from `offset`, read-only.
/// # Errors
/// As `mmap(2)`.
pub fn map(file: &File, offset: u64, bytes: usize) -> io::Result<Mmap> {
    // SAFETY: the spool maps only its own files, which the lock file keeps from other processes: spill files,
    // complete and without a name, and records of segments, which are immutable once written and whose file is not
    // reused, truncated or removed from use while a reader of the map lives (`spool::segments` counts them).
    unsafe { MmapOptions::new().offset(offset).len(bytes).map(file) }
}
