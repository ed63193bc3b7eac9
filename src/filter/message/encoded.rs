//! Transfer encodings that are not kept to, read as mail programs read them. Pure. RFC 2045 §6.7, §6.8.
//!
//! What a strict decoder gives up on is shown to the reader all the same: a line too much below base64, which mailing lists add, must not
//! keep a text from being seen here.

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
        let pair = rest.first_chunk().and_then(|pair: &[u8; 2]| {
            let text = std::str::from_utf8(pair).ok().filter(|_| pair.iter().all(u8::is_ascii_hexdigit))?;
            u8::from_str_radix(text, 16).ok()
        });
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
}
