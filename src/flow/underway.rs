//! What was begun for each conversation before its message is there. I/O: DNS, through the verifier.
//!
//! Invariant: one entry a connection at most, made when it connects and gone when it closes, so that the front's bound on
//! connections bounds this too. Entries are found by the connection's two ends, because a session itself stays free of DNS.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::settings::{Listener, Mode};
use crate::dns::Resolver;
use crate::front::service::Peer;
use crate::verify::early::Early;
use crate::verify::{Begun, Facts, Greeted};
use crate::wire::envelope::Origin;

use super::checks::Checks;

/// What is known, or asked for, about one connection.
#[derive(Default)]
struct Conversation {
    name: Option<Early<Option<String>>>,
    greeted: Option<Arc<Greeted>>,
    message: Option<Begun<Resolver>>,
}

/// What a message finds begun.
#[derive(Default)]
pub struct Begin {
    /// SPF, asked for since HELO and MAIL.
    pub identity: Option<Begun<Resolver>>,
    /// The client's verified name, if DNS has said it by now.
    pub host: Option<String>,
}

/// All conversations for which something was begun.
#[derive(Default)]
pub struct Underway {
    all: Mutex<HashMap<(SocketAddr, SocketAddr), Conversation, foldhash::fast::RandomState>>,
}

impl Underway {
    /// A client is there. Call this and the next two within the tokio runtime.
    pub fn connected(&self, peer: &Peer, ip: IpAddr, listener: &Listener, checks: &Checks) {
        if wants(listener, ip, checks) {
            let name = Some(checks.verifier.connected(ip));
            self.all.lock().insert(key(peer), Conversation { name, ..Conversation::default() });
        }
    }

    /// It said its name.
    pub fn greeted(&self, peer: &Peer, origin: &Origin, listener: &Listener, checks: &Checks) {
        if listener.verify != Mode::Off && wants(listener, origin.ip, checks) {
            let greeted = checks.verifier.greeted(origin.ip, &origin.helo);
            self.all.lock().entry(key(peer)).or_default().greeted = Some(greeted);
        }
    }

    /// It named its reverse-path, and may.
    pub fn mail(&self, peer: &Peer, facts: Facts, listener: &Listener, checks: &Checks) {
        if listener.verify != Mode::Off && wants(listener, facts.ip, checks) {
            let greeted = self.all.lock().get(&key(peer)).and_then(|conversation| conversation.greeted.clone());
            // Begun without the lock: other reactors need it.
            let begun = checks.verifier.begin(facts, greeted);
            self.all.lock().entry(key(peer)).or_default().message = Some(begun);
        }
    }

    /// Its message is there: what was begun for it.
    pub fn take(&self, peer: &Peer) -> Begin {
        let mut all = self.all.lock();
        let Some(conversation) = all.get_mut(&key(peer)) else { return Begin::default() };
        let host = conversation.name.as_ref().and_then(Early::now).flatten();
        Begin { identity: conversation.message.take(), host }
    }

    /// It is gone.
    pub fn closed(&self, peer: &Peer) {
        self.all.lock().remove(&key(peer));
    }
}

fn key(peer: &Peer) -> (SocketAddr, SocketAddr) {
    (peer.remote, peer.local)
}

/// Who stands behind a hop of ours is known only when the content is there.
fn wants(listener: &Listener, ip: IpAddr, checks: &Checks) -> bool {
    let looks = listener.verify != Mode::Off || listener.filter != Mode::Off;
    looks && !crate::verify::hops::is_trusted(ip, &checks.trusted_hops)
}
