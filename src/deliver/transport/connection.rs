//! One connection to a next hop: bytes in and out under deadlines, around the sans-IO machines. I/O: TCP, unix sockets.
//!
//! Small pieces are gathered into one write with the commands around them; large ones go to the socket from where they lie, which
//! for old mail is the mapped segment. sendfile is not used: over loopback it saved 0.1 ms of CPU per MiB (0.1 to 0.2 against 0.2 to 0.3)
//! and no wall time, only for BDAT in the clear, and every content would have to carry its file.

use std::fmt;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::smtp::client::Protocol;
use crate::smtp::client::capabilities::Capabilities;
use crate::smtp::client::plan::Link;
use crate::smtp::client::reply::{RemoteReply, ReplyFault, ReplyReader};

/// A byte stream of whatever kind.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A piece from this size on is not copied into the write buffer. Copying less costs less than another I/O vector.
const COPY_BYTES_MAX: usize = 16 * 1024;
/// The write buffer is sent when it holds this much.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Bytes read at once; replies are short.
const READ_BYTES: usize = 4096;

/// Why a connection is of no more use.
#[derive(Debug)]
pub enum WireFault {
    /// The peer closed.
    Closed,
    /// The socket failed.
    Io(io::Error),
    /// What came is no reply.
    Garbage(ReplyFault),
    /// Nothing came in time, or nothing could be written.
    TimedOut,
}

impl fmt::Display for WireFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireFault::Closed => f.write_str("the connection was closed"),
            WireFault::Io(error) => write!(f, "the connection failed: {error}"),
            WireFault::Garbage(fault) => write!(f, "the server talks nonsense: {fault}"),
            WireFault::TimedOut => f.write_str("the server did not answer in time"),
        }
    }
}

impl From<io::Error> for WireFault {
    fn from(error: io::Error) -> Self {
        WireFault::Io(error)
    }
}

/// The connection.
pub struct Connection {
    wire: Box<dyn Wire>,
    reader: ReplyReader,
    input: Box<[u8; READ_BYTES]>,
    /// Commands to be sent with the next flush.
    pub out: Vec<u8>,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// What the server offers.
    pub offers: Capabilities,
    /// TLS is on.
    pub encrypted: bool,
    /// What TLS proved, in the words of the metric.
    pub tls: &'static str,
    /// `mx.example.org [192.0.2.1]`.
    pub peer: Arc<str>,
    /// Transactions that ended on it.
    pub transactions: usize,
    /// RSET must come before the next MAIL.
    pub reset_due: bool,
    /// When it was last used.
    pub used: Instant,
}

impl Connection {
    /// Around a stream that has said nothing yet.
    pub fn new(wire: Box<dyn Wire>, protocol: Protocol, peer: Arc<str>) -> Self {
        Connection {
            wire,
            reader: ReplyReader::default(),
            input: Box::new([0; READ_BYTES]),
            out: Vec::new(),
            protocol,
            offers: Capabilities::default(),
            encrypted: false,
            tls: "plain",
            peer,
            transactions: 0,
            reset_due: false,
            used: Instant::now(),
        }
    }

    /// The line as REQUIRETLS sees it. A session for such mail was opened on its terms; LMTP without TLS is used for it only
    /// on this machine.
    pub fn link(&self) -> Link {
        match () {
            () if self.encrypted => Link::Encrypted,
            () if self.protocol == Protocol::Lmtp => Link::Local,
            () => Link::Plain,
        }
    }

    /// Takes the stream out to begin TLS on it; what was read in the clear is dropped (RFC 3207 §4.2).
    pub fn into_wire(self) -> Box<dyn Wire> {
        self.wire
    }

    /// The next reply.
    /// # Errors
    /// See [`WireFault`].
    pub async fn reply(&mut self, wait: Duration) -> Result<RemoteReply, WireFault> {
        if let Some(reply) = self.reader.next_reply().map_err(WireFault::Garbage)? {
            return Ok(reply);
        }
        let (reader, wire, input) = (&mut self.reader, &mut self.wire, &mut self.input);
        let read = async {
            loop {
                let count = wire.read(&mut input[..]).await?;
                if count == 0 {
                    return Err(WireFault::Closed);
                }
                reader.feed(&input[..count]);
                if let Some(reply) = reader.next_reply().map_err(WireFault::Garbage)? {
                    return Ok(reply);
                }
            }
        };
        // One deadline for the whole reply, so that a byte a minute does not hold a worker for ever.
        timeout(wait, read).await.unwrap_or(Err(WireFault::TimedOut))
    }

    /// Sends a piece, now or with the next flush.
    /// # Errors
    /// See [`WireFault`].
    pub async fn put(&mut self, piece: &[u8], wait: Duration) -> Result<(), WireFault> {
        if piece.len() < COPY_BYTES_MAX {
            self.out.extend_from_slice(piece);
            return if self.out.len() > BUFFER_BYTES_MAX { self.flush(wait).await } else { Ok(()) };
        }
        // Bounded blocks, so that the deadline is for a block and not for 50 MiB on a slow line.
        for block in piece.chunks(BUFFER_BYTES_MAX) {
            let head = std::mem::take(&mut self.out);
            let write = write_both(&mut self.wire, &head, block);
            timeout(wait, write).await.map_err(|_| WireFault::TimedOut)??;
            self.out = head;
            self.out.clear();
        }
        // TLS keeps what the socket did not take, and after the last piece of BDAT nothing else would push it out:
        // both sides would wait for each other.
        Ok(timeout(wait, self.wire.flush()).await.map_err(|_| WireFault::TimedOut)??)
    }

    /// Sends all that was gathered.
    /// # Errors
    /// See [`WireFault`].
    pub async fn flush(&mut self, wait: Duration) -> Result<(), WireFault> {
        let wire = &mut self.wire;
        let out = &self.out;
        let write = async {
            wire.write_all(out).await?;
            wire.flush().await
        };
        timeout(wait, write).await.map_err(|_| WireFault::TimedOut)??;
        self.out.clear();
        Ok(())
    }

    /// Says QUIT without waiting for the answer, and closes.
    pub async fn quit(mut self) {
        self.out.extend_from_slice(b"QUIT\r\n");
        // A peer that does not even take six bytes within a second is not owed a farewell.
        let _ = self.flush(Duration::from_secs(1)).await;
        let _ = timeout(Duration::from_secs(1), self.wire.shutdown()).await;
    }

    /// True if the peer said something unasked for or closed, as far as is known without waiting.
    pub fn is_stale(&mut self) -> bool {
        use std::future::Future;
        use std::task::{Context, Poll, Waker};
        if !self.reader.is_empty() {
            return true;
        }
        let read = std::pin::pin!(self.wire.read(&mut self.input[..]));
        !matches!(read.poll(&mut Context::from_waker(Waker::noop())), Poll::Pending)
    }
}

async fn write_both(wire: &mut Box<dyn Wire>, head: &[u8], block: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < head.len() {
        let written = wire.write_vectored(&[IoSlice::new(&head[done..]), IoSlice::new(block)]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if done + written >= head.len() {
            return wire.write_all(&block[done + written - head.len()..]).await;
        }
        done += written;
    }
    wire.write_all(block).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_last_piece_does_not_stay_in_the_wires_own_buffer() {
        const PIECE_BYTES: usize = COPY_BYTES_MAX + 1;
        let (near, mut far) = tokio::io::duplex(2 * PIECE_BYTES);
        let wire = tokio::io::BufWriter::with_capacity(4 * PIECE_BYTES, near);
        let mut connection = Connection::new(Box::new(wire), Protocol::Smtp, "test".into());
        connection.put(b"BDAT\r\n", Duration::from_secs(60)).await.unwrap();
        connection.put(&[b'x'; PIECE_BYTES], Duration::from_secs(60)).await.unwrap();
        let mut arrived = vec![0; PIECE_BYTES + 6];
        timeout(Duration::from_secs(60), far.read_exact(&mut arrived)).await.expect("all of it is there").unwrap();
    }
}
