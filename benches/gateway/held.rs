//! What is held: idle connections, an empty server, a long queue, large messages under way.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::Plan;
use crate::children::Part;
use crate::process::{anonymous_kib, pss_kib, rss_kib};
use crate::subject::{LOG_LEVEL, Running, Subject, weir};
use crate::work::{Measured, WORKS};

/// Turns of the long queue and the empty one, at least: a ratio near its target wants more than one.
const QUEUE_RUNS_MIN: usize = 5;
/// Before each of them.
const WARM_SECONDS: f64 = 0.5;
/// What may be resident while many large messages come in, with the default configuration: `[spool] memory` (256 MiB), one
/// batch of the journal with one message of the largest size, and as much again for what is checked, read or sent just now.
const BIG_RSS_MIB: u64 = 500;

fn folder(plan: &Plan) -> TempDir {
    tempfile::Builder::new().prefix("bench-").tempdir_in(&plan.disk).unwrap()
}

fn fresh(plan: &Plan) -> Running {
    weir(folder(plan), LOG_LEVEL, None, "off")
}

/// Memory of a connection that has said EHLO, and what holding so many costs those who send.
pub fn idle(plan: &Plan) {
    if !plan.wants("idle") {
        return;
    }
    let scale = if plan.quick { 10 } else { 1 };
    for (tls, count, target) in [("no", 18_000 / scale, 1.0), ("yes", 6_000 / scale, 12.0)] {
        let server = fresh(plan);
        WORKS[0].load(server.address, server.pid, plan.seconds);
        let alone = WORKS[0].load(server.address, server.pid, plan.seconds);
        let before = pss_kib(server.pid);
        let hold = (10.0 + plan.seconds).to_string();
        let options = [
            ("to", server.address.to_string()),
            ("connections", count.to_string()),
            ("tls", tls.into()),
            ("seconds", hold),
        ];
        let mut holder = Part::start("idle", &options);
        assert!(holder.line().starts_with("holding"));
        std::thread::sleep(Duration::from_secs(1));
        let each = pss_kib(server.pid).saturating_sub(before) as f64 / count as f64;
        let beside = WORKS[0].load(server.address, server.pid, plan.seconds);
        let kind = if tls == "yes" { "TLS" } else { "plain" };
        let ratio = beside.per_second / alone.per_second;
        println!(
            "\nidle, {count} {kind} connections: {each:.2} KiB each (target {target}); rate beside them {ratio:.2} (target 0.9)"
        );
    }
}

/// Resident memory before any mail.
pub fn empty(plan: &Plan) {
    if plan.wants("empty") {
        let server = fresh(plan);
        let mib = rss_kib(server.pid) as f64 / 1024.0;
        println!("\nempty, resident memory: {mib:.1} MiB (target 24)");
    }
}

/// The middle one; ratios of medians are what the project asks for.
fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Rate with an empty queue and with a long one, in turns; then what a long queue costs: a restart, an operator's acts.
pub fn queue(plan: &Plan) {
    if !plan.wants("queue") {
        return;
    }
    let mut full = weir(folder(plan), LOG_LEVEL, None, "127.0.0.1:0");
    let options = [
        ("to", full.address.to_string()),
        ("connections", "100".to_owned()),
        ("size", "300".to_owned()),
        ("messages", plan.messages.to_string()),
    ];
    let filled = Part::start("generate", &options).result();
    let (count, rate, rss) = (&filled["messages"], &filled["per_second"], rss_kib(full.pid) / 1024);
    println!("\nqueue, filled with {count} messages at {:.0}/s: RSS {rss} MiB", rate.as_f64().unwrap());
    let (mut long, mut short) = (Vec::new(), Vec::new());
    for _ in 0..plan.runs.max(QUEUE_RUNS_MIN) {
        let empty = fresh(plan);
        // In turns, and both warmed, so that what else the machine does meets both.
        for (server, rates) in [(&empty, &mut short), (&full, &mut long)] {
            WORKS[0].load(server.address, server.pid, WARM_SECONDS);
            rates.push(WORKS[0].load(server.address, server.pid, plan.seconds).per_second);
        }
        println!("  empty {:>7.0}/s, long {:>7.0}/s", short[short.len() - 1], long[long.len() - 1]);
    }
    let ratio = median(long) / median(short);
    println!("  rate with a long queue / with an empty one: {ratio:.2} (target 0.9)");
    for (signal, how) in [(Signal::KILL, "kill -9"), (Signal::TERM, "a stop")] {
        let (ended, ready) = full.restart(signal);
        let rss = rss_kib(full.pid) / 1024;
        println!(
            "  restart after {how}: ended in {ended:.1} s, took mail after {ready:.1} s (target 10), RSS {rss} MiB (target 500)"
        );
    }
    acts(&full);
}

/// An operator's acts on everything that waits.
fn acts(full: &Running) {
    let works: [&[&str]; 5] = [
        &["hold", "--all"],
        &["release", "--sender", "@example.org"],
        &["retry", "--recipient", "@example.net"],
        &["hold", "--older", "1s"],
        &["drop", "--state", "held"],
    ];
    for words in works {
        let mut act = full.command(&[&["queue"], words].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let (began, mut most) = (Instant::now(), 0);
        while act.try_wait().unwrap().is_none() {
            most = most.max(rss_kib(full.pid));
            std::thread::sleep(Duration::from_millis(10));
        }
        let seconds = began.elapsed().as_secs_f64();
        let said = String::from_utf8(act.wait_with_output().unwrap().stdout).unwrap();
        let (said, words) = (said.lines().last().unwrap_or_default(), words.join(" "));
        println!("  queue {words}: {said}, {seconds:.1} s, RSS at most {} MiB (target 500)", most / 1024);
    }
}

/// Memory with many large messages under way.
pub fn big(plan: &Plan) {
    const CLIENTS: usize = 200;
    if !plan.wants("big") {
        return;
    }
    let bytes = if plan.quick { 5 } else { 49 } * 1024 * 1024;
    let server = fresh(plan);
    let (pid, address) = (server.pid, server.address);
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(move || send_big(address, bytes))).collect();
    let (mut most, mut anonymous) = (0, 0);
    while clients.iter().any(|client| !client.is_finished()) {
        most = most.max(rss_kib(pid));
        anonymous = anonymous.max(anonymous_kib(pid));
        std::thread::sleep(Duration::from_millis(20));
    }
    let taken = clients.into_iter().filter_map(|client| client.join().unwrap().ok()).filter(|taken| *taken).count();
    println!(
        "\nbig, {CLIENTS} clients with {} MiB each at once: {taken} accepted in {:.0} s, RSS at most {} MiB (bound {BIG_RSS_MIB}), {} MiB of it not files",
        bytes >> 20,
        began.elapsed().as_secs_f64(),
        most / 1024,
        anonymous / 1024
    );
}

/// Sends one message piece by piece, so that the load needs no memory; true if it was accepted.
fn send_big(to: SocketAddr, bytes: usize) -> std::io::Result<bool> {
    let mut stream = BufReader::new(TcpStream::connect(to)?);
    let expect = |stream: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok::<_, std::io::Error>(line.starts_with(['2', '3']));
            }
        }
    };
    expect(&mut stream)?;
    let lines = ["EHLO big.example.org", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA"];
    for line in lines {
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        if !expect(&mut stream)? {
            return Ok(false);
        }
    }
    let piece = [[b'x'; 62].as_slice(), b"\r\n"].concat().repeat(1024);
    stream.get_mut().write_all(b"Subject: big\r\n\r\n")?;
    for _ in 0..bytes / piece.len() {
        stream.get_mut().write_all(&piece)?;
    }
    stream.get_mut().write_all(b".\r\n")?;
    expect(&mut stream)
}

/// One client alone: does it pay for group commit?
pub fn lone(plan: &Plan) {
    if !plan.wants("lone") {
        return;
    }
    let work = &WORKS[2];
    let mut runs = Vec::new();
    for _ in 0..plan.runs {
        let limit = work.run(Subject::LimitInline, plan);
        runs.push((limit, work.run(Subject::Weir, plan)));
    }
    let middle = |figure: fn(&(Measured, Measured)) -> f64| median(runs.iter().map(figure).collect());
    println!(
        "\nlone client, one message after the other: {:.2} of the bare loop (target 0.65), {:.3} ms a message (bare loop {:.3}), p99 {:.2} ms ({:.2})",
        middle(|(limit, ours)| ours.per_second / limit.per_second),
        middle(|(_, ours)| 1e3 / ours.per_second),
        middle(|(limit, _)| 1e3 / limit.per_second),
        middle(|(_, ours)| ours.p99_ms),
        middle(|(limit, _)| limit.p99_ms),
    );
}
