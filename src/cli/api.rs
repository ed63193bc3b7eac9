//! The API of a running Weir, as subcommands call it. I/O: HTTP over loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::{ConfigFile, Exit};
use crate::admin::model::Refusal;
use crate::admin::token;
use crate::base::secret::Secret;
use crate::config::Config;
use crate::flow::run_file::RunFile;

/// A list of a hundred thousand entries fits.
const ANSWER_BYTES_MAX: usize = 256 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As long as the server gives a connection, and a little more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(125);

/// Where the API is and what opens it.
pub struct Api {
    address: SocketAddr,
    token: Secret,
}

impl Api {
    /// Finds both by the configuration.
    /// # Errors
    /// The exit code, once the reason is on standard error.
    pub fn find(config: &ConfigFile) -> Result<Self, Exit> {
        let config = config.load_or_complain()?;
        Api::of(&config).map_err(|(exit, why)| exit.because(why))
    }

    /// The API of the Weir that runs with this configuration; nothing if none answers there.
    pub fn running(config: &Config) -> Option<Self> {
        let api = Api::of(config).ok()?;
        std::net::TcpStream::connect_timeout(&api.address, CONNECT_TIMEOUT).is_ok().then_some(api)
    }

    fn of(config: &Config) -> Result<Self, (Exit, String)> {
        let address = address_of(config)?;
        let token = token::load(config).map_err(|error| {
            let path = token::path_of(&config.data_dir);
            // No file yet means no Weir yet; it is made at the first start.
            let exit = if error.kind() == std::io::ErrorKind::NotFound { Exit::Temporary } else { Exit::No };
            (exit, format!("no token for the API from {}: {error}", path.display()))
        })?;
        Ok(Api { address: reachable(address), token })
    }

    /// `GET path`.
    /// # Errors
    /// As for [`Api::find`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Exit> {
        self.call(Method::GET, path, Bytes::new())
    }

    /// `POST path` with a JSON body.
    /// # Errors
    /// As for [`Api::find`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Exit> {
        let body = serde_json::to_vec(body).expect("our values have only string keys");
        self.call(Method::POST, path, body.into())
    }

    /// `GET path`, without a word if there is no answer.
    pub fn look<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        serde_json::from_slice(&self.bytes(path)?).ok()
    }

    /// The same for what is no JSON.
    pub fn bytes(&self, path: &str) -> Option<Vec<u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let asked = self.exchange(Method::GET, path, Bytes::new());
        let exchange = async { tokio::time::timeout(ANSWER_TIMEOUT, asked).await };
        let (status, bytes) = runtime.block_on(exchange).ok()?.ok()?;
        (status == StatusCode::OK).then(|| bytes.to_vec())
    }

    fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let exchanged = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
            // The timer must be made inside the runtime.
            let exchange = async { tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, path, body)).await };
            runtime.block_on(exchange).unwrap_or_else(|_| Err("no answer in time".to_owned()))
        });
        let (status, bytes) = exchanged.map_err(|why| {
            eprintln!("error: no Weir answers at {}: {why}", self.address);
            Exit::Temporary
        })?;
        if status != StatusCode::OK {
            let refusal: Option<Refusal> = serde_json::from_slice(&bytes).ok();
            eprintln!(
                "error: {}",
                refusal.map_or_else(|| status.to_string(), |refusal| super::table::plain(&refusal.error))
            );
            return Err(if status == StatusCode::SERVICE_UNAVAILABLE { Exit::Temporary } else { Exit::No });
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            eprintln!("error: the answer is not understood ({error}); is the running Weir of another version?");
            Exit::No
        })
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await;
        let stream = stream.map_err(|error| text(&error))?.map_err(|error| text(&error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token.expose()))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| text(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| text(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| text(&error))?.to_bytes()))
    }
}

/// Where the API is; a port that the system chose stands in the run file.
fn address_of(config: &Config) -> Result<SocketAddr, (Exit, String)> {
    match config.admin.address {
        Some(address) if address.port() != 0 => Ok(address),
        Some(_) => RunFile::look_up(&config.data_dir, "admin").ok_or_else(|| {
            (
                Exit::Temporary,
                format!("no Weir runs on {}: it would say its port in run.json", config.data_dir.display()),
            )
        }),
        None => {
            Err((Exit::No, "the configuration has no [admin] address, so a running Weir can't be asked".to_owned()))
        }
    }
}

/// An address that listens on all is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
