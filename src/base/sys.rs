//! The one module that may say `unsafe`: calls whose safety the compiler can't check. I/O: memory maps, inherited sockets.
//!
//! Each block states why it is sound. Nothing of the house's logic lives here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};

use super::content::MappedBytes;

/// A piece of a file, mapped.
pub struct Map(Mmap);

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl MappedBytes for Map {
    fn release(&self, range: Range<usize>) {
        // SAFETY: the map is shared and read-only, so it has no pages of its own that could be lost: what is read later
        // comes from the same file. A range that is no part of the map is refused by the call.
        let advised = unsafe { self.0.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        debug_assert!(advised.is_ok(), "the range is a part of the map");
    }
}

/// Maps `bytes` of `file` from `offset`, read-only.
/// # Errors
/// As `mmap(2)`.
pub fn map(file: &File, offset: u64, bytes: usize) -> io::Result<Map> {
    // SAFETY: the spool maps only its own files, which the lock file keeps from other processes: spill files,
    // complete and without a name, and records of segments, which are immutable once written and whose file is not
    // reused, truncated or removed from use while a reader of the map lives (`spool::segments` counts them).
    unsafe { MmapOptions::new().offset(offset).len(bytes).map(file) }.map(Map)
}

/// Gives memory that is free within the heap back to the system. What was freed after a large piece of work stays with the thread
/// that did it; others, which have heaps of their own, would take as much again.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: malloc_trim(3) takes a number and touches only what is free; it is safe in any thread at any time (MT-Safe).
        unsafe { malloc_trim(0) };
    }
}

/// The first descriptor that systemd hands over (`SD_LISTEN_FDS_START`, sd_listen_fds(3)).
const FIRST_INHERITED: RawFd = 3;

/// More listeners than anybody has; a wrong environment must not make us walk through every number.
const INHERITED_MAX: usize = 256;

/// Takes the `count` descriptors that systemd handed over. Only the first call gets them; who calls it has checked that
/// the environment says that they are ours.
pub fn take_inherited(count: usize) -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Vec::new();
    }
    let open = |fd: &RawFd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok();
    let numbers = (FIRST_INHERITED..).take(count.min(INHERITED_MAX)).filter(open);
    // SAFETY: the descriptors are open, and nobody else owns them: they were opened before this process began and their
    // numbers come from its environment, this is done before anything else opens a descriptor, and once only.
    numbers.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}
