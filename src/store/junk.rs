//! What people say of their mail by moving it: into their Junk folder, or out of it. I/O: disk.
//!
//! A folder is a Maildir++ one, `USER/.Junk`. What is new there was moved in; what is gone from there and came into another
//! folder since was moved out. Programs that move mail may give it another name, so a message is known by length and
//! CRC32C of its bytes. The first look at a mailbox only learns what is there. What was deleted says nothing.
//!
//! The memory is as large as the Junk folders, at most [`KNOWN_MAX`] messages, and is not kept over a restart: what was moved in
//! between is not learned, and nothing is learned twice.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Messages in Junk folders that are remembered; those beyond are neither learned nor forgotten.
const KNOWN_MAX: usize = 200_000;
/// Largest message that is read.
const MESSAGE_BYTES_MAX: u64 = 4 << 20;
/// Clocks of file systems are coarser than ours.
const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// A message that somebody moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Into Junk; else out of it.
    pub into_junk: bool,
    /// Whose mailbox it is; the directory's name.
    pub user: String,
    /// The bytes.
    pub content: Vec<u8>,
}

/// Length and CRC32C: enough to find a message again that was there a minute ago.
type Key = (u64, u32);

/// Looks at the Junk folders again and again.
pub struct Watch {
    root: PathBuf,
    folder: String,
    users: HashMap<String, Known>,
    looked: SystemTime,
}

/// What was in a user's Junk folder, by file name.
type Known = HashMap<String, Key>;

impl Watch {
    /// A watch of the mailboxes under `root`; `folder` is the folder's name, as `Junk`.
    pub fn new(root: &Path, folder: &str) -> Self {
        Watch {
            root: root.to_owned(),
            folder: format!(".{folder}"),
            users: HashMap::new(),
            looked: SystemTime::UNIX_EPOCH,
        }
    }

    /// What was moved since the last look.
    /// # Errors
    /// If the mailboxes can't be listed; one that can't be read is left out.
    pub fn look(&mut self, now: SystemTime) -> io::Result<Vec<Moved>> {
        let mut moved = Vec::new();
        for entry in fs::read_dir(&self.root)?.flatten() {
            let Ok(user) = entry.file_name().into_string() else { continue };
            let maildir = entry.path();
            if !maildir.join(&self.folder).is_dir() && !self.users.contains_key(&user) {
                self.users.entry(user).or_default();
                continue;
            }
            self.look_at(&user, &maildir, &mut moved);
        }
        self.looked = now;
        Ok(moved)
    }

    fn look_at(&mut self, user: &str, maildir: &Path, moved: &mut Vec<Moved>) {
        let room = KNOWN_MAX.saturating_sub(self.users.values().map(HashMap::len).sum());
        let files = messages(&maildir.join(&self.folder));
        let Some(known) = self.users.get_mut(user) else {
            let known = files.into_iter().take(room).filter_map(|file| Some((name_of(&file)?, key_of(&read(&file)?))));
            self.users.insert(user.to_owned(), known.collect());
            return;
        };
        let names: HashSet<String> = files.iter().filter_map(name_of).collect();
        let mut gone: Vec<Key> = Vec::new();
        known.retain(|name, key| {
            names.contains(name) || {
                gone.push(*key);
                false
            }
        });
        let mut came = HashMap::new();
        for file in files.iter().take(room) {
            let Some(name) = name_of(file).filter(|name| !known.contains_key(name)) else { continue };
            let Some(content) = read(file) else { continue };
            came.insert(name, key_of(&content));
            // Renamed within the folder: a flag's change gives no new name, another program may.
            if let Some(place) = gone.iter().position(|gone| *gone == key_of(&content)) {
                gone.swap_remove(place);
                continue;
            }
            moved.push(Moved { into_junk: true, user: user.to_owned(), content });
        }
        known.extend(came);
        if !gone.is_empty() {
            moved.extend(self.find_elsewhere(user, maildir, gone));
        }
    }

    /// Those of `gone` that came into another folder since the last look.
    fn find_elsewhere(&self, user: &str, maildir: &Path, mut gone: Vec<Key>) -> Vec<Moved> {
        let since = self.looked.checked_sub(CLOCK_SLACK).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut found = Vec::new();
        for folder in folders(maildir, &self.folder) {
            for file in messages(&folder).iter().filter(|file| changed_since(file, since)) {
                let Some(content) = read(file) else { continue };
                if let Some(place) = gone.iter().position(|key| *key == key_of(&content)) {
                    gone.swap_remove(place);
                    found.push(Moved { into_junk: false, user: user.to_owned(), content });
                }
            }
        }
        found
    }
}

/// The inbox and all other folders but Junk and Trash: what is thrown away is no ham.
fn folders(maildir: &Path, junk: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(maildir).into_iter().flatten().flatten();
    let wanted = |name: &str| name.starts_with('.') && name != junk && !name.starts_with(".Trash");
    let others = entries.filter(|entry| entry.file_name().to_str().is_some_and(wanted)).map(|entry| entry.path());
    std::iter::once(maildir.to_owned()).chain(others).collect()
}

fn messages(folder: &Path) -> Vec<DirEntry> {
    let list = |part| fs::read_dir(folder.join(part)).into_iter().flatten().flatten();
    list("cur").chain(list("new")).collect()
}

/// The name without flags.
fn name_of(file: &DirEntry) -> Option<String> {
    let name = file.file_name().into_string().ok()?;
    Some(name.split(':').next().unwrap_or(&name).to_owned())
}

/// True if the file was written, renamed or linked since; the status time tells all three.
fn changed_since(file: &DirEntry, since: SystemTime) -> bool {
    use std::os::unix::fs::MetadataExt;
    let secs = since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    file.metadata().is_ok_and(|facts| facts.ctime() >= secs)
}

fn read(file: &DirEntry) -> Option<Vec<u8>> {
    let small = file.metadata().is_ok_and(|facts| facts.is_file() && facts.len() <= MESSAGE_BYTES_MAX);
    // A file that is gone since the listing was moved on; the next look sees where.
    fs::read(file.path()).ok().filter(|_| small)
}

fn key_of(content: &[u8]) -> Key {
    (content.len() as u64, crc32c::crc32c(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_into_and_out_of_junk_are_seen_once_and_deletions_never() {
        let root = tempfile::tempdir().unwrap();
        let place = |path: &str| root.path().join("alice@example.org").join(path);
        for folder in ["cur", "new", ".Junk/cur", ".Junk/new", ".Trash/cur"] {
            fs::create_dir_all(place(folder)).unwrap();
        }
        fs::write(place(".Junk/cur/1.old:2,S"), "Subject: old\n\n").unwrap();
        fs::write(place("cur/2.host:2,S"), "Subject: pills\n\n").unwrap();
        let mut watch = Watch::new(root.path(), "Junk");
        assert_eq!(watch.look(SystemTime::now()).unwrap(), [], "what was there before says nothing");

        fs::rename(place("cur/2.host:2,S"), place(".Junk/cur/2.host:2,S")).unwrap();
        let moved = watch.look(SystemTime::now()).unwrap();
        let pills =
            |into_junk| Moved { into_junk, user: "alice@example.org".into(), content: b"Subject: pills\n\n".to_vec() };
        assert_eq!(moved, [pills(true)]);
        fs::rename(place(".Junk/cur/2.host:2,S"), place(".Junk/cur/2.host:2,ST")).unwrap();
        assert_eq!(watch.look(SystemTime::now()).unwrap(), [], "another flag is no move");

        // As Dovecot does it: another name, then the old one goes.
        fs::hard_link(place(".Junk/cur/2.host:2,ST"), place("cur/3.other:2,S")).unwrap();
        fs::remove_file(place(".Junk/cur/2.host:2,ST")).unwrap();
        assert_eq!(watch.look(SystemTime::now()).unwrap(), [pills(false)]);
        assert_eq!(watch.look(SystemTime::now()).unwrap(), []);

        fs::rename(place(".Junk/cur/1.old:2,S"), place(".Trash/cur/1.old:2,S")).unwrap();
        assert_eq!(watch.look(SystemTime::now()).unwrap(), [], "thrown away is not ham");
    }
}
