//! Mailbox addresses and domains by the grammar of RFC 5321 §4.1.2 and RFC 6531 §3.3. Pure.
//!
//! One canonical type: what is compared, routed, logged and written is the same text. Not here: source routes
//! (parsed and dropped by the command parser), policy (what may be relayed).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::LocalPart => "bad local part",
            AddressError::Domain => "bad domain",
            AddressError::TooLong => "address too long",
            AddressError::NeedsUtf8 => "address needs SMTPUTF8",
        })
    }
}

impl std::error::Error for AddressError {}

/// `local-part@domain`; the domain is in lower case, the local part as it was given.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mailbox {
    text: Box<str>,
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
        let at = local_part_end(text)?;
        if at > LOCAL_PART_BYTES_MAX {
            return Err(AddressError::TooLong);
        }
        let domain = text[at..].strip_prefix('@').ok_or(AddressError::Domain)?;
        check_domain(domain)?;
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
