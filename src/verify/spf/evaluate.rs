//! check_host(): asks DNS and matches terms. I/O: DNS, through the look-up seam. RFC 7208 §4, §5, §6.
//!
//! Recursion (`include`, `redirect`) is bounded by the ten look-ups that both cost. A temporary DNS error ends the check with
//! temperror at once; nothing that could not be asked counts as "no match".

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;

use super::super::lookup::{Answer, Lookup, is_askable};
use super::super::outcome::Outcome;
use super::macros::{MacroString, Use, Values};
use super::record::{Directive, DualCidr, Mechanism, Record, select};
use super::{Query, SpfResult};

/// RFC 7208 §4.6.4: terms that cause look-ups.
const LOOKUPS_MAX: u32 = 10;
/// RFC 7208 §4.6.4: look-ups that find nothing.
const VOID_LOOKUPS_MAX: u32 = 2;
/// RFC 7208 §4.6.4: names of one `mx`, and names of one `ptr`.
const NAMES_MAX: usize = 10;
/// Longest explanation that goes into a reply; a reply line holds 512 bytes (RFC 5321 §4.5.3.1.5).
const EXPLANATION_BYTES_MAX: usize = 400;

/// Why a check ended early.
struct Stop(Outcome, String);

fn permerror(reason: impl Into<String>) -> Stop {
    Stop(Outcome::PermError, reason.into())
}

fn temperror(name: &str) -> Stop {
    Stop(Outcome::TempError, format!("DNS has no answer for {name}"))
}

/// What a record said, and whose `exp=` counts.
struct Finding {
    outcome: Outcome,
    reason: String,
    explanation: Option<(MacroString, String)>,
}

impl Finding {
    fn plain(outcome: Outcome, reason: impl Into<String>) -> Self {
        Finding { outcome, reason: reason.into(), explanation: None }
    }
}

/// Checks one identity. `now` is in seconds since 1970, for `%{t}`.
pub async fn check<L: Lookup>(dns: &L, query: &Query, now: u64) -> SpfResult {
    let query = Query { ip: query.ip.to_canonical(), ..query.clone() };
    let mut check = Check { dns, query: &query, now, lookups: 0, voids: 0, validated: None };
    let finding = match check.domain(query.domain().to_owned()).await {
        Ok(finding) => finding,
        Err(Stop(outcome, reason)) => Finding::plain(outcome, reason),
    };
    let explanation = match finding.explanation {
        Some((text, domain)) if finding.outcome == Outcome::Fail => check.explain(&text, &domain).await,
        _ => None,
    };
    SpfResult {
        outcome: finding.outcome,
        identity: query.identity,
        domain: query.domain().to_owned(),
        sender: query.sender.clone(),
        reason: finding.reason,
        explanation,
        lookups: check.lookups,
    }
}

struct Check<'a, L> {
    dns: &'a L,
    query: &'a Query,
    now: u64,
    lookups: u32,
    voids: u32,
    validated: Option<Vec<String>>,
}

type Boxed<'b, T> = Pin<Box<dyn Future<Output = T> + Send + 'b>>;

impl<L: Lookup> Check<'_, L> {
    /// check_host() for `domain`; boxed, for `include` and `redirect` come back to it.
    fn domain(&mut self, domain: String) -> Boxed<'_, Result<Finding, Stop>> {
        Box::pin(async move {
            // RFC 7208 §4.3: a name that is no multi-label domain name has no record.
            if !is_askable(&domain) || !domain.trim_end_matches('.').contains('.') {
                return Ok(Finding::plain(Outcome::None, "not a domain name"));
            }
            let record = match self.dns.txt(&domain).await {
                Answer::Found(texts) => match select(&texts).map_err(permerror)? {
                    Some(text) => Record::parse(text).map_err(|reason| permerror(format!("{domain}: {reason}")))?,
                    None => return Ok(Finding::plain(Outcome::None, format!("{domain} has no SPF record"))),
                },
                Answer::NoData | Answer::NxDomain => {
                    return Ok(Finding::plain(Outcome::None, format!("{domain} has no SPF record")));
                }
                Answer::Temporary => return Err(temperror(&domain)),
            };
            self.record(&record, &domain).await
        })
    }

    async fn record(&mut self, record: &Record, domain: &str) -> Result<Finding, Stop> {
        for directive in &record.directives {
            if self.matches(directive, domain).await? {
                let explanation = record.explanation.clone().map(|text| (text, domain.to_owned()));
                let reason = format!("{domain}: {}", directive.text);
                return Ok(Finding { outcome: directive.qualifier, reason, explanation });
            }
        }
        let Some(redirect) = &record.redirect else {
            return Ok(Finding::plain(Outcome::Neutral, format!("{domain}: no term matches")));
        };
        self.count_lookup()?;
        let target = self.target(Some(redirect), domain).await?;
        let finding = self.domain(target.clone()).await?;
        match finding.outcome {
            Outcome::None => Err(permerror(format!("redirect={target}: no SPF record"))),
            _ => Ok(finding),
        }
    }

    async fn matches(&mut self, directive: &Directive, domain: &str) -> Result<bool, Stop> {
        let ip = self.query.ip;
        match &directive.mechanism {
            Mechanism::All => return Ok(true),
            Mechanism::Ip4(network, bits) => return Ok(in_network(ip, (*network).into(), *bits)),
            Mechanism::Ip6(network, bits) => return Ok(in_network(ip, (*network).into(), *bits)),
            _ => self.count_lookup()?,
        }
        match &directive.mechanism {
            Mechanism::A(spec, cidr) => {
                let target = self.target(spec.as_ref(), domain).await?;
                let addresses = self.addresses(&target).await?;
                self.count_void(addresses.is_empty())?;
                Ok(any_in(ip, &addresses, *cidr))
            }
            Mechanism::Mx(spec, cidr) => {
                let target = self.target(spec.as_ref(), domain).await?;
                self.mx(&target, *cidr).await
            }
            Mechanism::Exists(spec) => {
                let target = self.target(Some(spec), domain).await?;
                self.exists(&target).await
            }
            Mechanism::Include(spec) => {
                let target = self.target(Some(spec), domain).await?;
                self.include(target).await
            }
            Mechanism::Ptr(spec) => {
                let target = self.target(spec.as_ref(), domain).await?;
                let names = self.validated_names().await;
                Ok(names.iter().any(|name| is_within(name, &target)))
            }
            Mechanism::All | Mechanism::Ip4(..) | Mechanism::Ip6(..) => Ok(false),
        }
    }

    async fn include(&mut self, target: String) -> Result<bool, Stop> {
        let finding = self.domain(target.clone()).await?;
        match finding.outcome {
            Outcome::Pass => Ok(true),
            Outcome::None => Err(permerror(format!("include:{target}: no SPF record"))),
            _ => Ok(false),
        }
    }

    async fn mx(&mut self, target: &str, cidr: DualCidr) -> Result<bool, Stop> {
        let hosts = match self.dns.mx(target).await {
            Answer::Found(hosts) => hosts,
            Answer::Temporary => return Err(temperror(target)),
            Answer::NoData | Answer::NxDomain => Vec::new(),
        };
        self.count_void(hosts.is_empty())?;
        if hosts.len() > NAMES_MAX {
            return Err(permerror(format!("mx:{target} has more than {NAMES_MAX} hosts")));
        }
        for host in hosts {
            let addresses = self.addresses(&host).await?;
            if any_in(self.query.ip, &addresses, cidr) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn exists(&mut self, target: &str) -> Result<bool, Stop> {
        // An A look-up even for an IPv6 client (§5.7).
        match self.dns.a(target).await {
            Answer::Found(_) => Ok(true),
            Answer::Temporary => Err(temperror(target)),
            Answer::NoData | Answer::NxDomain => self.count_void(true).map(|()| false),
        }
    }

    /// Addresses of the client's family.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Stop> {
        let answer = match self.query.ip {
            IpAddr::V4(_) => self.dns.a(name).await.map(|found| found.into_iter().map(IpAddr::V4).collect()),
            IpAddr::V6(_) => self.dns.aaaa(name).await.map(|found| found.into_iter().map(IpAddr::V6).collect()),
        };
        match answer {
            Answer::Found(addresses) => Ok(addresses),
            Answer::NoData | Answer::NxDomain => Ok(Vec::new()),
            Answer::Temporary => Err(temperror(name)),
        }
    }

    /// The client's names that resolve forward again (§5.5); faults of DNS make it no name, never an error.
    async fn validated_names(&mut self) -> Vec<String> {
        if let Some(names) = &self.validated {
            return names.clone();
        }
        let names = match self.dns.ptr(self.query.ip).await {
            Answer::Found(names) => names,
            _ => Vec::new(),
        };
        let mut validated = Vec::new();
        for name in names.into_iter().take(NAMES_MAX) {
            if self.addresses(&name).await.is_ok_and(|addresses| addresses.contains(&self.query.ip)) {
                validated.push(name);
            }
        }
        self.validated = Some(validated.clone());
        validated
    }

    /// A term's target; without one, the current domain.
    async fn target(&mut self, spec: Option<&MacroString>, domain: &str) -> Result<String, Stop> {
        let Some(spec) = spec else { return Ok(domain.to_owned()) };
        let validated = self.validated_for(spec, domain).await;
        let values = Values { query: self.query, domain, validated: validated.as_deref(), now: self.now };
        Ok(spec.expand_domain(&values))
    }

    /// `%{p}`: the domain itself, then a name below it, then any (§7.3).
    async fn validated_for(&mut self, text: &MacroString, domain: &str) -> Option<String> {
        if !text.needs_validated() {
            return None;
        }
        let names = self.validated_names().await;
        let same = names.iter().find(|name| name.trim_end_matches('.').eq_ignore_ascii_case(domain));
        let below = names.iter().find(|name| is_within(name, domain));
        same.or(below).or(names.first()).cloned()
    }

    fn count_lookup(&mut self) -> Result<(), Stop> {
        if self.lookups == LOOKUPS_MAX {
            return Err(permerror(format!("more than {LOOKUPS_MAX} look-ups")));
        }
        self.lookups += 1;
        Ok(())
    }

    fn count_void(&mut self, void: bool) -> Result<(), Stop> {
        self.voids += u32::from(void);
        if self.voids > VOID_LOOKUPS_MAX {
            return Err(permerror(format!("more than {VOID_LOOKUPS_MAX} look-ups found nothing")));
        }
        Ok(())
    }

    /// The owner's text for a fail; any fault means no text (§6.2).
    async fn explain(&mut self, spec: &MacroString, domain: &str) -> Option<String> {
        let target = self.target(Some(spec), domain).await.ok()?;
        let Answer::Found(texts) = self.dns.txt(&target).await else { return None };
        let [text] = texts.as_slice() else { return None };
        let text = std::str::from_utf8(text).ok()?;
        let parsed = MacroString::parse(text, Use::Explanation)?;
        let validated = self.validated_for(&parsed, domain).await;
        let values = Values { query: self.query, domain, validated: validated.as_deref(), now: self.now };
        let mut text = parsed.expand(&values);
        text.retain(|c| (' '..='~').contains(&c));
        text.truncate(EXPLANATION_BYTES_MAX);
        Some(text)
    }
}

fn any_in(ip: IpAddr, networks: &[IpAddr], cidr: DualCidr) -> bool {
    let bits = if ip.is_ipv4() { cidr.v4 } else { cidr.v6 };
    networks.iter().any(|network| in_network(ip, *network, bits))
}

fn in_network(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            ip.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

/// `name` is `domain` or below it.
fn is_within(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.trim_end_matches('.').to_ascii_lowercase(), domain.to_ascii_lowercase());
    name == domain || name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
}
