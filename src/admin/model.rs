//! What the API says and is told, as JSON. Pure values, shared by the server and the command line.
//!
//! Times are whole seconds since 1970 (UTC), sizes bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::audit::Audit;
use crate::base::report::Summary;

/// Where a message or one of its recipients stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Due now.
    Due,
    /// Waits for its next attempt.
    Deferred,
    /// Lent to a delivery worker.
    Active,
    /// Held for an operator.
    Held,
    /// In quarantine.
    Quarantined,
}

impl State {
    /// The words of `--state` and `state=`.
    pub const WORDS: [(&str, State); 5] = [
        ("due", State::Due),
        ("deferred", State::Deferred),
        ("active", State::Active),
        ("held", State::Held),
        ("quarantined", State::Quarantined),
    ];

    /// The word.
    pub fn as_str(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, state)| *state == self)
            .map(|(word, _)| *word)
            .expect("the table names every state")
    }
}

/// Which messages are meant; what is not set does not restrict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Only in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Only with an item for this destination (a domain, or a next hop's URL).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Only from this reverse-path, or `@domain`; `<>` is the null reverse-path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// Only to this recipient, or `@domain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// Only accepted at least this many seconds ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_secs: Option<u64>,
}

impl Filter {
    /// True if an address is one that `wanted` means: the address, or any at its `@domain`. Case does not matter.
    pub fn address_matches(wanted: &str, address: &str) -> bool {
        let (wanted, address) = (wanted.to_lowercase(), address.to_lowercase());
        match wanted.strip_prefix('@') {
            Some(domain) => address.rsplit_once('@').is_some_and(|(_, own)| own == domain),
            None => wanted == address || (wanted == "<>" && address.is_empty()),
        }
    }
}

/// What an action is for: these ids, or everything that the filter means. An empty selection is an error, never "all".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Queue ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Everything that matches; `{}` is everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Teach the classifier what these messages are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teach: Option<Lesson>,
}

/// What a message is, as an operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lesson {
    /// Wanted mail.
    Ham,
    /// Unwanted mail.
    Spam,
}

/// What to do with messages of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueAction {
    /// Due at once.
    Retry,
    /// Not delivered until released.
    Hold,
    /// From hold or quarantine into delivery.
    Release,
    /// Thrown away, without a bounce.
    Drop,
}

impl QueueAction {
    /// The words of the command line and the paths.
    pub const WORDS: [(&str, QueueAction); 4] = [
        ("retry", QueueAction::Retry),
        ("hold", QueueAction::Hold),
        ("release", QueueAction::Release),
        ("drop", QueueAction::Drop),
    ];
}

/// One message of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its id.
    pub id: String,
    /// The state of its most urgent recipient.
    pub state: State,
    /// Reverse-path; empty for `<>`.
    pub sender: String,
    /// Recipients that still wait.
    pub recipients: u32,
    /// Content in bytes.
    pub size: u64,
    /// When it was accepted.
    pub accepted: u64,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<u64>,
    /// Where to, or the first of several.
    pub destination: String,
    /// Why it waits, is held or in quarantine.
    #[serde(default)]
    pub reason: String,
}

/// One recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecipientEntry {
    /// The mailbox.
    pub address: String,
    /// Its destination.
    pub destination: String,
    /// A state's word, or `done` for one that is delivered or returned; the log says which.
    pub state: String,
    /// Attempts so far.
    pub attempts: u32,
    /// The last that a remote or the network said.
    #[serde(default)]
    pub last_reply: String,
    /// When it is tried next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt: Option<u64>,
}

/// All that is known of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueDetail {
    /// As in a list.
    pub message: QueueEntry,
    /// The client's address.
    pub client: String,
    /// What it said in HELO.
    pub helo: String,
    /// Its login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The listener that took it.
    pub listener: String,
    /// The verdict's line.
    pub verdict: String,
    /// Its recipients.
    pub recipients: Vec<RecipientEntry>,
}

/// `queue why`, and other answers in a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sentence {
    /// The sentence.
    pub text: String,
}

/// `GET /v1/queue/verify`: does the journal say what memory (or, of a stopped spool, the index) says?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// True if nothing is wrong.
    pub clean: bool,
    /// Records read and checked.
    pub records: u64,
    /// Messages in the queue, by the journal.
    pub messages: u64,
    /// Pieces of the journal that can't be read.
    pub damage: Vec<Damaged>,
    /// Messages that the two sides know differently.
    pub differences: u64,
    /// The first of these.
    pub named: Vec<String>,
    /// True if the books (see [`Audited`]) agree as well.
    pub books_agree: bool,
}

/// A piece of the journal that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// Its segment.
    pub segment: u64,
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
}

/// `GET /v1/audit`: the equation for the hours of a period, in recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// From the hour of this time.
    pub from: u64,
    /// To the end of the hour of this time.
    pub to: u64,
    /// What the books say of it.
    #[serde(flatten)]
    pub audit: Audit,
}

/// `POST /v1/learn`: messages, and what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lessons {
    /// What all of them are.
    pub kind: Lesson,
    /// Each in base64 (RFC 4648 §4).
    pub messages: Vec<String>,
}

/// What came of lessons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taught {
    /// Messages learned now.
    pub count: u64,
    /// Ham that the classifier knows.
    pub ham: u64,
    /// Spam that it knows.
    pub spam: u64,
}

/// How many were acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// Items of the queue (a message at one destination is one), or keys.
    pub count: u64,
    /// Messages that the classifier learned.
    #[serde(default)]
    pub taught: u64,
}

/// One key of a rate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateEntry {
    /// The rate.
    pub rate: String,
    /// The key.
    pub key: String,
    /// Its windows.
    pub windows: Vec<RateUse>,
}

/// One window of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateUse {
    /// Counted in the window.
    pub used: u64,
    /// The limit.
    pub limit: u64,
    /// The period in seconds.
    pub period_secs: u64,
}

/// `POST /v1/rates/reset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateReset {
    /// A key, a fact (`login=alice`) or a fact's value.
    pub key: String,
}

/// What a rule has cost since it was loaded (`GET /v1/rules`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCost {
    /// Its name.
    pub rule: String,
    /// Times that its expression or function was run.
    pub tried: u64,
    /// Messages that it hit.
    pub hits: u64,
    /// Time of those runs, reckoned from the timed ones.
    pub nanoseconds: u64,
}

/// What waits for a report of ours (`GET /v1/reports/waiting`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportWaiting {
    /// `aggregate` or `tls`.
    pub kind: String,
    /// The policy's domain.
    pub domain: String,
    /// Since when it is collected.
    pub begin: u64,
    /// Different rows.
    pub rows: u64,
    /// Messages or sessions.
    pub count: u64,
}

/// `POST /v1/reports/send`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportSend {
    /// Today's rows too.
    pub now: bool,
}

/// What sending came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsSent {
    /// Reports on their way, one a destination.
    pub sent: u64,
    /// Those that are not.
    pub failed: u64,
    /// A line for each domain.
    pub lines: Vec<String>,
}

/// Which reports of others are asked for (`GET /v1/reports/received`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportFilter {
    /// About this domain or below it.
    pub domain: Option<String>,
    /// That came since then.
    pub since: u64,
}

/// A report that others sent us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportReceived {
    /// When it came.
    pub at: u64,
    /// DMARC's word for the message that brought it; empty if it was not asked.
    pub dmarc: String,
    /// What it says.
    #[serde(flatten)]
    pub summary: Summary,
}

/// `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// True if the new configuration is in force.
    pub ok: bool,
    /// What is wrong with it, or what needs a restart.
    #[serde(default)]
    pub text: String,
}

/// Numbers by name, in order.
pub type Stats = BTreeMap<String, f64>;

/// Any refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub error: String,
}
