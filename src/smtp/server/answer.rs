//! What an answer makes of the question it answers. Pure.

use std::time::Instant;

use super::ask::Answer;
use super::context::Context;
use super::counters::Limit;
use super::replies;
use super::session::Session;
use super::state::{Asked, State};
use crate::wire::reply::Reply;

impl Session {
    /// Takes the answer to the open question; without one, it is of no use to anybody any more.
    pub(super) fn take_answer(&mut self, now: Instant, answer: Answer) {
        let asked = match std::mem::replace(&mut self.state, State::Closed) {
            State::Asked(asked) => asked,
            other => {
                self.state = other;
                return;
            }
        };
        self.context.waiting_since = now;
        let state = self.answered(asked, answer);
        self.state = self.context.settle(state);
        if self.context.eof && !matches!(self.state, State::Closed) {
            self.state = self.context.close();
        }
    }

    fn answered(&mut self, asked: Asked, answer: Answer) -> State {
        let context = &mut self.context;
        match (asked, answer) {
            (Asked::Connect, answer) => self.connected(answer),
            (Asked::Hello(hello), Answer::Go) => {
                let reply = Reply { code: 250, enhanced: None, text: context.hello_text(hello).into() };
                context.junk(&reply, State::Ready)
            }
            (Asked::Hello(_), answer) => {
                context.hello = None;
                context.junk(&refusal(answer), State::Ready)
            }
            (Asked::Mail(transaction), Answer::Go) => {
                context.mail_refused = false;
                context.reply_then(&replies::SENDER_OK, State::Transaction(transaction))
            }
            (Asked::Mail(_), answer) => context.junk(&refusal(answer), State::Ready),
            (Asked::Rcpt(transaction, recipient), Answer::Go) => {
                context.reply_then(&replies::RECIPIENT_OK, transaction.add(*recipient))
            }
            (Asked::Rcpt(transaction, _), answer) => {
                context.recipient_refused(&refusal(answer), transaction.not_added())
            }
            (Asked::Password, Answer::Authenticated(login)) => context.authenticated(login),
            (Asked::ScramKeys(first), Answer::ScramKeys(keys)) => context.scram_challenge(*first, keys),
            (Asked::AuthFailed, Answer::Go) => context.not_authenticated(&replies::AUTH_FAILED),
            (Asked::Password | Asked::ScramKeys(_) | Asked::AuthFailed, answer) => {
                context.not_authenticated(&refusal(answer))
            }
            (Asked::Message { replies }, Answer::Message(given)) => context.message_judged(replies, &given),
            (Asked::Message { replies }, answer) => context.message_judged(replies, &[refusal(answer)]),
        }
    }

    fn connected(&mut self, answer: Answer) -> State {
        let early = self.is_early();
        let context = &mut self.context;
        match answer {
            _ if early => context.reply_and_close(&replies::EARLY),
            Answer::Go if context.stopping => context.reply_and_close(&Reply::STOPPING),
            Answer::Go => {
                let banner = context.banner();
                context.reply_then(&banner, State::Ready)
            }
            answer => context.reply_and_close(&refusal(answer)),
        }
    }
}

impl Context {
    fn recipient_refused(&mut self, reply: &Reply, next: State) -> State {
        if reply.is_permanent() {
            self.spend(Limit::UnknownRecipients);
        }
        self.reply_then(reply, next)
    }

    /// Says what became of a message: once, or to each LMTP recipient. Where replies are missing the last one stands for them.
    fn message_judged(&mut self, due: usize, given: &[Reply]) -> State {
        self.end_transaction();
        let none_given = Reply::LOCAL_TROUBLE;
        let mut ends = false;
        let mut taken = false;
        for index in 0..due {
            let reply = given.get(index).or(given.last()).unwrap_or(&none_given);
            ends |= reply.code == 421;
            taken |= reply.is_positive();
            self.reply(reply);
        }
        self.counters.messages += u32::from(taken);
        if ends { self.close() } else { State::Ready }
    }
}

/// An answer that fits no question of ours must not pass for a yes.
fn refusal(answer: Answer) -> Reply {
    match answer {
        Answer::Refuse(reply) if !reply.is_positive() => reply,
        _ => Reply::LOCAL_TROUBLE,
    }
}
