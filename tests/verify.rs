//! Identity checks against published vectors, through a real DNS on loopback.

mod verify_dns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use verify_dns::{Dns, Zone};
use weir::base::content::Content;
use weir::verify::lookup::Bounded;
use weir::verify::message::Message;
use weir::verify::outcome::Outcome;
use weir::verify::resolver::Resolver;
use weir::verify::{author, dkim, dmarc, spf};

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
const DNS_TIMEOUT: Duration = Duration::from_millis(400);

async fn spf_suite(path: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for group in suite(path).groups {
        let dns = Dns::start(&group.zone).await;
        let resolver = Arc::new(Resolver::new(&[dns.address], DNS_TIMEOUT).unwrap());
        for case in &group.tests {
            let until = tokio::time::Instant::now() + Duration::from_secs(20);
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
            if let Some(text) = case.explanation.as_deref().filter(|text| *text != "DEFAULT") {
                if result.explanation.as_deref() != Some(text) {
                    wrong.push(format!("{}/{}: exp {text:?} but {:?}", group.name, case.id, result.explanation));
                }
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

async fn resolver(dns: &Dns) -> Bounded<Resolver> {
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    Bounded::new(Arc::new(Resolver::new(&[dns.address], DNS_TIMEOUT).unwrap()), 128, until)
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

/// `NAME TXT` lines, a blank line, a message.
fn with_zone(path: &str) -> (Zone, String) {
    let text = std::fs::read_to_string(format!("{}/tests/vectors/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut zone = Zone::new();
    for line in head.lines() {
        let (name, record) = line.split_once(' ').unwrap();
        zone.entry(name.to_owned()).or_default().push(("TXT".to_owned(), Value::String(record.trim().to_owned())));
    }
    (zone, body.to_owned())
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
