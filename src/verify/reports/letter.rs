//! The message that carries a report. Pure. RFC 9990 §3.1.2, RFC 8460 §3, RFC 5965, RFC 3834.
//!
//! Always 7-bit with short lines, so that no relay has a reason to break the signature, and `Auto-Submitted`, so that nobody
//! answers it. Not here: the signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Characters of a line of base64 (RFC 2045 §6.8).
const LINE_CHARS: usize = 76;

/// The header section.
#[derive(Clone, Debug)]
pub struct Head<'a> {
    /// Display name and address of the author.
    pub from: (&'a str, &'a str),
    /// Whom.
    pub to: &'a str,
    /// One line.
    pub subject: &'a str,
    /// As in RFC 5322 §3.3.
    pub date: &'a str,
    /// Without angle brackets; the boundary is made of it too.
    pub message_id: &'a str,
    /// `mixed`, or `report; report-type=tlsrpt`.
    pub multipart: &'a str,
    /// More fields, each ended by CR LF.
    pub more: &'a str,
}

/// One part: its fields, each ended by CR LF, and its body.
#[derive(Clone, Debug)]
pub struct Part {
    fields: String,
    body: String,
}

impl Part {
    /// Text for people; lines end with LF or CR LF.
    pub fn text(text: &str) -> Self {
        Part {
            fields: "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n".to_owned(),
            body: base64_lines(text.replace("\r\n", "\n").replace('\n', "\r\n").as_bytes()),
        }
    }

    /// A file.
    pub fn file(content_type: &str, name: &str, bytes: &[u8]) -> Self {
        let fields = format!(
            "Content-Type: {content_type};\r\n\tname=\"{name}\"\r\nContent-Disposition: attachment;\r\n\
             \tfilename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n"
        );
        Part { fields, body: base64_lines(bytes) }
    }

    /// Fields or a header section in ASCII, as they are; every line ends with CR LF.
    pub fn ascii(content_type: &str, body: String) -> Self {
        debug_assert!(body.is_ascii(), "a part that is not encoded is ASCII");
        Part { fields: format!("Content-Type: {content_type}\r\n"), body }
    }
}

/// The whole message.
pub fn compose(head: &Head<'_>, parts: &[Part]) -> Vec<u8> {
    let boundary = boundary(head.message_id, parts);
    let mut out = format!(
        "Date: {}\r\nFrom: \"{}\" <{}>\r\nTo: <{}>\r\nSubject: {}\r\nMessage-ID: <{}>\r\nAuto-Submitted: auto-generated\r\n{}\
         MIME-Version: 1.0\r\nContent-Type: multipart/{};\r\n\tboundary=\"{boundary}\"\r\n\r\n",
        head.date,
        quoted(head.from.0),
        head.from.1,
        head.to,
        folded(head.subject),
        head.message_id,
        head.more,
        head.multipart,
    );
    for part in parts {
        out.push_str(&format!("--{boundary}\r\n{}\r\n{}\r\n", part.fields, part.body));
    }
    out.push_str(&format!("--{boundary}--\r\n"));
    out.into_bytes()
}

/// `gzip` of a report.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a vector takes any write")
}

fn base64_lines(bytes: &[u8]) -> String {
    let text = STANDARD.encode(bytes);
    let mut lines = String::with_capacity(text.len() + text.len() / LINE_CHARS * 2 + 2);
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_CHARS));
        lines.push_str(line);
        lines.push_str("\r\n");
        rest = after;
    }
    lines
}

/// A subject of several long names is folded between its words (RFC 5322 §2.2.3).
fn folded(subject: &str) -> String {
    let mut out = String::with_capacity(subject.len() + 8);
    let mut column = "Subject: ".len();
    for (index, word) in subject.split(' ').enumerate() {
        if index > 0 && column + word.len() > LINE_CHARS {
            out.push_str("\r\n ");
            column = 1;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out
}

fn quoted(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii() && !c.is_control() && !matches!(c, '"' | '\\')).collect()
}

fn boundary(message_id: &str, parts: &[Part]) -> String {
    let mut boundary: String = message_id.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    boundary.insert_str(0, "=_");
    while parts.iter().any(|part| part.body.contains(&boundary)) {
        boundary.push('_');
    }
    boundary
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_short_ascii_and_no_text_adds_one() {
        let subject = format!("Report Domain: {} Submitter: mx Report-ID: <{}>", "d.".repeat(60), "i".repeat(90));
        let head = Head {
            from: ("a \"b\"\r\nBcc: x", "a@b.example"),
            to: "c@d.example",
            subject: &subject,
            date: "now",
            message_id: "1@b.example",
            multipart: "mixed",
            more: "",
        };
        let parts = [
            Part::text("ü\n.\n"),
            Part::file("application/gzip", "x.gz", &[0; 300]),
            Part::ascii("text/x", "=_1bexample\r\n".into()),
        ];
        let text = String::from_utf8(compose(&head, &parts)).unwrap();
        assert!(text.is_ascii() && !text.contains("\nBcc"), "{text}");
        assert!(text.split("\r\n").all(|line| line.len() <= 160 && !line.contains(['\r', '\n'])), "{text}");
        let parsed = mail_parser::MessageParser::new().parse(text.as_bytes()).unwrap();
        assert_eq!(parsed.subject(), Some(subject.as_str()));
        assert_eq!((parsed.attachment_count(), parsed.body_text(0).as_deref()), (2, Some("ü\r\n.\r\n")));
    }
}
