//! Delivery into a Maildir. I/O: files below the configured path.
//!
//! Invariant: the file in `new` is whole and on disk, its directory entry too, before the answer. Names of users and domains
//! come from strangers: in the template they can fill one path component and never climb out of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::wire::address::Mailbox;

/// Longest component that most file systems take.
const COMPONENT_BYTES_MAX: usize = 255;

/// The Maildir of `recipient` by a template with `{user}` and `{domain}`.
pub fn path_of(template: &str, recipient: &Mailbox) -> PathBuf {
    let user = component(recipient.local_part());
    template.replace("{user}", &user).replace("{domain}", &component(recipient.domain())).into()
}

/// Lower case; whatever is not a letter, digit, `-`, `_`, `+`, `=` or an inner dot becomes `%XX`.
fn component(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.to_lowercase().chars() {
        let plain = c.is_alphanumeric() || matches!(c, '-' | '_' | '+' | '=') || (c == '.' && !out.is_empty());
        if plain {
            out.push(c);
            continue;
        }
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            out.push_str(&format!("%{byte:02x}"));
        }
    }
    out.truncate(out.floor_char_boundary(COMPONENT_BYTES_MAX));
    out
}

/// Writes one message, as `prefix` and `content`, durably.
/// # Errors
/// Of the file system; nothing is left in `new` then.
pub fn deliver(maildir: &Path, hostname: &str, prefix: &[u8], content: &[u8]) -> io::Result<()> {
    for folder in ["cur", "new", "tmp"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(maildir.join(folder))?;
    }
    let name = unique_name(hostname);
    let (tmp, new) = (maildir.join("tmp").join(&name), maildir.join("new").join(&name));
    let written = write_file(&tmp, prefix, content).and_then(|()| fs::rename(&tmp, &new));
    if written.is_err() {
        // What is left in `tmp` is no mail; readers drop it after 36 hours anyway.
        let _ = fs::remove_file(&tmp);
    }
    written?;
    File::open(maildir.join("new"))?.sync_all()
}

fn write_file(path: &Path, prefix: &[u8], content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_vectored(&[IoSlice::new(prefix), IoSlice::new(content)])?;
    if written < prefix.len() {
        file.write_all(&prefix[written..])?;
    }
    file.write_all(&content[written.saturating_sub(prefix.len())..])?;
    file.sync_all()
}

/// `seconds.M…P…Q….host` as the Maildir specification proposes.
fn unique_name(hostname: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let host = component(hostname);
    format!("{}.M{:06}P{}Q{count}.{host}", since.as_secs(), since.subsec_micros(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_can_not_be_climbed_out_of() {
        let table = [
            ("a.b+c@Example.org", "/m/example.org/a.b+c/"),
            ("\"../../etc\"@example.org", "/m/example.org/%22..%2f..%2fetc%22/"),
            ("\"..\"@example.org", "/m/example.org/%22..%22/"),
            ("a/b@example.org", "/m/example.org/a%2fb/"),
            ("Ünïcode@example.org", "/m/example.org/ünïcode/"),
            ("{domain}@example.org", "/m/example.org/%7bdomain%7d/"),
            ("x@[192.0.2.1]", "/m/%5b192.0.2.1%5d/x/"),
        ];
        for (address, path) in table {
            let mailbox = Mailbox::parse(address, true).unwrap();
            assert_eq!(path_of("/m/{domain}/{user}/", &mailbox), PathBuf::from(path));
        }
        assert_eq!(component(".."), "%2e.");
    }

    #[test]
    fn a_message_lands_whole_in_new() {
        let folder = tempfile::tempdir().unwrap();
        let maildir = folder.path().join("a/b");
        deliver(&maildir, "host/evil", b"Return-Path: <>\r\n", b"x\r\n").unwrap();
        deliver(&maildir, "host", b"", &vec![b'y'; 3_000_000]).unwrap();
        let mut sizes: Vec<u64> =
            fs::read_dir(maildir.join("new")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [20, 3_000_000]);
        assert_eq!(fs::read_dir(maildir.join("tmp")).unwrap().count(), 0);
    }
}
