//! Clients that break off, forge and flood, against a live gateway: what they leave behind is nothing.
#![allow(clippy::unwrap_used)] // Helpers of tests, too.

#[path = "support/hop.rs"]
mod hop;
#[path = "support/mod.rs"]
mod support;

use std::fs;

use hop::{Client, send};
use support::config::{domain, head, listener};
use support::{Weir, python, run, wait_for};

fn metric(weir: &Weir, name: &str) -> f64 {
    let (ok, text) = run("curl", &["-sS", &format!("http://{}/metrics", weir.address("admin"))]);
    assert!(ok, "{text}");
    text.lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Breaks a connection off behind each octet of a chunk and of DATA: by close_notify, by closing alone, by a reset; in TLS and without.
const BREAK_OFF: &str = r#"
import socket, ssl, struct, sys
def connect(port, tls):
    s = socket.create_connection(("127.0.0.1", port), timeout=30)
    if tls: s = ssl._create_unverified_context().wrap_socket(s)
    return s, s.makefile("rb")
def reply(f):
    while True:
        line = f.readline()
        if line[3:4] != b"-": return line
def say(s, f, line): s.sendall(line + b"\r\n"); return reply(f)
body = b"Subject: cut\r\n\r\n" + b"x" * 9 + b"\r\n"
tried = 0
for port, tls in ((int(sys.argv[1]), False), (int(sys.argv[2]), True)):
    for opening, wanted in ((b"BDAT %d LAST" % len(body), None), (b"BDAT %d" % len(body), None), (b"DATA", b"354")):
        for octets in range(len(body)):
            how = ("notify", "close", "reset")[octets % 3]
            s, f = connect(port, tls); reply(f)
            for line in (b"EHLO c", b"MAIL FROM:<a@shop.test>", b"RCPT TO:<u@here.test>"): say(s, f, line)
            s.sendall(opening + b"\r\n")
            if wanted: assert reply(f).startswith(wanted)
            s.sendall(body[:octets])
            if how == "reset": s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how == "notify" and tls:
                s.settimeout(30)
                try: s.unwrap()
                except (ssl.SSLError, OSError): pass
            f.close(); s.close(); tried += 1
print(tried)
"#;

#[test]
fn a_connection_that_breaks_off_inside_a_message_leaves_nothing() {
    let config = head("mx.example.test")
        + "[limits]\nconnections_per_ip = 1000\nconnections_per_net = 1000\n"
        + &listener("mx", "mx", "")
        + &listener("tls", "mx", "tls = \"implicit\"")
        + &domain("here.test", "maildir:DIR/box");
    let weir = Weir::start(&config);
    let tried = python(BREAK_OFF, &[&weir.port("mx").to_string(), &weir.port("tls").to_string()]);
    assert_eq!(tried.trim(), "162");
    wait_for("the end of all of them", || (metric(&weir, "weir_front_connections{") == 0.0).then_some(()));
    assert_eq!(metric(&weir, "weir_flow_sessions_open{"), 0.0);
    assert!(send(&weir.address("mx"), "a@shop.test", "u@here.test", "Subject: whole\r\n\r\nx").starts_with("250"));
    let box_ = weir.path().join("box/new");
    let found = || fs::read_dir(&box_).ok().map(|entries| entries.count());
    wait_for("the whole one", || found().filter(|count| *count > 0));
    // The file is there before the spool knows that it is.
    wait_for("an empty queue", || weir.queue().is_empty().then_some(()));
    assert_eq!(found(), Some(1), "only what was whole was taken");
    assert_eq!(metric(&weir, "weir_front_panics_total"), 0.0);
    assert!(!weir.log().contains("panicked"));
}

/// What clients get wrong, or try, with AUTH; the reply's code and enhanced code for each.
const AUTH: &str = r#"
import base64, socket, ssl, sys
def connect(tls):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30); f = s.makefile("rb"); reply(f)
    if tls:
        say(s, f, "EHLO c"); say(s, f, "STARTTLS"); s = ssl._create_unverified_context().wrap_socket(s); f = s.makefile("rb")
    say(s, f, "EHLO c"); return s, f
def reply(f):
    while True:
        line = f.readline().decode("latin-1")
        if line[3:4] != "-": return line.strip()
def say(s, f, line): s.sendall(line.encode("latin-1") + b"\r\n"); return reply(f)
def b64(text): return base64.b64encode(text.encode()).decode()
s, f = connect(False)
print("plaintext", say(s, f, "AUTH PLAIN " + b64("\0alice\0pw")))
print("mail", say(s, f, "MAIL FROM:<alice@here.test>"))
for name, lines in {
    "no base64": ["AUTH PLAIN ???"],
    "no NULs": ["AUTH PLAIN " + b64("alice")],
    "for another": ["AUTH PLAIN " + b64("bob\0alice\0pw")],
    "empty": ["AUTH PLAIN ="],
    "NUL in password": ["AUTH PLAIN " + b64("\0alice\0p\0w")],
    "cancelled": ["AUTH LOGIN", "*"],
    "a command": ["AUTH LOGIN", "MAIL FROM:<alice@here.test>"],
    "mechanism": ["AUTH CRAM-MD5"],
    "channel binding": ["AUTH SCRAM-SHA-256 " + b64("p=tls-exporter,,n=alice,r=x")],
    "right": ["AUTH PLAIN " + b64("\0alice\0pw")],
}.items():
    s, f = connect(True)
    for line in lines: said = say(s, f, line)
    print(name, said)
print("twice", say(s, f, "AUTH PLAIN " + b64("\0alice\0pw")))
say(s, f, "MAIL FROM:<alice@here.test>"); print("inside", say(s, f, "AUTH LOGIN"))
s, f = connect(True)
said = [say(s, f, "AUTH PLAIN " + b64("\0%s\0no" % who)) for who in ("alice", "nobody", "alice")]
print("guesses", len(set(said)), said[0], "then", f.readline().decode().strip())
"#;

#[test]
fn whatever_is_wrong_with_auth_has_its_reply_and_lets_nobody_in() {
    let config = head("mx.example.test")
        + &listener("in", "submission", "tls = \"starttls\"")
        + &domain("here.test", "discard:");
    let weir = Weir::start(&config);
    weir.add_user("alice");
    let said = python(AUTH, &[&weir.port("in").to_string()]);
    let expected = [
        "plaintext 538 5.7.11",
        "mail 530 5.7.0",
        "no base64 501 5.5.2",
        "no NULs 501 5.5.2",
        "for another 535 5.7.8",
        "empty 501 5.5.2",
        "NUL in password 501 5.5.2",
        "cancelled 501 5.0.0",
        "a command 501 5.5.2",
        "mechanism 504 5.5.4",
        "channel binding 535 5.7.8",
        "right 235 2.7.0",
        "twice 503 5.5.1",
        "inside 503 5.5.1",
        "guesses 1 535 5.7.8",
    ];
    assert_eq!(said.lines().count(), expected.len(), "{said}");
    for (line, start) in said.lines().zip(expected) {
        assert!(line.starts_with(start), "{line:?} is not {start:?} in\n{said}");
    }
    let counts = "then 421 4.7.0 Too many failed authentications (auth_failures)";
    assert!(said.trim_end().ends_with(counts), "{said}");
}

#[test]
fn what_comes_to_the_wrong_port_is_sent_away_and_counted() {
    let config = head("mx.example.test")
        + "[limits]\nhandshake_timeout = \"1s\"\n"
        + &listener("mx", "mx", "")
        + &listener("tls", "mx", "tls = \"implicit\"")
        + &listener("proxy", "mx", "proxy_protocol = [\"127.0.0.0/8\"]");
    let weir = Weir::start(&config);
    let mut silent = [Client::silent(&weir.address("tls")), Client::silent(&weir.address("proxy"))];
    // SMTP, HTTP and an old SSL hello where TLS begins at once.
    for bytes in [&b"EHLO c\r\n"[..], b"GET / HTTP/1.0\r\n\r\n", b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"] {
        let mut client = Client::silent(&weir.address("tls"));
        client.send(bytes);
        assert!(!client.rest().contains("220"), "{bytes:?}");
    }
    let mut http = Client::connect(&weir.address("mx"));
    http.send("POST / HTTP/1.1\r\nHost: mx\r\nContent-Length: 99\r\n\r\nMAIL FROM:<a@shop.test>\r\n");
    let told = http.rest();
    assert!(told.starts_with("554 5.5.0") && told.lines().count() == 1, "{told}");
    let mut forged = Client::silent(&weir.address("proxy"));
    forged.send("PROXY TCP4 1.2.3.4\r\nEHLO c\r\n");
    assert_eq!(forged.rest(), "");
    silent.iter_mut().for_each(|client| assert_eq!(client.rest(), "", "nothing can be said before TLS or the header"));
    assert!(metric(&weir, "weir_front_timeouts_total{limit=\"handshake_timeout\"}") >= 2.0);
    assert!(metric(&weir, "weir_front_tls_handshakes_total{outcome=\"failed\"}") >= 3.0);
    assert_eq!(metric(&weir, "weir_front_proxy_errors_total"), 1.0);
}

/// What a reader would believe if a stranger had written it; `X-Spam-*` where our filter says the same of each message.
#[test]
fn what_only_we_may_assert_is_cut_at_the_border() {
    let base = head("mx.example.test")
        + &listener("judged", "mx", "filter = \"tag\"")
        + &listener("unjudged", "mx", "")
        + &domain("here.test", "maildir:DIR/box");
    let weir = Weir::start(&base);
    let forged = [
        "Return-Path: <boss@here.test>",
        "X-Weir-Id: forged",
        "x-ms-exchange-organization-scl: -1",
        "Authentication-Results: mx.example.test; spf=pass forged",
        "X-Spam-Flag: YES forged",
        "x-spam-status: No, forged",
        "X-Spam-Level: forged",
    ];
    let honest = ["X-Mailer: honest", "Authentication-Results: other.test; spf=pass", "X-Spam-Score: theirs"];
    for name in ["judged", "unjudged"] {
        let fields = forged.iter().chain(&honest).copied().collect::<Vec<_>>().join("\r\n");
        let content = format!("{fields}\r\nFrom: a@shop.test\r\nSubject: {name}\r\n\r\nx");
        assert!(send(&weir.address(name), "a@shop.test", "u@here.test", &content).starts_with("250"));
    }
    let mails = wait_for("both", || {
        let entries = fs::read_dir(weir.path().join("box/new")).ok()?;
        let mails: Vec<String> = entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
        (mails.len() == 2).then_some(mails)
    });
    for mail in mails {
        let left: Vec<&str> = forged.iter().filter(|field| mail.contains(**field)).copied().collect();
        let judged = mail.contains("Subject: judged");
        assert_eq!(left, forged[if judged { 7 } else { 4 }..], "{mail}");
        assert!(honest.iter().all(|field| mail.contains(field)), "{mail}");
        assert_eq!(mail.contains("X-Spam-Status: No, score="), judged, "{mail}");
    }
}
