//! What is held: idle connections, an empty server, a long queue, large messages under way.

use std::time::Duration;

use crate::Plan;
use crate::children::Part;
use crate::process::{pss_kib, rss_kib};
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
    const CLIENTS: u64 = 200;
    const BYTES: u64 = 50 * 1024 * 1024 - 4096;
    let server = fresh(plan);
    let options = [
        ("to", server.address.to_string()),
        ("connections", CLIENTS.to_string()),
        ("size", BYTES.to_string()),
        ("messages", CLIENTS.to_string()),
    ];
    let pid = server.pid;
    let load = std::thread::spawn(move || Part::start("generate", &options).result());
    let mut most = 0;
    while !load.is_finished() {
        most = most.max(rss_kib(pid));
        std::thread::sleep(Duration::from_millis(50));
    }
    let result = load.join().unwrap();
    println!("{CLIENTS} clients with {BYTES} bytes each: RSS at most {} MiB; {result}", most / 1024);
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
