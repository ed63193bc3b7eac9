//! From a file to a checked [`Config`]. I/O: reads the configuration, what it includes and the files that it names.
//!
//! `include` is followed one level deep: an included file can't include others. A set file wins over nothing: a key that two
//! files set is an error.

use std::path::{Path, PathBuf};

use super::build;
use super::node::{self, Node, Table, Value};
use super::problem::{Problems, Sink, Source, directory_of};
use super::section::{Context, Section};
use super::settings::Config;

/// A configuration file is written by people; 4 MiB is ten thousand domains.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Files that one `include` may bring.
const INCLUDES_MAX: usize = 1000;

impl Config {
    /// Reads and checks a configuration file, and all that it includes.
    /// # Errors
    /// Everything that is wrong with it, with file, line, column and what would be right.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let sink = Sink::default();
        let Some(text) = read(path, &sink) else { return Err(sink.into_problems(&[])) };
        from_source(Source { path: path.to_owned(), text }, sink, None)
    }

    /// Checks a text as if it stood in the file `path`.
    /// # Errors
    /// As for [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problems> {
        from_source(Source { path: path.to_owned(), text: text.to_owned() }, Sink::default(), None)
    }

    /// What holds without any file: listeners on loopback, mail for `localhost` in the embedded store under `data_dir`.
    pub fn default_for(data_dir: &Path) -> Self {
        let source = Source { path: PathBuf::from("defaults"), text: String::new() };
        from_source(source, Sink::default(), Some(data_dir)).expect("the defaults are without fault")
    }
}

fn read(path: &Path, sink: &Sink) -> Option<String> {
    let text = match std::fs::metadata(path) {
        Ok(facts) if facts.len() > FILE_BYTES_MAX => Err(format!("it is larger than {FILE_BYTES_MAX} bytes")),
        Ok(facts) if facts.is_dir() => Err("it is a directory".to_owned()),
        _ => std::fs::read_to_string(path).map_err(|error| error.to_string()),
    };
    text.map_err(|why| sink.add_without_place(format!("{} can't be read: {why}", path.display()), "")).ok()
}

fn from_source(source: Source, sink: Sink, data_dir: Option<&Path>) -> Result<Config, Problems> {
    let mut sources = vec![source];
    let mut root = node::parse(0, &sources[0].text, &sink);
    include(&mut root, &mut sources, &sink);
    // Half a tree would bring a second error for each first one.
    let config = sink.is_empty().then(|| {
        let cx = Context { sink: &sink, sources: &sources };
        build::config(Section::top(cx, &root), data_dir)
    });
    match config {
        Some(config) if sink.is_empty() => Ok(config),
        _ => Err(sink.into_problems(&sources)),
    }
}

/// Merges what `include` names; the key itself is taken out.
fn include(root: &mut Table, sources: &mut Vec<Source>, sink: &Sink) {
    let Some(at) = root.entries.iter().position(|entry| entry.key == "include") else { return };
    let patterns = root.entries.remove(at).node;
    for (node, pattern) in strings(&patterns, sink) {
        let base = directory_of(&sources[0].path).to_owned();
        for path in expand(&base, pattern, node, sink) {
            let Some(text) = read(&path, sink) else { continue };
            let table = node::parse(sources.len(), &text, sink);
            sources.push(Source { path, text });
            if let Some(nested) = table.get("include") {
                sink.add(&nested.key_place, "an included file can't include others", "name it in the main file");
                continue;
            }
            root.merge(table, sink, sources);
        }
    }
}

fn strings<'a>(node: &'a Node, sink: &Sink) -> Vec<(&'a Node, &'a str)> {
    let wrong =
        |node: &Node| sink.add(&node.place, "`include` must be a list of strings", "include = [\"conf.d/*.toml\"]");
    let Value::Array(items) = &node.value else {
        wrong(node);
        return Vec::new();
    };
    let text = |item: &'a Node| match &item.value {
        Value::String(text) => Some((item, text.as_str())),
        _ => {
            wrong(item);
            None
        }
    };
    items.iter().filter_map(text).collect()
}

/// The files of a pattern: `*` stands for any characters in the last part of the path. Sorted by name.
fn expand(base: &Path, pattern: &str, node: &Node, sink: &Sink) -> Vec<PathBuf> {
    let whole = base.join(pattern);
    let Some((before, after)) = pattern.rsplit('/').next().and_then(|last| last.split_once('*')) else {
        return vec![whole];
    };
    let directory = directory_of(&whole);
    if after.contains('*') || directory.to_string_lossy().contains('*') {
        sink.add(
            &node.place,
            "only one `*`, in the last part of the path, is understood",
            "include = [\"conf.d/*.toml\"]",
        );
        return Vec::new();
    }
    // A directory that is not there has no files: a package may ship the line without the folder.
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let matches = |name: &str| {
        name.len() >= before.len() + after.len()
            && name.starts_with(before)
            && name.ends_with(after)
            && !name.starts_with('.')
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut paths: Vec<PathBuf> = names.filter(|name| matches(name)).map(|name| directory.join(name)).collect();
    paths.sort();
    if paths.len() > INCLUDES_MAX {
        sink.add(&node.place, format!("`{pattern}` names more than {INCLUDES_MAX} files"), "");
        paths.truncate(INCLUDES_MAX);
    }
    paths
}
