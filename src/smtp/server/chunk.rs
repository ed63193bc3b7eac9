//! BDAT: content in counted chunks, taken as it is. Pure. RFC 3030.
//!
//! A chunk that can't be taken is swallowed before it is refused, for its octets must not be read as commands; after a
//! failure the following chunks fail alike until LAST or RSET.

use std::time::Instant;

use super::context::Context;
use super::counters::Limit;
use super::data::Body;
use super::replies;
use super::session::Session;
use super::state::State;
use super::transaction::Transaction;
use crate::wire::data::{ContentScan, Sink};
use crate::wire::reply::Reply;

/// A transaction whose content comes in chunks.
pub(super) struct Chunking {
    transaction: Transaction,
    body: Body,
    scan: ContentScan,
    chunk: Chunk,
}

/// The chunk that comes in, or came last.
struct Chunk {
    left: u64,
    last: bool,
    began: Instant,
    bytes: u64,
}

impl Chunk {
    fn take<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        let len = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
        self.left -= len as u64;
        self.bytes += len as u64;
        &input[..len]
    }
}

impl Chunking {
    /// True if octets of the chunk are due; otherwise a command is.
    pub fn is_inside(&self) -> bool {
        self.chunk.left > 0
    }

    /// When the chunk began.
    pub fn began(&self) -> Instant {
        self.chunk.began
    }

    /// Bytes of the chunk so far.
    pub fn chunk_bytes(&self) -> u64 {
        self.chunk.bytes
    }

    /// Takes octets of the chunk.
    pub fn input(mut self: Box<Self>, context: &mut Context, now: Instant, input: &[u8]) -> (usize, State) {
        let part = self.chunk.take(input);
        self.scan.block(part);
        self.body.take(part);
        context.waiting_since = now;
        context.counters.content_bytes += part.len() as u64;
        let state = if self.is_inside() { State::Chunking(self) } else { self.end_chunk(context) };
        (part.len(), context.settle(state))
    }

    /// Begins a chunk; one without octets ends at once.
    fn begin(mut self: Box<Self>, context: &mut Context, now: Instant, bytes: u64, last: bool) -> State {
        self.chunk = Chunk { left: bytes, last, began: now, bytes: 0 };
        // Told now, so that not a byte of what is too large is kept.
        if self.body.bytes.saturating_add(bytes) > context.settings.limits.size && self.body.failure.is_none() {
            context.counters.hit(Limit::Size);
            self.body.fail(context, replies::TOO_BIG);
        }
        if bytes == 0 && !last {
            // It moves no mail, like NOOP.
            context.spend(Limit::JunkCommands);
        }
        if bytes == 0 { self.end_chunk(context) } else { State::Chunking(self) }
    }

    fn end_chunk(mut self: Box<Self>, context: &mut Context) -> State {
        if let Some(failure) = self.body.failure.take() {
            if self.chunk.last {
                return self.transaction.refuse(context, &failure);
            }
            context.reply(&failure);
            self.body.fail(context, failure);
            return State::Chunking(self);
        }
        if self.chunk.last {
            let facts = self.scan.finish();
            return self.transaction.finish(context, self.body.into_builder(), facts, true);
        }
        context.reply(&replies::CHUNK_OK);
        State::Chunking(self)
    }
}

/// A chunk that came where none may, with the state to go back to.
pub(super) struct Refused {
    chunk: Chunk,
    refusal: Refusal,
    back: State,
}

/// What the client hears, and whether it could have known better.
struct Refusal {
    reply: Reply,
    forgiven: bool,
}

impl Refused {
    /// When the chunk began.
    pub fn began(&self) -> Instant {
        self.chunk.began
    }

    /// Bytes of the chunk so far.
    pub fn bytes(&self) -> u64 {
        self.chunk.bytes
    }

    /// Swallows octets of the chunk.
    pub fn input(mut self: Box<Self>, context: &mut Context, now: Instant, input: &[u8]) -> (usize, State) {
        let used = self.chunk.take(input).len();
        context.counters.content_bytes += used as u64;
        context.waiting_since = now;
        if self.chunk.left > 0 {
            return (used, State::Refused(self));
        }
        let state = context.misplaced(&self.refusal.reply, self.refusal.forgiven, self.back);
        (used, context.settle(state))
    }
}

impl Session {
    pub(super) fn bdat(&mut self, now: Instant, state: State, bytes: u64, last: bool) -> State {
        let transaction = match state {
            State::Chunking(chunking) => return chunking.begin(&mut self.context, now, bytes, last),
            State::Transaction(transaction) => transaction,
            state => {
                let forgiven = self.context.mail_refused;
                return self.refuse_chunk(now, bytes, Refusal { reply: replies::MAIL_FIRST, forgiven }, state);
            }
        };
        if let Some(reply) = transaction.not_ready(self.context.is_lmtp()) {
            let forgiven = transaction.has_refused();
            return self.refuse_chunk(now, bytes, Refusal { reply, forgiven }, State::Transaction(transaction));
        }
        let body = Body::new(&self.context);
        let chunk = Chunk { left: 0, last: false, began: now, bytes: 0 };
        let chunking = Chunking { transaction: *transaction, body, scan: ContentScan::default(), chunk };
        Box::new(chunking).begin(&mut self.context, now, bytes, last)
    }

    fn refuse_chunk(&mut self, now: Instant, bytes: u64, refusal: Refusal, back: State) -> State {
        if bytes == 0 {
            return self.context.misplaced(&refusal.reply, refusal.forgiven, back);
        }
        let chunk = Chunk { left: bytes, last: false, began: now, bytes: 0 };
        State::Refused(Box::new(Refused { chunk, refusal, back }))
    }
}
