//! What goes wrong around a live gateway: disks, descriptors, resolvers, next hops and clients; after each the queue is as it must be.
#![allow(clippy::unwrap_used)] // Helpers of tests, too.

#[path = "support/hop.rs"]
mod hop;
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hop::{Client, Hop, Manner, send};
use support::config::{POP3_ON, domain, head, head_with_store, listener};
use support::{PATIENCE, Peer, Weir, python, run, wait_for};

/// Deliveries fail fast and are tried again at once.
const SOON: &str = r#"
[retry]
first = "1s"
max = "1s"
[deliver]
connect_timeout = "5s"
command_timeout = "5s"
data_timeout = "5s"
final_dot_timeout = "5s"
"#;

fn base() -> String {
    head("mx.example.test") + SOON
}

fn to_hop(name: &str, hop: &Hop) -> String {
    domain(name, &format!("smtp://127.0.0.1:{}", hop.port))
}

fn queued_for<'a>(rows: &'a [serde_json::Value], port: &str) -> Option<&'a serde_json::Value> {
    rows.iter().find(|row| row["destination"].as_str().is_some_and(|to| to.ends_with(port)))
}

fn empty_queue(weir: &Weir) {
    wait_for("an empty queue", || weir.queue().is_empty().then_some(()));
}

/// The texts of all messages in a Maildir.
fn maildir(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("new")).into_iter().flatten();
    entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_sick_next_hop_keeps_its_mail_waiting_and_nobody_elses() {
    let sick = [Manner::HangAfterDot, Manner::Garbage, Manner::CloseMidReply, Manner::DeferAfterDot, Manner::Busy];
    let hops: Vec<Hop> = sick.iter().map(|manner| Hop::start(*manner, &["PIPELINING"])).collect();
    let good = Hop::start(Manner::Good, &["PIPELINING"]);
    let name = |index: usize| format!("sick{index}.test");
    let mut config = base() + &listener("mx", "mx", "") + &to_hop("good.test", &good);
    hops.iter().enumerate().for_each(|(index, hop)| config.push_str(&to_hop(&name(index), hop)));
    let weir = Weir::start(&config);
    for index in 0..hops.len() {
        let said = send(&weir.address("mx"), "a@shop.test", &format!("u@{}", name(index)), "Subject: sick\r\n\r\nx");
        assert!(said.starts_with("250"), "{said}");
    }
    assert!(send(&weir.address("mx"), "a@shop.test", "u@good.test", "Subject: well\r\n\r\nx").starts_with("250"));
    wait_for("the healthy one's mail", || (good.count() == 1).then_some(()));
    for (index, manner) in sick.iter().enumerate() {
        wait_for(&format!("an attempt at {manner:?}"), || {
            let rows = weir.queue();
            let port = format!("127.0.0.1:{}", hops[index].port);
            let row = queued_for(&rows, &port).unwrap_or_else(|| panic!("{manner:?} is not queued: {rows:?}"));
            let id = row["id"].as_str().expect("an id").to_owned();
            let why = weir.ok(&["queue", "why", &id]);
            why.contains("next attempt").then_some(())
        });
    }
    hops.iter().for_each(|hop| hop.become_(Manner::Good));
    empty_queue(&weir);
    for (hop, manner) in hops.iter().zip(sick) {
        assert_eq!(hop.count(), 1, "{manner:?}");
    }
    assert_eq!(good.count(), 1);
}

#[test]
fn a_dead_resolver_puts_mail_off_and_bounces_none() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dns = format!("[dns]\nservers = [\"{}\"]\ntimeout = \"1s\"\n", silent.local_addr().unwrap());
    let config = base()
        + &dns
        + &listener("relay", "relay", "")
        + "[relay]\nnetworks = [\"127.0.0.0/8\"]\n"
        + &domain("here.test", "maildir:DIR/box");
    let weir = Weir::start(&config);
    let relay = weir.address("relay");
    for n in 0..5 {
        assert!(send(&relay, "a@here.test", &format!("u@far{n}.test"), "Subject: by MX\r\n\r\nx").starts_with("250"));
    }
    let began = Instant::now();
    assert!(send(&relay, "a@here.test", "u@here.test", "Subject: local\r\n\r\nx").starts_with("250"));
    wait_for("the local mail", || (maildir(&weir.path().join("box")).len() == 1).then_some(()));
    assert!(began.elapsed() < PATIENCE / 2, "others wait for a dead resolver");
    let rows = wait_for("attempts at all five", || {
        let rows = weir.queue();
        let tried = |row: &serde_json::Value| weir.ok(&["queue", "why", row["id"].as_str().unwrap()]);
        rows.iter().all(|row| tried(row).contains("next attempt")).then_some(rows)
    });
    assert_eq!(rows.len(), 5, "all wait: {rows:?}");
    assert_eq!(maildir(&weir.path().join("box")).len(), 1, "no report was sent");
}

/// A small file system in memory, gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(mebibytes: u32) -> Self {
        let folder = support::folder();
        let place = folder.path().display().to_string();
        let (ok, said) = run("mount", &["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "none", &place]);
        assert!(ok, "the tests run as root: {said}");
        SmallDisk(folder)
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_and_survived() {
    const MIB: usize = 1 << 20;
    let disk = SmallDisk::new(96);
    let hop = Hop::start(Manner::Busy, &["PIPELINING"]);
    let spool = format!(
        "[limits]\nsize = \"1 MiB\"\n[spool]\ndirectory = \"{}/spool\"\nsegment_bytes = \"4 MiB\"\nfree_space_min = \"16 MiB\"\n",
        disk.0.path().display()
    );
    let weir = Weir::start(&(base() + &spool + &listener("mx", "mx", "") + &to_hop("far.test", &hop)));
    let mx = weir.address("mx");
    let body = format!("Subject: full\r\n\r\n{}", "0123456789abcdef\r\n".repeat(2000));
    for _ in 0..20 {
        assert!(send(&mx, "a@shop.test", "u@far.test", &body).starts_with("250"));
    }
    fs::write(disk.ballast(), vec![1; 60 * MIB]).unwrap();
    let mut acknowledged = 20;
    let said = wait_for("a refusal", || {
        let said = send(&mx, "a@shop.test", "u@far.test", &body);
        acknowledged += usize::from(said.starts_with("250"));
        (!said.starts_with("250")).then_some(said)
    });
    assert!(said.starts_with("452 4.3.1"), "{said}");
    hop.become_(Manner::Good);
    empty_queue(&weir);
    assert_eq!(hop.count(), acknowledged, "what was acknowledged is delivered, on a full disk too");
    assert!(hop.all().iter().all(|taken| taken.text().contains("0123456789abcdef\r\n0123")));
    fs::remove_file(disk.ballast()).unwrap();
    wait_for("space to be seen", || send(&mx, "a@shop.test", "u@far.test", &body).starts_with("250").then_some(()));
}

fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_it_says_so_waits_without_spinning_and_recovers() {
    let config = base()
        + "[limits]\nconnections_per_ip = 1000\nconnections_per_net = 1000\n[relay]\nnetworks = [\"10.0.0.0/8\"]\n"
        + &listener("mx", "mx", "")
        + &domain("here.test", "discard:");
    let weir = Weir::start_under("ulimit -n 128", &config);
    let mx = weir.address("mx");
    let mut served = Client::connect(&mx);
    let crowd: Vec<Client> = (0..200).map(|_| Client::silent(&mx)).collect();
    let before = cpu_ticks(weir.pid());
    std::thread::sleep(Duration::from_secs(2)); // the measured span
    let ticks = cpu_ticks(weir.pid()) - before;
    assert!(ticks < 40, "{ticks} ticks of CPU in two seconds of shortage");
    assert!(served.mail("a@shop.test", "u@here.test", "x").starts_with("250"), "who is in is served");
    drop(crowd);
    let began = Instant::now();
    wait_for("a banner", || Client::silent(&mx).reply().starts_with("220").then_some(()));
    assert!(began.elapsed() < PATIENCE / 2, "recovers by itself");
    assert!(send(&mx, "a@shop.test", "u@here.test", "x").starts_with("250"));
    assert!(!weir.log().contains("panicked"));
}

#[test]
fn mail_waits_for_descriptors_and_not_for_its_next_hop() {
    const HOSTS: usize = 120;
    let hop = Hop::start_at("0.0.0.0:0", Manner::HangAfterDot, &["PIPELINING"]);
    let name = |n: usize| format!("d{n}.test");
    let mut config = base() + &listener("mx", "mx", "");
    (0..HOSTS).for_each(|n| {
        config.push_str(&domain(&name(n), &format!("smtp://127.0.0.{}:{}", n + 2, hop.port)));
    });
    let weir = Weir::start_under("ulimit -n 128", &config);
    let mut client = Client::connect(&weir.address("mx"));
    client.command("EHLO client.test");
    for n in 0..HOSTS {
        let said = client.mail("a@shop.test", &format!("u@{}", name(n)), "Subject: waits\r\n\r\nx");
        assert!(said.starts_with("250"), "{n}: {said}");
    }
    wait_for("the shortage", || weir.log().contains("no delivery for want of means").then_some(()));
    hop.become_(Manner::Good);
    empty_queue(&weir);
    assert_eq!(hop.count(), HOSTS);
    let log = weir.log();
    let blamed = log.lines().find(|line| line.contains("Too many open files") && line.contains("deferred"));
    assert_eq!(blamed, None, "no attempt is counted");
    assert!(!log.contains("destination is unreachable"), "and no next hop held to be dead");
}

/// A clock for the gateway alone, by libfaketime, which reads what it says from a file.
const CLOCK: &str = "mkdir -p \"${1%/*}/data\"; [ -e \"${1%/*}/data/clock\" ] || echo +0 > \"${1%/*}/data/clock\"
export LD_PRELOAD=/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketime.so.1 FAKETIME_TIMESTAMP_FILE=\"${1%/*}/data/clock\"
export FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1";

#[test]
fn a_clock_that_jumps_expires_no_mail_and_stops_no_retry() {
    let hop = Hop::start(Manner::DeferAfterDot, &["PIPELINING"]);
    let retry = "first = \"1s\"\nfactor = 1.0\nmax = \"30s\"";
    let config = base().replace("first = \"1s\"\nmax = \"1s\"", retry)
        + &listener("mx", "mx", "")
        + &domain("here.test", "store:")
        + &to_hop("far.test", &hop);
    let mut weir = Weir::start_under(CLOCK, &config);
    for sender in ["a@here.test", ""] {
        assert!(send(&weir.address("mx"), sender, "u@far.test", "Subject: old\r\n\r\nx").starts_with("250"));
    }
    let attempts = |weir: &Weir| weir.log().matches("outcome=\"deferred\"").count();
    let two_rounds = |weir: &Weir, what: &str| {
        let before = attempts(weir);
        wait_for(&format!("retries {what}"), || (attempts(weir) >= before + 4).then_some(()));
    };
    two_rounds(&weir, "at the start");
    for jump in ["+3650d", "-1d", "+1d", "-3650d"] {
        fs::write(weir.path().join("data/clock"), format!("{jump}\n")).unwrap();
        two_rounds(&weir, jump);
        let said = send(&weir.address("mx"), "", "u@here.test", "Subject: now\r\n\r\nx");
        assert!(said.starts_with("550") || said.starts_with("250"), "{jump}: {said}");
    }
    for jump in ["+3650d", "-1d"] {
        weir.signal("TERM");
        assert!(weir.wait_end());
        fs::write(weir.path().join("data/clock"), format!("{jump}\n")).unwrap();
        weir.restart();
        two_rounds(&weir, &format!("behind a start at {jump}"));
    }
    assert!(!weir.log().contains("expired") && !weir.log().contains("panicked"), "{}", weir.log());
    assert!(weir.ok(&["queue", "verify"]).ends_with("clean\n"));
    hop.become_(Manner::Good);
    empty_queue(&weir);
    assert_eq!(hop.count(), 2);
}

fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Growth that an abuse run may leave behind.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

#[test]
fn abuse_is_refused_bounded_and_logged_without_control_octets() {
    let config = base()
        + &listener("mx", "mx", "connections_per_ip = 20")
        + "[relay]\nnetworks = [\"10.0.0.0/8\"]\n"
        + &listener("slow", "mx", "command_timeout = \"1s\"\ndata_timeout = \"1s\"\nhandshake_timeout = \"1s\"")
        + &domain("here.test", "discard:");
    let weir = Weir::start(&config);
    let mx = weir.address("mx");
    assert!(send(&mx, "a@shop.test", "u@here.test", "x").starts_with("250"));
    let before = rss_kib(weir.pid());
    slow_loris(&weir.address("slow"));
    idle_flood(&mx);
    lying_chunks(&mx);
    recipients_and_junk(&mx);
    other_protocols_and_octets(&mx);
    let grown = rss_kib(weir.pid()).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more");
    wait_for("a free place", || Client::silent(&mx).reply().starts_with("220").then_some(()));
    let log = fs::read(weir.path().join("log")).unwrap();
    let raw = log.iter().find(|byte| (**byte < 0x20 && **byte != b'\n') || **byte == 0x7f);
    assert_eq!(raw, None, "{}", String::from_utf8_lossy(&log));
    assert!(!weir.log().contains("panicked"));
}

fn slow_loris(address: &str) {
    let mut slow: Vec<Client> = (0..10).map(|_| Client::connect(address)).collect();
    let began = Instant::now();
    for client in &mut slow {
        client.send("EH");
    }
    for client in &mut slow {
        assert!(client.reply().starts_with("421 4.4.2"));
    }
    assert!(began.elapsed() < PATIENCE / 2, "half a command does not hold a place");
    let mut client = Client::connect(address);
    client.command("HELO c");
    client.command("MAIL FROM:<a@c>");
    client.command("RCPT TO:<u@here.test>");
    client.command("DATA");
    client.send("Subject: slo");
    assert!(client.reply().starts_with("421 4.4.2"), "half a line of content neither");
}

fn idle_flood(address: &str) {
    let mut crowd: Vec<Client> = (0..60).map(|_| Client::silent(address)).collect();
    let said: Vec<String> = crowd.iter_mut().map(Client::reply).collect();
    let welcome = said.iter().filter(|text| text.starts_with("220")).count();
    let refused = said.iter().filter(|text| text.starts_with("421 4.7.0")).count();
    assert_eq!((welcome + refused, welcome <= 20, welcome >= 10), (60, true, true), "{said:?}");
    drop(crowd);
    wait_for("free places", || Client::silent(address).reply().starts_with("220").then_some(()));
}

fn in_transaction(address: &str) -> Client {
    let mut client = wait_for("a free place", || {
        let mut client = Client::silent(address);
        client.reply().starts_with("220").then_some(client)
    });
    client.command("EHLO c");
    client.command("MAIL FROM:<a@c>");
    client
}

fn lying_chunks(address: &str) {
    for lie in [
        "18446744073709551615",
        "99999999999999999999",
        "-1",
        "0x10",
        "1 LAST 2",
        "4294967296",
        "9223372036854775808 LAST",
    ] {
        let mut client = in_transaction(address);
        client.command("RCPT TO:<u@here.test>");
        client.send(format!("BDAT {lie}\r\n"));
        client.send("QUIT\r\n");
        client.send("MAIL FROM:<evil@c>\r\n");
        drop(client); // a claimed size is not waited for, reserved or believed
    }
    let mut client = in_transaction(address);
    client.command("RCPT TO:<u@here.test>");
    client.send("BDAT 10 LAST\r\nQUIT\r\nNOOP");
    assert!(client.reply().starts_with("250"), "commands in a chunk are content");
    assert!(client.command("NOOP").starts_with("250"));
}

fn recipients_and_junk(address: &str) {
    let mut client = in_transaction(address);
    let said: Vec<String> = (0..1010).map(|n| client.command(&format!("RCPT TO:<u{n}@here.test>"))).collect();
    assert!(said[..1000].iter().all(|text| text.starts_with("250")));
    assert!(said[1000..].iter().all(|text| text.starts_with("452 4.5.3")), "{:?}", &said[1000..]);
    assert!(client.command("DATA").starts_with("354"));
    assert!(client.command("Subject: many\r\n\r\n.").starts_with("250"));
    let mut client = in_transaction(address);
    client.send("XYZZY\r\n".repeat(200));
    let rest = client.rest();
    assert!(rest.contains("421 4.7.0") && rest.lines().count() <= 21, "{rest}");
    let mut client = in_transaction(address);
    client.send("NOOP\r\n".repeat(200));
    assert!(client.rest().contains("421 4.7.0"));
}

fn other_protocols_and_octets(address: &str) {
    for line in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /mail HTTP/1.1\r\n\r\nMAIL FROM:<a@c>\r\n"] {
        let mut client = Client::connect(address);
        client.send(line);
        let rest = client.rest();
        assert!(!rest.is_empty() && rest.lines().count() == 1 && rest.starts_with(['4', '5']), "{rest}");
    }
    for line in ["EHLO a\x1b[31mred\x07", "EHLO a\0b", "EHLO \u{85}x"] {
        assert!(Client::connect(address).command(line).starts_with('5'), "{line:?}");
    }
    for line in ["MAIL FROM:<a\x1b@c>", "MAIL FROM:<a\0@c>", "MAIL FROM:<\"a\x0b\"@c>", "RCPT TO:<u\x1b[2J@here.test>"]
    {
        assert!(in_transaction(address).command(line).starts_with('5'), "{line:?}");
    }
    let mut client = in_transaction(address);
    client.command("RCPT TO:<u@here.test>");
    client.command("DATA");
    let said = client.command("Subject: \0\r\n\r\nNUL \0 here\r\n.");
    assert!(said.starts_with("554 5.6.0") || said.starts_with("550 5.6.0"), "{said}");
    let mut client = Client::connect(address);
    client.send(vec![b'A'; 300_000]);
    client.send("\r\n");
    assert!(client.reply().starts_with("500"), "an endless line");
}

/// What ended DATA early elsewhere (CVE-2023-51764, -51765, -51766).
const SMUGGLING: [&str; 12] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\n.\r",
    "\r\n.\r\r\n",
    "\r\r\n.\r\r\n",
    "\n\n.\n\n",
    "\r\n\n.\n",
    "\n\r.\r\n",
];

#[test]
fn nothing_is_smuggled_to_a_postfix_behind() {
    let sink = Hop::start(Manner::Good, &[]);
    let postfix = Peer::start("postfix", &[("RELAY", &format!("127.0.0.1:{}", sink.port))]);
    let config = base()
        + &["accept", "normalize", "reject"].map(|how| listener(how, "mx", &format!("bare_lf = \"{how}\""))).concat()
        + &domain("example.test", &format!("smtp://{}", postfix.value("SMTP")));
    let weir = Weir::start(&config);
    let mut taken = 0;
    for how in ["accept", "normalize", "reject"] {
        for sequence in SMUGGLING {
            let inner =
                "MAIL FROM:<evil@shop.test>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\nSubject: forged\r\n\r\nforged";
            let content = format!("Subject: honest\r\n\r\ntext{sequence}{inner}");
            let said = send(&weir.address(how), "a@shop.test", "u@example.test", &content);
            taken += usize::from(said.starts_with("250"));
            assert!(said.starts_with("250") || said.starts_with('5'), "{how} {sequence:?}: {said}");
            assert!(!(how == "reject" && said.starts_with("250")), "{sequence:?} is refused");
        }
    }
    assert!(taken > 0, "the lenient listeners take some");
    // Chunks may hold anything; towards a next hop by DATA they are mended.
    let mut client = Client::connect(&weir.address("reject"));
    client.command("EHLO c");
    client.command("MAIL FROM:<a@shop.test>");
    client.command("RCPT TO:<u@example.test>");
    let chunk = "Subject: chunk\r\n\r\nx\n.\r\nMAIL FROM:<evil@shop.test>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\nforged\n.\n";
    client.send(format!("BDAT {} LAST\r\n{chunk}", chunk.len()));
    assert!(client.reply().starts_with("250"));
    taken += 1;
    empty_queue(&weir);
    wait_for("all at the sink", || (sink.count() >= taken).then_some(()));
    let all = sink.all();
    assert_eq!(all.len(), taken, "nothing arrives twice, nothing that nobody sent");
    for message in all {
        let envelope = message.envelope.join(" ");
        assert!(
            envelope.contains("a@shop.test") && !envelope.contains("evil") && !envelope.contains("victim"),
            "{envelope}"
        );
    }
}

#[test]
fn a_forged_client_address_is_believed_from_the_trusted_only() {
    let config = base()
        + &listener("open", "mx", "")
        + &listener("xclient", "mx", "xclient = [\"127.0.0.0/8\"]")
        + &listener("proxy", "mx", "proxy_protocol = [\"127.0.0.0/8\"]")
        + &listener("proxyfar", "mx", "proxy_protocol = [\"10.0.0.0/8\"]")
        + &domain("here.test", "maildir:DIR/box");
    let weir = Weir::start(&config);
    let proxied = "PROXY TCP4 203.0.113.9 192.0.2.1 4711 25\r\n";
    let mut stranger = Client::connect(&weir.address("open"));
    stranger.command("EHLO c");
    assert!(stranger.command("XCLIENT ADDR=203.0.113.9").starts_with("550"));
    assert!(Client::connect(&weir.address("proxyfar")).command(proxied.trim_end()).starts_with("500"));
    let mut client = Client::silent(&weir.address("proxy"));
    client.send("EHLO c\r\n");
    assert!(!client.rest().starts_with("220"), "a balancer that does not introduce its client is not served");
    let mut client = Client::silent(&weir.address("proxy"));
    client.send(proxied);
    assert!(client.reply().starts_with("220"));
    assert!(client.mail("a@shop.test", "u@here.test", "Subject: by proxy\r\n\r\nx").starts_with("250"));
    let mut client = Client::connect(&weir.address("xclient"));
    client.command("EHLO c");
    assert!(client.command("XCLIENT ADDR=203.0.113.10").starts_with("220"));
    assert!(client.mail("a@shop.test", "u@here.test", "Subject: by xclient\r\n\r\nx").starts_with("250"));
    let mails = wait_for("both", || Some(maildir(&weir.path().join("box"))).filter(|mails| mails.len() == 2));
    let received = |subject: &str| mails.iter().find(|mail| mail.contains(subject)).unwrap().clone();
    assert!(received("by proxy").contains("[203.0.113.9]"), "{}", received("by proxy"));
    assert!(received("by xclient").contains("[203.0.113.10]"), "{}", received("by xclient"));
}

const SERIAL: &str = r#"
import smtplib, ssl, sys
s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=30)
s.starttls(context=ssl._create_unverified_context())
import hashlib; print(hashlib.sha256(s.sock.getpeercert(True)).hexdigest()); s.quit()
"#;

fn certificate(folder: &Path) {
    let (cert, key) = (folder.join("new.pem"), folder.join("new.key"));
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let arguments = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=mx.example.test",
        "-keyout",
        &key,
        "-out",
        &cert,
    ];
    let (ok, said) = run("openssl", &arguments);
    assert!(ok, "{said}");
    fs::rename(key, folder.join("tls.key")).unwrap();
    fs::rename(cert, folder.join("tls.pem")).unwrap();
}

#[test]
fn a_certificate_is_swapped_while_it_runs() {
    let folder = support::folder();
    certificate(folder.path());
    let place = folder.path().display();
    let config = base()
        + &format!("[tls]\ncertificate = \"{place}/tls.pem\"\nkey = \"{place}/tls.key\"\n")
        + &listener("mx", "mx", "tls = \"starttls\"");
    let weir = Weir::start(&config);
    let port = weir.port("mx").to_string();
    let first = python(SERIAL, &[&port]);
    certificate(folder.path());
    wait_for("the new certificate", || (python(SERIAL, &[&port]) != first).then_some(()));
}

/// The classical relay tests, with `far.test` for the victim's domain and `here.test` for ours.
fn relay_tricks() -> Vec<String> {
    let mut tricks: Vec<String> = Vec::new();
    for ours in ["here.test", "HERE.test", "here.test.", "[127.0.0.1]", "localhost", "mx.example.test", "[IPv6:::1]"] {
        for trick in [
            "v%far.test@OURS",
            "far.test!v@OURS",
            "\"v@far.test\"@OURS",
            "\"v%far.test\"@OURS",
            "\"far.test!v\"@OURS",
            "v@far.test@OURS",
            "@OURS:v@far.test",
            "@OURS,@far.test:v@far.test",
            "v%far.test%OURS@OURS",
            "OURS!far.test!v@OURS",
            "v@far.test%OURS",
            "v@OURS@far.test",
        ] {
            tricks.push(format!("<{}>", trick.replace("OURS", ours)));
        }
    }
    let plain = [
        "<v@far.test>",
        "<v@FAR.TEST>",
        "<v@far.test.>",
        "v@far.test",
        "<\"v\"@far.test>",
        "<v@far.test",
        "<v@far%2etest>",
        "<v@[192.0.2.5]>",
        "<v@[IPv6:2001:db8::5]>",
        "<@far.test:v@here.test@far.test>",
        "<v@here.test\0@far.test>",
        "<v@hére.test>",
        "<v@here。test>",
        "<v@ｈere.test>",
        "<v@sub.here.test>",
        "<v@xhere.test>",
        "<v@here.test.far.test>",
        "<far.test!v>",
        "<v%far.test>",
        "<v@1.2.3.4>",
    ];
    tricks.extend(plain.map(str::to_owned));
    tricks
}

#[test]
fn no_trick_makes_it_an_open_relay() {
    let sink = Hop::start(Manner::Good, &[]);
    let config = base()
        + &listener("mx", "mx", "errors = 100000\nunknown_recipients = 100000\njunk_commands = 100000")
        + &format!("[relay]\nnetworks = [\"10.0.0.0/8\"]\nsmarthost = \"smtp://127.0.0.1:{}\"\n", sink.port)
        + &domain("here.test", "discard:");
    let weir = Weir::start(&config);
    let mut client = Client::connect(&weir.address("mx"));
    let tricks = relay_tricks();
    assert!(tricks.len() >= 90, "{}", tricks.len());
    for from in ["<spam@far.test>", "<>", "<u@here.test>", "<spam@[127.0.0.1]>"] {
        for (trick, utf8) in tricks.iter().flat_map(|trick| [(trick, ""), (trick, " SMTPUTF8")]) {
            client.command("EHLO client.test");
            client.command(&format!("MAIL FROM:{from}{utf8}"));
            let said = client.command(&format!("RCPT TO:{trick}"));
            if said.starts_with("250") {
                // Only what is ours by its canonical domain, and goes where ours goes: nowhere, here.
                assert!(client.command("DATA").starts_with("354"));
                assert!(client.command("Subject: relayed\r\n\r\nx\r\n.").starts_with("250"));
            } else {
                assert!(said.starts_with('5'), "{from} {trick}: {said}");
            }
        }
    }
    empty_queue(&weir);
    assert!(sink.all().is_empty(), "relayed: {:?}", sink.all());
}

#[test]
fn nobody_reads_the_log_and_mail_goes_on() {
    let config = base() + "[log]\nlevel = \"debug\"\n" + &listener("mx", "mx", "") + &domain("here.test", "discard:");
    // A pipe with 64 KiB of room, that nobody empties.
    let hung = "mkfifo \"${1%/*}/unread\"; exec 2<>\"${1%/*}/unread\"";
    let mut weir = Weir::start_under(hung, &config);
    let mut client = Client::connect(&weir.address("mx"));
    client.command("EHLO client.test");
    for n in 0..600 {
        let said = client.mail("a@far.test", "u@here.test", &format!("Subject: {n}\r\n\r\nx"));
        assert!(said.starts_with("250"), "{n}: {said}");
    }
    empty_queue(&weir);
    weir.signal("TERM");
    assert!(weir.wait_end(), "it stops as if somebody read");
}

#[test]
fn guessing_of_passwords_ends_whatever_the_protocol() {
    let config = head_with_store("mx.example.test", &format!("{POP3_ON}\nplaintext_login = true"))
        + SOON
        + &listener("in", "submission", "auth_plaintext = true")
        + "[[rate]]\nkey = [\"login\"]\ncount = \"auth_failures\"\nlimit = \"4/1h\"\naction = \"defer\"\n";
    let weir = Weir::start(&config);
    weir.add_user("alice");
    weir.add_user("bob");
    let said = python(
        r#"
import base64, poplib, smtplib, sys
def pop3(login, password):
    s = poplib.POP3(*sys.argv[2].split(":"), timeout=60)
    try: s.user(login); s.pass_(password); return "in"
    except poplib.error_proto as e: return e.args[0].decode()
def smtp(login, password, how):
    s = smtplib.SMTP(sys.argv[1], timeout=60); s.ehlo("client.test"); s.user, s.password = login, password
    try: return str(s.auth(how, getattr(s, "auth_" + how.lower()))[0])
    except smtplib.SMTPAuthenticationError as e: return f"{e.smtp_code} {e.smtp_error.decode()}"
print(smtp("alice", "guess1", "PLAIN")); print(smtp("Alice", "guess2", "LOGIN"))
print(pop3("alice", "guess3")); print(pop3("ALICE", "guess4"))
print(smtp("alice", "pw", "PLAIN")); print(pop3("alice", "pw"))
print(smtp("bob", "pw", "PLAIN")); print(pop3("bob", "pw"))
"#,
        &[&weir.address("in"), &weir.address("pop3")],
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[..2].iter().all(|line| line.starts_with("535 5.7.8")), "{said}");
    assert!(lines[2..4].iter().all(|line| line.starts_with("-ERR [AUTH]")), "{said}");
    assert!(
        lines[4].starts_with("454 4.7.0") && lines[5].starts_with("-ERR [SYS/TEMP]"),
        "even right ones wait: {said}"
    );
    assert_eq!(lines[6..], ["235", "in"], "others are not bothered: {said}");
    assert!(weir.ok(&["rate", "list"]).contains("login=alice"), "{}", weir.ok(&["rate", "list"]));
}
