//! The gateway's filter for other mail servers: Debian's spamc, rspamc and Postfix as its clients; spamd and Rspamd as its scanners.

use std::fs;

use super::hop::send;
use super::support::config::{head, listener};
use super::support::{Peer, Weir, folder, python, run, wait_for};
use super::{PLAIN, gateway, good_hop, metrics, next_message, scanner};

/// A gateway that judges for others: `NEEDLE` is 6 points (quarantine is 8, reject 15), `HAYSTACK` 20, `WEASEL` 9.
fn judge(more: &str) -> (Weir, tempfile::TempDir) {
    let rules = folder();
    let text = "body NEEDLE /needle/\nscore NEEDLE 6\ndescribe NEEDLE A needle\nbody HAYSTACK /haystack/\nscore HAYSTACK 20\nbody WEASEL /weasel/\nscore WEASEL 9\n";
    fs::write(rules.path().join("a.cf"), text).unwrap();
    let weir = Weir::start(&format!(
        "{}{}[filter]\nrules = [\"{}\"]\n[filter.classifier]\nseed = false\n[dns]\nservers = [\"127.0.0.1:1\"]\ntimeout = \"200ms\"\n[service]\nmilter = \"127.0.0.1:0\"\nspamd = \"127.0.0.1:0\"\nrspamd = \"127.0.0.1:0\"\nverify = \"tag\"\n{more}\n",
        head("mx.example.test"),
        listener("mx", "mx", ""),
        rules.path().display(),
    ));
    (weir, rules)
}

fn message(body: &str) -> String {
    format!(
        "From: a@b.test\r\nTo: u@example.test\r\nSubject: s\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@b.test>\r\n\r\n{body}\r\n"
    )
}

fn file_of(folder: &tempfile::TempDir, body: &str) -> String {
    let path = folder.path().join(format!("{body}.eml"));
    fs::write(&path, message(body)).unwrap();
    path.display().to_string()
}

/// Runs spamc with a message on its standard input.
fn spamc(weir: &Weir, flags: &str, file: &str) -> (bool, String) {
    run("bash", &["-c", &format!("spamc -d 127.0.0.1 -p {} {flags} < {file}", weir.port("spamd"))])
}

const PACKED: &str = r#"
import socket, sys, zlib
body = zlib.compress(open(sys.argv[2], "rb").read())
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60)
s.sendall(b"CHECK SPAMC/1.5\r\nCompress: zlib\r\nContent-length: %d\r\n\r\n" % len(body) + body)
print(s.makefile().read())
"#;

#[test]
fn debians_spamc_is_served() {
    let (weir, rules) = judge("");
    let (spam, ham) = (file_of(&rules, "needle"), file_of(&rules, "hay"));
    let (is_ham, said) = spamc(&weir, "-c", &spam);
    assert!(!is_ham && said.trim() == "6.0/5.0", "{said}");
    let (is_ham, said) = spamc(&weir, "-c", &ham);
    assert!(is_ham && said.trim().ends_with("/5.0"), "{said}");
    assert!(spamc(&weir, "-y", &spam).1.contains("NEEDLE"), "SYMBOLS");
    let (_, report) = spamc(&weir, "-R", &spam);
    assert!(report.contains("6.0/5.0") && report.contains(" 6.0 NEEDLE ") && report.contains("A needle"), "{report}");
    assert!(!spamc(&weir, "-r", &ham).1.contains("Content analysis"), "REPORT_IFSPAM");
    let (_, processed) = spamc(&weir, "", &spam);
    assert!(
        processed.contains("X-Spam-Flag: YES") && processed.contains("NEEDLE=6") && processed.ends_with("needle\r\n"),
        "{processed}"
    );
    let (_, headers) = spamc(&weir, "--headers", &spam);
    assert!(headers.contains("X-Spam-Status: Yes") && headers.contains("Subject: s"), "{headers}");
    // Debian's spamc is built without zlib; others are not.
    let packed = python(PACKED, &[&weir.port("spamd").to_string(), &spam]);
    assert!(packed.contains("Spam: True ; 6.0 / 5.0"), "{packed}");
    let (alive, said) = spamc(&weir, "-K", &ham);
    assert!(alive && said.contains("SPAMD/1.5 0"), "{said}");
    let (_, said) = spamc(&weir, "-L spam", &spam);
    assert!(!said.contains("successfully"), "nobody teaches unless it is allowed: {said}");
    assert!(metrics(&weir).contains(r#"weir_services_judged_total{answer="deliver",service="spamd"}"#));
}

#[test]
fn spamc_and_rspamc_teach_where_it_is_allowed() {
    let (weir, rules) = judge("learn = true");
    let spam = file_of(&rules, "needle");
    let (done, said) = spamc(&weir, "-L spam", &spam);
    assert!(said.contains("successfully un/learned"), "{done} {said}");
    let (done, said) = run("rspamc", &["-h", &weir.address("rspamd"), "learn_ham", &spam]);
    assert!(done && said.contains("success = true"), "{said}");
}

#[test]
fn rspamc_is_served() {
    let (weir, rules) = judge("");
    let server = weir.address("rspamd");
    let ask = |file: &str| {
        run(
            "rspamc",
            &["-h", &server, "--ip", "192.0.2.1", "--from", "a@b.test", "--rcpt", "u@example.test", "symbols", file],
        )
        .1
    };
    let said = ask(&file_of(&rules, "needle"));
    assert!(said.contains("Action: add header") && said.contains("Score: 6.00 / 15.00"), "{said}");
    assert!(said.contains("Symbol: NEEDLE (6.00)") && said.contains("SPF_"), "{said}");
    let said = ask(&file_of(&rules, "haystack"));
    assert!(said.contains("Action: reject"), "{said}");
    let said = ask(&file_of(&rules, "hay"));
    assert!(said.contains("Action: no action"), "{said}");
    let (_, json) = run("rspamc", &["-h", &server, "--json", "symbols", &file_of(&rules, "weasel")]);
    let judged: serde_json::Value = serde_json::from_str(json.trim()).unwrap_or_else(|_| panic!("{json}"));
    assert_eq!(judged["action"], "quarantine", "{json}");
    assert!(judged["milter"]["add_headers"]["X-Spam-Status"]["value"].as_str().unwrap().starts_with("Yes"), "{json}");
    let told = wait_for("the record", || {
        let output = weir.cli(&["explain", judged["message-id"].as_str().unwrap()]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    for wanted in [
        "decision     quarantined: told the server that asked (checkv2)",
        "quarantine = 8 (default)",
        "checkv2 on service",
        "WEASEL",
        "9  = score",
    ] {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    let (_, pong) = run("curl", &["-sS", &format!("http://{server}/ping")]);
    assert_eq!(pong, "pong\r\n");
    let (_, wrong) = run("curl", &["-sS", &format!("http://{server}/stat")]);
    assert!(wrong.contains("error"), "{wrong}");
}

#[test]
fn postfix_asks_us_as_its_milter() {
    let hop = good_hop();
    let (weir, _rules) = judge("");
    let milters = format!("inet:{}", weir.address("milter"));
    let relay = format!("127.0.0.1:{}", hop.port);
    let postfix = Peer::start("postfix", &[("MILTERS", &milters), ("RELAY", &relay)]);
    let mail = |body: &str| send(postfix.value("SMTP"), "a@b.test", "u@example.test", message(body).trim_end());
    let said = mail("haystack");
    assert!(said.starts_with("550 5.7.1 Refused as spam"), "{said}");
    let reference = said.trim().rsplit(' ').next().unwrap();
    let told = wait_for("the record", || {
        let output = weir.cli(&["explain", reference]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    for wanted in
        ["from         <a@b.test>", "to           u@example.test", "milter on service", "reject = 15 (default)"]
    {
        assert!(told.contains(wanted), "{wanted}: {told}");
    }
    assert!(mail("hay").starts_with("250"));
    let text = next_message(&hop, 1);
    assert!(text.contains("Authentication-Results: mx.example.test;") && text.contains("X-Spam-Status: No"), "{text}");
    assert!(mail("needle").starts_with("250"));
    let text = next_message(&hop, 2);
    assert!(text.contains("X-Spam-Flag: YES") && text.contains("NEEDLE=6"), "{text}");
    assert!(mail("weasel").starts_with("250"));
    let queue = wait_for("a held message", || {
        let config = postfix.path().join("etc");
        let (_, text) = run("mailq", &["-C", &config.display().to_string()]);
        text.contains('!').then_some(text)
    });
    assert!(queue.contains("a@b.test"), "{queue}");
    assert_eq!(hop.count(), 2, "what is held is not delivered");

    // What only the receiving side may say is taken out on the way.
    let forged = "Return-Path: <x@y.z>\r\nAuthentication-Results: mx.example.test; spf=pass\r\nSubject: forged\r\nFrom: a@b.test\r\n\r\nhay";
    assert!(send(postfix.value("SMTP"), "a@b.test", "u@example.test", forged).starts_with("250"));
    let text = next_message(&hop, 3);
    assert_eq!(text.matches("Authentication-Results: mx.example.test").count(), 1, "{text}");
    assert!(!text.contains("Authentication-Results: mx.example.test; spf=pass\r\nSubject"), "{text}");
}

#[test]
fn only_the_networks_of_the_service_are_let_in() {
    let (weir, rules) = judge("networks = [\"192.0.2.0/24\"]");
    let (_, said) = spamc(&weir, "-x -c", &file_of(&rules, "needle"));
    assert!(!said.contains("6.0/5.0"), "{said}");
    wait_for("the count of refusals", || {
        metrics(&weir).contains(r#"weir_services_refused_total{reason="network",service="spamd"}"#).then_some(())
    });
}

const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

#[test]
fn debians_spamd_and_rspamd_are_asked_as_scanners() {
    let spamd = Peer::start("spamd", &[]);
    let rspamd = Peer::start("rspamd", &[("TAGONLY", "0")]);
    let hop = good_hop();
    let both = scanner(&format!("spamd://{}", spamd.value("SPAMD")), "weight = 0.01\ntimeout = \"60s\"")
        + &scanner(&format!("rspamd://{}", rspamd.value("SCAN")), "weight = 0.1\ntimeout = \"60s\"");
    let weir = gateway(&hop, "tag", &both);
    let gtube = format!("Subject: g\r\nFrom: a@b.test\r\nTo: u@example.test\r\n\r\n{GTUBE}");
    assert!(send(&weir.address("mx"), "a@b.test", "u@example.test", &gtube).starts_with("250"));
    let text = next_message(&hop, 1);
    // A thousandth part of GTUBE's 1000 points is one point for spamd's; Rspamd gives no score but an action.
    assert!(text.contains("SPAMD_SCORE=") && text.contains("RSPAMD_SCORE="), "{text}");
    let refusing = scanner(&format!("rspamd://{}", rspamd.value("SCAN")), "on_found = \"reject\"\ntimeout = \"60s\"");
    let weir = gateway(&hop, "off", &refusing);
    let said = send(&weir.address("mx"), "a@b.test", "u@example.test", &gtube);
    assert!(said.starts_with("550 5.7.1") && said.contains("rspamd"), "{said}");
    assert!(send(&weir.address("mx"), "a@b.test", "u@example.test", PLAIN).starts_with("250"));
}
