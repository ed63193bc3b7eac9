//! TLS reports: what a row is, and the JSON. Pure. RFC 8460 §4.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Reporter;
use super::destination::TlsDestination;
use super::ledger::Due;

/// The policy that applied (RFC 8460 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// `tlsa`, `sts` or `no-policy-found`.
    pub kind: String,
    /// `policy-domain`
    pub domain: String,
    /// `policy-string`
    pub strings: Vec<String>,
    /// `mx-host`
    pub mx_hosts: Vec<String>,
}

/// How a session failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Failure {
    /// `result-type` (RFC 8460 §4.3).
    pub kind: String,
    /// `sending-mta-ip`
    pub sending_ip: Option<IpAddr>,
    /// `receiving-mx-hostname`
    pub mx_host: Option<String>,
    /// `receiving-ip`
    pub receiving_ip: Option<IpAddr>,
    /// `failure-reason-code`
    pub detail: String,
}

/// What is counted: sessions with the same policy and the same end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Row {
    /// What applied.
    pub policy: Policy,
    /// Nothing: a successful session.
    pub failure: Option<Failure>,
}

type DueTls = Due<Vec<TlsDestination>, Row>;

/// The id of a report: the same whenever it is made.
pub fn report_id(due: &DueTls, reporter: &Reporter) -> String {
    format!("{}.{}.{}@{}", due.begin, due.end, due.domain, reporter.hostname)
}

/// The report in JSON.
pub fn json(due: &DueTls, reporter: &Reporter) -> String {
    let mut policies: BTreeMap<&Policy, Sessions<'_>> = BTreeMap::new();
    for (row, count) in &due.tally.rows {
        let sessions = policies.entry(&row.policy).or_default();
        match &row.failure {
            None => sessions.successful += count,
            Some(failure) => sessions.failures.push((failure, *count)),
        }
    }
    json!({
        "organization-name": reporter.organization,
        "date-range": { "start-datetime": time(due.begin), "end-datetime": time(due.end) },
        "contact-info": reporter.address,
        "report-id": report_id(due, reporter),
        "policies": policies.into_iter().map(|(policy, sessions)| sessions.json(policy)).collect::<Vec<Value>>(),
    })
    .to_string()
}

#[derive(Default)]
struct Sessions<'a> {
    successful: u64,
    failures: Vec<(&'a Failure, u64)>,
}

impl Sessions<'_> {
    fn json(mut self, policy: &Policy) -> Value {
        self.failures.sort_unstable();
        let failed: u64 = self.failures.iter().map(|(_, count)| count).sum();
        let mut told = json!({ "policy-type": policy.kind, "policy-domain": policy.domain });
        for (name, list) in [("policy-string", &policy.strings), ("mx-host", &policy.mx_hosts)] {
            if !list.is_empty() {
                told[name] = json!(list);
            }
        }
        let mut whole = json!({
            "policy": told,
            "summary": { "total-successful-session-count": self.successful, "total-failure-session-count": failed },
        });
        if !self.failures.is_empty() {
            whole["failure-details"] = self.failures.iter().map(|(failure, count)| details(failure, *count)).collect();
        }
        whole
    }
}

fn details(failure: &Failure, count: u64) -> Value {
    let mut told = json!({ "result-type": failure.kind, "failed-session-count": count });
    let optional = [
        ("sending-mta-ip", failure.sending_ip.map(|ip| ip.to_string())),
        ("receiving-mx-hostname", failure.mx_host.clone()),
        ("receiving-ip", failure.receiving_ip.map(|ip| ip.to_string())),
        ("failure-reason-code", Some(failure.detail.clone()).filter(|detail| !detail.is_empty())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            told[name] = Value::String(value);
        }
    }
    told
}

/// RFC 3339, UTC.
fn time(secs: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(secs);
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Ledger;
    use super::*;

    #[test]
    fn sessions_are_summed_by_policy_and_read_back() {
        let mut ledger: Ledger<Vec<TlsDestination>, Row> = Ledger::default();
        let policy = |kind: &str| Policy {
            kind: kind.into(),
            domain: "x.example".into(),
            strings: vec!["version: STSv1".into()],
            mx_hosts: vec!["*.x.example".into()],
        };
        let failure = Failure {
            kind: "certificate-expired".into(),
            sending_ip: None,
            mx_host: Some("mx.x.example".into()),
            receiving_ip: Some([192, 0, 2, 1].into()),
            detail: "since yesterday".into(),
        };
        for failure in [None, None, Some(failure.clone()), Some(failure)] {
            ledger.note("x.example", Vec::new, Row { policy: policy("sts"), failure }, 1_700_000_000, 99).unwrap();
        }
        ledger.note("x.example", Vec::new, Row { policy: policy("tlsa"), failure: None }, 1_700_000_000, 99).unwrap();
        let reporter =
            Reporter { organization: "We".into(), hostname: "mx.we.example".into(), address: "r@we.example".into() };
        let (begin, domain) = ledger.due(u64::MAX).remove(0);
        let text = json(&ledger.report(begin, &domain).unwrap(), &reporter);
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["date-range"]["start-datetime"], "2023-11-14T00:00:00Z");
        assert_eq!(read["date-range"]["end-datetime"], "2023-11-14T23:59:59Z");
        let sts = &read["policies"][0];
        assert_eq!(sts["summary"]["total-successful-session-count"], 2);
        assert_eq!(sts["failure-details"][0]["failed-session-count"], 2);
        assert_eq!(sts["failure-details"][0]["receiving-ip"], "192.0.2.1");
        let summary = super::super::read::read(text.as_bytes()).unwrap();
        assert_eq!(
            (summary.rows.len(), summary.rows[0].failed, summary.id.as_str()),
            (2, 2, read["report-id"].as_str().unwrap())
        );
    }
}
