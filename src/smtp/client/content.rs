//! What a message's bytes ask of a next hop, and the slices that DATA is made of. Pure. RFC 5321 §4.5.2, §2.3.8; RFC 3030.
//!
//! Invariant: the pieces of DATA hold no bare CR, no bare LF, and no line that begins with a single dot; content that
//! needs no change is one slice of itself. NUL is not repaired here: [`ContentNeeds`] tells, and the transaction refuses.

use memchr::{memchr, memchr2, memmem};

/// Facts of a content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentNeeds {
    /// Bytes above 127.
    pub eight_bit: bool,
    /// Bytes above 127 in the header section: a message of RFC 6532.
    pub utf8_header: bool,
    /// A CR or LF without the other.
    pub bare: bool,
    /// A NUL byte.
    pub nul: bool,
}

impl ContentNeeds {
    /// Reads the whole content once.
    pub fn of(content: &[u8]) -> Self {
        let eight_bit = !content.is_ascii();
        let header_end = memmem::find(content, b"\r\n\r\n").unwrap_or(content.len());
        ContentNeeds {
            eight_bit,
            utf8_header: eight_bit && !content[..header_end].is_ascii(),
            bare: has_bare(content),
            nul: memchr(0, content).is_some(),
        }
    }
}

fn has_bare(content: &[u8]) -> bool {
    let mut at = 0;
    while let Some(found) = memchr2(b'\r', b'\n', &content[at..]) {
        match &content[at + found..] {
            [b'\r', b'\n', ..] => at += found + 2,
            _ => return true,
        }
    }
    false
}

/// The pieces of one part of DATA that begins at the start of a line; CR LF is not added at its end.
#[derive(Clone, Debug)]
pub struct DataPieces<'a> {
    rest: &'a [u8],
    /// The bytes may hold bare CR or LF: the slow way, line by line.
    repair: bool,
    line_start: bool,
    line_end_due: bool,
}

impl<'a> DataPieces<'a> {
    /// Pieces of `content`; `repair` if it has bare CR or LF.
    pub fn new(content: &'a [u8], repair: bool) -> Self {
        DataPieces { rest: content, repair, line_start: true, line_end_due: false }
    }

    fn take(&mut self, bytes: usize) -> &'a [u8] {
        let (piece, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        piece
    }

    /// Up to and with the CR LF before the next line that begins with a dot.
    fn clean_piece(&mut self) -> &'a [u8] {
        match memmem::find(self.rest, b"\r\n.") {
            Some(found) => {
                self.line_start = true;
                self.take(found + 2)
            }
            None => self.take(self.rest.len()),
        }
    }

    /// Up to the next line end, which is then written as CR LF whatever it was.
    fn repaired_piece(&mut self) -> &'a [u8] {
        let Some(found) = memchr2(b'\r', b'\n', self.rest) else {
            return self.take(self.rest.len());
        };
        let piece = self.take(found);
        let end = if self.rest.starts_with(b"\r\n") { 2 } else { 1 };
        self.take(end);
        self.line_end_due = true;
        piece
    }
}

impl<'a> Iterator for DataPieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.line_end_due {
            self.line_end_due = false;
            self.line_start = true;
            return Some(b"\r\n");
        }
        if self.rest.is_empty() {
            return None;
        }
        if std::mem::take(&mut self.line_start) && self.rest[0] == b'.' {
            return Some(b".");
        }
        Some(if self.repair { self.repaired_piece() } else { self.clean_piece() })
    }
}

/// What ends DATA after `content`: the final dot, with the CR LF that the content may lack.
pub fn data_end(content: &[u8], repair: bool) -> &'static [u8] {
    let complete =
        content.is_empty() || content.ends_with(b"\r\n") || (repair && matches!(content.last(), Some(b'\r' | b'\n')));
    if complete { b".\r\n" } else { b"\r\n.\r\n" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn data(content: &[u8]) -> Vec<u8> {
        let repair = ContentNeeds::of(content).bare;
        let mut out: Vec<u8> = DataPieces::new(content, repair).flatten().copied().collect();
        out.extend_from_slice(data_end(content, repair));
        out
    }

    #[test]
    fn dots_are_stuffed_and_line_ends_made_whole() {
        let table: &[(&[u8], &[u8])] = &[
            (b"", b".\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.b\r\n..c\r\n", b"a\r\n..b\r\n...c\r\n.\r\n"),
            (b"a\n.b\n", b"a\r\n..b\r\n.\r\n"),
            (b"a\r.\r\r\n", b"a\r\n..\r\n\r\n.\r\n"),
            (b"a\n.\r\nMAIL FROM:<x@y>\r\n", b"a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n"),
        ];
        for (content, expected) in table {
            assert_eq!(data(content).escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }

    #[test]
    fn clean_content_is_one_slice() {
        let content = b"Subject: x\r\n\r\nhello.\r\nyou\r\n";
        assert_eq!(DataPieces::new(content, false).count(), 1);
    }

    #[test]
    fn needs_are_seen() {
        let needs = ContentNeeds::of("Subject: ä\r\n\r\nx\0y\n".as_bytes());
        assert_eq!(needs, ContentNeeds { eight_bit: true, utf8_header: true, bare: true, nul: true });
        assert_eq!(
            ContentNeeds::of("Subject: a\r\n\r\nä\r\n".as_bytes()),
            ContentNeeds { eight_bit: true, ..Default::default() }
        );
    }

    proptest! {
        #[test]
        fn data_never_holds_bare_line_ends_or_an_early_dot(content in proptest::collection::vec(
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'a')], 0..60)) {
            let sent = data(&content);
            prop_assert!(!has_bare(&sent));
            let end = memmem::find(&sent, b"\r\n.\r\n").map_or(sent.len(), |at| at + 5);
            prop_assert_eq!(end, sent.len());
            prop_assert!(sent == b".\r\n" || !sent.starts_with(b".\r\n"));
        }
    }
}
