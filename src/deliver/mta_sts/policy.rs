//! MTA-STS: the record that says there is a policy, and the policy itself. Pure; fetching is the caller's. RFC 8461.
//!
//! A policy binds for `max_age` even when the record is gone, which is why a cache of them is kept by their owner's domain.

use std::time::Duration;

/// RFC 8461 §3.2: a year.
const MAX_AGE_SECS_MAX: u64 = 31_557_600;
/// RFC 8461 §3.3: receivers may refuse larger ones; 64 KiB is its example.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Hosts of one policy at most.
const HOSTS_MAX: usize = 200;

/// What a policy asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Deliver only over TLS with a valid certificate to a host of the list.
    Enforce,
    /// No policy (any more).
    None,
    /// Report what would fail, deliver all the same.
    Testing,
}

/// A parsed policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it asks for.
    pub mode: Mode,
    /// Hosts, lower case; `*.` in front matches one label.
    pub hosts: Vec<String>,
    /// How long it binds.
    pub max_age: Duration,
}

/// `id=` of the one STSv1 record; nothing if there is none, or several (RFC 8461 §3.1).
pub fn record_id(texts: &[String]) -> Option<String> {
    let mut ours = texts.iter().filter(|text| text.starts_with("v=STSv1;"));
    let first = ours.next()?;
    if ours.next().is_some() {
        return None;
    }
    let id = first.split(';').find_map(|pair| pair.trim().strip_prefix("id="))?.trim();
    let valid = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    valid.then(|| id.to_owned())
}

impl Policy {
    /// Parses a policy file; nothing if it is none.
    pub fn parse(text: &str) -> Option<Policy> {
        if text.len() > POLICY_BYTES_MAX {
            return None;
        }
        let pairs = text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.trim(), v.trim()));
        let pairs: Vec<(&str, &str)> = pairs.collect();
        let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        if get("version") != Some("STSv1") {
            return None;
        }
        let mode = match get("mode")? {
            "enforce" => Mode::Enforce,
            "testing" => Mode::Testing,
            "none" => Mode::None,
            _ => return None,
        };
        let max_age = get("max_age")?.parse::<u64>().ok()?.min(MAX_AGE_SECS_MAX);
        let hosts = pairs.iter().filter(|(key, _)| *key == "mx").map(|(_, host)| host.to_ascii_lowercase());
        let hosts: Vec<String> = hosts.take(HOSTS_MAX).collect();
        let complete = mode == Mode::None || !hosts.is_empty();
        complete.then_some(Policy { mode, hosts, max_age: Duration::from_secs(max_age) })
    }

    /// May mail go to this MX host (RFC 8461 §4.1)?
    pub fn allows(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.hosts.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(suffix) => host.split_once('.').is_some_and(|(_, rest)| rest == suffix),
            None => *pattern == host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_8461_section_3_2() {
        let text = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n";
        let policy = Policy::parse(text).unwrap();
        assert_eq!(policy.mode, Mode::Enforce);
        assert_eq!(policy.max_age, Duration::from_secs(604_800));
        assert!(policy.allows("MAIL.example.com.") && policy.allows("a.example.net"));
        assert!(!policy.allows("a.b.example.net") && !policy.allows("example.net"));
        assert_eq!(Policy::parse("version: STSv1\nmode: enforce\nmax_age: 1"), None);
    }

    #[test]
    fn one_record_with_an_id() {
        let texts = |all: &[&str]| all.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        assert_eq!(record_id(&texts(&["v=STSv1; id=20160831085700Z;", "x"])).as_deref(), Some("20160831085700Z"));
        assert_eq!(record_id(&texts(&["v=STSv1; id=a", "v=STSv1; id=b"])), None);
        assert_eq!(record_id(&texts(&["v=STSv1; id=a b"])), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_policy_or_none(text in "(version: STSv1\n|mode: (enforce|none)\n|mx: [a-z.*]{0,9}\n|max_age: [0-9]{0,30}\n|.{0,9}\n){0,8}") {
            let _ = Policy::parse(&text);
        }
    }
}
