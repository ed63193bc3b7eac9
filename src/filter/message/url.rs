//! URLs of a message: from text, from HTML, behind plain obfuscations and redirectors. Pure. RFC 3986.
//!
//! A URL here is what a reader's program would open. `hxxp://`, `example[.]com`, percent-encoded hosts, numbers for addresses and wrong
//! slashes are undone, names beyond ASCII are in A-labels (RFC 5890), and targets that a redirector carries are added beside it.

use std::borrow::Cow;

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
    /// It was disguised: `hxxp`, `[.]`, userinfo, percent-encoded host, an address that is written as no address is.
    pub obfuscated: bool,
    /// As it stood there, if its host is written otherwise.
    pub written: Option<String>,
}

impl Url {
    /// True if the host is an IP address, in any of the spellings that browsers take.
    pub fn is_ip(&self) -> bool {
        self.host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
    }

    /// The domain that somebody registered: the last two labels, three where a country has a second level
    /// for everybody.
    pub fn domain(&self) -> &str {
        registered(&self.host)
    }
}

/// Length of a country's top-level domain.
const COUNTRY_BYTES: usize = 2;
/// What countries have below their top-level domain for anybody to register under.
const SECOND_LEVELS: [&str; 28] = [
    "ac", "asn", "co", "com", "edu", "firm", "gen", "go", "gob", "gouv", "gov", "govt", "gv", "ind", "ltd", "me",
    "mil", "muni", "ne", "net", "nhs", "nom", "or", "org", "per", "plc", "res", "sch",
];

/// The part of `host` that somebody registered, by its form.
pub fn registered(host: &str) -> &str {
    let host = host.trim_end_matches('.');
    let mut dots = host.rmatch_indices('.').map(|(place, _)| place);
    let (Some(last), Some(second)) = (dots.next(), dots.next()) else { return host };
    if host.len() - last - 1 != COUNTRY_BYTES || !SECOND_LEVELS.contains(&&host[second + 1..last]) {
        return &host[second + 1..];
    }
    dots.next().map_or(host, |third| &host[third + 1..])
}

/// Schemes that a URL may begin with, real and disguised, and what a browser makes of them.
const SCHEMES: [(&str, &str, bool); 5] = [
    ("http", "http://", false),
    ("https", "https://", false),
    ("ftp", "ftp://", false),
    ("hxxp", "http://", true),
    ("hxxps", "https://", true),
];
/// Ways to write a dot that no browser reads as one, but people do.
const DOTS: [&str; 4] = ["[.]", "(.)", "[dot]", "(dot)"];

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
        self.scan_dots(text, budget);
    }

    /// Adds hosts without a scheme whose dots are disguised: `example[.]com/x`.
    fn scan_dots(&mut self, text: &str, budget: &mut Budget) {
        let bytes = text.as_bytes();
        let mut from = 0;
        for at in memchr::memchr2_iter(b'[', b'(', bytes) {
            let is_dot = DOTS
                .iter()
                .any(|dot| bytes[at..].get(..dot.len()).is_some_and(|head| head.eq_ignore_ascii_case(dot.as_bytes())));
            if at < from || !is_dot {
                continue;
            }
            let word = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-.".contains(byte);
            let start = at - bytes[from..at].iter().rev().take_while(word).count();
            let whole = url_word(&text[start..]);
            from = start + whole.len().max(1);
            if start < at && !text[..start].ends_with('/') {
                self.add(&format!("hxxp://{whole}"), Source::Text, "", budget);
            }
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
    let text = without_controls(text.trim());
    let (scheme, disguised, rest) = split_scheme(&text, source)?;
    let cut = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(cut);
    let (user, host_port) = authority.rsplit_once('@').map_or(("", authority), |(user, host)| (user, host));
    let mut written = percent_decode(host_port);
    if written.is_ascii() {
        written.make_ascii_lowercase();
    } else {
        written = written.to_lowercase();
    }
    if let Some(colon) = written.rfind(':').filter(|&at| written[at + 1..].bytes().all(|byte| byte.is_ascii_digit())) {
        written.truncate(colon);
    }
    let (host, rewritten) = plain_host(&written);
    let plausible = host.contains('.') || host.starts_with('[') || source != Source::Text;
    if host.is_empty() || host.len() > 255 || !plausible || host.contains(char::is_whitespace) {
        return None;
    }
    let at = if user.is_empty() { "" } else { "@" };
    let whole = |host: &str| [scheme, user, at, host, path].concat();
    Some(Url {
        text: whole(&host),
        source,
        path: path.to_owned(),
        obfuscated: disguised || rewritten || !user.is_empty() || host_port.contains('%'),
        written: (host != written).then(|| whole(&written)),
        host,
        anchor: String::new(),
    })
}

/// `text` as browsers take it (WHATWG URL, "remove all ASCII tab or newline").
fn without_controls(text: &str) -> Cow<'_, str> {
    // Those beyond ASCII begin with 0xc2.
    if text.bytes().all(|byte| byte >= b' ' && byte != 0x7f && byte != 0xc2) {
        return Cow::Borrowed(text);
    }
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The scheme as a browser writes it, whether it was disguised, and what stands behind it. Browsers take any number of slashes of
/// either kind, and in a link none at all means the page's own scheme (WHATWG URL, "special authority slashes state").
fn split_scheme(text: &str, source: Source) -> Option<(&'static str, bool, &str)> {
    let slashes = ['/', '\\'];
    if text.get(..4).is_some_and(|head| head.eq_ignore_ascii_case("www.")) {
        return Some(("http://", false, text));
    }
    if source != Source::Text && text.starts_with(slashes) && text[1..].starts_with(slashes) {
        return Some(("http://", false, text.trim_start_matches(slashes)));
    }
    let (scheme, rest) = text.split_once(':')?;
    let (_, plain, disguised) = SCHEMES.iter().find(|(known, ..)| scheme.eq_ignore_ascii_case(known))?;
    let behind = rest.trim_start_matches(slashes);
    let wrong = !rest.starts_with("//") || rest.len() - behind.len() != 2;
    if source == Source::Text && !rest.starts_with("//") {
        return None;
    }
    Some((plain, *disguised || wrong, behind))
}

/// A host as a browser asks DNS for it, and whether it was written to be not read.
fn plain_host(written: &str) -> (String, bool) {
    let mut host = written.to_owned();
    let mut disguised = false;
    if host.contains(['[', '(']) {
        for dot in DOTS {
            if host.contains(dot) {
                host = host.replace(dot, ".");
                disguised = true;
            }
        }
    }
    if !host.is_ascii() {
        // Full-width letters and other dots become plain ones on the way.
        disguised |= host.contains(['\u{3002}', '\u{ff0e}', '\u{ff61}']);
        host = idna::domain_to_ascii(&host).ok().filter(|ascii| !ascii.is_empty()).unwrap_or(host);
    }
    match ipv4(&host) {
        Some(address) if address != host => (address, true),
        _ => (host, disguised),
    }
}

/// The address that a browser reads in a host of numbers: one to four of them, decimal, octal (`0300`) or hexadecimal (`0xc0`), of
/// which the last fills the rest (WHATWG URL, "IPv4 parser").
fn ipv4(host: &str) -> Option<String> {
    if !host.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let labels: Vec<&str> = host.strip_suffix('.').unwrap_or(host).split('.').take(5).collect();
    if labels.len() > 4 {
        return None;
    }
    let number = |label: &&str| match (label.strip_prefix("0x"), label.strip_prefix('0')) {
        (Some(""), _) => Some(0),
        (Some(hex), _) => u64::from_str_radix(hex, 16).ok(),
        (_, Some(octal)) if !octal.is_empty() => u64::from_str_radix(octal, 8).ok(),
        _ => label.parse::<u64>().ok(),
    };
    let numbers: Vec<u64> = labels.iter().map(number).collect::<Option<_>>()?;
    let (last, front) = numbers.split_last()?;
    let bits_left = 32 - 8 * front.len() as u32;
    if front.iter().any(|number| *number > 255) || *last >= 1 << bits_left {
        return None;
    }
    let front = front.iter().fold(0, |all, number| all << 8 | number);
    let all = u32::try_from(front << bits_left | last).ok()?;
    Some(std::net::Ipv4Addr::from(all).to_string())
}

/// The URL that `url` carries in its query, path or host, as redirectors, shorteners and the rewriters of other filters do.
fn carried(url: &str) -> Option<String> {
    // As `parse` writes it, a scheme ends with the first colon and two slashes.
    let start = url.find(':')? + 3;
    let cut = url[start..].find(['/', '?', '#']).map_or(url.len(), |place| start + place);
    let (host, rest) = (&url[start..cut], &url[cut..]);
    carried_by_form(host, rest).or_else(|| carried_in_clear(rest)).or_else(|| carried_in_base64(rest))
}

/// By a form of its own: Proofpoint's rewriter, pages that Google copies or translates.
fn carried_by_form(host: &str, rest: &str) -> Option<String> {
    if host == "urldefense.proofpoint.com" {
        // `https-3A__example.com_x`: hyphens stand for per cent signs, underscores for slashes.
        let value = rest.split_once("?u=").or_else(|| rest.split_once("&u="))?.1.split('&').next()?;
        return Some(percent_decode(&value.replace('-', "%").replace('_', "/")));
    }
    if let Some(page) = host.strip_suffix(".translate.goog") {
        let name = page.replace("--", "\0").replace('-', ".").replace('\0', "-");
        return Some(format!("https://{name}{rest}"));
    }
    let copied = if host.ends_with(".ampproject.org") {
        rest.strip_prefix("/c/").or_else(|| rest.strip_prefix("/v/")).or_else(|| rest.strip_prefix("/i/"))
    } else {
        rest.strip_prefix("/amp/").filter(|_| registered(host).starts_with("google."))
    };
    copied.map(|page| match page.strip_prefix("s/") {
        Some(page) => format!("https://{page}"),
        None => format!("http://{page}"),
    })
}

/// As it is, or with its special characters encoded once or twice.
fn carried_in_clear(rest: &str) -> Option<String> {
    let bytes = rest.as_bytes();
    let is = |at: usize, word: &str| {
        bytes.get(at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes()))
    };
    let schemed = memchr::memchr2_iter(b':', b'%', bytes).find_map(|colon| {
        let encoded = [":/", "%3a", "%253a"].iter().position(|mark| is(colon, mark))?;
        let begin = |scheme: &&str| colon.checked_sub(scheme.len()).filter(|&at| is(at, scheme));
        let place = ["https", "http"].iter().find_map(begin)?;
        Some((place, encoded))
    });
    let bare = memchr::memchr_iter(b'=', bytes).find(|&equals| is(equals, "=www.")).map(|equals| (equals + 1, 0));
    let (place, encoded) = [schemed, bare].into_iter().flatten().min()?;
    let inner = &rest[place..];
    let inner = &inner[..inner.find('&').unwrap_or(inner.len())];
    Some((0..encoded).fold(inner.to_owned(), |inner, _| percent_decode(&inner)))
}

/// In base64, which begins with the same letters for all that begins with `http`.
fn carried_in_base64(rest: &str) -> Option<String> {
    use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, GeneralPurposeConfig};
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const PLAIN: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
    let start = memchr::memmem::find(rest.as_bytes(), b"aHR0c")?;
    let decoded = percent_decode(&rest[start..]).replace('-', "+").replace('_', "/");
    let end = decoded.find(|c: char| !c.is_ascii_alphanumeric() && c != '+' && c != '/').unwrap_or(decoded.len());
    let bytes = PLAIN.decode(&decoded[..end]).ok()?;
    String::from_utf8(bytes).ok().filter(|url| url.starts_with("http://") || url.starts_with("https://"))
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
        let table = [
            ("http://r.example/?u=https%3A%2F%2Fevil.example%2Fa&x=1", "https://evil.example/a"),
            ("http://r.example/?u=https%253A%252F%252Fevil.example%252Fa", "https://evil.example/a"),
            ("http://r.example/123/http://evil.example/a", "http://evil.example/a"),
            ("http://r.example/*http:/evil.example/a", "http://evil.example/a"),
            ("http://r.example/go?to=www.evil.example/a&b=c", "http://www.evil.example/a"),
            ("http://r.example/go/aHR0cHM6Ly9ldmlsLmV4YW1wbGUvYQ==?x", "https://evil.example/a"),
            ("http://r.example/go?u=aHR0cHM6Ly9ldmlsLmV4YW1wbGUvYQ%3D%3D", "https://evil.example/a"),
            ("https://urldefense.proofpoint.com/v2/url?u=https-3A__evil.example_a&d=x", "https://evil.example/a"),
            ("https://urldefense.com/v3/__https://evil.example/a__;!!x", "https://evil.example/a__;!!x"),
            ("https://www.google.com/amp/s/evil.example/a", "https://evil.example/a"),
            ("https://x.cdn.ampproject.org/c/evil.example/a", "http://evil.example/a"),
            ("https://my--evil-example.translate.goog/a", "https://my-evil.example/a"),
        ];
        for (url, target) in table {
            let urls = found(url);
            assert!(urls.iter().any(|url| url == target), "{url}: {urls:?}");
        }
        assert_eq!(found("http://a.example/aHR0c").len(), 1);
    }

    #[test]
    fn hosts_are_read_as_browsers_read_them() {
        let host = |href: &str| parse(href, Source::Href).map(|url| (url.host, url.obfuscated));
        let table = [
            ("http://3221226219/", "192.0.2.235", true),
            ("http://0xC00002EB/", "192.0.2.235", true),
            ("http://0300.0.02.0353/", "192.0.2.235", true),
            ("http://0xc0.0.2.0xeb/", "192.0.2.235", true),
            ("http://192.0.747/", "192.0.2.235", true),
            ("http://192.0.2.235/", "192.0.2.235", false),
            ("http://[2001:db8::1]/", "[2001:db8::1]", false),
            ("http://256.0.2.1.example/", "256.0.2.1.example", false),
            ("http://p\u{430}ypal.com/", "xn--pypal-4ve.com", false),
            ("http://\u{ff45}vil\u{3002}example/", "evil.example", true),
            ("http://ev%69l.example/", "evil.example", true),
            ("http://paypal.com@evil.example/", "evil.example", true),
            ("http:\\\\evil.example\\x", "evil.example", true),
            ("https:evil.example/x", "evil.example", true),
            ("https:///evil.example/x", "evil.example", true),
            ("//evil.example/x", "evil.example", false),
            ("ht\ntps://ev\til.example/", "evil.example", false),
        ];
        for (href, wanted, obfuscated) in table {
            assert_eq!(host(href), Some((wanted.to_owned(), obfuscated)), "{href}");
        }
        for none in ["mailto:a@b.example", "/local", "javascript://x", "data:text/html,x", "http://", "https:"] {
            assert_eq!(host(none), None, "{none}");
        }
        let url = parse("http://3221226219/x", Source::Text).expect("it is an address");
        assert_eq!((url.is_ip(), url.written.as_deref()), (true, Some("http://3221226219/x")));
    }

    #[test]
    fn disguised_dots_make_a_link_without_a_scheme() {
        assert_eq!(
            found("go to evil[.]example/x, or evil2(dot)example"),
            ["http://evil.example/x", "http://evil2.example"]
        );
        assert_eq!(found("see hxxp://evil[.]example/x"), ["http://evil.example/x"]);
        assert!(found("a[.] b [.]c (.) x (dot)").is_empty());
    }

    #[test]
    fn registered_domains_by_form() {
        assert_eq!(registered("a.b.example.com"), "example.com");
        assert_eq!(registered("www.example.co.uk"), "example.co.uk");
        assert_eq!(registered("localhost"), "localhost");
        assert_eq!(registered("www.dhl.de"), "dhl.de", "short names of firms are no second levels");
    }
}
