//! A page taken apart into tags, attributes, texts and comments for [`Reader`]. Pure. WHATWG HTML §13.2.5, by html5gum.

use std::cell::Cell;
use std::convert::Infallible;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Emitter, ForwardingEmitter, Readable, Span, StringReader, Tokenizer};

use super::{Page, Reader};

/// Quoted attributes of one tag that are read without a break. The tokenizer calls itself for each, with frames of up to 16 KiB where
/// nothing is optimised, and ends all calls at a character reference; only hostile tags have as many.
const ATTRIBUTES_AT_ONCE: u32 = 32;

/// Reads one page.
pub fn read(html: &str) -> Page {
    let mut reader = Reader::default();
    reader.page.text.reserve(html.len() / 4);
    reader.page.source_bytes = html.len();
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<Infallible> {
        reader.event(&event);
        None
    });
    emitter.naively_switch_states(true);
    let depth = Depth::default();
    let source = Source { html: html.to_reader(), quote: false, depth: &depth };
    let Ok(()) = Tokenizer::new_with_emitter(source, Watch { emitter, depth: &depth }).finish();
    reader.done()
}

/// How deep the tokenizer may be.
#[derive(Default)]
struct Depth {
    /// Attributes of the tag since it began, or since the last break.
    attributes: Cell<u32>,
    /// An ampersand was slipped in that is not the page's, and has not come out yet.
    slipped: Cell<bool>,
}

/// A page with breaks: behind the value of an attribute that is one too many stands an ampersand that makes the tokenizer leave all its
/// calls. It comes out as a piece of the value, and is taken away there.
struct Source<'t> {
    html: StringReader<'t>,
    /// A quote character that was read already comes next.
    quote: bool,
    depth: &'t Depth,
}

impl html5gum::Reader for Source<'_> {
    type Error = Infallible;

    #[inline(always)]
    fn read_byte(&mut self) -> Result<Option<u8>, Infallible> {
        if self.quote {
            self.quote = false;
            return Ok(Some(b'"'));
        }
        self.html.read_byte()
    }

    #[inline(always)]
    fn try_read_string(&mut self, text: &[u8], case_sensitive: bool) -> Result<bool, Infallible> {
        debug_assert!(!self.quote, "behind an ampersand a byte is read");
        self.html.try_read_string(text, case_sensitive)
    }

    #[inline(always)]
    fn read_until<'b>(&'b mut self, ends: &[u8], buffer: &'b mut [u8; 4]) -> Result<Option<&'b [u8]>, Infallible> {
        debug_assert!(!self.quote, "behind an ampersand a byte is read");
        let found = self.html.read_until(ends, buffer)?;
        // Only a quoted value ends at the one and can be broken at the other.
        let is_value = || ends.contains(&b'"') && ends.contains(&b'&');
        if found == Some(b"\"") && self.depth.attributes.get() >= ATTRIBUTES_AT_ONCE && is_value() {
            self.quote = true;
            self.depth.attributes.set(0);
            self.depth.slipped.set(true);
            return Ok(Some(b"&"));
        }
        Ok(found)
    }
}

/// An emitter that counts attributes, and whose tokenizer does not look for errors, which costs it a look at each byte.
struct Watch<'t, E> {
    emitter: E,
    depth: &'t Depth,
}

impl<E: Emitter> ForwardingEmitter for Watch<'_, E> {
    type Token = E::Token;

    #[inline]
    fn inner(&mut self) -> &mut impl Emitter<Token = E::Token> {
        &mut self.emitter
    }

    #[inline]
    fn should_emit_errors(&mut self) -> bool {
        false
    }

    fn init_start_tag(&mut self) {
        self.depth.attributes.set(0);
        self.emitter.init_start_tag();
    }

    fn init_end_tag(&mut self) {
        self.depth.attributes.set(0);
        self.emitter.init_end_tag();
    }

    fn init_attribute(&mut self) {
        self.depth.attributes.update(|attributes| attributes + 1);
        self.emitter.init_attribute();
    }

    fn push_attribute_value(&mut self, value: &[u8]) {
        if !self.depth.slipped.take() {
            self.emitter.push_attribute_value(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_without_end_do_not_end_the_process() {
        // Each quoted attribute was a call within a call, and some ten thousand of them overflowed the stack.
        for attribute in ["b=\"c\" ", "b=\"\"", "b='c' d=\">\"", "b=\"&amp;\"", "b"] {
            let page = read(&format!("<p>seen</p><a {}>too", attribute.repeat(60_000)));
            assert_eq!(page.text, "seen\n\ntoo", "{attribute}");
        }
    }

    #[test]
    fn many_attributes_change_no_value() {
        for (number, value) in
            (0..200).zip(["http://a.example/", "", "x&amp;y", "&", "a&", "&lt", "'"].into_iter().cycle())
        {
            let plain = read(&format!("<a href=\"{value}\">b</a>"));
            let (before, behind) = ("c=\"d\" ".repeat(number), "e=\"f\"".repeat(99));
            let deep = read(&format!("<a {before}href=\"{value}\" {behind}>b</a>\"<b>\"&</b>"));
            assert_eq!((deep.links, deep.text.as_str()), (plain.links, "b\"\"&"), "{number}");
        }
    }
}
