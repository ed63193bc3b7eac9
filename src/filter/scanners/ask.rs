//! Carries a question to a scanner and its answer back. I/O: TCP and unix sockets on tokio; HTTP/1.1 by hyper.
//!
//! One connection a question. What is read is bounded; whoever calls sets the time.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::milter::{Conversation, End, Transaction};
use crate::config::scanners::ScannerPlace;
use crate::wire::checkv2::Judgement;
use crate::wire::milter::{MilterFault, Options};
use crate::wire::{clamd, date, spamd};

/// Longest answer of spamd and Rspamd that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 16 * 1024;

/// Finds the addresses of a host; given by whoever owns the resolver.
pub type Resolve = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync>;

/// Why a scanner gave no answer.
#[derive(Debug)]
pub enum ScanFault {
    /// All places are taken for longer than its timeout, or it was left alone for a while after many failures.
    Busy(&'static str),
    /// It answered what is no answer.
    Garbage(String),
    /// It said that it can't.
    Said(String),
    /// It can't be reached, or broke off.
    Socket(io::Error),
    /// It took too long.
    Timeout,
}

impl fmt::Display for ScanFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScanFault::Busy(why) => f.write_str(why),
            ScanFault::Garbage(what) => write!(f, "no answer of this protocol: {what}"),
            ScanFault::Said(text) => write!(f, "it said: {text}"),
            ScanFault::Socket(error) => error.fmt(f),
            ScanFault::Timeout => f.write_str("no answer in time"),
        }
    }
}

impl From<io::Error> for ScanFault {
    fn from(error: io::Error) -> Self {
        ScanFault::Socket(error)
    }
}

impl From<MilterFault> for ScanFault {
    fn from(fault: MilterFault) -> Self {
        ScanFault::Garbage(fault.to_string())
    }
}

/// Any connected socket.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn connect(place: &ScannerPlace, resolve: &Resolve) -> io::Result<Box<dyn Stream>> {
    let (host, port) = match place {
        ScannerPlace::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        ScannerPlace::Tcp(host, port) => (host, *port),
    };
    let addresses = match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => resolve(host.clone()).await?,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for ip in addresses {
        match TcpStream::connect(SocketAddr::new(ip, port)).await {
            Ok(stream) => {
                // Packets are small and each waits for its answer.
                stream.set_nodelay(true)?;
                return Ok(Box::new(stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Streams `content` to clamd; nothing for clean, or the signature's name.
pub async fn clamd(place: &ScannerPlace, resolve: &Resolve, content: &[u8]) -> Result<Option<String>, ScanFault> {
    let mut stream = connect(place, resolve).await?;
    // clamd answers and closes as soon as the stream is above its limit; the answer counts, not the broken pipe.
    let sent = send_chunks(&mut stream, content).await;
    let mut answer = Vec::new();
    let read = (&mut stream).take(clamd::ANSWER_BYTES_MAX as u64).read_to_end(&mut answer).await;
    let line = answer.split(|byte| *byte == 0).next().unwrap_or_default();
    match clamd::parse(line) {
        Some(clamd::Answer::Clean) if sent.is_ok() => Ok(None),
        Some(clamd::Answer::Found(name)) => Ok(Some(name)),
        Some(clamd::Answer::Error(text)) => Err(ScanFault::Said(text)),
        _ => {
            sent?;
            read?;
            Err(ScanFault::Garbage(shown(line)))
        }
    }
}

async fn send_chunks(stream: &mut (impl AsyncWrite + Unpin), content: &[u8]) -> io::Result<()> {
    stream.write_all(clamd::INSTREAM).await?;
    for chunk in content.chunks(clamd::CHUNK_BYTES) {
        stream.write_all(&clamd::chunk_head(chunk)).await?;
        stream.write_all(chunk).await?;
    }
    stream.write_all(&clamd::END).await?;
    stream.flush().await
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).take(80).collect()
}

/// Asks spamd for score and symbols.
pub async fn spamd(
    place: &ScannerPlace,
    resolve: &Resolve,
    subject: &Transaction,
) -> Result<spamd::Response, ScanFault> {
    let content = subject.content.as_deref().unwrap_or_default();
    // spamd knows nothing of the client but what the topmost Received field says.
    let trace = trace(subject);
    let mut stream = connect(place, resolve).await?;
    stream.write_all(spamd::request(spamd::Verb::Symbols, trace.len() + content.len()).as_bytes()).await?;
    stream.write_all(trace.as_bytes()).await?;
    stream.write_all(content).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX as u64).read_to_end(&mut answer).await?;
    let response = spamd::Response::parse(&answer).ok_or_else(|| ScanFault::Garbage(shown(&answer)))?;
    if response.code != spamd::code::OK.0 || response.score.is_none() {
        return Err(ScanFault::Said(format!("code {}", response.code)));
    }
    Ok(response)
}

fn trace(subject: &Transaction) -> String {
    let clean = |text: &str| {
        text.chars().map(|c| if c.is_ascii_graphic() && !"()[]".contains(c) { c } else { '?' }).collect::<String>()
    };
    let ip = subject.ip.map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_canonical().to_string());
    let host = subject.host.as_deref().map_or_else(|| "unknown".to_owned(), clean);
    let helo = if subject.helo.is_empty() { "unknown".to_owned() } else { clean(&subject.helo) };
    let protocol = if subject.login.is_some() { "ESMTPA" } else { "ESMTP" };
    format!(
        "Received: from {helo} ({host} [{ip}])\r\n\tby {} with {protocol} id {}\r\n\t(envelope-from <{}>); {}\r\n",
        subject.hostname,
        subject.id,
        clean(&subject.sender),
        date::rfc5322(SystemTime::now())
    )
}

/// Asks Rspamd by HTTP.
pub async fn rspamd(place: &ScannerPlace, resolve: &Resolve, subject: &Transaction) -> Result<Judgement, ScanFault> {
    let stream = connect(place, resolve).await?;
    let http = |error: hyper::Error| ScanFault::Garbage(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let pump = tokio::spawn(connection);
    let body = Full::new(Bytes::copy_from_slice(subject.content.as_deref().unwrap_or_default()));
    let mut request = hyper::Request::new(body);
    *request.method_mut() = hyper::Method::POST;
    *request.uri_mut() = hyper::Uri::from_static("/checkv2");
    for (name, value) in rspamd_fields(subject) {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            request.headers_mut().append(HeaderName::from_static(name), value);
        }
    }
    let answer = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| ScanFault::Garbage(error.to_string()))?.to_bytes();
        if !status.is_success() {
            return Err(ScanFault::Said(format!("{status} {}", shown(&body))));
        }
        Judgement::parse(&body).ok_or_else(|| ScanFault::Garbage(shown(&body)))
    };
    let answer = answer.await;
    pump.abort();
    answer
}

fn rspamd_fields(subject: &Transaction) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("host", "rspamd".to_owned()),
        ("from", subject.sender.clone()),
        ("helo", subject.helo.clone()),
        ("queue-id", subject.id.clone()),
        ("mta-name", subject.hostname.clone()),
    ];
    fields.extend(subject.recipients.iter().map(|recipient| ("rcpt", recipient.clone())));
    fields.extend(subject.ip.map(|ip| ("ip", ip.to_canonical().to_string())));
    fields.extend(subject.host.iter().map(|host| ("hostname", host.clone())));
    fields.extend(subject.login.iter().map(|login| ("user", login.clone())));
    fields.retain(|(name, value)| !value.is_empty() || *name == "from");
    fields
}

/// Plays a milter conversation; each answer may take `patience`.
pub async fn milter(
    place: &ScannerPlace,
    resolve: &Resolve,
    subject: Transaction,
    patience: Duration,
) -> Result<(End, Options), ScanFault> {
    let late = |_| ScanFault::Timeout;
    let mut stream = timeout(patience, connect(place, resolve)).await.map_err(late)??;
    let mut conversation = Conversation::new(subject);
    let (mut out, mut input) = (Vec::new(), Vec::new());
    loop {
        conversation.poll_output(&mut out);
        if !out.is_empty() {
            timeout(patience, stream.write_all(&out)).await.map_err(late)??;
            out.clear();
        } else if conversation.end().is_none() {
            let mut piece = [0; READ_BYTES];
            let read = timeout(patience, stream.read(&mut piece)).await.map_err(late)??;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            input.extend_from_slice(&piece[..read]);
            let used = conversation.handle_input(&input)?;
            input.drain(..used);
        }
        if let Some(end) = conversation.end() {
            // Whether the milter hears our good-bye changes nothing.
            conversation_over(&mut stream).await;
            return Ok((end.clone(), conversation.options().unwrap_or_default()));
        }
    }
}

async fn conversation_over(stream: &mut (impl AsyncWrite + Unpin)) {
    let mut quit = Vec::new();
    crate::wire::milter::put(&mut quit, crate::wire::milter::command::QUIT, &[]);
    let _ = stream.write_all(&quit).await;
}
