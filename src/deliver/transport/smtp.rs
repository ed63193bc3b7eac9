//! Sends messages over one SMTP or LMTP connection until none is left. I/O: the connection's.
//!
//! With PIPELINING one round trip a message: the content of one travels with MAIL, RCPT and DATA of the next. Invariant: each
//! job ends answered in full at the [`Feed`], or comes back untouched in [`End::Broken`]; a job whose content was under way
//! when the connection broke is deferred, never assumed delivered.

use std::collections::VecDeque;
use std::time::Instant;

use super::connection::{Connection, WireFault};
use super::form::Form;
use super::{Answer, Fate, Job};
use crate::base::content::Content;
use crate::config::settings::Deliver;
use crate::smtp::client::content::{DataPieces, data_end};
use crate::smtp::client::plan::{Plan, Tail};
use crate::smtp::client::transaction::{Progress, Transaction, Verdict};
use crate::wire::downgrade::Piece;
use crate::wire::reply::{Enhanced, Reply};

/// Bytes of content in a file that are resident at most while they are sent.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Where jobs come from and go to.
pub trait Feed: Send {
    /// The next job for this connection, if one is there without waiting.
    fn next(&mut self) -> Option<Job>;
    /// All recipients of `job` have an answer.
    fn done(&mut self, job: Job);
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// Nothing left to send; the connection may be used again.
    Dry,
    /// The connection has carried as many messages as it may.
    Full,
    /// The connection broke.
    Broken {
        /// What happened.
        answer: Answer,
        /// Jobs that the server never began with: to be sent over another connection at once.
        untouched: Vec<Job>,
        /// It had worked before: a server that closed an idle or long-used connection, not one that is down.
        was_in_use: bool,
    },
}

/// A job whose transaction has begun.
struct Begun {
    job: Job,
    positions: Vec<usize>,
    transaction: Transaction,
    /// The content in other bytes, if the server does not take those it has.
    converted: Option<Vec<Piece>>,
}

/// Why a conversation can't go on.
enum Stop {
    Wire(WireFault),
    /// 421.
    Closing(String),
}

/// One run over one connection.
pub struct Run<'a, F> {
    connection: &'a mut Connection,
    settings: &'a Deliver,
    feed: &'a mut F,
    /// Jobs with recipients left over from a transaction.
    again: VecDeque<Job>,
}

impl<'a, F: Feed> Run<'a, F> {
    /// A run that begins with `first`.
    pub fn new(connection: &'a mut Connection, settings: &'a Deliver, feed: &'a mut F, first: Job) -> Self {
        Run { connection, settings, feed, again: [first].into() }
    }

    /// Sends until the feed is dry or the connection is of no more use.
    pub async fn to_end(mut self) -> End {
        let mut begun: Option<Begun> = None;
        loop {
            let current = match begun.take().or_else(|| self.begin_next()) {
                Some(current) => current,
                None => return self.ended(),
            };
            match self.send(current).await {
                Ok(next) => begun = next,
                Err(end) => return *end,
            }
        }
    }

    fn ended(&mut self) -> End {
        self.connection.used = Instant::now();
        if self.is_full() { End::Full } else { End::Dry }
    }

    fn is_full(&self) -> bool {
        self.connection.transactions >= self.settings.messages_per_connection
    }

    /// Begins the next transaction; its head is in the connection's buffer, not flushed.
    fn begin_next(&mut self) -> Option<Begun> {
        while !self.is_full() {
            let job = self.again.pop_front().or_else(|| self.feed.next())?;
            match self.begin(job) {
                Ok(begun) => return Some(begun),
                Err(refused) => self.feed.done(*refused),
            }
        }
        None
    }

    /// `Err` gives the job back with all answers: it does not fit this server.
    fn begin(&mut self, mut job: Job) -> Result<Begun, Box<Job>> {
        let body = job.lease.envelope.body;
        let form = match Form::of(&job.lease.content, body, &self.connection.offers, self.settings.eight_bit) {
            Ok(form) => form,
            Err(unfit) => return Err(unfit_for(job, &unfit, &self.connection.peer)),
        };
        let Form { converted, needs, offers, .. } = form;
        let bytes = job.lease.prefix.len() as u64 + form.bytes;
        if !offers.smtputf8 {
            refuse_utf8(&mut job, &self.connection.peer);
        }
        let most = self.settings.recipients_per_transaction.min(offers.recipients_max.unwrap_or(usize::MAX)).max(1);
        let positions: Vec<usize> = job.waiting.iter().copied().take(most).collect();
        if positions.is_empty() {
            return Err(Box::new(job));
        }
        let envelope = &job.lease.envelope;
        let recipients = || positions.iter().map(|position| job.recipient(*position));
        let plan = Plan::new(envelope, recipients(), needs, bytes, &offers, self.connection.link());
        let plan = match plan {
            Ok(plan) => plan,
            Err(unfit) => return Err(unfit_for(job, &unfit, &self.connection.peer)),
        };
        let reset = std::mem::take(&mut self.connection.reset_due);
        let protocol = self.connection.protocol;
        let out = &mut self.connection.out;
        let transaction = Transaction::begin(protocol, &offers, &plan, envelope, recipients(), reset, out);
        Ok(Begun { job, positions, transaction, converted })
    }

    /// Takes one transaction to its end; gives the one begun behind it, if any.
    async fn send(&mut self, mut current: Begun) -> Result<Option<Begun>, Box<End>> {
        let progress = match self.converse(&mut current).await {
            Ok(progress) => progress,
            Err(stop) => return Err(self.broken(stop, current, None)),
        };
        let (tail, mut next) = match progress {
            Progress::Content(tail) => (tail, None),
            Progress::Done { reset } => {
                self.settle(current, reset, None);
                return Ok(None);
            }
            Progress::Await => unreachable!("converse() goes on while replies are awaited"),
        };
        if let Err(fault) = self.put_tail(&current, tail).await {
            return Err(self.broken(Stop::Wire(fault), current, None));
        }
        self.connection.transactions += 1;
        if self.connection.offers.pipelining {
            next = self.begin_next();
        }
        match self.converse(&mut current).await {
            Ok(_) => {
                self.settle(current, false, None);
                Ok(next)
            }
            Err(stop) => Err(self.broken(stop, current, next)),
        }
    }

    /// Flushes, and reads replies until the transaction wants something else.
    async fn converse(&mut self, current: &mut Begun) -> Result<Progress, Stop> {
        let settings = self.settings;
        loop {
            if !self.connection.out.is_empty() {
                self.connection.flush(settings.command_timeout).await.map_err(Stop::Wire)?;
            }
            let wait = match () {
                () if current.transaction.awaits_content_reply() => settings.final_dot_timeout,
                () if current.transaction.awaits_data_reply() => settings.data_timeout,
                () => settings.command_timeout,
            };
            let reply = self.connection.reply(wait).await.map_err(Stop::Wire)?;
            let closing = (reply.code == 421).then(|| reply.one_line());
            if let Some(said) = &closing
                && current.transaction.is_untouched()
                && self.connection.transactions > 0
            {
                return Err(Stop::Closing(said.clone()));
            }
            let progress = current.transaction.handle_reply(reply, &mut self.connection.out);
            if let Some(said) = closing {
                return Err(Stop::Closing(said));
            }
            if progress != Progress::Await {
                return Ok(progress);
            }
        }
    }

    async fn put_tail(&mut self, current: &Begun, tail: Tail) -> Result<(), WireFault> {
        let (job, wait) = (&current.job, self.settings.command_timeout);
        let (prefix, content) = (&job.lease.prefix, &job.lease.content);
        match tail {
            Tail::LoneDot => self.connection.put(b".\r\n", wait).await,
            Tail::Bdat => {
                let head = format!("BDAT {} LAST\r\n", prefix.len() + content.len());
                self.connection.put(head.as_bytes(), wait).await?;
                self.connection.put(prefix, wait).await?;
                self.put_content(content, std::iter::once(&content[..])).await
            }
            Tail::Data { repair } => {
                for piece in DataPieces::new(prefix, false) {
                    self.connection.put(piece, wait).await?;
                }
                if let Some(pieces) = &current.converted {
                    return self.put_converted(content, pieces, repair).await;
                }
                self.put_content(content, DataPieces::new(content, repair)).await?;
                self.connection.put(data_end(content, repair), wait).await
            }
        }
    }

    /// Block by block, each from the start of a line.
    async fn put_converted(&mut self, content: &Content, pieces: &[Piece], repair: bool) -> Result<(), WireFault> {
        let (mut end, mut since_release) = (data_end(b"", repair), 0);
        for piece in pieces {
            for block in piece.blocks(content).filter(|block| !block.is_empty()) {
                self.put_content(content, DataPieces::new(&block, repair)).await?;
                end = data_end(&block, repair);
                since_release += block.len();
                if since_release >= WINDOW_BYTES {
                    content.release();
                    since_release = 0;
                }
            }
        }
        self.connection.put(end, self.settings.command_timeout).await
    }

    /// Large content stays resident only for the window that is being sent: next hops may be slow and many.
    async fn put_content<'c>(
        &mut self,
        content: &Content,
        pieces: impl Iterator<Item = &'c [u8]>,
    ) -> Result<(), WireFault> {
        let mut since_release = 0;
        for piece in pieces {
            if piece.len() > WINDOW_BYTES {
                content.release(); // finding the piece's end has read all of it
            }
            for window in piece.chunks(WINDOW_BYTES) {
                self.connection.put(window, self.settings.command_timeout).await?;
                since_release += window.len();
                if since_release >= WINDOW_BYTES {
                    content.release();
                    since_release = 0;
                }
            }
        }
        Ok(())
    }

    /// Turns verdicts into answers; recipients without a verdict get `broken`.
    fn settle(&mut self, current: Begun, reset: bool, broken: Option<&Answer>) {
        self.connection.reset_due |= reset;
        let Begun { mut job, positions, transaction, .. } = current;
        let verdicts = transaction.into_verdicts();
        for (position, verdict) in positions.into_iter().zip(verdicts) {
            let reports = self.connection.offers.dsn;
            match verdict {
                Some(Verdict::Accepted(reply) | Verdict::Refused(reply)) => {
                    let answer = Answer::from_reply(&reply, &self.connection.peer, reports);
                    job.answer(position, Answer { tls: self.connection.tls, ..answer });
                }
                Some(Verdict::NextTransaction) => {}
                None => job.answer(position, broken.expect("a finished transaction has all verdicts").clone()),
            }
        }
        if let Some(answer) = broken {
            job.answer_rest(answer);
        }
        if job.waiting.is_empty() { self.feed.done(job) } else { self.again.push_back(job) }
    }

    fn broken(&mut self, stop: Stop, current: Begun, next: Option<Begun>) -> Box<End> {
        let was_in_use = self.connection.transactions > 0;
        let (text, is_reply) = match stop {
            Stop::Wire(fault) if current.transaction.awaits_content_reply() => {
                (format!("{fault}, after the whole message was sent"), false)
            }
            Stop::Wire(fault) => (fault.to_string(), false),
            Stop::Closing(said) => (said, true),
        };
        let remote = Some(self.connection.peer.clone());
        let answer = Answer { remote, is_reply, ..Answer::local(Fate::Deferred, Enhanced(4, 4, 2), text) };
        let mut untouched: Vec<Job> = next.into_iter().map(|begun| begun.job).collect();
        untouched.extend(self.again.drain(..));
        if was_in_use && current.transaction.is_untouched() {
            untouched.push(current.job);
        } else {
            self.settle(current, false, Some(&answer));
        }
        Box::new(End::Broken { answer, untouched, was_in_use })
    }
}

/// The job with the answer that it can't go to this server.
fn unfit_for(mut job: Job, unfit: &Reply, peer: &std::sync::Arc<str>) -> Box<Job> {
    job.answer_rest(&Answer::unfit(unfit, peer));
    Box::new(job)
}

/// Recipients whose addresses a server without SMTPUTF8 can't be told (RFC 6531 §3.2); the others may still go.
fn refuse_utf8(job: &mut Job, peer: &std::sync::Arc<str>) {
    let refused =
        Reply::fixed(553, Enhanced(5, 6, 7), "The next hop does not take internationalized addresses (SMTPUTF8)");
    let answer = Answer::unfit(&refused, peer);
    for position in job.waiting.clone() {
        if !job.recipient(position).mailbox.as_str().is_ascii() {
            job.answer(position, answer.clone());
        }
    }
}
