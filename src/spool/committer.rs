//! The committer: one thread that turns whatever waits into one write and one sync, then answers all. I/O: disk.
//!
//! It never waits for company: a lone job is committed at once, and what arrives during a sync is the next batch.
//! Fails loudly: a failed batch poisons its segment, clients get 4xx, outcomes are kept and written again elsewhere.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::batch::{Batch, NewRecord};
use super::codec::Writer;
use super::hot;
use super::journal::Journal;
use super::ledger::Account;
use super::message;
use super::payload::{self, Act, ActSet, Attempt, Discarded};
use super::queue::{Disposition, Done, ItemState, NewMessage, Outcome, SpoolFault};
use super::record::Kind;
use super::shared::Shared;
use super::state::State;
use super::table::{Change, Fate, Message, Place, clip};
use crate::base::content::Content;
use crate::base::unix::millis;

/// Messages that may wait for the committer; beyond that the answer is `451 4.3.2`. 100 connections fill one tenth.
const SUBMISSIONS_MAX: usize = 1024;
/// Bytes of one batch, so that a heap of large messages does not hold up the small ones' answers for long.
const BATCH_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// After a failure, how long until outcomes are tried again by themselves.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// A message that was made ready for the journal by the one who submits it.
pub(super) struct Prepared {
    message: NewMessage,
    meta: Vec<u8>,
    meta_crc: u32,
}

impl Prepared {
    /// Codes and sums up, on the submitter's thread.
    pub(super) fn new(message: NewMessage) -> Self {
        if let Disposition::Discard(reason) = &message.disposition {
            let mut meta = Vec::new();
            let recipients = message.envelope.recipients.len() as u64;
            let discarded = Discarded { id: message.id.0, at_ms: message.id.0 >> 20, recipients, reason: clip(reason) };
            payload::write_discarded(&mut Writer(&mut meta), &discarded);
            let meta_crc = crc32c::crc32c(&meta);
            return Prepared { message, meta, meta_crc };
        }
        let meta = message::write_accepted(&message);
        let meta_crc = crc32c::crc32c(&meta);
        Prepared { message, meta, meta_crc }
    }

    fn record(&self) -> NewRecord<'_> {
        let discard = matches!(self.message.disposition, Disposition::Discard(_));
        let (kind, content) = match discard {
            true => (Kind::Discarded, None),
            false => (Kind::Accepted, Some(&self.message.content)),
        };
        NewRecord { kind, meta: &self.meta, meta_crc: self.meta_crc, content, more: false }
    }
}

/// A copy of a message on its way into the present segment.
pub(super) struct Copied {
    pub(super) id: u64,
    pub(super) from: Place,
    pub(super) meta: Vec<u8>,
    pub(super) content: Content,
}

/// What the committer is asked to do.
pub(super) enum Work {
    Accept(Box<Prepared>),
    Finish {
        id: u64,
        destination: Arc<str>,
        at_ms: u64,
        outcomes: Vec<(u32, Outcome)>,
        generated: Vec<Prepared>,
    },
    Act {
        act: Act,
        at_ms: u64,
        set: ActSet,
    },
    Copy(Box<Copied>),
    /// Say the state of a message again, if its state stands in this segment or an act there touched it.
    Restate(u64),
    Dead(payload::Dead),
}

pub(super) struct Job {
    work: Work,
    done: Option<Done>,
}

impl Job {
    fn answer(&mut self, result: Result<(), SpoolFault>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }

    /// Outcomes and generated messages must not be lost with a failed batch: the remote has the message already.
    fn is_owed(&self) -> bool {
        matches!(self.work, Work::Finish { .. })
    }
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// The committer sleeps and must be woken.
    asleep: bool,
    closing: bool,
}

/// The bounded queue to the committer.
#[derive(Default)]
pub(super) struct Submissions {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Submissions {
    /// Hands in `work`; what can't be taken is answered at once.
    pub(super) fn submit(&self, work: Work, done: Done) {
        let mut waiting = self.waiting.lock();
        let refused = match (&work, waiting.closing) {
            (_, true) => Some(SpoolFault::Stopping),
            (Work::Accept(_), _) if waiting.jobs.len() >= SUBMISSIONS_MAX => Some(SpoolFault::Busy),
            _ => None,
        };
        if let Some(fault) = refused {
            drop(waiting);
            return done(Err(fault));
        }
        waiting.jobs.push_back(Job { work, done: Some(done) });
        if std::mem::take(&mut waiting.asleep) {
            drop(waiting);
            self.wake.notify_one();
        }
    }

    /// No more is taken; the committer ends when it has written what waits.
    pub(super) fn close(&self) {
        self.waiting.lock().closing = true;
        self.wake.notify_one();
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.lock().jobs.len()
    }

    /// Moves all that waits into `pending`; sleeps only if both are empty, or for a pause if `tired`. False at the end.
    fn take(&self, pending: &mut VecDeque<Job>, tired: bool) -> bool {
        let mut waiting = self.waiting.lock();
        if tired && waiting.jobs.is_empty() && !waiting.closing {
            waiting.asleep = true;
            self.wake.wait_for(&mut waiting, RETRY_PAUSE);
        }
        while pending.is_empty() && waiting.jobs.is_empty() && !waiting.closing {
            waiting.asleep = true;
            self.wake.wait(&mut waiting);
        }
        waiting.asleep = false;
        pending.append(&mut waiting.jobs);
        !(pending.is_empty() && waiting.closing)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.waiting.lock().closing
    }
}

enum Encoded {
    Yes,
    /// Nothing to write: it is done already.
    Void,
    NoRoom(u64),
}

/// The committer's own things.
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) journal: Journal,
    pending: VecDeque<Job>,
    batch: Batch,
    jobs: Vec<Job>,
    /// Messages whose state was said again in this batch.
    restated: HashSet<u64>,
    /// Messages that an act in this batch touches: their state is not to be said again before it is applied.
    acted: HashSet<u64>,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, journal: Journal) -> Self {
        Committer {
            shared,
            journal,
            pending: VecDeque::new(),
            batch: Batch::default(),
            jobs: Vec::new(),
            restated: HashSet::new(),
            acted: HashSet::new(),
        }
    }

    /// Runs until the submissions are closed and written.
    pub(super) fn run(mut self) {
        let mut tired = false;
        while self.shared.submissions.take(&mut self.pending, tired) {
            tired = self.commit().is_err();
            if tired && self.shared.submissions.is_closing() {
                self.give_up();
            }
        }
        self.journal.seal(&self.shared.state);
    }

    /// The disk does not take it and we must go: whoever waits hears so; the items come back after the restart.
    fn give_up(&mut self) {
        for mut job in self.pending.drain(..) {
            job.answer(Err(SpoolFault::Stopping));
        }
    }

    /// One batch.
    fn commit(&mut self) -> io::Result<()> {
        if !self.journal.is_open() {
            self.roll(0)?;
        }
        self.journal.begin(&mut self.batch);
        self.restated.clear();
        self.acted.clear();
        let mut voided = Vec::new();
        let mut need = None;
        while let Some(job) = self.pending.pop_front() {
            match self.encode(&job.work) {
                Encoded::Yes => self.jobs.push(job),
                Encoded::Void => voided.push(job),
                Encoded::NoRoom(bytes) => {
                    self.pending.push_front(job);
                    need = Some(bytes);
                    break;
                }
            }
            if self.batch.bytes >= BATCH_BYTES_MAX {
                break;
            }
        }
        voided.into_iter().for_each(|mut job| self.void(&mut job));
        match (self.jobs.is_empty(), need) {
            (true, Some(need)) => self.roll(need),
            (true, None) => Ok(()),
            (false, _) => self.write(),
        }
    }

    fn void(&mut self, job: &mut Job) {
        if let Work::Finish { id, destination, .. } = &job.work {
            release(&mut self.shared.state.lock(), *id, destination);
        }
        job.answer(Ok(()));
    }

    fn roll(&mut self, need: u64) -> io::Result<()> {
        let rolled = self.journal.roll(need, &self.shared.state);
        self.shared.wake_keeper();
        if let Err(error) = &rolled {
            tracing::error!(%error, "no new journal segment can be begun");
            self.shared.meters.write_failures.inc();
            let all = std::mem::take(&mut self.pending);
            self.fail(all.into(), error);
        }
        rolled
    }

    fn write(&mut self) -> io::Result<()> {
        let began = Instant::now();
        let written = self.journal.write(&self.batch, &self.shared.state);
        let meters = &self.shared.meters;
        meters.sync_seconds.observe(began.elapsed().as_secs_f64());
        meters.batch_records.observe(self.batch.records.len() as f64);
        meters.written_bytes.inc_by(self.batch.bytes);
        match &written {
            Ok(()) => self.succeed(),
            Err(error) => {
                tracing::error!(%error, segment = self.batch.segment, "the journal's write failed; segment poisoned");
                self.shared.meters.write_failures.inc();
                // The next head must say that the failed batch does not count before its clients hear 4xx and try again.
                let _ = self.journal.roll(0, &self.shared.state).inspect_err(|error| {
                    tracing::error!(%error, "no new journal segment can be begun");
                });
                let failed = std::mem::take(&mut self.jobs);
                self.fail(failed, error);
            }
        }
        written
    }

    /// Answers `jobs` with the error; what is owed waits for the next batch.
    fn fail(&mut self, jobs: Vec<Job>, error: &io::Error) {
        let fault = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => SpoolFault::Full,
            _ => SpoolFault::Failed(error.to_string().into()),
        };
        self.shared.set_failing(Some(fault.clone()));
        for mut job in jobs.into_iter().rev() {
            job.answer(Err(fault.clone()));
            if job.is_owed() {
                self.pending.push_front(job);
            } else if let Work::Act { act: Act::Drop, set, .. } = &job.work {
                let mut state = self.shared.state.lock();
                set.iter().flat_map(|(d, ids)| ids.iter().map(move |id| (d, id))).for_each(|(destination, id)| {
                    release(&mut state, *id, destination);
                });
            }
        }
    }

    /// The batch is durable: memory follows, then all hear of it.
    fn succeed(&mut self) {
        self.shared.set_failing(None);
        let listener = self.shared.listener.lock().clone();
        let mut jobs = std::mem::take(&mut self.jobs);
        let mut fresh = Vec::new();
        {
            let mut state = self.shared.state.lock();
            for record in &self.batch.records {
                let applied = state.apply(record.kind, self.batch.meta(record), record.place, listener.is_some());
                debug_assert!(applied.is_ok(), "we wrote it, so it can be read");
            }
            state.segments.set_bytes(self.batch.segment, self.batch.start + self.batch.bytes as u32);
            for job in &jobs {
                match &job.work {
                    Work::Accept(prepared) if listener.is_some() => hot::lend(&state, &prepared.message, &mut fresh),
                    Work::Finish { id, destination, generated, .. } => {
                        release(&mut state, *id, destination);
                        if listener.is_some() {
                            generated.iter().for_each(|p| hot::lend(&state, &p.message, &mut fresh));
                        }
                    }
                    _ => {}
                }
            }
            self.shared.count(&state);
        }
        jobs.iter_mut().for_each(|job| job.answer(Ok(())));
        jobs.clear();
        self.jobs = jobs;
        if let Some(listener) = listener {
            hot::offer(&self.shared, &listener, fresh);
        }
    }

    fn encode(&mut self, work: &Work) -> Encoded {
        match work {
            Work::Accept(prepared) => self.push_one(&prepared.record()),
            Work::Finish { id, destination, at_ms, outcomes, generated } => {
                self.encode_finish(*id, destination, *at_ms, outcomes, generated)
            }
            Work::Act { act, at_ms, set } => self.encode_act(act, *at_ms, set),
            Work::Copy(copied) => self.encode_copy(copied),
            Work::Restate(id) => self.encode_restate(*id),
            Work::Dead(dead) => {
                let mut meta = Vec::new();
                payload::write_dead(&mut Writer(&mut meta), dead);
                self.push_one(&NewRecord::plain(Kind::Dead, &meta))
            }
        }
    }

    fn push_one(&mut self, record: &NewRecord) -> Encoded {
        if self.batch.push(record) { Encoded::Yes } else { Encoded::NoRoom(record.bytes()) }
    }

    /// All of `records` as one group, or none.
    fn push_group(&mut self, records: &[NewRecord]) -> Encoded {
        let mark = self.batch.mark();
        for record in records {
            if !self.batch.push(record) {
                self.batch.back_to(&mark);
                return Encoded::NoRoom(records.iter().map(NewRecord::bytes).sum());
            }
        }
        Encoded::Yes
    }

    /// True if records of this batch change the message: its state is not known before they are applied.
    fn is_in_motion(&self, id: u64) -> bool {
        self.restated.contains(&id) || self.acted.contains(&id)
    }

    fn encode_act(&mut self, act: &Act, at_ms: u64, set: &ActSet) -> Encoded {
        let (dropped, ended) = match act {
            Act::Drop => dropped_by(&self.shared.state.lock(), set),
            _ => (0, Vec::new()),
        };
        let mut meta = Vec::new();
        payload::write_act(&mut Writer(&mut meta), act, at_ms, dropped, set);
        let mut dead = Vec::new();
        payload::write_dead(&mut Writer(&mut dead), &payload::Dead { ids: ended, bodies: Vec::new() });
        self.acted.extend(set.iter().flat_map(|(_, ids)| ids));
        match act {
            Act::Drop => self.push_group(&[
                NewRecord::plain(Kind::Admin, &meta).with_more(true),
                NewRecord::plain(Kind::Dead, &dead),
            ]),
            _ => self.push_one(&NewRecord::plain(Kind::Admin, &meta)),
        }
    }

    fn encode_restate(&mut self, id: u64) -> Encoded {
        if self.is_in_motion(id) {
            return Encoded::NoRoom(0);
        }
        let Some(meta) = self.shared.state.lock().state_record(id) else { return Encoded::Void };
        self.restated.insert(id);
        self.push_one(&NewRecord::plain(Kind::State, &meta))
    }

    fn encode_copy(&mut self, copied: &Copied) -> Encoded {
        if self.is_in_motion(copied.id) {
            return Encoded::NoRoom(0);
        }
        let state = self.shared.state.lock();
        if state.table.find(copied.id).map(Message::place) != Some(copied.from) {
            return Encoded::Void;
        }
        let said = state.state_record(copied.id).unwrap_or_default();
        drop(state);
        self.restated.insert(copied.id);
        let meta_crc = crc32c::crc32c(&copied.meta);
        let body =
            NewRecord { kind: Kind::Moved, meta: &copied.meta, meta_crc, content: Some(&copied.content), more: true };
        self.push_group(&[body, NewRecord::plain(Kind::State, &said)])
    }

    fn encode_finish(
        &mut self,
        id: u64,
        destination: &str,
        at_ms: u64,
        outcomes: &[(u32, Outcome)],
        generated: &[Prepared],
    ) -> Encoded {
        let state = self.shared.state.lock();
        let Some(plan) = plan_finish(&state, id, destination, outcomes) else {
            drop(state);
            let mut group: Vec<_> = generated.iter().map(|p| p.record().with_more(true)).collect();
            let Some(last) = group.last_mut() else { return Encoded::Void };
            last.more = false;
            return self.push_group(&group);
        };
        let segment = self.batch.segment;
        let message = state.table.find(id).expect("plan_finish found it");
        let body = message.body_segment;
        let elsewhere = message.state_segment != 0 && message.state_segment != segment;
        let said = (elsewhere && !plan.ends).then(|| state.state_record(id)).flatten();
        drop(state);
        if said.is_some() && self.acted.contains(&id) {
            return Encoded::NoRoom(0);
        }
        let said = said.filter(|_| !self.restated.contains(&id));
        let mut meta = Vec::new();
        payload::write_attempt(
            &mut Writer(&mut meta),
            &Attempt { id, at_ms, body, ends: plan.ends, changes: plan.changes },
        );
        let mut group: Vec<_> = generated.iter().map(|p| p.record().with_more(true)).collect();
        group.extend(said.as_ref().map(|said| NewRecord::plain(Kind::State, said).with_more(true)));
        group.push(NewRecord::plain(Kind::Attempt, &meta));
        let encoded = self.push_group(&group);
        if matches!(encoded, Encoded::Yes) {
            self.restated.insert(id);
        }
        encoded
    }
}

struct FinishPlan<'a> {
    changes: Vec<(Change<'a>, Option<Account>)>,
    /// The message ends with it.
    ends: bool,
}

/// What `outcomes` mean for the item; `None` if there is nothing to say of it.
fn plan_finish<'a>(
    state: &State,
    id: u64,
    destination: &str,
    outcomes: &'a [(u32, Outcome)],
) -> Option<FinishPlan<'a>> {
    let number = state.table.item_at(id, destination)?;
    let item = state.table.item(number);
    let mut changes = Vec::with_capacity(outcomes.len());
    for (index, outcome) in outcomes {
        let Some(recipient) = item.recipients().iter().find(|r| r.index == *index) else { continue };
        let (fate, account, note) = judge(outcome);
        changes.push((
            Change { index: *index, attempts: recipient.attempts.saturating_add(1), fate, note: clip(note) },
            account,
        ));
    }
    changes.sort_by_key(|(change, _)| change.index);
    changes.dedup_by_key(|(change, _)| change.index);
    let alone = state.table.items_of(state.table.message(item.message)).count() == 1;
    let ends = alone
        && changes.len() == item.recipients().len()
        && changes.iter().all(|(change, _)| change.fate == Fate::Ended);
    (!changes.is_empty()).then_some(FinishPlan { changes, ends })
}

fn judge(outcome: &Outcome) -> (Fate, Option<Account>, &str) {
    match outcome {
        Outcome::Delivered { .. } => (Fate::Ended, Some(Account::Delivered), ""),
        Outcome::Bounced { remote } => (Fate::Ended, Some(Account::Bounced), remote),
        Outcome::Expired { remote } => (Fate::Ended, Some(Account::Expired), remote),
        Outcome::Discarded => (Fate::Ended, Some(Account::Discarded), ""),
        Outcome::Held { reason } => (Fate::Held, None, reason),
        Outcome::Deferred { remote, next, delay_notified } => {
            (Fate::Deferred { next: millis(*next), notified: *delay_notified }, None, remote)
        }
    }
}

/// An item that is still leased waits again.
pub(super) fn release(state: &mut State, id: u64, destination: &str) {
    if let Some(number) = state.table.item_at(id, destination)
        && state.table.item(number).state == ItemState::Leased
    {
        state.table.settle(number);
    }
}

/// How many recipients a drop of `set` ends, and which messages. The latter are said on their own, because a reader
/// may miss that their other items ended before.
fn dropped_by(state: &State, set: &ActSet) -> (u64, Vec<u64>) {
    let mut recipients = 0;
    let mut items: BTreeMap<u64, usize> = BTreeMap::new();
    for (destination, ids) in set {
        for id in ids {
            let Some(number) = state.table.item_at(*id, destination) else { continue };
            recipients += state.table.item(number).recipients().len() as u64;
            *items.entry(*id).or_default() += 1;
        }
    }
    let is_all = |(id, count): &(u64, usize)| {
        state.table.find(*id).is_some_and(|message| state.table.items_of(message).count() == *count)
    };
    (recipients, items.into_iter().filter(is_all).map(|(id, _)| id).collect())
}
