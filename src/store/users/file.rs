//! The users file: TOML, checked whole when read, replaced whole when changed. I/O: disk.
//!
//! ```toml
//! secret = "…"                     # of this server; makes SCRAM answers for unknown logins stable
//! [users.alice]
//! password = "$argon2id$v=19$…"
//! scram = "SCRAM-SHA-256$8192:salt$StoredKey:ServerKey"
//! apop = "the clear password"      # only for users added with --apop: APOP can't work without
//! addresses = ["alice@example.org", "sales@example.org"]
//! ```
//!
//! Writers exclude each other by a lock file beside it, write a new file, sync it and rename it over the old one:
//! readers see one or the other, never half. Comments made by hand do not survive a change by `weir user`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::password;
use crate::base::owner;

/// Longest user name; it is a directory name too, escaped.
const NAME_BYTES_MAX: usize = 80;
/// The file holds password hashes: its owner's only.
const FILE_MODE: u32 = 0o600;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UsersFile {
    /// Base64; what made-up SCRAM keys are derived from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub secret: String,
    /// By name, lower case.
    #[serde(default)]
    pub users: BTreeMap<String, UserEntry>,
}

/// One user.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// PHC string.
    pub password: String,
    /// SCRAM-SHA-256 keys; without them SCRAM never succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scram: Option<String>,
    /// The clear password, for APOP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apop: Option<String>,
    /// Further addresses, `local@domain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

impl std::fmt::Debug for UserEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserEntry({:?})", self.addresses)
    }
}

/// The form of a login, name or address by which they are compared.
pub fn canonical(text: &str) -> String {
    text.to_lowercase()
}

/// Checks a user name.
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err("a user name has 1 to 80 bytes");
    }
    if name.starts_with(['.', '-']) || !name.chars().all(|c| c.is_alphanumeric() || "._-+@=".contains(c)) {
        return Err("a user name has letters, digits and . _ - + @ =, and begins with a letter, digit or _");
    }
    Ok(())
}

/// Reads and checks the file; a missing one has no users.
/// # Errors
/// I/O, or what is wrong and where.
pub fn read(path: &Path) -> io::Result<UsersFile> {
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(UsersFile::default()),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Result<UsersFile, String> {
    let file: UsersFile = toml::from_str(text).map_err(|e| without_source(&e, text))?;
    STANDARD.decode(&file.secret).map_err(|_| "secret: is no base64".to_owned())?;
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for (name, user) in &file.users {
        let at = |what: &str, why: &str| format!("users.{name}{what}: {why}");
        check_name(name).map_err(|why| at("", why))?;
        if canonical(name) != *name {
            return Err(at("", "a user name is in lower case"));
        }
        password::check_hash(&user.password).map_err(|why| at(".password", why.0))?;
        if let Some(scram) = &user.scram {
            password::parse_scram(name, scram).map_err(|why| at(".scram", why.0))?;
        }
        for address in &user.addresses {
            if crate::wire::address::Mailbox::parse(address, true).is_err() {
                return Err(at(".addresses", &format!("{address} is no address")));
            }
            if let Some(other) = owners.insert(canonical(address), name) {
                return Err(at(".addresses", &format!("{address} is {other}'s already")));
            }
        }
    }
    Ok(file)
}

/// toml's own `Display` quotes the line, which may hold a hash or a clear password.
fn without_source(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

/// Changes the file under its lock: reads it, lets `change` work on it, and replaces it.
/// # Errors
/// I/O, a file that can't be read as it is, or what `change` says (nothing is written then).
pub fn edit<T, E: From<io::Error>>(path: &Path, change: impl FnOnce(&mut UsersFile) -> Result<T, E>) -> Result<T, E> {
    let lock = private().create(true).truncate(false).open(sibling(path, "lock"))?;
    lock.lock()?;
    let mut file = read(path)?;
    let value = change(&mut file)?;
    if file.secret.is_empty() {
        file.secret = STANDARD.encode(password::random::<32>());
    }
    replace(path, &file)?;
    Ok(value)
}

fn replace(path: &Path, file: &UsersFile) -> io::Result<()> {
    let text = toml::to_string(file).map_err(io::Error::other)?;
    parse(&text).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    let new = sibling(path, "new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = private().create_new(true).open(&new)?;
    out.write_all(text.as_bytes())?;
    // `weir user` often runs as root, the server does not.
    owner::keep(path, &out)?;
    out.sync_all()?;
    fs::rename(&new, path)?;
    File::open(owner::folder_of(path))?.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(FILE_MODE);
    options
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::base::secret::Secret;

    fn entry() -> UserEntry {
        UserEntry { password: password::hash(&Secret::new("pw")), ..UserEntry::default() }
    }

    #[test]
    fn a_change_is_seen_by_the_next_reader_and_gets_a_secret_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        for name in ["alice", "bob@example.org"] {
            edit(&path, |file| Ok::<_, io::Error>(file.users.insert(name.into(), entry()))).unwrap();
        }
        let file = read(&path).unwrap();
        assert_eq!(file.users.keys().collect::<Vec<_>>(), ["alice", "bob@example.org"]);
        assert!(!file.secret.is_empty());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, FILE_MODE);
    }

    #[test]
    fn writers_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        let user = entry();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let (path, user) = (&path, user.clone());
                scope.spawn(move || {
                    edit(path, |file| Ok::<_, io::Error>(file.users.insert(format!("u{number}"), user))).unwrap();
                });
            }
        });
        assert_eq!(read(&path).unwrap().users.len(), 8);
    }

    #[test]
    fn what_is_wrong_is_named_without_its_secret() {
        let good = entry().password;
        let cases = [
            ("[users.alice]\npassword = \"hunter2\"".to_owned(), "users.alice.password"),
            (format!("[users.Alice]\npassword = \"{good}\""), "lower case"),
            (format!("[users.\"../x\"]\npassword = \"{good}\""), "a user name has letters"),
            (format!("[users.a]\npassword = \"{good}\"\nscram = \"x\""), "users.a.scram"),
            (format!("[users.a]\npassword = \"{good}\"\naddresses = [\"x\"]"), "x is no address"),
            ("[users.a]\nhunter2 = \"hunter2".to_owned(), "line 2"),
        ];
        for (text, wanted) in cases {
            let why = parse(&text).unwrap_err();
            assert!(why.contains(wanted), "{why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
