//! Rspamd and spamd of Debian on the same messages, with their local rules and without network. I/O: processes, loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use weir::filter::Engine;
use weir::wire::spamd::{Verb, request};

use crate::corpus::Message;
use crate::nowhere::nowhere;
use crate::{ours, process, row};

/// Time for each rival; what it has not judged by then is left out.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages that it is asked about at once: Rspamd waits for seconds after some, without work to do.
const LANES: usize = 16;
/// The first messages load what is loaded late; they are not counted.
const WARM: usize = 5;

struct Peer {
    name: &'static str,
    program: &'static str,
    script: &'static str,
    /// `OFFLINE` of the script: no check that asks DNS.
    offline: bool,
    /// The word before the address that the script prints.
    says: &'static str,
    pid_file: &'static str,
    /// Messages that it is given at most: enough for its speed.
    most: usize,
    /// What the project has set.
    target: f64,
    ask: fn(&mut TcpStream, &[u8]),
}

const RSPAMD: Peer = Peer {
    name: "Rspamd",
    program: "/usr/bin/rspamd",
    script: "rspamd.sh",
    offline: true,
    says: "SCAN=",
    pid_file: "run/rspamd.pid",
    most: 2_000,
    target: 10.0,
    ask: ask_rspamd,
};

const PEERS: [Peer; 3] = [
    RSPAMD,
    // Its SPF, DKIM, ARC and DMARC belong to its local checks as it comes; a server on loopback answers them that it knows no name.
    Peer { name: "Rspamd with its checks of identity", offline: false, ..RSPAMD },
    Peer {
        name: "spamd",
        program: "/usr/sbin/spamd",
        script: "spamd.sh",
        offline: true,
        says: "SPAMD=",
        pid_file: "spamd.pid",
        most: 80,
        target: 400.0,
        ask: ask_spamd,
    },
];

/// Measures those that are installed, and us on the same messages.
pub fn measure(engine: &Engine, messages: &[Message]) {
    println!("the others, local rules only, CPU time of all their processes");
    for peer in &PEERS {
        if !Path::new(peer.program).exists() {
            println!("  skipped: {} is not installed", peer.name);
            continue;
        }
        let every = messages.len().div_ceil(peer.most).max(1);
        let sample: Vec<&Message> = messages.iter().step_by(every).collect();
        let Some((judged, seconds, clock)) = peer.run(&sample) else { continue };
        let theirs = judged as f64 / seconds;
        let by_clock = judged as f64 / clock.as_secs_f64();
        let rate = format!("{theirs:.1}/s and core, {by_clock:.1}/s by the clock");
        row(&format!("{}, {judged} messages", peer.name), &rate, "", true);
        let ours = ours::rate(engine, &sample[..judged]);
        let ratio = ours / theirs;
        let name = format!("ours on the same, {ours:.0}/s and core");
        row(&name, &format!("{ratio:.0} times"), &format!("at least {}", peer.target), ratio >= peer.target);
    }
}

impl Peer {
    /// Messages judged, CPU seconds that they took, and the time that passed.
    fn run(&self, sample: &[&Message]) -> Option<(usize, f64, Duration)> {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("peer");
        let output = self.script("start", &home);
        let said = String::from_utf8_lossy(&output.stdout);
        let Some(address) = said.lines().find_map(|line| line.strip_prefix(self.says)) else {
            println!("  skipped: {} does not start: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
            return None;
        };
        let judge = |message: &Message| (self.ask)(&mut TcpStream::connect(address).unwrap(), &message.bytes);
        sample.iter().take(WARM).for_each(|message| judge(message));
        let pid = fs::read_to_string(home.join(self.pid_file)).unwrap().trim().parse().unwrap();
        let (before, start) = (process::cpu_seconds(pid), Instant::now());
        let until = start + PATIENCE;
        let next = AtomicUsize::new(0);
        let lane = || {
            while Instant::now() < until
                && let Some(message) = sample.get(next.fetch_add(1, Ordering::Relaxed))
            {
                judge(message);
            }
        };
        std::thread::scope(|scope| (0..LANES).for_each(|_| drop(scope.spawn(lane))));
        let clock = start.elapsed();
        let judged = next.load(Ordering::Relaxed).min(sample.len());
        let seconds = process::cpu_seconds(pid) - before;
        self.script("stop", &home);
        Some((judged, seconds, clock))
    }

    fn script(&self, word: &str, home: &Path) -> std::process::Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(self.script);
        let mut command = Command::new("bash");
        command
            .arg(script)
            .arg(word)
            .arg(home)
            .env("OFFLINE", if self.offline { "1" } else { "0" })
            .env("DNS", nowhere().to_string())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn ask_spamd(connection: &mut TcpStream, message: &[u8]) {
    let mut answer = Vec::new();
    connection.write_all(request(Verb::Check, message.len()).as_bytes()).unwrap();
    connection.write_all(message).unwrap();
    connection.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"SPAMD/1.1 0 "), "{}", String::from_utf8_lossy(&answer));
}

fn ask_rspamd(connection: &mut TcpStream, message: &[u8]) {
    let head = format!(
        "POST /checkv2 HTTP/1.1\r\nHost: bench\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        message.len()
    );
    let mut answer = Vec::new();
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(message).unwrap();
    connection.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}
