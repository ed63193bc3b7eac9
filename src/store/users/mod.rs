//! Who may log in, and whose an address is. I/O: reads the users file again when it changes.
//!
//! Look-ups read a snapshot and never touch the disk; [`Users::refresh`] (or [`watch`]) replaces it. A file that turns
//! bad leaves the old snapshot in place. An unknown login costs the same time and gets the same answers as a wrong
//! password.

pub mod file;
pub mod password;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use parking_lot::Mutex;

use self::file::{UserEntry, UsersFile, canonical};
use crate::base::secret::Secret;
use crate::wire::sasl::ScramKeys;

/// A password that was right need not be hashed again for this long: mail programs open many connections.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// Remembered passwords; when full, all are forgotten.
const REMEMBERED_MAX: usize = 10_000;
/// How often [`watch`] looks at the file.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// The users of the embedded store.
pub struct Users {
    path: PathBuf,
    snapshot: ArcSwap<Snapshot>,
    seen: Mutex<Option<Stamp>>,
    /// Used where the file has none.
    fallback_secret: [u8; 32],
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    remember_key: hmac::Key,
}

struct Snapshot {
    secret: Vec<u8>,
    users: HashMap<Arc<str>, UserEntry>,
    addresses: HashMap<String, Arc<str>>,
    any_apop: bool,
}

/// Tells one state of the file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Stamp { modified: (meta.mtime(), meta.mtime_nsec()), bytes: meta.len(), inode: meta.ino() })
    }
}

impl Snapshot {
    fn new(file: UsersFile, fallback_secret: &[u8]) -> Self {
        let mut secret = STANDARD.decode(&file.secret).expect("checked when read");
        if secret.is_empty() {
            secret = fallback_secret.to_vec();
        }
        let mut snapshot = Snapshot { secret, users: HashMap::new(), addresses: HashMap::new(), any_apop: false };
        for (name, user) in file.users {
            let name: Arc<str> = name.into();
            for address in &user.addresses {
                snapshot.addresses.insert(canonical(address), name.clone());
            }
            snapshot.any_apop |= user.apop.is_some();
            snapshot.users.insert(name, user);
        }
        snapshot
    }

    /// The user of a login or recipient: a listed address, else a user of that very name, else of its local part.
    fn find(&self, text: &str) -> Option<(&Arc<str>, &UserEntry)> {
        let text = canonical(text);
        let by_address = self.addresses.get(&text).and_then(|name| self.users.get_key_value(name));
        by_address
            .or_else(|| self.users.get_key_value(text.as_str()))
            .or_else(|| self.users.get_key_value(text.rsplit_once('@')?.0))
    }
}

impl Users {
    /// Reads the file at `path`; a missing one has no users yet.
    /// # Errors
    /// I/O, or what is wrong in the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let seen = Stamp::of(path);
        let fallback_secret = password::random();
        Ok(Users {
            path: path.to_owned(),
            snapshot: ArcSwap::from_pointee(Snapshot::new(file::read(path)?, &fallback_secret)),
            seen: Mutex::new(seen),
            fallback_secret,
            remembered: Mutex::new(HashMap::new()),
            remember_key: hmac::Key::new(hmac::HMAC_SHA256, &password::random::<32>()),
        })
    }

    /// Reads the file again if it changed; true if it did. Blocks on the disk.
    /// # Errors
    /// The new file is bad or can't be read; the old users stay.
    pub fn refresh(&self) -> io::Result<bool> {
        let mut seen = self.seen.lock();
        // Taken before the reading: a change in between is seen the next time.
        let stamp = Stamp::of(&self.path);
        if stamp == *seen {
            return Ok(false);
        }
        *seen = stamp;
        let file = file::read(&self.path)?;
        self.snapshot.store(Arc::new(Snapshot::new(file, &self.fallback_secret)));
        self.remembered.lock().clear();
        Ok(true)
    }

    /// The user that `text` (a login, `local@domain`, or a local part) belongs to.
    ///
    /// A listed address wins over a name, a whole name over a local part. The domain of an address that is not listed
    /// is not looked at: which domains are ours is the caller's to know.
    pub fn find(&self, text: &str) -> Option<Arc<str>> {
        self.snapshot.load().find(text).map(|(name, _)| name.clone())
    }

    /// What `look` finds; where that is nothing, it looks again by the file of this moment: a user made a second ago must
    /// not have mail returned. Blocks on the disk.
    pub fn find_fresh<T>(&self, look: impl Fn(&Self) -> Option<T>) -> Option<T> {
        look(self).or_else(|| {
            // Whether this call or another thread's read the new file is all the same: either way it has been read.
            self.refresh_or_log();
            look(self)
        })
    }

    /// The user whose name comes first, if there is any: who reads the postmaster's mail where nobody else is named.
    pub fn first(&self) -> Option<Arc<str>> {
        self.snapshot.load().users.keys().min().cloned()
    }

    /// Checks a password; gives the user's name. Takes tens of milliseconds of CPU unless remembered.
    pub fn verify(&self, login: &str, password: &Secret, now: Instant) -> Option<Arc<str>> {
        let snapshot = self.snapshot.load_full();
        let found = snapshot.find(login);
        let stored = found.map(|(_, user)| user.password.as_str());
        // The stored hash is part of the key: a changed password is never remembered as right.
        let key = found.map(|(name, user)| self.remember_tag(name, &user.password, password));
        if key.is_some_and(|key| self.is_remembered(&key, now)) {
            return found.map(|(name, _)| name.clone());
        }
        if !password::verify(stored, password) {
            return None;
        }
        self.remember(key?, now);
        found.map(|(name, _)| name.clone())
    }

    /// As [`Users::verify`], with the file read again first if it changed, so that a user made just now may log in. An
    /// unchanged file costs one `stat`. Blocks on the disk.
    pub fn verify_fresh(&self, login: &str, password: &Secret, now: Instant) -> Option<Arc<str>> {
        self.refresh_or_log();
        self.verify(login, password, now)
    }

    fn refresh_or_log(&self) {
        if let Err(error) = self.refresh() {
            tracing::error!(file = %self.path.display(), %error, "users file is bad; the old users stay");
        }
    }

    fn remember_tag(&self, name: &str, stored: &str, password: &Secret) -> [u8; 32] {
        let text = format!("{name}\0{stored}\0{}", password.expose());
        hmac::sign(&self.remember_key, text.as_bytes()).as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
    }

    fn is_remembered(&self, key: &[u8; 32], now: Instant) -> bool {
        self.remembered.lock().get(key).is_some_and(|until| *until > now)
    }

    fn remember(&self, key: [u8; 32], now: Instant) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(key, now + REMEMBERED_FOR);
    }

    /// SCRAM keys of a login; for an unknown one made up, stable and never matching.
    pub fn scram_keys(&self, login: &str) -> ScramKeys {
        let snapshot = self.snapshot.load();
        let known = snapshot.find(login).and_then(|(name, user)| {
            let text = user.scram.as_deref()?;
            Some(password::parse_scram(name, text).expect("checked when read"))
        });
        known.unwrap_or_else(|| password::made_up_keys(&snapshot.secret, &canonical(login)))
    }

    /// True if APOP can succeed for somebody, and so is worth a timestamp in the banner.
    pub fn offers_apop(&self) -> bool {
        self.snapshot.load().any_apop
    }

    /// Checks an APOP digest (RFC 1939 §7): MD5 of timestamp and password, in lower case hexadecimal.
    pub fn verify_apop(&self, login: &str, timestamp: &str, digest: &str) -> Option<Arc<str>> {
        let snapshot = self.snapshot.load();
        let found = snapshot.find(login).and_then(|(name, user)| Some((name, user.apop.as_deref()?)));
        let password = found.map_or("", |(_, password)| password);
        let wanted = apop_digest(timestamp, password);
        let same = constant_time::verify_slices_are_equal(wanted.as_bytes(), digest.as_bytes()).is_ok();
        found.filter(|_| same).map(|(name, _)| name.clone())
    }
}

fn apop_digest(timestamp: &str, password: &str) -> String {
    let digest = Md5::new().chain_update(timestamp).chain_update(password).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keeps `users` fresh until the task is dropped; a bad file is logged and the old users stay.
pub async fn watch(users: Arc<Users>) {
    let mut tick = tokio::time::interval(WATCH_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let read = users.clone();
        match tokio::task::spawn_blocking(move || read.refresh()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => tracing::info!(file = %users.path.display(), "users read again"),
            Ok(Err(error)) => {
                tracing::error!(file = %users.path.display(), %error, "users file is bad; the old users stay");
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        add(&path, "alice", "secret", true, &["Sales@Example.org"]);
        (dir, path)
    }

    fn add(path: &Path, name: &str, password: &str, apop: bool, addresses: &[&str]) {
        let password = Secret::new(password);
        let user = UserEntry {
            password: password::hash(&password),
            scram: Some(password::scram_text(&password::scram_keys(name, &password))),
            apop: apop.then(|| password.expose().to_owned()),
            addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        };
        file::edit(path, |file| Ok::<_, io::Error>(file.users.insert(name.into(), user))).unwrap();
    }

    #[test]
    fn users_are_found_by_name_address_and_local_part() {
        let (_dir, path) = store();
        add(&path, "bob@two.example", "x", false, &[]);
        let users = Users::open(&path).unwrap();
        for text in ["alice", "ALICE", "alice@anything.example", "sales@example.org"] {
            assert_eq!(users.find(text).as_deref(), Some("alice"), "{text}");
        }
        assert_eq!(users.find("bob@two.example").as_deref(), Some("bob@two.example"));
        for text in ["bob", "bob@one.example", "sales", "", "@", "alice@", "@example.org"] {
            let found = users.find(text);
            assert_eq!(found.as_deref(), (text == "alice@").then_some("alice"), "{text}");
        }
    }

    #[test]
    fn a_password_is_remembered_only_while_it_is_right() {
        let (_dir, path) = store();
        let users = Users::open(&path).unwrap();
        let now = Instant::now();
        assert!(users.verify("alice", &Secret::new("secret"), now).is_some());
        assert!(users.verify("alice", &Secret::new("Secret"), now).is_none());
        assert_eq!(users.remembered.lock().len(), 1);
        assert!(users.verify("alice", &Secret::new("secret"), now).is_some());
        add(&path, "alice", "other", false, &[]);
        assert!(users.refresh().unwrap());
        assert!(users.verify("alice", &Secret::new("secret"), now).is_none());
        assert!(users.verify("nobody", &Secret::new("secret"), now).is_none());
        assert!(!users.offers_apop());
    }

    #[test]
    fn a_new_user_is_found_whoever_read_the_file() {
        let (_dir, path) = store();
        let users = Users::open(&path).unwrap();
        add(&path, "bob", "x", false, &[]);
        assert_eq!(users.find_fresh(|users| users.find("bob")).as_deref(), Some("bob"));
        add(&path, "carol", "x", false, &[]);
        let found = users.find_fresh(|users| {
            let found = users.find("carol");
            users.refresh().unwrap(); // another thread's, between the first look and the reading
            found
        });
        assert_eq!(found.as_deref(), Some("carol"));
    }

    #[test]
    fn a_bad_file_leaves_the_old_users() {
        let (_dir, path) = store();
        let users = Users::open(&path).unwrap();
        fs::write(&path, "[users.alice").unwrap();
        assert!(users.refresh().is_err());
        assert!(!users.refresh().unwrap(), "the same bad file is not read twice");
        assert!(users.find("alice").is_some());
        fs::remove_file(&path).unwrap();
        assert!(users.refresh().unwrap());
        assert!(users.find("alice").is_none());
    }

    #[test]
    fn scram_answers_for_unknown_logins_survive_a_restart() {
        let (_dir, path) = store();
        let first = Users::open(&path).unwrap().scram_keys("nobody");
        assert_eq!(first, Users::open(&path).unwrap().scram_keys("Nobody"));
        assert_eq!(&*Users::open(&path).unwrap().scram_keys("sales@example.org").login, "alice");
    }

    #[test]
    fn apop_follows_the_example_of_rfc_1939() {
        let timestamp = "<1896.697170952@dbc.mtview.ca.us>";
        assert_eq!(apop_digest(timestamp, "tanstaaf"), "c4c9334bac560ecc979e58001b3e22fb");
        let (_dir, path) = store();
        let users = Users::open(&path).unwrap();
        assert!(users.verify_apop("alice", "<t>", &apop_digest("<t>", "secret")).is_some());
        assert!(users.verify_apop("alice", "<u>", &apop_digest("<t>", "secret")).is_none());
        assert!(users.verify_apop("nobody", "<t>", &apop_digest("<t>", "")).is_none());
    }
}
