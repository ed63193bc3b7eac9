//! What is wrong with a configuration: file, line, column, the line itself with a caret, and what would be right. Pure.
//!
//! All problems of all files are gathered before any is shown. A password or token on a shown line is masked.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file as it was read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub path: PathBuf,
    pub text: String,
}

/// Where something stands: a byte range of one of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub file: usize,
    pub span: Range<usize>,
}

struct Fault {
    place: Option<Place>,
    message: String,
    help: Option<String>,
}

/// Gathers what is wrong while a configuration is read.
#[derive(Default)]
pub(super) struct Sink {
    faults: RefCell<Vec<Fault>>,
}

impl Sink {
    pub fn add(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.push(Some(place.clone()), message.into(), help.into());
    }

    /// A fault that has no place in a text, such as a file that can't be read.
    pub fn add_without_place(&self, message: impl Into<String>, help: impl Into<String>) {
        self.push(None, message.into(), help.into());
    }

    fn push(&self, place: Option<Place>, message: String, help: String) {
        let help = Some(help).filter(|help| !help.is_empty());
        self.faults.borrow_mut().push(Fault { place, message, help });
    }

    pub fn is_empty(&self) -> bool {
        self.faults.borrow().is_empty()
    }

    /// The problems in the order in which they stand in the files.
    pub fn into_problems(self, sources: &[Source]) -> Problems {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| fault.place.as_ref().map(|place| (place.file, place.span.start)));
        faults.dedup_by(|a, b| a.place == b.place && a.message == b.message);
        Problems { problems: faults.into_iter().map(|fault| Problem::new(fault, sources)).collect() }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// At least one, in the order of the files.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        let count = self.problems.len();
        write!(f, "{count} {} in the configuration", if count == 1 { "error" } else { "errors" })
    }
}

impl std::error::Error for Problems {}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it stands in a file.
    pub spot: Option<Spot>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// A place in a file, ready to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line, secrets masked.
    pub text: String,
    /// Characters that the caret underlines, at least 1.
    pub width: usize,
}

impl Problem {
    fn new(fault: Fault, sources: &[Source]) -> Self {
        let spot = fault.place.map(|place| Spot::new(&sources[place.file], &place.span));
        Problem { spot, message: fault.message, help: fault.help }
    }
}

impl Spot {
    fn new(source: &Source, span: &Range<usize>) -> Self {
        let text = source.text.as_str();
        let start = floor_char_boundary(text, span.start);
        let end = floor_char_boundary(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let shown = text[line_start..line_end].trim_end_matches('\r');
        Spot {
            file: source.path.clone(),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: mask_secrets(shown),
            width: text[start..end.min(line_end)].chars().count().max(1),
        }
    }
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Keys whose value is a secret.
const SECRET_KEYS: [&str; 2] = ["token", "password"];

/// Replaces passwords of URLs and values of secret keys by as many asterisks; tabs and other controls become spaces,
/// so that the caret stands right and a terminal is not steered by the file.
fn mask_secrets(line: &str) -> String {
    let mut chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let plain: String = chars.iter().collect();
    let key = plain.split('=').next().unwrap_or_default().trim().to_owned();
    if SECRET_KEYS.contains(&key.as_str()) {
        let from = chars.iter().position(|c| *c == '=').unwrap_or(0) + 1;
        chars[from..].iter_mut().filter(|c| c.is_alphanumeric()).for_each(|c| *c = '*');
    }
    mask_url_passwords(&mut chars);
    chars.into_iter().collect()
}

fn mask_url_passwords(chars: &mut [char]) {
    let mut at = 0;
    while at + 3 <= chars.len() {
        if chars[at..at + 3] != [':', '/', '/'] {
            at += 1;
            continue;
        }
        at += 3;
        let authority = chars[at..].iter().take_while(|c| !matches!(c, '"' | '\'' | ' ')).count();
        let authority = &mut chars[at..at + authority];
        let (colon, sign) = (authority.iter().position(|c| *c == ':'), authority.iter().rposition(|c| *c == '@'));
        if let (Some(colon), Some(sign)) = (colon, sign)
            && colon < sign
        {
            authority[colon + 1..sign].fill('*');
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(spot) = &self.spot else {
            writeln!(f, "error: {}", self.message)?;
            return self.help.iter().try_for_each(|help| writeln!(f, "  = {help}"));
        };
        let number = spot.line.to_string();
        let indent = " ".repeat(number.len());
        writeln!(f, "error: {}:{}:{}: {}", spot.file.display(), spot.line, spot.column, self.message)?;
        writeln!(f, "{indent} |")?;
        writeln!(f, "{number} | {}", spot.text)?;
        writeln!(f, "{indent} | {}{}", " ".repeat(spot.column - 1), "^".repeat(spot.width))?;
        self.help.iter().try_for_each(|help| writeln!(f, "{indent} = {help}"))
    }
}

/// The directory that relative paths of `file` start from.
pub(super) fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_are_not_shown() {
        let line = r#"smarthost = "smtp://user:p%40ss@host:587" # and lmtp://h:24"#;
        assert_eq!(mask_secrets(line), r#"smarthost = "smtp://user:******@host:587" # and lmtp://h:24"#);
        assert_eq!(mask_secrets(r#"token = "abc-1""#), r#"token = "***-*""#);
    }
}
