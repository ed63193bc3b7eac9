//! What is held: idle connections, an empty server, a long queue, large messages under way.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Plan;
use crate::children::Part;
use crate::process::{anonymous_kib, pss_kib, rss_kib};
use crate::subject::{Running, Subject, weir};
use crate::work::WORKS;

fn fresh(plan: &Plan) -> Running {
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&plan.disk).unwrap();
    weir(folder, "warn", None, "")
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

/// Rate with an empty queue and with a long one.
pub fn queue(plan: &Plan) {
    let server = fresh(plan);
    let work = &WORKS[0];
    work.load(server.address, server.pid, 1.0);
    let at_first = work.load(server.address, server.pid, plan.seconds);
    println!("empty queue: {:.0}/s, {:.1} us CPU", at_first.per_second, at_first.cpu_micros);
    let options = [
        ("to", server.address.to_string()),
        ("connections", "100".to_owned()),
        ("size", "300".to_owned()),
        ("messages", plan.messages.to_string()),
    ];
    let filled = Part::start("generate", &options).result();
    println!("filled: {} at {:.0}/s, RSS {} MiB", filled["messages"], filled["per_second"], rss_kib(server.pid) / 1024);
    for _ in 0..plan.runs {
        let then = work.load(server.address, server.pid, plan.seconds);
        let ratio = then.per_second / at_first.per_second;
        println!("queued: {:.0}/s, {:.1} us CPU, ratio {ratio:.2} (target 0.9)", then.per_second, then.cpu_micros);
    }
}

/// Memory with many large messages under way.
pub fn big(plan: &Plan) {
    const CLIENTS: usize = 200;
    let bytes = if plan.quick { 5 } else { 49 } * 1024 * 1024;
    let server = fresh(plan);
    let (pid, address) = (server.pid, server.address);
    let clients: Vec<_> = (0..CLIENTS).map(|_| std::thread::spawn(move || send_big(address, bytes))).collect();
    let (mut most, mut anonymous) = (0, 0);
    while clients.iter().any(|client| !client.is_finished()) {
        most = most.max(rss_kib(pid));
        anonymous = anonymous.max(anonymous_kib(pid));
        std::thread::sleep(Duration::from_millis(50));
    }
    let taken = clients.into_iter().filter_map(|client| client.join().unwrap().ok()).filter(|taken| *taken).count();
    println!(
        "{CLIENTS} clients with {bytes} bytes each at once: {taken} accepted, RSS at most {} MiB, {} MiB of it not files",
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
    let work = &WORKS[2];
    for _ in 0..plan.runs {
        let limit = work.run(Subject::LimitInline, plan);
        let ours = work.run(Subject::Weir, plan);
        println!(
            "one client: {:.2} of the limit, p99 {:.2} ms ({:.2})",
            ours.per_second / limit.per_second,
            ours.p99_ms,
            limit.p99_ms
        );
    }
}
