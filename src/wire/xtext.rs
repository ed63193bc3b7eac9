//! xtext (RFC 3461 §4), its UTF-8 form (RFC 6533 §3), and the address types of `ORCPT`. Pure.
//!
//! What is decoded here ends up in reports and logs, so whatever could forge a line in them (any control character)
//! is refused, however it was encoded.

/// xtext as printable ASCII text (RFC 3461 §4.4 allows nothing else in an ENVID).
///
/// Nothing for a bad encoding, or for one that hides a control character or a byte above 126.
pub fn decode(text: &str) -> Option<String> {
    let bytes = decode_bytes(text)?;
    let printable = bytes.iter().all(|b| (b' '..=b'~').contains(b));
    printable.then(|| String::from_utf8(bytes).expect("printable ASCII is UTF-8"))
}

/// xtext as UTF-8 text without control characters, as XCLIENT uses it.
pub fn decode_utf8(text: &str) -> Option<String> {
    let text = String::from_utf8(decode_bytes(text)?).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// `text` as xtext.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' | 0..=b' ' | 0x7f.. => out.push_str(&format!("+{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

/// The value of `ORCPT`, `addr-type;text`, with the text decoded. `utf8`: the transaction has SMTPUTF8.
pub fn decode_orcpt(value: &str, utf8: bool) -> Option<String> {
    let (kind, text) = value.split_once(';')?;
    let is_atom = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if kind.is_empty() || !kind.bytes().all(is_atom) || text.is_empty() {
        return None;
    }
    let text = if kind.eq_ignore_ascii_case("utf-8") { decode_utf8_addr(text, utf8)? } else { decode(text)? };
    Some(format!("{kind};{text}"))
}

fn decode_bytes(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?),
            b'=' | 0..=b' ' | 0x7f.. => return None,
            _ => out.push(byte),
        }
    }
    Some(out)
}

/// RFC 3461 §4: upper case only.
fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// utf-8-addr-xtext and utf-8-addr-unitext: `\x{HEXPOINT}` stands for a character (RFC 6533 §3).
fn decode_utf8_addr(text: &str, utf8: bool) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == '\\' {
            let (point, after) = rest.strip_prefix("x{")?.split_once('}')?;
            let digits = point.bytes().all(|b| hex_digit(b).is_some());
            let decoded = u32::from_str_radix(point, 16).ok().and_then(char::from_u32)?;
            if !digits || decoded.is_control() {
                return None;
            }
            out.push(decoded);
            rest = after;
        } else if c.is_control() || matches!(c, ' ' | '+' | '=') || (!c.is_ascii() && !utf8) {
            return None;
        } else {
            out.push(c);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_reads_back_and_hides_nothing() {
        assert_eq!(decode("a+2Bb+3Dc+20d").as_deref(), Some("a+b=c d"));
        assert_eq!(decode(&encode("a+b=c d")).as_deref(), Some("a+b=c d"));
        for bad in ["+", "+2", "+2b", "a=b", "+0D+0A", "+7F", "+00", "a b", "+C3+A9"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(decode_utf8("+C3+A9").as_deref(), Some("é"));
        assert_eq!(decode_utf8("+0A"), None);
    }

    #[test]
    fn orcpt_knows_both_encodings() {
        assert_eq!(decode_orcpt("rfc822;a+2Bb@x.org", false).as_deref(), Some("rfc822;a+b@x.org"));
        assert_eq!(decode_orcpt(r"utf-8;\x{F6}@x.org", false).as_deref(), Some("utf-8;ö@x.org"));
        assert_eq!(decode_orcpt("utf-8;ö@x.org", true).as_deref(), Some("utf-8;ö@x.org"));
        for bad in
            ["rfc822", ";a", "rfc822;", "rf c;a", r"utf-8;\x{A}", r"utf-8;\x{D800}", r"utf-8;\x41", "utf-8;ö@x.org"]
        {
            assert_eq!(decode_orcpt(bad, false), None, "{bad}");
        }
    }
}
