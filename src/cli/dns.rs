//! `weir dns`: what DNS says of a domain, what is wrong with it in words, and what to publish. I/O: DNS.

mod tlsa;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::dkim::txt_record;
use super::table::{plain, print_json, say};
use super::verify::with_runtime;
use super::{ConfigFile, Exit};
use crate::config::Config;
use crate::deliver::mta_sts::policy;
use crate::dns::Resolver;
use crate::verify::dkim::check::published_key;
use crate::verify::dkim::key::KeyRecord;
use crate::verify::dkim::sign::SigningKey;
use crate::verify::dmarc::{Policy, Record};
use crate::verify::lookup::{Answer, Bounded, Lookup};
use crate::verify::spf::SpfResult;
use crate::verify::{Outcome, spf};

/// Look-ups for one SPF record, as for a message.
const LOOKUPS_MAX: u32 = 128;
/// RFC 7208 §4.6.4 asks for at least 20 seconds.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(20);
/// TEST-NET-1 (RFC 5737).
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Arguments of `weir dns`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigFile,
    /// The domain
    domain: String,
    /// Ask this DNS server and no other
    #[arg(long, value_name = "HOST:PORT")]
    dns: Option<SocketAddr>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Bad,
    Good,
    Missing,
    Unknown,
}

/// One line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
struct Finding {
    what: String,
    state: State,
    text: String,
    publish: Option<String>,
}

impl Finding {
    fn new(what: impl Into<String>, state: State, text: impl Into<String>) -> Self {
        Finding { what: what.into(), state, text: text.into(), publish: None }
    }

    fn publish(mut self, record: impl Into<String>) -> Self {
        self.publish = Some(record.into());
        self
    }
}

/// Asks, judges, prints. Says no if something is bad.
pub fn run(args: Args) -> Result<(), Exit> {
    let mut config = args.config.load_or_complain()?;
    if let Some(server) = args.dns {
        config.dns.servers = vec![server];
    }
    let gathered = with_runtime(gather(&config, &args.domain.to_ascii_lowercase()));
    let findings = gathered.map_err(|error| Exit::Temporary.because(error))?;
    if args.json {
        print_json(&findings);
    } else {
        findings.iter().for_each(print);
    }
    Exit::No.unless(findings.iter().all(|finding| finding.state != State::Bad))
}

fn print(finding: &Finding) {
    let state = match finding.state {
        State::Bad => "bad",
        State::Good => "good",
        State::Missing => "missing",
        State::Unknown => "unknown",
    };
    say(&plain(&format!("{:<9}{state:<9}{}", finding.what, finding.text)));
    if let Some(record) = &finding.publish {
        say(&plain(&format!("{:<18}publish: {record}", "")));
    }
}

async fn gather(config: &Config, domain: &str) -> Result<Vec<Finding>, String> {
    let dns = Arc::new(Resolver::new(&config.dns)?);
    let mut findings = mx(&dns, config, domain).await;
    findings.push(spf(domain, dns_txt(&dns, domain).await, &spf_of_a_stranger(&dns, domain).await));
    findings.push(dmarc(domain, dns_txt(&dns, &format!("_dmarc.{domain}")).await));
    if !config.dkim.iter().any(|key| key.domain == domain) {
        let text = format!("no [[dkim]] key of ours is for it; `weir dkim rotate {domain}` makes a pair");
        findings.push(Finding::new("dkim", State::Missing, text));
    }
    for key in config.dkim.iter().filter(|key| key.domain == domain) {
        let ours = std::fs::read_to_string(&key.key).map_err(|error| error.to_string());
        let ours = ours
            .and_then(|pem| SigningKey::from_pem(&key.domain, &key.selector, &pem).map_err(|error| error.to_string()));
        let published = published_key(&*dns, &key.domain, &key.selector).await;
        findings.push(dkim(&key.selector, ours, &published));
    }
    findings.push(mta_sts(domain, dns_txt(&dns, &format!("_mta-sts.{domain}")).await));
    findings.push(tls_reports(domain, dns_txt(&dns, &format!("_smtp._tls.{domain}")).await));
    Ok(findings)
}

async fn dns_txt(dns: &Resolver, name: &str) -> Answer<Vec<String>> {
    let texts = Lookup::txt(dns, name).await;
    texts.map(|texts| texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
}

/// The hosts, and whether each one's addresses have a name that leads back (RFC 8601 iprev; large receivers insist).
async fn mx(dns: &Resolver, config: &Config, domain: &str) -> Vec<Finding> {
    let hosts = match Lookup::mx(dns, domain).await {
        Answer::Found(hosts) => hosts,
        Answer::Temporary => return vec![Finding::new("mx", State::Unknown, "DNS has no answer")],
        _ => {
            let record = format!("{domain}. IN MX 10 mx1.{domain}.");
            return vec![
                Finding::new("mx", State::Missing, "no MX: mail goes to the domain's own address").publish(record),
            ];
        }
    };
    let mut findings = Vec::new();
    for host in hosts {
        if host.is_empty() {
            findings.push(Finding::new("mx", State::Good, "null MX: this domain takes no mail (RFC 7505)"));
            continue;
        }
        match dns.addresses(&host).await {
            Ok(addresses) => {
                findings.push(Finding::new("mx", State::Good, host.clone()));
                for address in addresses {
                    findings.push(ptr(dns, &host, address).await);
                }
                findings.push(tlsa::finding(dns, config, domain, &host).await);
            }
            Err(fault) => findings.push(Finding::new("mx", State::Bad, format!("{host}: {fault}"))),
        }
    }
    findings
}

async fn ptr(dns: &Resolver, host: &str, address: IpAddr) -> Finding {
    match Lookup::ptr(dns, address).await {
        Answer::Found(names) => {
            for name in &names {
                if dns.addresses(name).await.is_ok_and(|found| found.contains(&address)) {
                    return Finding::new("ptr", State::Good, format!("{address} is {name}, and back"));
                }
            }
            Finding::new("ptr", State::Bad, format!("{address} has names that do not lead back: {}", names.join(", ")))
        }
        Answer::Temporary => Finding::new("ptr", State::Unknown, format!("{address}: DNS has no answer")),
        _ => Finding::new("ptr", State::Missing, format!("{address} has no name; receivers distrust such senders"))
            .publish(format!("(in the zone of the address) {address} IN PTR {host}.")),
    }
}

/// What the record and all that it includes make of an address that nobody has (RFC 5737): a permerror shows here, as it would
/// to every receiver.
async fn spf_of_a_stranger(dns: &Arc<Resolver>, domain: &str) -> SpfResult {
    let bounded = Bounded::new(dns.clone(), LOOKUPS_MAX, Instant::now() + LOOKUP_TIME_MAX);
    let path = format!("postmaster@{domain}");
    let query = spf::Query::mail_from(STRANGER.into(), domain, Some(&path), domain);
    spf::check(&bounded, &query, 0).await
}

fn spf(domain: &str, texts: Answer<Vec<String>>, stranger: &SpfResult) -> Finding {
    let texts = match texts {
        Answer::Found(texts) => texts,
        Answer::Temporary => return Finding::new("spf", State::Unknown, "DNS has no answer"),
        _ => Vec::new(),
    };
    let raw: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    let selected = match spf::record::select(&raw) {
        Ok(Some(selected)) => selected,
        Ok(None) => {
            let record = format!("{domain}. IN TXT \"v=spf1 mx -all\"");
            return Finding::new("spf", State::Missing, "anybody may send in this domain's name").publish(record);
        }
        Err(reason) => return Finding::new("spf", State::Bad, reason),
    };
    let text = String::from_utf8_lossy(selected);
    match spf::record::Record::parse(selected) {
        Err(reason) => Finding::new("spf", State::Bad, format!("{text}: {reason}")),
        Ok(record) if allows_everybody(&record) => Finding::new("spf", State::Bad, format!("{text}: allows everybody")),
        Ok(record) if record.redirect.is_none() && !ends_in_all(&record) => Finding::new(
            "spf",
            State::Bad,
            format!("{text}: has neither all nor redirect, so the rest of the world is neutral"),
        ),
        Ok(_) if stranger.outcome == Outcome::PermError => {
            Finding::new("spf", State::Bad, format!("{text}: receivers give up on it: {}", stranger.reason))
        }
        Ok(_) => Finding::new("spf", State::Good, text),
    }
}

fn ends_in_all(record: &spf::record::Record) -> bool {
    record.directives.iter().any(|directive| directive.mechanism == spf::record::Mechanism::All)
}

fn allows_everybody(record: &spf::record::Record) -> bool {
    let is_all = |d: &spf::record::Directive| d.mechanism == spf::record::Mechanism::All;
    record.directives.iter().any(|d| is_all(d) && d.qualifier == Outcome::Pass)
}

fn dmarc(domain: &str, texts: Answer<Vec<String>>) -> Finding {
    let ask = format!("_dmarc.{domain}. IN TXT \"v=DMARC1; p=none; rua=mailto:postmaster@{domain}\"");
    let texts = match texts {
        Answer::Found(texts) => texts,
        Answer::Temporary => return Finding::new("dmarc", State::Unknown, "DNS has no answer"),
        _ => {
            return Finding::new("dmarc", State::Missing, "receivers are not told what to do with forgeries")
                .publish(ask);
        }
    };
    let ours: Vec<&String> = texts.iter().filter(|text| text.trim_start().starts_with("v=DMARC1")).collect();
    match ours.as_slice() {
        [] => Finding::new("dmarc", State::Missing, "receivers are not told what to do with forgeries").publish(ask),
        [text] => match Record::parse(text) {
            None => Finding::new("dmarc", State::Bad, format!("{text}: has no valid p=")),
            Some(record) if record.aggregate_reports.is_empty() => {
                Finding::new("dmarc", State::Bad, format!("{text}: without rua= you see no reports"))
            }
            Some(record) if record.policy == Policy::None => {
                Finding::new("dmarc", State::Good, format!("{text}: watches only; p=quarantine or p=reject protects"))
            }
            Some(_) => Finding::new("dmarc", State::Good, *text),
        },
        _ => Finding::new("dmarc", State::Bad, "several records count as none"),
    }
}

fn dkim(
    selector: &str,
    ours: Result<SigningKey, String>,
    published: &Answer<Result<KeyRecord, crate::verify::dkim::key::KeyError>>,
) -> Finding {
    let ours = match ours {
        Ok(key) => key,
        Err(error) => return Finding::new("dkim", State::Bad, format!("{selector}: our key: {error}")),
    };
    let name = format!("{selector}._domainkey.{}", ours.domain);
    let record = txt_record(&name, &ours.record());
    match published {
        Answer::Temporary => Finding::new("dkim", State::Unknown, format!("{name}: DNS has no answer")),
        Answer::NoData | Answer::NxDomain => {
            Finding::new("dkim", State::Missing, format!("{name}: what we sign can't be checked")).publish(record)
        }
        Answer::Found(Err(error)) => {
            Finding::new("dkim", State::Bad, format!("{name}: {}", error.as_str())).publish(record)
        }
        Answer::Found(Ok(found)) => match KeyRecord::parse(ours.record().as_bytes()) {
            Ok(own) if own.key == found.key => Finding::new("dkim", State::Good, name),
            _ => Finding::new("dkim", State::Bad, format!("{name}: is another key than ours")).publish(record),
        },
    }
}

fn mta_sts(domain: &str, texts: Answer<Vec<String>>) -> Finding {
    let record =
        format!("_mta-sts.{domain}. IN TXT \"v=STSv1; id=1\"  (and https://mta-sts.{domain}/.well-known/mta-sts.txt)");
    match texts {
        Answer::Found(texts) => match policy::record_id(&texts) {
            Some(id) => Finding::new("mta-sts", State::Good, format!("id={id}")),
            None => Finding::new("mta-sts", State::Bad, "no valid record, or several").publish(record),
        },
        Answer::Temporary => Finding::new("mta-sts", State::Unknown, "DNS has no answer"),
        _ => Finding::new("mta-sts", State::Missing, "senders may be talked out of TLS").publish(record),
    }
}

fn tls_reports(domain: &str, texts: Answer<Vec<String>>) -> Finding {
    let record = format!("_smtp._tls.{domain}. IN TXT \"v=TLSRPTv1; rua=mailto:postmaster@{domain}\"");
    match texts {
        Answer::Found(texts) => {
            match texts.iter().filter(|text| text.starts_with("v=TLSRPTv1")).collect::<Vec<_>>()[..] {
                [text] if text.contains("rua=") => Finding::new("tls-rpt", State::Good, text),
                _ => Finding::new("tls-rpt", State::Bad, "no valid record, or several").publish(record),
            }
        }
        Answer::Temporary => Finding::new("tls-rpt", State::Unknown, "DNS has no answer"),
        _ => Finding::new("tls-rpt", State::Missing, "nobody tells you when TLS towards you fails").publish(record),
    }
}
