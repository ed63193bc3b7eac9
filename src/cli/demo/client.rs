//! The client that sends the samples: MX look-up, EHLO, STARTTLS with a certificate that verifies, AUTH, then the message. I/O: DNS, TCP.
//!
//! It is the machine that delivers Weir's own mail, turned towards Weir; it uses what the gateway offers. Half of the
//! messages go by DATA although CHUNKING is offered, so that both ways are walked.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::samples::{DOMAIN, PASSWORD, Sample, Way};
use super::world::{HOST, World};
use crate::base::content::Content;
use crate::base::id::QueueId;
use crate::base::secret::Secret;
use crate::config::Config;
use crate::config::settings::{DeliverTls, Login, NextHop};
use crate::deliver::held::Held;
use crate::deliver::meters::Meters;
use crate::deliver::transport::open::Opener;
use crate::deliver::transport::smtp::{End, Feed, Run};
use crate::deliver::transport::tls::ClientTls;
use crate::deliver::transport::{Answer, Fate, Job};
use crate::dns::Resolver;
use crate::spool::queue::{Lease, LeasedRecipient};
use crate::wire::address::Mailbox;
use crate::wire::envelope::{Envelope, Origin, Recipient};

/// What the client calls itself.
const HELLO: &str = "client.example";
/// One conversation on loopback takes milliseconds.
const CONVERSATION_MAX: Duration = Duration::from_secs(60);

/// What the gateway answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The message is the gateway's, under this id.
    Accepted(QueueId),
    /// It is not, and never will be: code and the whole reply.
    Refused(u16, String),
    /// Neither for all recipients alike, or the conversation failed.
    Unclear(String),
}

/// One conversation.
pub struct Sent {
    /// The answer, the same for all recipients.
    pub reply: Reply,
    /// The content went by BDAT.
    pub chunked: bool,
    /// Under TLS with the certificate verified.
    pub encrypted: bool,
    /// When it began.
    pub began: Instant,
}

/// The client.
pub struct Client {
    config: Config,
    opener: Opener,
    submission_port: u16,
    enforced_port: u16,
}

impl Client {
    /// A client that finds `world` by its DNS and believes its certificate only.
    /// # Errors
    /// When there is no resolver.
    pub fn new(world: &World) -> Result<Self, String> {
        let mut config = world.config.clone();
        config.hostname = HELLO.to_owned();
        config.deliver.port = world.address("mx").port();
        let meters = Meters::register(&prometheus::Registry::new()).map_err(|error| error.to_string())?;
        let resolver = Arc::new(Resolver::new(&config.dns)?);
        let opener = Opener::new(resolver, ClientTls::with_roots(Ok(world.roots.clone())), meters);
        let [submission_port, enforced_port] = ["submission", "enforced"].map(|name| world.address(name).port());
        Ok(Client { config, opener, submission_port, enforced_port })
    }

    /// The same for another listener of the gateway.
    pub fn towards(mut self, port: u16) -> Self {
        self.config.deliver.port = port;
        self
    }

    /// Sends one message over a connection of its own; `may_chunk`: by BDAT if the server offers it.
    pub async fn send(&self, sample: &Sample, may_chunk: bool) -> Sent {
        let began = Instant::now();
        let mut sent = Sent { reply: Reply::Unclear(String::new()), chunked: false, encrypted: false, began };
        let answers = timeout(CONVERSATION_MAX, self.converse(sample, may_chunk, &mut sent)).await;
        sent.reply = match answers {
            Ok(Ok(answers)) => reply_of(&answers),
            Ok(Err(why)) => Reply::Unclear(why),
            Err(_) => Reply::Unclear("the conversation took too long".to_owned()),
        };
        sent
    }

    async fn converse(&self, sample: &Sample, may_chunk: bool, sent: &mut Sent) -> Result<Vec<Answer>, String> {
        let job = Job::new(Held::loose(lease(sample)?));
        let opened = self.opener.open(&self.config, &self.hop(sample.way), DOMAIN, DeliverTls::Required.into()).await;
        let mut connection = opened.map_err(|answer| answer.line())?;
        connection.offers.chunking &= may_chunk;
        (sent.chunked, sent.encrypted) = (connection.offers.chunking, connection.encrypted);
        let mut feed = Once(None);
        let end = Run::new(&mut connection, &self.config.deliver, &mut feed, job).to_end().await;
        connection.quit().await;
        match (feed.0, end) {
            (Some(job), _) => Ok(job.answers.into_iter().flatten().collect()),
            (None, End::Broken { answer, .. }) => Err(answer.line()),
            (None, _) => Err("the conversation ended without an answer".to_owned()),
        }
    }

    fn hop(&self, way: Way) -> NextHop {
        let login = |user: &str| Login { user: user.to_owned(), password: Secret::new(PASSWORD) };
        let (port, login) = match way {
            Way::Mx => return NextHop::Mx,
            Way::Enforced | Way::Forwarded => (self.enforced_port, None),
            Way::Submission(user) => (self.submission_port, Some(login(user))),
        };
        NextHop::Smtp { host: HOST.to_owned(), port, implicit_tls: false, login, tls: None }
    }
}

/// Holds the one job once it is done.
struct Once(Option<Job>);

impl Feed for Once {
    fn next(&mut self) -> Option<Job> {
        None
    }

    fn done(&mut self, job: Job) {
        self.0 = Some(job);
    }
}

fn lease(sample: &Sample) -> Result<Lease, String> {
    let mailbox = |text: &str| Mailbox::parse(text, true).map_err(|error| format!("{text}: {error:?}"));
    let recipients = sample.to.iter().map(|to| mailbox(to).map(Recipient::plain)).collect::<Result<Vec<_>, _>>()?;
    let leased = |index| LeasedRecipient { index, attempts: 0, delay_notified: false };
    let now = SystemTime::now();
    Ok(Lease {
        id: QueueId(0),
        recipients: (0..recipients.len() as u32).map(leased).collect(),
        envelope: Arc::new(Envelope {
            smtputf8: !sample.from.unwrap_or_default().is_ascii() || sample.to.iter().any(|to| !to.is_ascii()),
            ..Envelope::plain(Origin::local(""), sample.from.map(mailbox).transpose()?, recipients)
        }),
        destination: DOMAIN.into(),
        accepted: now,
        prefix: Arc::new([]),
        content: Content::from_bytes(sample.content.as_slice()),
    })
}

fn reply_of(answers: &[Answer]) -> Reply {
    let is_all = |fate| !answers.is_empty() && answers.iter().all(|answer| answer.fate == fate);
    let first = answers.first().map_or("", |answer| &answer.text);
    let refused = is_all(Fate::Failed) && answers.iter().all(|answer| answer.is_reply);
    let id = first.rsplit(' ').next().and_then(|word| word.parse().ok());
    match (id, first.get(..3).and_then(|code| code.parse().ok())) {
        (Some(id), _) if is_all(Fate::Delivered) => Reply::Accepted(id),
        (_, Some(code)) if refused => Reply::Refused(code, first.to_owned()),
        _ => {
            let texts: Vec<&str> = answers.iter().map(|answer| &*answer.text).collect();
            Reply::Unclear(texts.join("; "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::reply::Enhanced;

    #[test]
    fn a_reply_counts_only_if_it_is_the_same_for_all() {
        let said = |fate, text: &str| Answer { is_reply: true, ..Answer::local(fate, Enhanced(2, 0, 0), text) };
        let taken = said(Fate::Delivered, "250 2.0.0 Ok: queued as 0000000000001");
        let refused = said(Fate::Failed, "550 5.1.1 No such user here");
        let id = "0000000000001".parse().unwrap();
        assert_eq!(reply_of(&[taken.clone(), taken.clone()]), Reply::Accepted(id));
        assert_eq!(reply_of(std::slice::from_ref(&refused)), Reply::Refused(550, "550 5.1.1 No such user here".into()));
        assert!(matches!(reply_of(&[taken, refused]), Reply::Unclear(_)));
        assert!(matches!(reply_of(&[said(Fate::Delivered, "250 ok")]), Reply::Unclear(_)));
        assert!(matches!(reply_of(&[Answer::local(Fate::Failed, Enhanced(5, 0, 0), "553 ours")]), Reply::Unclear(_)));
    }
}
