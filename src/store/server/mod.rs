//! The POP3 server: listeners, TLS, limits, and the driver of each conversation. I/O: network (tokio), disk on blocking threads.
//!
//! Password checks cost CPU and memory, so only a few run at once; the rest wait. A panic ends one conversation. A client that
//! does not read what it asked for is dropped. Stopping lets a message that is under way end, within a deadline.

mod driver;
mod stream;
mod world;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::driver::Driver;
use self::stream::Stream;
use self::world::World;
use super::mailbox::Mailboxes;
use super::meters::Meters;
use super::pop3::session::{Options, Session};
use super::users::Users;
use super::users::password::random;
use crate::config::settings::Store;

/// Gives the TLS configuration of the moment, so that certificates can be swapped; none: no TLS.
pub type TlsSource = Arc<dyn Fn() -> Option<Arc<rustls::ServerConfig>> + Send + Sync>;

/// After a stop, for messages that are under way.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Wait after an accept that failed: out of file descriptors is not cured by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Password checks at once; each takes one core and 19 MiB.
const CHECKS_MAX: usize = 4;

/// The ports, taken while the process may still do that; nobody serves them yet.
pub struct Pop3Listeners(Vec<(std::net::TcpListener, bool)>);

impl Pop3Listeners {
    /// Binds what `settings` names; with neither address there is nothing to do.
    /// # Errors
    /// An address that can't be bound; the text names it.
    pub fn bind(settings: &Store) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for (address, implicit_tls) in [(settings.pop3, false), (settings.pop3s, true)] {
            let Some(address) = address else { continue };
            let bound = std::net::TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
            listeners.push((bound.map_err(named)?, implicit_tls));
        }
        Ok(Pop3Listeners(listeners))
    }

    /// Where POP3 listens.
    pub fn pop3_address(&self) -> Option<SocketAddr> {
        self.address(false)
    }

    /// Where POP3S listens.
    pub fn pop3s_address(&self) -> Option<SocketAddr> {
        self.address(true)
    }

    fn address(&self, implicit_tls: bool) -> Option<SocketAddr> {
        let (listener, _) = self.0.iter().find(|(_, implicit)| *implicit == implicit_tls)?;
        listener.local_addr().ok()
    }
}

/// Who may try to log in: counts what failed, over all conversations and whatever the protocol.
pub trait LoginGuard: Send + Sync {
    /// False if too many logins failed, from `ip` or for `login`.
    fn may_try(&self, ip: IpAddr, login: &str) -> bool;
    /// A login failed.
    fn failed(&self, ip: IpAddr, login: &str);
}

/// Who may log in, and how often he may be wrong.
pub struct Logins {
    /// Everybody who has a mailbox.
    pub users: Arc<Users>,
    /// Ends guessing.
    pub guard: Arc<dyn LoginGuard>,
}

/// The server of these ports.
pub struct Pop3Server {
    listeners: Pop3Listeners,
    shared: Arc<Shared>,
}

struct Shared {
    hostname: String,
    plaintext_login: bool,
    connections_max: u32,
    connections_per_ip_max: u32,
    tls: TlsSource,
    logins: Logins,
    mailboxes: Arc<Mailboxes>,
    meters: Arc<Meters>,
    checks: Semaphore,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    total: u32,
    by_ip: HashMap<IpAddr, u32>,
}

impl Pop3Server {
    /// A server for `users` and their `mailboxes`.
    pub fn new(
        listeners: Pop3Listeners,
        settings: &Store,
        hostname: &str,
        tls: TlsSource,
        logins: Logins,
        mailboxes: Arc<Mailboxes>,
        meters: Arc<Meters>,
    ) -> Self {
        let shared = Shared {
            hostname: hostname.to_owned(),
            plaintext_login: settings.plaintext_login,
            connections_max: settings.connections,
            connections_per_ip_max: settings.connections_per_ip,
            tls,
            logins,
            mailboxes,
            meters,
            checks: Semaphore::new(CHECKS_MAX),
            places: Mutex::default(),
        };
        Pop3Server { listeners, shared: Arc::new(shared) }
    }

    /// Serves until `shutdown` is ready, then lets conversations end.
    /// # Errors
    /// When the runtime can't take the ports over.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let (stop, stopped) = watch::channel(false);
        let mut acceptors = JoinSet::new();
        for (listener, implicit_tls) in self.listeners.0 {
            let listener = TcpListener::from_std(listener)?;
            acceptors.spawn(accept(listener, implicit_tls, self.shared.clone(), stopped.clone()));
        }
        shutdown.await;
        let _ = stop.send(true);
        if timeout(STOP_MAX, async { while acceptors.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("POP3 sessions cut off at the end of the stop deadline");
        }
        Ok(())
    }
}

async fn accept(listener: TcpListener, implicit_tls: bool, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
        };
        match accepted {
            Ok((stream, peer)) => match Place::take(&shared, peer.ip()) {
                Some(place) => {
                    sessions.spawn(serve(stream, peer, implicit_tls, place, stopped.clone()));
                }
                None => {
                    shared.meters.refused.inc();
                    refuse(&stream, implicit_tls);
                }
            },
            Err(error) => {
                tracing::warn!(%error, "POP3 accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

/// A word for a client that is one too many; not waited for.
fn refuse(stream: &TcpStream, implicit_tls: bool) {
    if !implicit_tls {
        let _ = stream.try_write(b"-ERR [SYS/TEMP] too many connections, try again later\r\n");
    }
}

/// A connection's place in the limits, given back when dropped.
struct Place {
    shared: Arc<Shared>,
    ip: IpAddr,
}

impl Place {
    fn take(shared: &Arc<Shared>, ip: IpAddr) -> Option<Self> {
        let mut places = shared.places.lock();
        let of_ip = places.by_ip.get(&ip).copied().unwrap_or(0);
        if places.total >= shared.connections_max || of_ip >= shared.connections_per_ip_max {
            return None;
        }
        places.total += 1;
        places.by_ip.insert(ip, of_ip + 1);
        shared.meters.sessions.inc();
        shared.meters.open.inc();
        Some(Place { shared: shared.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.meters.open.dec();
        let mut places = self.shared.places.lock();
        places.total -= 1;
        if let Some(of_ip) = places.by_ip.get_mut(&self.ip) {
            *of_ip -= 1;
            if *of_ip == 0 {
                places.by_ip.remove(&self.ip);
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, implicit_tls: bool, place: Place, stopped: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let mut stream = Stream::Plain(stream);
    if implicit_tls {
        stream = match stream.start_tls(&place.shared.tls).await {
            Ok(stream) => stream,
            Err(error) => return tracing::debug!(%peer, %error, "POP3S handshake failed"),
        };
    }
    let session = place.shared.open_session(implicit_tls);
    let mut driver = Driver {
        machine: session,
        world: World { shared: place.shared.clone(), peer, maildrop: None, tried: String::new() },
        input: Vec::new(),
        eof: false,
        stopped,
        stop_told: false,
    };
    if let Err(error) = driver.run(stream).await {
        tracing::debug!(%peer, %error, "POP3 session broke");
    }
}

impl Shared {
    fn open_session(&self, tls: bool) -> Session {
        let unique = URL_SAFE_NO_PAD.encode(random::<18>());
        let timestamp = self.logins.users.offers_apop().then(|| format!("<{unique}@{}>", self.hostname).into());
        let options = Options {
            tls,
            stls: !tls && (self.tls)().is_some(),
            plaintext_login: self.plaintext_login,
            timestamp,
            nonce: URL_SAFE_NO_PAD.encode(random::<18>()),
        };
        Session::new(options, Instant::now())
    }
}
