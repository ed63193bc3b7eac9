//! Mailbox addresses and domains by the grammar of RFC 5321 §4.1.2 and RFC 6531 §3.3. Pure.
//!
//! One canonical type: what is compared, routed, logged and written is the same text. Not here: source routes
//! (parsed and dropped by the command parser), policy (what may be relayed).

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::is_nfc;

/// RFC 5321 §4.5.3.1.1.
const LOCAL_PART_BYTES_MAX: usize = 64;
/// RFC 5321 §4.5.3.1.2.
const DOMAIN_BYTES_MAX: usize = 255;
/// RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// The local part breaks the grammar or is empty.
    LocalPart,
    /// The domain breaks the grammar or is empty.
    Domain,
    /// A part is longer than RFC 5321 §4.5.3.1 allows.
    TooLong,
    /// It has bytes above 127 and SMTPUTF8 was not asked for.
    NeedsUtf8,
    /// It is not in Unicode's normal form C, so two spellings would be two addresses (RFC 6531 §3.3, RFC 5198 §3).
    NotNormal,
    /// The local part begins with a dash, which a program downstream could take for an option.
    LeadingDash,
    /// The source route breaks the grammar.
    Route,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::LocalPart => "bad local part",
            AddressError::Domain => "bad domain",
            AddressError::TooLong => "address too long",
            AddressError::NeedsUtf8 => "address needs SMTPUTF8",
            AddressError::NotNormal => "address is not in normal form C",
            AddressError::LeadingDash => "local part begins with a dash",
            AddressError::Route => "bad source route",
        })
    }
}

impl std::error::Error for AddressError {}

/// `local-part@domain`; the domain is in lower case, the local part as it was given.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    text: Arc<str>,
    at: u16,
}

impl Mailbox {
    /// Parses a mailbox without angle brackets. With `utf8`, RFC 6531's extensions of atext, qtext and domain are allowed.
    /// # Errors
    /// See [`AddressError`].
    pub fn parse(text: &str, utf8: bool) -> Result<Self, AddressError> {
        if !utf8 && !text.is_ascii() {
            return Err(AddressError::NeedsUtf8);
        }
        if !text.is_ascii() && !is_nfc(text) {
            return Err(AddressError::NotNormal);
        }
        if text.starts_with('-') {
            return Err(AddressError::LeadingDash);
        }
        let at = local_part_end(text)?;
        if at > LOCAL_PART_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        let domain = text[at..].strip_prefix('@').ok_or(AddressError::Domain)?;
        check_domain(domain)?;
        // Full-width letters and the like map to ASCII; what can't be mapped to a name in DNS is no domain.
        if !domain.is_ascii() && domain_ascii(domain).is_none_or(|ascii| check_domain(&ascii).is_err()) {
            return Err(AddressError::Domain);
        }
        let mut whole = String::with_capacity(text.len());
        whole.push_str(&text[..=at]);
        whole.push_str(&domain.to_lowercase());
        Ok(Mailbox { text: whole.into(), at: at as u16 })
    }

    /// `<Postmaster>` without a domain (RFC 5321 §4.1.1.3), made complete with `domain`.
    pub fn postmaster(domain: &str) -> Self {
        let text = format!("postmaster@{}", domain.to_lowercase());
        Mailbox { text: text.into(), at: 10 }
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`, quotes included.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at as usize]
    }

    /// What stands behind it, in lower case; may be an address literal in brackets.
    pub fn domain(&self) -> &str {
        &self.text[self.at as usize + 1..]
    }

    /// The address literal's address, if the domain is one.
    pub fn literal(&self) -> Option<IpAddr> {
        parse_literal(self.domain())
    }

    /// True if the local part is a way to say "and then send it on to": `a%b`, `a!b`, `"a@b"`, `"a:b"`. Sendmail's rules
    /// once understood these; whoever relays by the domain alone must refuse them, or a host behind it may be an open relay.
    pub fn has_routing_trick(&self) -> bool {
        let local = self.local_part();
        let quoted = local.starts_with('"');
        local.contains(['%', '!', '@']) || (quoted && local.contains([',', ':', ';', '<', '>', '(', ')', '[', ']']))
    }

    /// The domain in A-labels, as DNS and configuration compare it; itself if it is ASCII or a literal already.
    ///
    /// Nothing if it can't be written in A-labels (UTS #46).
    pub fn domain_ascii(&self) -> Option<Cow<'_, str>> {
        domain_ascii(self.domain())
    }

    /// The local part without needless quotes and backslashes, as mailboxes are looked up by: `"a\ b"` is `a b`.
    pub fn local_part_unquoted(&self) -> Cow<'_, str> {
        let local = self.local_part();
        let Some(inner) = local.strip_prefix('"').and_then(|l| l.strip_suffix('"')) else {
            return Cow::Borrowed(local);
        };
        let mut out = String::with_capacity(inner.len());
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            out.push(if c == '\\' { chars.next().expect("the parser saw a pair") } else { c });
        }
        Cow::Owned(out)
    }
}

impl Serialize for Mailbox {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Mailbox {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Mailbox::parse(&String::deserialize(deserializer)?, true).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `domain` in A-labels and lower case, so that `BÜCHER.example` and `xn--bcher-kva.example` compare equal.
///
/// Nothing if it can't be written in A-labels (UTS #46).
pub fn domain_ascii(domain: &str) -> Option<Cow<'_, str>> {
    if domain.is_ascii() {
        let lower = !domain.bytes().any(|b| b.is_ascii_uppercase());
        return Some(if lower { Cow::Borrowed(domain) } else { Cow::Owned(domain.to_ascii_lowercase()) });
    }
    idna::domain_to_ascii(domain).ok().map(Cow::Owned)
}

/// Index of the `@` that ends the local part.
fn local_part_end(text: &str) -> Result<usize, AddressError> {
    if text.starts_with('"') {
        return quoted_end(text);
    }
    let end = text.find('@').ok_or(AddressError::Domain)?;
    let local = &text[..end];
    if local.is_empty() || !local.split('.').all(is_atom) {
        return Err(AddressError::LocalPart);
    }
    Ok(end)
}

/// Quoted-string = DQUOTE *(qtextSMTP / quoted-pairSMTP) DQUOTE.
fn quoted_end(text: &str) -> Result<usize, AddressError> {
    let mut chars = text.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Ok(index + 1),
            '\\' => match chars.next() {
                Some((_, ' '..='~')) => {}
                _ => return Err(AddressError::LocalPart),
            },
            ' '..='~' => {}
            c if c > '\u{9f}' => {}
            _ => return Err(AddressError::LocalPart),
        }
    }
    Err(AddressError::LocalPart)
}

fn is_atom(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_atext)
}

/// atext of RFC 5322 §3.2.3, with RFC 6531's UTF8-non-ascii; C1 controls stay out.
pub fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || c > '\u{9f}'
}

/// Checks a domain name or address literal.
/// # Errors
/// [`AddressError::Domain`] or [`AddressError::TooLong`].
pub fn check_domain(domain: &str) -> Result<(), AddressError> {
    if domain.len() > DOMAIN_BYTES_MAX {
        return Err(AddressError::TooLong);
    }
    if domain.starts_with('[') {
        return parse_literal(domain).map(|_| ()).ok_or(AddressError::Domain);
    }
    if domain.is_empty() || !domain.split('.').all(is_label) {
        return Err(AddressError::Domain);
    }
    Ok(())
}

fn is_label(label: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c > '\u{9f}';
    !label.is_empty()
        && label.len() <= LABEL_BYTES_MAX
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(inner)
}

/// `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
fn parse_literal(domain: &str) -> Option<IpAddr> {
    let inner = domain.strip_prefix('[')?.strip_suffix(']')?;
    match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => inner[5..].parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[&str] = &[
        "a@b",
        "a.b-c+d@x.example.org",
        "!#$%&'*+-/=?^_`{|}~@x.org",
        r#""a b"@x.org"#,
        r#""a\"b\\c"@x.org"#,
        r#"""@x.org"#,
        "a@[192.0.2.1]",
        "a@[ipv6:2001:db8::1]",
        "a@under_score.example",
        "a@xn--bcher-kva.example",
        "a@1.2.3.4",
    ];

    const BAD: &[(&str, AddressError)] = &[
        ("", AddressError::Domain),
        ("a", AddressError::Domain),
        ("@x.org", AddressError::LocalPart),
        ("a@", AddressError::Domain),
        ("a@@x.org", AddressError::Domain),
        (".a@x.org", AddressError::LocalPart),
        ("a.@x.org", AddressError::LocalPart),
        ("a..b@x.org", AddressError::LocalPart),
        ("a b@x.org", AddressError::LocalPart),
        ("a(b)@x.org", AddressError::LocalPart),
        ("a\u{1b}b@x.org", AddressError::LocalPart),
        ("a\0b@x.org", AddressError::LocalPart),
        ("\"a\tb\"@x.org", AddressError::LocalPart),
        ("\"a\\\u{1}\"@x.org", AddressError::LocalPart),
        (r#""a"b@x.org"#, AddressError::Domain),
        (r#""a@x.org"#, AddressError::LocalPart),
        ("-o@x.org", AddressError::LeadingDash),
        ("a@-x.org", AddressError::Domain),
        ("a@x-.org", AddressError::Domain),
        ("a@x..org", AddressError::Domain),
        ("a@.x.org", AddressError::Domain),
        ("a@x.org.", AddressError::Domain),
        ("a@x org", AddressError::Domain),
        ("a@x.org>b", AddressError::Domain),
        ("a@[192.0.2.256]", AddressError::Domain),
        ("a@[192.0.2.1", AddressError::Domain),
        ("a@[2001:db8::1]", AddressError::Domain),
        ("a@[IPv6:192.0.2.1]", AddressError::Domain),
        ("é@x.org", AddressError::NeedsUtf8),
    ];

    #[test]
    fn the_grammar_is_that_of_rfc_5321() {
        for text in GOOD {
            assert_eq!(Mailbox::parse(text, false).unwrap().as_str(), *text);
        }
        for (text, why) in BAD {
            assert_eq!(Mailbox::parse(text, false), Err(*why), "{text:?}");
        }
        let long = format!("{}@x.org", "a".repeat(65));
        assert_eq!(Mailbox::parse(&long, false), Err(AddressError::TooLong));
        let long = format!("a@{}", vec!["b".repeat(63); 5].join("."));
        assert_eq!(Mailbox::parse(&long, false), Err(AddressError::TooLong));
    }

    #[test]
    fn utf8_is_taken_in_normal_form_only() {
        assert_eq!(Mailbox::parse("Pelé@BÜCHER.example", true).unwrap().as_str(), "Pelé@bücher.example");
        assert_eq!(Mailbox::parse("Pele\u{301}@x.org", true), Err(AddressError::NotNormal));
        assert_eq!(Mailbox::parse("a\u{85}@x.org", true), Err(AddressError::LocalPart));
        assert_eq!(Mailbox::parse("a@\u{2e}\u{ff0e}x", true), Err(AddressError::Domain));
    }

    #[test]
    fn both_spellings_of_a_domain_compare_equal() {
        let unicode = Mailbox::parse("a@bücher.example", true).unwrap();
        assert_eq!(unicode.domain_ascii().unwrap(), "xn--bcher-kva.example");
        assert_eq!(domain_ascii("XN--BCHER-KVA.example").unwrap(), "xn--bcher-kva.example");
    }

    #[test]
    fn routing_tricks_are_seen() {
        for trick in ["a%b.org@x.org", "b.org!a@x.org", r#""a@b.org"@x.org"#, r#""a:b"@x.org"#, r#""a%b"@x.org"#] {
            assert!(Mailbox::parse(trick, false).unwrap().has_routing_trick(), "{trick}");
        }
        for plain in ["a@x.org", "a+b@x.org", r#""a b"@x.org"#, "a@[192.0.2.1]"] {
            assert!(!Mailbox::parse(plain, false).unwrap().has_routing_trick(), "{plain}");
        }
        assert_eq!(Mailbox::parse(r#""a\ b"@x.org"#, false).unwrap().local_part_unquoted(), "a b");
    }
}
