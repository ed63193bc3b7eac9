//! A next hop that behaves as a test tells it, and a client that speaks line by line.
#![allow(dead_code, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How the hop treats its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Manner {
    Good,
    /// Takes the content and never says a word about it.
    HangAfterDot,
    /// Greets with what is no reply.
    Garbage,
    /// Breaks off in the middle of the reply to MAIL.
    CloseMidReply,
    /// `451` to the content.
    DeferAfterDot,
    /// `421` for a greeting.
    Busy,
}

const MANNERS: [Manner; 6] =
    [Manner::Good, Manner::HangAfterDot, Manner::Garbage, Manner::CloseMidReply, Manner::DeferAfterDot, Manner::Busy];

/// What a hop answered with 250.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// MAIL and RCPT as they came.
    pub envelope: Vec<String>,
    pub content: Vec<u8>,
}

impl Taken {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// The server.
pub struct Hop {
    pub port: u16,
    manner: Arc<AtomicU8>,
    pub taken: Arc<Mutex<Vec<Taken>>>,
}

impl Hop {
    /// Offers `keywords` in EHLO and LHLO.
    pub fn start(manner: Manner, keywords: &'static [&'static str]) -> Self {
        Self::start_at("127.0.0.1:0", manner, keywords)
    }

    /// The same at an address.
    pub fn start_at(address: &str, manner: Manner, keywords: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let hop = Hop { port, manner: Arc::new(AtomicU8::new(manner as u8)), taken: Arc::default() };
        let (manner, taken) = (hop.manner.clone(), hop.taken.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (manner, taken) = (manner.clone(), taken.clone());
                std::thread::spawn(move || serve(stream, &manner, keywords, &taken));
            }
        });
        hop
    }

    /// From now on, also on connections that are open.
    pub fn become_(&self, manner: Manner) {
        self.manner.store(manner as u8, Ordering::Relaxed);
    }

    pub fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    pub fn all(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }
}

fn manner_of(value: &AtomicU8) -> Manner {
    MANNERS[usize::from(value.load(Ordering::Relaxed))]
}

fn serve(stream: TcpStream, manner: &AtomicU8, keywords: &[&str], taken: &Mutex<Vec<Taken>>) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    let mut message = Taken::default();
    match manner_of(manner) {
        Manner::Garbage => {
            out.write_all(&[b'\x07'; 3000]).ok()?;
            out.write_all(b"\r\n\xff\xfe 250\r\n").ok()?;
        }
        Manner::Busy => return out.write_all(b"421 4.3.2 busy\r\n").ok(),
        _ => out.write_all(b"220 hop ready\r\n").ok()?,
    }
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let reply = match verb.as_str() {
            "EHLO" | "LHLO" => {
                let mut text = "250-hop\r\n".to_owned();
                keywords.iter().for_each(|keyword| text.push_str(&format!("250-{keyword}\r\n")));
                text + "250 HELP\r\n"
            }
            "MAIL" if manner_of(manner) == Manner::CloseMidReply => {
                out.write_all(b"250-2.1.0 yes, bu").ok()?;
                return None;
            }
            "MAIL" | "RCPT" => {
                message.envelope.push(line.clone());
                "250 2.1.0 Ok\r\n".to_owned()
            }
            "DATA" => {
                out.write_all(b"354 go\r\n").ok()?;
                message.content = data(&mut input)?;
                finish(manner_of(manner), &mut message, taken)?
            }
            "BDAT" => {
                let mut words = line.split(' ').skip(1);
                let bytes = words.next()?.parse().ok()?;
                let mut chunk = vec![0; bytes];
                input.read_exact(&mut chunk).ok()?;
                message.content.extend(chunk);
                if words.next().is_some() {
                    finish(manner_of(manner), &mut message, taken)?
                } else {
                    "250 2.0.0 Ok\r\n".into()
                }
            }
            "QUIT" => return out.write_all(b"221 bye\r\n").ok(),
            _ => "250 2.0.0 Ok\r\n".to_owned(),
        };
        out.write_all(reply.as_bytes()).ok()?;
    }
}

fn finish(manner: Manner, message: &mut Taken, taken: &Mutex<Vec<Taken>>) -> Option<String> {
    match manner {
        Manner::HangAfterDot => {
            std::thread::sleep(Duration::from_secs(600));
            None
        }
        Manner::DeferAfterDot => Some("451 4.3.0 later\r\n".into()),
        _ => {
            taken.lock().unwrap().push(std::mem::take(message));
            Some("250 2.0.0 taken\r\n".into())
        }
    }
}

fn data(input: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut content: Vec<u8> = Vec::new();
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if line == b".\r\n" && (content.is_empty() || content.ends_with(b"\r\n")) {
            return Some(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

/// A client that looks at every reply.
pub struct Client {
    input: BufReader<TcpStream>,
}

impl Client {
    /// Connects and reads the banner.
    pub fn connect(address: &str) -> Self {
        let mut client = Self::silent(address);
        let banner = client.reply();
        assert!(banner.starts_with("220"), "{banner}");
        client
    }

    /// Connects and reads nothing.
    pub fn silent(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the gateway listens");
        stream.set_read_timeout(Some(super::support::PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { input: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // What the server closed is found by reading.
        let _ = self.input.get_mut().write_all(bytes.as_ref());
    }

    /// The next reply, whole; empty at the end.
    pub fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let from = text.len();
            match self.input.read_line(&mut text) {
                Ok(read) if read > 0 && text.as_bytes().get(from + 3) == Some(&b'-') => {}
                _ => return text.trim_end().to_owned(),
            }
        }
    }

    /// Sends a line; gives the reply.
    pub fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// All until the end.
    pub fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.input.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// EHLO, MAIL, RCPT, DATA with `content` (dots stuffed already); gives the last reply.
    pub fn mail(&mut self, from: &str, to: &str, content: &str) -> String {
        self.command("EHLO client.test");
        self.command(&format!("MAIL FROM:<{from}>"));
        let said = self.command(&format!("RCPT TO:<{to}>"));
        if !said.starts_with("250") {
            return said;
        }
        let said = self.command("DATA");
        if !said.starts_with("354") {
            return said;
        }
        self.command(&format!("{content}\r\n."))
    }
}

/// Sends one message over a connection of its own; gives the last reply.
pub fn send(address: &str, from: &str, to: &str, content: &str) -> String {
    Client::connect(address).mail(from, to, content)
}
