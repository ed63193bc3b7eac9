//! The spool as its users hold it: opening, the queue's contract, closing. I/O: disk, two threads.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::committer::{Committer, Prepared, Work, release};
use super::hot::Reading;
use super::index::{Source, recover_with};
use super::journal::Journal;
use super::keeper::{Keeper, wants_free};
use super::meters::Meters;
use super::queue::{Done, DueDestination, FreshListener, Lease, MailQueue, NewMessage, Outcome, SpoolFault};
use super::recover::{Damage, Recovered};
use super::shared::{Options, Shared};
use super::storage::{Directory, Storage, StoredFile};
use crate::base::clock;
use crate::base::id::QueueId;
use crate::base::unix::{from_millis, millis};

/// How a start went.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Records read from the journal.
    pub records: u64,
    /// Messages in the queue.
    pub messages: u64,
    /// True if the index's checkpoint was believed, so that only the journal behind it was read.
    pub from_checkpoint: bool,
    /// What could not be read; a copy of each piece lies beside the segments.
    pub damage: Vec<Damage>,
    /// Recipients that the books know and the queue does not (or, negative, the other way round), because of damage.
    pub lost_recipients: i64,
    /// Seconds until ready.
    pub seconds: f64,
}

/// An open spool.
pub struct Spool {
    pub(super) shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    opening: Opening,
}

impl Spool {
    /// Opens the spool in `directory`, making it if need be; its index lies below.
    /// # Errors
    /// If another process has it, or the directory or a whole file can't be read. Damage inside is no error.
    pub fn open(directory: &Path, mut options: Options, meters: Meters) -> io::Result<Self> {
        let storage = Arc::new(Directory::open(directory)?);
        options.index.get_or_insert_with(|| directory.join("index"));
        Spool::open_in(storage, options, meters)
    }

    /// Opens the spool in any storage.
    /// # Errors
    /// See [`Spool::open`].
    pub fn open_in(storage: Arc<dyn Storage>, options: Options, meters: Meters) -> io::Result<Self> {
        let began = Instant::now();
        let (mut recovered, index) = recover_with(&*storage, options.index.as_deref(), false)?;
        let from_checkpoint = index.is_some();
        save_damaged(&*storage, &recovered);
        let now = millis(clock::now());
        let lost_recipients = recovered.state.reconcile(now);
        let index = Source::of(index, &options);
        recovered.state.indexed = index.is_some();
        recovered.state.table.start(now, options.delay_max);
        let opening = Opening {
            records: recovered.records,
            messages: recovered.state.table.len() as u64,
            from_checkpoint,
            damage: recovered.damage,
            lost_recipients,
            seconds: began.elapsed().as_secs_f64(),
        };
        let shared = Arc::new(Shared::new(storage.clone(), options, meters, recovered.state));
        shared.meters.recovery_seconds.set(opening.seconds);
        shared.meters.damaged.inc_by(opening.damage.len() as u64);
        sort_free_files(&shared, recovered.free)?;
        let segment_bytes = shared.options.segment_bytes;
        let journal = Journal::new(storage, segment_bytes, shared.free.clone(), recovered.next_generation);
        let spool = Spool { shared, committer: Mutex::default(), keeper: Mutex::default(), opening };
        spool.start_threads(journal, index)?;
        Ok(spool)
    }

    fn start_threads(&self, journal: Journal, index: Option<Source>) -> io::Result<()> {
        let committer = Committer::new(self.shared.clone(), journal);
        let keeper = Keeper::new(self.shared.clone(), index);
        let spawn = |name: &str| std::thread::Builder::new().name(name.into());
        *self.committer.lock() = Some(spawn("spool-commit").spawn(move || committer.run())?);
        *self.keeper.lock() = Some(spawn("spool-keep").spawn(move || keeper.run())?);
        self.shared.wake_keeper();
        Ok(())
    }

    /// How the start went.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// No item that was tried waits longer than this from now on, whatever its due time says.
    pub fn set_delay_max(&self, most: Duration) {
        self.shared.state.lock().table.set_delay_max(most);
    }

    /// True while both threads run. Without them nothing is answered any more, and only a new start helps.
    pub fn is_running(&self) -> bool {
        let runs = |thread: &Mutex<Option<JoinHandle<()>>>| thread.lock().as_ref().is_some_and(|t| !t.is_finished());
        runs(&self.committer) && runs(&self.keeper)
    }

    /// Writes what waits, brings the index up to date, and stops. What comes later is answered [`SpoolFault::Stopping`].
    pub fn close(&self) {
        self.shared.submissions.close();
        join(&self.committer);
        self.shared.orders.lock().stop = true;
        self.shared.keeper.notify_one();
        join(&self.keeper);
    }

    fn read_all(&self, readings: Vec<Reading>) -> Vec<Lease> {
        let mut leases = Vec::with_capacity(readings.len());
        for reading in readings {
            match reading.read() {
                Ok(lease) => leases.push(lease),
                Err(error) => self.damaged(&reading, &error),
            }
        }
        leases
    }

    /// A message that can't be read is held, so that it is neither delivered wrong nor tried for ever.
    fn damaged(&self, reading: &Reading, error: &io::Error) {
        tracing::error!(id = %QueueId(reading.id), %error, segment = reading.place.segment, "a queued message can't be read; held");
        self.shared.meters.damaged.inc();
        let outcome =
            |r: &super::queue::LeasedRecipient| (r.index, Outcome::Held { reason: format!("damaged: {error}") });
        let outcomes = reading.recipients.iter().map(outcome).collect();
        let work = Work::Finish {
            id: reading.id,
            destination: reading.destination.clone(),
            at_ms: millis(clock::now()),
            outcomes,
            generated: Vec::new(),
        };
        self.shared.submissions.submit(work, Box::new(|_| ()));
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.close();
    }
}

fn join(thread: &Mutex<Option<JoinHandle<()>>>) {
    if thread.lock().take().is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a thread of the spool panicked");
    }
}

/// Copies of damaged pieces kept at most; the journal itself keeps them until its segment goes.
const DAMAGED_FILES_MAX: usize = 1000;
const DAMAGED_PREFIX: &str = "damaged-";
/// Bytes copied of one piece.
const DAMAGED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Moves aside what can't be read, and says so.
fn save_damaged(storage: &dyn Storage, recovered: &Recovered) {
    let before = recovered.others.iter().filter(|name| name.starts_with(DAMAGED_PREFIX)).count();
    for damage in recovered.damage.iter().take(DAMAGED_FILES_MAX.saturating_sub(before)) {
        let Damage { segment, offset, bytes } = *damage;
        let name = format!("{DAMAGED_PREFIX}{segment:010}-{offset:010}");
        if recovered.others.contains(&name) {
            continue;
        }
        tracing::error!(segment, offset, bytes, file = name, "a piece of the journal is damaged; copied aside");
        let copied = copy_aside(storage, &recovered.state.segments.0[&segment].file, damage, &name);
        if let Err(error) = copied {
            tracing::error!(%error, file = name, "the damaged piece can't be copied aside");
        }
    }
}

fn copy_aside(storage: &dyn Storage, from: &Arc<dyn StoredFile>, damage: &Damage, name: &str) -> io::Result<()> {
    let mut bytes = vec![0; damage.bytes.min(DAMAGED_BYTES_MAX) as usize];
    let read = from.read_at(damage.offset, &mut bytes)?;
    let file = storage.create(name)?;
    file.write_at(0, &mut [io::IoSlice::new(&bytes[..read])])?;
    file.sync()?;
    storage.sync_dir()
}

/// Free files of another size, or more than are wanted, go.
fn sort_free_files(shared: &Shared, names: Vec<String>) -> io::Result<()> {
    let mut free = shared.free.lock();
    for name in names {
        let fits = shared.storage.open(&name)?.size()? == shared.options.segment_bytes;
        if fits && wants_free(shared, &free) {
            free.keep(name);
        } else {
            shared.storage.remove(&name)?;
        }
    }
    Ok(())
}

impl MailQueue for Spool {
    fn next_id(&self) -> QueueId {
        self.shared.ids.next(clock::now())
    }

    fn accept(&self, message: NewMessage, done: Done) {
        if self.shared.is_full() {
            return done(Err(SpoolFault::Full));
        }
        debug_assert_eq!(
            message.envelope.recipients.len(),
            message.destinations.len(),
            "each recipient has a destination"
        );
        // Whatever looked at it is through, and it may wait here with many others.
        message.content.release();
        self.shared.submissions.submit(Work::Accept(Box::new(Prepared::new(message))), done);
    }

    fn due(&self, now: SystemTime, most: usize) -> Vec<DueDestination> {
        let mut state = self.shared.state.lock();
        state.table.advance(millis(now));
        let schedule = &state.table.schedule;
        let listed = schedule.due().take(most);
        listed
            .map(|(number, due, since)| DueDestination {
                destination: schedule.name(number),
                due: due as usize,
                oldest_due: from_millis(since),
            })
            .collect()
    }

    fn next_due(&self) -> Option<SystemTime> {
        let state = self.shared.state.lock();
        state.table.schedule.next_due(millis(clock::now())).map(from_millis)
    }

    fn lease(&self, destination: &str, now: SystemTime, most: usize) -> Vec<Lease> {
        let readings: Vec<Reading> = {
            let mut state = self.shared.state.lock();
            state.table.advance(millis(now));
            let leased = state.table.lease(destination, most);
            leased.into_iter().filter_map(|number| Reading::new(&state, number)).collect()
        };
        self.read_all(readings)
    }

    fn lease_older_than(&self, accepted_before: SystemTime, null_sender_only: bool, most: usize) -> Vec<Lease> {
        let readings: Vec<Reading> = {
            let mut state = self.shared.state.lock();
            let found = state.table.older_than(millis(accepted_before) << 20, null_sender_only, most);
            found.iter().for_each(|number| state.table.lend(*number));
            found.into_iter().filter_map(|number| Reading::new(&state, number)).collect()
        };
        self.read_all(readings)
    }

    fn finish(&self, lease: Lease, outcomes: Vec<(u32, Outcome)>, generated: Vec<NewMessage>, done: Done) {
        let work = Work::Finish {
            id: lease.id.0,
            destination: lease.destination,
            at_ms: millis(clock::now()),
            outcomes,
            generated: generated.into_iter().map(Prepared::new).collect(),
        };
        self.shared.submissions.submit(work, done);
    }

    fn release(&self, lease: Lease) {
        release(&mut self.shared.state.lock(), lease.id.0, &lease.destination);
    }

    fn postpone(&self, destination: &str, until: SystemTime, why: &str) {
        let mut state = self.shared.state.lock();
        if let Some(number) = state.table.schedule.number(destination) {
            state.table.schedule.postpone(number, millis(until), why);
        }
    }

    fn on_fresh(&self, hear: FreshListener) {
        *self.shared.listener.lock() = Some(hear);
    }
}
