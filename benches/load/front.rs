//! Weir's front end with a conversation of SMTP's shape and nothing behind it: what reactors, TLS and timers cost alone,
//! in time beside `sink` and in memory under `idle`.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir::base::machine::{Control, Machine, TlsFacts};
use weir::config::limits::Limits;
use weir::config::settings::{ListenerTls, Tls};
use weir::front::meters::Meters;
use weir::front::service::{Admission, Answered, Later, Peer, Refusal, Service};
use weir::front::tls::TlsStore;
use weir::front::{ListenerSetup, bind, raise_descriptor_limit};

use crate::options::{Options, cpu_seconds};
use crate::server::ACCEPTED;

const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);

/// One conversation.
struct Shape {
    output: Vec<u8>,
    control: Option<Control>,
    in_content: bool,
    timeout: Instant,
}

impl Machine for Shape {
    type Ask = ();
    type Answer = ();

    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> usize {
        self.timeout = now + COMMAND_TIMEOUT;
        if self.control.is_some() {
            return 0;
        }
        if self.in_content {
            return self.content(bytes);
        }
        let Some(end) = memchr::memchr(b'\n', bytes) else { return 0 };
        match bytes[0].to_ascii_uppercase() {
            b'E' => self.output.extend_from_slice(b"250-front\r\n250-PIPELINING\r\n250 STARTTLS\r\n"),
            b'D' => {
                self.in_content = true;
                self.output.extend_from_slice(b"354 Go\r\n");
            }
            b'Q' => {
                self.control = Some(Control::Close);
                self.output.extend_from_slice(b"221 Bye\r\n");
            }
            b'S' => {
                self.control = Some(Control::StartTls);
                self.output.extend_from_slice(b"220 Go\r\n");
            }
            _ => self.output.extend_from_slice(ACCEPTED),
        }
        end + 1
    }
    fn handle_answer(&mut self, _: Instant, (): ()) {}
    fn handle_timeout(&mut self, _: Instant) {
        self.control = Some(Control::Close);
    }
    fn handle_tls(&mut self, _: Instant, _: TlsFacts) {}
    fn handle_eof(&mut self, _: Instant) {
        self.control = Some(Control::Close);
    }
    fn handle_stop(&mut self, _: Instant) {
        self.control = Some(Control::Close);
    }
    fn poll_output(&mut self, sink: &mut Vec<u8>) -> Option<Control> {
        sink.extend_from_slice(&std::mem::take(&mut self.output));
        self.control.take()
    }
    fn poll_ask(&mut self) -> Option<()> {
        None
    }
    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.timeout)
    }
}

impl Shape {
    fn content(&mut self, bytes: &[u8]) -> usize {
        let Some(end) = memchr::memmem::find(bytes, b"\r\n.\r\n") else { return bytes.len().saturating_sub(4) };
        self.in_content = false;
        self.output.extend_from_slice(ACCEPTED);
        end + 5
    }
}

struct Nothing;

impl Service for Nothing {
    type Machine = Shape;

    fn open(&self, now: Instant, _: &Peer, _: Option<TlsFacts>) -> Admission<Shape> {
        let output = b"220 front ESMTP\r\n".to_vec();
        Admission::Open(Shape { output, control: None, in_content: false, timeout: now + COMMAND_TIMEOUT })
    }
    fn refuse(&self, _: Refusal, _: &Peer) -> Vec<u8> {
        b"421 4.7.0 Too many\r\n".to_vec()
    }
    fn answer(&self, _: Instant, _: &Peer, (): (), _: &mut dyn Later<()>) -> Answered<()> {
        Answered::Now(())
    }
    fn closed(&self, _: &Peer, _: Shape) {}
}

pub fn run(options: &Options) -> io::Result<serde_json::Value> {
    raise_descriptor_limit();
    let folder = tempfile::tempdir()?;
    let tls = TlsStore::open(&Tls::default(), folder.path(), "localhost")?;
    let limits = Limits {
        connections: 1_000_000,
        connections_per_ip: 1_000_000,
        connections_per_net: 1_000_000,
        handshakes_per_minute: 1_000_000,
        ..Limits::default()
    };
    let setup = ListenerSetup {
        name: "load".into(),
        terms: "load",
        address: options.address("on"),
        tls: ListenerTls::StartTls,
        proxy_networks: vec![],
        trusted: vec![],
        limits,
    };
    let bound = bind(vec![setup], options.get("reactors", "1"), Vec::new())?;
    println!("listening {}", bound.local_addrs()[0]);
    let meters = Meters::new().map_err(io::Error::other)?;
    let front = bound.start(Arc::new(Nothing), Some(&tls), meters.clone())?;
    let empty = pss_kilobytes()?;
    let end = Instant::now() + options.seconds("seconds", "15");
    let (mut most, mut kilobytes) = (0, 0);
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
        if front.connections() >= most.max(1) {
            (most, kilobytes) = (front.connections(), pss_kilobytes()?);
        }
    }
    front.stop(Duration::from_secs(1));
    Ok(serde_json::json!({
        "connections_most": most,
        "bytes_per_connection": (kilobytes.saturating_sub(empty) * 1024) as f64 / most.max(1) as f64,
        "empty_kilobytes": empty,
        "received_bytes": meters.bytes_in.get(),
        "cpu_seconds": cpu_seconds(),
    }))
}

/// The process's share of memory (PSS).
fn pss_kilobytes() -> io::Result<u64> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:"));
    let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    value.ok_or_else(|| io::Error::other("no Pss in smaps_rollup"))
}
