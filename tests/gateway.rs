//! The whole gateway from outside, with real peers: swaks, curl, Python's and Postfix's clients in front, Dovecot and Postfix behind.

mod support;

use std::fs;

use support::config::{POP3_ON, domain, head_with_store, listener};
use support::{Peer, Weir, python, run, wait_for};

/// A perimeter gateway whose domain example.test is delivered to `deliver_to`.
fn perimeter(deliver_to: &str, more: &str) -> Weir {
    Weir::start(&perimeter_config(deliver_to, more))
}

fn perimeter_config(deliver_to: &str, more: &str) -> String {
    head_with_store("mx.example.test", POP3_ON)
        + &listener("mx", "mx", "tls = \"starttls\"")
        + &listener("submission", "submission", "tls = \"starttls\"")
        + &domain("example.test", deliver_to)
        + more
}

/// Messages in a maildrop by POP3: prints each message's Subject, or the body of the message with a given subject.
const POP3: &str = r#"
import poplib, ssl, sys, time
port, user, password, count = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
for _ in range(600):
    box = poplib.POP3("127.0.0.1", port, timeout=30)
    if "STLS" in box.capa(): box.stls(context=ssl._create_unverified_context())
    box.user(user); box.pass_(password)
    if box.stat()[0] >= count: break
    box.quit(); time.sleep(0.1)
for n in range(1, box.stat()[0] + 1):
    print(b"\n".join(box.retr(n)[1]).decode("latin-1"))
    print("=====")
box.quit()
"#;

fn pop3(port: u16, user: &str, count: usize) -> String {
    python(POP3, &[&port.to_string(), user, "pw", &count.to_string()])
}

#[test]
fn swaks_through_the_spool_into_a_dovecot_mailbox_and_back_by_pop3_and_imap() {
    let dovecot = Peer::start("dovecot", &[]);
    let weir = perimeter(&format!("lmtp://{}", dovecot.value("LMTP")), "");
    let server = weir.address("mx");
    let (ok, said) = run(
        "swaks",
        &[
            "--server",
            &server,
            "--tls",
            "--from",
            "nora@shop.test",
            "--to",
            "u1@example.test,u2@example.test",
            "--header",
            "Subject: through the house",
            "--body",
            "first line\n.\nlast line",
        ],
    );
    assert!(ok, "{said}");
    for user in ["u1", "u2"] {
        let mail = pop3(dovecot.port("POP3"), user, 1);
        assert!(mail.contains("Subject: through the house"), "{mail}");
        assert!(mail.contains("first line\n.\nlast line"), "{mail}");
        assert!(mail.contains("by mx.example.test (Weir) with ESMTPS id "), "{mail}");
        assert!(mail.contains("Return-Path: <nora@shop.test>"), "{mail}");
    }
    let imap = python(
        r#"
import imaplib, sys
box = imaplib.IMAP4("127.0.0.1", int(sys.argv[1])); box.login("u1", "pw"); box.select()
print(box.search(None, 'SUBJECT', '"through the house"'))
box.store("1", "+FLAGS", "\\Flagged")
print(box.fetch("1", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[TEXT]<0.10>)"))
"#,
        &[&dovecot.port("IMAP").to_string()],
    );
    assert!(imap.contains("[b'1']") && imap.contains("Flagged") && imap.contains("first line"), "{imap}");
    let proof = weir.ok(&["queue", "verify"]);
    assert!(proof.starts_with("the running Weir: ") && proof.ends_with("\nclean\n"), "{proof}");
}

#[test]
fn python_submits_with_auth_over_starttls_into_the_embedded_store() {
    let weir = perimeter("store:", "");
    for user in ["alice", "bob"] {
        weir.add_user(user);
    }
    let sent = python(
        r#"
import smtplib, sys
s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=30); s.ehlo("client.test")
try:
    s.login("alice", "pw"); print("PLAINTEXT AUTH TAKEN")
except smtplib.SMTPNotSupportedError: pass
import ssl
s.starttls(context=ssl._create_unverified_context()); s.ehlo("client.test")
try:
    s.login("alice", "wrong"); print("WRONG PASSWORD TAKEN")
except smtplib.SMTPAuthenticationError as e: print(e.smtp_code)
s.login("alice", "pw")
s.sendmail("alice@example.test", ["bob@example.test"], "Subject: hello\r\n\r\nby submission\r\n")
s.quit()
"#,
        &[&weir.port("submission").to_string()],
    );
    assert_eq!(sent.trim(), "535");
    let mail = pop3(weir.port("pop3"), "bob", 1);
    assert!(mail.contains("by submission") && mail.contains("with ESMTPSA id"), "{mail}");
    assert!(mail.contains("Date: ") && mail.contains("Message-ID: <"), "{mail}");
}

#[test]
fn curl_sends_and_reads_back() {
    let weir = perimeter("store:", "");
    weir.add_user("carol");
    let file = weir.path().join("mail.txt");
    fs::write(&file, "Subject: by curl\r\n\r\ncurled\r\n").unwrap();
    let url = format!("smtp://{}/client.test", weir.address("mx"));
    let (ok, said) = run(
        "curl",
        &[
            "-sS",
            "-k",
            "--ssl-reqd",
            "--url",
            &url,
            "--mail-from",
            "x@shop.test",
            "--mail-rcpt",
            "carol@example.test",
            "--upload-file",
            &file.display().to_string(),
        ],
    );
    assert!(ok, "{said}");
    assert!(pop3(weir.port("pop3"), "carol", 1).contains("curled"));
    let url = format!("pop3s://{}/1", weir.address("pop3s"));
    let (ok, mail) = run("curl", &["-sS", "-k", "--url", &url, "--user", "carol:pw"]);
    assert!(ok && mail.contains("curled"), "{mail}");
}

#[test]
fn postfix_sends_three_hundred_and_postfix_receives_them() {
    let dovecot = Peer::start("dovecot", &[]);
    let next = Peer::start("postfix", &[("LMTP", dovecot.value("LMTP"))]);
    let weir = perimeter(&format!("smtp://{}", next.value("SMTP")), "");
    let server = weir.address("mx");
    let (ok, said) = run(
        "smtp-source",
        &[
            "-s",
            "10",
            "-m",
            "300",
            "-l",
            "2000",
            "-f",
            "load@shop.test",
            "-t",
            "u3@example.test",
            "-M",
            "client.test",
            &server,
        ],
    );
    assert!(ok, "{said}");
    let mail = python(
        r#"
import poplib, sys, time
for _ in range(600):
    box = poplib.POP3("127.0.0.1", int(sys.argv[1])); box.user("u3"); box.pass_("pw"); n = box.stat()[0]; box.quit()
    if n >= 300: break
    time.sleep(0.1)
print(n)
"#,
        &[&dovecot.port("POP3").to_string()],
    );
    assert_eq!(mail.trim(), "300");
    wait_for("an empty queue", || weir.queue().is_empty().then_some(()));
}

#[test]
fn what_waits_says_why_and_an_operator_can_act_on_it() {
    let weir = perimeter("smtp://127.0.0.1:1", "");
    let (ok, said) =
        run("swaks", &["--server", &weir.address("mx"), "--from", "a@shop.test", "--to", "u1@example.test"]);
    assert!(ok, "{said}");
    let row =
        wait_for("the deferred message", || weir.queue().into_iter().find(|row| row.to_string().contains("refused")));
    let id = row["id"].as_str().expect("an id").to_owned();
    let why = weir.ok(&["queue", "why", &id]);
    assert!(why.contains("refused") && why.contains("next attempt"), "{why}");
    weir.ok(&["queue", "hold", &id]);
    assert!(weir.ok(&["queue", "why", &id]).contains("hold"));
    weir.ok(&["queue", "release", &id]);
    weir.ok(&["queue", "drop", &id]);
    wait_for("an empty queue", || weir.queue().is_empty().then_some(()));
    assert!(weir.ok(&["audit"]).contains("adds up"));
}

#[test]
fn a_message_that_expires_comes_back_to_its_sender() {
    let config = head_with_store("mx.example.test", POP3_ON)
        + &listener("relay", "relay", "")
        + &domain("example.test", "store:")
        + "[relay]\nnetworks = [\"127.0.0.0/8\"]\nsmarthost = \"smtp://127.0.0.1:1\"\n\
           [retry]\nfirst = \"1s\"\nmax = \"1s\"\nexpire = \"3s\"\ndelay_notice = \"0s\"\n";
    let weir = Weir::start(&config);
    weir.add_user("alice");
    let (ok, said) = run(
        "swaks",
        &[
            "--server",
            &weir.address("relay"),
            "--from",
            "alice@example.test",
            "--to",
            "friend@far.test",
            "--header",
            "Subject: never arrives",
        ],
    );
    assert!(ok, "{said}");
    let bounce = pop3(weir.port("pop3"), "alice", 1);
    assert!(
        bounce.contains("multipart/report") && bounce.contains("Final-Recipient: rfc822;friend@far.test"),
        "{bounce}"
    );
    assert!(bounce.contains("Subject: never arrives") && bounce.contains("Return-Path: <>"), "{bounce}");
    wait_for("an empty queue", || weir.queue().is_empty().then_some(()));
}

#[test]
fn never_an_open_relay() {
    let weir = perimeter("discard:", "");
    let said = python(
        r#"
import smtplib, sys
s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=30); s.ehlo("client.test")
for to in ["<v@far.test>", "<v%far.test@example.test>", "<far.test!v@example.test>", "<@example.test:v@far.test>",
           "<\"v@far.test\"@example.test>", "<v@[127.0.0.1]>", "<v@far.test@example.test>", "<v%far.test@[127.0.0.1]>"]:
    s.docmd("RSET"); s.docmd("MAIL FROM:<a@shop.test>"); print(s.docmd("RCPT TO:" + to)[0], to)
"#,
        &[&weir.port("mx").to_string()],
    );
    for line in said.lines() {
        assert!(line.starts_with('5'), "{said}");
    }
    assert_eq!(said.lines().count(), 8);
}

#[test]
fn a_reload_takes_a_good_file_and_leaves_a_bad_one() {
    let weir = perimeter("discard:", "");
    let file = weir.path().join("weir.toml");
    let text = fs::read_to_string(&file).unwrap();
    let rcpt = |domain: &str| {
        let to = format!("x@{domain}");
        run("swaks", &["--server", &weir.address("mx"), "--from", "a@shop.test", "--to", &to, "--quit-after", "RCPT"]).0
    };
    assert!(rcpt("example.test") && !rcpt("second.test"));
    let more = domain("second.test", "discard:");
    fs::write(&file, format!("{text}{more}")).unwrap();
    weir.signal("HUP");
    wait_for("the new domain", || rcpt("second.test").then_some(()));
    fs::write(&file, "hostnmae = \"x\"\n").unwrap();
    let refused = weir.cli(&["reload"]);
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("unknown key `hostnmae`"), "{told}");
    weir.signal("HUP");
    wait_for("the refusal", || weir.log().contains("the old one stays in force").then_some(()));
    assert!(rcpt("second.test"), "the old configuration stays");
    fs::write(
        &file,
        text.replace("name = \"submission\"", "name = \"renamed\"").replace("pop3 =", "plaintext_login = true\npop3 ="),
    )
    .unwrap();
    let told = weir.ok(&["reload"]);
    assert!(told.contains("listener renamed at ") && told.ends_with("needs a restart: [store]\n"), "{told}");
    assert!(!rcpt("second.test") && rcpt("example.test"), "the rest of a good file is in force");
}

#[test]
fn a_graceful_stop_finishes_what_is_under_way() {
    let mut weir = perimeter("store:", "");
    weir.add_user("alice");
    let said = python(
        r#"
import socket, sys, os, signal
def line(f): return f.readline().decode()
s = socket.create_connection(("127.0.0.1", int(sys.argv[1]))); f = s.makefile("rb")
line(f)
for c in ["HELO client.test", "MAIL FROM:<a@shop.test>", "RCPT TO:<alice@example.test>", "DATA"]:
    s.sendall(c.encode() + b"\r\n"); line(f)
idle = socket.create_connection(("127.0.0.1", int(sys.argv[1]))); g = idle.makefile("rb"); line(g)
idle.sendall(b"HELO x.test\r\n"); line(g)
s.sendall(b"Subject: last\r\n\r\n")
os.kill(int(sys.argv[2]), signal.SIGTERM)
print(line(g).strip())
s.sendall(b"the end\r\n.\r\n"); print(line(f).strip())
"#,
        &[&weir.port("mx").to_string(), &weir.pid().to_string()],
    );
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("421 4.3.2"), "{said}");
    assert!(lines[1].starts_with("250 "), "{said}");
    assert!(weir.wait_end(), "a clean exit");
    weir.restart();
    assert!(pop3(weir.port("pop3"), "alice", 1).contains("the end"));
}

#[test]
fn metrics_are_served_without_a_token_and_actions_are_not() {
    let no_dns = "[dns]\nservers = [\"127.0.0.1:1\"]\ntimeout = \"200ms\"\n";
    let weir = Weir::start(&perimeter_config("discard:", no_dns).replacen("verify = \"off\"", "verify = \"tag\"", 1));
    let (ok, _) = run("swaks", &["--server", &weir.address("mx"), "--from", "a@shop.test", "--to", "u1@example.test"]);
    assert!(ok);
    let admin = weir.address("admin");
    let (_, text) = run("curl", &["-sS", &format!("http://{admin}/metrics")]);
    let rooms = ["dns", "deliver", "flow", "front", "policy", "smtp", "spool", "store", "verify"];
    for room in rooms {
        assert!(text.contains(&format!("\nweir_{room}_")), "no metric of {room} in {text}");
    }
    assert!(text.contains("weir_front_connections{") || text.contains("weir_front_connections "), "{text}");
    let (_, code) = run(
        "curl",
        &[
            "-sS",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-X",
            "POST",
            "-H",
            "Content-Type: application/json",
            "-d",
            "{}",
            &format!("http://{admin}/v1/reload"),
        ],
    );
    assert_eq!(code, "401");
}

/// Of each kind that an operator asks for: a series by the start of its name and labels, which must have counted something.
const SERIES: [&str; 19] = [
    "weir_smtp_sessions_total{listener=\"mx\"}",
    "weir_smtp_replies_total{code=\"250\"",
    "weir_flow_replies_total{code=\"550\"",
    "weir_flow_messages_total{decision=\"accepted\"}",
    "weir_flow_message_bytes_total{decision=\"accepted\"}",
    "weir_flow_stage_seconds_count{stage=\"whole\"}",
    "weir_spool_items{state=\"waiting\"}",
    "weir_spool_items{state=\"held\"}",
    "weir_spool_oldest_seconds{state=\"queued\"}",
    "weir_spool_oldest_seconds{state=\"held\"}",
    "weir_spool_batch_records_count",
    "weir_spool_sync_seconds_count",
    "weir_deliver_recipients_total{outcome=\"delivered\",transport=\"store\"}",
    "weir_deliver_recipients_total{outcome=\"bounced\",transport=\"store\"}",
    "weir_deliver_recipients_total{outcome=\"deferred\",transport=\"smtp\"}",
    "weir_deliver_latency_seconds_count{transport=\"store\"}",
    "weir_deliver_connections_total{outcome=\"failed\"}",
    "weir_store_deliveries_total",
    "process_open_fds",
];

#[test]
fn each_kind_of_metric_moves_under_load() {
    let far = domain("far.test", "smtp://127.0.0.1:1");
    let weir = perimeter("store:", &(far + "[retry]\nfirst = \"1h\"\n"));
    weir.add_user("alice");
    let server = weir.address("mx");
    let load = |to: &str, messages: &str| {
        run("smtp-source", &["-s", "3", "-m", messages, "-f", "load@shop.test", "-t", to, "-M", "client.test", &server])
    };
    for (to, messages) in [("alice@example.test", "30"), ("nobody@example.test", "1"), ("u@far.test", "2")] {
        let (ok, said) = load(to, messages);
        assert!(ok, "{said}");
    }
    assert!(!load("u@elsewhere.test", "1").0, "it is no relay");
    wait_for("attempts", || {
        (weir.queue().iter().filter(|row| row.to_string().contains("refused")).count() == 2).then_some(())
    });
    let id = weir.queue()[0]["id"].as_str().expect("an id").to_owned();
    weir.ok(&["queue", "hold", &id]);
    let metrics = || run("curl", &["-sS", &format!("http://{}/metrics", weir.address("admin"))]).1;
    let counts = |text: &str, series: &str| {
        let values = text.lines().filter(|line| line.starts_with(series)).filter_map(|line| line.rsplit(' ').next());
        values.filter_map(|value| value.parse::<f64>().ok()).any(|value| value > 0.0)
    };
    for series in SERIES {
        wait_for(series, || counts(&metrics(), series).then_some(()));
    }
    // Depths, which are nothing at rest.
    for gauge in [
        "weir_flow_queue_depth{queue=\"checks\"}",
        "weir_flow_queue_depth{queue=\"passwords\"}",
        "weir_flow_content_memory_bytes ",
        "weir_spool_submissions ",
        "weir_deliver_connections_open ",
        "weir_flow_sessions_open",
    ] {
        assert!(metrics().contains(&format!("\n{gauge}")), "{gauge}");
    }
}

#[test]
fn logs_tell_no_secret_and_obey_nobody() {
    let weir = perimeter(
        "store:",
        "[relay]\nsmarthost = \"smtp://relayuser:sm4rthost-s3cret@127.0.0.1:1\"\n[log]\nlevel = \"debug\"\n",
    );
    weir.add_user("alice");
    python(
        r#"
import base64, smtplib, ssl, sys
s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=30); s.ehlo("client.test")
s.starttls(context=ssl._create_unverified_context()); s.ehlo("evil\x1b[2J\x07.test"); s.ehlo("client.test")
print(s.docmd("AUTH PLAIN " + base64.b64encode(b"\0alice\0wr0ng-s3cret").decode()))
print(s.docmd("AUTH PLAIN " + base64.b64encode(b"\0al\x1b[2Jice\0wr0ng-s3cret").decode()))
print(s.docmd("AUTH PLAIN " + base64.b64encode(b"\0alice\0pw").decode()))
s.sendmail("alice@example.test", ["friend@far.test"], "Subject: x\r\n\r\nthe-b0dy \x1b[2J\r\n")
s.docmd("MAIL FROM:<\x1b[31m@example.test>"); s.quit()
"#,
        &[&weir.port("submission").to_string()],
    );
    wait_for("an attempt", || weir.queue().into_iter().find(|row| row.to_string().contains("refused")));
    let log = weir.log();
    let encoded = |text: &[u8]| {
        python(
            "import base64, sys; print(base64.b64encode(sys.argv[1].encode()).decode())",
            &[std::str::from_utf8(text).expect("ASCII")],
        )
    };
    for secret in
        ["wr0ng-s3cret", "sm4rthost-s3cret", "the-b0dy", encoded(b"wr0ng-s3cret").trim_end().trim_end_matches('=')]
    {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    assert!(log.contains("authentication failed"), "{log}");
    let steering = log.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(steering, None, "{log}");
    let config = weir.ok(&["check"]);
    assert!(!config.contains("sm4rthost-s3cret"), "{config}");
}

#[test]
fn each_recipient_has_one_line_of_outcome_in_text_and_in_json() {
    for json in [false, true] {
        let weir = perimeter("store:", &format!("[log]\njson = {json}\n"));
        weir.add_user("alice");
        let (server, to) = (weir.address("mx"), "alice@example.test,nobody@example.test");
        let (ok, said) = run("swaks", &["--server", &server, "--from", "a@shop.test", "--to", to]);
        assert!(ok, "{said}");
        let (_, rest) = said.split_once("queued as ").expect("an id");
        let id = rest.split_whitespace().next().expect("an id").to_owned();
        wait_for("both outcomes", || (weir.log().matches(&id).count() >= 3).then_some(()));
        let log = weir.log();
        for (recipient, outcome) in [("alice@example.test", "delivered"), ("nobody@example.test", "bounced")] {
            let lines = log.lines().filter(|line| line.contains(&id) && line.contains(outcome));
            let lines: Vec<&str> = lines.filter(|line| line.contains(recipient)).collect();
            assert_eq!(lines.len(), 1, "{recipient}: {log}");
            if json {
                let line: serde_json::Value = serde_json::from_str(lines[0]).expect("a line is JSON");
                assert_eq!((&line["id"], &line["outcome"]), (&id.as_str().into(), &outcome.into()), "{line}");
            }
        }
        assert!(!log.contains("This is a test mailing"), "no content: {log}");
    }
}

#[test]
fn an_operator_acts_on_many_by_filter_and_a_stopped_spool_proves_itself() {
    let mut weir = perimeter("smtp://127.0.0.1:1", "[deliver]\npaused = true\n");
    python(
        r#"
import smtplib, sys
s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=30); s.ehlo("client.test")
for n in range(30):
    s.sendmail(["a@shop.test", "b@shop.test", ""][n % 3], ["u1@example.test", "u2@example.test"][: 1 + n % 2], "Subject: x\r\n\r\n")
s.quit()
"#,
        &[&weir.port("mx").to_string()],
    );
    let count = |arguments: &[&str]| {
        let text = weir.ok(arguments);
        text.split_whitespace().next().and_then(|word| word.parse::<u32>().ok()).unwrap_or_else(|| panic!("{text}"))
    };
    let listed = |filter: &[&str]| {
        let text = weir.ok(&[&["queue", "list", "--json"], filter].concat());
        serde_json::from_str::<Vec<serde_json::Value>>(&text).unwrap_or_else(|e| panic!("{e}: {text}")).len()
    };
    assert_eq!((listed(&[]), listed(&["--sender", "@shop.test"]), listed(&["--sender", "A@shop.test"])), (30, 20, 10));
    assert_eq!((listed(&["--recipient", "u2@example.test"]), listed(&["--sender", "<>"])), (15, 10));
    let id = weir.queue()[0]["id"].as_str().expect("an id").to_owned();
    let why = weir.ok(&["queue", "why", &id]);
    assert!(why.contains("waits for smtp://127.0.0.1:1") && why.contains("paused"), "{why}");
    let shown = weir.ok(&["queue", "show", &id]);
    assert!(shown.contains("<u1@example.test> due") && shown.contains("<a@shop.test>"), "{shown}");
    assert_eq!(count(&["queue", "hold", "--sender", "b@shop.test"]), 10);
    assert_eq!(
        weir.cli(&["queue", "hold", "--sender", "b@shop.test"]).status.code(),
        Some(1),
        "nothing is left to hold"
    );
    assert_eq!(listed(&["--state", "held"]), 10);
    assert_eq!(count(&["queue", "drop", "--sender", "<>"]), 10);
    assert_eq!(count(&["queue", "release", "--state", "held", "--sender", "b@shop.test"]), 10);
    assert_eq!(weir.cli(&["queue", "why", "0000000000001"]).status.code(), Some(1));
    assert_eq!(weir.cli(&["quarantine", "drop", "--all"]).status.code(), Some(1), "nothing is in quarantine");
    let audit = weir.ok(&["audit"]);
    assert!(
        audit.contains("accepted 45 =") && audit.contains("dropped 15") && audit.contains("queue now 30"),
        "{audit}"
    );
    let long_ago = ["audit", "--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00Z"];
    for period in [&long_ago[..], &["audit", "--from", "3h"]] {
        let audit = weir.ok(period);
        let accepted =
            if period.len() > 3 { "queued before 0 + accepted 0 =" } else { "queued before 0 + accepted 45 =" };
        assert!(audit.contains(accepted) && audit.ends_with("\nadds up\n"), "{audit}");
    }
    weir.signal("TERM");
    assert!(weir.wait_end());
    assert!(weir.ok(&long_ago).ends_with("\nadds up\n"));
    let (proof, audit) = (weir.ok(&["queue", "verify"]), weir.ok(&["audit"]));
    assert!(proof.starts_with("the stopped spool in ") && proof.ends_with("\nclean\n"), "{proof}");
    assert!(audit.contains("queue now 30") && audit.ends_with("\nadds up\n"), "{audit}");
    assert_eq!(weir.cli(&["queue", "list"]).status.code(), Some(75));
}

#[test]
fn postmaster_is_read_without_a_mailbox_of_that_name() {
    let weir = perimeter("store:", "");
    weir.add_user("zoe");
    let said = python(
        r#"
import smtplib, sys
s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=30); s.ehlo("client.test")
for to in ["<Postmaster>", "<postmaster@mx.example.test>", "<POSTMASTER@example.test>"]:
    s.docmd("MAIL FROM:<a@shop.test>"); print(s.docmd("RCPT TO:" + to)[0], to)
    print(s.data("Subject: to " + to + "\r\n\r\nhello\r\n")[0])
"#,
        &[&weir.port("mx").to_string()],
    );
    assert!(said.lines().all(|line| line.starts_with("250")), "{said}");
    let mail = pop3(weir.port("pop3"), "zoe", 3);
    assert_eq!(mail.matches("Subject: to <").count(), 3, "{mail}");
}
