//! SPF macro strings. Pure. RFC 7208 §7.
//!
//! Parsed once into pieces, so that syntax errors show before any look-up; an expansion is cut at 4096 bytes.
//! `%{p}` needs DNS: the caller finds the validated name first and passes it in.

use std::net::IpAddr;

use super::Query;

/// Bytes of an expansion at most; names end at 253, explanations are one SMTP reply. Beyond it the text is cut.
const EXPANSION_BYTES_MAX: usize = 4096;

/// Where a macro string stands: only explanations may use `c`, `r` and `t` (§7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// In a domain-spec.
    Domain,
    /// In an explanation text, where spaces are allowed too.
    Explanation,
}

/// A parsed macro string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacroString(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Macro(Macro),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Macro {
    letter: char,
    escape: bool,
    keep: Option<usize>,
    reverse: bool,
    delimiters: String,
}

/// What macros expand to.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    /// The check.
    pub query: &'a Query,
    /// The current domain, which `include` and `redirect` change.
    pub domain: &'a str,
    /// The client's validated name for `%{p}`.
    pub validated: Option<&'a str>,
    /// Seconds since 1970 for `%{t}`.
    pub now: u64,
}

impl MacroString {
    /// Parses; nothing if it breaks the grammar.
    pub fn parse(text: &str, used: Use) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            if c != '%' {
                if !(('!'..='~').contains(&c) || (used == Use::Explanation && c == ' ')) {
                    return None;
                }
                plain.push(c);
                continue;
            }
            let kind = rest.chars().next()?;
            rest = &rest[kind.len_utf8()..];
            match kind {
                '%' => plain.push('%'),
                '_' => plain.push(' '),
                '-' => plain.push_str("%20"),
                '{' => {
                    let (inner, behind) = rest.split_once('}')?;
                    rest = behind;
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Macro(Macro::parse(inner, used)?));
                }
                _ => return None,
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Some(MacroString(pieces))
    }

    /// The last piece is a macro, so that the expansion may end in a top label.
    pub fn ends_in_macro(&self) -> bool {
        matches!(self.0.last(), Some(Piece::Macro(_)))
    }

    /// It has `%{p}`, whose value needs DNS.
    pub fn needs_validated(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Macro(found) if found.letter == 'p'))
    }

    /// The text it stands for, cut at 4096 bytes.
    pub fn expand(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Macro(found) => out.push_str(&found.expand(values)),
            }
            if out.len() > EXPANSION_BYTES_MAX {
                let cut = out.floor_char_boundary(EXPANSION_BYTES_MAX);
                out.truncate(cut);
                break;
            }
        }
        out
    }

    /// The domain name it stands for: labels are dropped from the left until it fits into 253 bytes (§7.3).
    pub fn expand_domain(&self, values: &Values<'_>) -> String {
        let whole = self.expand(values);
        let mut name = whole.strip_suffix('.').unwrap_or(&whole);
        while name.len() > super::super::lookup::NAME_BYTES_MAX {
            match name.split_once('.') {
                Some((_, shorter)) => name = shorter,
                None => break,
            }
        }
        name.to_owned()
    }
}

impl Macro {
    /// `letter [digits] ["r"] *delimiter`.
    fn parse(inner: &str, used: Use) -> Option<Self> {
        let letter = inner.chars().next()?;
        let lower = letter.to_ascii_lowercase();
        let allowed = match used {
            Use::Domain => "slodiphv",
            Use::Explanation => "slodiphvcrt",
        };
        if !allowed.contains(lower) {
            return None;
        }
        let rest = &inner[1..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (count, rest) = rest.split_at(digits);
        let keep = if count.is_empty() { None } else { Some(count.parse().unwrap_or(usize::MAX)) };
        if keep == Some(0) {
            return None;
        }
        let reverse = rest.starts_with(['r', 'R']);
        let delimiters = &rest[usize::from(reverse)..];
        if !delimiters.chars().all(|c| ".-+,/_=".contains(c)) {
            return None;
        }
        let escape = letter.is_ascii_uppercase();
        Some(Macro { letter: lower, escape, keep, reverse, delimiters: delimiters.to_owned() })
    }

    fn expand(&self, values: &Values<'_>) -> String {
        let text = self.transform(self.value(values));
        if self.escape { url_escape(&text) } else { text }
    }

    fn value(&self, values: &Values<'_>) -> String {
        let query = values.query;
        match self.letter {
            's' if query.sender.starts_with('@') => format!("postmaster{}", query.sender),
            's' => query.sender.clone(),
            'l' => query.local_part().to_owned(),
            'o' => query.domain().to_owned(),
            'd' => values.domain.to_owned(),
            'i' => dotted(query.ip),
            'p' => values.validated.unwrap_or("unknown").to_owned(),
            'h' => query.helo.clone(),
            'c' => query.ip.to_string(),
            'r' => query.receiver.clone(),
            't' => values.now.to_string(),
            _ => match query.ip {
                IpAddr::V4(_) => "in-addr".to_owned(),
                IpAddr::V6(_) => "ip6".to_owned(),
            },
        }
    }

    /// Splits at the delimiters, reverses, keeps the rightmost parts, joins with dots.
    fn transform(&self, value: String) -> String {
        if self.keep.is_none() && !self.reverse && self.delimiters.is_empty() {
            return value;
        }
        let delimiters = if self.delimiters.is_empty() { "." } else { &self.delimiters };
        let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
        if self.reverse {
            parts.reverse();
        }
        let skip = self.keep.map_or(0, |keep| parts.len().saturating_sub(keep));
        parts[skip..].join(".")
    }
}

/// `%{i}`: IPv4 as usual, IPv6 as dotted nibbles.
fn dotted(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
            nibbles.map(|nibble| format!("{nibble:X}")).collect::<Vec<_>>().join(".")
        }
    }
}

/// Everything outside RFC 3986's unreserved set becomes `%XX` (§7.3).
fn url_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(text: &str) -> String {
        let query = Query::mail_from("192.0.2.3".parse().unwrap(), "h", Some("strong-bad@email.example.com"), "r");
        let values = Values { query: &query, domain: "email.example.com", validated: None, now: 7 };
        MacroString::parse(text, Use::Explanation).unwrap().expand(&values)
    }

    #[test]
    fn the_examples_of_rfc_7208_section_7_4() {
        for (text, expected) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l-}", "strong.bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
            ("%%%_%-%{S}", "% %20strong-bad%40email.example.com"),
        ] {
            assert_eq!(expand(text), expected, "{text}");
        }
    }

    #[test]
    fn explanation_letters_are_refused_in_domains() {
        assert!(MacroString::parse("%{t}", Use::Domain).is_none());
        assert!(MacroString::parse("%{d0}", Use::Domain).is_none());
        assert!(MacroString::parse("%", Use::Domain).is_none());
    }

    proptest! {
        #[test]
        fn expansion_never_panics_and_is_bounded(text in "(%\\{[a-zA-Z][0-9]{0,3}r?[.,/_=+-]{0,2}\\}|%|[a-z. ]){0,60}") {
            if let Some(parsed) = MacroString::parse(&text, Use::Explanation) {
                let query = Query::mail_from("::1".parse().unwrap(), "h", Some("a@b.example"), "r");
                let values = Values { query: &query, domain: "b.example", validated: None, now: 0 };
                prop_assert!(parsed.expand(&values).len() <= EXPANSION_BYTES_MAX);
            }
        }
    }
}
