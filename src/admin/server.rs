//! The API's listener. I/O: TCP on tokio, HTTP/1.1 by hyper.
//!
//! One request a connection, so that nothing idle is held; connections, header time, whole time and body are bounded. Fails
//! only towards the client.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::backend::AdminBackend;
use super::guard::Guard;
use super::respond::respond;
use crate::observe::metrics::Metrics;

/// Connections at once; a scraper, a console and a few operators need ten.
const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The whole of a connection. An action on a million messages must fit.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// Of request line and headers together; hyper's least is 8 KiB.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// After a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Everything that a request needs.
pub struct Api {
    /// The gateway.
    pub backend: Arc<dyn AdminBackend>,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Who may ask.
    pub guard: Guard,
}

/// Serves `api` on `listener` until `stop` is there. Connections under way are dropped then.
pub async fn serve(listener: TcpListener, api: Arc<Api>, stop: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return,
            Some(_ended) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin listener can't accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Full: the stream is dropped and the client sees the connection closed.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let api = api.clone();
        connections.spawn(async move {
            converse(stream, &api).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, api: &Api) {
    let service = service_fn(async |request| Ok::<_, Infallible>(respond(api, request).await));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection failed"),
        Err(_) => tracing::debug!("an admin connection took too long"),
    }
}
