//! DATA: content with stuffed dots. Pure. RFC 5321 §4.1.1.4, §4.5.2.
//!
//! Whatever is wrong with the content, it is swallowed to its end before the reply: a client can't hear us earlier,
//! and what it still sends must not be read as commands.

use std::time::Instant;

use super::context::Context;
use super::counters::Limit;
use super::replies;
use super::session::Session;
use super::state::State;
use super::transaction::Transaction;
use crate::base::content::ContentBuilder;
use crate::config::settings::BareLf;
use crate::wire::data::{DotDecoder, Sink};
use crate::wire::reply::Reply;

/// Content that comes in by DATA.
pub(super) struct Receiving {
    transaction: Transaction,
    decoder: DotDecoder,
    body: Body,
    began: Instant,
}

/// What content becomes: bytes, or the reason why it is dropped.
pub(super) struct Body {
    builder: ContentBuilder,
    bytes_max: u64,
    /// Why the content is swallowed, once it is.
    pub failure: Option<Reply>,
    /// Bytes taken, dropped ones included.
    pub bytes: u64,
}

impl Body {
    pub fn new(context: &Context) -> Self {
        Body { builder: context.content.builder(), bytes_max: context.settings.limits.size, failure: None, bytes: 0 }
    }

    /// Drops the content and goes on counting.
    pub fn fail(&mut self, context: &Context, reply: Reply) {
        if self.failure.is_none() {
            self.failure = Some(reply);
            self.builder = context.content.builder();
        }
    }

    /// The content was too large, and this is to be counted.
    pub fn is_too_big(&self) -> bool {
        self.bytes > self.bytes_max
    }

    pub fn into_builder(self) -> ContentBuilder {
        self.builder
    }
}

impl Sink for Body {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.failure.is_some() {
            return;
        }
        if self.bytes > self.bytes_max {
            self.failure = Some(replies::TOO_BIG);
        } else if self.builder.append(bytes).is_err() {
            self.failure = Some(Reply::NO_SPACE);
        }
    }
}

impl Receiving {
    /// When the content began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Bytes of content so far.
    pub fn bytes(&self) -> u64 {
        self.body.bytes
    }

    /// Takes content, up to its end.
    pub fn input(mut self: Box<Self>, context: &mut Context, now: Instant, input: &[u8]) -> (usize, State) {
        let failed_before = self.body.failure.is_some();
        let step = self.decoder.decode(input, &mut self.body);
        if self.body.failure.is_some() && !failed_before {
            // The memory goes back at once, however long the rest takes.
            let failure = self.body.failure.take().expect("looked at above");
            self.body.fail(context, failure);
        }
        context.waiting_since = now;
        if !step.ended {
            return (step.used, State::Receiving(self));
        }
        context.counters.content_bytes += self.body.bytes;
        let state = self.end(context);
        (step.used, context.settle(state))
    }

    fn end(self, context: &mut Context) -> State {
        let facts = self.decoder.facts();
        if self.body.is_too_big() {
            context.counters.hit(Limit::Size);
        }
        let refusal = match context.settings.bare_lf {
            _ if facts.nul => Some(replies::NUL_IN_CONTENT),
            BareLf::Reject if facts.bare => Some(replies::BARE_IN_CONTENT),
            _ => None,
        };
        if let Some(refusal) = refusal {
            context.counters.bare_refused += 1;
            return self.transaction.refuse(context, &refusal);
        }
        if let Some(failure) = &self.body.failure {
            return self.transaction.refuse(context, failure);
        }
        let mut facts = facts;
        facts.bare &= context.settings.bare_lf == BareLf::Accept;
        self.transaction.finish(context, self.body.into_builder(), facts, false)
    }
}

impl Session {
    pub(super) fn data(&mut self, now: Instant, state: State) -> State {
        let transaction = match state {
            State::Transaction(transaction) => transaction,
            State::Chunking(_) => return self.context.error(&replies::IN_CHUNKS, state),
            _ => return self.context.misplaced(&replies::MAIL_FIRST, self.context.mail_refused, state),
        };
        if let Some(reply) = transaction.not_ready(self.context.is_lmtp()) {
            return self.context.misplaced(&reply, transaction.has_refused(), State::Transaction(transaction));
        }
        if transaction.is_binary() {
            return self.context.error(&replies::BINARY_BY_DATA, State::Transaction(transaction));
        }
        if self.context.pipelined {
            self.context.counters.pipelining_faults += 1;
        }
        self.context.reply(&replies::START_CONTENT);
        let decoder = DotDecoder::new(self.context.settings.bare_lf == BareLf::Normalize);
        let body = Body::new(&self.context);
        State::Receiving(Box::new(Receiving { transaction: *transaction, decoder, body, began: now }))
    }
}
