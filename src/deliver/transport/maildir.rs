//! Delivery into a Maildir. I/O: files below the configured path.
//!
//! Invariant: the file in `new` is whole and on disk, its directory entry too, before the answer. Names of users and domains
//! come from strangers: in the template they can fill one path component and never climb out of it. A file is named after the
//! item that it delivers, so that an item that comes again because a crash took the record of its delivery is recognised.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::wire::address::Mailbox;

/// Longest component that most file systems take.
const COMPONENT_BYTES_MAX: usize = 255;
/// Bytes of the host's name in a file's name, which has room for its other parts then.
const HOST_BYTES_MAX: usize = 128;
/// Stands in a name in `tmp`, where only this process looks.
const TMP_HOST: &str = "weir";
/// Bytes of content in a file that are resident at most while they are written.
const WINDOW_BYTES: usize = 1024 * 1024;

/// What is delivered: one recipient of one message.
pub struct Item<'a> {
    /// The message.
    pub id: QueueId,
    /// The recipient's index in its envelope.
    pub recipient: u32,
    /// The fields before the content; the same each time that the item is delivered.
    pub prefix: &'a [u8],
    /// The content.
    pub content: &'a Content,
}

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

/// Writes one message durably, unless it is there already.
/// # Errors
/// Of the file system; nothing is left in `new` then.
pub fn deliver(maildir: &Path, hostname: &str, item: &Item) -> io::Result<()> {
    for folder in ["cur", "new", "tmp"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(maildir.join(folder))?;
    }
    let mut name = name_of(item, hostname);
    match already_there(maildir, &name, item)? {
        Some(true) => return File::open(maildir.join("new"))?.sync_all(),
        // Another gateway of this name has given out the same id.
        Some(false) => name.insert_str(0, &unique_start()),
        None => {}
    }
    let (tmp, new) = (maildir.join("tmp").join(unique_start() + TMP_HOST), maildir.join("new").join(&name));
    let written = write_file(&tmp, item).and_then(|()| fs::rename(&tmp, &new));
    if written.is_err() {
        // What is left in `tmp` is no mail; readers drop it after 36 hours anyway.
        let _ = fs::remove_file(&tmp);
    }
    written?;
    File::open(maildir.join("new"))?.sync_all()
}

fn write_file(path: &Path, item: &Item) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    if item.content.len() <= WINDOW_BYTES {
        file.write_all(&[item.prefix, item.content].concat())?;
    } else {
        file.write_all(item.prefix)?;
        for window in item.content.chunks(WINDOW_BYTES) {
            file.write_all(window)?;
            item.content.release();
        }
    }
    file.sync_all()
}

/// Looks for the item where its delivery put it or a reader may have moved it to: true if it is there, false if that is
/// another message.
fn already_there(maildir: &Path, name: &str, item: &Item) -> io::Result<Option<bool>> {
    for place in [format!("new/{name}"), format!("cur/{name}:2,"), format!("cur/{name}:2,S")] {
        match File::open(maildir.join(place)) {
            Ok(file) => return is_item(file, item).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn is_item(mut file: File, item: &Item) -> io::Result<bool> {
    if file.metadata()?.len() != (item.prefix.len() + item.content.len()) as u64 {
        return Ok(false);
    }
    let mut buffer = vec![0; item.content.len().clamp(1, WINDOW_BYTES)];
    for piece in item.prefix.chunks(buffer.len()).chain(item.content.chunks(buffer.len())) {
        let read = &mut buffer[..piece.len()];
        file.read_exact(read)?;
        item.content.release();
        if read != piece {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `seconds.unique.host` as the Maildir specification asks; the id is unique in one spool.
fn name_of(item: &Item, hostname: &str) -> String {
    let accepted = item.id.time().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut host = component(hostname);
    host.truncate(host.floor_char_boundary(HOST_BYTES_MAX));
    format!("{}.W{}R{}.{host}", accepted.as_secs(), item.id, item.recipient)
}

/// What no other delivery of this host has used.
fn unique_start() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{}.M{:06}P{}Q{count}.", since.as_secs(), since.subsec_micros(), std::process::id())
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
        put(&maildir, "host/evil", 1, b"Return-Path: <>\r\n", b"x\r\n");
        put(&maildir, "host", 2, b"", &vec![b'y'; 3_000_000]);
        let mut sizes: Vec<u64> =
            fs::read_dir(maildir.join("new")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [20, 3_000_000]);
        assert_eq!(fs::read_dir(maildir.join("tmp")).unwrap().count(), 0);
    }

    fn put(maildir: &Path, hostname: &str, id: u64, prefix: &[u8], content: &[u8]) {
        let content = Content::from_bytes(content);
        deliver(maildir, hostname, &Item { id: QueueId(id), recipient: 0, prefix, content: &content }).unwrap();
    }

    #[test]
    fn an_item_that_comes_again_is_delivered_once_and_another_of_its_name_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let maildir = folder.path();
        let count = |place: &str| fs::read_dir(maildir.join(place)).unwrap().count();
        put(maildir, "host", 1, b"p", b"x");
        put(maildir, "host", 1, b"p", b"x");
        assert_eq!((count("new"), count("tmp")), (1, 0));
        put(maildir, "host", 1, b"p", b"y");
        put(maildir, "host", 1, b"p", b"longer");
        put(maildir, "host", 2, b"p", b"x");
        assert_eq!(count("new"), 4);
        let item = Item { id: QueueId(3), recipient: 1, prefix: b"", content: &Content::from_bytes(*b"z") };
        deliver(maildir, "host", &item).unwrap();
        let name = name_of(&item, "host");
        fs::rename(maildir.join("new").join(&name), maildir.join(format!("cur/{name}:2,S"))).unwrap();
        deliver(maildir, "host", &item).unwrap();
        assert_eq!((count("new"), count("cur")), (4, 1));
    }
}
