//! We as spamd: one request of spamc, Exim, MailScanner and their like a connection. I/O: its socket.
//!
//! CHECK, SYMBOLS, REPORT, REPORT_IFSPAM, HEADERS, PROCESS, PING, SKIP; TELL where `[service] learn` allows it. The protocol
//! says nothing of client and envelope, so SPF is asked about what the topmost `Received` field tells.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::{self, Read};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::listen::Desk;
use super::{Case, Fate, Judgement};
use crate::base::content::Content;
use crate::wire::header::{fields, kept_parts};
use crate::wire::spamd::{HEAD_BYTES_MAX, PONG, Request, Verb, code, head_length, is_lone_line, response};

const READ_BYTES: usize = 64 * 1024;

/// Serves one connection.
pub async fn serve(mut stream: TcpStream, desk: &Desk) -> io::Result<()> {
    let answer = answer(&mut stream, desk).await?;
    timeout(desk.settings.timeout, stream.write_all(&answer)).await??;
    stream.shutdown().await
}

fn refusal((number, name): (u8, &str), why: &str) -> Vec<u8> {
    response((number, &format!("{name} {why}")), &[], None, b"")
}

async fn answer(stream: &mut TcpStream, desk: &Desk) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(length) = head_length(&bytes) {
            break length;
        }
        let ended = more(stream, desk, &mut bytes).await?;
        if is_lone_line(&bytes) || ended {
            break head_length(&bytes).unwrap_or(bytes.len());
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Ok(refusal(code::USAGE, "The head is too long"));
        }
    };
    let request = match Request::parse(&bytes[..head]) {
        Ok(request) => request,
        Err(malformed) => return Ok(refusal(code::USAGE, malformed.0)),
    };
    match request.verb {
        Verb::Ping => return Ok(PONG.to_vec()),
        Verb::Skip => return Ok(Vec::new()),
        _ => {}
    }
    if request.length.is_some_and(|length| length > desk.settings.size) {
        return Ok(refusal(code::DATA, "The message is too large"));
    }
    bytes.drain(..head);
    while request.length.is_none_or(|length| (bytes.len() as u64) < length) {
        if more(stream, desk, &mut bytes).await? {
            break;
        }
        if bytes.len() as u64 > desk.settings.size {
            return Ok(refusal(code::DATA, "The message is too large"));
        }
    }
    // spamd itself calls a message whose length is not the announced one an error.
    if request.length.is_some_and(|length| bytes.len() as u64 != length) {
        return Ok(refusal(code::DATA, "Content-Length mismatch"));
    }
    let message = if request.zlib { inflate(&bytes, desk.settings.size) } else { Some(bytes) };
    let Some(message) = message else { return Ok(refusal(code::DATA, "The message can't be unpacked")) };
    let content = content_of(desk, &message)?;
    drop(message);
    Ok(match request.verb {
        Verb::Tell => tell(desk, &request, content).await,
        verb => match desk.judge(Case::of("spamd", content.clone())).await {
            Some(judgement) => judged(verb, &content, &judgement),
            None => refusal(code::TEMPFAIL, "Busy, try again later"),
        },
    })
}

/// Reads a piece; true at the end.
async fn more(stream: &mut TcpStream, desk: &Desk, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = vec![0; READ_BYTES];
    let read = timeout(desk.settings.timeout, stream.read(&mut piece)).await??;
    bytes.extend_from_slice(&piece[..read]);
    Ok(read == 0)
}

fn content_of(desk: &Desk, bytes: &[u8]) -> io::Result<Content> {
    let mut builder = desk.judge.content().builder();
    builder.append(bytes)?;
    builder.finish()
}

/// At most `most` bytes of what zlib packed; nothing if it is damaged or larger.
fn inflate(bytes: &[u8], most: u64) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::ZlibDecoder::new(bytes).take(most + 1).read_to_end(&mut out).ok()?;
    (out.len() as u64 <= most).then_some(out)
}

async fn tell(desk: &Desk, request: &Request, content: Content) -> Vec<u8> {
    if !desk.settings.learn {
        return refusal(code::UNAVAILABLE, "Service Unavailable: TELL commands are not enabled; set [service] learn");
    }
    let Some(spam) = request.class.filter(|_| request.sets_local) else {
        return refusal(code::UNAVAILABLE, "Only Set: local with a Message-class is known");
    };
    match desk.judge.learn(content, spam).await {
        true => response(code::OK, &[("DidSet", "local")], None, b""),
        false => refusal(code::TEMPFAIL, "Nothing here learns"),
    }
}

fn judged(verb: Verb, content: &Content, judgement: &Judgement) -> Vec<u8> {
    // A message that is to be refused is spam to whoever only knows yes and no.
    let spam = judgement.spam || matches!(&judgement.fate, Fate::Refuse(reply) if reply.is_permanent());
    let names: Vec<&str> = judgement.symbols.iter().map(|symbol| symbol.name.as_str()).collect();
    let body = match verb {
        Verb::Symbols => format!("{}\r\n", names.join(",")).into_bytes(),
        Verb::Report => report(judgement).into_bytes(),
        Verb::ReportIfSpam if spam => report(judgement).into_bytes(),
        Verb::Headers => {
            let honest = without(content, &judgement.forged);
            [&judgement.fields, header_of(&honest), b"\r\n"].concat()
        }
        Verb::Process => [&judgement.fields, &without(content, &judgement.forged)[..]].concat(),
        Verb::Check | Verb::Ping | Verb::ReportIfSpam | Verb::Skip | Verb::Tell => Vec::new(),
    };
    response(code::OK, &[], Some((spam, judgement.score, judgement.tag)), &body)
}

/// The message without the fields that only we may assert.
fn without(content: &[u8], forged: &[(String, u32)]) -> Vec<u8> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut cut = Vec::new();
    for field in fields(content).filter(|_| !forged.is_empty()) {
        let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
        let nth = seen.entry(name.clone()).and_modify(|count| *count += 1).or_insert(1);
        if forged.iter().any(|(forged, index)| forged.eq_ignore_ascii_case(&name) && index == nth) {
            cut.push(field.range);
        }
    }
    kept_parts(content, &cut).concat()
}

fn header_of(content: &[u8]) -> &[u8] {
    let mut walk = fields(content);
    walk.by_ref().for_each(drop);
    &content[..walk.position()]
}

/// The table that SpamAssassin's users know.
fn report(judgement: &Judgement) -> String {
    let mut text = format!(
        "Weir judged this message. Reference: {}\r\n\r\nContent analysis details:   ({:.1} points, {:.1} required)\r\n\r\n",
        judgement.id, judgement.score, judgement.tag
    );
    text.push_str(" pts rule name              description\r\n---- ---------------------- --------------------------------------------------\r\n");
    for symbol in &judgement.symbols {
        write!(text, "{:>4.1} {:<22} {}\r\n", symbol.score, symbol.name, symbol.description)
            .expect("a String takes any write");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    // spamc -E --headers gave a stranger's `X-Spam-Flag` back below ours.
    #[test]
    fn what_a_stranger_asserted_is_not_given_back() {
        let mail = b"X-Spam-Flag: NO\r\nSubject: x\r\nReturn-Path: <a>\r\nx-spam-flag: YES\r\nReturn-Path: <b>\r\n\r\nX-Spam-Flag: body\r\n";
        let forged = [("X-Spam-Flag".to_owned(), 1), ("X-Spam-Flag".to_owned(), 2), ("Return-Path".to_owned(), 2)];
        assert_eq!(without(mail, &forged), b"Subject: x\r\nReturn-Path: <a>\r\n\r\nX-Spam-Flag: body\r\n");
        assert_eq!(without(mail, &[]), mail);
    }

    #[test]
    fn what_unpacks_beyond_the_bound_is_refused() {
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(&[b'x'; 5000]).unwrap();
        let packed = packer.finish().unwrap();
        assert_eq!(inflate(&packed, 5000).map(|bytes| bytes.len()), Some(5000));
        assert_eq!(inflate(&packed, 4999), None);
        assert_eq!(inflate(b"no zlib", 4999), None);
    }
}
