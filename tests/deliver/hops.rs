//! A next hop with manners of choice, on a loopback port that the system picks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// How it behaves; the default is a polite server with PIPELINING.
#[derive(Clone, Debug)]
pub struct Manners {
    pub greeting: &'static str,
    pub rcpt: &'static str,
    pub after_dot: &'static str,
    pub chunking: bool,
    pub pipelining: bool,
    pub start_tls_fails: bool,
    /// STARTTLS that works.
    pub tls: Option<Tls>,
    /// More lines of EHLO.
    pub offers: &'static [&'static str],
    pub hang_at_greeting: bool,
    pub hang_after_dot: bool,
    /// The same, once it has taken so many messages.
    pub hang_from: usize,
    pub garbage: bool,
    pub close_mid_reply: bool,
    /// 354 although no recipient was accepted.
    pub data_anyway: bool,
    /// Recipients of one transaction, then `452 4.5.3`.
    pub recipients_max: usize,
    /// `421` to MAIL after so many messages.
    pub messages_max: usize,
    /// How long it thinks about the content.
    pub thinks: Duration,
    /// With more connections at once, `451 4.7.1` to RCPT.
    pub at_once_max: usize,
}

impl Manners {
    /// The default, for constants.
    pub const PLAIN: Manners = {
        Manners {
            greeting: "220 hop ready",
            rcpt: "250 2.1.5 ok",
            after_dot: "250 2.0.0 taken",
            chunking: false,
            pipelining: true,
            start_tls_fails: false,
            tls: None,
            offers: &["8BITMIME"],
            hang_at_greeting: false,
            hang_after_dot: false,
            hang_from: usize::MAX,
            garbage: false,
            close_mid_reply: false,
            data_anyway: false,
            recipients_max: usize::MAX,
            messages_max: usize::MAX,
            thinks: Duration::ZERO,
            at_once_max: usize::MAX,
        }
    };
}

impl Default for Manners {
    fn default() -> Self {
        Manners::PLAIN
    }
}

/// A message it took.
#[derive(Clone, Debug)]
pub struct Mail {
    pub mail_from: String,
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
}

pub struct Hop {
    pub port: u16,
    taken: Arc<Mutex<Vec<Mail>>>,
    connections: Arc<AtomicUsize>,
    crowd: Arc<Crowd>,
}

/// Connections that are open.
#[derive(Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One of them.
struct Guest(Arc<Crowd>);

impl Guest {
    fn new(crowd: Arc<Crowd>) -> Self {
        let now = crowd.now.fetch_add(1, Ordering::SeqCst) + 1;
        crowd.most.fetch_max(now, Ordering::SeqCst);
        Guest(crowd)
    }

    fn is_one_of_more_than(&self, most: usize) -> bool {
        self.0.now.load(Ordering::SeqCst) > most
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Hop {
    pub async fn start(manners: Manners) -> Self {
        Self::start_at("127.0.0.1:0", manners).await
    }

    pub async fn start_at(address: &str, manners: Manners) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let hop = Hop { port, taken: Arc::default(), connections: Arc::default(), crowd: Arc::default() };
        let (taken, connections, crowd) = (hop.taken.clone(), hop.connections.clone(), hop.crowd.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, manners.clone(), taken.clone(), Guest::new(crowd.clone())));
            }
        });
        hop
    }

    pub fn taken(&self) -> Vec<Mail> {
        self.taken.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The most that were open at once.
    pub fn at_once(&self) -> usize {
        self.crowd.most.load(Ordering::SeqCst)
    }
}

/// A certificate for 127.0.0.1 and who signed it.
#[derive(Clone)]
pub struct Tls {
    pub server: Arc<ServerConfig>,
    pub root: CertificateDer<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    pub fn new() -> Self {
        let key = || rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = key();
        let root = ca.self_signed(&ca_key).unwrap().der().clone();
        let own_key = key();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let own = own.signed_by(&own_key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::try_from(own_key.serialize_der()).unwrap();
        let server = builder.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).unwrap();
        Tls { server: Arc::new(server), root }
    }
}

pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

type Stream = BufReader<Box<dyn Wire>>;

async fn serve(
    stream: TcpStream,
    mut manners: Manners,
    taken: Arc<Mutex<Vec<Mail>>>,
    guest: Guest,
) -> std::io::Result<()> {
    let mut stream: Stream = BufReader::new(Box::new(stream));
    greet(&mut stream, &manners).await?;
    let mut mail = Mail { mail_from: String::new(), recipients: Vec::new(), content: Vec::new() };
    let mut messages = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let upper = line.to_ascii_uppercase();
        let verb = upper.split_whitespace().next().unwrap_or_default();
        match verb {
            "EHLO" => say_hello(&mut stream, &manners).await?,
            "STARTTLS" if manners.tls.is_some() => {
                say(&mut stream, "220 go").await?;
                let tls = manners.tls.take().expect("it is there");
                let acceptor = TlsAcceptor::from(tls.server);
                stream = BufReader::new(Box::new(acceptor.accept(stream.into_inner()).await?));
            }
            "STARTTLS" => {
                say(&mut stream, "220 go").await?;
                stream.write_all(b"this is no TLS record at all").await?;
                return Ok(());
            }
            "MAIL" if messages >= manners.messages_max => {
                say(&mut stream, "421 4.7.0 enough").await?;
                return Ok(());
            }
            "MAIL" => {
                mail.mail_from = line.trim_end().to_owned();
                mail.recipients.clear();
                say(&mut stream, "250 2.1.0 ok").await?;
            }
            "RCPT" if mail.recipients.len() >= manners.recipients_max => say(&mut stream, "452 4.5.3 too many").await?,
            "RCPT" if guest.is_one_of_more_than(manners.at_once_max) => say(&mut stream, "451 4.7.1 slow down").await?,
            "RCPT" => {
                if manners.rcpt.starts_with('2') {
                    mail.recipients.push(line.trim_end().to_owned());
                }
                say(&mut stream, manners.rcpt).await?;
                if manners.rcpt.starts_with("421") {
                    return Ok(());
                }
            }
            "DATA" if mail.recipients.is_empty() && !manners.data_anyway => {
                say(&mut stream, "503 5.5.1 no recipients").await?
            }
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                mail.content = read_data(&mut stream).await?;
                messages += 1;
                end(&mut stream, &manners, &mut mail, &taken).await?;
            }
            "BDAT" => {
                let bytes: usize = upper.split_whitespace().nth(1).unwrap().parse().unwrap();
                mail.content = vec![0; bytes];
                stream.read_exact(&mut mail.content).await?;
                messages += 1;
                end(&mut stream, &manners, &mut mail, &taken).await?;
            }
            "RSET" => say(&mut stream, "250 ok").await?,
            "QUIT" => return say(&mut stream, "221 bye").await,
            _ => say(&mut stream, "502 5.5.2 what").await?,
        }
    }
}

async fn greet(stream: &mut Stream, manners: &Manners) -> std::io::Result<()> {
    if manners.hang_at_greeting {
        std::future::pending::<()>().await;
    }
    if manners.garbage {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        stream.read_u8().await?;
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    say(stream, manners.greeting).await
}

async fn say_hello(stream: &mut Stream, manners: &Manners) -> std::io::Result<()> {
    if manners.close_mid_reply {
        return stream.write_all(b"250-hop\r\n250-PIPE").await.and(Err(std::io::ErrorKind::BrokenPipe.into()));
    }
    let offers = [
        (manners.pipelining, "PIPELINING"),
        (manners.chunking, "CHUNKING"),
        (manners.start_tls_fails || manners.tls.is_some(), "STARTTLS"),
    ];
    for (_, word) in offers.iter().filter(|(offered, _)| *offered) {
        say(stream, &format!("250-{word}")).await?;
    }
    for word in manners.offers {
        say(stream, &format!("250-{word}")).await?;
    }
    say(stream, "250 HELP").await
}

async fn end(stream: &mut Stream, manners: &Manners, mail: &mut Mail, taken: &Mutex<Vec<Mail>>) -> std::io::Result<()> {
    if manners.hang_after_dot || taken.lock().unwrap().len() >= manners.hang_from {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(manners.thinks).await;
    if !mail.recipients.is_empty() && manners.after_dot.starts_with('2') {
        taken.lock().unwrap().push(mail.clone());
    }
    mail.recipients.clear();
    say(stream, manners.after_dot).await
}

async fn read_data(stream: &mut Stream) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let start = content.len();
        stream.read_until(b'\n', &mut content).await?;
        let line = &content[start..];
        assert!(line.ends_with(b"\r\n"), "a bare LF in DATA");
        if line == b".\r\n" {
            content.truncate(start);
            return Ok(content);
        }
        if line.starts_with(b".") {
            content.remove(start);
        }
    }
}

async fn say(stream: &mut Stream, line: &str) -> std::io::Result<()> {
    stream.write_all(format!("{line}\r\n").as_bytes()).await
}
