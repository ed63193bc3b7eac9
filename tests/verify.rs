//! Identity checks against published vectors, through a real DNS on loopback.

mod verify_dns;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use verify_dns::Dns;
use weir::verify::lookup::Bounded;
use weir::verify::resolver::Resolver;
use weir::verify::spf;

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
