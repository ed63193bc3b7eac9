//! The author's domain: one parser, one From. Pure. RFC 5322 §3.4, RFC 6854 (groups), RFC 9989 §5.3.
//!
//! Attacks on DMARC live in the gap between two readers of the same From field. So there is one reader here, and what
//! others may read differently (two fields, text behind the bracket, another address in the display name) is an
//! error, not a guess.

use std::fmt;

use super::message::Message;

/// Addresses of one From field at most.
const ADDRESSES_MAX: usize = 100;

/// The author as DMARC sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The first address.
    pub address: String,
    /// The one domain of all addresses, lower case, A-labels.
    pub domain: String,
}

/// Why there is no single author domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorError {
    /// Readers could disagree about the address.
    Ambiguous,
    /// No From field.
    Missing,
    /// No address with a domain in it.
    NoDomain,
    /// Addresses of several domains.
    SeveralDomains,
    /// More than one From field.
    SeveralFields,
}

impl AuthorError {
    /// In words, for replies and results.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthorError::Ambiguous => "the From field can be read in several ways",
            AuthorError::Missing => "there is no From field",
            AuthorError::NoDomain => "the From field has no address with a domain",
            AuthorError::SeveralDomains => "the From field names several domains",
            AuthorError::SeveralFields => "there are several From fields",
        }
    }
}

impl fmt::Display for AuthorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The author of a message.
/// # Errors
/// See [`AuthorError`].
pub fn author(message: &Message) -> Result<Author, AuthorError> {
    let mut fields = message.named("From");
    let field = fields.next().ok_or(AuthorError::Missing)?;
    if fields.next().is_some() {
        return Err(AuthorError::SeveralFields);
    }
    let text = std::str::from_utf8(message.value(field)).map_err(|_| AuthorError::Ambiguous)?;
    parse(text)
}

/// Parses the value of a From field.
/// # Errors
/// See [`AuthorError`].
pub fn parse(value: &str) -> Result<Author, AuthorError> {
    let tokens = tokens(value).ok_or(AuthorError::Ambiguous)?;
    let mut author: Option<Author> = None;
    for (index, entry) in entries(&tokens)?.into_iter().enumerate() {
        if index == ADDRESSES_MAX {
            return Err(AuthorError::Ambiguous);
        }
        let found = mailbox(entry)?;
        match &author {
            Some(first) if first.domain != found.domain => return Err(AuthorError::SeveralDomains),
            Some(_) => {}
            None => author = Some(found),
        }
    }
    author.ok_or(AuthorError::NoDomain)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// Atoms with dots, as they stand.
    Atom(String),
    /// `"…"`, quotes included.
    Quoted(String),
    /// `[…]`
    Literal,
    /// One of `< > , : ; @`.
    Special(char),
}

/// Splits into tokens, comments dropped; nothing if a quote or comment stays open or a control character stands in it.
fn tokens(value: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '(' => skip_comment(&mut chars)?,
            '"' => tokens.push(Token::Quoted(quoted(&mut chars)?)),
            '[' => {
                chars.by_ref().find(|c| *c == ']')?;
                tokens.push(Token::Literal);
            }
            '<' | '>' | ',' | ':' | ';' | '@' => tokens.push(Token::Special(c)),
            c if c.is_control() || c == ')' || c == ']' || c == '\\' => return None,
            c => {
                let mut atom = String::from(c);
                while let Some(next) = chars.next_if(|c| !c.is_control() && !" \t\r\n()\"[]<>,:;@\\".contains(*c)) {
                    atom.push(next);
                }
                tokens.push(Token::Atom(atom));
            }
        }
    }
    Some(tokens)
}

fn skip_comment(chars: &mut impl Iterator<Item = char>) -> Option<()> {
    let mut depth = 1;
    while depth > 0 {
        match chars.next()? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(chars.next()?),
            '\0' => return None,
            _ => {}
        }
    }
    Some(())
}

fn quoted(chars: &mut impl Iterator<Item = char>) -> Option<String> {
    let mut text = String::from('"');
    loop {
        let c = chars.next()?;
        text.push(c);
        match c {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            '\0' => return None,
            _ => {}
        }
    }
}

/// Splits at commas; `name: a, b;` gives its members.
fn entries(tokens: &[Token]) -> Result<Vec<&[Token]>, AuthorError> {
    let (mut found, mut start, mut in_group, mut in_angle) = (Vec::new(), 0, false, false);
    let mut close = |start: usize, end: usize| {
        if start < end {
            found.push(&tokens[start..end]);
        }
    };
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::Special('<') => in_angle = true,
            Token::Special('>') => in_angle = false,
            // A source route (`<@a,@b:c@d>`) is what old and new readers read differently.
            Token::Special(',' | ':' | ';') if in_angle => return Err(AuthorError::Ambiguous),
            Token::Special(',') => {
                close(start, index);
                start = index + 1;
            }
            Token::Special(':') if !in_group => {
                in_group = true;
                start = index + 1;
            }
            Token::Special(';') if in_group => {
                close(start, index);
                in_group = false;
                start = index + 1;
            }
            Token::Special(':' | ';') => return Err(AuthorError::Ambiguous),
            _ => {}
        }
    }
    close(start, tokens.len());
    Ok(found)
}

fn mailbox(entry: &[Token]) -> Result<Author, AuthorError> {
    let Some(open) = entry.iter().position(|token| *token == Token::Special('<')) else {
        return addr_spec(entry);
    };
    let (display, rest) = entry.split_at(open);
    let [inner @ .., Token::Special('>')] = &rest[1..] else { return Err(AuthorError::Ambiguous) };
    if inner.iter().any(|token| matches!(token, Token::Special('<' | '>'))) {
        return Err(AuthorError::Ambiguous);
    }
    let author = addr_spec(inner)?;
    // `a@x.example <b@y.example>` is in wide use with the same domain twice; with two, readers differ.
    for (index, token) in display.iter().enumerate() {
        if *token == Token::Special('@')
            && !matches!(display.get(index + 1), Some(Token::Atom(text)) if normal_domain(text).as_ref() == Some(&author.domain))
        {
            return Err(AuthorError::Ambiguous);
        }
    }
    Ok(author)
}

/// `local-part@domain` and nothing else.
fn addr_spec(tokens: &[Token]) -> Result<Author, AuthorError> {
    match tokens {
        [Token::Atom(local) | Token::Quoted(local), Token::Special('@'), Token::Atom(domain)] => {
            let domain = normal_domain(domain).ok_or(AuthorError::Ambiguous)?;
            Ok(Author { address: format!("{local}@{domain}"), domain })
        }
        [_, Token::Special('@'), Token::Literal] => Err(AuthorError::NoDomain),
        _ if tokens.contains(&Token::Special('@')) => Err(AuthorError::Ambiguous),
        _ => Err(AuthorError::NoDomain),
    }
}

/// Lower case, A-labels, without the root's dot; nothing if it can't be a domain name.
pub fn normal_domain(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let ascii = if text.is_ascii() { text.to_ascii_lowercase() } else { idna::domain_to_ascii(text).ok()? };
    let shown = ascii.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    // A second dot at the end, or one that another script's full stop became, leaves an empty label.
    (shown && !ascii.ends_with('.') && super::lookup::is_askable(&ascii)).then_some(ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain(value: &str) -> Result<String, AuthorError> {
        parse(value).map(|author| author.domain)
    }

    #[test]
    fn an_empty_label_is_no_domain() {
        for value in ["a@b.", "a@b.example"] {
            let found = parse(value).map(|author| author.domain);
            assert!(found.as_ref().is_ok_and(|domain| !domain.ends_with('.')), "{value}: {found:?}");
        }
        for value in ["a@b..", "a@b.\u{3002}", "a@b.example.."] {
            assert!(parse(value).is_err(), "{value}");
        }
    }

    #[test]
    fn every_form_of_an_address_gives_its_domain() {
        for value in [
            "a@b.example",
            " Ann <a@B.Example.>",
            "\"a@evil.example\" <a@b.example>",
            "(evil@evil.example) a@b.example (x(y)z)",
            "a@b.example <a@b.example>",
            "\"odd @ local\"@b.example",
            "Team: a@b.example, <c@b.example>;",
            "a@b.example, c@b.example",
            "=?utf-8?q?a=40evil.example?= <a@b.example>",
        ] {
            assert_eq!(domain(value), Ok("b.example".to_owned()), "{value}");
        }
        assert_eq!(domain("a@bücher.example"), Ok("xn--bcher-kva.example".to_owned()));
    }

    #[test]
    fn what_readers_read_differently_is_refused() {
        for (value, error) in [
            ("<a@evil.example> b@b.example", AuthorError::Ambiguous),
            ("<a@evil.example><b@b.example>", AuthorError::Ambiguous),
            ("b@b.example <a@evil.example>", AuthorError::Ambiguous),
            ("<@evil.example,@x.example:b@b.example>", AuthorError::Ambiguous),
            ("a@b.example@evil.example", AuthorError::Ambiguous),
            ("a b@b.example", AuthorError::Ambiguous),
            ("a@b.example\0.evil.example", AuthorError::Ambiguous),
            ("\"a@b.example", AuthorError::Ambiguous),
            ("a@b.example, c@evil.example", AuthorError::SeveralDomains),
            ("undisclosed:;", AuthorError::NoDomain),
            ("MAILER-DAEMON", AuthorError::NoDomain),
            ("<>", AuthorError::NoDomain),
            ("a@[192.0.2.1]", AuthorError::NoDomain),
            ("", AuthorError::NoDomain),
        ] {
            assert_eq!(domain(value), Err(error), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_an_author_or_an_error(value in "(a@b.example|[<>@,:;()\"\\\\ \\[\\]]|.){0,20}") {
            if let Ok(author) = parse(&value) {
                prop_assert!(super::super::lookup::is_askable(&author.domain));
            }
        }
    }
}
