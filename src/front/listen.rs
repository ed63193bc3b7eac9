//! Listening sockets: bound once, before privileges are dropped. I/O: binds.
//!
//! Each reactor has a socket of its own per listener (SO_REUSEPORT), so that the kernel spreads connections and no lock
//! is shared; a socket that systemd handed over is shared by all reactors instead. An address that another process
//! listens on is an error even though SO_REUSEPORT would allow it: two servers must not split one port by accident.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::limits::Limits;
use crate::config::settings::{self, ListenerTls};

/// Connections that the kernel completes ahead of `accept`; net.core.somaxconn bounds it.
const BACKLOG: i32 = 4096;

/// One listener as the configuration wants it.
#[derive(Clone, Debug)]
pub struct ListenerSetup {
    /// Where; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Whether TLS begins at once, on demand, or never.
    pub tls: ListenerTls,
    /// Peers that must begin with a PROXY header.
    pub proxy_networks: Vec<IpNet>,
    /// Peers that are not counted by address or network and may use the reserved places.
    pub trusted: Vec<IpNet>,
    /// `connections*` and `handshake_timeout` are used here.
    pub limits: Limits,
}

impl ListenerSetup {
    /// From the checked settings; `trusted` is `relay.networks`.
    pub fn new(listener: &settings::Listener, trusted: &[IpNet]) -> Self {
        ListenerSetup {
            address: listener.address,
            tls: listener.tls,
            proxy_networks: listener.proxy_protocol.clone(),
            trusted: trusted.to_vec(),
            limits: listener.limits.clone(),
        }
    }
}

/// Sockets of one listener, one per reactor.
pub(super) struct BoundListener {
    pub address: SocketAddr,
    pub sockets: Vec<TcpListener>,
}

/// Binds one listener `reactors` times, or shares the socket among `activated` that has its address.
/// # Errors
/// With the address in the text.
pub(super) fn bind(setup: &ListenerSetup, reactors: usize, activated: &mut Vec<OwnedFd>) -> io::Result<BoundListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", setup.address));
    if let Some(shared) = take_activated(setup.address, activated) {
        let sockets = (0..reactors).map(|_| shared.try_clone()).collect::<io::Result<_>>().map_err(named)?;
        return Ok(BoundListener { address: setup.address, sockets });
    }
    if setup.address.port() != 0 {
        socket(setup.address, false).map_err(named)?;
    }
    let first = socket(setup.address, true).map_err(named)?;
    let address = first.local_addr().map_err(named)?;
    let mut sockets = vec![first];
    while sockets.len() < reactors {
        sockets.push(socket(address, true).map_err(named)?);
    }
    for socket in &sockets {
        socket2::SockRef::from(socket).listen(BACKLOG).map_err(named)?;
    }
    Ok(BoundListener { address, sockets })
}

/// A bound socket that does not listen yet.
fn socket(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Each family is a listener of its own; what is bound must not depend on a sysctl.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_tcp_nodelay(true)?; // accepted sockets inherit it on Linux
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn take_activated(address: SocketAddr, activated: &mut Vec<OwnedFd>) -> Option<TcpListener> {
    let position = activated.iter().position(|fd| {
        let bound = socket2::SockRef::from(fd).local_addr().ok().and_then(|a| a.as_socket());
        bound.is_some_and(|bound| is_same(bound, address))
    })?;
    let socket = Socket::from(activated.swap_remove(position));
    let prepared = socket.set_nonblocking(true).and_then(|()| socket.set_tcp_nodelay(true));
    if let Err(error) = prepared {
        tracing::warn!(%address, %error, "a socket from systemd can't be prepared; binding anew");
        return None;
    }
    Some(socket.into())
}

/// systemd's `ListenStream=25` binds `[::]:25` for both families; that serves a listener at `0.0.0.0:25` too.
fn is_same(bound: SocketAddr, wanted: SocketAddr) -> bool {
    let both_any = bound.ip().is_unspecified() && wanted.ip().is_unspecified() && bound.is_ipv6();
    bound == wanted || (both_any && bound.port() == wanted.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(address: SocketAddr) -> ListenerSetup {
        ListenerSetup {
            address,
            tls: ListenerTls::None,
            proxy_networks: vec![],
            trusted: vec![],
            limits: Limits::default(),
        }
    }

    #[test]
    fn reactors_share_a_port_but_a_second_server_is_told() {
        let any = setup("127.0.0.1:0".parse().unwrap());
        let bound = bind(&any, 3, &mut vec![]).unwrap();
        assert_eq!(bound.sockets.len(), 3);
        assert!(bound.sockets.iter().all(|s| s.local_addr().unwrap() == bound.address));
        let again = bind(&setup(bound.address), 1, &mut vec![]).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        assert!(again.to_string().starts_with(&bound.address.to_string()), "{again}");
    }

    #[test]
    fn a_socket_from_systemd_is_matched_by_address() {
        let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = theirs.local_addr().unwrap();
        let mut activated = vec![OwnedFd::from(theirs)];
        let bound = bind(&setup(address), 2, &mut activated).unwrap();
        assert!(activated.is_empty());
        assert_eq!(bound.sockets.len(), 2);
    }
}
