//! One message as the filter sees it: parsed once, borrowing, within a budget. Pure. RFC 5322, RFC 2045-2047, RFC 2231.
//!
//! [`View::read`] takes the bytes as received and gives headers, leaf parts with decoded bodies, the text that a reader
//! sees, what is hidden from him, and all URLs. Rules, classifier and attachment checks read this view and
//! never parse again. It accepts any bytes; what it could not read is in the budget's list of exceeded limits.

mod encoded;
pub mod fold;
pub mod header;
pub mod html;
mod parts;
pub mod url;

use std::borrow::Cow;
use std::ops::Range;

pub use fold::Disguise;
pub use header::{Field, Header};
pub use html::Page;
pub use parts::{Body, Part};
pub use url::{Source, Url};

use super::budget::{Budget, Limit};

/// A message, read.
pub struct View<'x> {
    /// All bytes that are read.
    pub raw: &'x [u8],
    /// The top header section.
    pub header: Header<'x>,
    /// The leaf parts in order, parts of attached messages included.
    pub parts: Vec<Part<'x>>,
    /// Subject, decoded and folded.
    pub subject: String,
    /// Visible text of all text parts; parts and paragraphs are separated by empty lines.
    pub text: String,
    /// The same with invisible characters dropped and look-alikes folded, where that differs.
    pub folded: Option<String>,
    /// Text that a reader can't see.
    pub hidden: String,
    /// One page per HTML part; their text has been moved into `text` and `hidden`.
    pub pages: Vec<Page>,
    /// All URLs.
    pub urls: Vec<Url>,
    /// Invisible and look-alike characters.
    pub disguise: Disguise,
    /// The MIME structure was broken.
    pub broken: bool,
    /// What may still be spent, and what was exceeded.
    pub budget: Budget,
}

impl<'x> View<'x> {
    /// Reads `raw`.
    pub fn read(raw: &'x [u8]) -> View<'x> {
        let mut budget = Budget::default();
        let granted = budget.take_up_to(Limit::ScanBytes, raw.len());
        let raw = &raw[..granted];
        let header = Header::parse(raw, &mut budget);
        let (parts, broken) = parts::read(raw, &header, &mut budget);
        let mut disguise = Disguise::default();
        let subject = fold::fold(header.text("Subject"), &mut disguise).into_owned();
        let mut view = View {
            raw,
            header,
            parts,
            subject,
            text: String::new(),
            folded: None,
            hidden: String::new(),
            pages: Vec::new(),
            urls: Vec::new(),
            disguise,
            broken,
            budget,
        };
        view.render();
        view
    }

    /// The body's bytes as received.
    pub fn body_raw(&self) -> &'x [u8] {
        &self.raw[self.header.body_offset.min(self.raw.len())..]
    }

    /// The first address of `From`, in lower case, and its display name.
    pub fn author(&self) -> (String, String) {
        header::mailbox(self.header.text("From"))
    }

    /// The visible text without disguise.
    pub fn plain_text(&self) -> &str {
        self.folded.as_deref().unwrap_or(&self.text)
    }

    fn render(&mut self) {
        let mut urls = url::Urls::default();
        let parts = std::mem::take(&mut self.parts);
        // An HTML page and its plain alternative say the same; both are read, because spam makes them differ.
        for part in parts.iter().filter(|part| part.is_shown()) {
            match &part.body {
                Body::Text(text) => self.render_text(text, &mut urls),
                Body::Html(html) => self.render_html(html, &mut urls),
                Body::Binary(_) => {}
            }
        }
        self.parts = parts;
        if let Cow::Owned(folded) = fold::fold(&self.text, &mut self.disguise)
            && folded != self.text
        {
            urls.scan_text(&folded, &mut self.budget);
            self.folded = Some(folded);
        }
        self.urls = urls.found;
    }

    fn render_text(&mut self, text: &str, urls: &mut url::Urls) {
        let text = clip(text, &mut self.budget);
        urls.scan_text(text, &mut self.budget);
        self.start_part();
        self.text.push_str(text);
    }

    fn render_html(&mut self, html: &str, urls: &mut url::Urls) {
        let html = clip(html, &mut self.budget);
        let mut page = html::read(html);
        for link in &page.links {
            let source = if link.element == "a" { Source::Href } else { Source::Embedded };
            urls.add(&link.href, source, &link.text, &mut self.budget);
        }
        urls.scan_text(&page.text, &mut self.budget);
        self.start_part();
        page.moved.seen = append(&mut self.text, std::mem::take(&mut page.text));
        page.moved.hidden = append(&mut self.hidden, std::mem::take(&mut page.hidden));
        self.pages.push(page);
    }

    fn start_part(&mut self) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
    }
}

/// Adds `more`; gives where it stands.
fn append(text: &mut String, more: String) -> Range<usize> {
    let start = text.len();
    text.push_str(&more);
    start..text.len()
}

fn clip<'t>(text: &'t str, budget: &mut Budget) -> &'t str {
    let mut end = budget.take_up_to(Limit::TextBytes, text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The text of bytes in a charset that nobody named.
pub fn guess_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_that_are_not_kept_to_hide_nothing() {
        let page = "PGI+Y2hlYXA8L2I+IHBpbGxz";
        let head =
            "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/html\nContent-Transfer-Encoding:";
        for text in [
            // A line of a mailing list below it; no end of the parts; a stray sign; an attached message.
            format!("Content-Type: text/html\nContent-Transfer-Encoding: base64\n\n{page}\n--\nlist@example\n"),
            format!("{head} base64\n\n{page}\n"),
            format!("{head} base64\n\n-{page}\n--x--\n"),
            format!("{head} quoted-printable\n\n<b>chea=70</b> =pills =\n\n--x--\n"),
        ] {
            let view = View::read(text.as_bytes());
            assert!(view.text.contains("cheap") && view.text.contains("pills"), "{text}: {:?}", view.text);
            assert!(!view.pages.is_empty(), "{text}");
        }
        let attached =
            format!("{}: base64\n\n-{page}\n--x--\n", head.trim_end_matches(':').replace("text/html", "image/png"));
        assert_eq!(View::read(attached.as_bytes()).parts[0].bytes(), b"<b>cheap</b> pills");
    }

    #[test]
    fn alternatives_attachments_and_urls_are_seen() {
        let raw = b"Subject: =?utf-8?q?p=D0=B0y?=\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
            Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n\
            <p>caf=C3=A9 <a href=3D\"http://x.example/\">go</a><p style=3D\"display:none\">ham\n--b\n\
            Content-Type: application/octet-stream; name=\"a.exe\"\nContent-Transfer-Encoding: base64\n\nTVqQAA==\n--b--\n";
        let view = View::read(raw);
        assert_eq!(view.subject, "pay");
        assert!(view.text.contains("café go"), "{:?}", view.text);
        assert!(view.hidden.contains("ham"));
        assert_eq!(view.urls[0].host, "x.example");
        assert_eq!(view.urls[0].anchor, "go");
        let attachment = view.parts.iter().find(|part| part.attachment).expect("there is one");
        assert_eq!(attachment.name.as_deref(), Some("a.exe"));
        assert!(matches!(&attachment.body, Body::Binary(bytes) if bytes.starts_with(b"MZ")));
    }

    #[test]
    fn deep_nesting_is_cut_not_followed() {
        let mut raw = Vec::new();
        for _ in 0..100_000 {
            raw.extend_from_slice(b"Content-Type: message/rfc822\n\n");
        }
        let view = View::read(&raw);
        assert!(view.budget.exceeded().any(|row| row.limit == Limit::Nesting));
    }
}
