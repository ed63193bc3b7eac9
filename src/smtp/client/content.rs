//! What a message's bytes ask of a next hop, and the slices that DATA is made of. Pure. RFC 5321 §4.5.2, §2.3.8; RFC 3030.
//!
//! Invariant: the pieces of DATA hold no bare CR, no bare LF, no line above 998 bytes, and none that begins with a single dot;
//! content that needs no change is one slice of itself. BDAT carries long lines as they are. NUL is not repaired here: [`ContentNeeds`] tells, and the transaction refuses.

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
    /// A line longer than [`LINE_BYTES_MAX`].
    pub long_line: bool,
    /// A NUL byte.
    pub nul: bool,
    /// Only BINARYMIME takes it; the content alone does not tell, for its sender's word counts too.
    pub binary: bool,
}

/// Longest line of text in DATA, without CR LF (RFC 5321 §4.5.3.1.6).
pub const LINE_BYTES_MAX: usize = 998;

impl ContentNeeds {
    /// Reads the whole content once.
    pub fn of(content: &[u8]) -> Self {
        let eight_bit = !content.is_ascii();
        let header_end = memmem::find(content, b"\r\n\r\n").unwrap_or(content.len());
        let (bare, long_line) = scan_lines(content);
        ContentNeeds {
            eight_bit,
            utf8_header: eight_bit && !content[..header_end].is_ascii(),
            bare,
            long_line,
            nul: memchr(0, content).is_some(),
            binary: false,
        }
    }
}

/// Whether there is a bare CR or LF, and whether a line is too long.
fn scan_lines(content: &[u8]) -> (bool, bool) {
    let (mut start, mut bare, mut long) = (0, false, false);
    while let Some(found) = memchr2(b'\r', b'\n', &content[start..]) {
        let whole = content[start + found..].starts_with(b"\r\n");
        bare |= !whole;
        long |= found > LINE_BYTES_MAX;
        start += found + if whole { 2 } else { 1 };
    }
    (bare, long || content.len() - start > LINE_BYTES_MAX)
}

/// What must be written before the next piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// CR LF, in place of whatever ended the line.
    LineEnd,
    /// CR LF and a space, inside a line that is too long.
    Fold,
}

/// The pieces of one part of DATA that begins at the start of a line; CR LF is not added at its end.
#[derive(Clone, Debug)]
pub struct DataPieces<'a> {
    rest: &'a [u8],
    /// The bytes may hold bare CR or LF, or lines that are too long: the slow way, line by line.
    repair: bool,
    line_start: bool,
    /// Bytes that the line may still have, when repairing.
    room: usize,
    due: Due,
}

impl<'a> DataPieces<'a> {
    /// Pieces of `content`; `repair` if it has bare CR or LF or lines that are too long.
    pub fn new(content: &'a [u8], repair: bool) -> Self {
        DataPieces { rest: content, repair, line_start: true, room: LINE_BYTES_MAX, due: Due::Nothing }
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

    /// Up to the next line end, which is then written as CR LF whatever it was, or to the place where a line that is too long
    /// is broken, as Postfix breaks it (`smtp_line_length_limit`): by CR LF and a space.
    fn repaired_piece(&mut self) -> &'a [u8] {
        // Looking no further than the line may go keeps this linear in a content that is one line.
        let window = &self.rest[..self.rest.len().min(self.room + 1)];
        match memchr2(b'\r', b'\n', window) {
            Some(found) => {
                let piece = self.take(found);
                let end = if self.rest.starts_with(b"\r\n") { 2 } else { 1 };
                self.take(end);
                (self.due, self.room) = (Due::LineEnd, LINE_BYTES_MAX);
                piece
            }
            None if window.len() > self.room => {
                let at = char_start(window, self.room);
                (self.due, self.room) = (Due::Fold, LINE_BYTES_MAX - 1);
                self.take(at)
            }
            None => self.take(window.len()),
        }
    }
}

/// The last place up to `at` that is not inside a UTF-8 character.
fn char_start(bytes: &[u8], at: usize) -> usize {
    let is_start = |place: &usize| bytes[*place] & 0xc0 != 0x80;
    (at.saturating_sub(3)..=at).rev().find(is_start).unwrap_or(at)
}

impl<'a> Iterator for DataPieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        match std::mem::replace(&mut self.due, Due::Nothing) {
            Due::Nothing => {}
            Due::LineEnd => {
                self.line_start = true;
                return Some(b"\r\n");
            }
            Due::Fold => return Some(b"\r\n "),
        }
        if self.rest.is_empty() {
            return None;
        }
        if std::mem::take(&mut self.line_start) && self.rest[0] == b'.' {
            self.room -= 1;
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
        let needs = ContentNeeds::of(content);
        let repair = needs.bare || needs.long_line;
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
    fn long_lines_are_broken_by_crlf_space_between_characters() {
        assert!(!ContentNeeds::of(&[vec![b'x'; 998], b"\r\n".to_vec()].concat()).long_line);
        assert!(ContentNeeds::of(&vec![b'x'; 999]).long_line);
        let line = [vec![b'.'; 1], vec![b'x'; 995], "ü".repeat(1500).into_bytes(), b"\r\n.y\r\n".to_vec()].concat();
        let sent = data(&line);
        for line in sent.split(|byte| *byte == b'\n') {
            assert!(line.len() <= LINE_BYTES_MAX + 1 && std::str::from_utf8(line).is_ok());
        }
        assert!(sent.starts_with(b"..xx") && sent.ends_with(b"\r\n..y\r\n.\r\n"));
        let unfolded = String::from_utf8(sent).unwrap().replace("\r\n ", "");
        assert_eq!(unfolded.matches('ü').count(), 1500);
    }

    #[test]
    fn needs_are_seen() {
        let needs = ContentNeeds::of("Subject: ä\r\n\r\nx\0y\n".as_bytes());
        assert_eq!(
            needs,
            ContentNeeds { eight_bit: true, utf8_header: true, bare: true, nul: true, ..Default::default() }
        );
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
            prop_assert!(!scan_lines(&sent).0);
            let end = memmem::find(&sent, b"\r\n.\r\n").map_or(sent.len(), |at| at + 5);
            prop_assert_eq!(end, sent.len());
            prop_assert!(sent == b".\r\n" || !sent.starts_with(b".\r\n"));
        }
    }
}
