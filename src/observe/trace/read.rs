//! Finds what was recorded. I/O: reads the files of `data_dir/trace`.
//!
//! A line is parsed only if it holds the words that are looked for, so that a day of records is searched at the speed of
//! memory. Lines that can't be read (torn by a crash, of another version) are passed over and counted.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use memchr::memmem;

use super::record::{Entry, Record};

use crate::base::unix::millis;

/// One file of records.
#[derive(Clone, Debug)]
pub struct SegmentFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes, and those of the contents beside it.
    pub bytes: u64,
    /// When it was written last.
    pub changed: SystemTime,
}

impl SegmentFile {
    /// The file of contents.
    pub fn mail(&self) -> PathBuf {
        self.path.with_extension("mail")
    }

    /// `YYYYMMDD-NNNN`
    pub fn name(&self) -> &str {
        self.path.file_stem().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// The segments, oldest first.
/// # Errors
/// If the folder can't be read; one that is not there has none.
pub fn segments(folder: &Path) -> io::Result<Vec<SegmentFile>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let facts = fs::metadata(&path)?;
        let mail = fs::metadata(path.with_extension("mail")).map_or(0, |facts| facts.len());
        found.push(SegmentFile { bytes: facts.len() + mail, changed: facts.modified()?, path });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// A record, and where its message's bytes may be.
#[derive(Clone, Debug)]
pub struct Found {
    /// The entry.
    pub entry: Entry,
    mail: PathBuf,
}

impl Found {
    /// The message's bytes, if they were kept.
    /// # Errors
    /// If they can't be read.
    pub fn content(&self, record: &Record) -> io::Result<Option<Vec<u8>>> {
        let Some((offset, length)) = record.content else { return Ok(None) };
        let mut file = fs::File::open(&self.mail)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        Ok(Some(bytes))
    }
}

/// What is looked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Not before.
    pub since: Option<SystemTime>,
    /// All of these stand in the line; as JSON writes them.
    pub words: Vec<String>,
    /// Refusals before DATA too, after all others.
    pub door: bool,
}

/// Hands every entry that is `wanted` to `take`, oldest first of each kind, until it says false.
/// # Errors
/// If a file can't be read.
pub fn each(folder: &Path, wanted: &Wanted, mut take: impl FnMut(Found) -> bool) -> io::Result<()> {
    let since_ms = wanted.since.map_or(0, millis);
    let mut files = segments(folder)?;
    if wanted.door {
        files.extend(segments(&folder.join(super::DOOR_FOLDER))?);
    }
    for segment in files {
        if wanted.since.is_some_and(|since| segment.changed + Duration::from_secs(1) < since) {
            continue;
        }
        let bytes = match fs::read(&segment.path) {
            // It was too old while we read another.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            bytes => bytes?,
        };
        let finders: Vec<memmem::Finder<'_>> = wanted.words.iter().map(memmem::Finder::new).collect();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if !finders.iter().all(|finder| finder.find(line).is_some()) {
                continue;
            }
            let Ok(entry) = serde_json::from_slice::<Entry>(line) else { continue };
            if entry.at() >= since_ms && !take(Found { entry, mail: segment.mail() }) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A text as it stands within a JSON string.
pub fn as_json(text: &str) -> String {
    let quoted = serde_json::to_string(text).expect("a text is JSON");
    quoted[1..quoted.len() - 1].to_owned()
}
