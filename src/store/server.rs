//! The POP3 server: listeners, TLS, limits, and the driver of each conversation. I/O: network (tokio), disk on blocking threads.
//!
//! Password checks cost CPU and memory, so only a few run at once; the rest wait. A panic ends one conversation. A client that
//! does not read what it asked for is dropped after [`WRITE_MAX`]. Stopping lets a message that is under way end, within [`STOP_MAX`].

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::mailbox::Mailboxes;
use super::maildrop::{Maildrop, OpenError};
use super::meters::Meters;
use super::pop3::ask::{Answer, Ask};
use super::pop3::session::{Options, Session};
use super::users::Users;
use super::users::password::random;
use crate::base::machine::{Control, Machine, TlsFacts};
use crate::base::secret::Secret;
use crate::config::settings::Store;

/// Gives the TLS configuration of the moment, so that certificates can be swapped; none: no TLS.
pub type TlsSource = Arc<dyn Fn() -> Option<Arc<rustls::ServerConfig>> + Send + Sync>;

/// A piece of a message; what a conversation holds in memory of it.
const PIECE_BYTES: usize = 64 * 1024;
/// Input that waits unconsumed; then TCP holds the client back.
const INPUT_BYTES_MAX: usize = 16 * 1024;
/// Grown lazily: an idle session keeps one read's worth.
const READ_BYTES: usize = 1024;
/// For one write; a client that takes less than a piece in this time is gone.
const WRITE_MAX: Duration = Duration::from_secs(5 * 60);
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// For TLS's close_notify and the last bytes.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// After a stop, for messages that are under way.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Wait after an accept that failed: out of file descriptors is not cured by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Password checks at once; each takes one core and 19 MiB.
const CHECKS_MAX: usize = 4;

/// The listeners, bound.
pub struct Pop3Server {
    listeners: Vec<(TcpListener, bool)>,
    shared: Arc<Shared>,
}

struct Shared {
    hostname: String,
    plaintext_login: bool,
    connections_max: u32,
    connections_per_ip_max: u32,
    tls: TlsSource,
    users: Arc<Users>,
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
    /// Binds what `settings` names; with neither address the server has nothing to do.
    /// # Errors
    /// An address that can't be bound.
    pub async fn bind(
        settings: &Store,
        hostname: &str,
        tls: TlsSource,
        users: Arc<Users>,
        mailboxes: Arc<Mailboxes>,
        meters: Arc<Meters>,
    ) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for (address, implicit_tls) in [(settings.pop3, false), (settings.pop3s, true)] {
            if let Some(address) = address {
                listeners.push((TcpListener::bind(address).await?, implicit_tls));
            }
        }
        let shared = Shared {
            hostname: hostname.to_owned(),
            plaintext_login: settings.plaintext_login,
            connections_max: settings.connections,
            connections_per_ip_max: settings.connections_per_ip,
            tls,
            users,
            mailboxes,
            meters,
            checks: Semaphore::new(CHECKS_MAX),
            places: Mutex::default(),
        };
        Ok(Pop3Server { listeners, shared: Arc::new(shared) })
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
        let (listener, _) = self.listeners.iter().find(|(_, implicit)| *implicit == implicit_tls)?;
        listener.local_addr().ok()
    }

    /// Serves until `shutdown` is ready, then lets conversations end.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(false);
        let mut acceptors = JoinSet::new();
        for (listener, implicit_tls) in self.listeners {
            acceptors.spawn(accept(listener, implicit_tls, self.shared.clone(), stopped.clone()));
        }
        shutdown.await;
        let _ = stop.send(true);
        if timeout(STOP_MAX, async { while acceptors.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("POP3 sessions cut off at the end of the stop deadline");
        }
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
        world: World { shared: place.shared.clone(), peer, maildrop: None },
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
        let timestamp = self.users.offers_apop().then(|| format!("<{unique}@{}>", self.hostname).into());
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

/// One conversation and its connection.
struct Driver {
    machine: Session,
    world: World,
    input: Vec<u8>,
    eof: bool,
    stopped: watch::Receiver<bool>,
    stop_told: bool,
}

impl Driver {
    async fn run(&mut self, mut stream: Stream) -> io::Result<()> {
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

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Answers the questions of one conversation.
struct World {
    shared: Arc<Shared>,
    peer: SocketAddr,
    maildrop: Option<Maildrop>,
}

impl World {
    async fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Password { login, password } => self.check_password(login, password).await,
            Ask::Apop { login, timestamp, digest } => {
                let user = self.shared.users.verify_apop(&login, &timestamp, &digest);
                self.judge(&login, user)
            }
            Ask::ScramKeys { login } => Answer::ScramKeys(self.shared.users.scram_keys(&login)),
            Ask::AuthFailed => self.judge("", None),
            Ask::Open { user } => self.open(user).await,
            Ask::Read { index, offset } => self.read(index, offset).await,
            Ask::Remove { indexes } => self.remove(indexes).await,
        }
    }

    async fn check_password(&self, login: String, password: Secret) -> Answer {
        let Ok(_turn) = self.shared.checks.acquire().await else {
            return Answer::Unavailable;
        };
        let (users, name) = (self.shared.users.clone(), login.clone());
        match blocking(move || users.verify(&name, &password, Instant::now())).await {
            Some(user) => self.judge(&login, user),
            None => Answer::Unavailable,
        }
    }

    fn judge(&self, login: &str, user: Option<Arc<str>>) -> Answer {
        match user {
            Some(user) => Answer::Authenticated(user),
            None => {
                tracing::info!(peer = %self.peer, login, "POP3 login failed");
                self.count_login("failed");
                Answer::Refused
            }
        }
    }

    fn count_login(&self, result: &str) {
        self.shared.meters.logins.with_label_values(&[result]).inc();
    }

    async fn open(&mut self, user: Arc<str>) -> Answer {
        let (mailboxes, name) = (self.shared.mailboxes.clone(), user.clone());
        let opened = blocking(move || Maildrop::open(&mailboxes, &name)).await;
        match opened {
            Some(Ok((maildrop, entries))) => {
                tracing::debug!(peer = %self.peer, %user, messages = entries.len(), "POP3 login");
                self.count_login("ok");
                self.maildrop = Some(maildrop);
                Answer::Opened(entries)
            }
            Some(Err(OpenError::InUse)) => {
                self.count_login("in_use");
                Answer::InUse
            }
            Some(Err(OpenError::Io(error))) => {
                tracing::error!(%user, %error, "mailbox can't be opened");
                self.count_login("unavailable");
                Answer::Unavailable
            }
            None => Answer::Unavailable,
        }
    }

    /// Lends the maildrop to a blocking thread.
    async fn with_maildrop<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Maildrop) -> T + Send + 'static,
    ) -> Option<T> {
        let mut maildrop = self.maildrop.take()?;
        let (maildrop, value) = blocking(move || {
            let value = work(&mut maildrop);
            (maildrop, value)
        })
        .await?;
        self.maildrop = Some(maildrop);
        Some(value)
    }

    async fn read(&mut self, index: usize, offset: u64) -> Answer {
        match self.with_maildrop(move |maildrop| maildrop.read(index, offset, PIECE_BYTES)).await {
            Some(Ok(bytes)) => {
                self.shared.meters.retrieved_bytes.inc_by(bytes.len() as u64);
                let last = bytes.len() < PIECE_BYTES;
                Answer::Piece { bytes, last }
            }
            Some(Err(error)) => {
                tracing::warn!(peer = %self.peer, %error, "message can't be read");
                Answer::Unavailable
            }
            None => Answer::Unavailable,
        }
    }

    async fn remove(&mut self, indexes: Vec<usize>) -> Answer {
        let wanted = indexes.len();
        let failed = self.with_maildrop(move |maildrop| maildrop.remove(&indexes)).await.unwrap_or(wanted);
        self.shared.meters.removed_messages.inc_by((wanted - failed) as u64);
        Answer::Removed { failed }
    }
}

/// Runs `work` where it may block; nothing if it panicked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::error!(%error, "store work failed");
            None
        }
    }
}

/// A connection before or under TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    async fn start_tls(self, source: &TlsSource) -> io::Result<Self> {
        let Stream::Plain(stream) = self else {
            return Err(io::Error::other("TLS inside TLS"));
        };
        let config = source().ok_or_else(|| io::Error::other("no TLS configuration"))?;
        let accepted = within(HANDSHAKE_MAX, TlsAcceptor::from(config).accept(stream)).await?;
        Ok(Stream::Tls(Box::new(accepted)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
