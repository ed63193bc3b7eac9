//! Lines of the log on their way to standard error. I/O: one thread, standard error.
//!
//! Whoever reads our standard error may be slow or hang, and mail never waits for its log: lines gather in one buffer, and a
//! line that finds it full is dropped and counted. The thread takes all that waits and says it with one `write`; then it
//! rests for a moment, so that a busy gateway pays for a call and a wake-up a hundred times a second and not once a line.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Bytes that may wait for the thread: a second of a busy gateway.
const BYTES_WAITING_MAX: usize = 8 * 1024 * 1024;
/// What the buffers keep of their memory after a rush.
const BYTES_KEPT: usize = 64 * 1024;
/// How long lines gather behind a write.
const REST: Duration = Duration::from_millis(10);
/// How long the end waits for what is not written yet.
const END_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    /// The thread sleeps and must be woken.
    asleep: bool,
    closing: bool,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    dropped: AtomicU64,
}

/// The buffer and its thread.
pub struct Lines(Arc<Shared>);

impl Lines {
    /// Starts the thread; it keeps the rights that the caller has now.
    /// # Errors
    /// When no thread can be made.
    pub fn start(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || own.run(out))?;
        Ok(Lines(shared))
    }

    /// Takes a whole line, or drops it.
    pub fn push(&self, line: &[u8]) {
        let mut waiting = self.0.waiting.lock();
        if waiting.text.len() + line.len() > BYTES_WAITING_MAX {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.text.extend_from_slice(line);
        if std::mem::take(&mut waiting.asleep) {
            drop(waiting);
            self.0.wake.notify_all();
        }
    }

    /// Lines that found the buffer full.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Writes what waits, for a second at most, and ends the thread.
    pub fn close(&self) {
        let mut waiting = self.0.waiting.lock();
        waiting.closing = true;
        self.0.wake.notify_all();
        let until = Instant::now() + END_MAX;
        while !waiting.ended && !self.0.wake.wait_until(&mut waiting, until).timed_out() {}
    }
}

impl Shared {
    fn run(&self, mut out: impl Write) {
        let mut text = Vec::new();
        while self.take(&mut text) {
            // Where it can't be said, there is nobody to tell.
            let _ = out.write_all(&text).and_then(|()| out.flush());
            text.clear();
            text.shrink_to(BYTES_KEPT);
            self.rest();
        }
        self.waiting.lock().ended = true;
        self.wake.notify_all();
    }

    /// Swaps what waits with the empty `text`; false once there is nothing and nothing more to come.
    fn take(&self, text: &mut Vec<u8>) -> bool {
        let mut waiting = self.waiting.lock();
        while waiting.text.is_empty() && !waiting.closing {
            waiting.asleep = true;
            self.wake.wait(&mut waiting);
        }
        waiting.asleep = false;
        std::mem::swap(&mut waiting.text, text);
        !text.is_empty()
    }

    fn rest(&self) {
        let mut waiting = self.waiting.lock();
        if !waiting.closing {
            self.wake.wait_for(&mut waiting, REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands on what it is given, and waits to be let go.
    struct Slow(mpsc::Sender<Vec<u8>>, mpsc::Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            let _ = self.1.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn slow() -> (Lines, mpsc::Receiver<Vec<u8>>, mpsc::Sender<()>) {
        let ((said, hear), (let_go, gate)) = (mpsc::channel(), mpsc::channel());
        (Lines::start(Slow(said, gate)).unwrap(), hear, let_go)
    }

    #[test]
    fn lines_that_gather_behind_a_write_are_one_write() {
        let (lines, hear, let_go) = slow();
        lines.push(b"a\n");
        assert_eq!(hear.recv().unwrap(), b"a\n");
        lines.push(b"b\n");
        lines.push(b"c\n");
        drop(let_go);
        assert_eq!(hear.recv().unwrap(), b"b\nc\n");
        lines.push(b"d\n");
        lines.close();
        assert_eq!(hear.recv().unwrap(), b"d\n", "the end waits for what waits");
    }

    #[test]
    fn who_does_not_read_costs_lines_and_no_time() {
        let (lines, hear, let_go) = slow();
        lines.push(b"first\n");
        hear.recv().unwrap();
        let line = vec![b'x'; 1024 * 1024];
        (0..10).for_each(|_| lines.push(&line));
        assert_eq!(lines.dropped(), 2);
        lines.close();
        drop(let_go);
        assert_eq!(hear.recv().unwrap().len(), 8 * 1024 * 1024);
    }
}
