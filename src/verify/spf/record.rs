//! SPF records: selection among TXT records and their grammar. Pure. RFC 7208 §4.5, §5, §6, §12.
//!
//! The whole record is parsed before any term is looked at, because a syntax error anywhere makes the result
//! permerror (§4.6). Macro strings are checked here and expanded later.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::outcome::Outcome;
use super::macros::{MacroString, Use};

/// Bytes of a record that are read. TXT answers reach 64 KiB; §3.4 recommends 450 bytes.
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// A parsed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Mechanisms in order.
    pub directives: Vec<Directive>,
    /// `redirect=`
    pub redirect: Option<MacroString>,
    /// `exp=`
    pub explanation: Option<MacroString>,
}

/// A mechanism with its qualifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// The result if it matches.
    pub qualifier: Outcome,
    /// The mechanism.
    pub mechanism: Mechanism,
    /// As it stands in the record, for reasons.
    pub text: String,
}

/// Prefix lengths of `a` and `mx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DualCidr {
    /// For IPv4, 0 to 32.
    pub v4: u8,
    /// For IPv6, 0 to 128.
    pub v6: u8,
}

/// RFC 7208 §5. A missing domain means the current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// `a`
    A(Option<MacroString>, DualCidr),
    /// `all`
    All,
    /// `exists`
    Exists(MacroString),
    /// `include`
    Include(MacroString),
    /// `ip4`
    Ip4(Ipv4Addr, u8),
    /// `ip6`
    Ip6(Ipv6Addr, u8),
    /// `mx`
    Mx(Option<MacroString>, DualCidr),
    /// `ptr`
    Ptr(Option<MacroString>),
}

/// The one SPF record among TXT records: `Ok(None)` if there is none.
/// # Errors
/// In words, if there are several (§4.5).
pub fn select(records: &[Vec<u8>]) -> Result<Option<&[u8]>, &'static str> {
    let mut found = records.iter().filter(|record| is_spf(record));
    let first = found.next();
    if found.next().is_some() {
        return Err("several SPF records");
    }
    Ok(first.map(Vec::as_slice))
}

/// `v=spf1` and then a space or the end.
fn is_spf(record: &[u8]) -> bool {
    const VERSION: &[u8] = b"v=spf1";
    record.len() >= VERSION.len()
        && record[..VERSION.len()].eq_ignore_ascii_case(VERSION)
        && matches!(record.get(VERSION.len()), None | Some(b' '))
}

impl Record {
    /// Parses a selected record.
    /// # Errors
    /// The term that breaks the grammar, in words.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err("record too long".to_owned());
        }
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii());
        let text = text.ok_or("record is not ASCII")?;
        let mut record = Record { directives: Vec::new(), redirect: None, explanation: None };
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            record.take(term).ok_or_else(|| format!("bad term {:?}", shorten(term)))?;
        }
        Ok(record)
    }

    fn take(&mut self, term: &str) -> Option<()> {
        if let Some((name, value)) = split_modifier(term) {
            return self.take_modifier(name, value);
        }
        let (qualifier, rest) = qualifier(term);
        let mechanism = mechanism(rest)?;
        self.directives.push(Directive { qualifier, mechanism, text: term.to_owned() });
        Some(())
    }

    fn take_modifier(&mut self, name: &str, value: &str) -> Option<()> {
        let slot = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.explanation,
            // Unknown modifiers are ignored, but their syntax counts (§6).
            _ => return MacroString::parse(value, Use::Domain).map(|_| ()),
        };
        if slot.is_some() {
            return None;
        }
        *slot = Some(domain_spec(value)?);
        Some(())
    }
}

fn shorten(term: &str) -> &str {
    const SHOWN: usize = 80;
    term.get(..SHOWN).unwrap_or(term)
}

/// `name=value`, if the term is a modifier: the `=` stands before any `:` or `/`.
fn split_modifier(term: &str) -> Option<(&str, &str)> {
    let end = term.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)))?;
    let (name, rest) = term.split_at(end);
    let value = rest.strip_prefix('=')?;
    name.starts_with(|c: char| c.is_ascii_alphabetic()).then_some((name, value))
}

fn qualifier(term: &str) -> (Outcome, &str) {
    let outcome = match term.as_bytes()[0] {
        b'+' => Outcome::Pass,
        b'-' => Outcome::Fail,
        b'~' => Outcome::SoftFail,
        b'?' => Outcome::Neutral,
        _ => return (Outcome::Pass, term),
    };
    (outcome, &term[1..])
}

fn mechanism(text: &str) -> Option<Mechanism> {
    let end = text.find([':', '/']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let value = rest.strip_prefix(':');
    match name.to_ascii_lowercase().as_str() {
        "all" if rest.is_empty() => Some(Mechanism::All),
        "include" => domain_spec(value?).map(Mechanism::Include),
        "exists" => domain_spec(value?).map(Mechanism::Exists),
        "a" => domain_and_cidr(rest).map(|(domain, cidr)| Mechanism::A(domain, cidr)),
        "mx" => domain_and_cidr(rest).map(|(domain, cidr)| Mechanism::Mx(domain, cidr)),
        "ptr" if rest.is_empty() => Some(Mechanism::Ptr(None)),
        "ptr" => domain_spec(value?).map(|domain| Mechanism::Ptr(Some(domain))),
        "ip4" => network(value?, 32).map(|(ip, bits)| Mechanism::Ip4(ip, bits)),
        "ip6" => network(value?, 128).map(|(ip, bits)| Mechanism::Ip6(ip, bits)),
        _ => None,
    }
}

fn network<A: std::str::FromStr>(text: &str, bits_max: u8) -> Option<(A, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, prefix_length(bits, bits_max)?),
        None => (text, bits_max),
    };
    Some((address.parse().ok()?, bits))
}

/// 0, or digits without a leading zero, up to `max`.
fn prefix_length(text: &str, max: u8) -> Option<u8> {
    let canonical = text == "0" || (!text.starts_with('0') && !text.starts_with('+'));
    text.parse().ok().filter(|bits| canonical && *bits <= max)
}

/// `[:domain-spec][/v4][//v6]`.
fn domain_and_cidr(rest: &str) -> Option<(Option<MacroString>, DualCidr)> {
    let (rest, v6) = split_prefix(rest, "//", 128)?;
    let (rest, v4) = split_prefix(rest, "/", 32)?;
    let domain = match rest.strip_prefix(':') {
        Some(domain) => Some(domain_spec(domain)?),
        None if rest.is_empty() => None,
        None => return None,
    };
    Some((domain, DualCidr { v4, v6 }))
}

/// Cuts `mark` and a prefix length off the end. A slash before anything but digits belongs to the domain-spec.
fn split_prefix<'a>(rest: &'a str, mark: &str, max: u8) -> Option<(&'a str, u8)> {
    match rest.rsplit_once(mark) {
        Some((before, bits)) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
            Some((before, prefix_length(bits, max)?))
        }
        _ => Some((rest, max)),
    }
}

/// `domain-spec = macro-string domain-end`, where domain-end is `.toplabel[.]` or a macro.
fn domain_spec(text: &str) -> Option<MacroString> {
    let parsed = MacroString::parse(text, Use::Domain)?;
    (parsed.ends_in_macro() || has_top_label(text)).then_some(parsed)
}

fn has_top_label(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let Some((_, label)) = text.rsplit_once('.') else { return false };
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && edge(label.chars().next())
        && edge(label.chars().last())
        && !label.chars().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terms_are_read_by_the_grammar() {
        let record =
            Record::parse(b"v=spf1 -A:%{d1/}.x.example/24//64 ip4:192.0.2.0/24 exp=e.example x-y=1 all").unwrap();
        assert_eq!(record.directives.len(), 3);
        assert_eq!(record.directives[0].qualifier, Outcome::Fail);
        assert!(matches!(record.directives[0].mechanism, Mechanism::A(Some(_), DualCidr { v4: 24, v6: 64 })));
        for bad in ["a:", "a:x", "ip4:1.2.3.4/033", "ip4:1.2.3", "all:x", "include", "-", "redirect=a", "exp="] {
            assert!(Record::parse(format!("v=spf1 {bad}").as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_record_counts_and_two_are_an_error() {
        let txt = |texts: &[&str]| texts.iter().map(|t| t.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(select(&txt(&["v=spf10 all", "x"])), Ok(None));
        assert!(select(&txt(&["V=SPF1", "x"])).unwrap().is_some());
        assert!(select(&txt(&["v=spf1 a", "v=spf1 b"])).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::parse(&bytes);
        }
        #[test]
        fn any_terms_are_a_record_or_an_error(terms in "v=spf1 ([-~?+]?(a|mx|ip4|ip6|ptr|exists|include|all|exp=|redirect=)[:/]{0,2}[a-z0-9%{}./:_-]{0,20} ){0,8}") {
            let _ = Record::parse(terms.as_bytes());
        }
    }
}
