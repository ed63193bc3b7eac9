//! MTA-STS: which policy of a domain holds now. I/O: DNS, HTTPS, and small files in `data_dir/mta-sts`.
//!
//! RFC 8461. The record's `id` says when to fetch; a policy that was fetched binds for its `max_age`, whatever becomes of record and
//! web server since (§3.1, §5.1). Trouble with either never costs mail: without a policy that holds, the domain counts as one
//! without MTA-STS. Policies that were used for half their time are fetched again.

pub mod fetch;
pub mod policy;
pub mod shelf;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::config::settings::Deliver;
use crate::deliver::meters::Meters;
use crate::deliver::tls_result::{AppliedPolicy, FailureType, PolicyType, TlsFailure};
use crate::deliver::transport::tls::ClientTls;
use crate::dns::{DnsFault, Resolver};
use policy::record_id;
use shelf::{Shelf, StsPolicy};

/// After a fetch that failed, the next one waits this long (RFC 8461 §3.3: "five minutes or longer").
const FETCH_PAUSE: Duration = Duration::from_secs(300);
/// Domains whose fetch failed lately that are remembered; when full, all are forgotten.
const FAILED_MAX: usize = 10_000;

/// What is known of a domain.
#[derive(Clone, Debug, Default)]
pub struct StsAnswer {
    /// The policy that holds, if one does.
    pub policy: Option<Arc<StsPolicy>>,
    /// What went wrong on the way, to be reported; a policy from the cache may hold all the same.
    pub failure: Option<TlsFailure>,
}

struct Failed {
    id: String,
    at: Instant,
    failure: TlsFailure,
}

/// Finds policies and keeps them.
pub struct Sts {
    resolver: Arc<Resolver>,
    tls: ClientTls,
    meters: Meters,
    shelf: Arc<Shelf>,
    failed: Mutex<HashMap<String, Failed>>,
    fetching: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Sts {
    /// Reads the policies kept in `directory`, which is made when the first one is kept.
    pub fn open(directory: &Path, resolver: Arc<Resolver>, tls: ClientTls, meters: Meters) -> Self {
        let shelf = Arc::new(Shelf::open(directory, SystemTime::now()));
        Sts { resolver, tls, meters, shelf, failed: Mutex::default(), fetching: Mutex::default() }
    }

    /// What holds for mail to `domain` (A-labels) now.
    pub async fn find(&self, settings: &Deliver, domain: &str) -> StsAnswer {
        let texts = self.resolver.txt(&format!("_mta-sts.{domain}")).await;
        let kept = self.shelf.get(domain, SystemTime::now());
        let id = match texts {
            Ok(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
                record_id(&texts)
            }
            Err(DnsFault::NotFound { .. } | DnsFault::Temporary(_)) => None,
        };
        match (id, kept) {
            (None, None) => StsAnswer::default(),
            (None, Some(kept)) => self.answered("kept", Some(kept), None),
            (Some(id), Some(kept)) if kept.id == id && !kept.is_half_over(SystemTime::now()) => {
                self.answered("cached", Some(kept), None)
            }
            (Some(id), kept) => self.renew(settings, domain, &id, kept).await,
        }
    }

    /// Fetches, once for all who wait for the same domain.
    async fn renew(&self, settings: &Deliver, domain: &str, id: &str, kept: Option<Arc<StsPolicy>>) -> StsAnswer {
        let turn = self.fetching.lock().entry(domain.to_owned()).or_default().clone();
        let held = turn.lock().await;
        let answer = match self.shelf.get(domain, SystemTime::now()) {
            Some(now) if kept.as_ref().is_none_or(|kept| now.fetched > kept.fetched) => {
                self.answered("cached", Some(now), None)
            }
            _ => match self.failed_lately(domain, id) {
                Some(failure) => self.answered("failed", kept, Some(failure)),
                None => self.fetch(settings, domain, id, kept).await,
            },
        };
        drop(held);
        // Two owners: the map and ourselves, the last who waited.
        let mut fetching = self.fetching.lock();
        if Arc::strong_count(&turn) == 2 {
            fetching.remove(domain);
        }
        answer
    }

    async fn fetch(&self, settings: &Deliver, domain: &str, id: &str, kept: Option<Arc<StsPolicy>>) -> StsAnswer {
        let fetched = fetch::fetch(&self.resolver, &self.tls, settings, domain).await;
        let parsed = fetched.and_then(|text| {
            let what = "what is served is no valid policy";
            StsPolicy::new(id, &text, SystemTime::now())
                .ok_or_else(|| TlsFailure::new(FailureType::StsPolicyInvalid, what))
        });
        match parsed {
            Ok(policy) => {
                let policy = Arc::new(policy);
                self.failed.lock().remove(domain);
                let (shelf, domain, put) = (self.shelf.clone(), domain.to_owned(), policy.clone());
                let kept = tokio::task::spawn_blocking(move || shelf.put(&domain, put, SystemTime::now())).await;
                if let Ok(Err(error)) = kept {
                    tracing::warn!(%error, "an MTA-STS policy can't be kept on disk");
                }
                self.answered("fetched", Some(policy), None)
            }
            Err(failure) => {
                tracing::info!(domain, %failure, kept = kept.is_some(), "no MTA-STS policy to be had");
                self.remember(domain, id, failure.clone());
                self.answered("failed", kept, Some(failure))
            }
        }
    }

    fn failed_lately(&self, domain: &str, id: &str) -> Option<TlsFailure> {
        let failed = self.failed.lock();
        let last = failed.get(domain).filter(|last| last.id == id && last.at.elapsed() < FETCH_PAUSE);
        last.map(|last| last.failure.clone())
    }

    fn remember(&self, domain: &str, id: &str, failure: TlsFailure) {
        let mut failed = self.failed.lock();
        if failed.len() >= FAILED_MAX {
            failed.clear();
        }
        failed.insert(domain.to_owned(), Failed { id: id.to_owned(), at: Instant::now(), failure });
    }

    fn answered(&self, outcome: &str, policy: Option<Arc<StsPolicy>>, failure: Option<TlsFailure>) -> StsAnswer {
        self.meters.mta_sts.with_label_values(&[outcome]).inc();
        StsAnswer { policy, failure }
    }
}

/// A policy as TLS-RPT tells of it.
pub fn applied(domain: &str, policy: Option<&StsPolicy>) -> AppliedPolicy {
    AppliedPolicy {
        kind: PolicyType::Sts,
        domain: domain.to_owned(),
        recipient_domain: domain.to_owned(),
        strings: policy.map_or_else(Vec::new, |policy| policy.lines.clone()),
        mx_patterns: policy.map_or_else(Vec::new, |policy| policy.policy.hosts.clone()),
    }
}
