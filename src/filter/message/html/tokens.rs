//! A page taken apart into tags, attributes, texts and comments for [`Reader`]. Pure. WHATWG HTML §13.2.5, by html5gum.

use std::cell::Cell;
use std::convert::Infallible;

use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Emitter, ForwardingEmitter, Readable, Span, StringReader, Tokenizer};

use super::{Page, Reader};

/// Stack that the tokenizer takes for one attribute. It calls itself for each quoted one of a tag, and only an optimised build
/// makes the frames small.
const STACK_BYTES_PER_ATTRIBUTE: usize = if cfg!(debug_assertions) { 16 << 10 } else { 2 << 10 };
/// Attributes of one tag up to which a page is read on the caller's stack: half of a pool's thread.
const ATTRIBUTES_ON_STACK_MAX: usize = (1 << 20) / STACK_BYTES_PER_ATTRIBUTE;
/// Attributes of one tag beyond which a page is not read; no honest one has a hundred.
const ATTRIBUTES_MAX: usize = 16 << 10;

/// Reads one page.
///
/// One that has a tag of many attributes is read on a thread whose stack is made for them: a page must not end the process.
pub fn read(html: &str) -> Page {
    let (page, whole) = tokenize(html, ATTRIBUTES_ON_STACK_MAX);
    if whole {
        return page;
    }
    let stack_bytes = STACK_BYTES_PER_ATTRIBUTE * (ATTRIBUTES_MAX + ATTRIBUTES_ON_STACK_MAX);
    std::thread::scope(|scope| {
        let deep = std::thread::Builder::new().stack_size(stack_bytes);
        let thread = deep.spawn_scoped(scope, || tokenize(html, ATTRIBUTES_MAX).0);
        // Without memory for the stack there is no more of the page.
        thread.ok().and_then(|thread| thread.join().ok()).unwrap_or(page)
    })
}

/// Reads a page up to a tag with more attributes than that; false if there is one.
fn tokenize(html: &str, attributes_max: usize) -> (Page, bool) {
    let mut reader = Reader::default();
    reader.page.text.reserve(html.len() / 4);
    reader.page.source_bytes = html.len();
    let is_full = Cell::new(false);
    let source = Source { html: html.to_reader(), is_full: &is_full };
    let mut emitter = CallbackEmitter::new(|event: CallbackEvent<'_>, _: Span<()>| -> Option<Infallible> {
        reader.event(&event);
        None
    });
    emitter.naively_switch_states(true);
    let watch = Watch { emitter, attributes: 0, attributes_max, is_full: &is_full };
    let Ok(()) = Tokenizer::new_with_emitter(source, watch).finish();
    (reader.done(), !is_full.get())
}

/// A page that ends where a tag has too many attributes.
struct Source<'t> {
    html: StringReader<'t>,
    is_full: &'t Cell<bool>,
}

impl html5gum::Reader for Source<'_> {
    type Error = Infallible;

    #[inline(always)]
    fn read_byte(&mut self) -> Result<Option<u8>, Infallible> {
        self.html.read_byte()
    }

    #[inline(always)]
    fn try_read_string(&mut self, text: &[u8], case_sensitive: bool) -> Result<bool, Infallible> {
        self.html.try_read_string(text, case_sensitive)
    }

    /// Each attribute with a value comes here.
    #[inline(always)]
    fn read_until<'b>(&'b mut self, ends: &[u8], buffer: &'b mut [u8; 4]) -> Result<Option<&'b [u8]>, Infallible> {
        if self.is_full.get() { Ok(None) } else { self.html.read_until(ends, buffer) }
    }
}

/// An emitter that counts the attributes of a tag, and whose tokenizer does not look for errors, which costs it a look at each byte.
struct Watch<'t, E> {
    emitter: E,
    attributes: usize,
    attributes_max: usize,
    is_full: &'t Cell<bool>,
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
        self.attributes = 0;
        self.emitter.init_start_tag();
    }

    fn init_end_tag(&mut self) {
        self.attributes = 0;
        self.emitter.init_end_tag();
    }

    fn init_attribute(&mut self) {
        self.attributes += 1;
        if self.attributes > self.attributes_max {
            self.is_full.set(true);
        }
        self.emitter.init_attribute();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_without_end_do_not_end_the_process() {
        // Each quoted attribute was a call within a call, and some ten thousand of them overflowed the stack.
        for attribute in ["b=\"c\" ", "b=\"\"", "b='c' d=\">\"", "b"] {
            let page = read(&format!("<p>seen</p><a {}>", attribute.repeat(20_000)));
            assert!(page.text.contains("seen"), "{:?}", page.text);
        }
        // One with fewer, but too many for the caller's stack, hides nothing of what follows.
        let page = read(&format!("<a {}>seen", "b=\"c\" ".repeat(ATTRIBUTES_ON_STACK_MAX + 10)));
        assert_eq!((page.text.as_str(), page.tags), ("seen", 1));
    }
}
