//! The gateway as the admin API sees it. I/O: through the stages; what blocks leaves the runtime's own threads.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::backend::{AdminBackend, AdminFault, Answering};
use crate::admin::model::{
    Acted, Audited, Damaged, Filter, Lessons, QueueAction, QueueDetail, QueueEntry, RateEntry, RateUse, Reloaded,
    ReportFilter, ReportReceived, ReportSend, ReportWaiting, ReportsSent, RuleCost, Selection, Sentence, Stats, Taught,
    Verified,
};
use crate::base::audit::Audit;
use crate::base::unix;
use crate::filter::rules::cost::Cost;
use crate::policy::rates::Usage;
use crate::spool::Report;
use crate::spool::queue::ItemState;

use super::reports::{Sent, view as reports_view};
use super::shared::Shared;

/// Answers the admin API.
pub struct Backend {
    shared: Arc<Shared>,
}

impl Backend {
    /// For the gateway of `shared`.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Backend { shared }
    }

    /// Runs `work` where it may block.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, AdminFault> + Send + 'static,
    ) -> Answering<'_, T> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || work(&shared));
        Box::pin(async move {
            task.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a question of the admin API failed");
                Err(AdminFault::Unavailable("the question could not be answered; the log says why".to_owned()))
            })
        })
    }
}

impl AdminBackend for Backend {
    fn not_ready(&self) -> Option<String> {
        self.shared.not_ready()
    }

    fn queue_list(&self, filter: Filter, most: usize) -> Answering<'_, Vec<QueueEntry>> {
        self.blocking(move |shared| shared.queue_list(&filter, most))
    }

    fn queue_show(&self, id: String) -> Answering<'_, QueueDetail> {
        self.blocking(move |shared| shared.queue_show(&id))
    }

    fn queue_content(&self, id: String) -> Answering<'_, Vec<u8>> {
        self.blocking(move |shared| shared.queue_content(&id))
    }

    fn queue_why(&self, id: String) -> Answering<'_, Sentence> {
        self.blocking(move |shared| shared.queue_why(&id).map(|text| Sentence { text }))
    }

    fn queue_act(&self, action: QueueAction, selection: Selection, quarantine_only: bool) -> Answering<'_, Acted> {
        self.blocking(move |shared| shared.queue_act_and_tell(action, &selection, quarantine_only))
    }

    fn queue_verify(&self) -> Answering<'_, Verified> {
        self.blocking(|shared| match shared.spool.verify() {
            Ok(report) => Ok(verified(report)),
            Err(error) => Err(AdminFault::Unavailable(format!("the journal can't be read: {error}"))),
        })
    }

    fn audit(&self, from: Option<u64>, to: Option<u64>) -> Answering<'_, Audited> {
        self.blocking(move |shared| {
            let (from, to) = period(from, to, SystemTime::now());
            Ok(audited(from, to, shared.spool.audit(from, to)))
        })
    }

    fn stats(&self) -> Answering<'_, Stats> {
        self.blocking(|shared| Ok(stats(shared)))
    }

    fn config_summary(&self) -> Answering<'_, Sentence> {
        let text = self.shared.house.snapshot.load().config.summary();
        Box::pin(async { Ok(Sentence { text }) })
    }

    fn rate_list(&self, key: Option<String>, most: usize) -> Answering<'_, Vec<RateEntry>> {
        self.blocking(move |shared| {
            let used = shared.house.rates.load().list(key.as_deref(), most, SystemTime::now());
            Ok(used.into_iter().map(rate_entry).collect())
        })
    }

    fn rate_reset(&self, key: String) -> Answering<'_, Acted> {
        self.blocking(move |shared| {
            let count = shared.house.rates.load().reset(&key);
            tracing::info!(key = %key, count, "an operator reset rates");
            Ok(Acted { count: count as u64, taught: 0 })
        })
    }

    fn rule_costs(&self) -> Answering<'_, Vec<RuleCost>> {
        self.blocking(|shared| {
            let engine = shared.house.snapshot.load().checks.engine();
            let costs = engine.map(|engine| engine.rule_costs()).unwrap_or_default();
            let tried = costs.into_iter().filter(|(_, cost)| cost.tried > 0);
            let entry = |(rule, cost): (String, Cost)| RuleCost {
                rule,
                tried: cost.tried,
                hits: cost.hits,
                nanoseconds: cost.nanoseconds,
            };
            Ok(tried.map(entry).collect())
        })
    }

    fn learn(&self, lessons: Lessons) -> Answering<'_, Taught> {
        self.blocking(move |shared| shared.learn(&lessons))
    }

    fn reports_waiting(&self, most: usize) -> Answering<'_, Vec<ReportWaiting>> {
        self.blocking(move |shared| Ok(reports_view::waiting(&shared.house.reports, most)))
    }

    fn reports_send(&self, what: ReportSend) -> Answering<'_, ReportsSent> {
        // A task of its own: a client that goes away must not stop it between two domains.
        let house = self.shared.house.clone();
        let task = tokio::spawn(async move { house.send_reports(what.now).await });
        Box::pin(async move {
            let Sent { sent, failed, lines } =
                task.await.map_err(|error| AdminFault::Unavailable(error.to_string()))?;
            Ok(ReportsSent { sent, failed, lines })
        })
    }

    fn reports_received(&self, filter: ReportFilter, most: usize) -> Answering<'_, Vec<ReportReceived>> {
        self.blocking(move |shared| Ok(reports_view::received(&shared.house.reports, &filter, most)))
    }

    fn reload(&self) -> Answering<'_, Reloaded> {
        self.blocking(|shared| {
            Ok(match shared.reload() {
                Ok(text) => Reloaded { ok: true, text },
                Err(text) => Reloaded { ok: false, text },
            })
        })
    }

    fn pause_delivery(&self, paused: bool) -> Answering<'_, Sentence> {
        let delivery = &self.shared.delivery;
        if paused {
            delivery.pause()
        } else {
            delivery.resume()
        }
        tracing::info!(paused, "an operator paused or resumed delivery");
        let text = if paused { "delivery is paused; mail is accepted and kept" } else { "delivery goes on" };
        Box::pin(async move { Ok(Sentence { text: text.to_owned() }) })
    }
}

/// The period that `from` and `to` mean (seconds since 1970): all that the books know, unless they say less.
pub fn period(from: Option<u64>, to: Option<u64>, now: SystemTime) -> (SystemTime, SystemTime) {
    let at = |secs: u64| UNIX_EPOCH.checked_add(Duration::from_secs(secs)).unwrap_or(now);
    (from.map_or(UNIX_EPOCH, at), to.map_or(now, at).min(now))
}

/// The report of `queue verify` as the API says it.
pub fn verified(report: Report) -> Verified {
    let clean = report.is_clean();
    let damaged = |damage: &crate::spool::Damage| Damaged {
        segment: damage.segment.into(),
        offset: damage.offset,
        bytes: damage.bytes,
    };
    Verified {
        clean,
        records: report.records,
        messages: report.messages,
        damage: report.damage.iter().map(damaged).collect(),
        differences: report.differences,
        named: report.named.iter().map(ToString::to_string).collect(),
        books_agree: report.books_agree,
    }
}

/// The equation of a period as the API says it.
pub fn audited(from: SystemTime, to: SystemTime, audit: Audit) -> Audited {
    Audited { from: unix::secs(from), to: unix::secs(to), audit }
}

fn rate_entry(usage: Usage) -> RateEntry {
    let windows = usage.windows.iter().map(|(used, window)| RateUse {
        used: *used,
        limit: window.limit,
        period_secs: window.period.as_secs(),
    });
    RateEntry { rate: usage.rate, key: usage.key, windows: windows.collect() }
}

fn stats(shared: &Shared) -> Stats {
    let counts = shared.spool.counts();
    let mut stats: Stats = ItemState::ALL
        .iter()
        .map(|state| (format!("items_{}", state.name()), counts[*state as usize] as f64))
        .collect();
    let uptime = shared.started.elapsed().unwrap_or_default();
    stats.insert("uptime_seconds".to_owned(), uptime.as_secs() as f64);
    stats.insert("rate_keys".to_owned(), shared.house.rates.load().len() as f64);
    stats.insert("delivery_paused".to_owned(), f64::from(shared.delivery.is_paused()));
    stats
}
