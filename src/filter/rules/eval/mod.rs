//! Functions of SpamAssassin's standard plugins that need no network. Pure.
//!
//! A function that is not here makes its rule a problem at load, never a silent miss.

use std::collections::{HashMap, HashSet};

use super::definition::Call;
use super::texts::Texts;

/// What a function sees.
pub struct Context<'c, 'v, 'x> {
    /// The message.
    pub texts: &'c Texts<'v, 'x>,
    /// The lists of the rule files.
    pub lists: &'c Lists,
}

/// A function: its arguments are those of the rule.
pub type Function = fn(&Context<'_, '_, '_>, &[String]) -> bool;

/// Words of list settings.
#[derive(Default)]
pub struct Lists {
    words: HashMap<String, HashSet<String>>,
}

impl Lists {
    /// Lists by the name of their setting.
    pub fn new(lists: &HashMap<String, Vec<String>>) -> Self {
        Lists { words: lists.iter().map(|(name, words)| (name.clone(), words.iter().cloned().collect())).collect() }
    }

    /// True if `word`, in lower case, is in the list.
    pub fn has(&self, list: &str, word: &str) -> bool {
        self.words.get(list).is_some_and(|words| words.contains(word))
    }
}

const TABLES: [&[(&str, Function)]; 0] = [];

/// The function that a rule calls.
/// # Errors
/// If there is none of this name.
pub fn find(call: &Call) -> Result<Function, String> {
    let known = TABLES.iter().flat_map(|table| table.iter()).find(|(name, _)| *name == call.name);
    known.map(|(_, function)| *function).ok_or_else(|| format!("the function {} is not known here", call.name))
}
