//! Listeners that come, go or change while the front end runs. I/O: binds; tells the reactors.
//!
//! Two steps, so that a reload is in force whole or not at all: [`Reloader::prepare`] binds what is new and may fail,
//! [`Prepared::commit`] can't. A listener that goes stops accepting and keeps its number until its last connection has
//! ended; one whose terms change keeps its sockets, and new connections come under another number. So a number means
//! one set of terms for as long as anybody is connected under it.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::{io, iter};

use mio::Registry;
use parking_lot::{Mutex, MutexGuard};

use super::accept::{Change, Door};
use super::inbox::Alarm;
use super::listen::{self, ListenerSetup};
use super::meters::Meters;
use super::shared::{Control, Listening};

/// Changes the listeners of a running front end.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    control: Arc<Control>,
    meters: Meters,
    reactors: Vec<Wire>,
    running: Mutex<Running>,
}

/// The way to one reactor.
pub(super) struct Wire {
    pub registry: Registry,
    pub changes: mpsc::Sender<Change>,
    pub alarm: Arc<Alarm>,
}

/// What listens now.
pub(super) struct Running {
    /// In the configuration's order.
    pub open: Vec<Open>,
    /// The number of the next socket.
    pub next_door: usize,
    /// systemd's sockets, used or not.
    pub activated: Vec<OwnedFd>,
}

/// A listener that accepts.
#[derive(Clone)]
pub(super) struct Open {
    /// As configured; port 0 is still 0.
    pub wanted: SocketAddr,
    /// As in force, with the real address.
    pub setup: Arc<ListenerSetup>,
    /// What its connections know it by.
    pub number: usize,
    /// Its socket on every reactor.
    pub door: usize,
    /// systemd bound it.
    pub activated: bool,
}

/// What a wanted listener has of those that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kin {
    /// Nothing: its address has to be bound.
    None,
    /// It is this one, perhaps under other limits.
    Same(usize),
    /// It takes the sockets of this one over.
    Sockets(usize),
}

impl Reloader {
    pub(super) fn new(control: Arc<Control>, meters: Meters, reactors: Vec<Wire>, running: Running) -> Self {
        Reloader(Arc::new(Inner { control, meters, reactors, running: Mutex::new(running) }))
    }

    /// Where each listener is, in the configuration's order.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.0.running.lock().open.iter().map(|open| open.setup.address).collect()
    }

    /// Makes every reactor look around.
    pub(super) fn ring(&self) {
        self.0.reactors.iter().for_each(|reactor| reactor.alarm.ring());
    }

    /// Binds what is new among `wanted`. Nothing is in force before [`Prepared::commit`]; dropped without it, all stays as it is.
    /// # Errors
    /// When an address can't be bound; the text names the listener and what to do.
    pub fn prepare(&self, wanted: Vec<ListenerSetup>) -> io::Result<Prepared<'_>> {
        let inner = &*self.0;
        let running = inner.running.lock();
        let table: Vec<Listening> = inner.control.listeners.load().to_vec();
        let taken = |number: usize| running.open.iter().any(|open| open.number == number);
        let unused: Vec<bool> =
            table.iter().enumerate().map(|(n, listener)| !taken(n) && listener.connections() == 0).collect();
        let mut free = (0..).filter(|number| *unused.get(*number).unwrap_or(&true));
        let kin = relate(&running.open, &wanted);
        let mut ours: Vec<SocketAddr> = running.open.iter().map(|open| open.setup.address).collect();
        let mut next = Next {
            open: Vec::new(),
            by_number: vec![None; table.len()],
            table,
            moved: Vec::new(),
            doors: Doors { reactors: &inner.reactors, new: inner.reactors.iter().map(|_| Vec::new()).collect() },
            next_door: running.next_door,
            told: Vec::new(),
        };
        for (setup, kin) in wanted.into_iter().zip(kin) {
            let mut number = || free.next().expect("numbers do not end");
            match kin {
                Kin::Same(old) => next.keep(&running.open[old], setup),
                Kin::Sockets(old) => next.take_over(&running.open[old], setup, number(), &inner.meters),
                Kin::None => {
                    let bound = listen::bind(&setup, inner.reactors.len(), &running.activated, &ours)?;
                    ours.push(bound.address);
                    next.open(bound, setup, number(), &inner.meters)?;
                }
            }
        }
        Ok(Prepared { inner, running, next })
    }
}

/// Listeners as a reload wants them, ready.
pub struct Prepared<'a> {
    inner: &'a Inner,
    running: MutexGuard<'a, Running>,
    next: Next<'a>,
}

struct Next<'a> {
    open: Vec<Open>,
    table: Vec<Listening>,
    /// For each number the place in `open`.
    by_number: Vec<Option<usize>>,
    moved: Vec<(usize, usize)>,
    doors: Doors<'a>,
    next_door: usize,
    told: Vec<String>,
}

/// Sockets that are watched and not yet served, by reactor.
struct Doors<'a> {
    reactors: &'a [Wire],
    new: Vec<Vec<Door>>,
}

impl Drop for Doors<'_> {
    fn drop(&mut self) {
        for (reactor, doors) in self.reactors.iter().zip(std::mem::take(&mut self.new)) {
            doors.into_iter().for_each(|door| door.shut(&reactor.registry));
        }
    }
}

impl Next<'_> {
    fn keep(&mut self, old: &Open, setup: ListenerSetup) {
        let setup = Arc::new(ListenerSetup { address: old.setup.address, ..setup });
        self.table[old.number] = self.table[old.number].with(setup.clone());
        self.enter(Open { setup, ..old.clone() });
    }

    fn take_over(&mut self, old: &Open, setup: ListenerSetup, number: usize, meters: &Meters) {
        let wanted = setup.address;
        let setup = Arc::new(ListenerSetup { address: old.setup.address, ..setup });
        self.told.push(format!("listener {} at {}: changed, for new connections", setup.name, setup.address));
        self.put(number, Listening::new(setup.clone(), meters));
        self.moved.push((old.door, number));
        self.enter(Open { wanted, setup, number, ..old.clone() });
    }

    fn open(
        &mut self,
        bound: listen::BoundListener,
        setup: ListenerSetup,
        number: usize,
        meters: &Meters,
    ) -> io::Result<()> {
        let (wanted, door) = (setup.address, self.next_door);
        self.next_door += 1;
        for ((reactor, doors), socket) in self.doors.reactors.iter().zip(&mut self.doors.new).zip(bound.sockets) {
            doors.push(Door::new(&reactor.registry, socket, door, number)?);
        }
        let setup = Arc::new(ListenerSetup { address: bound.address, ..setup });
        self.told.push(format!("listener {} at {}: new", setup.name, setup.address));
        self.put(number, Listening::new(setup.clone(), meters));
        self.enter(Open { wanted, setup, number, door, activated: bound.activated });
        Ok(())
    }

    fn put(&mut self, number: usize, listener: Listening) {
        if number == self.table.len() {
            self.table.push(listener);
            self.by_number.push(None);
        } else {
            self.table[number] = listener;
        }
    }

    fn enter(&mut self, open: Open) {
        self.by_number[open.number] = Some(self.open.len());
        self.open.push(open);
    }
}

impl Prepared<'_> {
    /// By number: which of the wanted listeners, in their order, its connections are of; nothing for one that is gone, whose
    /// last connections may still be there under what held before.
    pub fn by_number(&self) -> &[Option<usize>] {
        &self.next.by_number
    }

    /// Where each listener will be, in the order wanted.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.next.open.iter().map(|open| open.setup.address).collect()
    }

    /// Puts it in force; when it returns, no connection is accepted on the old terms any more. Tells what became of which
    /// listener, a line each; those that stay as they are are not named.
    pub fn commit(mut self) -> Vec<String> {
        let closed: Vec<Open> =
            self.running.open.drain(..).filter(|old| self.next.open.iter().all(|new| new.door != old.door)).collect();
        self.inner.control.listeners.store(Arc::new(std::mem::take(&mut self.next.table)));
        let (done, all_done) = mpsc::channel();
        for (reactor, opened) in self.inner.reactors.iter().zip(std::mem::take(&mut self.next.doors.new)) {
            let change = Change {
                opened,
                moved: self.next.moved.clone(),
                closed: closed.iter().map(|old| old.door).collect(),
                done: done.clone(),
            };
            // A reactor that has ended serves nobody, and its sockets end with the message.
            let _ = reactor.changes.send(change);
            reactor.alarm.ring();
        }
        drop(done);
        // Ends when every reactor has dropped its copy, whatever became of it.
        all_done.iter().for_each(drop);
        let listeners = self.inner.control.listeners.load();
        let parting = |old: &Open| farewell(old, listeners[old.number].connections());
        self.next.told.extend(closed.iter().map(parting));
        self.running.open = std::mem::take(&mut self.next.open);
        self.running.next_door = self.next.next_door;
        for line in &self.next.told {
            tracing::info!("{line}");
        }
        std::mem::take(&mut self.next.told)
    }
}

fn farewell(old: &Open, connections: usize) -> String {
    let mut text = format!("listener {} at {}: closed", old.setup.name, old.setup.address);
    if connections > 0 {
        text.push_str(&format!("; its connections go on: {connections}"));
    }
    if old.activated {
        text.push_str("; systemd still holds the port: take it out of weir.socket too");
    }
    text
}

/// What each wanted listener has of those that run. First the same ones are found, then those of which only the
/// address is the same: no order of the file can then give one's sockets to another.
fn relate(running: &[Open], wanted: &[ListenerSetup]) -> Vec<Kin> {
    let mut left: Vec<Option<&Open>> = running.iter().map(Some).collect();
    let mut kin = vec![Kin::None; wanted.len()];
    let mut claim = |fits: fn(&Open, &ListenerSetup) -> bool, found: fn(usize) -> Kin| {
        for (setup, kin) in iter::zip(wanted, &mut kin).filter(|(_, kin)| **kin == Kin::None) {
            if let Some(place) = left.iter().position(|old| old.is_some_and(|old| fits(old, setup))) {
                left[place] = None;
                *kin = found(place);
            }
        }
    };
    claim(is_same, Kin::Same);
    claim(has_its_address, Kin::Sockets);
    kin
}

fn is_same(old: &Open, new: &ListenerSetup) -> bool {
    let old_terms = (old.wanted, &old.setup.name, old.setup.tls, old.setup.terms);
    old_terms == (new.address, &new.name, new.tls, new.terms)
}

/// Port 0 is another port for each listener, so there the name counts too.
fn has_its_address(old: &Open, new: &ListenerSetup) -> bool {
    let real = new.address.port() != 0 && old.setup.address == new.address;
    real || (old.wanted == new.address && old.setup.name == new.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::Limits;
    use crate::config::settings::ListenerTls;

    fn setup(name: &str, terms: &'static str, address: &str) -> ListenerSetup {
        ListenerSetup {
            name: name.into(),
            terms,
            address: address.parse().unwrap(),
            tls: ListenerTls::None,
            proxy_networks: vec![],
            trusted: vec![],
            limits: Limits::default(),
        }
    }

    fn open(setup: ListenerSetup, real: &str) -> Open {
        let wanted = setup.address;
        let setup = Arc::new(ListenerSetup { address: real.parse().unwrap(), ..setup });
        Open { wanted, setup, number: 0, door: 0, activated: false }
    }

    #[test]
    fn a_listener_is_known_by_address_name_and_terms_and_its_sockets_by_the_address() {
        let running = [
            open(setup("mx", "mx", "0.0.0.0:25"), "0.0.0.0:25"),
            open(setup("in", "submission", "0.0.0.0:587"), "0.0.0.0:587"),
            open(setup("any", "relay", "127.0.0.1:0"), "127.0.0.1:4001"),
            open(setup("any", "relay", "127.0.0.1:0"), "127.0.0.1:4002"),
        ];
        let cases = [
            // What runs, in another order.
            (
                vec![setup("in", "submission", "0.0.0.0:587"), setup("mx", "mx", "0.0.0.0:25")],
                vec![Kin::Same(1), Kin::Same(0)],
            ),
            // Another role, another name, and two that change their ports with each other.
            (vec![setup("mx", "relay", "0.0.0.0:25")], vec![Kin::Sockets(0)]),
            (vec![setup("world", "mx", "0.0.0.0:25")], vec![Kin::Sockets(0)]),
            (
                vec![setup("mx", "mx", "0.0.0.0:587"), setup("in", "submission", "0.0.0.0:25")],
                vec![Kin::Sockets(1), Kin::Sockets(0)],
            ),
            // Another address.
            (vec![setup("mx", "mx", "192.0.2.1:25")], vec![Kin::None]),
            // Ports that the system chose: each is kept once, the third is a new one.
            (
                [0, 1, 2].map(|_| setup("any", "relay", "127.0.0.1:0")).to_vec(),
                vec![Kin::Same(2), Kin::Same(3), Kin::None],
            ),
            (
                vec![setup("any", "mx", "127.0.0.1:0"), setup("one", "mx", "127.0.0.1:0")],
                vec![Kin::Sockets(2), Kin::None],
            ),
            // The port that the system chose, now by its number.
            (vec![setup("any", "relay", "127.0.0.1:4002")], vec![Kin::Sockets(3)]),
            (vec![], vec![]),
        ];
        for (wanted, expected) in cases {
            assert_eq!(relate(&running, &wanted), expected, "{wanted:?}");
        }
    }
}
