//! The content of DATA: dots unstuffed, its end found, bare CR, bare LF and NUL noticed. Pure. RFC 5321 §4.5.2.
//!
//! Invariant: CR LF . CR LF, and nothing else, ends the content, wherever the bytes are cut (RFC 5321 §4.1.1.4; every
//! more lenient reading lets a sender smuggle a second message). Bytes pass in blocks from dot to dot, each block
//! looked at once by a loop without branches; the few bytes around a dot go one by one.

use std::sync::LazyLock;

use memchr::{memchr2, memmem};

/// Finds where a dot begins a line; built once, because building it costs more than searching a short line.
static LINE_FEED_DOT: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\n."));

/// What content holds that not every next hop takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentFacts {
    /// A CR without LF, or an LF without CR.
    pub bare: bool,
    /// A NUL.
    pub nul: bool,
    /// A byte above 127.
    pub eight_bit: bool,
}

/// Gathers [`ContentFacts`] over blocks of content.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContentScan {
    facts: ContentFacts,
    /// The byte before the next block is a CR.
    after_cr: bool,
}

impl ContentScan {
    /// Looks at the next block.
    pub fn block(&mut self, block: &[u8]) {
        let (Some(first), Some(last)) = (block.first(), block.last()) else { return };
        let mut bare = self.after_cr != (*first == b'\n');
        let mut nul = *first == 0;
        let mut bits = *first;
        // One pass with nothing but bitwise operations, which the compiler turns into vector instructions.
        for (before, byte) in block.iter().zip(&block[1..]) {
            bare |= (*before == b'\r') != (*byte == b'\n');
            nul |= *byte == 0;
            bits |= *byte;
        }
        self.after_cr = *last == b'\r';
        self.facts.bare |= bare;
        self.facts.nul |= nul;
        self.facts.eight_bit |= bits & 0x80 != 0;
    }

    /// What was seen; call at the end of the content.
    pub fn finish(mut self) -> ContentFacts {
        self.facts.bare |= self.after_cr;
        self.facts
    }
}

/// What stands before the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Some text, or a CR.
    Text,
    /// CR LF, or the start.
    Line,
    /// A bare LF.
    BareLine,
    /// A dot at the start of a line, held back.
    Dot,
    /// A dot behind a bare LF, held back.
    BareDot,
    /// A dot at the start of a line, and CR, both held back.
    DotCr,
}

/// Where the decoded content goes.
pub trait Sink {
    /// Takes the next bytes.
    fn take(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn take(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// How far [`DotDecoder::decode`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of input used.
    pub used: usize,
    /// The end of the content was among them.
    pub ended: bool,
}

/// Decodes the content of one DATA command.
#[derive(Debug)]
pub struct DotDecoder {
    place: Place,
    after_cr: bool,
    scan: ContentScan,
    normalize: bool,
}

impl DotDecoder {
    /// A decoder; with `normalize`, each bare CR or LF comes out as CR LF.
    pub fn new(normalize: bool) -> Self {
        // DATA's own CR LF stands before the first byte: a dot there is a dot at the start of a line.
        DotDecoder { place: Place::Line, after_cr: false, scan: ContentScan::default(), normalize }
    }

    /// What the content holds, as it came in; call at its end.
    pub fn facts(&self) -> ContentFacts {
        self.scan.finish()
    }

    /// Takes input up to the end of the content.
    pub fn decode(&mut self, input: &[u8], sink: &mut impl Sink) -> Decoded {
        let mut used = 0;
        while let Some(&byte) = input.get(used) {
            match (self.place, byte) {
                (Place::Line, b'.') => self.place = Place::Dot,
                (Place::BareLine, b'.') => self.place = Place::BareDot,
                (Place::Dot, b'\r') => self.place = Place::DotCr,
                (Place::DotCr, b'\n') => return Decoded { used: used + 1, ended: true },
                (Place::Text | Place::Line | Place::BareLine, _) => {
                    used += self.text(&input[used..], sink);
                    continue;
                }
                (Place::Dot | Place::BareDot | Place::DotCr, _) => {
                    self.release_dot(byte, sink);
                    continue;
                }
            }
            used += 1;
        }
        Decoded { used, ended: false }
    }

    /// Passes text on up to and with the next LF that has a dot behind it, or all of it.
    fn text(&mut self, input: &[u8], sink: &mut impl Sink) -> usize {
        let len = LINE_FEED_DOT.find(input).map_or(input.len(), |lf| lf + 1);
        self.emit(&input[..len], sink);
        len
    }

    /// The dot did not end the content. It was a stuffed one unless a bare CR or LF follows, which stays visible.
    fn release_dot(&mut self, next: u8, sink: &mut impl Sink) {
        let place = std::mem::replace(&mut self.place, Place::Text);
        if place == Place::DotCr {
            self.emit(b".\r", sink);
        } else if matches!(next, b'\r' | b'\n') {
            self.emit(b".", sink);
        }
    }

    fn emit(&mut self, block: &[u8], sink: &mut impl Sink) {
        self.scan.block(block);
        let after_cr = std::mem::replace(&mut self.after_cr, block.ends_with(b"\r"));
        self.place = match block {
            [.., b'\r', b'\n'] => Place::Line,
            [b'\n'] if after_cr => Place::Line,
            [.., b'\n'] => Place::BareLine,
            _ => Place::Text,
        };
        if self.normalize && (self.scan.facts.bare || after_cr || self.after_cr) {
            emit_normalized(block, after_cr, sink);
        } else {
            sink.take(block);
        }
    }
}

/// Writes CR LF for each CR LF, CR or LF. A CR is written as CR LF at once, and an LF behind it, here or in the next block, not at all.
fn emit_normalized(block: &[u8], after_cr: bool, sink: &mut impl Sink) {
    let mut rest = if after_cr { block.strip_prefix(b"\n").unwrap_or(block) } else { block };
    while let Some(end) = memchr2(b'\r', b'\n', rest) {
        sink.take(&rest[..end]);
        sink.take(b"\r\n");
        let behind = &rest[end + 1..];
        rest = if rest[end] == b'\r' { behind.strip_prefix(b"\n").unwrap_or(behind) } else { behind };
    }
    sink.take(rest);
}

/// Bytes of the longest line, its line end included; what RFC 5321 §4.5.3.1.6 limits to 1,000.
pub fn longest_line(content: &[u8]) -> usize {
    let mut start = 0;
    let mut longest = 0;
    for lf in memchr::memchr_iter(b'\n', content) {
        longest = longest.max(lf + 1 - start);
        start = lf + 1;
    }
    longest.max(content.len() - start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything decoded, bytes used, and the facts, with the input cut into `pieces` bytes.
    fn decode(input: &[u8], piece: usize, normalize: bool) -> (Vec<u8>, Option<usize>, ContentFacts) {
        let mut decoder = DotDecoder::new(normalize);
        let mut out = Vec::new();
        let mut used = 0;
        for part in input.chunks(piece) {
            let step = decoder.decode(part, &mut out);
            used += step.used;
            if step.ended {
                return (out, Some(used), decoder.facts());
            }
            assert_eq!(step.used, part.len());
        }
        (out, None, decoder.facts())
    }

    #[test]
    fn dots_are_unstuffed_wherever_the_input_is_cut() {
        let input = b"..a\r\n.b\r\n..\r\n...\r\nc.\r\n.\r\nQUIT\r\n";
        for piece in 1..=input.len() {
            let (out, end, facts) = decode(input, piece, false);
            assert_eq!(out, b".a\r\nb\r\n.\r\n..\r\nc.\r\n");
            assert_eq!(end, Some(input.len() - 6));
            assert_eq!(facts, ContentFacts::default());
        }
        assert_eq!(decode(b".\r\n", 1, false).0, b"");
    }

    /// The ways in which one or another server was led to end DATA early (CVE-2023-51764, -51765, -51766 and kin).
    const SMUGGLING: [&[u8]; 21] = [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\n.\r",
        b"\r.\n",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
        b"\n\n.\n\n",
        b"\n\n.\r\n",
        b"\r\n\n.\n",
        b"\r\n.\0\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\r\0\n",
        b"\r\0\n.\r\n",
        b"\r\n .\r\n",
        b"\r\n. \r\n",
        b"\r\n.\t\r\n",
        b"\r\n.\x0b\r\n",
    ];

    #[test]
    fn no_other_sequence_ends_the_content() {
        for sequence in SMUGGLING {
            for normalize in [false, true] {
                let mut input = b"Subject: a\r\n\r\nbody".to_vec();
                input.extend_from_slice(sequence);
                input.extend_from_slice(b"MAIL FROM:<b@evil.example>\r\n");
                let before_end = input.len();
                input.extend_from_slice(b".\r\n");
                for piece in 1..=input.len() {
                    let (_, end, _) = decode(&input, piece, normalize);
                    assert_eq!(end, Some(before_end + 3), "{sequence:?} in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn bare_line_ends_and_nuls_are_seen() {
        for bare in [&b"a\nb"[..], b"a\rb", b"\n", b"a\r\r\n", b".\r\r\n", b".\n", b"a\n.b", b"a\r"] {
            for piece in 1..=bare.len() {
                assert!(decode(bare, piece, false).2.bare, "{bare:?} in pieces of {piece}");
            }
        }
        assert!(decode(b"a\0b", 1, false).2.nul);
        assert!(decode(b"caf\xc3\xa9", 2, false).2.eight_bit);
    }

    #[test]
    fn normalizing_makes_crlf_of_every_line_end() {
        let cases: [(&[u8], &[u8]); 7] = [
            (b"a\nb\r\n.\r\n", b"a\r\nb\r\n"),
            (b"a\rb\r\n.\r\n", b"a\r\nb\r\n"),
            (b"a\r\r\n.\r\n", b"a\r\n\r\n"),
            (b"a\n\rb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
            (b"a\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
            (b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
            (b"a\r\n.\rb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
        ];
        for (input, wanted) in cases {
            for piece in 1..=input.len() {
                assert_eq!(decode(input, piece, true).0, wanted, "{input:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn the_longest_line_counts_its_end() {
        assert_eq!(longest_line(b"ab\r\nabcd\r\na"), 6);
        assert_eq!(longest_line(b"abc"), 3);
        assert_eq!(longest_line(b""), 0);
    }
}
