//! A small POP3 client: reads a whole maildrop, over STLS or POP3S. I/O: TCP. RFC 1939, RFC 2595, RFC 5034.
//!
//! Fails with `io::Error`, whose text quotes what the server said instead of `+OK`.

use std::io;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::base::secret::Secret;
use crate::deliver::transport::connection::Wire;
use crate::wire::sasl::plain_message;

/// A maildrop of the demo holds less; more is not read.
const MAILDROP_BYTES_MAX: usize = 256 << 20;

/// How TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// POP3S.
    Implicit,
    /// STLS.
    Stls,
}

/// A session.
pub struct Pop3 {
    wire: BufReader<Box<dyn Wire>>,
}

impl Pop3 {
    /// Connects; TLS is up when this returns.
    /// # Errors
    /// Network, certificate, or a server that says no.
    pub async fn open(address: SocketAddr, tls: Tls, connector: &TlsConnector, host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut session = Pop3 { wire: BufReader::new(Box::new(stream)) };
        if tls == Tls::Stls {
            session.answer().await?;
            session.ask("STLS").await?;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let wire = connector.connect(name, session.wire.into_inner()).await?;
        let mut session = Pop3 { wire: BufReader::new(Box::new(wire)) };
        if tls == Tls::Implicit {
            session.answer().await?;
        }
        Ok(session)
    }

    /// Logs in by AUTH PLAIN, which takes user names in UTF-8.
    /// # Errors
    /// As for [`Pop3::open`].
    pub async fn login(&mut self, user: &str, password: &Secret) -> io::Result<()> {
        let message = STANDARD.encode(plain_message(user, password));
        self.ask(&format!("AUTH PLAIN {message}")).await.map(drop)
    }

    /// All messages, as they are stored.
    /// # Errors
    /// As for [`Pop3::open`].
    pub async fn messages(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let stat = self.ask("STAT").await?;
        let count = stat.split(' ').nth(1).and_then(|count| count.parse::<usize>().ok());
        let count = count.ok_or_else(|| io::Error::other(format!("STAT: {stat}")))?;
        let (mut messages, mut bytes) = (Vec::new(), 0);
        for number in 1..=count {
            self.ask(&format!("RETR {number}")).await?;
            let message = self.lines().await?;
            bytes += message.len();
            if bytes > MAILDROP_BYTES_MAX {
                return Err(io::Error::other("the maildrop is larger than the demo's mail"));
            }
            messages.push(message);
        }
        Ok(messages)
    }

    /// Ends the session.
    /// # Errors
    /// As for [`Pop3::open`].
    pub async fn quit(mut self) -> io::Result<()> {
        self.ask("QUIT").await.map(drop)
    }

    async fn ask(&mut self, command: &str) -> io::Result<String> {
        self.wire.get_mut().write_all(format!("{command}\r\n").as_bytes()).await?;
        self.wire.get_mut().flush().await?;
        self.answer().await
    }

    async fn answer(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.wire.read_line(&mut line).await?;
        let line = line.trim_end();
        if line.starts_with("+OK") { Ok(line.to_owned()) } else { Err(io::Error::other(format!("POP3 said: {line}"))) }
    }

    /// The lines up to the lone dot, unstuffed (RFC 1939 §3).
    async fn lines(&mut self) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        loop {
            let start = message.len();
            if self.wire.read_until(b'\n', &mut message).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if message[start..] == *b".\r\n" {
                message.truncate(start);
                return Ok(message);
            }
            if message[start] == b'.' {
                message.remove(start);
            }
            if message.len() > MAILDROP_BYTES_MAX {
                return Err(io::Error::other("the message does not end"));
            }
        }
    }
}
