//! Functions of SpamAssassin's standard plugins that need no network. Pure.
//!
//! A function that is not here makes its rule a problem at load, never a silent miss.

mod head;
mod html;
pub mod identity;
mod lists;
mod mime;

use super::definition::Call;
use super::texts::Texts;
pub use lists::Lists;

/// What a function sees.
pub struct Context<'c, 'v, 'x> {
    /// The message.
    pub texts: &'c Texts<'v, 'x>,
    /// The lists of the rule files.
    pub lists: &'c Lists,
}

/// A function: its arguments are those of the rule.
pub type Function = fn(&Context<'_, '_, '_>, &[String]) -> bool;

/// Functions that are known with some first arguments only.
const ARGUMENTS: [(&str, &[&str]); 5] = [
    ("check_for_mime", mime::MIME_TESTS),
    ("check_msg_parse_flags", mime::PARSE_FLAGS),
    ("html_eval", &["length"]),
    ("html_range", &["length"]),
    ("html_test", html::TESTS),
];

/// The function that a rule calls.
/// # Errors
/// If there is none of this name, or it is known here, but not with these arguments.
pub fn find(call: &Call) -> Result<Function, String> {
    if let Some((_, known)) = ARGUMENTS.iter().find(|(name, _)| *name == call.name)
        && !call.arguments.first().is_some_and(|argument| known.contains(&argument.as_str()))
    {
        return Err(format!("the function {} is known here for {} only", call.name, known.join(", ")));
    }
    if call.name == "check_dkim_valid" && !call.arguments.is_empty() {
        return Err("the function check_dkim_valid is known here without domains only".to_owned());
    }
    if call.name == "check_freemail_header" && call.arguments.len() != 1 {
        return Err("the function check_freemail_header is known here without a pattern only".to_owned());
    }
    if call.name == "check_symbol" {
        return Ok(has_symbol);
    }
    let tables = [head::FUNCTIONS, html::FUNCTIONS, identity::FUNCTIONS, lists::FUNCTIONS, mime::FUNCTIONS];
    let known = tables.into_iter().flatten().find(|(name, _)| *name == call.name);
    known.map(|(_, function)| *function).ok_or_else(|| format!("the function {} is not known here", call.name))
}

/// True if another room, or the digests, found this symbol.
fn has_symbol(context: &Context<'_, '_, '_>, arguments: &[String]) -> bool {
    arguments.first().is_some_and(|name| context.texts.facts.symbols.iter().any(|symbol| symbol.name == *name))
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
