//! May a report be sent there? I/O: DNS. RFC 9990 §4, RFC 7489 §7.1; RFC 8460 §3.
//!
//! Whoever publishes a record could otherwise have reports sent to anybody. A destination outside of the policy's organization must say that it takes
//! them, at `<policy domain>._report._dmarc.<its host>`; no answer from DNS is a no.

use super::super::dmarc::check::walk;
use super::super::dmarc::record::{ReportAddress, addresses};
use super::super::lookup::{Answer, Lookup};

/// Which tag of the destination's own record may name another mailbox on the same host (RFC 7489 §7.1, step 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `rua=`
    Aggregate,
    /// `ruf=`
    Failure,
}

/// What became of the addresses that an owner named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// These may be written to.
    pub addresses: Vec<ReportAddress>,
    /// DNS could not say for at least one of the others.
    pub undecided: bool,
}

/// The addresses that may be written to.
pub async fn verified<L: Lookup>(dns: &L, policy_domain: &str, wanted: &[ReportAddress], tag: Tag) -> Verified {
    let organization = walk(dns, policy_domain).await.organizational_domain().to_owned();
    let mut verified = Verified::default();
    for one in wanted {
        let host = one.address.domain();
        let within = host == policy_domain || walk(dns, host).await.organizational_domain() == organization;
        let found = if within { Answer::Found(one.clone()) } else { agreed(dns, policy_domain, one, tag).await };
        match found {
            Answer::Found(one) if verified.addresses.iter().all(|known| known.address != one.address) => {
                verified.addresses.push(one);
            }
            Answer::Temporary => verified.undecided = true,
            _ => {}
        }
    }
    verified
}

async fn agreed<L: Lookup>(dns: &L, policy_domain: &str, one: &ReportAddress, tag: Tag) -> Answer<ReportAddress> {
    let host = one.address.domain();
    let texts = match dns.txt(&format!("{policy_domain}._report._dmarc.{host}")).await {
        Answer::Found(texts) => texts,
        Answer::Temporary => return Answer::Temporary,
        _ => return Answer::NoData,
    };
    consent(&texts, one, tag).map_or(Answer::NoData, Answer::Found)
}

/// What the destination's own record says; nothing if it is none.
fn consent(texts: &[Vec<u8>], one: &ReportAddress, tag: Tag) -> Option<ReportAddress> {
    let record = texts.iter().filter_map(|text| std::str::from_utf8(text).ok()).find(|text| is_dmarc(text))?;
    let name = match tag {
        Tag::Aggregate => "rua",
        Tag::Failure => "ruf",
    };
    let pairs = record.split(';').filter_map(|pair| pair.split_once('='));
    let other = pairs.map(|(name, value)| (name.trim(), value)).find(|(found, _)| found.eq_ignore_ascii_case(name));
    let Some((_, list)) = other else { return Some(one.clone()) };
    // Only a mailbox of the same host: whoever agrees speaks for no one else.
    addresses(Some(list)).into_iter().find(|instead| instead.address.domain() == one.address.domain())
}

fn is_dmarc(text: &str) -> bool {
    let first = text.split(';').next().unwrap_or_default();
    first.split_once('=').is_some_and(|(name, value)| name.trim() == "v" && value.trim() == "DMARC1")
}

/// Where TLS reports go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum TlsDestination {
    /// `mailto:`
    Mail(ReportAddress),
    /// `https:`, whole.
    Post(String),
}

/// Destinations that are kept of one record.
const TLS_DESTINATIONS_MAX: usize = 10;
/// Bytes of a URI.
const URI_BYTES_MAX: usize = 1024;

/// The destinations of a `_smtp._tls` record (RFC 8460 §3); none if there is no record, or several.
pub fn of_tls_record(texts: &[Vec<u8>]) -> Vec<TlsDestination> {
    let mut records = texts.iter().filter_map(|text| std::str::from_utf8(text).ok()).filter_map(|text| {
        let (version, rest) = text.split_once(';')?;
        (version.trim() == "v=TLSRPTv1").then_some(rest)
    });
    let (Some(record), None) = (records.next(), records.next()) else { return Vec::new() };
    let pairs = record.split(';').filter_map(|pair| pair.split_once('='));
    let list = pairs.map(|(name, value)| (name.trim(), value)).find(|(name, _)| *name == "rua").map(|(_, list)| list);
    let uris = list.unwrap_or_default().split(',').map(str::trim);
    uris.filter_map(tls_destination).take(TLS_DESTINATIONS_MAX).collect()
}

fn tls_destination(uri: &str) -> Option<TlsDestination> {
    let is_https = uri.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https://"));
    if is_https {
        let clean = uri.len() <= URI_BYTES_MAX && uri.bytes().all(|b| b.is_ascii_graphic());
        return clean.then(|| TlsDestination::Post(uri.to_owned()));
    }
    addresses(Some(uri)).pop().map(TlsDestination::Mail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_destination_may_name_another_mailbox_of_its_own() {
        let one = addresses(Some("mailto:a@r.example!1k")).remove(0);
        let said = |text: &str| {
            let found = consent(&[b"x".to_vec(), text.as_bytes().to_vec()], &one, Tag::Aggregate);
            found.map(|one| format!("{} {:?}", one.address, one.bytes_max))
        };
        assert_eq!(said("v=DMARC1").as_deref(), Some("a@r.example Some(1024)"));
        assert_eq!(said("v=DMARC1; rua=mailto:b@r.example").as_deref(), Some("b@r.example None"));
        assert_eq!(said("v=DMARC1; ruf=mailto:b@r.example").as_deref(), Some("a@r.example Some(1024)"));
        assert_eq!(said("v=DMARC1; rua=mailto:b@victim.example"), None);
        assert_eq!(said("v=DMARC10"), None);
    }

    #[test]
    fn tls_records_name_mailboxes_and_https() {
        let read = |text: &str| of_tls_record(&[text.as_bytes().to_vec()]);
        let two = read("v=TLSRPTv1; rua=mailto:t@x.example,https://x.example/v1/r");
        let [TlsDestination::Mail(mail), TlsDestination::Post(uri)] = &two[..] else { panic!("{two:?}") };
        assert_eq!((mail.address.as_str(), uri.as_str()), ("t@x.example", "https://x.example/v1/r"));
        for none in ["v=TLSRPTv2;rua=mailto:t@x.example", "v=TLSRPTv1;", "rua=mailto:a@b.example", ""] {
            assert!(read(none).is_empty(), "{none}");
        }
        let twice = vec![b"v=TLSRPTv1;rua=mailto:t@x.example".to_vec(); 2];
        assert!(of_tls_record(&twice).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_a_record_or_none(text in "(v=TLSRPTv1;)?.{0,60}") {
            let _ = of_tls_record(&[text.into_bytes()]);
        }
    }
}
