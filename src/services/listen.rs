//! The listeners of the services: who is let in, how many, how long. I/O: TCP on tokio.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::meters::Meters;
use super::{Fate, Judge, Judgement, milter, rspamd, spamd};
use crate::config::scanners::Service;

/// After a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Milter protocol 6.
    Milter,
    /// HTTP `/checkv2`.
    Rspamd,
    /// SpamAssassin's.
    Spamd,
}

impl Kind {
    /// The word of the configuration, of logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Milter => "milter",
            Kind::Rspamd => "rspamd",
            Kind::Spamd => "spamd",
        }
    }
}

/// Bound listeners that do not yet accept.
#[derive(Default)]
pub struct Bound(Vec<(Kind, TcpListener)>);

/// Binds what `[service]` asks for.
/// # Errors
/// When an address can't be bound; it is in the text.
pub fn bind(settings: &Service) -> io::Result<Bound> {
    let wanted = [(Kind::Milter, settings.milter), (Kind::Spamd, settings.spamd), (Kind::Rspamd, settings.rspamd)];
    let mut bound = Bound::default();
    for (kind, address) in wanted {
        let Some(address) = address else { continue };
        let listener = TcpListener::bind(address)
            .map_err(|error| io::Error::new(error.kind(), format!("{} {address}: {error}", kind.as_str())))?;
        listener.set_nonblocking(true)?;
        bound.0.push((kind, listener));
    }
    Ok(bound)
}

impl Bound {
    /// Names and addresses of what is bound.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.0.iter().filter_map(|(kind, listener)| Some((kind.as_str(), listener.local_addr().ok()?))).collect()
    }

    /// Serves on all of them until `stop` is there; conversations under way are dropped then.
    /// # Errors
    /// When a listener can't be used.
    pub async fn serve(self, judge: Arc<dyn Judge>, meters: Meters, stop: impl Future<Output = ()>) -> io::Result<()> {
        let mut listeners = JoinSet::new();
        for (kind, listener) in self.0 {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            listeners.spawn(accept(kind, listener, judge.clone(), meters.clone()));
        }
        stop.await;
        Ok(())
    }
}

async fn accept(kind: Kind, listener: tokio::net::TcpListener, judge: Arc<dyn Judge>, meters: Meters) {
    let places = Arc::new(Semaphore::new(judge.settings().connections));
    let mut conversations = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_ended) = conversations.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, service = kind.as_str(), "can't accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let refuse = |reason: &str| meters.refused.with_label_values(&[kind.as_str(), reason]).inc();
        let ip = peer.ip().to_canonical();
        if !judge.settings().networks.iter().any(|network| network.contains(&ip)) {
            tracing::warn!(client = %ip, service = kind.as_str(), "not of [service] networks");
            refuse("network");
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            refuse("full");
            continue;
        };
        let (judge, meters) = (judge.clone(), meters.clone());
        conversations.spawn(async move {
            let gauge = meters.connections.with_label_values(&[kind.as_str()]);
            gauge.inc();
            if let Err(error) = converse(kind, stream, &judge, &meters).await {
                tracing::debug!(client = %ip, service = kind.as_str(), %error, "a conversation failed");
            }
            gauge.dec();
            drop(place);
        });
    }
}

async fn converse(kind: Kind, stream: TcpStream, judge: &Arc<dyn Judge>, meters: &Meters) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let desk = Desk { kind, judge: judge.clone(), settings: judge.settings(), meters: meters.clone() };
    match kind {
        Kind::Milter => milter::serve(stream, &desk).await,
        Kind::Rspamd => rspamd::serve(stream, desk).await,
        Kind::Spamd => spamd::serve(stream, &desk).await,
    }
}

/// What one conversation needs.
#[derive(Clone)]
pub struct Desk {
    /// Its protocol.
    pub kind: Kind,
    /// Who judges.
    pub judge: Arc<dyn Judge>,
    /// `[service]` as it was when the client came.
    pub settings: Service,
    meters: Meters,
}

impl Desk {
    /// Judges and counts.
    pub async fn judge(&self, case: super::Case) -> Option<Judgement> {
        let judgement = self.judge.judge(case).await;
        let answer = match judgement.as_ref().map(|judgement| &judgement.fate) {
            None => "busy",
            Some(Fate::Deliver) => "deliver",
            Some(Fate::Discard) => "discard",
            Some(Fate::Quarantine(_)) => "quarantine",
            Some(Fate::Refuse(reply)) if reply.is_permanent() => "reject",
            Some(Fate::Refuse(_)) => "defer",
        };
        self.meters.judged.with_label_values(&[self.kind.as_str(), answer]).inc();
        judgement
    }
}
