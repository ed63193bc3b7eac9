//! What `uri` rules look at: all that a mail program would make clickable, addresses included. Pure.
//!
//! Beside the URLs of the message these are targets as they were written (relative ones, `mailto:`), addresses in the text, and
//! host names without a scheme where the rule files name the top-level domains (`util_rb_tld`).

use std::collections::HashSet;

use super::eval::Lists;
use crate::filter::message::View;
use crate::filter::message::url::percent_decode;

/// URIs of one message that rules see.
const URIS_MAX: usize = 1_000;
/// Bytes of a text in which addresses and host names are looked for.
const WORD_BYTES_MAX: usize = 256;

/// Each URI once.
pub fn all(view: &View<'_>, lists: &Lists) -> Vec<String> {
    let mut uris = Uris::default();
    for url in &view.urls {
        uris.add(url.text.clone());
        url.written.iter().for_each(|written| uris.add(written.clone()));
    }
    for link in view.pages.iter().flat_map(|page| &page.links) {
        uris.target(&link.href);
    }
    for address in addresses(view.plain_text()) {
        uris.add(format!("mailto:{address}"));
    }
    for host in bare_hosts(view.plain_text(), lists) {
        uris.add(format!("http://{host}"));
    }
    uris.unwrap(lists);
    uris.found
}

/// Addresses that a message's text shows or links to, in lower case.
pub fn shown_addresses(view: &View<'_>) -> Vec<String> {
    let links = view.pages.iter().flat_map(|page| &page.links).filter(|link| link.element == "a");
    let linked = links.filter_map(|link| strip_scheme(&link.href, "mailto:"));
    let linked = linked.map(|rest| rest.split(['?', '&', '>', ' ']).next().unwrap_or(rest));
    let mut all: Vec<String> = addresses(view.plain_text()).chain(linked).map(str::to_ascii_lowercase).collect();
    all.sort();
    all.dedup();
    all.truncate(URIS_MAX);
    all
}

/// The host of a URI of the web.
pub fn host(uri: &str) -> Option<&str> {
    let rest = ["http://", "https://", "ftp://"].iter().find_map(|scheme| strip_scheme(uri, scheme))?;
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    Some(host.split(':').next().unwrap_or(host)).filter(|host| !host.is_empty())
}

#[derive(Default)]
struct Uris {
    found: Vec<String>,
    seen: HashSet<String>,
}

impl Uris {
    fn add(&mut self, uri: String) {
        if self.found.len() < URIS_MAX && self.seen.insert(uri.clone()) {
            self.found.push(uri);
        }
    }

    /// A target as written, and as a program reads it.
    fn target(&mut self, href: &str) {
        let href = href.trim();
        let local = href.starts_with(['#', '?', '&']) || href.starts_with('/') && !href.starts_with("//");
        if href.len() <= 1 || local {
            return;
        }
        if let Some((address, _)) = href.split_once('?').filter(|(address, _)| address.contains('@')) {
            self.add(address.to_owned());
        } else if !has_scheme(href) {
            self.add(format!("http://{href}"));
        }
        self.add(href.to_owned());
    }

    /// Adds where redirectors lead, and where those lead, each as written and decoded.
    fn unwrap(&mut self, lists: &Lists) {
        let mut at = 0;
        // What is added is looked at as well; it ends, because nothing is added twice and only so much is.
        while let Some(uri) = self.found.get(at).cloned() {
            at += 1;
            if let Some(target) = host(&uri).and_then(|_| lists.redirectors.target(&uri)) {
                self.target(&percent_decode(target));
                self.target(target);
            }
        }
    }
}

fn has_scheme(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, _)| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

fn strip_scheme<'u>(uri: &'u str, scheme: &str) -> Option<&'u str> {
    let head = uri.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| &uri[scheme.len()..])
}

/// What ends an address in a text, as mail programs see it.
fn ends_address(c: char) -> bool {
    !c.is_ascii()
        || c.is_ascii_control()
        || matches!(c, ' ' | '<' | '>' | '"' | '`' | '}' | ']' | '{' | '[' | '|' | ',' | '(' | '\'')
}

/// Words with an `@` and a plausible host.
fn addresses(text: &str) -> impl Iterator<Item = &str> {
    memchr::memchr_iter(b'@', text.as_bytes()).filter_map(|at| {
        let head =
            text[..at].char_indices().rev().take(WORD_BYTES_MAX).take_while(|(_, c)| !ends_address(*c) && *c != '@');
        let start = head.last().map(|(place, _)| place)?;
        let tail = &text[at + 1..];
        let end = tail.find(ends_address).unwrap_or(tail.len());
        let host = tail[..end].split(['?', '&', ')', '/', ';', ':', '=']).next().unwrap_or_default();
        let host = host.trim_end_matches(|c: char| c.is_ascii_punctuation());
        let local = text[start..at].rsplit([':', '/', ';', ')']).next().unwrap_or_default();
        let local_len = local.len();
        let good = local_len > 0 && end <= WORD_BYTES_MAX && is_host(host);
        good.then(|| &text[at - local_len..at + 1 + host.len()])
    })
}

fn is_host(host: &str) -> bool {
    let last = host.rsplit_once('.').map(|(head, last)| (head.is_empty(), last));
    last.is_some_and(|(empty, last)| !empty && last.len() >= 2 && last.bytes().all(|byte| byte.is_ascii_alphabetic()))
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// Host names that stand in the text without a scheme, with what follows them.
fn bare_hosts<'t>(text: &'t str, lists: &'t Lists) -> impl Iterator<Item = &'t str> {
    let ends = |c: char| {
        c.is_whitespace()
            || matches!(
                c,
                '"' | '\'' | '`' | '<' | '>' | '(' | ')' | '{' | '}' | '[' | ']' | ',' | ';' | '|' | '!' | '*' | '='
            )
    };
    // Of a text, only what stands around a dot can be a name.
    let mut from = 0;
    let words = memchr::memchr_iter(b'.', text.as_bytes()).filter_map(move |dot| {
        if dot < from {
            return None;
        }
        let before = text[from..dot].char_indices().rev().find(|(_, c)| ends(*c));
        let start = before.map_or(from, |(at, c)| from + at + c.len_utf8());
        let end = text[dot..].find(ends).map_or(text.len(), |at| dot + at);
        from = end;
        Some(&text[start..end])
    });
    let words = words.filter(|word| !word.contains("://") && !word.contains('@'));
    words.filter_map(|word| {
        let word = word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '/');
        let host = word.split(['/', ':', '?']).next().unwrap_or_default();
        let top = host.rsplit_once('.').filter(|_| is_host(host))?.1;
        lists.has("util_rb_tld", &top.to_ascii_lowercase()).then_some(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mail_program_makes_clickable_is_seen() {
        let raw = b"Content-Type: text/html\n\n<a href='mailto:A@b.example?subject=x'>me</a><img src='Pic/1.gif'>\
            <a href='#top'>t</a> or (c.d@e.example), see shop.example/now and file.txt, e.g. a@b";
        let lists = Lists::new(&[("util_rb_tld".to_owned(), vec!["example".to_owned()])].into(), Default::default());
        let view = View::read(raw);
        assert_eq!(
            all(&view, &lists),
            [
                "mailto:A@b.example",
                "mailto:A@b.example?subject=x",
                "http://Pic/1.gif",
                "Pic/1.gif",
                "mailto:c.d@e.example",
                "http://shop.example/now"
            ]
        );
        assert_eq!(shown_addresses(&view), ["a@b.example", "c.d@e.example"]);
    }
}
