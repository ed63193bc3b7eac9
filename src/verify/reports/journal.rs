//! Entries on disk: a text file that grows by lines and is written anew when most of it is history. I/O: one file.
//!
//! A line is the CRC32C in eight hex digits, a blank, and JSON. What a crash tore or a disk damaged is left out when reading, and counted: these are
//! statistics, and a broken line must not cost the others. Nothing here is mail.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Below this the file is not written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// The file may be so many times as large as what is in force.
const REWRITE_FACTOR: u64 = 4;
/// Hex digits of a CRC32C.
const CRC_CHARS: usize = 8;
/// A longer line is damage; the largest entries (a summary with all its rows) stay below.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// One file.
#[derive(Debug)]
pub struct Journal<T> {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_in_force: u64,
    of: PhantomData<fn(T) -> T>,
}

/// What was in the file.
#[derive(Debug)]
pub struct Opened<T> {
    /// The file.
    pub journal: Journal<T>,
    /// Its entries.
    pub entries: Vec<T>,
    /// Lines that can't be read.
    pub damaged: usize,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens or makes the file.
    /// # Errors
    /// If it can't be read or made.
    pub fn open(path: &Path) -> io::Result<Opened<T>> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let (mut entries, mut damaged) = (Vec::new(), 0);
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        loop {
            line.clear();
            if io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            // An empty line parts what may be torn from what follows.
            match parse(&line) {
                Some(entry) => entries.push(entry),
                None if line == b"\n" => {}
                None => damaged += 1,
            }
        }
        let bytes = file.metadata()?.len();
        let journal = Journal { path: path.to_owned(), file, bytes, bytes_in_force: bytes, of: PhantomData };
        Ok(Opened { journal, entries, damaged })
    }

    /// Adds entries; they are on disk when this returns.
    /// # Errors
    /// If the disk refuses; a torn line is left out when the file is read.
    pub fn append(&mut self, entries: &[T]) -> io::Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        // A line that an earlier failure tore must not swallow the first of these.
        let text = [b"\n".to_vec(), lines(entries)].concat();
        self.file.write_all(&text)?;
        self.bytes += text.len() as u64;
        self.file.sync_data()
    }

    /// True once [`Journal::rewrite`] is worth it.
    pub fn is_mostly_history(&self) -> bool {
        self.bytes > REWRITE_BYTES_MIN && self.bytes > REWRITE_FACTOR * self.bytes_in_force
    }

    /// Replaces the file by these entries.
    /// # Errors
    /// If the disk refuses; then the old file is still there.
    pub fn rewrite(&mut self, entries: &[T]) -> io::Result<()> {
        let beside = self.path.with_extension("new");
        let text = lines(entries);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        self.file = OpenOptions::new().read(true).append(true).open(&self.path)?;
        self.bytes = text.len() as u64;
        self.bytes_in_force = self.bytes;
        Ok(())
    }
}

fn lines<T: Serialize>(entries: &[T]) -> Vec<u8> {
    let mut text = Vec::new();
    for entry in entries {
        let json = serde_json::to_string(entry).expect("entries have only string keys");
        text.extend(format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes());
    }
    text
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(line).ok()?.trim_end_matches('\n');
    let (crc, json) = text.split_at_checked(CRC_CHARS)?;
    let json = json.strip_prefix(' ')?;
    let wanted = u32::from_str_radix(crc, 16).ok()?;
    if crc32c::crc32c(json.as_bytes()) != wanted {
        return None;
    }
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(path: &Path) -> (Vec<String>, usize) {
        let opened = Journal::<String>::open(path).unwrap();
        (opened.entries, opened.damaged)
    }

    #[test]
    fn entries_come_back_and_a_torn_line_costs_only_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        let mut journal = Journal::open(&path).unwrap().journal;
        journal.append(&["a\nb".to_owned(), "c".to_owned()]).unwrap();
        assert_eq!(read(&path), (vec!["a\nb".to_owned(), "c".to_owned()], 0));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let mut journal = Journal::open(&path).unwrap().journal;
        journal.append(&["d".to_owned()]).unwrap();
        assert_eq!(read(&path), (vec!["a\nb".to_owned(), "d".to_owned()], 1));
        journal.rewrite(&["e".to_owned()]).unwrap();
        journal.append(&["f".to_owned()]).unwrap();
        assert_eq!(read(&path), (vec!["e".to_owned(), "f".to_owned()], 0));
    }

    #[test]
    fn history_is_thrown_away_when_it_is_most_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&folder.path().join("j")).unwrap().journal;
        let long = "x".repeat(1 << 20);
        assert!(!journal.is_mostly_history());
        (0..3).for_each(|_| journal.append(std::slice::from_ref(&long)).unwrap());
        assert!(journal.is_mostly_history());
        journal.rewrite(&[long]).unwrap();
        assert!(!journal.is_mostly_history());
    }

    proptest! {
        #[test]
        fn any_damage_is_only_damage(at in 0usize..60, byte: u8) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("j");
            Journal::open(&path).unwrap().journal.append(&["one".to_owned(), "two".to_owned()]).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at % bytes.len();
            bytes[at] = byte;
            std::fs::write(&path, bytes).unwrap();
            let (entries, _) = read(&path);
            prop_assert!(entries.iter().all(|entry| entry == "one" || entry == "two"), "{entries:?}");
        }
    }
}
