//! Drives one POP3 conversation over its connection. I/O: network.
//!
//! The machine says what to do next; here it is done, one thing after the other: write, answer a question, feed input, wait.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::stream::{Stream, within};
use super::world::World;
use crate::base::machine::{Control, Machine, TlsFacts};
use crate::store::pop3::session::Session;

/// Input that waits unconsumed; then TCP holds the client back.
const INPUT_BYTES_MAX: usize = 16 * 1024;
/// Grown lazily: an idle session keeps one read's worth.
const READ_BYTES: usize = 1024;
/// For one write; a client that takes less than a piece in this time is gone.
const WRITE_MAX: Duration = Duration::from_secs(5 * 60);
/// For TLS's close_notify and the last bytes.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// One conversation and its connection.
pub(super) struct Driver {
    pub(super) machine: Session,
    pub(super) world: World,
    pub(super) input: Vec<u8>,
    pub(super) eof: bool,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) stop_told: bool,
}

impl Driver {
    /// Until the conversation ends; an error means that the connection broke.
    pub(super) async fn run(&mut self, mut stream: Stream) -> io::Result<()> {
        let mut sink = Vec::new();
        loop {
            sink.clear();
            let control = self.machine.poll_output(&mut sink);
            if !sink.is_empty() {
                within(WRITE_MAX, stream.write_all(&sink)).await?;
            }
            match control {
                Some(Control::Close) => return within(CLOSE_MAX, stream.shutdown()).await,
                Some(Control::StartTls) => {
                    within(WRITE_MAX, stream.flush()).await?;
                    // Sent in the clear behind STLS: an attacker's, perhaps (RFC 3207 §4.2 says it for SMTP).
                    self.input.clear();
                    stream = stream.start_tls(&self.world.shared.tls).await?;
                    self.machine.handle_tls(Instant::now(), TlsFacts::default());
                    continue;
                }
                None => {}
            }
            if !sink.is_empty() {
                continue;
            }
            if let Some(ask) = self.machine.poll_ask() {
                let answer = self.world.answer(ask).await;
                self.machine.handle_answer(Instant::now(), answer);
                continue;
            }
            let used = self.machine.handle_input(Instant::now(), &self.input);
            self.input.drain(..used);
            if used == 0 {
                within(WRITE_MAX, stream.flush()).await?;
                self.wait(&mut stream).await?;
            }
        }
    }

    /// Waits for bytes, the machine's timeout, or the stop.
    async fn wait(&mut self, stream: &mut Stream) -> io::Result<()> {
        if self.eof && self.input.is_empty() {
            self.machine.handle_eof(Instant::now());
            return Ok(());
        }
        let deadline = self.machine.poll_timeout();
        let due = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        let wants_input = !self.eof && self.input.len() < INPUT_BYTES_MAX;
        self.input.reserve(READ_BYTES);
        tokio::select! {
            read = stream.read_buf(&mut self.input), if wants_input => self.eof = read? == 0,
            _ = self.stopped.wait_for(|stop| *stop), if !self.stop_told => {
                self.stop_told = true;
                self.machine.handle_stop(Instant::now());
            }
            () = due => self.machine.handle_timeout(Instant::now()),
        }
        Ok(())
    }
}
