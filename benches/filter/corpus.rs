//! The messages to judge. I/O: reads them.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use weir::filter::classifier::Label;

/// Messages of a pass, at least: less is over before the caches are warm.
const MESSAGES_MIN: usize = 1_000;

/// One message.
pub struct Message {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub label: Label,
}

/// The mail of the demo: public, 100 messages of either kind at most.
pub fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/demo/mail")
}

/// The files of every `every`-th message of `folder`, in the order of names.
pub fn paths(folder: &Path, every: usize) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = paths.flatten().map(|entry| entry.path()).filter(|path| is_mail(path)).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no messages in {}", folder.display());
    let chosen = paths.len().div_ceil(every);
    let rounds = MESSAGES_MIN.div_ceil(chosen);
    (0..rounds).flat_map(|_| paths.iter().step_by(every).cloned()).collect()
}

/// The messages in these files.
pub fn read(folder: &Path, every: usize) -> Vec<Message> {
    let labels = labels(folder);
    let label = |path: &Path| {
        let name = path.file_name().unwrap().to_string_lossy();
        // The demo's names tell it.
        let spam = labels.get(&*name).copied().unwrap_or_else(|| name.starts_with("spam"));
        if spam { Label::Spam } else { Label::Ham }
    };
    let message = |path: PathBuf| Message { bytes: fs::read(&path).unwrap(), label: label(&path), path };
    paths(folder, every).into_iter().map(message).collect()
}

fn is_mail(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_string_lossy();
    path.is_file() && !name.starts_with("index") && !name.ends_with(".md")
}

fn labels(folder: &Path) -> HashMap<String, bool> {
    let index = fs::read_to_string(folder.join("index")).unwrap_or_default();
    let words = index.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(|words| words.len() > 1).map(|words| (words[1].to_owned(), words[0] == "spam")).collect()
}

/// The hostile messages of the tests; those in `.b64` are wrapped so that scanners leave the tree alone.
pub fn vectors() -> Vec<(PathBuf, Vec<u8>)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/mime")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                let wrapped = path.extension().is_some_and(|extension| extension == "b64");
                found.push((path, if wrapped { unwrap(&bytes) } else { bytes }));
            }
        }
    }
    found
}

fn unwrap(bytes: &[u8]) -> Vec<u8> {
    let text: String = String::from_utf8_lossy(bytes).lines().filter(|line| !line.starts_with('#')).collect();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
