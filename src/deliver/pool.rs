//! Sessions kept open for the next message on the same line. I/O: asks sockets whether they are still good.
//!
//! A line is a destination and what its mail asks of TLS, so that a session is never used for mail that asks for more protection or another login.
//! Bounded in number and in idle time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::transport::connection::Connection;
use super::transport::terms::Wish;

/// An idle session is closed after this. Postfix keeps one for 2 s; Exchange's edge closes after a minute.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Idle sessions in total.
const SESSIONS_MAX: usize = 1000;

/// What a session may be used for.
pub type Line = (Arc<str>, Wish);

#[derive(Default)]
struct Idle {
    lines: HashMap<Arc<str>, Vec<(Wish, Connection)>>,
    count: usize,
}

/// The pool.
#[derive(Default)]
pub struct Pool(Mutex<Idle>);

impl Pool {
    /// A session of `line` that seems good.
    pub fn take(&self, line: &Line) -> Option<Connection> {
        let mut idle = self.0.lock();
        loop {
            let idle = &mut *idle;
            let list = idle.lines.get_mut(&line.0)?;
            // The one used last is the likeliest to live.
            let at = list.iter().rposition(|(wish, _)| *wish == line.1)?;
            let (_, mut connection) = list.remove(at);
            idle.count -= 1;
            if list.is_empty() {
                idle.lines.remove(&line.0);
            }
            if connection.used.elapsed() < IDLE_MAX && !connection.is_stale() {
                return Some(connection);
            }
        }
    }

    /// Keeps a session; gives it back if there are too many.
    pub fn put(&self, line: Line, connection: Connection) -> Option<Connection> {
        let mut idle = self.0.lock();
        if idle.count >= SESSIONS_MAX {
            return Some(connection);
        }
        idle.count += 1;
        idle.lines.entry(line.0).or_default().push((line.1, connection));
        None
    }

    /// Takes out all sessions of a destination, which asks for less: it counts those that are idle too.
    pub fn take_all(&self, destination: &str) -> Vec<Connection> {
        let mut idle = self.0.lock();
        let list = idle.lines.remove(destination).unwrap_or_default();
        idle.count -= list.len();
        list.into_iter().map(|(_, connection)| connection).collect()
    }

    /// Takes out what has been idle too long, or all.
    pub fn reap(&self, all: bool) -> Vec<Connection> {
        let mut idle = self.0.lock();
        let mut old = Vec::new();
        for list in idle.lines.values_mut() {
            let is_old = |kept: &mut (Wish, Connection)| all || kept.1.used.elapsed() >= IDLE_MAX;
            old.extend(list.extract_if(.., is_old).map(|(_, connection)| connection));
        }
        idle.lines.retain(|_, list| !list.is_empty());
        idle.count -= old.len();
        old
    }
}
