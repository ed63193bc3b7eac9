//! A closed loop: each connection sends its next message when the last one was answered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::latency::Latency;
use crate::message::Maker;
use crate::options::{Options, cpu_seconds};

/// Ends a run in which no answer comes any more.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Ends a run that is bounded by its messages only.
const RUN_MAX: Duration = Duration::from_secs(3600);

/// What a connection waits for.
#[derive(Clone, Copy, PartialEq)]
enum Wait {
    Banner,
    Hello,
    /// Replies to MAIL and RCPT, one at a time or pipelined with DATA.
    Mail,
    Rcpt,
    Data,
    Dot,
    Quit,
    /// Nothing: it is through, and so is the run.
    Over,
}

struct Client {
    stream: TcpStream,
    wait: Wait,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    began: Instant,
    left: u64,
}

struct Load {
    poll: Poll,
    to: SocketAddr,
    clients: Vec<Client>,
    maker: Maker,
    mail: String,
    rcpt: String,
    pipelining: bool,
    per_connection: u64,
    /// Messages that may still be begun.
    budget: u64,
    deadline: Instant,
    latency: Latency,
    sent: u64,
    refused: u64,
    failed: u64,
    connects: u64,
    open: usize,
}

pub fn run(options: &Options) -> io::Result<serde_json::Value> {
    let (sender, recipient) =
        (options.text("sender", "load@example.org"), options.text("recipient", "load@example.net"));
    let size = options.get("size", "4096");
    let messages: u64 = options.get("messages", "0");
    let mut load = Load {
        poll: Poll::new()?,
        to: options.address("to"),
        clients: Vec::new(),
        maker: Maker::new(size, sender, recipient),
        mail: format!("MAIL FROM:<{sender}>\r\n"),
        rcpt: format!("RCPT TO:<{recipient}>\r\n"),
        pipelining: options.yes("pipelining", "yes"),
        per_connection: options.get("per-connection", "0"),
        budget: if messages == 0 { u64::MAX } else { messages },
        deadline: Instant::now() + if messages == 0 { options.seconds("seconds", "10") } else { RUN_MAX },
        latency: Latency::default(),
        sent: 0,
        refused: 0,
        failed: 0,
        connects: 0,
        open: 0,
    };
    let (began, cpu) = (Instant::now(), cpu_seconds());
    load.serve(options.get("connections", "20"))?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(serde_json::json!({
        "messages": load.sent,
        "seconds": seconds,
        "per_second": load.sent as f64 / seconds,
        "megabytes_per_second": load.sent as f64 * size as f64 / seconds / 1e6,
        "milliseconds": load.latency.json(),
        "refused": load.refused,
        "failed": load.failed,
        "connects": load.connects,
        "generator_cpu_seconds": cpu_seconds() - cpu,
    }))
}

impl Load {
    fn serve(&mut self, connections: usize) -> io::Result<()> {
        for number in 0..connections {
            let client = self.connect(number)?;
            self.clients.push(client);
        }
        let mut events = Events::with_capacity(1024);
        while self.open > 0 {
            self.poll.poll(&mut events, Some(SILENCE_MAX))?;
            if events.is_empty() {
                eprintln!("no answer for {SILENCE_MAX:?}; {} connections hang", self.open);
                break;
            }
            for event in &events {
                self.handle(event.token().0)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, number: usize) -> io::Result<Client> {
        let mut stream = TcpStream::connect(self.to)?;
        stream.set_nodelay(true)?;
        self.poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        self.connects += 1;
        self.open += 1;
        let left = if self.per_connection == 0 { u64::MAX } else { self.per_connection };
        let (input, output) = (Vec::new(), Vec::new());
        Ok(Client { stream, wait: Wait::Banner, input, output, written: 0, began: Instant::now(), left })
    }

    fn handle(&mut self, number: usize) -> io::Result<()> {
        if self.clients[number].wait == Wait::Over {
            return Ok(());
        }
        match self.advance(number) {
            Ok(true) => Ok(()),
            Ok(false) => self.renew(number),
            Err(error) => {
                if self.failed == 0 {
                    eprintln!("a connection failed: {error}");
                }
                self.failed += 1;
                self.renew(number)
            }
        }
    }

    /// Replaces a connection that is through, unless the run is.
    fn renew(&mut self, number: usize) -> io::Result<()> {
        self.open -= 1;
        let over = self.is_over() || self.failed > 1000;
        let stream = &mut self.clients[number].stream;
        self.poll.registry().deregister(stream)?;
        if over {
            self.clients[number].wait = Wait::Over;
        } else {
            self.clients[number] = self.connect(number)?;
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.budget == 0 || Instant::now() >= self.deadline
    }

    /// Reads replies and goes on; false once the connection is through.
    fn advance(&mut self, number: usize) -> io::Result<bool> {
        self.clients[number].flush()?;
        let mut chunk = [0; 4096];
        loop {
            let read = match self.clients[number].stream.read(&mut chunk) {
                Ok(0) if self.clients[number].wait == Wait::Quit => return Ok(false),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            self.clients[number].input.extend_from_slice(&chunk[..read]);
            while let Some(code) = self.clients[number].reply() {
                if self.clients[number].wait == Wait::Quit {
                    return Ok(false);
                }
                self.step(number, code);
            }
            self.clients[number].flush()?;
            if read < chunk.len() {
                // A short read: the rest comes with an event of its own.
                return Ok(true);
            }
        }
    }

    fn step(&mut self, number: usize, code: u16) {
        let pipelining = self.pipelining;
        let wait = self.clients[number].wait;
        let good = matches!((wait, code), (Wait::Data, 354) | (Wait::Banner, 220))
            || (!matches!(wait, Wait::Data | Wait::Banner) && (200..300).contains(&code));
        if !good {
            self.refused += 1;
            return self.quit(number);
        }
        match wait {
            Wait::Banner => self.clients[number].say("EHLO load.example.org\r\n", Wait::Hello),
            Wait::Hello => self.begin(number),
            Wait::Mail if pipelining => self.clients[number].wait = Wait::Rcpt,
            Wait::Mail => {
                let rcpt = self.rcpt.clone();
                self.clients[number].say(&rcpt, Wait::Rcpt);
            }
            Wait::Rcpt if pipelining => self.clients[number].wait = Wait::Data,
            Wait::Rcpt => self.clients[number].say("DATA\r\n", Wait::Data),
            Wait::Data => {
                let client = &mut self.clients[number];
                self.maker.write_next(&mut client.output);
                client.wait = Wait::Dot;
            }
            Wait::Dot => {
                self.sent += 1;
                self.latency.add(self.clients[number].began.elapsed());
                self.begin(number);
            }
            Wait::Quit | Wait::Over => {}
        }
    }

    /// The next transaction, or QUIT.
    fn begin(&mut self, number: usize) {
        if self.clients[number].left == 0 || self.is_over() {
            return self.quit(number);
        }
        self.budget -= 1;
        let client = &mut self.clients[number];
        client.left -= 1;
        client.began = Instant::now();
        client.say(&self.mail, Wait::Mail);
        if self.pipelining {
            client.say(&self.rcpt, Wait::Mail);
            client.say("DATA\r\n", Wait::Mail);
        }
    }

    fn quit(&mut self, number: usize) {
        self.clients[number].say("QUIT\r\n", Wait::Quit);
    }
}

impl Client {
    fn say(&mut self, text: &str, wait: Wait) {
        self.output.extend_from_slice(text.as_bytes());
        self.wait = wait;
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

    /// Takes one whole reply, all its lines, off the input.
    fn reply(&mut self) -> Option<u16> {
        let mut start = 0;
        loop {
            let end = start + memchr::memchr(b'\n', &self.input[start..])? + 1;
            let line = &self.input[start..end];
            let code = std::str::from_utf8(line.get(..3)?).ok()?.parse().ok()?;
            if line.get(3) != Some(&b'-') {
                self.input.drain(..end);
                return Some(code);
            }
            start = end;
        }
    }
}
