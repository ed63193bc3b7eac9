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

/// Why the front end turns a connection away without opening a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The process has no file descriptor left for it.
    Descriptors,
    /// Too many TLS handshakes of one client address.
    Handshakes,
    /// Too many connections of one client address.
    PerIp,
    /// Too many connections of one network (IPv4 /24, IPv6 /64).
    PerNet,
    /// The server is stopping.
    Stopping,
    /// Too many connections in total.
    Total,
}

impl Refusal {
    /// Every refusal, for tables of counters.
    pub const ALL: [Refusal; 6] =
        [Refusal::Descriptors, Refusal::Handshakes, Refusal::PerIp, Refusal::PerNet, Refusal::Stopping, Refusal::Total];

    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Descriptors => "descriptors",
            Refusal::Handshakes => "handshakes",
            Refusal::PerIp => "per_ip",
            Refusal::PerNet => "per_net",
            Refusal::Stopping => "stopping",
            Refusal::Total => "total",
        }
    }
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

    /// The text for a connection that is turned away before any conversation; empty to say nothing.
    fn refuse(&self, why: Refusal, peer: &Peer) -> Vec<u8>;

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
