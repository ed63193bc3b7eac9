//! Transfer encodings, kept to or not. Pure. RFC 2045 §6.7, §6.8.
//!
//! What a strict decoder gives up on is read as mail programs read it, for it is shown to the reader all the same: a line too much
//! below base64, which mailing lists add, must not keep a text from being seen here.

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode_char;

/// The bytes of base64 that is kept to; nothing if it is not.
pub fn strict_base64(encoded: &[u8]) -> Option<Vec<u8>> {
    let signs = encoded.iter().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    let padding = memchr::memchr(b'=', encoded).unwrap_or(encoded.len());
    let is_whole = signs.is_multiple_of(4) && padding + 2 >= encoded.trim_ascii_end().len();
    is_whole.then(|| base64_decode(encoded))?
}

/// The bytes of base64: what is not of its alphabet is passed over, and padding is the end.
pub fn base64(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(encoded.len() / 4 * 3);
    let (mut group, mut digits) = (0_u32, 0);
    for &byte in encoded {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ => continue,
        };
        group = group << 6 | u32::from(digit);
        digits += 1;
        if digits == 4 {
            decoded.extend_from_slice(&group.to_be_bytes()[1..]);
            (group, digits) = (0, 0);
        }
    }
    // Two digits hold a byte, three hold two.
    let rest = (group << (6 * (4 - digits))).to_be_bytes();
    decoded.extend_from_slice(&rest[1..1 + usize::saturating_sub(digits, 1)]);
    decoded
}

/// The bytes of quoted-printable: an `=` that stands for nothing stands for itself.
pub fn quoted_printable(encoded: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some(place) = memchr::memchr(b'=', rest) {
        decoded.extend_from_slice(&rest[..place]);
        rest = &rest[place + 1..];
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let pair = rest.first_chunk().and_then(|&[high, low]| quoted_printable_decode_char(high, low));
        match (pair, &rest[blanks..]) {
            (Some(byte), _) => {
                decoded.push(byte);
                rest = &rest[2..];
            }
            (None, [b'\r', b'\n', next @ ..] | [b'\n', next @ ..]) => rest = next,
            (None, []) => rest = &[],
            (None, _) => decoded.push(b'='),
        }
    }
    decoded.extend_from_slice(rest);
    decoded
}

/// Files in the lines of a text, as uuencode writes them and mail programs still show them (POSIX.1-2017, `uuencode`): each with its name.
/// Where a file has no end, it is what there is.
pub fn uuencoded(text: &str) -> impl Iterator<Item = (&str, Vec<u8>)> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let name = lines.by_ref().find_map(|line| {
            let (mode, name) = line.strip_prefix("begin ")?.split_once(' ')?;
            let is_mode = (3..=4).contains(&mode.len()) && mode.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
            is_mode.then_some(name.trim()).filter(|name| !name.is_empty())
        })?;
        let mut bytes = Vec::new();
        lines.by_ref().map_while(uu_line).for_each(|line| bytes.extend(line));
        Some((name, bytes))
    })
}

/// The bytes of a line; nothing at the end.
fn uu_line(line: &str) -> Option<Vec<u8>> {
    let sixes = |byte: &u8| u32::from(byte.wrapping_sub(b' ') & 0x3f);
    let (first, rest) = line.as_bytes().split_first().filter(|_| line != "end")?;
    let length = Some(sixes(first) as usize).filter(|&length| length > 0)?;
    let groups = rest.chunks(4).map(|four| (0..4).fold(0, |all, place| all << 6 | four.get(place).map_or(0, sixes)));
    let mut bytes: Vec<u8> =
        groups.flat_map(|group| <[u8; 3]>::try_from(&group.to_be_bytes()[1..]).unwrap_or_default()).collect();
    bytes.truncate(length);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_with_anything_between() {
        for (encoded, decoded) in [
            ("aGVsbG8=", "hello"),
            ("aGV\r\n-sbG8=\r\n--\r\na footer", "hello"),
            ("aGVsbA", "hell"),
            ("aGVs", "hel"),
            ("aGVsb", "hel"),
            ("", ""),
        ] {
            assert_eq!(base64(encoded.as_bytes()), decoded.as_bytes(), "{encoded}");
        }
    }

    #[test]
    fn quoted_printable_with_stray_signs() {
        for (encoded, decoded) in [
            ("a=3Db =e4", &b"a=b \xe4"[..]),
            ("soft =\r\nbreak = \nhere=", b"soft break here"),
            ("x=y ==3D =+1", b"x=y == =+1"),
        ] {
            assert_eq!(quoted_printable(encoded.as_bytes()), decoded, "{encoded}");
        }
    }

    #[test]
    fn uuencoded_files_in_a_text() {
        let text = "hello\nbegin 644 a b.txt\n#:&5L\n\"\n`\nend\nbegin with 7\nbegin 0755 x.sh\n\"(R$\n";
        let files: Vec<(&str, Vec<u8>)> = uuencoded(text).collect();
        assert_eq!(files, [("a b.txt", b"hel".to_vec()), ("x.sh", b"#!".to_vec())]);
        assert_eq!(uuencoded("begin 644 \nbegin 999 x\nend\n").count(), 0);
    }
}
