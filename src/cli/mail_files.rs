//! Messages from files, folders, mbox files and standard input, for the subcommands that judge and learn. I/O: reads them.
//!
//! A folder is walked in the order of names, Maildir folders included; links are not followed. A file that begins with
//! `From ` and holds more than one message is an mbox (RFC 4155, `>From ` undone).

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// One message and where it came from.
pub struct Mail {
    /// The path, with `#n` behind it for the n-th message of an mbox.
    pub origin: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Largest file that is read; more is no mail folder but a mistake.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Folders within folders.
const FOLDER_DEPTH_MAX: usize = 32;

/// All files below `paths`, in order; `-` stays as it is.
/// # Errors
/// The first path that can't be read.
pub fn list(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            files.push(path.clone());
        } else {
            walk(path, 0, &mut files).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(files)
}

fn walk(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let kind = if depth == 0 { fs::metadata(path)? } else { fs::symlink_metadata(path)? };
    if kind.is_file() {
        files.push(path.to_owned());
    } else if kind.is_dir() && depth < FOLDER_DEPTH_MAX {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        entries.sort();
        entries.iter().try_for_each(|entry| walk(entry, depth + 1, files))?;
    }
    Ok(())
}

/// The messages of one file.
/// # Errors
/// If it can't be read.
pub fn read(path: &Path) -> Result<Vec<Mail>, String> {
    let bytes = read_bytes(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let starts = mbox_starts(&bytes);
    if starts.len() < 2 {
        return Ok(vec![Mail { origin: path.display().to_string(), bytes }]);
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let pieces = starts.iter().zip(ends).enumerate();
    Ok(pieces
        .map(|(n, (&from, to))| Mail {
            origin: format!("{}#{}", path.display(), n + 1),
            bytes: unquote(&bytes[from..to]),
        })
        .collect())
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    } else {
        fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn mbox_starts(bytes: &[u8]) -> Vec<usize> {
    if !bytes.starts_with(b"From ") {
        return Vec::new();
    }
    let later = memchr::memmem::find_iter(bytes, b"\n\nFrom ").map(|at| at + 2);
    let later_crlf = memchr::memmem::find_iter(bytes, b"\n\r\nFrom ").map(|at| at + 3);
    let mut starts: Vec<usize> = [0].into_iter().chain(later).chain(later_crlf).collect();
    starts.sort_unstable();
    starts
}

fn unquote(message: &[u8]) -> Vec<u8> {
    let body = memchr::memchr(b'\n', message).map_or(message.len(), |end| end + 1);
    let mut out = Vec::with_capacity(message.len());
    for line in message[body..].split_inclusive(|&byte| byte == b'\n') {
        let quotes = line.iter().take_while(|&&byte| byte == b'>').count();
        let quoted = quotes > 0 && line[quotes..].starts_with(b"From ");
        out.extend_from_slice(if quoted { &line[1..] } else { line });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_mbox_files_give_their_messages() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b"), "From a\nSubject: 1\n\n>From x\n\nFrom b\nSubject: 2\n\ny\n").unwrap();
        fs::write(folder.path().join("a"), "Subject: 0\n\nz\n").unwrap();
        let files = list(&[folder.path().to_owned()]).unwrap();
        let mails: Vec<Mail> = files.iter().flat_map(|file| read(file).unwrap()).collect();
        let texts: Vec<String> = mails.iter().map(|mail| String::from_utf8_lossy(&mail.bytes).into_owned()).collect();
        assert_eq!(texts, ["Subject: 0\n\nz\n", "Subject: 1\n\nFrom x\n\n", "Subject: 2\n\ny\n"]);
        assert!(mails[2].origin.ends_with("b#2"));
    }
}
