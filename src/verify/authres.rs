//! Authentication-Results: written and read. Pure. RFC 8601.
//!
//! What is written is what downstream filters believe; fields that arrive with our own id are cut out by
//! [`crate::wire::header::forged_fields`].

use std::fmt::Write;

use super::Results;
use super::outcome::Outcome;
use super::spf::{Identity, SpfResult};

/// A field, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticationResults {
    /// Who wrote it, lower case.
    pub authserv_id: String,
    /// The results; none for `none`.
    pub results: Vec<MethodResult>,
}

/// One `method=result` with its properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodResult {
    /// `spf`, `dkim`, …, lower case.
    pub method: String,
    /// The word, lower case.
    pub result: String,
    /// `reason=`
    pub reason: Option<String>,
    /// `ptype.property` in lower case, and value.
    pub properties: Vec<(String, String)>,
}

/// Results of one field that are read.
const RESULTS_MAX: usize = 100;
/// Properties of one result that are read.
const PROPERTIES_MAX: usize = 50;

impl AuthenticationResults {
    /// Reads a field's value; nothing if it breaks the grammar or has another version than 1.
    pub fn parse(value: &str) -> Option<Self> {
        let mut scan = Scan { rest: value };
        scan.skip_blanks()?;
        let authserv_id = scan.value()?.to_ascii_lowercase();
        scan.skip_blanks()?;
        if let Some(version) = scan.token() {
            scan.skip_blanks()?;
            if version != "1" {
                return None;
            }
        }
        let mut results = Vec::new();
        while scan.take(';') {
            scan.skip_blanks()?;
            if scan.rest.is_empty() {
                break;
            }
            match scan.method_result()? {
                Some(result) if results.len() < RESULTS_MAX => results.push(result),
                _ => {}
            }
        }
        scan.rest.is_empty().then_some(AuthenticationResults { authserv_id, results })
    }
}

struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    /// White space and comments; nothing if a comment stays open.
    fn skip_blanks(&mut self) -> Option<()> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
            if !self.rest.starts_with('(') {
                return Some(());
            }
            self.rest = &self.rest[comment_end(self.rest)?..];
        }
    }

    fn take(&mut self, c: char) -> bool {
        let taken = self.rest.strip_prefix(c);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    fn token(&mut self) -> Option<&'a str> {
        let end =
            self.rest.find(|c: char| c.is_ascii_whitespace() || "=;/.()\"".contains(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    /// A word, a quoted string, or a mailbox whose local part may be quoted.
    fn value(&mut self) -> Option<String> {
        let mut quoted_end = 0;
        if self.rest.starts_with('"') {
            quoted_end = quoted_string_end(self.rest)?;
        }
        let more = self.rest[quoted_end..].find(|c: char| c.is_ascii_whitespace() || ";()\"".contains(c));
        let end = more.map_or(self.rest.len(), |at| quoted_end + at);
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        match value {
            "" => None,
            // The quotes are syntax only if nothing stands behind them.
            _ if quoted_end == value.len() => Some(unquote(value)),
            _ => Some(value.to_owned()),
        }
    }

    /// `method [/ version] = result *(property)`; `Some(None)` for `none`.
    fn method_result(&mut self) -> Option<Option<MethodResult>> {
        let method = self.token()?.to_ascii_lowercase();
        self.skip_blanks()?;
        if method == "none" && (self.rest.is_empty() || self.rest.starts_with(';')) {
            return Some(None);
        }
        if self.take('/') {
            self.skip_blanks()?;
            self.token()?;
            self.skip_blanks()?;
        }
        self.equals()?;
        let result = self.token()?.to_ascii_lowercase();
        self.skip_blanks()?;
        let mut found = MethodResult { method, result, reason: None, properties: Vec::new() };
        while !self.rest.is_empty() && !self.rest.starts_with(';') {
            self.property(&mut found)?;
            self.skip_blanks()?;
        }
        Some(Some(found))
    }

    fn equals(&mut self) -> Option<()> {
        if !self.take('=') {
            return None;
        }
        self.skip_blanks()
    }

    /// `reason = value`, or `ptype . property = value`.
    fn property(&mut self, found: &mut MethodResult) -> Option<()> {
        let kind = self.token()?.to_ascii_lowercase();
        self.skip_blanks()?;
        if kind == "reason" && self.rest.starts_with('=') {
            self.equals()?;
            found.reason = Some(self.value()?);
            return Some(());
        }
        if !self.take('.') {
            return None;
        }
        self.skip_blanks()?;
        let property = self.token()?.to_ascii_lowercase();
        self.skip_blanks()?;
        self.equals()?;
        let value = self.value()?;
        if found.properties.len() < PROPERTIES_MAX {
            found.properties.push((format!("{kind}.{property}"), value));
        }
        Some(())
    }
}

fn comment_end(text: &str) -> Option<usize> {
    let (mut depth, mut escaped) = (0_usize, false);
    for (index, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(index + 1);
        }
    }
    None
}

fn quoted_string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text[1..text.len() - 1].chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

/// The field for these results, with its CR LF.
pub fn write(authserv_id: &str, results: &Results) -> String {
    format!("Authentication-Results: {}\r\n", write_value(authserv_id, results))
}

/// The field's value: `ARC-Authentication-Results` has the same.
pub fn write_value(authserv_id: &str, results: &Results) -> String {
    let mut out = value(authserv_id);
    for spf in results.mail_from.iter().chain([&results.helo]) {
        write_spf(&mut out, spf);
    }
    for dkim in &results.dkim {
        let _ = write!(out, ";\r\n\tdkim={}", dkim.outcome);
        write_reason(&mut out, dkim.outcome, &dkim.reason);
        for (name, text) in
            [("d", &dkim.domain), ("s", &dkim.selector), ("a", &dkim.algorithm), ("b", &dkim.signature_start)]
        {
            if !text.is_empty() {
                let _ = write!(out, " header.{name}={}", value(text));
            }
        }
    }
    if results.dkim.is_empty() {
        out.push_str(";\r\n\tdkim=none");
    }
    let _ = write!(out, ";\r\n\tdmarc={}", results.dmarc.outcome);
    if let Some(policy) = results.dmarc.policy {
        let _ = write!(out, " (p={} dis={})", policy.as_str(), results.dmarc.disposition.as_str());
    }
    if results.dmarc.outcome != Outcome::Fail {
        write_reason(&mut out, results.dmarc.outcome, &results.dmarc.reason);
    }
    if !results.dmarc.domain.is_empty() {
        let _ = write!(out, " header.from={}", value(&results.dmarc.domain));
    }
    let _ = write!(out, ";\r\n\tarc={}", results.arc.outcome);
    write_reason(&mut out, results.arc.outcome, &results.arc.reason);
    if let Some(oldest) = results.arc.oldest_pass {
        let _ = write!(out, " header.oldest-pass={oldest}");
    }
    out
}

fn write_spf(out: &mut String, spf: &SpfResult) {
    let _ = write!(out, ";\r\n\tspf={}", spf.outcome);
    write_reason(out, spf.outcome, &spf.reason);
    let _ = match spf.identity {
        Identity::MailFrom => write!(out, " smtp.mailfrom={}", value(&spf.sender)),
        Identity::Helo => write!(out, " smtp.helo={}", value(&spf.domain)),
    };
}

/// Only what went wrong needs a reason.
fn write_reason(out: &mut String, outcome: Outcome, reason: &str) {
    if !matches!(outcome, Outcome::Pass | Outcome::None) && !reason.is_empty() {
        let _ = write!(out, " reason={}", quote(reason));
    }
}

/// As it is, if every reader takes it for one word; else quoted.
fn value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@.-_+/!#$%&'*?^`{|}~=".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { quote(text) }
}

/// Longest quoted text, so that a line stays under 998 bytes (RFC 5322 §2.1.1).
const QUOTED_CHARS_MAX: usize = 300;

/// A quoted string; control characters, which could start a new field, are left out.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars().filter(|c| !c.is_control()).take(QUOTED_CHARS_MAX) {
        if c == '"' || c == '\\' {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The `Received-SPF` field (RFC 7208 §9.1), with its CR LF.
pub fn write_received_spf(receiver: &str, ip: std::net::IpAddr, helo: &str, spf: &SpfResult) -> String {
    let identity = match spf.identity {
        Identity::MailFrom => "mailfrom",
        Identity::Helo => "helo",
    };
    let comment: String = spf.reason.chars().filter(|c| !c.is_control() && !"()\\".contains(*c)).collect();
    format!(
        "Received-SPF: {} ({comment}) receiver={};\r\n\tclient-ip={ip}; helo={}; envelope-from={}; identity={identity}\r\n",
        spf.outcome,
        value(receiver),
        value(helo),
        quote(&spf.sender),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_text_stays_inside_its_quotes() {
        assert_eq!(value("a\r\nX: y\" b"), "\"aX: y\\\" b\"");
        assert_eq!(value("a@b.example"), "a@b.example");
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused(value in "([a-z.]{1,4}|[ ;=/()\"\\\\.]|\r\n |.){0,40}") {
            let _ = AuthenticationResults::parse(&value);
        }
        #[test]
        fn quoted_text_reads_back(text in "[ -~]{1,50}") {
            let parsed = AuthenticationResults::parse(&format!("x; a=b reason={}", quote(&text))).unwrap();
            prop_assert_eq!(parsed.results[0].reason.as_deref(), Some(text.as_str()));
        }
    }
}
