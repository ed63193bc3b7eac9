//! A message as the signers and verifiers of RFC 6376 see it: raw header fields and a body. Pure. RFC 5322 §2.2.
//!
//! Nothing is decoded or repaired: a field is the bytes from its name to its last line's end, because that is what was
//! signed. Lines that are no field (no colon, a name with blanks inside) are kept apart and never match a name.

use std::ops::Range;
use std::sync::Arc;

use memchr::memchr;

use crate::base::content::Content;

/// Fields that are indexed; more than this stay unread and the message is called overlong. Postfix takes 1,000 lines of MIME headers.
pub const FIELDS_MAX: usize = 20_000;

/// Where one header field lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    whole: Range<usize>,
    name_end: usize,
    colon: usize,
}

impl Field {
    /// From its name to the end of its last line, CR LF included.
    pub fn range(&self) -> Range<usize> {
        self.whole.clone()
    }
}

/// Content, split once; a clone shares all of it.
#[derive(Clone, Debug)]
pub struct Message {
    content: Content,
    fields: Arc<[Field]>,
    body: usize,
    overlong: bool,
}

impl Message {
    /// Splits `content` into fields and body.
    pub fn parse(content: Content) -> Self {
        let (mut fields, mut position, mut overlong) = (Vec::new(), 0, false);
        let mut body = content.len();
        while position < content.len() {
            let end = line_end(&content, position);
            if is_blank(&content[position..end]) {
                body = end;
                break;
            }
            let end = field_end(&content, end);
            match field(&content, position..end) {
                Some(_) if fields.len() == FIELDS_MAX => overlong = true,
                Some(field) => fields.push(field),
                None => {}
            }
            position = end;
        }
        Message { content, fields: fields.into(), body, overlong }
    }

    /// All fields, first one on top.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// More than [`FIELDS_MAX`] fields: the rest was not indexed.
    pub fn is_overlong(&self) -> bool {
        self.overlong
    }

    /// Fields of this name, first one on top.
    pub fn named<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a Field> {
        self.fields.iter().filter(move |field| self.name(field).eq_ignore_ascii_case(name.as_bytes()))
    }

    /// A field's name.
    pub fn name(&self, field: &Field) -> &[u8] {
        &self.content[field.whole.start..field.name_end]
    }

    /// What stands behind the colon, last line's end included.
    pub fn value(&self, field: &Field) -> &[u8] {
        &self.content[field.colon + 1..field.whole.end]
    }

    /// The value as text; bytes that are no UTF-8 are replaced.
    pub fn text(&self, field: &Field) -> String {
        String::from_utf8_lossy(self.value(field)).into_owned()
    }

    /// The whole field.
    pub fn raw(&self, field: &Field) -> &[u8] {
        &self.content[field.range()]
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.content[self.body..]
    }

    /// All of it.
    pub fn content(&self) -> &Content {
        &self.content
    }
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |at| from + at + 1)
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"\r\n" | b"\n")
}

/// End of the field whose first line ends at `end`: continuation lines begin with a blank (RFC 5322 §2.2.3).
fn field_end(bytes: &[u8], mut end: usize) -> usize {
    while matches!(bytes.get(end), Some(b' ' | b'\t')) {
        end = line_end(bytes, end);
    }
    end
}

fn field(bytes: &[u8], whole: Range<usize>) -> Option<Field> {
    let colon = whole.start + memchr(b':', &bytes[whole.clone()])?;
    // Blanks before the colon are obsolete syntax that must be understood (RFC 5322 §4.5).
    let name = bytes[whole.start..colon].trim_ascii_end();
    let printable = |b: &u8| (33..=126).contains(b);
    if name.is_empty() || !name.iter().all(printable) {
        return None;
    }
    let name_end = whole.start + name.len();
    Some(Field { whole, name_end, colon })
}

/// Text without its folds and with runs of blanks as one space: how a value is read, not how it is signed.
pub fn unfold(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Message {
        Message::parse(Content::from_bytes(text.as_bytes()))
    }

    #[test]
    fn fields_keep_their_folds_and_obsolete_blanks() {
        let message = parse("From : a\r\n b\r\nnonsense\r\nTo:x\r\n\r\nbody\r\n");
        let names: Vec<_> = message.fields().iter().map(|f| message.name(f).to_vec()).collect();
        assert_eq!(names, [b"From".to_vec(), b"To".to_vec()]);
        assert_eq!(message.raw(&message.fields()[0]), b"From : a\r\n b\r\n");
        assert_eq!(message.body(), b"body\r\n");
    }

    #[test]
    fn a_message_may_be_only_header_or_only_body() {
        assert_eq!(parse("A: b").body(), b"");
        assert_eq!(parse("\r\nx").body(), b"x");
        assert!(parse("").fields().is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_split_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let message = Message::parse(Content::from_bytes(bytes));
            for field in message.fields() {
                prop_assert!(!message.raw(field).is_empty());
            }
        }
    }
}
