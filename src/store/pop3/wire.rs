//! A stored message in the form of a multi-line response (RFC 1939 §3): CR LF line ends, dots stuffed. Pure.
//!
//! Works on pieces cut anywhere and copies in blocks: what needs no change between two line ends goes in one copy.

/// Stuffs dots and completes line ends.
#[derive(Debug)]
pub struct DotStuffer {
    last: u8,
    at_line_start: bool,
}

impl Default for DotStuffer {
    fn default() -> Self {
        DotStuffer { last: 0, at_line_start: true }
    }
}

impl DotStuffer {
    /// Appends `piece`, made fit for the wire, to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(end) = piece.last() else { return };
        out.reserve(piece.len() + 64);
        if self.at_line_start && piece[0] == b'.' {
            out.push(b'.');
        }
        let mut copied = 0;
        for at in memchr::memchr_iter(b'\n', piece) {
            let before = if at == 0 { self.last } else { piece[at - 1] };
            if before != b'\r' {
                out.extend_from_slice(&piece[copied..at]);
                out.push(b'\r');
                copied = at;
            }
            if piece.get(at + 1) == Some(&b'.') {
                out.extend_from_slice(&piece[copied..=at]);
                out.push(b'.');
                copied = at + 1;
            }
        }
        out.extend_from_slice(&piece[copied..]);
        self.last = *end;
        self.at_line_start = *end == b'\n';
    }

    /// Ends the last line if the message did not, and the response.
    pub fn finish(self, out: &mut Vec<u8>) {
        if !self.at_line_start {
            out.extend_from_slice(if self.last == b'\r' { b"\n" } else { b"\r\n" });
        }
        out.extend_from_slice(b".\r\n");
    }
}

/// Ends a message after its header, the empty line and so many lines of the body (TOP).
#[derive(Debug)]
pub struct TopLimit {
    in_body: bool,
    line_blank: bool,
    lines_left: u32,
}

impl TopLimit {
    /// The header and `lines` lines.
    pub fn new(lines: u32) -> Self {
        TopLimit { in_body: false, line_blank: true, lines_left: lines }
    }

    /// How many bytes of `piece` are wanted, and whether that is the end.
    pub fn take(&mut self, piece: &[u8]) -> (usize, bool) {
        let mut start = 0;
        for at in memchr::memchr_iter(b'\n', piece) {
            let blank = self.line_blank && matches!(&piece[start..at], b"" | b"\r");
            start = at + 1;
            self.line_blank = true;
            if self.in_body {
                self.lines_left -= 1;
            }
            self.in_body |= blank;
            if self.in_body && self.lines_left == 0 {
                return (start, true);
            }
        }
        self.line_blank &= matches!(&piece[start..], b"" | b"\r");
        (piece.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut stuffer = DotStuffer::default();
        let mut out = Vec::new();
        for piece in pieces {
            stuffer.push(piece, &mut out);
        }
        stuffer.finish(&mut out);
        out
    }

    #[test]
    fn lines_get_their_ends_and_dots() {
        for (text, wanted) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\n.b\n..c", b"a\r\n..b\r\n...c\r\n.\r\n"),
            (b"a\rb\r", b"a\rb\r\n.\r\n"),
            (b"\n\n", b"\r\n\r\n.\r\n"),
        ] {
            assert_eq!(stuffed(&[text]), wanted);
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(stuffed(&bytes), wanted, "cut at every byte");
        }
    }

    #[test]
    fn top_ends_after_its_lines_however_cut() {
        let text = b"A: b\r\nC: d\n\r\none\r\n\r\nthree\r\n";
        for (lines, wanted) in [(0, 13), (1, 18), (2, 20), (3, text.len()), (9, text.len())] {
            for size in 1..=text.len() {
                let mut limit = TopLimit::new(lines);
                let mut taken = 0;
                for piece in text.chunks(size) {
                    let (bytes, end) = limit.take(piece);
                    taken += bytes;
                    if end {
                        break;
                    }
                }
                assert_eq!(taken, wanted, "{lines} lines, pieces of {size}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_client_reads_back_what_was_stored(
            text in proptest::collection::vec(prop_oneof![Just(b'.'), Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200),
            cut in 1usize..50,
        ) {
            let pieces: Vec<&[u8]> = text.chunks(cut).collect();
            let wire = stuffed(&pieces);
            prop_assert_eq!(&wire, &stuffed(&[&text]));
            prop_assert!(wire.ends_with(b".\r\n"));
            let body = &wire[..wire.len() - 3];
            prop_assert!(!body.windows(5).any(|w| w == b"\r\n.\r\n") && !body.starts_with(b".\r\n"));
            prop_assert_eq!(crate::store::mailbox::bare_line_feeds(&wire), 0);
        }
    }
}
