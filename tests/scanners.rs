//! Filters of others that the gateway asks, and the gateway as a filter for others: real peers on both sides, and peers that fail.
#![allow(clippy::unwrap_used)] // Helpers of tests, too.

#[path = "scanners/fake.rs"]
mod fake;
#[path = "support/hop.rs"]
mod hop;
#[path = "scanners/services.rs"]
mod services;
#[path = "support/mod.rs"]
mod support;

use std::fs;

use fake::{Act, FakeMilter, Silent, garbage};
use hop::{Client, Hop, Manner, send};
use support::config::{domain, head, listener};
use support::{Peer, Weir, run, wait_for};

/// A gateway whose mail for example.test goes to `hop`, with these scanners on its listener `mx`.
fn gateway(hop: &Hop, filter: &str, scanners: &str) -> Weir {
    let config = head("mx.example.test")
        + &listener("mx", "mx", &format!("filter = \"{filter}\""))
        + &domain("example.test", &format!("smtp://127.0.0.1:{}", hop.port))
        + scanners;
    Weir::start(&config)
}

fn scanner(url: &str, more: &str) -> String {
    format!("[[scanner]]\nurl = \"{url}\"\nlisteners = [\"mx\"]\n{more}\n")
}

fn good_hop() -> Hop {
    Hop::start(Manner::Good, &["PIPELINING", "8BITMIME"])
}

fn next_message(hop: &Hop, count: usize) -> String {
    wait_for("a delivered message", || (hop.count() >= count).then(|| hop.all()[count - 1].text()))
}

fn metrics(weir: &Weir) -> String {
    run("curl", &["-sS", &format!("http://{}/metrics", weir.address("admin"))]).1
}

const MARKER: &str = "Subject: x\r\nFrom: a@b.test\r\n\r\nWEIR-TEST-VIRUS-MARKER";
const PLAIN: &str = "Subject: plain\r\nFrom: a@b.test\r\n\r\nnothing to see";

#[test]
fn clamd_finds_what_is_streamed_to_it_over_tcp_and_a_unix_socket() {
    let clamd = Peer::start("clamd", &[("MAXLEN", "1M")]);
    let hop = good_hop();
    let by_tcp = gateway(&hop, "off", &scanner(&format!("clamd://{}", clamd.value("CLAMD")), ""));
    let said = send(&by_tcp.address("mx"), "a@b.test", "u@example.test", MARKER);
    assert!(said.starts_with("550 5.7.1") && said.contains("clamd found Marker-Test"), "{said}");
    let said = send(&by_tcp.address("mx"), "a@b.test", "u@example.test", PLAIN);
    assert!(said.starts_with("250"), "{said}");
    assert!(next_message(&hop, 1).contains("nothing to see"));

    // Longer than one chunk, the marker at its end; then longer than clamd's own limit, which it says by an error.
    let by_unix = gateway(
        &hop,
        "off",
        &scanner(&format!("clamd+unix:{}", clamd.value("CLAMD_SOCKET")), "on_found = \"quarantine\""),
    );
    let filler = "0123456789abcdef\r\n".repeat(20_000);
    let long = format!("{PLAIN}\r\n{filler}WEIR-TEST-VIRUS-MARKER");
    let said = send(&by_unix.address("mx"), "a@b.test", "u@example.test", &long);
    assert!(said.starts_with("250"), "{said}");
    let list = by_unix.ok(&["quarantine", "list"]);
    assert!(list.contains("clamd found Marker-Test"), "{list}");
    let said = send(&by_unix.address("mx"), "a@b.test", "u@example.test", &format!("{PLAIN}\r\n{}", filler.repeat(4)));
    assert!(said.starts_with("451 4.7.1"), "above clamd's limit is a failure, and failures defer: {said}");
    wait_for("its words in the log", || by_unix.log().contains("size limit exceeded").then_some(()));
    let text = metrics(&by_unix);
    assert!(text.contains(r#"weir_filter_scanner_answers_total{answer="found",scanner="clamd"} 1"#), "{text}");
}

#[test]
fn a_message_above_the_size_of_a_scanner_is_marked_and_not_sent_to_it() {
    let clamd = Peer::start("clamd", &[]);
    let hop = good_hop();
    let weir = gateway(&hop, "tag", &scanner(&format!("clamd://{}", clamd.value("CLAMD")), "size = \"1 KiB\""));
    let long = format!("{MARKER}\r\n{}", "x".repeat(70).repeat(20));
    assert!(send(&weir.address("mx"), "a@b.test", "u@example.test", &long).starts_with("250"));
    let text = next_message(&hop, 1);
    assert!(text.contains("CLAMD_TOO_LARGE=1"), "{text}");
}

#[test]
fn a_finding_can_be_points_in_a_score_that_adds_up() {
    let clamd = Peer::start("clamd", &[]);
    let hop = good_hop();
    let weir = gateway(
        &hop,
        "enforce",
        &scanner(&format!("clamd://{}", clamd.value("CLAMD")), "on_found = \"score\"\nweight = 7.5\nname = \"av\""),
    );
    assert!(send(&weir.address("mx"), "a@b.test", "u@example.test", MARKER).starts_with("250"));
    let text = wait_for("a verdict", || {
        let found = weir.ok(&["quarantine", "list"]);
        let delivered = hop.all().first().map(hop::Taken::text);
        delivered.or(found.contains("AV_FOUND").then_some(found))
    });
    assert!(text.contains("AV_FOUND"), "{text}");
}

#[test]
fn a_scanner_that_fails_means_what_the_configuration_says() {
    let hop = good_hop();
    let dead = "clamd://127.0.0.1:1";
    for (choice, code) in [("defer", "451 4.7.1"), ("open", "250"), ("quarantine", "250")] {
        let weir = gateway(&hop, "off", &scanner(dead, &format!("on_failure = \"{choice}\"")));
        let said = send(&weir.address("mx"), "a@b.test", "u@example.test", PLAIN);
        assert!(said.starts_with(code), "{choice}: {said}");
        let kept = weir.ok(&["quarantine", "list"]).contains("clamd failed");
        assert_eq!(kept, choice == "quarantine", "{choice}");
    }
    for url in ["clamd", "spamd", "rspamd", "milter"] {
        let port = garbage();
        let weir = gateway(&hop, "off", &scanner(&format!("{url}://127.0.0.1:{port}"), "on_failure = \"defer\""));
        let said = send(&weir.address("mx"), "a@b.test", "u@example.test", PLAIN);
        assert!(said.starts_with("451 4.7.1"), "garbage for {url}: {said}");
    }
}

#[test]
fn a_scanner_that_hangs_is_left_alone_and_tried_again() {
    let silent = Silent::start();
    let hop = good_hop();
    let more = "timeout = \"300ms\"\nbreaker_failures = 2\nbreaker_pause = \"10s\"\non_failure = \"open\"";
    let weir = gateway(&hop, "off", &scanner(&format!("clamd://127.0.0.1:{}", silent.port), more));
    for _ in 0..4 {
        assert!(send(&weir.address("mx"), "a@b.test", "u@example.test", PLAIN).starts_with("250"));
    }
    assert_eq!(silent.connections(), 2, "two failures, then it is left alone");
    assert!(metrics(&weir).contains(r#"weir_filter_scanner_breaker{scanner="clamd"} 2"#));
    wait_for("another try", || {
        assert!(send(&weir.address("mx"), "a@b.test", "u@example.test", PLAIN).starts_with("250"));
        (silent.connections() >= 3).then_some(())
    });
}

/// Verifies with a key given as `NAME RECORD`.
const VERIFY: &str = r#"
import dkim, sys
record = sys.argv[2].split(" ", 1)[1].strip().encode()
print(dkim.verify(open(sys.argv[1], "rb").read(), dnsfunc=lambda name, timeout=5: record))
"#;

#[test]
fn opendkim_signs_by_our_milter_client_and_another_verifies() {
    let opendkim = Peer::start("opendkim", &[]);
    let hop = good_hop();
    let weir = gateway(&hop, "off", &scanner(&format!("milter://{}", opendkim.value("MILTER")), "name = \"opendkim\""));
    let mail = "From: alice@example.test\r\nTo: u@example.test\r\nSubject: signed\r\n folded\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n\r\nbody\r\nof two lines";
    let said = send(&weir.address("mx"), "alice@example.test", "u@example.test", mail);
    assert!(said.starts_with("250"), "{said}");
    let signed = next_message(&hop, 1);
    assert!(signed.contains("DKIM-Signature: v=1;") && signed.contains("d=example.test"), "{signed}");
    // What it signed verifies with another verifier than its own.
    let key = fs::read_to_string(opendkim.path().join("pubkeys")).unwrap();
    let file = opendkim.path().join("signed.eml");
    fs::write(&file, &signed).unwrap();
    let (_, checked) = run("/usr/bin/python3", &["-c", VERIFY, &file.display().to_string(), &key]);
    assert_eq!(checked.trim(), "True", "{signed}");
    assert!(weir.log().contains("opendkim") || !weir.log().contains("a scanner failed"), "{}", weir.log());
}

#[test]
fn a_milter_may_change_everything_it_negotiated() {
    let milter = FakeMilter::start(0, |stage| match stage {
        "eom" => vec![
            Act::Add("X-Added", " last"),
            Act::Insert(0, "X-First", " top"),
            Act::Change(1, "Subject", " changed"),
            Act::Body("new body\r\n"),
            Act::AddRecipient("<more@example.test>"),
            Act::RemoveRecipient("<u@example.test>"),
            Act::Sender("<other@b.test>"),
            Act::Continue,
        ],
        _ => vec![Act::Continue],
    });
    let hop = good_hop();
    let weir = gateway(&hop, "off", &scanner(&format!("milter://127.0.0.1:{}", milter.port), ""));
    let said = send(&weir.address("mx"), "a@b.test", "u@example.test", PLAIN);
    assert!(said.starts_with("250"), "{said}");
    next_message(&hop, 1);
    let taken = &hop.all()[0];
    let text = taken.text();
    assert!(text.contains("X-First: top\r\nSubject: changed\r\n"), "{text}");
    assert!(text.contains("X-Added: last\r\n\r\nnew body\r\n") && !text.contains("nothing to see"), "{text}");
    let envelope = taken.envelope.join(" ");
    assert!(envelope.contains("<other@b.test>") && envelope.contains("<more@example.test>"), "{envelope}");
    assert!(!envelope.contains("<u@example.test>"), "{envelope}");
    let seen = milter.seen();
    for macros in
        ["{client_addr}=127.0.0.1", "i=", "{rcpt_addr}=u@example.test", "{mail_addr}=a@b.test", "j=mx.example.test"]
    {
        assert!(seen.contains(macros), "{macros} in {seen}");
    }
}

#[test]
fn a_milter_refuses_one_recipient_at_rcpt_and_a_message_at_its_end() {
    let milter = FakeMilter::start(0, |stage| match stage {
        "rcpt <bad@example.test>" => vec![Act::Reply("550 5.1.1 not this one")],
        "rcpt <later@example.test>" => vec![Act::Tempfail],
        "header Subject: plain" => vec![Act::Reply("451 4.7.9 100%% later")],
        "header Subject: gone" => vec![Act::Discard],
        "header Subject: keep" => vec![Act::Accept],
        "eom" => vec![Act::Quarantine("smells"), Act::Continue],
        _ => vec![Act::Continue],
    });
    let hop = good_hop();
    let weir = gateway(&hop, "off", &scanner(&format!("milter://127.0.0.1:{}", milter.port), ""));
    let mut client = Client::connect(&weir.address("mx"));
    client.command("EHLO client.test");
    client.command("MAIL FROM:<a@b.test>");
    let said = client.command("RCPT TO:<bad@example.test>");
    assert!(said.starts_with("550 5.1.1 not this one; ref "), "{said}");
    let reference = said.rsplit(' ').next().unwrap();
    wait_for("the record", || weir.cli(&["explain", reference]).status.success().then_some(()));
    assert!(weir.ok(&["explain", reference]).contains("setting      [[scanner]] milter (weir.toml:"));
    assert!(client.command("RCPT TO:<later@example.test>").starts_with("451 4.7.1"));
    assert!(client.command("RCPT TO:<good@example.test>").starts_with("250"));
    client.command("DATA");
    assert!(client.command(&format!("{PLAIN}\r\n.")).starts_with("451 4.7.9 100% later; ref "));
    let address = weir.address("mx");
    let mail = |subject: &str| send(&address, "a@b.test", "u@example.test", &format!("Subject: {subject}\r\n\r\nx"));
    assert!(mail("gone").starts_with("250"));
    assert!(mail("keep").starts_with("250"));
    assert!(next_message(&hop, 1).contains("Subject: keep"), "what was discarded does not arrive");
    assert!(mail("odd").starts_with("250"));
    wait_for("the quarantine", || weir.ok(&["quarantine", "list"]).contains("milter: smells").then_some(()));
}

#[test]
fn several_milters_see_what_the_one_before_made() {
    let first = FakeMilter::start(0, |stage| match stage {
        "eom" => vec![Act::Add("X-One", " 1"), Act::Continue],
        _ => vec![Act::Continue],
    });
    let second = FakeMilter::start(0, |stage| match stage {
        "header X-One: 1" => vec![Act::Reply("554 5.7.0 seen")],
        _ => vec![Act::Continue],
    });
    let hop = good_hop();
    let one = scanner(&format!("milter://127.0.0.1:{}", first.port), "name = \"one\"");
    let two = scanner(&format!("milter://127.0.0.1:{}", second.port), "name = \"two\"");
    let weir = gateway(&hop, "off", &format!("{one}{two}"));
    let said = send(&weir.address("mx"), "a@b.test", "u@example.test", PLAIN);
    assert!(said.starts_with("554 5.7.0 seen; ref "), "{said}");
}
