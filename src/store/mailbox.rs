//! Mailboxes as Maildirs under one directory: durable deliveries. I/O: disk.
//!
//! Layout and names are Dovecot's: `USER/{tmp,new,cur}`, `secs.MusecPpidQseq.host,S=bytes,W=wire bytes`. `S` is the
//! file's size, `W` its size with every line ending as CR LF (what POP3 and IMAP announce). A delivery is written to `tmp`,
//! synced, renamed into `new`, and `new` is synced: when [`Mailboxes::deliver`] returns, it survives a power cut.
//! Deliveries into one mailbox at the same time share the sync of its directory; a message for several users is
//! written once and linked. After an error nothing of the delivery is visible, or all of it: the caller tries again, and
//! a duplicate is possible only where the directory's sync failed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};

use super::meters::Meters;

/// Longest directory name of a user; file systems take 255 bytes.
const DIRECTORY_NAME_BYTES_MAX: usize = 250;
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The store's mailboxes.
pub struct Mailboxes {
    root: PathBuf,
    host: String,
    sequence: AtomicU64,
    syncs: Mutex<HashMap<PathBuf, Arc<DirectorySync>>>,
    meters: Arc<Meters>,
}

impl Mailboxes {
    /// Mailboxes under `root`, which is made if missing. `hostname` becomes part of file names.
    /// # Errors
    /// When the directory can't be made.
    pub fn open(root: &Path, hostname: &str, meters: Arc<Meters>) -> io::Result<Self> {
        make_directories(root)?;
        let host = hostname.chars().map(|c| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' });
        Ok(Mailboxes {
            root: root.to_owned(),
            host: host.collect(),
            sequence: AtomicU64::new(0),
            syncs: Mutex::default(),
            meters,
        })
    }

    /// Where `user`'s Maildir is, or would be.
    /// # Errors
    /// `InvalidInput` for an empty or too long name; no name leads out of the store.
    pub fn path_of(&self, user: &str) -> io::Result<PathBuf> {
        let name = escape(user);
        if name.is_empty() || name.len() > DIRECTORY_NAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no name for a mailbox"));
        }
        Ok(self.root.join(name))
    }

    /// Delivers `prefix` (`Return-Path` and other fields of ours, each with its CR LF) and `content` to `user`, whose mailbox is made if
    /// there is none. Blocks on the disk; when it returns, the message is durable.
    /// # Errors
    /// As for any write; the message is not delivered.
    pub fn deliver(&self, user: &str, prefix: &[u8], content: &[u8]) -> io::Result<()> {
        self.deliver_all(&[user], prefix, content).pop().expect("one result for one user")
    }

    /// The same for several users; one result each, in order. The message is written and synced once.
    pub fn deliver_all(&self, users: &[&str], prefix: &[u8], content: &[u8]) -> Vec<io::Result<()>> {
        let bytes = prefix.len() + content.len();
        let sizes = format!(",S={bytes},W={}", bytes + bare_line_feeds(prefix) + bare_line_feeds(content));
        let mut written: Option<PathBuf> = None;
        let mut results = Vec::with_capacity(users.len());
        for user in users {
            let result = self.deliver_one(user, prefix, content, &sizes, &mut written);
            self.meters.count_delivery(result.is_ok(), bytes);
            results.push(result);
        }
        results
    }

    fn deliver_one(
        &self,
        user: &str,
        prefix: &[u8],
        content: &[u8],
        sizes: &str,
        written: &mut Option<PathBuf>,
    ) -> io::Result<()> {
        let maildir = self.path_of(user)?;
        let name = self.unique_name(sizes);
        let place = maildir.join("new").join(&name);
        // A link that fails (another file system, too many links) is no error: the message is written again.
        let linked = written.as_ref().is_some_and(|first| fs::hard_link(first, &place).is_ok());
        if !linked {
            write_new(&maildir, &name, prefix, content, &place)?;
        }
        self.sync_directory(&maildir.join("new"))?;
        written.get_or_insert(place);
        Ok(())
    }

    fn unique_name(&self, sizes: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let number = self.sequence.fetch_add(1, Ordering::Relaxed);
        format!("{}.M{}P{}Q{number}.{}{sizes}", now.as_secs(), now.subsec_micros(), std::process::id(), self.host)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let sync = self.syncs.lock().entry(directory.to_owned()).or_default().clone();
        let result = sync.run(|| File::open(directory)?.sync_all());
        let mut syncs = self.syncs.lock();
        // Two holders are the map and this function: nobody else waits for this directory.
        if Arc::strong_count(&sync) <= 2 {
            syncs.remove(directory);
        }
        result
    }
}

/// Group commit of one directory: whoever comes while a sync runs shares the next one.
#[derive(Default)]
struct DirectorySync {
    state: Mutex<SyncState>,
    done: Condvar,
}

#[derive(Default)]
struct SyncState {
    running: bool,
    started: u64,
    finished: u64,
    last_failed: u64,
}

impl DirectorySync {
    /// Returns after a sync that began after this call.
    fn run(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut state = self.state.lock();
        let wanted = state.started + 1;
        while state.running && state.finished < wanted {
            self.done.wait(&mut state);
        }
        if state.finished >= wanted {
            return match state.last_failed >= wanted {
                true => Err(io::Error::other("the directory's sync failed")),
                false => Ok(()),
            };
        }
        state.running = true;
        state.started += 1;
        let number = state.started;
        drop(state);
        let result = sync();
        let mut state = self.state.lock();
        state.running = false;
        state.finished = number;
        if result.is_err() {
            state.last_failed = number;
        }
        self.done.notify_all();
        result
    }
}

fn write_new(maildir: &Path, name: &str, prefix: &[u8], content: &[u8], place: &Path) -> io::Result<()> {
    let temporary = maildir.join("tmp").join(name);
    let mut file = match create(&temporary) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_maildir(maildir)?;
            create(&temporary)?
        }
        other => other?,
    };
    let result = write_both(&mut file, prefix, content)
        .and_then(|()| file.sync_data())
        .and_then(|()| fs::rename(&temporary, place));
    if result.is_err() {
        // What stays behind after a crash, [`super::maildrop`] removes when it is old.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

fn write_both(file: &mut File, prefix: &[u8], content: &[u8]) -> io::Result<()> {
    let written = file.write_vectored(&[IoSlice::new(prefix), IoSlice::new(content)])?;
    if written < prefix.len() {
        file.write_all(&prefix[written..])?;
        return file.write_all(content);
    }
    file.write_all(&content[written - prefix.len()..])
}

/// `tmp` comes last and only once all else is synced: a delivery that finds it may rely on the rest, whoever made it.
fn make_maildir(maildir: &Path) -> io::Result<()> {
    make_directory(maildir)?;
    sync_parent(maildir)?;
    for part in ["new", "cur"] {
        make_directory(&maildir.join(part))?;
    }
    File::open(maildir)?.sync_all()?;
    make_directory(&maildir.join("tmp"))
}

fn make_directory(directory: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn sync_parent(directory: &Path) -> io::Result<()> {
    let parent = directory.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Makes `directory` and what is missing above it, and syncs each parent that got an entry.
fn make_directories(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_directories(parent)?;
    }
    make_directory(directory)?;
    sync_parent(directory)
}

/// Line feeds without a carriage return before them: each is one byte longer on the wire.
pub(super) fn bare_line_feeds(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).filter(|at| *at == 0 || bytes[at - 1] != b'\r').count()
}

/// A user's name as one directory name: letters, digits and `-_@+=` and inner dots stand for themselves, other bytes are `%XX`.
fn escape(user: &str) -> String {
    let mut name = String::with_capacity(user.len());
    for (place, byte) in user.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || b"-_@+=".contains(&byte) || (byte == b'.' && place > 0);
        match plain {
            true => name.push(char::from(byte)),
            false => write!(name, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailboxes() -> (tempfile::TempDir, Mailboxes) {
        let dir = tempfile::tempdir().unwrap();
        let boxes = Mailboxes::open(&dir.path().join("mail"), "mx.test", Arc::default()).unwrap();
        (dir, boxes)
    }

    fn files(boxes: &Mailboxes, user: &str, part: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(boxes.path_of(user).unwrap().join(part)).unwrap();
        entries.map(|e| e.unwrap().path()).collect()
    }

    #[test]
    fn a_delivery_lies_whole_in_new_with_its_sizes_in_the_name() {
        let (_dir, boxes) = mailboxes();
        boxes.deliver("alice", b"Return-Path: <>\r\n", b"Subject: x\r\n\r\nbare\nend\r\n").unwrap();
        let found = files(&boxes, "alice", "new");
        assert_eq!(fs::read(&found[0]).unwrap(), b"Return-Path: <>\r\nSubject: x\r\n\r\nbare\nend\r\n");
        assert!(found[0].to_str().unwrap().ends_with(".mx.test,S=41,W=42"), "{found:?}");
        assert!(files(&boxes, "alice", "tmp").is_empty());
    }

    #[test]
    fn a_message_for_several_is_one_file() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, boxes) = mailboxes();
        boxes.deliver("carol", b"", b"older").unwrap();
        let results = boxes.deliver_all(&["alice", "", "bob", "carol"], b"", b"text");
        assert_eq!(results.iter().map(io::Result::is_ok).collect::<Vec<_>>(), [true, false, true, true]);
        assert_eq!(files(&boxes, "carol", "new").len(), 2);
        assert_eq!(fs::read(&files(&boxes, "bob", "new")[0]).unwrap(), b"text");
        assert!(fs::metadata(&files(&boxes, "alice", "new")[0]).unwrap().nlink() >= 2);
    }

    #[test]
    fn no_name_leads_out_of_the_store() {
        let (_dir, boxes) = mailboxes();
        for (user, name) in [
            ("..", "%2E."),
            ("../x", "%2E.%2Fx"),
            ("a/b", "a%2Fb"),
            ("a\0b", "a%00b"),
            ("é", "%C3%A9"),
            ("a.b@c", "a.b@c"),
        ] {
            assert_eq!(boxes.path_of(user).unwrap(), boxes.root.join(name));
        }
        assert!(boxes.path_of("").is_err());
        assert!(boxes.path_of(&"é".repeat(100)).is_err());
    }

    #[test]
    fn deliveries_at_once_all_arrive_and_leave_no_sync_behind() {
        let (_dir, boxes) = mailboxes();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let boxes = &boxes;
                scope.spawn(move || {
                    for _ in 0..20 {
                        boxes.deliver(if number % 2 == 0 { "even" } else { "odd" }, b"", b"x").unwrap();
                    }
                });
            }
        });
        assert_eq!(files(&boxes, "even", "new").len() + files(&boxes, "odd", "new").len(), 160);
        assert!(boxes.syncs.lock().is_empty());
    }

    #[test]
    fn a_first_delivery_by_many_at_once_loses_nothing() {
        let (_dir, boxes) = mailboxes();
        for round in 0..20 {
            let user = format!("user{round}");
            std::thread::scope(|scope| {
                for _ in 0..16 {
                    scope.spawn(|| boxes.deliver(&user, b"", b"x").unwrap());
                }
            });
            assert_eq!(files(&boxes, &user, "new").len(), 16);
        }
    }

    #[test]
    fn a_failed_sync_is_told_to_all_who_shared_it() {
        let sync = DirectorySync::default();
        assert!(sync.run(|| Err(io::Error::other("broken"))).is_err());
        assert!(sync.run(|| Ok(())).is_ok());
    }
}
