//! DMARC policy records. Pure. RFC 9989 §4.7, RFC 7489 §6.3.

use serde::{Deserialize, Serialize};

use crate::wire::address::Mailbox;

/// What an owner asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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

/// Where an owner wants reports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReportAddress {
    /// `local-part@domain`
    pub address: Mailbox,
    /// `!10m` behind the address (RFC 7489 §6.2): larger reports are not wanted.
    pub bytes_max: Option<u64>,
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
    /// `rua=`
    pub aggregate_reports: Vec<ReportAddress>,
    /// `ruf=`
    pub failure_reports: Vec<ReportAddress>,
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

/// `mailto:` addresses of a list.
pub fn addresses(list: Option<&str>) -> Vec<ReportAddress> {
    list.unwrap_or_default().split(',').filter_map(address).take(REPORT_ADDRESSES_MAX).collect()
}

/// One `mailto:` URI; commas and exclamation marks of the address itself are percent-encoded (RFC 7489 §6.3).
fn address(uri: &str) -> Option<ReportAddress> {
    let (scheme, rest) = uri.trim().split_once(':')?;
    if !scheme.eq_ignore_ascii_case("mailto") {
        return None;
    }
    let (encoded, size) = rest.split_once('!').map_or((rest, None), |(address, size)| (address, Some(size)));
    let encoded = encoded.split('?').next().unwrap_or_default();
    let bytes_max = match size {
        Some(size) => Some(units_of(size.trim())?),
        None => None,
    };
    Mailbox::parse(&percent_decoded(encoded)?, false).ok().map(|address| ReportAddress { address, bytes_max })
}

/// `10m`: a count of units of 2^10, 2^20, 2^30 or 2^40 bytes.
fn units_of(size: &str) -> Option<u64> {
    let (number, shift) = match size.bytes().last()?.to_ascii_lowercase() {
        b'k' => (&size[..size.len() - 1], 10),
        b'm' => (&size[..size.len() - 1], 20),
        b'g' => (&size[..size.len() - 1], 30),
        b't' => (&size[..size.len() - 1], 40),
        _ => (size, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn defaults_and_faults_are_the_rfcs() {
        let record = Record::parse("v=DMARC1; p=reject; np=x; rua=mailto:a@b.example!10m, https://c").unwrap();
        assert_eq!((record.subdomain_policy, record.nonexistent_policy), (Policy::Reject, Policy::Reject));
        let [one] = &record.aggregate_reports[..] else { panic!("{record:?}") };
        assert_eq!((one.address.as_str(), one.bytes_max), ("a@b.example", Some(10 << 20)));
        assert_eq!(Record::parse("v=DMARC1; rua=mailto:a@b.example").unwrap().policy, Policy::None);
        for none in ["v=DMARC1", "v=DMARC1; p=x", "v=dmarc1; p=none", "p=none; v=DMARC1", "v=DMARC10; p=none"] {
            assert_eq!(Record::parse(none), None, "{none}");
        }
    }

    #[test]
    fn report_addresses_are_uris_with_sizes() {
        let read = |list: &str| {
            addresses(Some(list)).iter().map(|one| format!("{} {:?}", one.address, one.bytes_max)).collect::<Vec<_>>()
        };
        assert_eq!(read("mailto:a%21b@x.example!500k"), ["a!b@x.example Some(512000)"]);
        assert_eq!(read("MAILTO:a@x.example!7?subject=y , mailto:b@x.example?subject=y"), ["b@x.example None"]);
        for none in ["mailto:a", "mailto:a@x.example!m", "mailto:%zz@x", "mailto:é@x", "mailto:a@x!99999999999999t"] {
            assert!(read(none).is_empty(), "{none}");
        }
        assert_eq!(read(&"mailto:a@x.example,".repeat(50)).len(), REPORT_ADDRESSES_MAX);
    }

    proptest! {
        #[test]
        fn any_uri_is_an_address_or_none(text in "mailto:.{0,40}") {
            let _ = addresses(Some(&text));
        }

        #[test]
        fn any_text_is_a_record_or_none(text in "v=DMARC1;.{0,80}") {
            let _ = Record::parse(&text);
        }
    }
}
