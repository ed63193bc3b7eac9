//! A queue in memory, a store that knows nobody, and settings for tests.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use weir::base::content::Content;
use weir::base::id::{IdSource, QueueId};
use weir::config::Config;
use weir::deliver::route::Routes;
use weir::deliver::transport::{LocalStore, StoreFault};
use weir::spool::queue::*;
use weir::wire::address::Mailbox;
use weir::wire::envelope::{Envelope, Origin, Recipient};

struct Item {
    lease: Lease,
    due: SystemTime,
    leased: bool,
}

#[derive(Default)]
struct Inner {
    items: Vec<Item>,
    outcomes: Vec<(QueueId, Outcome)>,
    reports: Vec<NewMessage>,
}

pub struct MemoryQueue {
    ids: IdSource,
    routes: Routes,
    inner: Mutex<Inner>,
    listener: Mutex<Option<FreshListener>>,
    /// Ids run out: whoever asks for one panics.
    pub broken_ids: AtomicBool,
}

impl MemoryQueue {
    pub fn new(config: &Config) -> Arc<Self> {
        Arc::new(MemoryQueue {
            ids: IdSource::default(),
            routes: Routes::new(config),
            inner: Mutex::default(),
            listener: Mutex::default(),
            broken_ids: AtomicBool::new(false),
        })
    }

    /// As if all mail had been accepted so long ago, and were due.
    pub fn age(&self, by: Duration) {
        for item in &mut self.inner.lock().unwrap().items {
            item.lease.accepted -= by;
            item.due = SystemTime::now();
        }
    }

    pub fn waiting(&self) -> usize {
        self.inner.lock().unwrap().items.len()
    }

    pub fn submit(&self, mut message: NewMessage) {
        message.id = self.next_id();
        let of = |recipient: &Recipient| self.routes.destination(&recipient.mailbox);
        message.destinations = message.envelope.recipients.iter().map(of).collect();
        self.accept(message, Box::new(|_| ()));
    }

    pub fn outcomes(&self) -> Vec<(QueueId, Outcome)> {
        self.inner.lock().unwrap().outcomes.clone()
    }

    pub fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.inner.lock().unwrap().outcomes.iter().filter(|(_, outcome)| wanted(outcome)).count()
    }

    pub fn reports(&self) -> Vec<NewMessage> {
        self.inner.lock().unwrap().reports.clone()
    }

    pub fn destination(&self, recipient: &str) -> Arc<str> {
        self.routes.destination(&Mailbox::parse(recipient, true).unwrap())
    }

    pub fn leased(&self) -> usize {
        self.inner.lock().unwrap().items.iter().filter(|item| item.leased).count()
    }

    fn take(inner: &mut Inner, most: usize, wanted: impl Fn(&Item) -> bool) -> Vec<Lease> {
        let found = inner.items.iter_mut().filter(|item| !item.leased && wanted(item)).take(most);
        found
            .map(|item| {
                item.leased = true;
                item.lease.clone()
            })
            .collect()
    }
}

impl MailQueue for MemoryQueue {
    fn next_id(&self) -> QueueId {
        assert!(!self.broken_ids.load(Ordering::Relaxed), "a fault put in by the test");
        self.ids.next(SystemTime::now())
    }

    fn accept(&self, message: NewMessage, done: Done) {
        let mut by_destination: HashMap<Arc<str>, Vec<LeasedRecipient>> = HashMap::new();
        for (index, destination) in message.destinations.iter().enumerate() {
            let recipient = LeasedRecipient { index: index as u32, attempts: 0, delay_notified: false };
            by_destination.entry(destination.clone()).or_default().push(recipient);
        }
        for (destination, recipients) in by_destination {
            let lease = Lease {
                id: message.id,
                envelope: message.envelope.clone(),
                destination,
                recipients,
                accepted: SystemTime::now(),
                prefix: message.prefix.clone(),
                content: message.content.clone(),
            };
            let item = Item { lease: lease.clone(), due: SystemTime::now(), leased: true };
            self.inner.lock().unwrap().items.push(item);
            let listener = self.listener.lock().unwrap().clone();
            let back = listener.map_or(Some(lease.clone()), |hear| hear(lease));
            if let Some(lease) = back {
                self.release(lease);
            }
        }
        done(Ok(()));
    }

    fn due(&self, now: SystemTime, most: usize) -> Vec<DueDestination> {
        let inner = self.inner.lock().unwrap();
        let mut found: HashMap<Arc<str>, DueDestination> = HashMap::new();
        for item in inner.items.iter().filter(|item| !item.leased && item.due <= now) {
            let destination = item.lease.destination.clone();
            let entry = found.entry(destination.clone()).or_insert(DueDestination {
                destination,
                due: 0,
                oldest_due: item.due,
            });
            entry.due += 1;
            entry.oldest_due = entry.oldest_due.min(item.due);
        }
        let mut list: Vec<DueDestination> = found.into_values().collect();
        list.sort_by_key(|due| due.oldest_due);
        list.truncate(most);
        list
    }

    fn next_due(&self) -> Option<SystemTime> {
        self.inner.lock().unwrap().items.iter().filter(|item| !item.leased).map(|item| item.due).min()
    }

    fn lease(&self, destination: &str, now: SystemTime, most: usize) -> Vec<Lease> {
        let mut inner = self.inner.lock().unwrap();
        Self::take(&mut inner, most, |item| &*item.lease.destination == destination && item.due <= now)
    }

    fn lease_older_than(&self, accepted_before: SystemTime, null_sender_only: bool, most: usize) -> Vec<Lease> {
        let mut inner = self.inner.lock().unwrap();
        Self::take(&mut inner, most, |item| {
            item.lease.accepted < accepted_before && (!null_sender_only || item.lease.envelope.reverse_path.is_none())
        })
    }

    fn finish(&self, lease: Lease, outcomes: Vec<(u32, Outcome)>, generated: Vec<NewMessage>, done: Done) {
        let mut inner = self.inner.lock().unwrap();
        let same = |item: &Item| item.lease.id == lease.id && item.lease.destination == lease.destination;
        let at = inner.items.iter().position(same).expect("a finished lease is known");
        let mut item = inner.items.remove(at);
        assert!(item.leased, "finished once");
        assert_eq!(item.lease.recipients.len(), outcomes.len(), "one outcome a recipient");
        item.lease.recipients.clear();
        item.leased = false;
        for (index, outcome) in outcomes {
            if let Outcome::Deferred { next, delay_notified, .. } = &outcome {
                let before = lease.recipients.iter().find(|r| r.index == index).expect("it was leased");
                let attempts = before.attempts + 1;
                item.lease.recipients.push(LeasedRecipient { index, attempts, delay_notified: *delay_notified });
                item.due = *next;
            }
            inner.outcomes.push((lease.id, outcome));
        }
        if !item.lease.recipients.is_empty() {
            inner.items.push(item);
        }
        inner.reports.extend(generated);
        drop(inner);
        done(Ok(()));
    }

    fn release(&self, lease: Lease) {
        let mut inner = self.inner.lock().unwrap();
        let same = |item: &&mut Item| item.lease.id == lease.id && item.lease.destination == lease.destination;
        inner.items.iter_mut().find(same).expect("a released lease is known").leased = false;
    }

    fn postpone(&self, destination: &str, until: SystemTime, _why: &str) {
        let mut inner = self.inner.lock().unwrap();
        for item in inner.items.iter_mut().filter(|item| &*item.lease.destination == destination) {
            item.due = item.due.max(until);
        }
    }

    fn on_fresh(&self, hear: FreshListener) {
        *self.listener.lock().unwrap() = Some(hear);
    }
}

pub struct NoStore;

impl LocalStore for NoStore {
    fn deliver(&self, _recipient: &Mailbox, _prefix: &[u8], _content: &[u8]) -> Result<(), StoreFault> {
        Err(StoreFault::NoSuchUser)
    }
}

/// A store that knows `b` and breaks at `broken`.
pub struct BrokenStore;

impl LocalStore for BrokenStore {
    fn deliver(&self, recipient: &Mailbox, _prefix: &[u8], _content: &[u8]) -> Result<(), StoreFault> {
        assert!(recipient.local_part() != "broken", "a fault put in by the test");
        Ok(())
    }
}

/// A message from `sender` (empty: null) with a prefix of its own.
pub fn message(sender: &str, recipients: &[&str], content: &[u8]) -> NewMessage {
    let mailbox = |text: &str| Mailbox::parse(text, true).unwrap();
    let to = recipients.iter().map(|text| Recipient::plain(mailbox(text))).collect();
    let envelope = Envelope::plain(Origin::local("mx"), (!sender.is_empty()).then(|| mailbox(sender)), to);
    NewMessage {
        id: QueueId(0),
        envelope: Arc::new(envelope),
        destinations: Vec::new(),
        prefix: b"X-Prefix: y\r\n".to_vec().into(),
        content: Content::from_bytes(content.to_vec()),
        disposition: Disposition::Deliver,
        verdict: "".into(),
    }
}

/// Settings with short waits.
pub fn config() -> Config {
    let mut config = Config::default_for(Path::new("/nonexistent"));
    let secs = Duration::from_secs;
    config.hostname = "weir.test".into();
    // Nobody answers there: names don't resolve, unless a test brings its own DNS.
    config.dns.servers = vec!["127.0.0.1:9".parse().unwrap()];
    config.dns.timeout = secs(1);
    config.listeners.clear();
    config.domains.clear();
    config.relay.smarthost = None;
    config.deliver.allow_local = true;
    config.deliver.connect_timeout = secs(2);
    config.deliver.command_timeout = secs(2);
    config.deliver.data_timeout = secs(2);
    config.deliver.final_dot_timeout = secs(2);
    config
}
