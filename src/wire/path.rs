//! Reverse-paths and forward-paths: `<mailbox>`, `<>`, `<Postmaster>`, with or without a source route. Pure.
//!
//! RFC 5321 §4.1.1.2, §4.1.1.3, §4.1.2. A source route's syntax is checked and the route is dropped
//! (RFC 5321 §4.1.1.3, appendix C), so that what is left is the one canonical address.

use super::address::{AddressError, Mailbox, check_domain};

/// A path with its angle brackets taken off, and what follows it on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathArgument<'a> {
    /// Between the brackets.
    pub path: &'a str,
    /// ESMTP parameters, separated by spaces; may be empty.
    pub parameters: &'a str,
}

impl<'a> PathArgument<'a> {
    /// Splits what follows `FROM:` or `TO:`. Nothing if there is no path in brackets.
    ///
    /// Spaces before the path are not RFC 5321's, but old devices send them and they can't be misread.
    pub fn split(text: &'a str) -> Option<Self> {
        let text = text.trim_start_matches(' ').strip_prefix('<')?;
        let end = closing_bracket(text)?;
        let after = &text[end + 1..];
        if !after.is_empty() && !after.starts_with(' ') {
            return None;
        }
        Some(PathArgument { path: &text[..end], parameters: after.trim_matches(' ') })
    }

    /// The path of MAIL; nothing for `<>`.
    /// # Errors
    /// See [`AddressError`].
    pub fn reverse_path(&self, utf8: bool) -> Result<Option<Mailbox>, AddressError> {
        if self.path.is_empty() {
            return Ok(None);
        }
        Mailbox::parse(without_route(self.path, utf8)?, utf8).map(Some)
    }

    /// The path of RCPT; `<Postmaster>` is made complete with `hostname`.
    /// # Errors
    /// See [`AddressError`].
    pub fn forward_path(&self, utf8: bool, hostname: &str) -> Result<Mailbox, AddressError> {
        if self.path.eq_ignore_ascii_case("postmaster") {
            return Ok(Mailbox::postmaster(hostname));
        }
        Mailbox::parse(without_route(self.path, utf8)?, utf8)
    }
}

/// Index of the first `>` outside a quoted string.
fn closing_bracket(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut bytes = text.bytes().enumerate();
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => {
                bytes.next();
            }
            b'>' if !quoted => return Some(index),
            _ => {}
        }
    }
    None
}

/// Takes `@one.example,@two.example:` off.
fn without_route(path: &str, utf8: bool) -> Result<&str, AddressError> {
    if !path.starts_with('@') {
        return Ok(path);
    }
    let (route, mailbox) = path.split_once(':').ok_or(AddressError::Route)?;
    for hop in route.split(',') {
        let domain = hop.strip_prefix('@').ok_or(AddressError::Route)?;
        if domain.starts_with('[') || (!utf8 && !domain.is_ascii()) {
            return Err(AddressError::Route);
        }
        check_domain(domain).map_err(|_| AddressError::Route)?;
    }
    Ok(mailbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_split_at_their_own_bracket() {
        let split = |text| PathArgument::split(text).map(|p| (p.path, p.parameters));
        assert_eq!(split("<a@b.c>"), Some(("a@b.c", "")));
        assert_eq!(split(" <a@b.c> SIZE=1  "), Some(("a@b.c", "SIZE=1")));
        assert_eq!(split(r#"<"a>\"b"@b.c> X"#), Some((r#""a>\"b"@b.c"#, "X")));
        for bad in ["a@b.c", "<a@b.c", "<a@b.c>X", r#"<"a@b.c>"#, ""] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn source_routes_are_checked_and_dropped() {
        let path = |path| PathArgument { path, parameters: "" }.forward_path(false, "mx.example.org");
        assert_eq!(path("@one.example,@two.example:a@b.c").unwrap().as_str(), "a@b.c");
        assert_eq!(path("PostMaster").unwrap().as_str(), "postmaster@mx.example.org");
        for bad in
            ["@one.example", "@one.example,two.example:a@b.c", "@:a@b.c", "@one.example:@two.example:a@b.c", "@-:a@b.c"]
        {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert_eq!(path(""), Err(AddressError::Domain));
    }
}
