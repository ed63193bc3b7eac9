//! Functions of SpamAssassin's standard plugins that need no network. Pure.
//!
//! A function that is not here makes its rule a problem at load, never a silent miss.

mod attached;
mod body;
mod brands;
mod charsets;
mod dates;
mod forged;
mod freemail;
mod head;
mod html;
pub mod identity;
mod images;
mod lists;
mod mime;
mod once;
mod people;

use super::definition::{Call, Test};
use super::matcher::Matcher;
use super::scratch::Scratch;
use super::texts::Texts;
use crate::filter::budget::Budget;
pub use lists::Lists;
pub use once::Once;

/// What a function sees.
pub struct Context<'c, 'v, 'x> {
    /// The message.
    pub texts: &'c Texts<'v, 'x>,
    /// The lists of the rule files.
    pub lists: &'c Lists,
    /// The argument that is a pattern.
    pattern: Option<&'c Matcher>,
}

impl Context<'_, '_, '_> {
    /// True if the argument that is a pattern matches; without one anything does.
    fn matches(&self, text: &str) -> bool {
        self.pattern.is_none_or(|pattern| {
            pattern.count(0, text.as_bytes(), 1, &mut Scratch::default(), &mut Budget::default()).0 > 0
        })
    }
}

/// A function: its arguments are those of the rule.
pub type Function = fn(&Context<'_, '_, '_>, &[String]) -> bool;

/// A function and what a rule asks it.
pub struct Asked {
    function: Function,
    arguments: Vec<String>,
    pattern: Option<Box<Matcher>>,
}

impl Asked {
    /// The function that a rule calls.
    /// # Errors
    /// If there is none of this name, or it is known here, but not with these arguments.
    pub fn find(call: &Call) -> Result<Self, String> {
        if let Some((_, known)) = ARGUMENTS.iter().find(|(name, _)| *name == call.name)
            && !call.arguments.first().is_some_and(|argument| known.contains(&argument.as_str()))
        {
            return Err(format!("the function {} is known here for {} only", call.name, known.join(", ")));
        }
        let known = TABLES.into_iter().flatten().find(|(name, _)| *name == call.name);
        let (_, function) = known.ok_or_else(|| format!("the function {} is not known here", call.name))?;
        let place = PATTERNS.iter().find(|(name, _)| *name == call.name).map(|(_, place)| *place);
        let text = place.and_then(|place| call.arguments.get(place));
        let pattern = text.map(|text| compile(text)).transpose()?.map(Box::new);
        Ok(Asked { function: *function, arguments: call.arguments.clone(), pattern })
    }

    /// A question that no call in a rule file puts.
    pub fn of(function: Function, argument: &str) -> Self {
        Asked { function, arguments: vec![argument.to_owned()], pattern: None }
    }

    /// The answer for one message.
    pub fn holds(&self, texts: &Texts<'_, '_>) -> bool {
        let context = Context { texts, lists: texts.lists, pattern: self.pattern.as_deref() };
        (self.function)(&context, &self.arguments)
    }
}

const TABLES: [&[(&str, Function)]; 14] = [
    attached::FUNCTIONS,
    body::FUNCTIONS,
    brands::FUNCTIONS,
    charsets::FUNCTIONS,
    dates::FUNCTIONS,
    forged::FUNCTIONS,
    freemail::FUNCTIONS,
    head::FUNCTIONS,
    html::FUNCTIONS,
    identity::FUNCTIONS,
    images::FUNCTIONS,
    lists::FUNCTIONS,
    mime::FUNCTIONS,
    people::FUNCTIONS,
];

/// Functions that are known with some first arguments only.
const ARGUMENTS: [(&str, &[&str]); 5] = [
    ("check_for_mime", mime::MIME_TESTS),
    ("check_msg_parse_flags", mime::PARSE_FLAGS),
    ("html_eval", html::NUMBERS),
    ("html_range", html::NUMBERS),
    ("html_test", html::TESTS),
];

/// Functions of which an argument is a pattern, and which.
const PATTERNS: [(&str, usize); 6] = [
    ("check_freemail_body", 0),
    ("check_freemail_from", 0),
    ("check_freemail_header", 1),
    ("html_text_match", 1),
    ("html_text_not_match", 1),
    ("image_name_regex", 0),
];

fn compile(text: &str) -> Result<Matcher, String> {
    let pattern = if text.starts_with('/') { text.to_owned() } else { format!("/{text}/") };
    Matcher::compile(&Test { negated: false, pattern })
}

/// True if a pseudo-field such as ToCc is there.
pub fn is_there(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    let spec = arguments.first().map(|name| super::definition::FieldSpec::parse(name));
    spec.is_some_and(|spec| context.texts.header(&spec).is_some())
}

/// The argument at `place` as a number; nothing for `undef` and `inf`.
fn number(arguments: &[String], place: usize) -> Option<f64> {
    arguments.get(place)?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// True if `value` is above the first bound and at most the second, which may be missing.
fn within(value: f64, arguments: &[String], first: usize) -> bool {
    let low = number(arguments, first).unwrap_or(0.0);
    value > low && number(arguments, first + 1).is_none_or(|high| value <= high)
}

/// True if `value` is at least the first bound and at most the second, which may be missing.
fn between(value: f64, arguments: &[String], first: usize) -> bool {
    number(arguments, first).is_none_or(|low| value >= low)
        && number(arguments, first + 1).is_none_or(|high| value <= high)
}
