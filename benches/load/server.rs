//! The server's side of SMTP's shape, without any of its checks: what a sink and a limit have in common.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use memchr::memmem::Finder;

const LISTENER: Token = Token(usize::MAX);
pub const WAKER: Token = Token(usize::MAX - 1);
const READ_BYTES: usize = 64 * 1024;
/// How long clients may take to say QUIT once the run is over.
const FAREWELL: Duration = Duration::from_millis(500);
const BACKLOG: i32 = 4096;
pub const ACCEPTED: &[u8] = b"250 2.0.0 Ok\r\n";

/// What to do with a message.
pub trait Take {
    /// Takes the content, final dot included; true to answer at once, false to answer by [`Server::release`].
    fn take(&mut self, client: usize, content: &[u8]) -> bool;
    /// Called after each batch of events: the clients who can be answered now.
    fn settle(&mut self) -> io::Result<Vec<usize>>;
    /// True once the run is over.
    fn is_over(&self, now: Instant) -> bool;
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// In content; searched up to here.
    content: Option<usize>,
    waits: bool,
    closing: bool,
}

/// All clients on one thread.
pub struct Server {
    pub poll: Poll,
    listener: TcpListener,
    clients: Vec<Option<Client>>,
    free: Vec<usize>,
    chunk: Vec<u8>,
    dot: Finder<'static>,
}

impl Server {
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let mut listener = TcpListener::from_std(socket.into());
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        println!("listening {}", listener.local_addr()?);
        let dot = Finder::new(b"\r\n.\r\n");
        Ok(Server { poll, listener, clients: Vec::new(), free: Vec::new(), chunk: vec![0; READ_BYTES], dot })
    }

    pub fn serve(&mut self, taker: &mut impl Take) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut leave_at = None;
        loop {
            let now = Instant::now();
            if taker.is_over(now) && (now >= *leave_at.get_or_insert(now + FAREWELL) || self.is_empty()) {
                return Ok(());
            }
            self.poll.poll(&mut events, Some(Duration::from_millis(100)))?;
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    WAKER => {}
                    Token(number) => self.handle(number, taker),
                }
            }
            for number in taker.settle()? {
                self.release(number, taker);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.free.len() == self.clients.len()
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let number = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
            let (input, output) = (Vec::new(), b"220 load ESMTP\r\n".to_vec());
            let mut client = Client { stream, input, output, content: None, waits: false, closing: false };
            let _ = client.flush();
            self.clients[number] = Some(client);
        }
    }

    /// Answers a message that was taken before.
    fn release(&mut self, number: usize, taker: &mut impl Take) {
        let Some(client) = &mut self.clients[number] else { return };
        client.waits = false;
        client.output.extend_from_slice(ACCEPTED);
        self.run(number, taker, false);
    }

    fn handle(&mut self, number: usize, taker: &mut impl Take) {
        self.run(number, taker, true);
    }

    fn run(&mut self, number: usize, taker: &mut impl Take, read: bool) {
        let Some(client) = &mut self.clients[number] else { return };
        let alive = !read || client.fill(&mut self.chunk);
        client.converse(number, taker, &self.dot);
        // A client that waits for a sync keeps its place, or its answer would reach the next one there.
        if (!client.flush() || !alive || client.closing) && !client.waits {
            self.clients[number] = None;
            self.free.push(number);
        }
    }
}

impl Client {
    /// Reads what is there; false at the end.
    fn fill(&mut self, chunk: &mut [u8]) -> bool {
        loop {
            match self.stream.read(chunk) {
                Ok(0) => return false,
                Ok(read) => self.input.extend_from_slice(&chunk[..read]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    fn converse(&mut self, number: usize, taker: &mut impl Take, dot: &Finder) {
        let mut used = 0;
        while !self.waits && used < self.input.len() {
            let rest = &self.input[used..];
            let Some(searched) = self.content else {
                let Some(end) = memchr::memchr(b'\n', rest) else { break };
                let reply = reply_to(rest);
                self.content = (reply == DATA).then_some(0);
                self.closing |= reply == BYE;
                self.output.extend_from_slice(reply);
                used += end + 1;
                continue;
            };
            let Some(found) = dot.find(&rest[searched..]) else {
                self.content = Some(rest.len().saturating_sub(4));
                break;
            };
            let end = searched + found + 5;
            self.waits = !taker.take(number, &rest[..end]);
            if !self.waits {
                self.output.extend_from_slice(ACCEPTED);
            }
            self.content = None;
            used += end;
        }
        self.input.drain(..used);
    }

    /// Writes what can be written; false if the client is gone.
    fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }
}

const DATA: &[u8] = b"354 Go\r\n";
const BYE: &[u8] = b"221 Bye\r\n";

fn reply_to(line: &[u8]) -> &'static [u8] {
    match line.first().map(u8::to_ascii_uppercase) {
        Some(b'E' | b'L') => b"250-load\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
        Some(b'D') => DATA,
        Some(b'Q') => BYE,
        _ => b"250 2.1.0 Ok\r\n",
    }
}
