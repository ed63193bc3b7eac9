//! Functions of SpamAssassin's standard plugins that need no network. Pure.
//!
//! A function that is not here makes its rule a problem at load, never a silent miss.

mod head;
mod html;
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

/// The function that a rule calls.
/// # Errors
/// If there is none of this name.
pub fn find(call: &Call) -> Result<Function, String> {
    let tables = [head::FUNCTIONS, html::FUNCTIONS, lists::FUNCTIONS, mime::FUNCTIONS];
    let known = tables.into_iter().flatten().find(|(name, _)| *name == call.name);
    known.map(|(_, function)| *function).ok_or_else(|| format!("the function {} is not known here", call.name))
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
