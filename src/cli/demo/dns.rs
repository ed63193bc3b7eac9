//! A small authoritative DNS server for the demo and the tests: zones from text, on a loopback port. I/O: sockets.
//!
//! Real DNS over UDP and TCP, so the resolver that production uses is what the demo exercises.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::TokioRuntimeProvider;
use hickory_server::proto::rr::{LowerName, Name};
use hickory_server::proto::serialize::txt::Parser;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

/// A TCP client that is silent this long is closed.
const TCP_IDLE: Duration = Duration::from_secs(5);
/// Answers kept for one TCP client that does not read them.
const TCP_ANSWERS: usize = 16;
/// Tries to find a port that is free for both UDP and TCP.
const PORT_TRIES: usize = 20;

/// The running server; ends when dropped.
pub struct ZoneServer {
    address: SocketAddr,
    _server: Server<Catalog>,
}

impl ZoneServer {
    /// Serves `zones`, pairs of an origin (`example.org.`) and records in master file format (RFC 1035 §5), on loopback.
    /// # Errors
    /// When a zone does not parse or no port can be had.
    pub async fn start(zones: &[(&str, &str)]) -> io::Result<Self> {
        let mut catalog = Catalog::new();
        for (origin, text) in zones {
            let origin = Name::from_ascii(origin).map_err(io::Error::other)?;
            catalog.upsert(LowerName::new(&origin), vec![Arc::new(zone(&origin, text)?)]);
        }
        let (udp, tcp) = sockets().await?;
        let address = udp.local_addr()?;
        let mut server = Server::new(catalog);
        server.register_socket(udp);
        server.register_listener(tcp, TCP_IDLE, TCP_ANSWERS);
        Ok(ZoneServer { address, _server: server })
    }

    /// Where it listens, UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn zone(origin: &Name, text: &str) -> io::Result<InMemoryZoneHandler<TokioRuntimeProvider>> {
    let (_, records) = Parser::new(text, None, Some(origin.clone())).parse().map_err(io::Error::other)?;
    InMemoryZoneHandler::new(origin.clone(), records, ZoneType::Primary, AxfrPolicy::Deny).map_err(io::Error::other)
}

/// One port number for both protocols.
async fn sockets() -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = io::Error::other("no port tried");
    for _ in 0..PORT_TRIES {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) => last = error,
        }
    }
    Err(last)
}
