//! How connections end, one by one and all at once. I/O: sockets.
//!
//! The peer gets our last words: what was written, TLS's close_notify, and a moment to read them.

use std::io::Write;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::connection::{Connection, End, Flags, Talk};
use super::reactor::Reactor;
use super::service::{Peer, Refusal, Service};
use super::slab::Key;
use crate::base::machine::Machine;
use crate::config::settings::ListenerTls;

/// How long the peer may take to read our last words when it still had something to say, and how many of its bytes we
/// throw away meanwhile. Closing with unread input would reset the connection and lose them (RFC 9112 §9.6 tells why).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// How a reactor ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were open when the stop began and ended by themselves in time.
    pub finished: usize,
    /// Connections that were cut at the deadline.
    pub cut: usize,
}

/// A stop that is under way.
pub(super) struct Stopping {
    pub deadline: Instant,
    open_before: usize,
    cut: usize,
}

impl<S: Service> Reactor<S> {
    /// Says goodbye as far as it is due, and closes or lingers.
    pub(super) fn end(&mut self, key: Key, mut connection: Box<Connection<S::Machine>>, end: End) {
        self.log_end(&connection, &end);
        if let End::Refused(why) = end {
            self.refuse(&connection.peer, why, &connection.stream);
        }
        if let Some(tls) = connection.tls.as_mut().filter(|tls| tls.up) {
            tls.session.send_close_notify();
            // What the socket does not take now is lost; the peer sees the end of the stream all the same.
            let _ = connection.write(&[]);
        }
        let unread = connection.flags.readable || !connection.rest.is_empty();
        let lingers = matches!(end, End::Closed | End::Refused(_)) && unread && !connection.flags.eof;
        if !lingers || connection.stream.shutdown(Shutdown::Write).is_err() {
            return self.forget(key, &mut connection);
        }
        let talk = std::mem::replace(&mut connection.talk, Talk::Lingering { bytes_left: LINGER_BYTES_MAX });
        self.close_talk(&connection.peer, talk);
        connection.rest = Vec::new();
        connection.tls = None;
        connection.then = None;
        connection.flags = Flags { readable: true, hung_up: connection.flags.hung_up, ..Flags::default() };
        connection.deadline = Some(self.now + LINGER);
        self.connections.put_back(key, connection);
        self.turn(key, |_, _| {});
    }

    fn log_end(&self, connection: &Connection<S::Machine>, end: &End) {
        let peer = connection.peer.remote;
        match end {
            End::Closed | End::Gone => {}
            End::Lost => tracing::error!(%peer, "a question was dropped unanswered; the conversation is closed"),
            End::Proxy(why) => {
                self.shared.meters.proxy_errors.inc();
                tracing::warn!(%peer, why, "closed: the PROXY header");
            }
            End::Tls(error) => {
                self.shared.meters.handshakes.with_label_values(&["failed"]).inc();
                tracing::info!(%peer, %error, "TLS failed");
            }
            End::Timeout => self.log_timeout(connection),
            End::Socket(error) => tracing::debug!(%peer, %error, "the socket failed"),
            other => tracing::debug!(%peer, ?other, "connection ended"),
        }
    }

    fn log_timeout(&self, connection: &Connection<S::Machine>) {
        let peer = connection.peer.remote;
        let limit = match connection.talk {
            // It was told to go, and has gone.
            Talk::Lingering { .. } => return,
            _ if connection.is_handshaking() => {
                self.shared.meters.handshakes.with_label_values(&["timeout"]).inc();
                tracing::info!(%peer, "TLS handshake took too long");
                "handshake_timeout"
            }
            Talk::Introduction => {
                tracing::info!(%peer, "the PROXY header took too long");
                "handshake_timeout"
            }
            _ => {
                tracing::info!(%peer, "the peer does not read");
                "command_timeout"
            }
        };
        self.shared.meters.timeouts.with_label_values(&[limit]).inc();
    }

    /// Tells a connection that it can't be served, if it would understand.
    pub(super) fn refuse(&self, peer: &Peer, why: Refusal, mut stream: &TcpStream) {
        let setup = self.shared.setup(peer.listener);
        self.shared.meters.refuse(&setup.address.to_string(), why);
        tracing::debug!(peer = %peer.remote, why = why.as_str(), "refused");
        if setup.tls != ListenerTls::Implicit {
            // A new socket takes a line at once; if not, the close says enough.
            let _ = stream.write(&self.shared.service.refuse(why, peer));
        }
    }

    pub(super) fn forget(&mut self, key: Key, connection: &mut Connection<S::Machine>) {
        let talk = std::mem::replace(&mut connection.talk, Talk::Leaving);
        self.close_talk(&connection.peer, talk);
        self.shared.count_closed(connection.peer.listener);
        self.connections.release(key);
    }

    fn close_talk(&self, peer: &Peer, talk: Talk<S::Machine>) {
        let Talk::Open(machine) = talk else { return };
        if catch_unwind(AssertUnwindSafe(|| self.shared.service.closed(peer, machine))).is_err() {
            self.shared.meters.panics.inc();
            tracing::error!(peer = %peer.remote, "closing a conversation panicked");
        }
    }

    pub(super) fn check_stop(&mut self) -> Option<Stopped> {
        if self.stopping.is_none() {
            let deadline = **self.shared.control.stop_at.load().as_ref()?;
            self.begin_stop(deadline);
        }
        let stopping = self.stopping.as_mut()?;
        if self.now >= stopping.deadline {
            stopping.cut += self.connections.len();
            for key in self.connections.keys() {
                if let Some(connection) = self.connections.take(key) {
                    self.end(key, connection, End::Cut);
                }
            }
        }
        let stopping = self.stopping.as_ref()?;
        let done = self.connections.len() == 0;
        done.then_some(Stopped { finished: stopping.open_before.saturating_sub(stopping.cut), cut: stopping.cut })
    }

    fn begin_stop(&mut self, deadline: Instant) {
        self.accept(); // those who wait at the door are told
        self.listeners.close(self.poll.registry());
        self.stopping = Some(Stopping { deadline, open_before: self.connections.len(), cut: 0 });
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if matches!(connection.talk, Talk::Open(_)) && !connection.is_handshaking() {
                self.turn(key, |machine, now| machine.handle_stop(now));
            } else if let Some(connection) = self.connections.take(key) {
                self.end(key, connection, End::Cut);
            }
        }
    }
}
