//! TLS of a connection's turn: handshake, ciphertext in, plaintext out. I/O: the connection's socket.

use std::io;

use rustls::ServerConnection;

use super::connection::{Connection, End, Talk, Tls};
use super::service::Service;
use super::turn::Turn;
use crate::base::machine::Machine;

impl<S: Service> Turn<'_, S> {
    /// Reads ciphertext and takes what it holds over into the input; the number of bytes read, if there were any.
    pub fn fill_tls(&mut self, c: &mut Connection<S::Machine>) -> Result<Option<usize>, End> {
        let Some(read) = c.read(&mut self.scratch.cipher)? else { return Ok(None) };
        let tls = c.tls.as_mut().expect("the caller saw it");
        let mut cipher = &self.scratch.cipher[..read];
        while !cipher.is_empty() && tls.session.read_tls(&mut cipher)? > 0 {
            let state = match tls.session.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    // The alert is owed to the peer; if it can't be written now, it is lost with the connection.
                    let _ = c.write(&[]);
                    return Err(End::Tls(error));
                }
            };
            c.flags.eof |= state.peer_has_closed();
            self.scratch.end += drain_plaintext(&mut tls.session, &mut self.scratch.input[self.scratch.end..])?;
        }
        if c.is_handshaking() && !c.tls.as_ref().is_some_and(|tls| tls.session.is_handshaking()) {
            self.finish_handshake(c);
        }
        Ok(Some(read))
    }

    /// Makes the server's side of a handshake.
    pub fn begin_tls(&mut self, c: &mut Connection<S::Machine>) -> Result<(), End> {
        let refused = |why: &str| End::Tls(rustls::Error::General(why.into()));
        if c.tls.is_some() {
            return Err(refused("TLS inside TLS"));
        }
        let config = self.shared.tls.clone().ok_or_else(|| refused("no certificate"))?;
        let mut session = ServerConnection::new(config).map_err(End::Tls)?;
        // Output is bounded before it comes here.
        session.set_buffer_limit(None);
        c.tls = Some(Box::new(Tls { session, up: false }));
        let setup = self.shared.setup(c.peer.listener);
        if !setup.trusts(c.peer.remote.ip()) {
            self.shared.gate.count_handshake(self.now, c.peer.remote.ip());
        }
        c.deadline = Some(self.now + setup.limits.handshake_timeout);
        Ok(())
    }

    fn finish_handshake(&mut self, c: &mut Connection<S::Machine>) {
        let facts = c.tls_facts().expect("there is TLS");
        self.shared.meters.handshakes.with_label_values(&[facts.version]).inc();
        c.deadline = None;
        c.tls.as_mut().expect("there is TLS").up = true;
        match &mut c.talk {
            Talk::Open(machine) => machine.handle_tls(self.now, facts),
            _ => self.open(c, Some(facts)),
        }
    }
}

/// Takes all decrypted bytes over; there is room, because `turn` keeps room for a read of ciphertext. Returns how many.
fn drain_plaintext(session: &mut ServerConnection, room: &mut [u8]) -> io::Result<usize> {
    let mut drained = 0;
    loop {
        match io::Read::read(&mut session.reader(), &mut room[drained..]) {
            Ok(0) => return Ok(drained),
            Ok(read) => drained += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(drained),
            Err(error) => return Err(error),
        }
    }
}
