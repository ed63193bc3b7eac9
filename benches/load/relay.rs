//! The limit's other half: what was synced goes on to a next hop over a few connections, pipelined, from the memory it is in.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

const CONNECTIONS: usize = 20;
const WAKER: Token = Token(usize::MAX);
const HEAD: &[u8] = b"MAIL FROM:<load@example.org>\r\nRCPT TO:<load@example.net>\r\nDATA\r\n";

/// Messages that were committed together.
pub struct Committed {
    pub bytes: Vec<u8>,
    /// Each with its final dot.
    pub messages: Vec<Range<usize>>,
}

/// Where committed messages are handed in.
pub struct Relay {
    send: Sender<Committed>,
    waker: Waker,
}

struct Hop {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    greeted: bool,
    /// Its head is sent, its content is not.
    current: Option<(Arc<Vec<u8>>, Range<usize>)>,
}

impl Relay {
    pub fn start(to: SocketAddr) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (send, committed) = channel();
        let hops = (0..CONNECTIONS).map(|number| Hop::connect(to, number, &poll)).collect::<io::Result<Vec<_>>>()?;
        // It ends with the next hop.
        std::thread::spawn(move || run(poll, hops, &committed));
        Ok(Relay { send, waker })
    }

    pub fn pass(&self, committed: Committed) -> io::Result<()> {
        self.send.send(committed).map_err(io::Error::other)?;
        self.waker.wake()
    }
}

fn run(mut poll: Poll, mut hops: Vec<Hop>, committed: &Receiver<Committed>) -> io::Result<()> {
    let mut queue: VecDeque<(Arc<Vec<u8>>, Range<usize>)> = VecDeque::new();
    let mut events = Events::with_capacity(256);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if let Some(hop) = hops.get_mut(event.token().0) {
                hop.read(&mut queue)?;
            }
        }
        for batch in committed.try_iter() {
            let bytes = Arc::new(batch.bytes);
            queue.extend(batch.messages.into_iter().map(|range| (bytes.clone(), range)));
        }
        for hop in hops.iter_mut().filter(|hop| hop.greeted && hop.current.is_none()) {
            hop.begin(&mut queue);
            hop.flush()?;
        }
    }
}

impl Hop {
    fn connect(to: SocketAddr, number: usize, poll: &Poll) -> io::Result<Self> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let output = b"EHLO limit.example.org\r\n".to_vec();
        Ok(Hop { stream, input: Vec::new(), output, written: 0, greeted: false, current: None })
    }

    fn begin(&mut self, queue: &mut VecDeque<(Arc<Vec<u8>>, Range<usize>)>) {
        self.current = queue.pop_front();
        if self.current.is_some() {
            self.output.extend_from_slice(HEAD);
        }
    }

    fn read(&mut self, queue: &mut VecDeque<(Arc<Vec<u8>>, Range<usize>)>) -> io::Result<()> {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(error) => return Err(error),
            }
        }
        let mut used = 0;
        while let Some(end) = memchr::memchr(b'\n', &self.input[used..]) {
            let line = &self.input[used..used + end];
            used += end + 1;
            // The last line of the reply to EHLO.
            self.greeted |= line.starts_with(b"250 ");
            if line.starts_with(b"354") {
                let (bytes, range) = self.current.take().expect("354 answers a DATA");
                self.output.extend_from_slice(&bytes[range]);
                self.begin(queue);
            }
        }
        self.input.drain(..used);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }
}
