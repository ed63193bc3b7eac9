//! Posts a report to an `https:` destination. I/O: DNS, TCP, TLS. RFC 8460 §3.
//!
//! The URI was written by a stranger: no redirect is followed, nothing of the answer but its status is read, and addresses that are not of
//! the internet are not called, unless delivery may call them too.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::config::settings::Deliver;
use crate::deliver::transport::target::is_local;
use crate::deliver::transport::tls::ClientTls;
use crate::dns::Resolver;

/// For all of it.
const TIMEOUT: Duration = Duration::from_secs(30);
const HTTPS_PORT: u16 = 443;

/// Posts `body`; done if the answer is a 2xx.
/// # Errors
/// In words.
pub(super) async fn post(
    resolver: &Resolver,
    uri: &str,
    media_type: &str,
    body: Vec<u8>,
    settings: &Deliver,
) -> Result<(), String> {
    let posted = tokio::time::timeout(TIMEOUT, exchange(resolver, uri, media_type, body, settings)).await;
    let status = posted.map_err(|_| "no answer in time".to_owned())??;
    if status.is_success() { Ok(()) } else { Err(format!("answered {status}")) }
}

async fn exchange(
    resolver: &Resolver,
    uri: &str,
    media_type: &str,
    body: Vec<u8>,
    settings: &Deliver,
) -> Result<hyper::StatusCode, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let uri: Uri = uri.parse().map_err(|_| "no URI".to_owned())?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or("no plain host")?;
    let (host, port) = (authority.host(), authority.port_u16().unwrap_or(HTTPS_PORT));
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no host name"))?;
    let found = resolver.addresses(host).await.map_err(|error| text(&error))?;
    let mut found = found.into_iter().filter(|address| settings.allow_local || !is_local(*address));
    let address = found.next().ok_or_else(|| format!("{host} has no address in the internet"))?;
    let stream = TcpStream::connect(SocketAddr::new(address, port)).await.map_err(|error| text(&error))?;
    let connector = ClientTls::open(settings.ca_file.as_deref())?.connector(true).map_err(|error| text(&error))?;
    let stream = connector.connect(name, stream).await.map_err(|error| text(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    // It ends with the sender, at the end of this function.
    tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(HOST, authority.as_str())
        .header(USER_AGENT, concat!("Weir/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, media_type)
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| text(&error))?;
    sender.send_request(request).await.map(|answer| answer.status()).map_err(|error| text(&error))
}
