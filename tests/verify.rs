//! Identity checks against published vectors, through a real DNS on loopback.

#![allow(clippy::unwrap_used)] // helpers of tests may fail a test

mod verify_dns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use verify_dns::{DKIMPY_SIGNED, Dns, Zone, dkimpy, dkimpy_keys, txt, with_zone};
use weir::base::content::Content;
use weir::config::settings::{self, Mode};
use weir::dns::Resolver;
use weir::verify::authres::{self, AuthenticationResults};
use weir::verify::decide::{Action, Overrides, decide};
use weir::verify::lookup::Bounded;
use weir::verify::message::Message;
use weir::verify::meters::Meters;
use weir::verify::outcome::Outcome;
use weir::verify::reports::read;
use weir::verify::{Facts, Results, Verifier, arc, author, dkim, dmarc, spf};

#[derive(Deserialize)]
struct Suite {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    name: String,
    zone: BTreeMap<String, Vec<(String, Value)>>,
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    ip: String,
    helo: String,
    #[serde(default)]
    mailfrom: String,
    #[serde(default)]
    message: Option<String>,
    expect: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    explanation: Option<String>,
    #[serde(default)]
    disposition: Option<String>,
}

fn suite(path: &str) -> Suite {
    let text = std::fs::read_to_string(format!("{}/tests/vectors/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Long enough for a loaded machine, short enough for a suite with unanswered queries.
const DNS_TIMEOUT: Duration = Duration::from_millis(1500);

fn house_resolver(dns: &Dns) -> Resolver {
    let servers = vec![dns.address];
    Resolver::new(&settings::Dns { servers, timeout: DNS_TIMEOUT, trust_ad: false, cache_entries: 1000 }).unwrap()
}

async fn spf_suite(path: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for group in suite(path).groups {
        let dns = Dns::start(&group.zone).await;
        let resolver = Arc::new(house_resolver(&dns));
        for case in &group.tests {
            let until = tokio::time::Instant::now() + Duration::from_secs(60);
            let bounded = Bounded::new(resolver.clone(), 128, until);
            let path = Some(case.mailfrom.as_str()).filter(|path| !path.is_empty());
            let query = spf::Query::mail_from(case.ip.parse().unwrap(), &case.helo, path, "receiver.example");
            let result = spf::check(&bounded, &query, 0).await;
            let expected = &case.expect["spf"];
            if !expected.iter().any(|word| word == result.outcome.as_str()) {
                wrong.push(format!(
                    "{}/{}: {expected:?} but {} ({})",
                    group.name, case.id, result.outcome, result.reason
                ));
            }
            let text = case.explanation.as_deref().filter(|text| *text != "DEFAULT");
            if text.is_some() && result.explanation.as_deref() != text {
                wrong.push(format!("{}/{}: exp {text:?} but {:?}", group.name, case.id, result.explanation));
            }
        }
    }
    wrong
}

#[tokio::test]
async fn spf_gives_every_answer_of_the_rfc_7208_suite() {
    assert_eq!(spf_suite("spf/rfc7208-tests.json").await, Vec::<String>::new());
}

#[tokio::test]
async fn spf_gives_every_answer_of_the_pyspf_suite_but_two() {
    // `default=` is a modifier of an old draft; RFC 7208 §6 tells us to ignore it, which gives neutral.
    let drafts = |wrong: &String| !wrong.contains("/default-modifier");
    let wrong: Vec<_> = spf_suite("spf/pyspf-extra.json").await.into_iter().filter(drafts).collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn spf_gives_every_answer_of_mail_auths_suite_but_eight() {
    let wrong = spf_suite("spf/mail-auth.json").await;
    let id = |wrong: &String| wrong.rsplit_once('/').unwrap().1.split(": ").next().unwrap().to_owned();
    assert_eq!(wrong.iter().map(id).collect::<Vec<_>>(), verify_dns::MAIL_AUTH_DIFFERS, "{wrong:#?}");
}

async fn resolver(dns: &Dns) -> Bounded<Resolver> {
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    Bounded::new(Arc::new(house_resolver(dns)), 128, until)
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn message(text: impl AsRef<[u8]>) -> Message {
    Message::parse(Content::from_bytes(text.as_ref().to_vec()))
}

/// The best word, as a single result is told.
fn best(results: &[dkim::DkimResult]) -> &'static str {
    let has = |word: Outcome| results.iter().any(|result| result.outcome == word);
    if results.is_empty() {
        return "none";
    }
    if has(Outcome::Pass) { "pass" } else { results[0].outcome.as_str() }
}

#[tokio::test]
async fn dkim_gives_every_answer_of_the_signed_suite() {
    let mut wrong = Vec::new();
    for group in suite("dkim/dkim-dev.json").groups {
        let dns = Dns::start(&group.zone).await;
        for case in &group.tests {
            let message = message(case.message.as_deref().unwrap());
            let results = dkim::check(&resolver(&dns).await, &message, now()).await;
            if !case.expect["dkim"].iter().any(|word| word == best(&results)) {
                wrong.push(format!("{}: {:?} but {results:?}", case.id, case.expect["dkim"]));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[tokio::test]
async fn dkim_verifies_real_messages() {
    for path in ["dkim/mail-auth/001.txt", "dkim/mail-auth/002.txt", "dkim/mail-auth/003.txt", "dkim/mail-auth/006.txt"]
    {
        let (zone, body) = with_zone(path);
        let dns = Dns::start(&zone).await;
        let results = dkim::check(&resolver(&dns).await, &message(&body), now()).await;
        for result in &results {
            assert_eq!(result.outcome, Outcome::Pass, "{path}: {result:?}");
        }
        assert!(!results.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn dmarc_gives_every_answer_and_disposition_of_its_suite() {
    let mut wrong = Vec::new();
    for group in suite("dmarc/dmarc-dev.json").groups {
        let dns = Dns::start(&group.zone).await;
        for case in &group.tests {
            let dns = resolver(&dns).await;
            let message = message(case.message.as_deref().unwrap());
            let query = spf::Query::mail_from(case.ip.parse().unwrap(), &case.helo, Some(&case.mailfrom), "r.example");
            let spf = spf::check(&dns, &query, 0).await;
            let signatures = dkim::check(&dns, &message, now()).await;
            let author = author::author(&message);
            let author = author.as_ref().map_err(|error| *error);
            let result = dmarc::check(&dns, author, Some(&spf), &signatures, 0).await;
            let disposition = case.disposition.as_deref().is_none_or(|word| word == result.disposition.as_str());
            if !disposition || !case.expect["dmarc"].iter().any(|word| word == result.outcome.as_str()) {
                wrong.push(format!("{}: {:?} {:?} but {result:?}", case.id, case.expect["dmarc"], case.disposition));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn authentication_results_read_as_their_vectors_say() {
    let path = format!("{}/tests/vectors/authres/authres.json", env!("CARGO_MANIFEST_DIR"));
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for case in vectors["cases"].as_array().unwrap() {
        let value = case["value"].as_str().unwrap();
        let parsed = AuthenticationResults::parse(value);
        let Some(expected) = case["results"].as_array() else {
            assert_eq!(parsed, None, "{value}");
            continue;
        };
        let parsed = parsed.unwrap_or_else(|| panic!("unreadable: {value}"));
        assert!(parsed.authserv_id.eq_ignore_ascii_case(case["id"].as_str().unwrap()), "{value}");
        let found: Vec<Value> = parsed
            .results
            .iter()
            .map(|result| {
                let properties: BTreeMap<_, _> = result.properties.iter().cloned().collect();
                serde_json::json!([result.method, result.result, properties])
            })
            .collect();
        assert_eq!(&found, expected, "{value}");
    }
}

#[tokio::test]
async fn arc_chains_of_real_messages_hold() {
    for (path, sealers) in [("arc/001.txt", 1), ("arc/002.txt", 2)] {
        let (zone, body) = with_zone(path);
        let dns = Dns::start(&zone).await;
        let result = arc::check(&resolver(&dns).await, &message(&body)).await;
        assert_eq!(result.outcome, Outcome::Pass, "{path}: {result:?}");
        assert_eq!(result.sealers.len(), sealers, "{path}");
        let changed = message(body.replacen("Subject:", "Subject: x", 1));
        assert_eq!(arc::check(&resolver(&dns).await, &changed).await.outcome, Outcome::Fail, "{path}");
    }
}

fn key(kind: dkim::keygen::KeyKind, domain: &str, selector: &str, zone: &mut Zone) -> dkim::sign::SigningKey {
    let key = dkim::sign::SigningKey::from_pem(domain, selector, &dkim::keygen::generate(kind).unwrap()).unwrap();
    txt(zone, &format!("{selector}._domainkey.{domain}"), &key.record());
    key
}

fn verifier(dns: &Dns) -> Verifier<Resolver> {
    let meters = Meters::register(&prometheus::Registry::new()).unwrap();
    Verifier::new(Arc::new(house_resolver(dns)), "mx.example", meters)
}

fn facts(path: &str) -> Facts {
    Facts { ip: "192.0.2.9".parse().unwrap(), helo: "out.example".to_owned(), reverse_path: Some(path.to_owned()) }
}

const MAIL: &str = "From: Ann <ann@a.example>\r\nTo: bob@b.example\r\nSubject: hello\r\n\r\nHi  Bob \r\n \r\n";

fn enforce(results: &Results, overrides: &Overrides) -> (Action, String) {
    let decision = decide(results, Mode::Enforce, overrides, "192.0.2.9".parse().unwrap(), "abc");
    (decision.action, decision.reply.map_or(decision.reason, |reply| reply.to_string()))
}

#[tokio::test]
async fn what_we_sign_verifies_and_an_added_subject_breaks_it() {
    use dkim::keygen::KeyKind;
    let mut zone = Zone::new();
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    let keys = [key(KeyKind::Rsa, "a.example", "r1", &mut zone), key(KeyKind::Ed25519, "a.example", "e1", &mut zone)];
    let dns = Dns::start(&zone).await;
    let signed: String = keys.iter().map(|key| dkim::sign::sign(&message(MAIL), key, now())).collect::<String>() + MAIL;
    let results = verifier(&dns).check(&facts("x@elsewhere.example"), &message(&signed)).await;
    assert_eq!(results.dkim.len(), 2);
    assert!(results.dkim.iter().all(|result| result.outcome == Outcome::Pass), "{:?}", results.dkim);
    assert_eq!(results.dmarc.outcome, Outcome::Pass);
    let header = authres::write("mx.example", &results);
    let read = AuthenticationResults::parse(header.split_once(':').unwrap().1).expect("our own field reads back");
    assert!(read.results.iter().any(|result| result.method == "dmarc" && result.result == "pass"), "{header}");

    let forged = message(format!("Subject: buy\r\n{signed}"));
    let results = verifier(&dns).check(&facts("x@elsewhere.example"), &forged).await;
    let (action, text) = enforce(&results, &Overrides::default());
    assert_eq!(action, Action::Reject);
    assert!(
        text.contains("550 5.7.1") && text.contains("DMARC policy of a.example") && text.contains("ref abc"),
        "{text}"
    );
}

#[tokio::test]
async fn a_chain_that_we_seal_saves_a_forwarded_message() {
    use dkim::keygen::KeyKind;
    let mut zone = Zone::new();
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    txt(&mut zone, "a.example", "v=spf1 ip4:192.0.2.9 -all");
    let first = key(KeyKind::Rsa, "list.example", "s", &mut zone);
    let second = key(KeyKind::Ed25519, "fwd.example", "s", &mut zone);
    let dns = Dns::start(&zone).await;
    let verifier = verifier(&dns);
    let direct = verifier.check(&facts("ann@a.example"), &message(MAIL)).await;
    assert_eq!(direct.dmarc.outcome, Outcome::Pass);
    let findings = authres::write_value("list.example", &direct);
    let sealed = arc::seal::seal(&message(MAIL), &direct.arc, &findings, &first, now()).unwrap() + MAIL;

    let once = verifier.check(&facts("bounce@list.example"), &message(&sealed)).await;
    assert_eq!((once.arc.outcome, once.dmarc.outcome), (Outcome::Pass, Outcome::Fail), "{:?}", once.arc);
    let findings = authres::write_value("fwd.example", &once);
    let twice = arc::seal::seal(&message(&sealed), &once.arc, &findings, &second, now()).unwrap() + &sealed;
    let results = verifier.check(&facts("bounce@fwd.example"), &message(&twice)).await;
    assert_eq!(results.arc.outcome, Outcome::Pass, "{:?}", results.arc);
    assert_eq!(results.arc.sealers, ["list.example", "fwd.example"]);
    assert_eq!(enforce(&results, &Overrides::default()).0, Action::Reject);
    let trusted_sealers = vec!["list.example".to_owned(), "fwd.example".to_owned()];
    let overrides = Overrides { trusted_sealers, ..Overrides::default() };
    assert_eq!(enforce(&results, &overrides).0, Action::Accept);
    // One sealer in the chain that nobody vouches for could have invented everything before it.
    let overrides = Overrides { trusted_sealers: vec!["list.example".to_owned()], ..Overrides::default() };
    assert_eq!(enforce(&results, &overrides).0, Action::Reject);
}

#[tokio::test]
async fn results_become_actions_with_replies_that_name_the_policy() {
    let mut zone = Zone::new();
    txt(&mut zone, "s.example", "v=spf1 -all exp=why.s.example");
    txt(&mut zone, "why.s.example", "%{i} is not ours");
    txt(&mut zone, "_dmarc.q.example", "v=DMARC1; p=quarantine");
    zone.insert("_dmarc.t.example".to_owned(), vec![("SERVFAIL".to_owned(), Value::String("ANY".to_owned()))]);
    let dns = Dns::start(&zone).await;
    for (from, path, action, text) in [
        ("From: a@s.example", "a@s.example", Action::Reject, "s.example explains: 192.0.2.9 is not ours"),
        ("From: a@q.example", "a@x.example", Action::Quarantine, "asks for quarantine"),
        ("From: a@t.example", "a@x.example", Action::Defer, "451 4.7.5"),
        ("From: a@none.example", "a@x.example", Action::Accept, "dmarc=none"),
        ("From: a@x.example\r\nFrom: a@y.example", "a@x.example", Action::Reject, "several From fields"),
        ("Subject: x", "a@x.example", Action::Reject, "no From field"),
        ("From: a@x.example, b@y.example", "a@x.example", Action::Reject, "several domains"),
        ("From: MAILER-DAEMON", "", Action::Quarantine, "no address with a domain"),
    ] {
        let results = verifier(&dns).check(&facts(path), &message(format!("{from}\r\n\r\nx\r\n"))).await;
        let (found, said) = enforce(&results, &Overrides::default());
        assert_eq!(found, action, "{from}: {said}");
        assert!(said.contains(text), "{from}: {said}");
        let tagged = decide(&results, Mode::Tag, &Overrides::default(), "192.0.2.9".parse().unwrap(), "abc");
        assert_eq!(tagged.action, Action::Accept);
    }
}

/// Long enough for a debug build on a loaded machine; unbounded work would take minutes.
const HOSTILE_TIME_MAX: Duration = Duration::from_secs(60);

#[tokio::test]
async fn hostile_messages_cost_bounded_work() {
    use dkim::keygen::KeyKind;
    let mut zone = Zone::new();
    let good = key(KeyKind::Ed25519, "a.example", "s", &mut zone);
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    let dns = Dns::start(&zone).await;
    let signature = dkim::sign::sign(&message(MAIL), &good, now());
    let fields = |one: &str, count: usize| one.repeat(count) + MAIL;
    let arc_set = |i: usize| {
        format!(
            "ARC-Seal: i={i}; a=rsa-sha256; cv=none; d=x.example; s=s; b=AA==\r\nARC-Message-Signature: i={i}; a=rsa-sha256; d=x.example; s=s; h=from; bh=AA==; b=AA==\r\nARC-Authentication-Results: i={i}; x; none\r\n"
        )
    };
    for (name, text) in [
        ("1000 signatures", fields(&signature, 1000)),
        ("10,000 seals", (1..=3400).map(arc_set).collect::<String>() + MAIL),
        ("5 MB of header", fields(&format!("X-Long: {}\r\n", "y".repeat(900)), 5600)),
        ("a million names in h=", signature.replace("h=from", &format!("h={}from", "from:".repeat(1_000_000))) + MAIL),
        ("100,000 fields", fields("A: b\r\n", 100_000)),
        ("an endless From", format!("From: {}a@a.example\r\n\r\n", "(".repeat(1_000_000))),
        ("a From with 100,000 addresses", format!("From: {}\r\n\r\n", "a@a.example, ".repeat(100_000))),
    ] {
        let began = std::time::Instant::now();
        let results = verifier(&dns).check(&facts("ann@a.example"), &message(text)).await;
        assert!(began.elapsed() < HOSTILE_TIME_MAX, "{name}: {:?}", began.elapsed());
        assert!(results.dkim.len() <= dkim::SIGNATURES_MAX, "{name}");
        assert_ne!(results.arc.outcome, Outcome::Pass, "{name}");
    }
}

#[tokio::test]
async fn hostile_zones_cost_bounded_questions() {
    let mut zone = Zone::new();
    txt(&mut zone, "loop.example", "v=spf1 include:loop.example -all");
    txt(&mut zone, "turn.example", "v=spf1 redirect=turn.example");
    txt(&mut zone, "bomb.example", "v=spf1 exists:%{l}%{l}%{l}%{l}%{l}.%{i}.%{s}.%{s}.%{s}.bomb.example -all");
    txt(&mut zone, "void.example", "v=spf1 a:1.x.example a:2.x.example a:3.x.example a:4.x.example +all");
    txt(&mut zone, "long.example", &format!("v=spf1 {}-all", "ip4:192.0.2.1 ".repeat(4000)));
    txt(&mut zone, "big._domainkey.key.example", &format!("p={}", big_rsa_key()));
    for n in 0..300 {
        txt(&mut zone, "many.example", &format!("text {n} {}", "z".repeat(150)));
    }
    let dns = Dns::start(&zone).await;
    for (domain, outcomes) in [
        ("loop.example", &[Outcome::PermError][..]),
        ("turn.example", &[Outcome::PermError]),
        ("bomb.example", &[Outcome::Fail]),
        ("void.example", &[Outcome::PermError]),
        // 56 KiB of record: more than we read.
        ("long.example", &[Outcome::PermError]),
        ("many.example", &[Outcome::None]),
    ] {
        let dns = resolver(&dns).await;
        let path = format!("{}@{domain}", "x".repeat(60));
        let query = spf::Query::mail_from("192.0.2.9".parse().unwrap(), "h", Some(&path), "r");
        let result = spf::check(&dns, &query, 0).await;
        assert!(outcomes.contains(&result.outcome), "{domain}: {result:?}");
        assert!(result.lookups <= 10 && dns.left() >= 128 - 25, "{domain}: {} left", dns.left());
    }
    let text = format!("DKIM-Signature: v=1; a=rsa-sha256; d=key.example; s=big; h=from; bh=AA==; b=AA==\r\n{MAIL}");
    let results = dkim::check(&resolver(&dns).await, &message(text), now()).await;
    assert_eq!(results[0].outcome, Outcome::Policy, "{results:?}");
    assert!(results[0].reason.contains("16384 bits"), "{results:?}");
}

/// An RSAPublicKey with a modulus of 16,384 bits.
fn big_rsa_key() -> String {
    use base64::Engine;
    let modulus = [&[0x02, 0x82, 0x08, 0x01, 0x00][..], &[0xff; 2048]].concat();
    let key = [&[0x30, 0x82, 0x08, 0x0a][..], &modulus, &[0x02, 0x03, 0x01, 0x00, 0x01]].concat();
    base64::engine::general_purpose::STANDARD.encode(key)
}

/// Canonicalisation is where implementations differ: bodies and fields that are easy to get wrong.
const AWKWARD: [&str; 4] = [
    "From: Ann <ann@a.example>\r\nTo: bob@b.example\r\nSubject: a  b\r\n\tfolded \r\n\r\nHi  Bob \r\n\tx\r\n \r\n\t\r\n",
    "From: ann@a.example\r\nSubject:\r\n\r\n",
    "From: ann@a.example\r\nSUBJECT:x\r\nDate:\r\n y\r\n\r\n\r\n\r\n x\r\n\r\n",
    "From: ann@a.example\r\nContent-Type: text/plain\r\n\r\n\t\r\n \r\n",
];

#[test]
fn opendkim_verifies_what_we_sign() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mut zone = Zone::new();
    let key = key(dkim::keygen::KeyKind::Rsa, "a.example", "s", &mut zone);
    std::fs::write(at("keys"), format!("s._domainkey.a.example {}\n", key.record())).unwrap();
    let config = format!("Mode v\nSyslog no\nTestPublicKeys {}\nBackground no\n", at("keys").display());
    std::fs::write(at("opendkim.conf"), config).unwrap();
    for (index, mail) in AWKWARD.iter().enumerate() {
        let file = at(&format!("{index}.eml"));
        std::fs::write(&file, dkim::sign::sign(&message(mail), &key, now()) + mail).unwrap();
        let mut command = std::process::Command::new("opendkim");
        let output = command.arg("-x").arg(at("opendkim.conf")).arg("-vv").arg("-t").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("verification (s=s, d=a.example, 2048-bit key) succeeded"), "{index}: {said}");
    }
}

#[tokio::test]
async fn we_verify_what_opendkim_signs() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let pem = dkim::keygen::generate(dkim::keygen::KeyKind::Rsa).unwrap();
    let mut zone = Zone::new();
    let key = dkim::sign::SigningKey::from_pem("a.example", "s", &pem).unwrap();
    txt(&mut zone, "s._domainkey.a.example", &key.record());
    let dns = Dns::start(&zone).await;
    std::fs::write(at("key.pem"), pem).unwrap();
    for how in ["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"] {
        let config = format!(
            "Mode s\nSyslog no\nBackground no\nDomain a.example\nSelector s\nKeyFile {}\nCanonicalization {how}\n\
             InternalHosts 0.0.0.0/0,::/0\nRequireSafeKeys no\n",
            at("key.pem").display()
        );
        std::fs::write(at("opendkim.conf"), config).unwrap();
        for (index, mail) in AWKWARD.iter().enumerate() {
            // A milter is not told whether a blank stood behind the colon, so it signs one that these lack.
            if how.starts_with("simple/") && (index == 1 || index == 2) {
                continue;
            }
            let file = at(&format!("{index}.eml"));
            std::fs::write(&file, mail).unwrap();
            let mut command = std::process::Command::new("opendkim");
            let output = command.arg("-x").arg(at("opendkim.conf")).arg("-v").arg("-t").arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let start = said.find("DKIM-Signature:").unwrap_or_else(|| panic!("{how} {index}: {said}"));
            let field = said[start..].split_inclusive('\n').take_while(|line| !line.starts_with("opendkim:"));
            let field = field.collect::<String>().trim_end().to_owned() + "\r\n";
            let results = dkim::check(&resolver(&dns).await, &message(field + mail), now()).await;
            assert_eq!(results[0].outcome, Outcome::Pass, "{how} {index}: {results:?}");
        }
    }
}

fn report_files(folder: &str) -> Vec<std::path::PathBuf> {
    let path = format!("{}/tests/vectors/reports/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn reports_read_as_their_vectors_say() {
    for file in report_files("dmarc-xml").iter().filter(|file| file.extension().is_some_and(|e| e == "json")) {
        let expected: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let source = [file.with_extension("xml"), file.with_extension("eml")].into_iter().find(|f| f.exists()).unwrap();
        let found = read::read(&std::fs::read(&source).unwrap()).unwrap_or_else(|error| panic!("{source:?}: {error}"));
        assert_eq!(found.domain, expected["policy_published"]["domain"], "{source:?}");
        assert_eq!(found.organization, expected["report_metadata"]["org_name"], "{source:?}");
        assert_eq!(found.begin, expected["report_metadata"]["date_range"]["begin"], "{source:?}");
        let counts: Vec<u64> = found.rows.iter().map(|row| row.count).collect();
        let rows = expected["record"].as_array().unwrap().iter();
        assert_eq!(counts, rows.map(|row| row["row"]["count"].as_u64().unwrap()).collect::<Vec<_>>(), "{source:?}");
    }
}

#[test]
fn feedback_reports_read_as_their_vectors_say() {
    for file in report_files("arf").iter().filter(|file| file.extension().is_some_and(|e| e == "json")) {
        let expected: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let source = file.with_extension("eml");
        let found = read::read(&std::fs::read(&source).unwrap()).unwrap_or_else(|error| panic!("{source:?}: {error}"));
        let kind = match expected["feedback_type"].as_str().unwrap() {
            "AuthFailure" => "failure".to_owned(),
            other => other.to_ascii_lowercase(),
        };
        let domain = expected["reported_domain"][0].as_str().unwrap_or_default();
        assert_eq!((found.kind, found.domain.as_str()), (kind, domain), "{source:?}");
        let row = &found.rows[0];
        assert_eq!(row.source, expected["source_ip"].as_str().unwrap_or("unknown"), "{source:?}");
        assert_eq!(row.count, expected["incidents"].as_u64().unwrap(), "{source:?}");
        assert_eq!(found.begin, expected["arrival_date"].as_u64().unwrap_or(0), "{source:?}");
    }
}

#[test]
fn reports_from_the_wild_read_or_are_refused_in_words() {
    const REFUSED: [&str; 2] = [
        // No XML at all: an address in angle brackets where an element would stand. Guessing would invent numbers.
        "pd-invalid_xml.xml: Expected value, found unexpected tag bad-xml@bad-xml.net at position 133.",
        // A letter in words of its own, without the feedback part that RFC 5965 asks for.
        "pd-exim_plain_text_only_no_arf_part.eml: the message has no report",
    ];
    let files = report_files("dmarc-xml").into_iter().chain(report_files("tlsrpt")).chain(report_files("arf"));
    let mut refused = Vec::new();
    for file in
        files.filter(|file| file.extension().is_none_or(|e| e != "json") || file.to_string_lossy().contains("pd-"))
    {
        match read::read(&std::fs::read(&file).unwrap()) {
            // An abuse report need not name a domain.
            Ok(summary) => assert!(!summary.domain.is_empty() || !summary.rows.is_empty(), "{file:?}: {summary:?}"),
            Err(error) => refused.push(format!("{}: {error}", file.file_name().unwrap().to_string_lossy())),
        }
    }
    assert_eq!(refused, REFUSED);
}

#[tokio::test]
async fn dkimpys_messages_and_keys_give_the_expected_words() {
    for (file, key, words) in DKIMPY_SIGNED {
        let dns = Dns::start(&dkimpy_keys(key)).await;
        let results = dkim::check(&resolver(&dns).await, &message(dkimpy(file)), now()).await;
        let found: Vec<_> = results.iter().map(|result| result.outcome.as_str()).collect();
        assert_eq!(found, words, "{file}, {key}: {results:?}");
    }
}

// Two threads: the DNS must answer while this one waits for the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_tells_results_and_the_decision() {
    let mut zone = Zone::new();
    txt(&mut zone, "a.example", "v=spf1 -all");
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    let dns = Dns::start(&zone).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("m.eml");
    std::fs::write(&file, MAIL.replace("\r\n", "\n")).unwrap();
    let weir = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(arguments).arg("--dns").arg(dns.address.to_string()).arg("--json").output()
    };
    let name = file.to_str().unwrap();
    let output = weir(&["verify", name, "--ip", "192.0.2.9", "--mail-from", "ann@a.example"]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["spf"][0]["outcome"], "fail");
    assert_eq!((&told["dmarc"]["outcome"], &told["dmarc"]["disposition"]), (&"fail".into(), &"reject".into()));
    assert_eq!(told["action"], "reject");
    assert!(told["reply"].as_str().unwrap().starts_with("550 5.7.1 rejected by the DMARC policy of a.example"));

    let output = weir(&["dns", "a.example"]).unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let state = |what: &str| told.as_array().unwrap().iter().find(|one| one["what"] == what).unwrap()["state"].clone();
    assert_eq!((state("spf"), state("dmarc"), state("mta-sts")), ("good".into(), "bad".into(), "missing".into()));
}
