//! Our filter for other mail servers: as a milter, as spamd, as Rspamd's `/checkv2`. I/O: their listeners, through [`listen`].
//!
//! A message comes in by one of three protocols, is judged by whoever implements [`Judge`] (the same core as the gateway's own
//! mail), and the judgement goes back in the words of that protocol. Nothing is kept here. Off unless configured; only the
//! configured networks are let in; connections, sizes and silence are bounded.

pub mod listen;
pub mod meters;
pub mod milter;
pub mod rspamd;
pub mod spamd;

use std::net::IpAddr;
use std::pin::Pin;

use crate::base::content::{Content, ContentSource};
use crate::config::scanners::Service;
use crate::wire::checkv2::{self, Symbol};
use crate::wire::reply::Reply;

/// A message to be judged, and all that its server said of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What its server speaks: `milter`, `spamd` or `checkv2`.
    pub protocol: &'static str,
    /// The client's address; nothing if the protocol did not say.
    pub ip: Option<IpAddr>,
    /// The client's port.
    pub port: u16,
    /// The client's name, as its server found it.
    pub host: Option<String>,
    /// HELO.
    pub helo: String,
    /// The login.
    pub login: Option<String>,
    /// MAIL FROM without brackets; empty for the null reverse-path.
    pub sender: String,
    /// RCPT TO without brackets.
    pub recipients: Vec<String>,
    /// The message.
    pub content: Content,
}

impl Case {
    /// A case of which only the content is known.
    pub fn of(protocol: &'static str, content: Content) -> Self {
        Case {
            protocol,
            ip: None,
            port: 0,
            host: None,
            helo: String::new(),
            login: None,
            sender: String::new(),
            recipients: Vec::new(),
            content,
        }
    }
}

/// What is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Deliver it, marked perhaps.
    Deliver,
    /// Take it and throw it away.
    Discard,
    /// Keep it back, with the reason.
    Quarantine(String),
    /// Refuse it.
    Refuse(Reply),
}

/// A judgement.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Its reference in our log.
    pub id: String,
    /// What is to become of it.
    pub fate: Fate,
    /// Sum of the symbols.
    pub score: f64,
    /// The score from which it is marked as spam.
    pub tag: f64,
    /// The score from which it is refused.
    pub reject: f64,
    /// It is spam.
    pub spam: bool,
    /// All reasons.
    pub symbols: Vec<Symbol>,
    /// Header fields for the top of the message, each with its line end.
    pub fields: Vec<u8>,
    /// Fields of the message that only we may assert: name, and which of that name, from 1.
    pub forged: Vec<(String, u32)>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl Judgement {
    /// In Rspamd's words.
    pub fn to_checkv2(&self) -> checkv2::Judgement {
        let (action, message) = match &self.fate {
            Fate::Deliver if self.spam => ("add header", None),
            Fate::Deliver => ("no action", None),
            Fate::Discard => ("discard", None),
            Fate::Quarantine(_) => ("quarantine", None),
            Fate::Refuse(reply) if reply.is_permanent() => ("reject", Some(reply)),
            Fate::Refuse(reply) => ("soft reject", Some(reply)),
        };
        let finite = [("add header", self.tag), ("reject", self.reject)].into_iter().filter(|row| row.1.is_finite());
        checkv2::Judgement {
            action: action.to_owned(),
            score: self.score,
            required_score: if self.reject.is_finite() { self.reject } else { self.tag },
            thresholds: finite.collect(),
            symbols: self.symbols.clone(),
            smtp_message: message.map(|reply| reply.text.to_string()),
            add_headers: split_fields(&self.fields),
            remove_headers: self.forged.iter().map(|(name, _)| name.clone()).collect(),
            message_id: self.id.clone(),
            seconds: self.seconds,
        }
    }
}

/// Names and values of fields, unfolded lines kept as they are but for their last end.
fn split_fields(fields: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    crate::wire::header::fields(fields).map(|field| (text(field.name), text(field.value))).collect()
}

/// A future of the judge.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who judges.
pub trait Judge: Send + Sync + 'static {
    /// `[service]` as it is in force now.
    fn settings(&self) -> Service;

    /// Where content grows.
    fn content(&self) -> ContentSource;

    /// Judges one message; nothing if too many are under way.
    fn judge(&self, case: Case) -> Answer<'_, Option<Judgement>>;

    /// Teaches the classifier; false if it can't learn now.
    fn learn(&self, content: Content, spam: bool) -> Answer<'_, bool>;
}
