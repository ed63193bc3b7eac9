//! Answers that come from other threads into a reactor. I/O: wakes the reactor's poll.
//!
//! Bounded by the protocol: a conversation has at most one open question. The reactor says when it is about to
//! sleep, and only the first answer after that pays for a wake-up; a batch of answers costs one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::Waker;
use parking_lot::Mutex;

use super::service::{Later, Ticket};
use super::slab::Key;

/// Wakes a reactor, at most once per sleep.
pub struct Alarm {
    waker: Waker,
    asleep: AtomicBool,
}

impl Alarm {
    /// An alarm for a reactor that is awake.
    pub fn new(waker: Waker) -> Self {
        Alarm { waker, asleep: AtomicBool::new(false) }
    }

    /// Makes the reactor run, now or instead of its next sleep.
    pub fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a reactor can't be woken");
        }
    }

    /// Called by the reactor before it looks for the last time whether it has work.
    pub fn before_sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// Called by the reactor when it runs again.
    pub fn after_sleep(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }
}

/// Late answers of one reactor; `None` stands for a ticket that was dropped.
pub struct Inbox<A> {
    answers: Mutex<Vec<(Key, Option<A>)>>,
    /// Shared with whoever stops or reloads the front end.
    pub alarm: Arc<Alarm>,
}

impl<A> Inbox<A> {
    /// An empty inbox that wakes by `alarm`.
    pub fn new(alarm: Arc<Alarm>) -> Self {
        Inbox { answers: Mutex::new(Vec::new()), alarm }
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.answers.lock().is_empty()
    }

    /// Swaps what waits with the empty `into`, so that both vectors are used again.
    pub fn drain(&self, into: &mut Vec<(Key, Option<A>)>) {
        debug_assert!(into.is_empty(), "answers are handled before the next are fetched");
        std::mem::swap(&mut *self.answers.lock(), into);
    }

    fn push(&self, key: Key, answer: Option<A>) {
        self.answers.lock().push((key, answer));
        self.alarm.ring();
    }
}

struct LateTicket<A: Send> {
    inbox: Arc<Inbox<A>>,
    key: Key,
    answered: bool,
}

impl<A: Send> Ticket<A> for LateTicket<A> {
    fn answer(mut self: Box<Self>, answer: A) {
        self.answered = true;
        self.inbox.push(self.key, Some(answer));
    }
}

impl<A: Send> Drop for LateTicket<A> {
    fn drop(&mut self) {
        if !self.answered {
            self.inbox.push(self.key, None);
        }
    }
}

/// Makes the ticket of one question.
pub struct Desk<'a, A> {
    /// Where the answer goes.
    pub inbox: &'a Arc<Inbox<A>>,
    /// Whose question it is.
    pub key: Key,
    /// True once a ticket was made; a promise to answer later without one can't be kept.
    pub taken: bool,
}

impl<A: Send + 'static> Later<A> for Desk<'_, A> {
    fn ticket(&mut self) -> Box<dyn Ticket<A>> {
        debug_assert!(!self.taken, "one ticket a question");
        self.taken = true;
        Box::new(LateTicket { inbox: self.inbox.clone(), key: self.key, answered: false })
    }
}

/// The waker's registration, apart from [`Alarm::new`] because only the poll's owner can make it.
/// # Errors
/// When no event descriptor can be made.
pub fn alarm(poll: &mio::Poll, token: mio::Token) -> io::Result<Arc<Alarm>> {
    Ok(Arc::new(Alarm::new(Waker::new(poll.registry(), token)?)))
}
