//! DMARC policy records. Pure. RFC 9989 §4.7, RFC 7489 §6.3.

use serde::Serialize;

/// What an owner asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Nothing.
    None,
    /// Treat as suspicious.
    Quarantine,
    /// Refuse.
    Reject,
}

impl Policy {
    /// The tag's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::None => "none",
            Policy::Quarantine => "quarantine",
            Policy::Reject => "reject",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Policy::None, Policy::Quarantine, Policy::Reject];
        all.into_iter().find(|policy| policy.as_str().eq_ignore_ascii_case(text))
    }

    /// One step milder: what `t=y` and the rest of `pct` ask for.
    pub fn milder(self) -> Self {
        match self {
            Policy::Reject => Policy::Quarantine,
            Policy::Quarantine | Policy::None => Policy::None,
        }
    }
}

/// `psd=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicSuffix {
    /// This is an organizational domain.
    No,
    /// Not said.
    Unknown,
    /// This is a public suffix.
    Yes,
}

/// A parsed record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `p=`
    pub policy: Policy,
    /// `sp=`; default `p`.
    pub subdomain_policy: Policy,
    /// `np=`; default `sp`.
    pub nonexistent_policy: Policy,
    /// `adkim=s`
    pub strict_dkim: bool,
    /// `aspf=s`
    pub strict_spf: bool,
    /// `psd=`
    pub public_suffix: PublicSuffix,
    /// `t=y`
    pub testing: bool,
    /// `pct=`, 0 to 100.
    pub percent: u8,
    /// `rua=`, addresses without sizes.
    pub aggregate_reports: Vec<String>,
    /// `ruf=`
    pub failure_reports: Vec<String>,
    /// `fo=`
    pub failure_options: String,
}

/// Report addresses that are kept (RFC 9990 §3 asks for at least two).
const REPORT_ADDRESSES_MAX: usize = 10;

impl Record {
    /// The one record among the TXT records of a name; several are as none (RFC 9989 §4.10).
    pub fn select(texts: &[Vec<u8>]) -> Option<Record> {
        let mut found = texts.iter().filter_map(|text| std::str::from_utf8(text).ok()).filter(|text| is_dmarc(text));
        let first = found.next()?;
        if found.next().is_some() { None } else { Record::parse(first) }
    }

    /// Parses; tags that are unknown or wrong count as absent, as RFC 9989 §4.7 asks.
    pub fn parse(text: &str) -> Option<Record> {
        if !is_dmarc(text) {
            return None;
        }
        let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        let pairs: Vec<(String, &str)> = pairs.map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim())).collect();
        let get = |name: &str| pairs.iter().find(|(tag, _)| tag == name).map(|(_, value)| *value);
        let policy_of = |name: &str| get(name).and_then(Policy::parse);
        let aggregate_reports = addresses(get("rua"));
        // Without a valid p the record only counts if it asks for reports, and then as p=none.
        let policy = match policy_of("p") {
            Some(policy) => policy,
            None if !aggregate_reports.is_empty() => Policy::None,
            None => return None,
        };
        let subdomain_policy = policy_of("sp").unwrap_or(policy);
        let is = |name: &str, value: &str| get(name).is_some_and(|found| found.eq_ignore_ascii_case(value));
        Some(Record {
            policy,
            subdomain_policy,
            nonexistent_policy: policy_of("np").unwrap_or(subdomain_policy),
            strict_dkim: is("adkim", "s"),
            strict_spf: is("aspf", "s"),
            public_suffix: match () {
                () if is("psd", "y") => PublicSuffix::Yes,
                () if is("psd", "n") => PublicSuffix::No,
                () => PublicSuffix::Unknown,
            },
            testing: is("t", "y"),
            percent: get("pct").and_then(|pct| pct.parse().ok()).filter(|pct| *pct <= 100).unwrap_or(100),
            aggregate_reports,
            failure_reports: addresses(get("ruf")),
            failure_options: get("fo").unwrap_or("0").to_owned(),
        })
    }
}

/// `v=DMARC1` first; the value is case-sensitive.
fn is_dmarc(text: &str) -> bool {
    let first = text.split(';').next().unwrap_or_default();
    first.split_once('=').is_some_and(|(name, value)| name.trim() == "v" && value.trim() == "DMARC1")
}

/// `mailto:` addresses of a list; `!10m` behind one is a size limit of RFC 7489.
fn addresses(list: Option<&str>) -> Vec<String> {
    let uris = list.unwrap_or_default().split(',').map(str::trim);
    let mail = uris.filter_map(|uri| match uri.split_once(':') {
        Some((scheme, address)) if scheme.eq_ignore_ascii_case("mailto") => Some(address),
        _ => None,
    });
    let plain = mail.map(|address| address.split('!').next().unwrap_or_default().to_owned());
    plain.filter(|address| address.contains('@')).take(REPORT_ADDRESSES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn defaults_and_faults_are_the_rfcs() {
        let record = Record::parse("v=DMARC1; p=reject; np=x; rua=mailto:a@b.example!10m, https://c").unwrap();
        assert_eq!((record.subdomain_policy, record.nonexistent_policy), (Policy::Reject, Policy::Reject));
        assert_eq!(record.aggregate_reports, ["a@b.example"]);
        assert_eq!(Record::parse("v=DMARC1; rua=mailto:a@b.example").unwrap().policy, Policy::None);
        for none in ["v=DMARC1", "v=DMARC1; p=x", "v=dmarc1; p=none", "p=none; v=DMARC1", "v=DMARC10; p=none"] {
            assert_eq!(Record::parse(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_record_or_none(text in "v=DMARC1;.{0,80}") {
            let _ = Record::parse(&text);
        }
    }
}
