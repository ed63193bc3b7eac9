//! The one resolver of the house: MX, addresses, PTR, TXT, TLSA, with a bounded cache. I/O: DNS over UDP and TCP.
//!
//! RFC 1035, RFC 2308 (negative answers), RFC 7505 (null MX). If `[dns] servers` is set, nothing else is asked: no hosts file, no
//! search list, no public resolver. The same question asked by many at once goes out once. [`DnsFault::NotFound`] is what a zone says and may bounce mail;
//! [`DnsFault::Temporary`] is trouble and may only defer it.

pub mod cache;
pub mod meters;
mod signed;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::config::settings::Dns;
use cache::{Cache, Cached};
use meters::Meters;
pub use signed::Tlsa;
use signed::{Signed, canonical_name};

/// Answers are kept no longer than this, whatever their TTL says.
const TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// A negative answer without SOA is kept this long; with one, its own time up to [`NEGATIVE_TTL_MAX`] (RFC 2308 §5).
const NEGATIVE_TTL: Duration = Duration::from_secs(60);
/// RFC 2308 §5 advises one to three hours; mail wants to see a new domain sooner.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(3600);
/// Records of one answer that are kept; a 64 KiB answer could hold thousands.
const RECORDS_MAX: usize = 256;
/// Queries sent for one question before it counts as failed.
const ATTEMPTS: u32 = 2;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsFault {
    /// The zone says so.
    NotFound {
        /// The name exists, with other types (NODATA); otherwise NXDOMAIN.
        name_exists: bool,
    },
    /// Time-out, SERVFAIL, garbage; the text is for the log.
    Temporary(Arc<str>),
}

impl fmt::Display for DnsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DnsFault::NotFound { name_exists: true } => f.write_str("no such record"),
            DnsFault::NotFound { name_exists: false } => f.write_str("no such domain"),
            DnsFault::Temporary(why) => write!(f, "DNS trouble: {why}"),
        }
    }
}

impl std::error::Error for DnsFault {}

/// An MX record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mx {
    /// Lower is tried first.
    pub preference: u16,
    /// Host name in lower case without the final dot; empty in a null MX.
    pub host: String,
}

/// What a query gave: the records of the type asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// A or AAAA.
    Addresses(Arc<[IpAddr]>),
    /// MX, sorted by preference.
    Mx(Arc<[Mx]>),
    /// CNAME, PTR.
    Names(Arc<[String]>),
    /// TXT; the strings of one record are joined.
    Texts(Arc<[Box<[u8]>]>),
    /// TLSA.
    Tlsa(Arc<[Tlsa]>),
}

/// An answer with what DNSSEC says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The records.
    pub records: Records,
    /// A server that `[dns] trust_ad` names has validated all of the answer.
    pub secure: bool,
    /// Where a CNAME chain ended; known of answers that may be secure.
    pub canonical: Option<Arc<str>>,
}

/// Addresses of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// All of them are validated.
    pub secure: bool,
    /// They are not, but the name's own CNAME is (RFC 7672 §2.2.2).
    pub alias_secure: bool,
    /// Where its CNAME chain ended.
    pub canonical: Option<Arc<str>>,
}

/// Record types that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 address.
    A,
    /// IPv6 address.
    Aaaa,
    /// The name that it stands for, no further.
    Cname,
    /// Mail exchanger.
    Mx,
    /// Name of an address.
    Ptr,
    /// Text.
    Txt,
    /// Certificates by DANE (RFC 6698).
    Tlsa,
}

impl Kind {
    fn record_type(self) -> RecordType {
        match self {
            Kind::A => RecordType::A,
            Kind::Aaaa => RecordType::AAAA,
            Kind::Cname => RecordType::CNAME,
            Kind::Mx => RecordType::MX,
            Kind::Ptr => RecordType::PTR,
            Kind::Txt => RecordType::TXT,
            Kind::Tlsa => RecordType::TLSA,
        }
    }

    /// Records that say where mail goes and who is there: of these it matters whether they are validated.
    fn guides_mail(self) -> bool {
        matches!(self, Kind::A | Kind::Aaaa | Kind::Cname | Kind::Mx | Kind::Tlsa)
    }
}

/// The resolver. Cheap to share by `Arc`.
pub struct Resolver {
    upstream: ArcSwap<Upstream>,
    flights: Flights,
    meters: Option<Meters>,
}

/// The servers of one `[dns]`, and what they said.
pub struct Upstream {
    inner: TokioResolver,
    signed: Option<Signed>,
    cache: Mutex<Cache>,
    timeout: Duration,
}

impl Upstream {
    /// Servers by `[dns]`. Must be called inside a tokio runtime's context.
    /// # Errors
    /// When the system's resolver configuration is wanted and can't be read.
    pub fn new(settings: &Dns) -> Result<Self, String> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = if settings.servers.is_empty() {
            TokioResolver::builder(provider).map_err(|error| format!("the system's resolver settings: {error}"))?
        } else {
            let servers = settings.servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, provider)
        };
        let options = builder.options_mut();
        if !settings.servers.is_empty() {
            options.use_hosts_file = ResolveHosts::Never;
        }
        options.timeout = settings.timeout / ATTEMPTS;
        options.attempts = ATTEMPTS as usize - 1;
        options.cache_size = 0;
        options.edns0 = true;
        options.case_randomization = true;
        options.try_tcp_on_error = true;
        let servers = settings.servers.iter().map(name_server).collect();
        let signed = settings.trust_ad.then(|| Signed::new(servers, options)).transpose();
        let signed = signed.map_err(|error| format!("the resolver: {error}"))?;
        let inner = builder.build().map_err(|error| format!("the resolver: {error}"))?;
        let cache = Mutex::new(Cache::new(settings.cache_entries));
        Ok(Upstream { inner, signed, cache, timeout: settings.timeout })
    }
}

impl Resolver {
    /// A resolver by `[dns]`. Must be called inside a tokio runtime's context.
    /// # Errors
    /// When the system's resolver configuration is wanted and can't be read.
    pub fn new(settings: &Dns) -> Result<Self, String> {
        let upstream = ArcSwap::from_pointee(Upstream::new(settings)?);
        Ok(Resolver { upstream, flights: Flights::default(), meters: None })
    }

    /// Asks other servers from now on. What the old ones said is forgotten.
    pub fn turn_to(&self, upstream: Upstream) {
        self.upstream.store(Arc::new(upstream));
    }

    /// The same resolver, counting.
    pub fn with_meters(mut self, meters: Meters) -> Self {
        self.meters = Some(meters);
        self
    }

    /// Mail exchangers of `domain` by preference. A null MX (RFC 7505) is one entry with an empty host.
    /// # Errors
    /// See [`DnsFault`].
    pub async fn mx(&self, domain: &str) -> Result<Arc<[Mx]>, DnsFault> {
        match self.query(Kind::Mx, domain).await? {
            Records::Mx(records) => Ok(records),
            _ => Err(DnsFault::NotFound { name_exists: true }),
        }
    }

    /// IPv4 addresses of `host`.
    /// # Errors
    /// See [`DnsFault`].
    pub async fn a(&self, host: &str) -> Result<Arc<[IpAddr]>, DnsFault> {
        addresses(self.query(Kind::A, host).await?)
    }

    /// IPv6 addresses of `host`.
    /// # Errors
    /// See [`DnsFault`].
    pub async fn aaaa(&self, host: &str) -> Result<Arc<[IpAddr]>, DnsFault> {
        addresses(self.query(Kind::Aaaa, host).await?)
    }

    /// Addresses of `host`, both families asked at once. Temporary trouble counts only if neither answers.
    /// # Errors
    /// See [`DnsFault`].
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsFault> {
        self.host(host).await.map(|found| found.addresses)
    }

    /// The same with what DNSSEC says of them.
    /// # Errors
    /// See [`DnsFault`].
    pub async fn host(&self, host: &str) -> Result<Host, DnsFault> {
        let (six, four) = tokio::join!(self.find(Kind::Aaaa, host), self.find(Kind::A, host));
        let both = match (six, four) {
            // IPv4 first: large receivers ask more of senders over IPv6 (PTR, SPF) and refuse where they find it missing.
            (Ok(six), Ok(four)) => vec![four, six],
            (Err(_), Ok(one)) | (Ok(one), Err(_)) => vec![one],
            (Err(fault @ DnsFault::Temporary(_)), _) | (_, Err(fault)) => return Err(fault),
        };
        let secure = both.iter().all(|found| found.secure);
        let canonical = both[0].canonical.clone();
        let mut all = Vec::new();
        for found in both {
            all.extend_from_slice(&addresses(found.records)?);
        }
        let alias_secure = !secure && canonical.is_some() && self.is_secure_alias(host).await?;
        Ok(Host { addresses: all, secure, alias_secure, canonical })
    }

    /// True if the name's own CNAME is validated, wherever it leads: an answer with the whole chain tells only that some of it is
    /// not (RFC 7672 §2.1.3).
    async fn is_secure_alias(&self, host: &str) -> Result<bool, DnsFault> {
        match self.find(Kind::Cname, host).await {
            Ok(found) => Ok(found.secure),
            Err(DnsFault::NotFound { .. }) => Ok(false),
            Err(fault @ DnsFault::Temporary(_)) => Err(fault),
        }
    }

    /// TLSA records of `name`, only if they are validated: others mean nothing (RFC 7672 §2.1.1).
    /// # Errors
    /// See [`DnsFault`]; trouble includes a signature that does not hold.
    pub async fn tlsa(&self, name: &str) -> Result<Arc<[Tlsa]>, DnsFault> {
        match self.find(Kind::Tlsa, name).await? {
            Found { records: Records::Tlsa(records), secure: true, .. } => Ok(records),
            _ => Err(DnsFault::NotFound { name_exists: true }),
        }
    }

    /// True if the servers validate and are believed.
    pub fn trusts_ad(&self) -> bool {
        self.upstream.load().signed.is_some()
    }

    /// Names of `address` (reverse DNS).
    /// # Errors
    /// See [`DnsFault`].
    pub async fn ptr(&self, address: IpAddr) -> Result<Arc<[String]>, DnsFault> {
        match self.query(Kind::Ptr, &Name::from(address).to_string()).await? {
            Records::Names(names) => Ok(names),
            _ => Err(DnsFault::NotFound { name_exists: true }),
        }
    }

    /// TXT records of `name`, each with its strings joined.
    /// # Errors
    /// See [`DnsFault`].
    pub async fn txt(&self, name: &str) -> Result<Arc<[Box<[u8]>]>, DnsFault> {
        match self.query(Kind::Txt, name).await? {
            Records::Texts(texts) => Ok(texts),
            _ => Err(DnsFault::NotFound { name_exists: true }),
        }
    }

    /// Asks the cache, then the servers. `name` may have U-labels and a final dot.
    /// # Errors
    /// See [`DnsFault`].
    pub async fn query(&self, kind: Kind, name: &str) -> Result<Records, DnsFault> {
        self.find(kind, name).await.map(|found| found.records)
    }

    /// The same with what DNSSEC says of the answer.
    /// # Errors
    /// See [`DnsFault`].
    pub async fn find(&self, kind: Kind, name: &str) -> Result<Found, DnsFault> {
        let name = canonical(name)?;
        if let Some(known) = self.upstream.load().cache.lock().get(kind, &name, Instant::now()) {
            self.count("cached");
            return known;
        }
        // Boxed: the resolver's own future is large, and every check that asks would carry its size about, asked or not.
        Box::pin(self.fly(kind, name)).await
    }

    /// Asks the servers, once for all who ask the same.
    async fn fly(&self, kind: Kind, name: String) -> Result<Found, DnsFault> {
        let flight = Flight::join(&self.flights, (kind, name.clone()));
        flight.answer.get_or_init(|| self.resolve(kind, name)).await.clone()
    }

    /// Asks the servers and keeps the answer.
    async fn resolve(&self, kind: Kind, name: String) -> Result<Found, DnsFault> {
        // Raw labels, for a name that SPF macros made may hold any byte; complete, so that no search list is tried.
        let labels = name.split('.').map(str::as_bytes);
        let mut asked = Name::from_labels(labels).map_err(|_| DnsFault::NotFound { name_exists: false })?;
        asked.set_fqdn(true);
        let upstream = self.upstream.load_full();
        let answer = tokio::time::timeout(upstream.timeout, upstream.ask(kind, asked)).await;
        let cached = answer.unwrap_or_else(|_| trouble("no answer in time"));
        self.count(match &cached.result {
            Ok(_) => "found",
            Err(DnsFault::NotFound { .. }) => "not_found",
            Err(DnsFault::Temporary(_)) => "failed",
        });
        let result = cached.result.clone();
        upstream.cache.lock().put(kind, name, cached, Instant::now());
        result
    }

    fn count(&self, outcome: &str) {
        if let Some(meters) = &self.meters {
            meters.queries.with_label_values(&[outcome]).inc();
        }
    }
}

impl Upstream {
    async fn ask(&self, kind: Kind, asked: Name) -> Cached {
        let record_type = kind.record_type();
        if let Some(signed) = self.signed.as_ref().filter(|_| kind.guides_mail()) {
            return match signed.ask(asked.clone(), record_type).await {
                Err(error) => negative(&error),
                Ok(response) => {
                    let data = response.answers.iter().map(|record| (record.ttl, &record.data));
                    let canonical = canonical_name(&response, &asked).map(|name| host_name(&name).into());
                    positive(kind, data, response.metadata.authentic_data, canonical)
                }
            };
        }
        match self.inner.lookup(asked, record_type).await {
            Err(error) => negative(&error),
            Ok(lookup) => {
                let data = lookup.answers().iter().map(|record| (record.ttl, &record.data));
                positive(kind, data, false, None)
            }
        }
    }
}

/// Questions that are being asked.
type Flights = Mutex<HashMap<(Kind, String), Arc<OnceCell<Result<Found, DnsFault>>>, foldhash::fast::RandomState>>;

/// One's place among those who wait for the same answer. If the one who asks goes away, another of them asks.
struct Flight<'a> {
    all: &'a Flights,
    question: (Kind, String),
    answer: Arc<OnceCell<Result<Found, DnsFault>>>,
}

impl<'a> Flight<'a> {
    fn join(all: &'a Flights, question: (Kind, String)) -> Self {
        let answer = all.lock().entry(question.clone()).or_default().clone();
        Flight { all, question, answer }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        // Answered: whoever asks from now on looks into the cache. Two owners: the map and ourselves, the last who waited.
        let over = self.answer.initialized() || Arc::strong_count(&self.answer) == 2;
        if over && all.get(&self.question).is_some_and(|answer| Arc::ptr_eq(answer, &self.answer)) {
            all.remove(&self.question);
        }
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        *connection = ConnectionConfig::new(connection.protocol.clone());
        connection.port = address.port();
    }
    server
}

/// Lower case, A-labels, no final dot.
fn canonical(name: &str) -> Result<String, DnsFault> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_ascii() {
        return Ok(name.to_ascii_lowercase());
    }
    idna::domain_to_ascii(name).map_err(|_| DnsFault::NotFound { name_exists: false })
}

fn addresses(records: Records) -> Result<Arc<[IpAddr]>, DnsFault> {
    match records {
        Records::Addresses(addresses) => Ok(addresses),
        _ => Err(DnsFault::NotFound { name_exists: true }),
    }
}

fn trouble(why: &str) -> Cached {
    Cached { result: Err(DnsFault::Temporary(why.into())), ttl: Duration::ZERO }
}

fn negative(error: &NetError) -> Cached {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else {
        return trouble(&error.to_string());
    };
    let name_exists = match none.response_code {
        ResponseCode::NXDomain => false,
        ResponseCode::NoError => true,
        code => return trouble(&code.to_string()),
    };
    let ttl = none.negative_ttl.map_or(NEGATIVE_TTL, |secs| Duration::from_secs(secs.into()));
    Cached { result: Err(DnsFault::NotFound { name_exists }), ttl: ttl.min(NEGATIVE_TTL_MAX) }
}

/// Records of the wanted type; a CNAME chain's own records lend only their TTL.
fn positive<'a>(
    kind: Kind,
    data: impl Iterator<Item = (u32, &'a RData)>,
    secure: bool,
    canonical: Option<Arc<str>>,
) -> Cached {
    let mut ttl = TTL_MAX;
    let (mut ips, mut mx, mut names, mut texts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut tlsa: Vec<Tlsa> = Vec::new();
    for (secs, rdata) in data.take(RECORDS_MAX) {
        ttl = ttl.min(Duration::from_secs(secs.into()));
        match (kind, rdata) {
            (Kind::A, RData::A(a)) => ips.push(IpAddr::V4(a.0)),
            (Kind::Aaaa, RData::AAAA(aaaa)) => ips.push(IpAddr::V6(aaaa.0)),
            (Kind::Mx, RData::MX(record)) => {
                mx.push(Mx { preference: record.preference, host: host_name(&record.exchange) });
            }
            (Kind::Cname, RData::CNAME(target)) => names.push(host_name(&target.0)),
            (Kind::Ptr, RData::PTR(record)) => names.push(host_name(&record.0)),
            (Kind::Txt, RData::TXT(record)) => texts.push(record.txt_data.concat().into_boxed_slice()),
            (Kind::Tlsa, RData::TLSA(record)) => tlsa.push(record.into()),
            _ => {}
        }
    }
    mx.sort_by_key(|record| record.preference);
    let records = match kind {
        Kind::A | Kind::Aaaa if !ips.is_empty() => Records::Addresses(ips.into()),
        Kind::Mx if !mx.is_empty() => Records::Mx(mx.into()),
        Kind::Cname | Kind::Ptr if !names.is_empty() => Records::Names(names.into()),
        Kind::Txt if !texts.is_empty() => Records::Texts(texts.into()),
        Kind::Tlsa if !tlsa.is_empty() => Records::Tlsa(tlsa.into()),
        _ => return Cached { result: Err(DnsFault::NotFound { name_exists: true }), ttl: NEGATIVE_TTL },
    };
    Cached { result: Ok(Found { records, secure, canonical }), ttl }
}

fn host_name(name: &Name) -> String {
    let labels: Vec<_> = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    labels.join(".")
}
