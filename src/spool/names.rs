//! Texts that many entries share, kept once and counted. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::slab::Slab;

/// Stands for the empty text.
pub(super) const NO_NAME: u32 = u32::MAX;

/// The texts; a number stays valid until it was dropped as often as taken.
#[derive(Default)]
pub(super) struct Names {
    numbers: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
    texts: Slab<(Arc<str>, u32)>,
}

impl Names {
    pub(super) fn take(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return NO_NAME;
        }
        if let Some(number) = self.numbers.get(text) {
            self.texts.get_mut(*number).expect("numbers and texts go together").1 += 1;
            return *number;
        }
        let text: Arc<str> = text.into();
        let number = self.texts.insert((text.clone(), 1));
        self.numbers.insert(text, number);
        number
    }

    /// As [`Names::take`], but refuses new texts (with [`NO_NAME`]) once `most` are known.
    pub(super) fn take_bounded(&mut self, text: &str, most: usize) -> u32 {
        match self.texts.len() >= most && !self.numbers.contains_key(text) {
            true => NO_NAME,
            false => self.take(text),
        }
    }

    pub(super) fn drop(&mut self, number: u32) {
        let Some(entry) = self.texts.get_mut(number) else { return };
        entry.1 -= 1;
        if entry.1 == 0 {
            let (text, _) = self.texts.remove(number).expect("it was there a line ago");
            self.numbers.remove(&text);
        }
    }

    pub(super) fn text(&self, number: u32) -> &str {
        self.texts.get(number).map_or("", |entry| &entry.0)
    }
}
