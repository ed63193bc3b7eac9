//! The one module that may say `unsafe`: calls whose safety the compiler can't check. I/O: memory maps, inherited sockets, our own code.
//!
//! Each block states why it is sound. Nothing of the house's logic lives here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::{Mmap, MmapOptions, UncheckedAdvice};
use rustix::mm::{Advice, madvise};

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

/// Lets go of the pages of code that were read so far, the program's own and its libraries': what only a start needs need not
/// stay resident, and what runs on comes back from the page cache when it is next used.
/// # Errors
/// When the kernel does not say where they lie, or keeps them.
pub fn release_code() -> io::Result<()> {
    for (start, bytes) in std::fs::read_to_string("/proc/self/maps")?.lines().filter_map(code_range) {
        // SAFETY: the range is a mapped piece of a file that nobody may write through it, so it has no pages of its own that
        // could be lost: what is read or run later comes from the same file.
        unsafe { madvise(std::ptr::with_exposed_provenance_mut(start), bytes, Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// Start and length of a line of `/proc/self/maps`, if it is code that lies in a file.
fn code_range(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    let in_a_file = words.nth(3).is_some_and(|path| path.starts_with('/'));
    (rights == "r-xp" && in_a_file && start < end).then(|| (start, end - start))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_may_run_and_lies_in_a_file() {
        let line = "55d0c0c00000-55d0c0c02000 r-xp 0021c000 fe:00 1234 /usr/bin/weir (deleted)";
        assert_eq!(code_range(line), Some((0x55d0_c0c0_0000, 0x2000)));
        for other in ["7ffc0000-7ffc2000 r-xp 00000000 00:00 0 [vdso]", "1000-2000 rw-p 00000000 00:00 0", "x", ""] {
            assert_eq!(code_range(other), None);
        }
        assert_eq!(code_range(&line.replace("r-xp", "r--p")), None);
    }

    #[test]
    fn code_that_was_let_go_runs_on() {
        let mapped = || {
            let text = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = text.lines().find(|line| line.starts_with("RssFile:")).unwrap();
            line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = mapped();
        release_code().unwrap();
        let after = mapped();
        assert!(after < before, "{before} KiB, then {after} KiB");
    }
}
