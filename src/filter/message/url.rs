//! URLs of a message: from text, from HTML, behind plain obfuscations and redirectors. Pure. RFC 3986.
//!
//! A URL here is what a reader's program would open. `hxxp://`, `example[.]com` and percent-encoded hosts are undone, targets
//! that a redirector carries in its own query are added beside it.

use crate::filter::budget::{Budget, Limit};

/// Where a URL stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `href` of a link.
    Href,
    /// `src`, `action` and the like.
    Embedded,
    /// Carried by another URL.
    Redirected,
    /// Plain text.
    Text,
}

/// One URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As a browser would open it; a scheme is added where the text had none.
    pub text: String,
    /// Where it stood.
    pub source: Source,
    /// Lower case, without port and userinfo.
    pub host: String,
    /// From the first slash behind the host; empty if there is none.
    pub path: String,
    /// The visible text, for links.
    pub anchor: String,
    /// It was disguised: `hxxp`, `[.]`, userinfo, percent-encoded host.
    pub obfuscated: bool,
}

impl Url {
    /// True if the host is an IP address, in any of the spellings that browsers take.
    pub fn is_ip(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host.parse::<std::net::IpAddr>().is_ok()
            || !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_digit())
            || host.starts_with("0x") && host[2..].bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'.')
    }

    /// The domain that somebody registered: the last two labels, three below a two-letter country with a short second label.
    pub fn domain(&self) -> &str {
        registered(&self.host)
    }
}

/// The part of `host` that somebody registered, by its form.
pub fn registered(host: &str) -> &str {
    let host = host.trim_end_matches('.');
    let mut dots = host.rmatch_indices('.').map(|(place, _)| place);
    let (Some(last), Some(second)) = (dots.next(), dots.next()) else { return host };
    let short_second = last - second - 1 <= 3 && host.len() - last - 1 == 2;
    if !short_second {
        return &host[second + 1..];
    }
    dots.next().map_or(host, |third| &host[third + 1..])
}

/// Schemes that a text URL may begin with, real and disguised, and `www.`.
const SCHEMES: [(&str, bool); 6] = [
    ("http://", false),
    ("https://", false),
    ("ftp://", false),
    ("hxxp://", true),
    ("hxxps://", true),
    ("www.", false),
];

/// Collects the URLs of one message.
#[derive(Default)]
pub struct Urls {
    /// All of them, each once per source.
    pub found: Vec<Url>,
}

/// URLs within URLs that are followed.
const REDIRECTS_MAX: u32 = 3;
/// Bytes of one URL that are read; browsers take more, people don't write more.
pub const URL_BYTES_MAX: usize = 4096;

impl Urls {
    /// Adds those of plain text.
    pub fn scan_text(&mut self, text: &str, budget: &mut Budget) {
        let bytes = text.as_bytes();
        let mut from = 0;
        for at in memchr::memchr2_iter(b':', b'.', bytes) {
            if at < from {
                continue;
            }
            let start = match bytes[at] {
                b':' if text[at..].starts_with("://") => at - trailing_letters(&bytes[..at]),
                b'.' if at >= 3 && bytes[at - 3..at].eq_ignore_ascii_case(b"www") => {
                    if at > 3 && (bytes[at - 4].is_ascii_alphanumeric() || b"./@-_".contains(&bytes[at - 4])) {
                        continue;
                    }
                    at - 3
                }
                _ => continue,
            };
            let word = url_word(&text[start..]);
            from = start + word.len();
            self.add(word, Source::Text, "", budget);
        }
    }

    /// Adds one that stood in an attribute.
    pub fn add(&mut self, text: &str, source: Source, anchor: &str, budget: &mut Budget) {
        let mut end = text.len().min(URL_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let Some(mut url) = parse(&text[..end], source) else { return };
        url.anchor = anchor.trim().to_owned();
        if self.found.iter().any(|known| known.text == url.text && known.anchor == url.anchor) {
            return;
        }
        let mut carried = carried(&url.text);
        if !budget.take(Limit::Urls, 1) {
            return;
        }
        self.found.push(url);
        let mut depth = 0;
        while let Some(inner) = carried.take().filter(|_| depth < REDIRECTS_MAX) {
            depth += 1;
            let Some(url) = parse(&inner, Source::Redirected) else { break };
            carried = self::carried(&url.text);
            if !self.found.iter().any(|known| known.text == url.text) && budget.take(Limit::Urls, 1) {
                self.found.push(url);
            }
        }
    }
}

fn trailing_letters(bytes: &[u8]) -> usize {
    bytes.iter().rev().take(5).take_while(|byte| byte.is_ascii_alphabetic()).count()
}

fn url_word(text: &str) -> &str {
    let end = text
        .find(|c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '"' | '`' | '{' | '}' | '|' | '\\' | '^')
        })
        .unwrap_or(text.len());
    text[..end].trim_end_matches(['.', ',', ';', ':', '!', '?', ')', '\'', '*', ']'])
}

fn parse(text: &str, source: Source) -> Option<Url> {
    let text: String = text.trim().chars().filter(|c| !c.is_control()).collect();
    let (scheme, disguised) = SCHEMES
        .iter()
        .find(|(scheme, _)| text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))?;
    let rest = if *scheme == "www." { text.as_str() } else { &text[scheme.len()..] };
    let cut = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(cut);
    let (user, host_port) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    let mut host = percent_decode(host_port).to_lowercase();
    let mut obfuscated = *disguised || !user.is_empty() || host_port.contains('%');
    for dot in ["[.]", "(.)", "[dot]", "(dot)", "\u{3002}", "\u{ff0e}"] {
        if host.contains(dot) {
            host = host.replace(dot, ".");
            obfuscated = true;
        }
    }
    if let Some(colon) = host.rfind(':').filter(|&colon| host[colon + 1..].bytes().all(|byte| byte.is_ascii_digit())) {
        host.truncate(colon);
    }
    let plausible = host.contains('.') || host.starts_with('[') || source != Source::Text;
    if host.is_empty() || host.len() > 255 || !plausible || host.contains(char::is_whitespace) {
        return None;
    }
    let scheme = if scheme.ends_with("s://") {
        "https://"
    } else if *scheme == "ftp://" {
        "ftp://"
    } else {
        "http://"
    };
    let userinfo = if user.is_empty() { String::new() } else { format!("{user}@") };
    Some(Url {
        text: format!("{scheme}{userinfo}{host}{path}"),
        source,
        path: path.to_owned(),
        host,
        anchor: String::new(),
        obfuscated,
    })
}

/// The URL that `url` carries in its query or path, as redirectors do.
fn carried(url: &str) -> Option<String> {
    let start = url.find("://")? + 3;
    let rest = url[start..].find(['/', '?']).map(|place| &url[start + place..])?;
    let lower = rest.to_ascii_lowercase();
    let place = ["http://", "https://", "http%3a", "https%3a"].iter().filter_map(|mark| lower.find(mark)).min()?;
    let inner = &rest[place..];
    let encoded = lower[place..].find("%3a").is_some_and(|colon| colon <= 5);
    let end = inner.find('&').unwrap_or(inner.len());
    Some(if encoded { percent_decode(&inner[..end]) } else { inner[..end].to_owned() })
}

/// `%XX` undone; bytes that are no UTF-8 then are replaced.
pub fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair =
            bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut urls = Urls::default();
        urls.scan_text(text, &mut Budget::default());
        urls.found.into_iter().map(|url| url.text).collect()
    }

    #[test]
    fn text_urls_are_found_and_undisguised() {
        assert_eq!(found("see http://A.example/x, or www.b.example."), ["http://a.example/x", "http://www.b.example"]);
        assert_eq!(found("hxxps://c[.]example/p"), ["https://c.example/p"]);
        assert_eq!(found("a :// b ://"), Vec::<String>::new());
    }

    #[test]
    fn redirectors_give_up_their_target() {
        let urls = found("http://r.example/?u=https%3A%2F%2Fevil.example%2Fa&x=1");
        assert_eq!(urls[1], "https://evil.example/a");
    }

    #[test]
    fn registered_domains_by_form() {
        assert_eq!(registered("a.b.example.com"), "example.com");
        assert_eq!(registered("www.example.co.uk"), "example.co.uk");
        assert_eq!(registered("localhost"), "localhost");
    }
}
