//! Rules as written: names, kinds, patterns as text. Pure.

use std::fmt;
use std::sync::Arc;

/// Where something stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something that this filter does otherwise or needs the network for; other rules work.
    Note,
    /// A rule or line that should work does not.
    Error,
}

/// Something in a rule file that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What about it.
    pub text: String,
    /// How bad.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.severity == Severity::Error { "error" } else { "note" };
        write!(f, "{}: {word}: {}", self.place, self.text)
    }
}

/// A header field to be matched, with what is done to its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldSpec {
    /// The name in lower case, or a name that SpamAssassin made up (`all`, `tocc`, `messageid` …).
    pub name: String,
    /// `addr`, `name`, `raw`, `first` …, in lower case.
    pub modifiers: Vec<String>,
}

/// The name that stands for all fields that hold a message's id; no field can have it.
pub const MESSAGE_ID: &str = "message id";

/// Names of the same text, and the one that it has here: who is trusted is who is inside.
const SAME: [(&str, &str); 4] = [
    ("all-trusted", "all-internal"),
    ("all-untrusted", "all-external"),
    ("x-spam-relays-trusted", "x-spam-relays-internal"),
    ("x-spam-relays-untrusted", "x-spam-relays-external"),
];

impl FieldSpec {
    /// Reads `From:addr`.
    pub fn parse(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        let mut words = lower.split(':').map(str::to_owned);
        let name = words.next().unwrap_or_default();
        // Written in any other way it is a field that somebody misspelt.
        let name = if text.starts_with("MESSAGEID") { MESSAGE_ID.to_owned() } else { name };
        let name = SAME.iter().find(|(other, _)| *other == name).map_or(name, |(_, known)| (*known).to_owned());
        FieldSpec { name, modifiers: words.filter(|word| !word.is_empty()).collect() }
    }

    /// True if not the whole value is asked for, but a part of it.
    pub fn picks(&self) -> bool {
        ["addr", "name", "host", "domain", "ip", "revip"].iter().any(|modifier| self.has(modifier))
    }

    /// True if this modifier is given.
    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.iter().any(|one| one == modifier)
    }
}

/// `=~ /…/`, `!~ /…/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// It holds where the pattern does not match.
    pub negated: bool,
    /// The pattern with its delimiters and flags.
    pub pattern: String,
}

/// What a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The rendered text, subject included.
    Body(Test),
    /// A function.
    Eval(Call),
    /// The field is there.
    Exists(String),
    /// The whole message as received.
    Full(Test),
    /// A header field; the text stands in for one that is missing.
    Header(FieldSpec, Test, Option<String>),
    /// Hits of other rules.
    Meta(String),
    /// A field of any part.
    MimeHeader(FieldSpec, Test, Option<String>),
    /// Decoded text, tags included.
    RawBody(Test),
    /// URLs.
    Uri(Test),
    /// Properties of one URL, all of which must hold.
    UriDetail(Vec<(String, Test)>),
}

/// A function with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The kind of rule it was written for: `header`, `body` …
    pub target: String,
    /// Its name.
    pub name: String,
    /// Arguments without their quotes.
    pub arguments: Vec<String>,
}

impl Call {
    /// Reads `eval:name('a', 2)`.
    /// # Errors
    /// If it is no call.
    pub fn parse(target: &str, text: &str) -> Result<Self, String> {
        let text = text.trim().strip_prefix("eval:").ok_or("a call begins with `eval:`")?;
        let (name, rest) = text.split_once('(').unwrap_or((text, ")"));
        let inner = rest.trim_end().strip_suffix(')').ok_or("the call is not closed")?;
        let arguments = split_arguments(inner).map(|word| word.trim().trim_matches(['\'', '"']).to_owned());
        Ok(Call {
            target: target.to_owned(),
            name: name.trim().to_owned(),
            arguments: arguments.filter(|word| !word.is_empty()).collect(),
        })
    }
}

/// Divides at commas that stand in no quotes.
fn split_arguments(text: &str) -> impl Iterator<Item = &str> {
    let mut quote = None;
    text.split(move |c: char| {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        c == ',' && quote.is_none()
    })
}

/// `tflags`, as far as they change what we do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Count every match.
    pub multiple: bool,
    /// But at most so many.
    pub hits_max: Option<u16>,
    /// Lowers the score.
    pub nice: bool,
    /// Needs the network.
    pub net: bool,
    /// A `body` rule does not look at the subject.
    pub no_subject: bool,
    /// Counted beside the verdict.
    pub shadow: bool,
}

/// A rule as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name.
    pub name: String,
    /// What it looks at.
    pub kind: Kind,
    /// Where it stands.
    pub place: Place,
}

/// A line that a rule must hit, or must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The rule.
    pub rule: String,
    /// It must hit.
    pub hit: bool,
    /// The text; `\n` and `\t` stand for themselves.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_divide_no_arguments() {
        let call = Call::parse("body", "eval:f('a{0,6}', \"b,c\", 3, undef)").unwrap();
        assert_eq!(call.arguments, ["a{0,6}", "b,c", "3", "undef"]);
    }
}
