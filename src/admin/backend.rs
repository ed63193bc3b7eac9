//! What the API can ask of the gateway. Pure: the contract; the conductor implements it.

use std::future::Future;
use std::pin::Pin;

use super::model::{
    Acted, Audited, Filter, Lessons, QueueAction, QueueDetail, QueueEntry, RateEntry, Reloaded, ReportFilter,
    ReportReceived, ReportSend, ReportWaiting, ReportsSent, RuleCost, Selection, Sentence, Stats, Taught, Verified,
};

/// Why the gateway said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminFault {
    /// 404: there is no such message.
    NotFound(String),
    /// 409: not in this state.
    Conflict(String),
    /// 503: not now.
    Unavailable(String),
}

/// An answer that may take a while.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, AdminFault>> + Send + 'a>>;

/// The gateway, as the API sees it. Lists answer at most `most` entries, oldest first.
pub trait AdminBackend: Send + Sync + 'static {
    /// Nothing if mail is accepted; else why not.
    fn not_ready(&self) -> Option<String>;
    /// Messages of the queue, held and quarantined ones too.
    fn queue_list(&self, filter: Filter, most: usize) -> Answering<'_, Vec<QueueEntry>>;
    /// One message.
    fn queue_show(&self, id: String) -> Answering<'_, QueueDetail>;
    /// A message's bytes.
    fn queue_content(&self, id: String) -> Answering<'_, Vec<u8>>;
    /// What a message waits for, the last reply, the next attempt.
    fn queue_why(&self, id: String) -> Answering<'_, Sentence>;
    /// Acts on messages. With `quarantine_only`, messages in other states are left alone.
    fn queue_act(&self, action: QueueAction, selection: Selection, quarantine_only: bool) -> Answering<'_, Acted>;
    /// Compares memory with the journal.
    fn queue_verify(&self) -> Answering<'_, Verified>;
    /// The books from one time to another (seconds since 1970); all that they know, if not said.
    fn audit(&self, from: Option<u64>, to: Option<u64>) -> Answering<'_, Audited>;
    /// Numbers for people; machines scrape /metrics.
    fn stats(&self) -> Answering<'_, Stats>;
    /// What the configuration in force means; no secrets.
    fn config_summary(&self) -> Answering<'_, Sentence>;
    /// Keys that rates count, fullest first; only those that `key` names, if given.
    fn rate_list(&self, key: Option<String>, most: usize) -> Answering<'_, Vec<RateEntry>>;
    /// Forgets what is counted for `key`.
    fn rate_reset(&self, key: String) -> Answering<'_, Acted>;
    /// What each rule of the filter has cost since it was loaded; rules that were never tried are left out.
    fn rule_costs(&self) -> Answering<'_, Vec<RuleCost>>;
    /// Teaches the classifier.
    fn learn(&self, lessons: Lessons) -> Answering<'_, Taught>;
    /// What is collected for reports of ours.
    fn reports_waiting(&self, most: usize) -> Answering<'_, Vec<ReportWaiting>>;
    /// Sends the reports that are due, or all.
    fn reports_send(&self, what: ReportSend) -> Answering<'_, ReportsSent>;
    /// Reports that others sent us.
    fn reports_received(&self, filter: ReportFilter, most: usize) -> Answering<'_, Vec<ReportReceived>>;
    /// Reads the configuration again. A bad one leaves the old one in force and is no fault but an answer.
    fn reload(&self) -> Answering<'_, Reloaded>;
    /// Stops or resumes delivery; accepting goes on.
    fn pause_delivery(&self, paused: bool) -> Answering<'_, Sentence>;
}
