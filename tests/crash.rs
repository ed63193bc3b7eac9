//! 250 means durable: a gateway killed at random moments under load loses nothing that it acknowledged and corrupts nothing.
//!
//! Ten rounds here; `WEIR_CRASH_ROUNDS=100 cargo test --test crash` runs as many as one likes. The seed is printed.

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use support::config::{domain, head, listener};
use support::{Weir, wait_for};

const ROUNDS: u32 = 10;
const CLIENTS: usize = 8;

fn config() -> String {
    head("mx.example.test")
        + &listener("mx", "mx", "")
        + &domain("example.test", "maildir:DIR/box")
        + "[deliver]\nconcurrency = 10\n[retry]\nfirst = \"1s\"\n"
}

/// The body that belongs to a number: its length and bytes follow from it.
fn body(number: u64) -> String {
    let mut text = String::new();
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..(state % 60) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:064}\r\n"));
    }
    text
}

/// Sends numbered messages until the connection breaks; acknowledged numbers go to `acknowledged`.
fn client(address: &str, next: &AtomicU64, stop: &AtomicBool, acknowledged: &Mutex<Vec<u64>>) -> Option<()> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut output = stream.try_clone().ok()?;
    let mut input = BufReader::new(stream);
    let mut reply = move || -> Option<String> {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|n| *n > 0)?;
        Some(line)
    };
    reply()?;
    output.write_all(b"HELO client.test\r\n").ok()?;
    reply()?;
    while !stop.load(Ordering::Relaxed) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        for command in ["MAIL FROM:<a@shop.test>\r\n", "RCPT TO:<u@example.test>\r\n", "DATA\r\n"] {
            output.write_all(command.as_bytes()).ok()?;
            reply()?;
        }
        output.write_all(format!("Subject: n{number}\r\n\r\n{}.\r\n", body(number)).as_bytes()).ok()?;
        if reply()?.starts_with("250") {
            acknowledged.lock().expect("no panic").push(number);
        }
    }
    Some(())
}

/// Clients that send until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    /// Connections that were begun.
    begun: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn begin(weir: &Weir, next: &Arc<AtomicU64>, acknowledged: &Arc<Mutex<Vec<u64>>>) -> Self {
        let (address, stop, begun) = (weir.address("mx"), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (0..CLIENTS).map(|_| {
            let (address, next, stop, acknowledged) =
                (address.clone(), next.clone(), stop.clone(), acknowledged.clone());
            let begun = begun.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    begun.fetch_add(1, Ordering::Relaxed);
                    if client(&address, &next, &stop, &acknowledged).is_none() {
                        std::thread::sleep(Duration::from_millis(5)); // nobody listens for a while
                    }
                }
            })
        });
        let clients = clients.collect();
        Load { stop, begun, clients }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().expect("a client does not panic"));
    }
}

/// One round of load, ended by a kill at a random moment.
fn round(weir: &mut Weir, next: &Arc<AtomicU64>, acknowledged: &Arc<Mutex<Vec<u64>>>, millis: u64) {
    let load = Load::begin(weir, next, acknowledged);
    std::thread::sleep(Duration::from_millis(millis));
    weir.kill();
    load.end();
}

/// Waits until the queue is empty, for as long as it gets shorter.
fn drain(weir: &Weir) {
    let mut oldest = weir.queue().into_iter().next();
    while let Some(head) = oldest {
        oldest = wait_for("progress of the queue", || {
            let now = weir.queue().into_iter().next();
            (now.as_ref().map(|row| &row["id"]) != Some(&head["id"])).then_some(now)
        });
    }
}

/// Numbers found in the Maildir, each with how often; panics on a body that is not what was sent.
fn delivered(folder: &Path) -> HashMap<u64, usize> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(folder.join("box/new")).into_iter().flatten() {
        let text = fs::read_to_string(entry.expect("own folder").path()).expect("own file");
        let (_, rest) = text.split_once("Subject: n").expect("the subject is there");
        let (number, content) = rest.split_once("\r\n\r\n").expect("a header and a body");
        let number: u64 = number.parse().expect("a number");
        assert!(content == body(number), "message {number} is corrupted");
        *found.entry(number).or_default() += 1;
    }
    found
}

#[test]
fn kills_under_load_lose_and_corrupt_nothing() {
    let rounds = std::env::var("WEIR_CRASH_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut weir = Weir::start(&config());
    let next = Arc::new(AtomicU64::new(1));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..rounds {
        round(&mut weir, &next, &acknowledged, random.u64(100..1200));
        weir.restart();
    }
    drain(&weir);
    let found = delivered(weir.path());
    let acknowledged = acknowledged.lock().expect("no panic");
    let lost: Vec<_> = acknowledged.iter().filter(|number| !found.contains_key(number)).collect();
    let twice: usize = found.values().map(|times| times - 1).sum();
    println!("{rounds} kills, {} acknowledged, {} delivered, {twice} twice", acknowledged.len(), found.len());
    assert!(lost.is_empty(), "lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
    assert_eq!(twice, 0, "an item that was delivered before the kill was not recognised");
    assert!(acknowledged.len() as u32 > rounds * 10, "the load was too small to prove anything");
    assert!(weir.ok(&["audit"]).contains("adds up"));
}

#[test]
fn reloads_and_a_graceful_stop_under_load_lose_and_double_nothing() {
    let mut weir = Weir::start(&config());
    let next = Arc::new(AtomicU64::new(1));
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let load = Load::begin(&weir, &next, &acknowledged);
    let sent = || acknowledged.lock().expect("no panic").len();
    for reload in 1..=10 {
        wait_for("load", || (sent() > reload * 20).then_some(()));
        weir.signal("HUP");
    }
    let before = sent();
    wait_for("load after the last reload", || (sent() > before + 100).then_some(()));
    assert_eq!(load.begun.load(Ordering::Relaxed), CLIENTS as u64, "a reload broke a connection");
    weir.signal("TERM");
    assert!(weir.wait_end(), "a clean exit");
    load.end();
    weir.restart();
    drain(&weir);
    let found = delivered(weir.path());
    let acknowledged = acknowledged.lock().expect("no panic");
    let lost: Vec<_> = acknowledged.iter().filter(|number| !found.contains_key(number)).collect();
    assert!(lost.is_empty(), "lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
    let twice: Vec<_> = found.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "twice: {twice:?}");
    assert!(weir.ok(&["audit"]).contains("adds up"));
}
