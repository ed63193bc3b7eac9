//! What a reactor needs to know of the protocol that it serves: how to open a conversation and who answers its questions. Pure.

use std::net::SocketAddr;
use std::time::Instant;

use crate::base::machine::{Machine, TlsFacts};

/// A connection's two ends, after the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client.
    pub remote: SocketAddr,
    /// Our side.
    pub local: SocketAddr,
    /// Index of the listener that took the connection.
    pub listener: usize,
}

/// What becomes of a new connection.
pub enum Admission<M> {
    /// Talk to it.
    Open(M),
    /// Write this (if anything) and close.
    Refuse(Vec<u8>),
}

/// The answer to a question, now or later.
pub enum Answered<A> {
    /// Known at once: nothing left the reactor's thread.
    Now(A),
    /// Somebody holds a [`Ticket`] and will answer through it.
    Later,
}

/// The right and duty to answer one question. Dropped unanswered, the conversation is closed.
pub trait Ticket<A>: Send {
    /// Gives the answer; wakes the reactor.
    fn answer(self: Box<Self>, answer: A);
}

/// Makes the ticket if the answer needs to wait; most questions don't, and cost nothing.
pub trait Later<A> {
    /// The ticket. Call at most once a question.
    fn ticket(&mut self) -> Box<dyn Ticket<A>>;
}

/// A protocol served on the reactors; shared by all of them. None of its calls may wait.
pub trait Service: Send + Sync + 'static {
    /// The conversation.
    type Machine: Machine<Ask: Send, Answer: Send + 'static> + Send + 'static;

    /// A connection is there (and its TLS handshake, if the listener's TLS is implicit: `tls`).
    fn open(&self, now: Instant, peer: &Peer, tls: Option<TlsFacts>) -> Admission<Self::Machine>;

    /// A conversation asks.
    fn answer(
        &self,
        now: Instant,
        peer: &Peer,
        ask: <Self::Machine as Machine>::Ask,
        later: &mut dyn Later<<Self::Machine as Machine>::Answer>,
    ) -> Answered<<Self::Machine as Machine>::Answer>;

    /// A conversation ended; for counting.
    fn closed(&self, peer: &Peer, machine: Self::Machine);
}
