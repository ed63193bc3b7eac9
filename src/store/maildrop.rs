//! One mailbox opened for POP3: locked, listed once, read in chunks, emptied at QUIT. I/O: disk.
//!
//! The list is a snapshot (RFC 1939 §4): what is delivered later is seen by the next session. Messages are found again if
//! another program moves them from `new` to `cur` or changes their flags meanwhile. UIDLs come from the part of the file
//! name that never changes, so they are stable over sessions, restarts and such moves.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;

use super::mailbox::{Mailboxes, bare_line_feeds};
use super::pop3::ask::Entry;

/// Held by `flock` while a session is open. No dot in front: Maildir++ folders begin with one.
const LOCK_FILE: &str = "pop3.lock";
/// Messages of one session; those after them are seen once these are deleted.
const MESSAGES_MAX: usize = 1_000_000;
/// RFC 1939 §7: a unique-id has 1 to 70 characters.
const UIDL_BYTES_MAX: usize = 70;
/// Bytes of a digest in a UIDL that stands for a name too long for one.
const UIDL_DIGEST_BYTES: usize = 16;
/// The Maildir manual's 36 hours after which a file in `tmp` is nobody's.
const STALE_AFTER: Duration = Duration::from_secs(36 * 3600);
/// Piece read at a time when a foreign file's size must be counted.
const SCAN_BYTES: usize = 64 * 1024;

/// Why a maildrop can't be opened.
#[derive(Debug)]
pub enum OpenError {
    /// Another session has it.
    InUse,
    /// The disk says no.
    Io(io::Error),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error)
    }
}

/// A locked mailbox; the lock goes with it.
pub struct Maildrop {
    maildir: PathBuf,
    messages: Vec<Message>,
    open: Option<(usize, File)>,
    _lock: Option<File>,
}

struct Message {
    path: PathBuf,
    base: String,
}

impl Maildrop {
    /// Locks and lists `user`'s mailbox; one that was never delivered to is empty.
    /// # Errors
    /// [`OpenError`].
    pub fn open(mailboxes: &Mailboxes, user: &str) -> Result<(Self, Vec<Entry>), OpenError> {
        let maildir = mailboxes.path_of(user)?;
        let mut drop = Maildrop { maildir, messages: Vec::new(), open: None, _lock: None };
        if !drop.maildir.is_dir() {
            return Ok((drop, Vec::new()));
        }
        drop._lock = Some(lock(&drop.maildir)?);
        remove_stale(&drop.maildir.join("tmp"));
        let mut found = list(&drop.maildir)?;
        found.truncate(MESSAGES_MAX);
        let mut uidls = HashSet::with_capacity(found.len());
        let mut entries = Vec::with_capacity(found.len());
        for (_, message) in found {
            // A file that is gone since the listing was another program's to take.
            let Ok(size) = wire_size(&message.path) else { continue };
            let mut uidl = uidl(&message.base);
            if !uidls.insert(uidl.clone()) {
                uidl = digest_of(&message.path.to_string_lossy());
                uidls.insert(uidl.clone());
            }
            entries.push(Entry { size, uidl: uidl.into() });
            drop.messages.push(message);
        }
        Ok((drop, entries))
    }

    /// Up to `bytes_max` bytes of message `index` (from 0) at `offset`; none at its end.
    /// # Errors
    /// `NotFound` if another program removed it; otherwise as for any read.
    pub fn read(&mut self, index: usize, offset: u64, bytes_max: usize) -> io::Result<Vec<u8>> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            self.open = Some((index, self.open_message(index)?));
        }
        let (_, file) = self.open.as_ref().expect("opened above");
        let mut chunk = vec![0; bytes_max];
        let mut filled = 0;
        while filled < bytes_max {
            match file.read_at(&mut chunk[filled..], offset + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        chunk.truncate(filled);
        if chunk.is_empty() {
            self.open = None;
        }
        Ok(chunk)
    }

    fn open_message(&mut self, index: usize) -> io::Result<File> {
        match File::open(&self.messages[index].path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.messages[index].path = self.find_again(index)?;
                File::open(&self.messages[index].path)
            }
            other => other,
        }
    }

    fn find_again(&self, index: usize) -> io::Result<PathBuf> {
        let base = &self.messages[index].base;
        for part in ["cur", "new"] {
            for entry in fs::read_dir(self.maildir.join(part))? {
                let entry = entry?;
                if entry.file_name().to_str().is_some_and(|name| base_of(name) == base) {
                    return Ok(entry.path());
                }
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Removes the messages at `indexes` durably; gives how many could not be removed. One that is gone already counts as removed.
    pub fn remove(&mut self, indexes: &[usize]) -> usize {
        let mut failed = 0;
        for index in indexes {
            match self.remove_one(*index) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %self.messages[*index].path.display(), %error, "message not removed");
                    failed += 1;
                }
            }
        }
        for part in ["new", "cur"] {
            let synced = File::open(self.maildir.join(part)).and_then(|directory| directory.sync_all());
            if let Err(error) = synced {
                tracing::warn!(path = %self.maildir.display(), %error, "removals may come back after a power cut");
            }
        }
        failed
    }

    fn remove_one(&mut self, index: usize) -> io::Result<()> {
        match fs::remove_file(&self.messages[index].path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::remove_file(self.find_again(index)?),
            other => other,
        }
    }
}

fn lock(maildir: &Path) -> Result<File, OpenError> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(maildir.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Removes what deliveries that were cut off left behind; best effort.
fn remove_stale(tmp: &Path) {
    let Ok(entries) = fs::read_dir(tmp) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).map(|modified| modified.elapsed());
        if age.is_ok_and(|age| age.is_ok_and(|age| age > STALE_AFTER)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Seconds and microseconds of delivery, then the name: the order of messages.
type Order = (u64, u64, String);

fn list(maildir: &Path) -> io::Result<Vec<(Order, Message)>> {
    let mut found = Vec::new();
    // `new` first: a message that moves to `cur` meanwhile is then seen twice, not missed, and dropped below.
    for part in ["new", "cur"] {
        let directory = maildir.join(part);
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            let base = base_of(&name).to_owned();
            found.push((order_of(&base), Message { path: directory.join(&name), base }));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    // Of a moved pair the later (from `cur`) is the one that still exists.
    found.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            std::mem::swap(later, kept);
        }
        same
    });
    Ok(found)
}

fn order_of(base: &str) -> Order {
    let (seconds, rest) = base.split_once('.').unwrap_or((base, ""));
    let micros = rest.strip_prefix('M').unwrap_or("");
    let micros = &micros[..micros.bytes().take_while(u8::is_ascii_digit).count()];
    (seconds.parse().unwrap_or(0), micros.parse().unwrap_or(0), base.to_owned())
}

/// The part of a file name that never changes: before `,S=…` and `:2,flags`.
fn base_of(name: &str) -> &str {
    name.split([',', ':']).next().unwrap_or(name)
}

fn uidl(base: &str) -> String {
    let fits = (1..=UIDL_BYTES_MAX).contains(&base.len()) && base.bytes().all(|b| b.is_ascii_graphic());
    if fits { base.to_owned() } else { digest_of(base) }
}

fn digest_of(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref()[..UIDL_DIGEST_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Size with CR LF line endings: from the name, or counted if another program wrote the file.
fn wire_size(path: &Path) -> io::Result<u64> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    let fields = name.split(':').next().unwrap_or(name).split(',');
    for field in fields {
        if let Some(Ok(size)) = field.strip_prefix("W=").map(str::parse) {
            return Ok(size);
        }
    }
    count_wire_size(File::open(path)?)
}

fn count_wire_size(mut file: File) -> io::Result<u64> {
    let mut piece = vec![0; SCAN_BYTES];
    let mut size = 0u64;
    let mut last = 0;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(size);
        }
        // Seen alone, a line feed at the front of a piece counts as bare.
        let cut_pair = usize::from(last == b'\r' && piece[0] == b'\n');
        size += (read + bare_line_feeds(&piece[..read]) - cut_pair) as u64;
        last = piece[read - 1];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn mailboxes() -> (tempfile::TempDir, Mailboxes) {
        let dir = tempfile::tempdir().unwrap();
        let boxes = Mailboxes::open(dir.path(), "mx.test", Arc::default()).unwrap();
        (dir, boxes)
    }

    #[test]
    fn one_session_at_a_time_and_the_lock_goes_with_it() {
        let (_dir, boxes) = mailboxes();
        boxes.deliver("alice", b"", b"one\r\n").unwrap();
        let (first, entries) = Maildrop::open(&boxes, "alice").unwrap();
        assert_eq!(entries.len(), 1);
        assert!(matches!(Maildrop::open(&boxes, "alice"), Err(OpenError::InUse)));
        drop(first);
        assert!(Maildrop::open(&boxes, "alice").is_ok());
    }

    #[test]
    fn uidls_and_messages_survive_a_move_to_cur() {
        let (_dir, boxes) = mailboxes();
        for text in [&b"one\r\n"[..], b"two\r\n", b"three\r\n"] {
            boxes.deliver("alice", b"", text).unwrap();
        }
        let (mut drop, before) = Maildrop::open(&boxes, "alice").unwrap();
        let moved = drop.messages[1].path.clone();
        let name = moved.file_name().unwrap().to_str().unwrap();
        fs::rename(&moved, drop.maildir.join("cur").join(format!("{name}:2,S"))).unwrap();
        assert_eq!(drop.read(1, 0, 100).unwrap(), b"two\r\n");
        assert_eq!(drop.read(1, 3, 100).unwrap(), b"\r\n");
        assert_eq!(drop.read(1, 5, 100).unwrap(), b"");
        std::mem::drop(drop);
        let (mut drop, after) = Maildrop::open(&boxes, "alice").unwrap();
        assert_eq!(before, after);
        assert_eq!(drop.remove(&[0, 1]), 0);
        std::mem::drop(drop);
        let (_drop, rest) = Maildrop::open(&boxes, "alice").unwrap();
        assert_eq!(rest, &after[2..]);
    }

    #[test]
    fn sizes_of_foreign_files_are_counted() {
        let (_dir, boxes) = mailboxes();
        boxes.deliver("alice", b"", b"ours\n").unwrap();
        let new = boxes.path_of("alice").unwrap().join("new");
        let mut text = vec![b'x'; SCAN_BYTES - 1];
        text.extend_from_slice(b"\r\n\n\nend");
        fs::write(new.join("1.x.y"), &text).unwrap();
        fs::write(new.join(format!("2.{}", "long".repeat(30))), "\n\n").unwrap();
        fs::write(new.join("3.cut"), [&vec![b'x'; SCAN_BYTES - 1][..], b"\n\n"].concat()).unwrap();
        let (_drop, entries) = Maildrop::open(&boxes, "alice").unwrap();
        let sizes: Vec<u64> = entries.iter().map(|e| e.size).collect();
        assert_eq!(sizes, [text.len() as u64 + 2, 4, SCAN_BYTES as u64 + 3, 6]);
        assert_eq!(entries[1].uidl.len(), 2 * UIDL_DIGEST_BYTES);
    }

    #[test]
    fn what_a_crash_left_in_tmp_goes_after_36_hours() {
        let (_dir, boxes) = mailboxes();
        boxes.deliver("alice", b"", b"x").unwrap();
        let tmp = boxes.path_of("alice").unwrap().join("tmp");
        for (name, age) in [("old", STALE_AFTER * 2), ("young", STALE_AFTER / 2)] {
            let file = File::create(tmp.join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - age).unwrap();
        }
        Maildrop::open(&boxes, "alice").unwrap();
        assert!(!tmp.join("old").exists() && tmp.join("young").exists());
    }

    #[test]
    fn a_user_without_mail_has_an_empty_maildrop() {
        let (_dir, boxes) = mailboxes();
        assert!(Maildrop::open(&boxes, "nobody").unwrap().1.is_empty());
    }
}
