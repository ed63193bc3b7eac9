//! The mail that the demo sends: what it is, by which way it comes in, and what must become of it. Pure.

use std::fmt::Write;

/// The domain whose mailboxes the demo's store holds.
pub const DOMAIN: &str = "weir.example";
/// A domain whose mail server does not answer.
pub const DOWN_DOMAIN: &str = "down.example";
/// The users of the store; all have [`PASSWORD`].
pub const USERS: [&str; 4] = ["alice", "bob", "carol", "jürgen"];
/// The password of every user of the demo, which lives on loopback for as long as the demo runs.
pub const PASSWORD: &str = "demo-password";

/// How a message enters the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a stranger to the mx listener.
    Mx,
    /// From a stranger to the listener that enforces the policies of others.
    Enforced,
    /// To the same, by a stranger who forwards what the sample before became in its reader's mailbox.
    Forwarded,
    /// From a login, over TLS, to the submission listener.
    Submission(&'static str),
}

/// What must become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// In the mailbox of each recipient.
    Delivered,
    /// Accepted, and waiting in the queue.
    Queued,
    /// Accepted, and kept back.
    Quarantined,
    /// Refused in the session with this code.
    Refused(u16),
}

/// One message.
pub struct Sample {
    /// A few words for the demo's table.
    pub title: &'static str,
    /// How it comes in.
    pub way: Way,
    /// `MAIL FROM`; nothing for the null reverse-path.
    pub from: Option<&'static str>,
    /// `RCPT TO`.
    pub to: &'static [&'static str],
    /// The message, lines ended by CR LF.
    pub content: Vec<u8>,
    /// What must become of it.
    pub fate: Fate,
}

/// All of them, in the order of sending.
pub fn all() -> Vec<Sample> {
    let mut samples = plain();
    samples.extend(rich());
    samples.extend(addresses());
    samples.extend(fates());
    samples.extend(corpus());
    samples
}

/// Bytes of the large attachment before base64; the whole message is then just above 5 MiB.
const LARGE_BYTES: usize = 3_900_000;

/// Mail from a stranger that is delivered.
pub fn mx(title: &'static str, from: &'static str, to: &'static [&'static str], content: Vec<u8>) -> Sample {
    Sample { title, way: Way::Mx, from: Some(from), to, content, fate: Fate::Delivered }
}

/// Mail of a login that is delivered.
pub fn submitted(
    title: &'static str,
    login: &'static str,
    from: &'static str,
    to: &'static [&'static str],
    content: Vec<u8>,
) -> Sample {
    Sample { title, way: Way::Submission(login), from: Some(from), to, content, fate: Fate::Delivered }
}

fn plain() -> Vec<Sample> {
    vec![
        mx("plain text", "nora@shop.example", &["alice@weir.example"], text("nora@shop.example", "alice@weir.example", "Your order 4711", "Hello Alice,\n\nyour order 4711 has left our house today.\n\nNora\n")),
        mx("lines that begin with dots", "nora@shop.example", &["alice@weir.example"], text("nora@shop.example", "alice@weir.example", "Dots", ".\n..\n.hidden\nThe line above began with a dot.\n.\n")),
        mx("no line end at the end", "nora@shop.example", &["bob@weir.example"], text("nora@shop.example", "bob@weir.example", "Short", "one line\n")),
        mx("empty body", "nora@shop.example", &["bob@weir.example"], text("nora@shop.example", "bob@weir.example", "Nothing to say", "")),
        mx("a long paragraph of 990 octets", "list@shop.example", &["carol@weir.example"], text("list@shop.example", "carol@weir.example", "A long line", &format!("{}\n", "word ".repeat(198)))),
        Sample { from: None, ..mx("a bounce from elsewhere", "", &["carol@weir.example"], text("mailer-daemon@shop.example", "carol@weir.example", "Undelivered mail", "Your message of yesterday was not delivered.\n")) },
        submitted("reply, by submission", "alice", "alice@weir.example", &["bob@weir.example"], text("alice@weir.example", "bob@weir.example", "Re: lunch", "Twelve is fine.\n")),
        submitted("without Date and Message-ID", "bob", "bob@weir.example", &["carol@weir.example"], b"From: bob@weir.example\r\nTo: carol@weir.example\r\nSubject: bare\r\n\r\nThe gateway adds what is missing.\r\n".to_vec()),
    ]
}

fn rich() -> Vec<Sample> {
    let html = "<html><body><h1>News</h1><p>Ten <b>new</b> things this week.</p></body></html>\n";
    let both = multipart(
        "alternative",
        &[
            ("text/plain; charset=utf-8", "8bit", "Ten new things this week: caf\u{e9}, na\u{ef}ve.\n"),
            ("text/html; charset=utf-8", "8bit", html),
        ],
    );
    let note = "PK-like bytes do not matter here; this is a text attachment.\n";
    let attached = multipart(
        "mixed",
        &[("text/plain", "7bit", "The minutes are attached.\n"), ("text/plain; name=\"minutes.txt\"", "7bit", note)],
    );
    let nested = multipart(
        "mixed",
        &[
            ("text/plain", "7bit", "Forwarded below.\n"),
            ("message/rfc822", "7bit", "From: x@shop.example\nSubject: inner\n\nInner text.\n"),
        ],
    );
    let large = multipart(
        "mixed",
        &[
            ("text/plain", "7bit", "The photo in full size.\n"),
            ("application/octet-stream; name=\"photo.raw\"", "base64", &base64_lines(LARGE_BYTES)),
        ],
    );
    vec![
        mx(
            "HTML only",
            "news@shop.example",
            &["alice@weir.example"],
            typed("news@shop.example", "alice@weir.example", "News", "text/html", html),
        ),
        mx(
            "text and HTML, 8-bit",
            "news@shop.example",
            &["bob@weir.example"],
            whole("news@shop.example", "bob@weir.example", "News", &both),
        ),
        mx(
            "an attachment",
            "paul@club.example",
            &["carol@weir.example"],
            whole("paul@club.example", "carol@weir.example", "Minutes", &attached),
        ),
        mx(
            "a message within a message",
            "paul@club.example",
            &["alice@weir.example"],
            whole("paul@club.example", "alice@weir.example", "Fwd: inner", &nested),
        ),
        mx(
            "5 MiB",
            "paul@club.example",
            &["bob@weir.example"],
            whole("paul@club.example", "bob@weir.example", "Photo", &large),
        ),
        mx("ISO-8859-1, 8-bit", "paul@club.example", &["carol@weir.example"], latin1()),
    ]
}

fn addresses() -> Vec<Sample> {
    vec![
        mx(
            "to a UTF-8 mailbox",
            "paul@club.example",
            &["jürgen@weir.example"],
            text("paul@club.example", "jürgen@weir.example", "Grüße", "Guten Tag, Jürgen!\n"),
        ),
        submitted(
            "from a UTF-8 mailbox",
            "jürgen",
            "jürgen@weir.example",
            &["alice@weir.example"],
            text("jürgen@weir.example", "alice@weir.example", "Grüße zurück", "Schöne Grüße!\n"),
        ),
        mx(
            "three recipients",
            "paul@club.example",
            &["alice@weir.example", "bob@weir.example", "carol@weir.example"],
            text("paul@club.example", "club@club.example", "Meeting on Friday", "At eight, as always.\n"),
        ),
        mx(
            "to the postmaster",
            "paul@club.example",
            &["postmaster@weir.example"],
            text("paul@club.example", "postmaster@weir.example", "A question", "Is my mail arriving?\n"),
        ),
        mx(
            "upper case in the domain",
            "paul@club.example",
            &["alice@WEIR.example"],
            text("paul@club.example", "alice@WEIR.example", "Shouting", "Domains have no case.\n"),
        ),
    ]
}

fn fates() -> Vec<Sample> {
    let refused =
        |title, way, from, to, code, content| Sample { title, way, from, to, content, fate: Fate::Refused(code) };
    let body = || text("paul@club.example", "someone@weir.example", "Hello", "Anybody there?\n");
    vec![
        refused("to an unknown recipient", Way::Mx, Some("paul@club.example"), &["nobody@weir.example"], 550, body()),
        refused(
            "a stranger wants to relay",
            Way::Mx,
            Some("paul@club.example"),
            &["victim@elsewhere.example"],
            550,
            body(),
        ),
        refused(
            "the percent hack",
            Way::Mx,
            Some("paul@club.example"),
            &["victim%elsewhere.example@weir.example"],
            550,
            body(),
        ),
        Sample {
            title: "to a domain that is down",
            way: Way::Submission("alice"),
            from: Some("alice@weir.example"),
            to: &["friend@down.example"],
            content: text("alice@weir.example", "friend@down.example", "Are you there?", "I will wait.\n"),
            fate: Fate::Queued,
        },
    ]
}

/// Real messages of 2002, ham and spam, from the SpamAssassin public corpus.
fn corpus() -> Vec<Sample> {
    macro_rules! sample {
        ($title:literal, $to:literal, $file:literal) => {
            mx($title, "list@club.example", &[$to], with_crlf(include_bytes!(concat!("mail/", $file, ".eml"))))
        };
    }
    vec![
        sample!("list mail", "alice@weir.example", "ham-d00502"),
        sample!("list mail", "bob@weir.example", "ham-d00523"),
        sample!("list mail", "carol@weir.example", "ham-d00885"),
        sample!("list mail", "alice@weir.example", "ham-d01386"),
        sample!("list mail", "bob@weir.example", "ham-d01566"),
        sample!("list mail", "carol@weir.example", "ham-d01578"),
        sample!("list mail", "alice@weir.example", "ham-d01640"),
        sample!("list mail", "bob@weir.example", "ham-d01713"),
        sample!("list mail", "carol@weir.example", "ham-d01499"),
        sample!("list mail", "alice@weir.example", "ham-d00644"),
        sample!("spam: windows tips", "bob@weir.example", "spam-d00047"),
        sample!("spam: your approval", "carol@weir.example", "spam-d00107"),
        sample!("spam: your family", "alice@weir.example", "spam-d00129"),
        sample!("spam: free money", "bob@weir.example", "spam-d00177"),
        sample!("spam: product", "carol@weir.example", "spam-d00344"),
        sample!("spam: broken charset", "alice@weir.example", "spam-d00359"),
    ]
}

fn head(from: &str, to: &str, subject: &str) -> String {
    format!(
        "From: {from}\nTo: {to}\nSubject: {subject}\nDate: Sun, 22 Nov 2026 10:00:00 +0000\nMessage-ID: <{:016x}@demo>\n",
        checksum(&[from, to, subject])
    )
}

/// FNV-1a, so that each sample's Message-ID is its own and stays the same.
fn checksum(texts: &[&str]) -> u64 {
    texts
        .iter()
        .flat_map(|t| t.bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A plain message; lines of `body` may end as they like.
pub fn text(from: &str, to: &str, subject: &str, body: &str) -> Vec<u8> {
    with_crlf(format!("{}\n{body}", head(from, to, subject)).as_bytes())
}

fn typed(from: &str, to: &str, subject: &str, kind: &str, body: &str) -> Vec<u8> {
    with_crlf(format!("{}MIME-Version: 1.0\nContent-Type: {kind}\n\n{body}", head(from, to, subject)).as_bytes())
}

/// A message whose MIME fields and body are given as one text.
fn whole(from: &str, to: &str, subject: &str, rest: &str) -> Vec<u8> {
    with_crlf(format!("{}{rest}", head(from, to, subject)).as_bytes())
}

fn multipart(kind: &str, parts: &[(&str, &str, &str)]) -> String {
    let mut out = format!("MIME-Version: 1.0\nContent-Type: multipart/{kind}; boundary=\"=_demo\"\n\n");
    for (content_type, encoding, body) in parts {
        write!(out, "--=_demo\nContent-Type: {content_type}\nContent-Transfer-Encoding: {encoding}\n\n{body}\n")
            .expect("a String takes any write");
    }
    out.push_str("--=_demo--\n");
    out
}

fn latin1() -> Vec<u8> {
    let mut message = typed("paul@club.example", "carol@weir.example", "Latin", "text/plain; charset=iso-8859-1", "");
    message.extend_from_slice(b"Gr\xfc\xdfe aus K\xf6ln\r\n");
    message
}

/// `bytes` pseudo-random octets as base64, 76 characters a line.
fn base64_lines(bytes: usize) -> String {
    use base64::Engine;
    let mut state = 0x1234_5678_9abc_def0_u64;
    let data: Vec<u8> = (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let text = base64::engine::general_purpose::STANDARD.encode(data);
    let mut out = String::with_capacity(text.len() + text.len() / 76 + 1);
    for line in text.as_bytes().chunks(76) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    out
}

/// Makes every line end CR LF, as a client must before it sends.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 30);
    let mut before = 0u8;
    for &byte in text {
        if byte == b'\n' && before != b'\r' {
            out.push(b'\r');
        }
        out.push(byte);
        before = byte;
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_at_least_thirty_of_every_kind() {
        let samples = all();
        assert!(samples.len() >= 30, "{}", samples.len());
        assert!(samples.iter().any(|s| s.content.len() > 5 * 1024 * 1024));
        assert!(samples.iter().any(|s| s.fate == Fate::Queued));
        assert!(samples.iter().all(|s| s.content.ends_with(b"\r\n")));
        let bare = |s: &Sample| s.content.windows(2).any(|w| w[1] == b'\n' && w[0] != b'\r');
        assert!(!samples.iter().any(bare));
    }
}
