//! One connection and what is true of it. I/O: owns the socket.
//!
//! Idle, it holds no buffer: bytes are read into the reactor's one buffer, and only what a conversation could not use
//! (`rest`) or the socket did not take (`unsent`) is kept here, in vectors of just that size.

use std::io::{self, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;
use rustls::ServerConnection;

use super::gate::Place;
use super::service::{Peer, Refusal};
use crate::base::machine::{Control, Machine, TlsFacts};

/// How far a connection has come.
pub(super) enum Talk<M> {
    /// Just accepted.
    Arriving,
    /// A PROXY header must come first.
    Introduction,
    /// Implicit TLS: the conversation opens after the handshake.
    Handshake,
    /// The conversation.
    Open(M),
    /// Only what is still to be written matters; then it closes.
    Leaving,
    /// Our side is closed; the peer's last bytes are thrown away so that it can read ours.
    Lingering {
        /// How many more.
        bytes_left: usize,
    },
}

/// TLS of a connection.
pub(super) struct Tls {
    pub session: ServerConnection,
    /// The handshake is complete and was told to the conversation.
    pub up: bool,
}

/// One connection of a reactor.
pub(super) struct Connection<M> {
    pub stream: TcpStream,
    pub tls: Option<Box<Tls>>,
    pub talk: Talk<M>,
    pub peer: Peer,
    /// Input that was read and not yet used.
    pub rest: Vec<u8>,
    /// Plain output that the socket did not take yet.
    pub unsent: Vec<u8>,
    /// What to do once everything is written.
    pub then: Option<Control>,
    /// End of a handshake, a linger, or the patience with a peer that does not read; the conversation has timeouts of its own.
    pub deadline: Option<Instant>,
    /// Tick of the timer entry that is valid.
    pub timer: Option<u64>,
    /// The last time that bytes came in.
    pub active: Instant,
    pub flags: Flags,
    pub place: Option<Place>,
}

/// Facts of a connection that are independent of each other.
#[derive(Default)]
pub(super) struct Flags {
    /// The socket may have bytes (edge-triggered: true until a read comes back short).
    pub readable: bool,
    /// The poll said that the peer closed its side, so a short read is not the end of news.
    pub hung_up: bool,
    /// The end of input was read.
    pub eof: bool,
    /// And told to the conversation.
    pub eof_told: bool,
    /// A question is open.
    pub asking: bool,
    /// It stands in the reactor's list for another turn.
    pub queued: bool,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The conversation said so and all was written.
    Closed,
    /// The peer closed and there is nothing left to do.
    Gone,
    /// The socket failed.
    Socket(io::Error),
    /// TLS failed.
    Tls(rustls::Error),
    /// The PROXY header is missing or wrong.
    Proxy(&'static str),
    /// Too many connections, found after a PROXY header.
    Refused(Refusal),
    /// A handshake, PROXY header or linger took too long, or the peer does not read.
    Timeout,
    /// A question was not answered.
    Lost,
    /// The conversation does not use its input.
    Stuck,
    /// The server's deadline for stopping has passed.
    Cut,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Socket(error)
    }
}

impl<M: Machine> Connection<M> {
    /// True if output waits for the socket.
    pub fn has_backlog(&self) -> bool {
        !self.unsent.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.session.wants_write())
    }

    /// True if more input has a use now.
    pub fn wants_input(&self) -> bool {
        !self.flags.asking && !self.flags.eof && self.then.is_none() && !self.has_backlog()
    }

    /// True during the TLS handshake, when the conversation must not run.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.up)
    }

    /// When to look at it again if nothing happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let machine = match &self.talk {
            Talk::Open(machine) => machine.poll_timeout(),
            _ => None,
        };
        match (self.deadline, machine) {
            (Some(own), Some(machine)) => Some(own.min(machine)),
            (own, machine) => own.or(machine),
        }
    }

    /// Reads into `buffer`: `None` if there is nothing now, 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.flags.readable {
            return Ok(None);
        }
        loop {
            match self.stream.read(buffer) {
                Ok(read) => {
                    // A short read means that the socket is empty (epoll(7)), which saves one system call in two.
                    self.flags.readable = read == buffer.len() || self.flags.hung_up;
                    self.flags.eof |= read == 0;
                    return Ok(Some(read));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.flags.readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes `output`, or as much of it as the socket and TLS take; the remainder is kept. Returns bytes written.
    pub fn write(&mut self, output: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.write_plain(output) };
        if !output.is_empty() {
            tls.session.writer().write_all(output)?;
        }
        let mut total = 0;
        while tls.session.wants_write() {
            match tls.session.write_tls(&mut self.stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => total += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    fn write_plain(&mut self, output: &[u8]) -> io::Result<usize> {
        if self.unsent.is_empty() {
            let written = write_some(&mut self.stream, output)?;
            self.unsent = output[written..].to_vec();
            return Ok(written);
        }
        self.unsent.extend_from_slice(output);
        let written = write_some(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..written);
        if self.unsent.is_empty() {
            self.unsent = Vec::new();
        }
        Ok(written)
    }

    /// What the finished handshake agreed on.
    pub fn tls_facts(&self) -> Option<TlsFacts> {
        let session = &self.tls.as_ref()?.session;
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        };
        let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        Some(TlsFacts {
            version,
            // rustls names TLS 1.3 suites `TLS13_…`; the registry (RFC 8446 §B.4) `TLS_…`.
            cipher: suite.unwrap_or_default().replace("TLS13_", "TLS_"),
            server_name: session.server_name().map(str::to_owned),
            peer_names: Vec::new(),
        })
    }
}

/// Writes until all is written or the socket is full.
fn write_some(stream: &mut TcpStream, output: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < output.len() {
        match stream.write(&output[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_leaves_room_for_its_conversation_in_one_kibibyte() {
        // `()` for the machine: what is measured is the front end's part.
        assert!(size_of::<Connection<()>>() <= 256, "{} bytes", size_of::<Connection<()>>());
    }
}
