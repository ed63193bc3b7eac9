//! The tree of a configuration: TOML values that know where they stand, merged from several files. Pure.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Sink, Source};

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
    /// A date, or a number beyond 64 bits: nothing of ours takes one.
    Other(&'static str),
}

/// Keys in the order in which they stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_place: Place,
    pub node: Node,
}

impl Value {
    /// How an error names the type.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::String(_) => "a string",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Boolean(_) => "a boolean",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Lays `other` over: tables join, lists of tables grow, anything else may be set only once.
    pub fn merge(&mut self, other: Table, sink: &Sink, sources: &[Source]) {
        for entry in other.entries {
            let Some(own) = self.entries.iter_mut().find(|own| own.key == entry.key) else {
                self.entries.push(entry);
                continue;
            };
            match (&mut own.node.value, entry.node.value) {
                (Value::Table(ours), Value::Table(theirs)) => ours.merge(theirs, sink, sources),
                (Value::Array(ours), Value::Array(theirs)) if is_tables(ours) && is_tables(&theirs) => {
                    ours.extend(theirs);
                }
                _ => {
                    let source = &sources[own.key_place.file];
                    let line = source.text[..own.key_place.span.start].matches('\n').count() + 1;
                    let first = format!("it is set first at {}:{line}", source.path.display());
                    sink.add(&entry.key_place, format!("`{}` is set twice", entry.key), first);
                }
            }
        }
    }
}

fn is_tables(nodes: &[Node]) -> bool {
    nodes.iter().all(|node| matches!(node.value, Value::Table(_)))
}

/// Parses one file; syntax errors go to `sink`.
pub(super) fn parse(file: usize, text: &str, sink: &Sink) -> Table {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        sink.add(&Place { file, span }, format!("this is not TOML: {}", error.message()), "");
    }
    convert_table(file, table.into_inner())
}

fn convert_table(file: usize, table: DeTable<'_>) -> Table {
    let mut entries: Vec<Entry> = table
        .into_iter()
        .map(|(key, value)| Entry {
            key_place: Place { file, span: key.span() },
            key: key.into_inner().into_owned(),
            node: convert(file, value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_place.span.start);
    Table { entries }
}

fn convert(file: usize, value: Spanned<DeValue<'_>>) -> Node {
    let span: Range<usize> = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Value::String(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("a number beyond 64 bits"),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => Value::Other("a number beyond 64 bits"),
        },
        DeValue::Boolean(yes) => Value::Boolean(yes),
        DeValue::Datetime(_) => Value::Other("a date"),
        DeValue::Array(items) => Value::Array(items.into_iter().map(|item| convert(file, item)).collect()),
        DeValue::Table(table) => Value::Table(convert_table(file, table)),
    };
    Node { place: Place { file, span }, value }
}
