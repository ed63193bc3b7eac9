//! Reads one table of the tree: each key once, typed and in range; what was never asked for is unknown. Pure.
//!
//! A reader never stops at the first fault: it notes it, answers with the default, and goes on.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::node::{Node, Table, Value};
use super::problem::{Place, Sink, Source, directory_of};
use super::scores::Line;
use super::units::{self, Wrong, nearest};

/// What all readers share.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub sink: &'a Sink,
    pub sources: &'a [Source],
}

impl Context<'_> {
    /// A path as `node`'s file means it.
    pub fn path(&self, node: &Node, text: &str) -> PathBuf {
        directory_of(&self.sources[node.place.file].path).join(text)
    }
}

/// One table while it is read.
pub(super) struct Section<'a> {
    pub cx: Context<'a>,
    /// `[relay]`, for messages; empty at the top.
    name: String,
    place: Place,
    table: Option<&'a Table>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub fn top(cx: Context<'a>, table: &'a Table) -> Self {
        Section { cx, name: String::new(), place: Place { file: 0, span: 0..0 }, table: Some(table), known: Vec::new() }
    }

    /// The table of a node that was found to be one.
    pub fn of(cx: Context<'a>, name: &str, place: &Place, table: &'a Table) -> Self {
        Section { cx, name: name.to_owned(), place: place.clone(), table: Some(table), known: Vec::new() }
    }

    /// The table `key`, or an empty one.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let name = format!("[{key}]");
        let empty = Section { cx: self.cx, name, place: self.place.clone(), table: None, known: Vec::new() };
        let Some(node) = self.node(key) else { return empty };
        match &node.value {
            Value::Table(table) => Section { place: node.place.clone(), table: Some(table), ..empty },
            other => {
                self.mistyped(
                    node,
                    key,
                    "a table",
                    other.kind(),
                    &format!("write it as `[{key}]` with its keys below"),
                );
                empty
            }
        }
    }

    /// The tables of `[[key]]`; nothing if there is no such key.
    pub fn sections(&mut self, key: &'static str) -> Option<Vec<Section<'a>>> {
        let node = self.node(key)?;
        let name = format!("[[{key}]]");
        let Value::Array(items) = &node.value else {
            self.mistyped(node, key, "a list of tables", node.value.kind(), &format!("write it as `{name}`"));
            return None;
        };
        let mut sections = Vec::new();
        for item in items {
            match &item.value {
                Value::Table(table) => sections.push(Section::of(self.cx, &name, &item.place, table)),
                other => self.mistyped(item, key, "a list of tables", other.kind(), &format!("write it as `{name}`")),
            }
        }
        Some(sections)
    }

    /// The value of `key`, if it is set; from here on the key is known.
    pub fn node(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.table.and_then(|table| table.get(key)).map(|entry| &entry.node)
    }

    /// Where `key` stands, or else the table.
    pub fn place_of(&self, key: &str) -> Place {
        let entry = self.table.and_then(|table| table.get(key));
        entry.map_or_else(|| self.place.clone(), |entry| entry.node.place.clone())
    }

    /// The line of `key`, or of the table; no line for a table that is not there.
    pub fn line_of(&self, key: &str) -> Line {
        if self.table.is_none() {
            return Line::default();
        }
        let place = self.place_of(key);
        let source = &self.cx.sources[place.file];
        let name = source.path.file_name().unwrap_or_default().to_string_lossy();
        let before = source.text.get(..place.span.start).unwrap_or_default();
        Line::new(format!("{name}:{}", before.matches('\n').count() + 1))
    }

    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.get(key).is_some())
    }

    /// Notes a fault at the value of `key`.
    pub fn fault(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.cx.sink.add(&self.place_of(key), message, help);
    }

    fn mistyped(&self, node: &Node, key: &str, wanted: &str, found: &str, help: &str) {
        self.cx.sink.add(&node.place, format!("`{key}` must be {wanted}, not {found}"), help);
    }

    /// Says which keys nobody asked for. The last thing done with a section.
    pub fn finish(self) {
        for entry in self.table.iter().flat_map(|table| &table.entries) {
            if self.known.contains(&entry.key.as_str()) {
                continue;
            }
            let within = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
            let mut known = self.known.clone();
            known.sort_unstable();
            let help = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            self.cx.sink.add(&entry.key_place, format!("unknown key `{}`{within}", entry.key), help);
        }
    }

    /// A string that `parse` understands.
    pub fn parsed<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let node = self.node(key)?;
        self.parse_node(node, key, parse)
    }

    fn parse_node<T>(&self, node: &Node, key: &str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let Value::String(text) = &node.value else {
            self.mistyped(node, key, "a string", node.value.kind(), "");
            return None;
        };
        match parse(text) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.cx.sink.add(&node.place, format!("`{key}`: {wrong}"), "");
                None
            }
        }
    }

    /// A list of strings that `parse` understands, each.
    pub fn list<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<Vec<T>> {
        let node = self.node(key)?;
        let Value::Array(items) = &node.value else {
            self.mistyped(node, key, "a list", node.value.kind(), &format!("write `{key} = [\"…\", \"…\"]`"));
            return None;
        };
        Some(items.iter().filter_map(|item| self.parse_node(item, key, &parse)).collect())
    }

    pub fn string(&mut self, key: &'static str) -> Option<String> {
        self.parsed(key, |text| match text {
            "" => Err("it must not be empty".to_owned()),
            text if text.contains(char::is_control) => Err("control characters are not allowed".to_owned()),
            text => Ok(text.to_owned()),
        })
    }

    /// A path; a relative one starts at the directory of the file that names it.
    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let text = self.string(key)?;
        let node = self.node(key)?;
        Some(self.cx.path(node, &text))
    }

    pub fn paths(&mut self, key: &'static str) -> Option<Vec<PathBuf>> {
        let file = Node { place: self.place_of(key), value: Value::Boolean(true) };
        let cx = self.cx;
        self.list(key, |text| Ok(cx.path(&file, text)))
    }

    pub fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let Some(node) = self.node(key) else { return default };
        let Value::Boolean(value) = node.value else {
            self.mistyped(node, key, "true or false", node.value.kind(), "");
            return default;
        };
        value
    }

    /// A whole number within `range`.
    pub fn number(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(node) = self.node(key) else { return default };
        let (Value::Integer(value), (least, most)) = (&node.value, (range.start(), range.end())) else {
            self.mistyped(node, key, "a whole number", node.value.kind(), "");
            return default;
        };
        match u64::try_from(*value) {
            Ok(value) if range.contains(&value) => value,
            _ => {
                self.cx.sink.add(&node.place, format!("`{key}` must be from {least} to {most}"), "");
                default
            }
        }
    }

    pub fn number32(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        u32::try_from(self.number(key, default.into(), range)).expect("the range is of 32 bits")
    }

    /// A number within `range`, with or without a fraction.
    pub fn float(&mut self, key: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let Some(node) = self.node(key) else { return default };
        let value = match node.value {
            Value::Integer(value) => value as f64,
            Value::Float(value) => value,
            _ => {
                self.mistyped(node, key, "a number", node.value.kind(), "");
                return default;
            }
        };
        if !range.contains(&value) {
            let message = format!("`{key}` must be from {} to {}", range.start(), range.end());
            self.cx.sink.add(&node.place, message, "");
            return default;
        }
        value
    }

    /// A size in bytes within `range`: `"50 MiB"`, or a plain number.
    pub fn size(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(node) = self.node(key) else { return default };
        if let Value::Integer(_) = node.value {
            return self.number(key, default, range);
        }
        let Some(bytes) = self.parse_node(node, key, units::size) else { return default };
        if !range.contains(&bytes) {
            let (least, most) = (units::show_size(*range.start()), units::show_size(*range.end()));
            self.cx.sink.add(&node.place, format!("`{key}` must be from {least} to {most}"), "");
            return default;
        }
        bytes
    }

    /// A duration within `range`: `"5m"`.
    pub fn duration(&mut self, key: &'static str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let Some(node) = self.node(key) else { return default };
        if let Value::Integer(number) = node.value {
            let help = format!("a number needs its unit: `{key} = \"{number}s\"`");
            self.mistyped(node, key, "a duration", "a number", &help);
            return default;
        }
        let Some(value) = self.parse_node(node, key, units::duration) else { return default };
        if !range.contains(&value) {
            let (least, most) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
            self.cx.sink.add(&node.place, format!("`{key}` must be from {least} to {most}"), "");
            return default;
        }
        value
    }

    /// One of the words of `choices`; `later` are those that an older or newer Weir knows.
    pub fn word<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)], later: &[&str]) -> Option<T> {
        self.parsed(key, |text| one_of(text, choices, later))
    }

    /// A list of such words.
    pub fn words<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)], later: &[&str]) -> Option<Vec<T>> {
        self.list(key, |text| one_of(text, choices, later))
    }
}

/// Finds `text` among `choices`, or says which there are.
pub(super) fn one_of<T: Copy>(text: &str, choices: &[(&str, T)], later: &[&str]) -> Result<T, Wrong> {
    if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    if later.contains(&text) {
        return Err(format!("\"{text}\" is not available in this version"));
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let hint = nearest(text, words.iter().copied()).map(|near| format!(", did you mean \"{near}\"?"));
    Err(format!("\"{text}\" is unknown{} (there is {})", hint.unwrap_or_default(), words.join(", ")))
}
