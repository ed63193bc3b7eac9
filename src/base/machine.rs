//! The contract between a protocol conversation and whatever drives it. Pure.
//!
//! A machine is fed bytes, answers and the passing of time, and is polled for output, questions and its next
//! timeout. It owns no socket, thread or clock, so the same dialogue gives the same bytes whole, cut at every byte, in a
//! simulation and against a live server. One question is open at a time, and while it is open not one byte of
//! input is consumed: that gives order under pipelining, and TCP back-pressure, for free.

use std::time::Instant;

/// What the driver must do once all bytes polled so far are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Write what is in the sink, then begin a TLS handshake as server (or client, for a client machine).
    /// Bytes that were read in the clear and not yet consumed must be dropped (RFC 3207 §4.2).
    StartTls,
    /// Write what is in the sink, then close.
    Close,
}

/// What is known of a finished TLS handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: &'static str,
    /// The cipher suite's name as in the IANA registry.
    pub cipher: String,
    /// The server name that the client asked for (SNI), if any.
    pub server_name: Option<String>,
    /// The certificate's subject names, if the peer showed a certificate that was verified.
    pub peer_names: Vec<String>,
}

/// One conversation: bytes and answers in, bytes and questions out.
pub trait Machine {
    /// A question that the conversation can't answer by itself.
    type Ask;
    /// The answer to one.
    type Answer;

    /// Takes input; returns how many bytes were used. Uses none while a question is open or output must be written first.
    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> usize;
    /// Takes the answer to the open question.
    fn handle_answer(&mut self, now: Instant, answer: Self::Answer);
    /// Called once `poll_timeout`'s instant has passed.
    fn handle_timeout(&mut self, now: Instant);
    /// The handshake asked for by [`Control::StartTls`] (or an implicit one) is complete.
    fn handle_tls(&mut self, now: Instant, facts: TlsFacts);
    /// The peer closed its side. Nothing more will come in.
    fn handle_eof(&mut self, now: Instant);
    /// The server is stopping: close when idle, finish a transaction that is under way first.
    fn handle_stop(&mut self, now: Instant);
    /// Appends bytes to write to `sink`; a control, if returned, takes effect after they are written.
    fn poll_output(&mut self, sink: &mut Vec<u8>) -> Option<Control>;
    /// The question to answer next; at most one is open.
    fn poll_ask(&mut self) -> Option<Self::Ask>;
    /// When [`Machine::handle_timeout`] must be called, unless something happens before.
    fn poll_timeout(&self) -> Option<Instant>;
}
