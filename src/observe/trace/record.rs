//! One decision with all that it was made of, as a line of JSON. Pure.
//!
//! What a judgement needs is here or beside it, so that the same message can be judged again under other rules: the facts of
//! the session, the results of others, the classifier's opinion of that day.

use serde::{Deserialize, Serialize};

/// A line of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// A message's fate at the door.
    Decision(Box<Record>),
    /// What was done to it later.
    Event(Event),
}

/// The message that an entry is about.
impl Entry {
    /// Milliseconds since 1970.
    pub fn at(&self) -> u64 {
        match self {
            Entry::Decision(record) => record.at,
            Entry::Event(event) => event.at,
        }
    }
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since 1970.
    pub at: u64,
    /// Queue id.
    pub id: String,
    /// `released`, `dropped`, `taught ham`, `taught spam`.
    pub what: String,
}

/// Where a message came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Address.
    pub ip: std::net::IpAddr,
    /// Port.
    pub port: u16,
    /// What it said in EHLO.
    pub helo: String,
    /// Its verified name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// TLS version and cipher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// `ESMTP`, `ESMTPS` …
    pub protocol: String,
    /// The listener's name.
    pub listener: String,
}

/// One check, in the order in which they were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Time taken.
    pub micros: u64,
    /// What came of it.
    pub result: String,
}

/// One question to DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// `TXT example.org`
    pub question: String,
    /// What was answered.
    pub answer: String,
    /// Time until the answer; answers from the cache take next to none.
    pub micros: u64,
}

/// One symbol of the score sheet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Its name.
    pub name: String,
    /// What it adds.
    pub points: f64,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What made it so, and the rule's file and line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Counted beside the score.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// Who says so.
    pub judge: String,
    /// Who had found it, and what it was worth there, if a rule of its name took it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<(String, f64)>,
}

/// The recipients who share one decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parcel {
    /// Its queue id, if it was kept.
    pub id: String,
    /// Recipients.
    pub to: Vec<String>,
    /// The score, if it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Scores by action that were in force for these recipients, with the lines that set them; those that are off are left out.
    #[serde(default)]
    pub scores: Vec<(String, f64, String)>,
    /// Symbols of these recipients alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<Reason>,
    /// What the score asks for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// What was done: a word of [`crate::observe::outcome::Fate`].
    pub fate: String,
}

/// The decision in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    /// Why, in a word or a line.
    pub reason: String,
    /// What the client was told.
    pub reply: String,
    /// The setting that is responsible, with its line.
    pub setting: String,
}

/// A message's fate at the door.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Queue id: the reference of a refusal.
    pub id: String,
    /// Milliseconds since 1970.
    pub at: u64,
    /// What became of it: a word of [`crate::observe::outcome::Fate`], the most favourable of its parcels.
    pub fate: String,
    /// Where it came from.
    pub client: Client,
    /// Reverse-path; nothing for `<>`.
    pub from: Option<String>,
    /// All recipients.
    pub to: Vec<String>,
    /// The `Message-ID` field, brackets included.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message_id: String,
    /// Content in bytes.
    pub size: u64,
    /// From a login or a host that may relay.
    pub outbound: bool,
    /// From the last byte of content to the decision.
    pub micros: u64,
    /// The command that was refused (`connect`, `mail`, `rcpt`), or empty: a whole message was judged.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stage: String,
    /// In their order.
    pub checks: Vec<Check>,
    /// Questions to DNS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<Asked>,
    /// Symbols that all recipients share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<Reason>,
    /// The classifier's probability of spam.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f32>,
    /// Recipients by decision.
    pub parcels: Vec<Parcel>,
    /// The decision in words.
    pub decided: Decided,
    /// Where the bytes stand in the segment's file of contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<(u64, u64)>,
}

impl Record {
    /// True if the message, or one of its parcels, is the one with this id or `Message-ID`.
    pub fn is_called(&self, reference: &str) -> bool {
        let is = |id: &str| id.eq_ignore_ascii_case(reference);
        is(&self.id)
            || self.parcels.iter().any(|parcel| is(&parcel.id))
            || (!self.message_id.is_empty()
                && self.message_id.trim_matches(['<', '>']) == reference.trim_matches(['<', '>']))
    }

    /// True if the client was turned away before there was any content.
    pub fn is_of_door(&self) -> bool {
        !self.stage.is_empty()
    }

    /// The score sheet of one parcel.
    pub fn sheet<'a>(&'a self, parcel: &'a Parcel) -> impl Iterator<Item = &'a Reason> {
        self.symbols.iter().chain(&parcel.more)
    }
}
