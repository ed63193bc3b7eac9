//! Who sent it, through the running gateway: vectors go in by SMTP with XCLIENT, their DNS is a real one on loopback, and what is
//! delivered says what was found.

#![allow(clippy::unwrap_used)] // helpers of tests may fail a test

#[path = "identity/explained.rs"]
mod explained;
#[path = "identity/hostile.rs"]
mod hostile;
#[path = "identity/overrides.rs"]
mod overrides;
#[path = "identity/peers.rs"]
mod peers;
mod support;
#[path = "identity/vectors.rs"]
mod vectors;
mod verify_dns;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::config::{self, domain, head};
use support::{PATIENCE, Weir, python, run, wait_for};
use verify_dns::{DKIMPY_SIGNED, Dns, Zone, dkimpy, dkimpy_keys, txt, with_zone};
use weir::verify::authres::AuthenticationResults;
use weir::wire::header::fields;

/// A perimeter with a listener that tags and one that enforces; mail for judge.example is delivered to one Maildir a user.
fn gateway(dns: SocketAddr, more: &str) -> Weir {
    let listener =
        |name: &str| config::listener(name, "mx", &format!("verify = \"{name}\"\nxclient = [\"127.0.0.0/8\"]"));
    let config = head("mx.judge.example")
        + &format!("[spool]\nsegment_bytes = \"1 MiB\"\n[dns]\nservers = [\"{dns}\"]\ntimeout = \"1500ms\"\n")
        + &listener("tag")
        + &listener("enforce")
        + &domain("judge.example", "maildir:DIR/box/{user}")
        + more;
    Weir::start(&config)
}

/// A client's conversation.
struct Smtp(BufReader<TcpStream>);

impl Smtp {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut smtp = Smtp(BufReader::new(stream));
        assert!(smtp.reply().starts_with("220"));
        smtp
    }

    fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            assert_ne!(self.0.read_line(&mut reply).unwrap(), 0, "closed after {reply:?}");
            if reply.as_bytes().get(start + 3) != Some(&b'-') {
                return reply;
            }
        }
    }

    fn say(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.reply()
    }

    /// Hands a message in as `ip` and `helo`; the reply that ended the attempt.
    fn send(&mut self, mail: &Mail) -> String {
        for (line, code) in [
            (format!("XCLIENT ADDR={}{}", if mail.ip.contains(':') { "IPV6:" } else { "" }, mail.ip), "220"),
            (format!("EHLO {}", mail.helo), "250"),
            (format!("MAIL FROM:<{}>", mail.path), "250"),
            (format!("RCPT TO:<{}@judge.example>", mail.to), "250"),
            ("DATA".to_owned(), "354"),
        ] {
            let reply = self.say(&line);
            if !reply.starts_with(code) {
                return format!("{line}: {reply}");
            }
        }
        let stuffed = format!("\r\n{}", mail.content).replace("\r\n.", "\r\n..");
        self.0.get_mut().write_all(&stuffed.as_bytes()[2..]).unwrap();
        self.say(if mail.content.ends_with("\r\n") { "." } else { "\r\n." })
    }
}

/// One message with its envelope.
#[derive(Clone)]
struct Mail {
    ip: String,
    helo: String,
    path: String,
    to: String,
    content: String,
}

impl Mail {
    fn new(to: &str, path: &str, content: &str) -> Self {
        let (ip, helo) = ("192.0.2.10".to_owned(), "out.other.example".to_owned());
        Mail { ip, helo, path: path.to_owned(), to: to.to_owned(), content: content.to_owned() }
    }
}

fn metrics(weir: &Weir) -> String {
    run("curl", &["-sS", &format!("http://{}/metrics", weir.address("admin"))]).1
}

/// What was delivered to a user, once it is there.
fn delivered(weir: &Weir, user: &str) -> String {
    let new = weir.path().join("box").join(user).join("new");
    let file = wait_for(&format!("mail for {user}"), || fs::read_dir(&new).ok()?.next()?.ok());
    fs::read_to_string(file.path()).unwrap()
}

/// Our results in a delivered message: the topmost field must be ours, and no other may claim to be.
fn results(mail: &str) -> AuthenticationResults {
    let named = fields(mail.as_bytes()).filter(|field| field.is("Authentication-Results"));
    let read = named.map(|field| AuthenticationResults::parse(std::str::from_utf8(field.value).unwrap()).unwrap());
    let all: Vec<_> = read.collect();
    let ours = |found: &&AuthenticationResults| found.authserv_id == "mx.judge.example";
    assert_eq!(all.iter().filter(ours).count(), 1, "{mail}");
    assert!(ours(&&all[0]), "{mail}");
    all[0].clone()
}

/// The words of a method, in order.
fn words(found: &AuthenticationResults, method: &str) -> Vec<String> {
    found.results.iter().filter(|result| result.method == method).map(|result| result.result.clone()).collect()
}

/// The word of SPF for the identity that decides: MAIL FROM, or HELO of a bounce.
fn spf_word(found: &AuthenticationResults) -> String {
    let spf = || found.results.iter().filter(|result| result.method == "spf");
    let of = |name: &str| spf().find(|result| result.properties.iter().any(|(property, _)| property == name));
    of("smtp.mailfrom").or_else(|| of("smtp.helo")).unwrap().result.clone()
}

fn suite(path: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(path);
    let suite: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    suite["groups"].as_array().unwrap().clone()
}

fn zone_of(group: &Value) -> Zone {
    serde_json::from_value(group["zone"].clone()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A case's message and envelope; the nth case goes to the user `cN`.
fn mail_of(case: &Value, nth: usize) -> Mail {
    let content = case["message"].as_str().unwrap_or("From: ann@plain.test\r\nSubject: spf\r\n\r\nHi\r\n");
    Mail {
        ip: text(&case["ip"]),
        helo: text(&case["helo"]),
        path: text(&case["mailfrom"]),
        to: format!("c{nth}"),
        content: content.to_owned(),
    }
}

fn expects(case: &Value, method: &str, word: &str) -> bool {
    case["expect"][method].as_array().unwrap().iter().any(|expected| expected == word)
}

/// Cases that SMTP itself ends before SPF is asked, with the reply.
const NEVER_REACH_SPF: [(&str, &str); 7] = [
    // RFC 1035 §2.3.4: no name of more than 255 bytes.
    (
        "basic-malformed-domains-1",
        "EHLO this.domain.name.is.extremely.long.because.we.want.to.explicitly.show.that.the.\
         maximum.length.of.a.domain.name.is.255.characters.so.this.one.will.definitely.fail.immediately.due.to.its.\
         excessive.length.and.ridiculously.large.number.of.characters.which.makes.it.invalid.com: 501 5.5.4 Syntax: EHLO hostname",
    ),
    (
        "basic-malformed-domains-2",
        "MAIL FROM:<sender@thislabelisjustoverthesixtythreecharacterlimitandshouldbeanerror.com>: \
         553 5.1.7 Bad sender address syntax: bad domain",
    ),
    // RFC 1035 §2.3.4: no label of 64 bytes, none that is empty; RFC 5321 §4.1.2 has no such addresses.
    (
        "toolonglabel",
        "MAIL FROM:<lyme.eater@A123456789012345678901234567890123456789012345678901234567890123.example.com>: \
         553 5.1.7 Bad sender address syntax: bad domain",
    ),
    ("emptylabel", "MAIL FROM:<lyme.eater@A...example.com>: 553 5.1.7 Bad sender address syntax: bad domain"),
    ("nolocalpart", "MAIL FROM:<@example.net>: 553 5.1.7 Bad sender address syntax: bad source route"),
    ("dorky-sentinel", "MAIL FROM:<Macro Error@e8.example.com>: 553 5.1.7 Bad sender address syntax: bad local part"),
    // RFC 5321 §4.1.1.1: a host name, and no more.
    ("invalid-hello-macro", "EHLO JUMPIN' JUPITER: 501 5.5.4 Syntax: EHLO hostname"),
];

/// Sends a suite's cases through one gateway a group, for each group has its own example.com; names what differs.
async fn spf_differences(path: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for group in suite(path) {
        let dns = Dns::start(&zone_of(&group)).await;
        let weir = gateway(dns.address, "");
        let mut tag = Smtp::connect(&weir.address("tag"));
        let mut enforce = Smtp::connect(&weir.address("enforce"));
        let cases = group["tests"].as_array().unwrap();
        let replies: Vec<String> = (0..).zip(cases).map(|(nth, case)| tag.send(&mail_of(case, nth))).collect();
        for (nth, (case, reply)) in cases.iter().zip(&replies).enumerate() {
            let id = text(&case["id"]);
            if !reply.starts_with("250") {
                if !NEVER_REACH_SPF.contains(&(&id, reply.trim_end())) {
                    wrong.push(format!("(\"{id}\", {:?}),", reply.trim_end()));
                }
                continue;
            }
            let mail = delivered(&weir, &format!("c{nth}"));
            let word = spf_word(&results(&mail));
            if !expects(case, "spf", &word) || !mail.contains(&format!("Received-SPF: {word} (")) {
                wrong.push(format!("{id}: {} but {mail}", case["expect"]));
            }
            let explanation = text(&case["explanation"]);
            if !["", "DEFAULT"].contains(&&*explanation) {
                let reply = enforce.send(&mail_of(case, nth));
                if !reply.starts_with("550 5.7.23 ") || !reply.contains(&format!(" explains: {explanation};")) {
                    wrong.push(format!("{id}: {explanation:?} but {reply}"));
                }
            }
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spf_of_the_rfc_7208_suite_is_in_the_delivered_mail_and_its_explanations_in_the_replies() {
    assert_eq!(spf_differences("spf/rfc7208-tests.json").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spf_of_the_pyspf_suite_is_in_the_delivered_mail() {
    // `default=` is a modifier of an old draft; RFC 7208 §6 tells us to ignore it, which gives neutral.
    let drafts = |wrong: &String| !wrong.starts_with("default-modifier");
    let wrong: Vec<_> = spf_differences("spf/pyspf-extra.json").await.into_iter().filter(drafts).collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spf_of_mail_auths_suite_is_in_the_delivered_mail() {
    let wrong = spf_differences("spf/mail-auth.json").await;
    let differs: Vec<_> = wrong.iter().map(|wrong| wrong.split(": ").next().unwrap()).collect();
    assert_eq!(differs, verify_dns::MAIL_AUTH_DIFFERS, "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dkim_of_the_signed_suite_is_in_the_delivered_mail() {
    for group in suite("dkim/dkim-dev.json") {
        let dns = Dns::start(&zone_of(&group)).await;
        let weir = gateway(dns.address, "");
        let mut tag = Smtp::connect(&weir.address("tag"));
        let cases = group["tests"].as_array().unwrap();
        let replies: Vec<String> = (0..).zip(cases).map(|(nth, case)| tag.send(&mail_of(case, nth))).collect();
        for (nth, (case, reply)) in cases.iter().zip(&replies).enumerate() {
            assert!(reply.starts_with("250"), "{}: {reply}", case["id"]);
            let mail = delivered(&weir, &format!("c{nth}"));
            let words = words(&results(&mail), "dkim");
            let best = words.iter().find(|word| *word == "pass").unwrap_or(&words[0]);
            assert!(expects(case, "dkim", best), "{}: {} but {mail}", case["id"], case["expect"]);
            if let Some(all) = case["expect"]["dkim_all"].as_array() {
                assert_eq!(words.len(), all.len(), "{mail}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dmarc_of_its_suite_is_told_when_tagging_and_done_when_enforcing() {
    for group in suite("dmarc/dmarc-dev.json") {
        let dns = Dns::start(&zone_of(&group)).await;
        let weir = gateway(dns.address, "");
        let mut tag = Smtp::connect(&weir.address("tag"));
        let mut enforce = Smtp::connect(&weir.address("enforce"));
        for (nth, case) in group["tests"].as_array().unwrap().iter().enumerate() {
            let id = &case["id"];
            let reply = tag.send(&mail_of(case, nth));
            assert!(reply.starts_with("250"), "{id}: {reply}");
            let mail = delivered(&weir, &format!("c{nth}"));
            let word = &words(&results(&mail), "dmarc")[0];
            assert!(expects(case, "dmarc", word), "{id}: {} but {mail}", case["expect"]);
            let reply = enforce.send(&mail_of(case, nth + 100));
            match (word.as_str(), case["disposition"].as_str()) {
                ("fail", Some("reject")) => {
                    assert!(reply.starts_with("550 5.7.1 rejected by the DMARC policy of "), "{id}: {reply}");
                    assert!(reply.contains("; ref "), "{id}: {reply}");
                }
                ("fail", Some("quarantine")) => {
                    assert!(reply.starts_with("250"), "{id}: {reply}");
                    let listed = weir.ok(&["quarantine", "list", "--json"]);
                    let queued = reply.trim_end().rsplit(' ').next().unwrap();
                    assert!(listed.contains(queued) && listed.contains("asks for quarantine"), "{id}: {listed}");
                }
                ("temperror", _) => assert!(reply.starts_with("451 4.7.5 "), "{id}: {reply}"),
                _ => {
                    assert!(reply.starts_with("250"), "{id}: {reply}");
                    delivered(&weir, &format!("c{}", nth + 100));
                }
            }
        }
    }
}

const MAIL: &str =
    "From: Ann <ann@a.example>\r\nTo: bob@judge.example\r\nSubject: hello\r\n\r\nHi  Bob \r\n.\r\nbye\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arc_chains_of_real_messages_are_told() {
    for (path, oldest) in [("arc/001.txt", "arc=pass"), ("arc/002.txt", "arc=pass")] {
        let (zone, body) = with_zone(path);
        let dns = Dns::start(&zone).await;
        let weir = gateway(dns.address, "");
        let mut tag = Smtp::connect(&weir.address("tag"));
        for (user, content, expected) in
            [("good", body.clone(), oldest), ("bad", body.replacen("Subject:", "Subject: x", 1), "arc=fail")]
        {
            let reply = tag.send(&Mail::new(user, "x@list.test", &content));
            assert!(reply.starts_with("250"), "{reply}");
            let mail = delivered(&weir, user);
            assert_eq!(format!("arc={}", words(&results(&mail), "arc")[0]), expected, "{path}: {mail}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tagging_refuses_nothing_and_forged_results_are_gone() {
    let mut zone = Zone::new();
    txt(&mut zone, "a.example", "v=spf1 -all");
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    let dns = Dns::start(&zone).await;
    let weir = gateway(dns.address, "");
    let mut tag = Smtp::connect(&weir.address("tag"));
    let forged = "Authentication-Results: MX.judge.example (ours) 1; dmarc=pass header.from=a.example\r\n\
                  Authentication-Results: other.example; spf=pass smtp.mailfrom=a.example\r\n";
    for (user, fields, word) in [
        ("forged", format!("{forged}From: ann@a.example"), "fail"),
        ("nofrom", "Subject: x".to_owned(), "permerror"),
        ("twofrom", "From: ann@a.example\r\nFrom: bob@b.example".to_owned(), "permerror"),
    ] {
        let reply = tag.send(&Mail::new(user, "ann@a.example", &format!("{fields}\r\n\r\nHi\r\n")));
        assert!(reply.starts_with("250"), "{user}: {reply}");
        let mail = delivered(&weir, user);
        assert_eq!(words(&results(&mail), "dmarc"), [word], "{mail}");
        assert!(mail.contains("Received-SPF: fail (") && mail.contains("client-ip=192.0.2.10;"), "{mail}");
        assert_eq!(mail.contains("other.example; spf=pass"), user == "forged", "{mail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_is_asked_for_once_and_as_early_as_can_be() {
    let mut zone = Zone::new();
    txt(&mut zone, "out.other.example", "v=spf1 a -all");
    txt(&mut zone, "a.example", "v=spf1 include:spf.a.example -all");
    txt(&mut zone, "spf.a.example", "v=spf1 ip4:192.0.2.10 -all");
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    zone.insert("10.2.0.192.in-addr.arpa".into(), vec![("PTR".into(), Value::String("out.other.example".into()))]);
    zone.get_mut("out.other.example").unwrap().push(("A".into(), Value::String("192.0.2.10".into())));
    // Nothing may be taken from the cache.
    let dns = Dns::with_ttl(&zone, 0).await;
    let weir = gateway(dns.address, "");
    let mut smtp = Smtp::connect(&weir.address("enforce"));
    let asked = |question: &str| wait_for(question, || dns.asked().iter().any(|one| one == question).then_some(()));
    assert!(smtp.say("XCLIENT ADDR=192.0.2.10").starts_with("220"));
    asked("10.2.0.192.in-addr.arpa PTR");
    asked("out.other.example A");
    assert!(smtp.say("EHLO out.other.example").starts_with("250"));
    asked("out.other.example TXT");
    assert!(smtp.say("MAIL FROM:<ann@a.example>").starts_with("250"));
    asked("a.example TXT");
    asked("spf.a.example TXT");
    assert!(smtp.say("RCPT TO:<early@judge.example>").starts_with("250"));
    assert!(smtp.say("DATA").starts_with("354"));
    assert!(smtp.say(&format!("{}\r\n.", MAIL.replace("\r\n.\r\n", "\r\n"))).starts_with("250"));
    let mail = delivered(&weir, "early");
    assert_eq!(spf_word(&results(&mail)), "pass", "{mail}");
    assert!(mail.contains("Received: from out.other.example (out.other.example [192.0.2.10])"), "{mail}");
    // SPF's `a` of HELO asks for the same address as the client's name does; everything else is asked once.
    let mut all: Vec<_> = dns.asked().into_iter().filter(|one| one != "out.other.example A").collect();
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "{:?}", dns.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_hop_the_client_is_the_one_that_it_saw() {
    let mut zone = Zone::new();
    txt(&mut zone, "a.example", "v=spf1 ip4:192.0.2.77 -all");
    let dns = Dns::start(&zone).await;
    let weir = gateway(dns.address, "[verify]\ntrusted_hops = [\"10.0.0.0/8\"]\n");
    let mut enforce = Smtp::connect(&weir.address("enforce"));
    let hop = "Received: from out.a.example (unknown [192.0.2.77]) by gw.judge.example with ESMTP; date\r\n";
    let behind = Mail { ip: "10.0.0.1".into(), ..Mail::new("hop", "ann@a.example", &format!("{hop}{MAIL}")) };
    assert!(enforce.send(&behind).starts_with("250"));
    let mail = delivered(&weir, "hop");
    assert_eq!(spf_word(&results(&mail)), "pass", "{mail}");
    assert!(mail.contains("client-ip=192.0.2.77; helo=out.a.example;"), "{mail}");
    // The same words from a stranger are only words.
    let reply = enforce.send(&Mail { ip: "192.0.2.78".into(), ..behind });
    assert!(reply.starts_with("550 5.7.23 "), "{reply}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_dns_mail_is_deferred_only_where_the_policy_is_unknown() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let weir = gateway(silent.local_addr().unwrap(), "");
    let reply = Smtp::connect(&weir.address("tag")).send(&Mail::new("dead", "ann@a.example", MAIL));
    assert!(reply.starts_with("250"), "{reply}");
    let found = results(&delivered(&weir, "dead"));
    assert_eq!((spf_word(&found).as_str(), &*words(&found, "dmarc")[0]), ("temperror", "temperror"));
    let reply = Smtp::connect(&weir.address("enforce")).send(&Mail::new("dead", "ann@a.example", MAIL));
    assert!(reply.starts_with("451 4.7.5 the DMARC policy of a.example can't be looked up now; ref "), "{reply}");

    // The sender's SPF is out of reach, but nothing can be refused for it: the author's domain has no policy.
    let mut zone = Zone::new();
    zone.insert("bounce.example".to_owned(), vec![("SERVFAIL".to_owned(), Value::String("ANY".to_owned()))]);
    let dns = Dns::start(&zone).await;
    let weir = gateway(dns.address, "");
    let reply = Smtp::connect(&weir.address("enforce")).send(&Mail::new("known", "x@bounce.example", MAIL));
    assert!(reply.starts_with("250"), "{reply}");
    let found = results(&delivered(&weir, "known"));
    assert_eq!((spf_word(&found).as_str(), &*words(&found, "dmarc")[0]), ("temperror", "none"));
}

/// Makes a key with `weir dkim keygen`; gives the section for weir.toml and publishes the record.
fn keygen(domain: &str, selector: &str, kind: &str, folder: &Path, zone: &mut Zone) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["dkim", "keygen", domain, selector, "--kind", kind, "--directory"]).arg(folder);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let record = said.lines().find(|line| line.contains(" IN TXT ( ")).unwrap_or_else(|| panic!("{said}"));
    let strings: Vec<_> = record.split('"').skip(1).step_by(2).collect();
    txt(zone, &format!("{selector}._domainkey.{domain}"), &strings.concat());
    said[said.find("[[dkim]]").unwrap()..].to_owned()
}

/// A gateway that hands everything on to `next`.
fn outgoing(dns: SocketAddr, next: &str, more: &str) -> Weir {
    let config = head("out.a.example")
        + &format!("[spool]\nsegment_bytes = \"1 MiB\"\n[dns]\nservers = [\"{dns}\"]\n")
        + &config::listener("submission", "submission", "tls = \"starttls\"")
        + &config::listener("relay", "relay", "verify = \"tag\"\nxclient = [\"127.0.0.0/8\"]")
        + &domain("a.example", "store:")
        + &format!("[relay]\nnetworks = [\"192.0.2.0/24\"]\nsmarthost = \"smtp://{next}?tls=none\"\n")
        + more;
    Weir::start(&config)
}

const SUBMIT: &str = r#"
import smtplib, ssl, sys
s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=60); s.ehlo("client.test")
s.starttls(context=ssl._create_unverified_context()); s.ehlo("client.test")
s.login("alice", "pw")
s.sendmail("alice@a.example", ["signed@judge.example"], "From: alice@a.example\r\nSubject: signed\r\n\r\nHi\r\n.\r\n \r\n")
s.quit()
"#;

/// Verifies each signature with the keys given as NAME RECORD pairs.
const VERIFY: &str = r#"
import dkim, sys
message = open(sys.argv[1], "rb").read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
keys = dict(zip(sys.argv[2::2], sys.argv[3::2]))
find = lambda name, timeout=5: keys[(name.decode() if isinstance(name, bytes) else name).rstrip(".")].encode()
for n in range(2): print(dkim.DKIM(message).verify(idx=n, dnsfunc=find))
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submitted_mail_is_completed_and_signed_with_both_keys() {
    let (keys, mut zone) = (support::folder(), Zone::new());
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    let sections = ["rsa", "ed25519"].map(|kind| keygen("a.example", kind, kind, keys.path(), &mut zone)).concat();
    let dns = Dns::start(&zone).await;
    let receiver = gateway(dns.address, "");
    let sender = outgoing(dns.address, &receiver.address("enforce"), &sections);
    sender.add_user("alice");
    python(SUBMIT, &[&sender.port("submission").to_string()]);
    let mail = delivered(&receiver, "signed");
    let found = results(&mail);
    assert_eq!(
        (words(&found, "dkim"), words(&found, "dmarc")),
        (vec!["pass".into(); 2], vec!["pass".into()]),
        "{mail}"
    );
    let signed = fields(mail.as_bytes()).filter(|field| field.is("DKIM-Signature"));
    for field in signed {
        let value = String::from_utf8_lossy(field.value).replace([' ', '\t', '\r', '\n'], "");
        assert!(value.contains(":date:") && value.contains(":message-id"), "{mail}");
    }
    let file = keys.path().join("signed.eml");
    fs::write(&file, &mail).unwrap();
    let mut arguments = vec![file.display().to_string()];
    for selector in ["rsa", "ed25519"] {
        let name = format!("{selector}._domainkey.a.example");
        arguments.extend([name.clone(), text(&zone[&name][0].1)]);
    }
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    // The system's own Python has the Debian package; another may stand first in the path.
    let verified = run("/usr/bin/python3", &[&["-c", VERIFY][..], &arguments].concat());
    assert_eq!(verified, (true, "True\nTrue\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seal_of_ours_saves_what_we_forward() {
    let (keys, mut zone) = (support::folder(), Zone::new());
    txt(&mut zone, "_dmarc.b.example", "v=DMARC1; p=reject");
    txt(&mut zone, "b.example", "v=spf1 ip4:192.0.2.10 -all");
    let section = keygen("a.example", "s", "rsa", keys.path(), &mut zone);
    let dns = Dns::start(&zone).await;
    let receiver = gateway(dns.address, "[verify]\ntrusted_sealers = [\"a.example\"]\n");
    let more = format!("[verify]\nseal_as = \"a.example\"\n\n{section}");
    let forwarder = outgoing(dns.address, &receiver.address("enforce"), &more);
    let content = MAIL.replace("a.example", "b.example");
    let reply = Smtp::connect(&forwarder.address("relay")).send(&Mail::new("sealed", "ann@b.example", &content));
    assert!(reply.starts_with("250"), "{reply}");
    let mail = delivered(&receiver, "sealed");
    let found = results(&mail);
    assert_eq!((words(&found, "arc"), words(&found, "dmarc")), (vec!["pass".into()], vec!["fail".into()]), "{mail}");
    // Without the seal the same mail from the same host is refused.
    let mut enforce = Smtp::connect(&receiver.address("enforce"));
    let reply = enforce.send(&Mail { ip: "127.0.0.1".into(), ..Mail::new("bare", "ann@b.example", &content) });
    assert!(reply.starts_with("550 5.7.1 rejected by the DMARC policy of b.example"), "{reply}");
}
