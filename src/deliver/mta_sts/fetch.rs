//! Fetches one MTA-STS policy. I/O: HTTPS to `mta-sts.DOMAIN`.
//!
//! RFC 8461 §3.3: the certificate must be valid for that name, no redirect is followed, nothing but 200 and text/plain counts, and
//! both size and time are bounded. Strangers' DNS does not lead us to private addresses unless `[deliver] allow_local`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::policy::POLICY_BYTES_MAX;
use crate::config::settings::Deliver;
use crate::deliver::tls_result::{FailureType, TlsFailure};
use crate::deliver::transport::target::is_local;
use crate::deliver::transport::tls::ClientTls;
use crate::dns::Resolver;

/// For the whole of it; RFC 8461 §3.3 suggests a minute, but mail waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);
/// For one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses tried.
const ADDRESSES_MAX: usize = 3;

/// The text of the policy of `domain`.
/// # Errors
/// A failure for the report.
pub async fn fetch(
    resolver: &Resolver,
    tls: &ClientTls,
    settings: &Deliver,
    domain: &str,
) -> Result<String, TlsFailure> {
    let host = format!("mta-sts.{domain}");
    let fetched = timeout(FETCH_TIMEOUT, ask(resolver, tls, settings, &host)).await;
    fetched.unwrap_or_else(|_| Err(trouble("no answer in time")))
}

fn trouble(why: &str) -> TlsFailure {
    TlsFailure::new(FailureType::StsPolicyFetchError, why)
}

async fn ask(resolver: &Resolver, tls: &ClientTls, settings: &Deliver, host: &str) -> Result<String, TlsFailure> {
    let addresses = resolver.addresses(host).await.map_err(|fault| trouble(&format!("{host}: {fault}")))?;
    let stream = connect(&addresses, settings).await?;
    let connector = tls.connector(true).map_err(|why| trouble(&why))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| trouble(&error.to_string()))?;
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(|error| TlsFailure::new(FailureType::StsWebpkiInvalid, &format!("{host}: {error}")))?;
    let io = |error: hyper::Error| trouble(&error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io)?;
    let driver = tokio::spawn(connection);
    let request = Request::get("/.well-known/mta-sts.txt")
        .header(HOST, host)
        .header(USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .expect("a request of fixed parts is well formed");
    let answered = match sender.send_request(request).await {
        Ok(response) => read(response).await,
        Err(error) => Err(io(error)),
    };
    driver.abort();
    answered
}

async fn connect(addresses: &[IpAddr], settings: &Deliver) -> Result<TcpStream, TlsFailure> {
    let mut last = trouble("its addresses are private or local");
    let allowed = addresses.iter().filter(|address| settings.allow_local || !is_local(**address));
    for address in allowed.take(ADDRESSES_MAX) {
        let address = SocketAddr::new(*address, settings.mta_sts_port);
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = trouble(&format!("{address}: {error}")),
            Err(_) => last = trouble(&format!("{address}: no connection in time")),
        }
    }
    Err(last)
}

async fn read(response: Response<Incoming>) -> Result<String, TlsFailure> {
    if response.status() != StatusCode::OK {
        return Err(trouble(&format!("HTTP status {}", response.status().as_u16())));
    }
    let kind = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind != "text/plain" {
        return Err(trouble(&format!("content type `{kind}` instead of text/plain")));
    }
    let body = Limited::new(response.into_body(), POLICY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| trouble(&error.to_string()))?.to_bytes();
    String::from_utf8(body.to_vec())
        .map_err(|_| TlsFailure::new(FailureType::StsPolicyInvalid, "the policy is not UTF-8"))
}
