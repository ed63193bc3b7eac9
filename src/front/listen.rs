//! Listening sockets: bound before privileges are dropped, and those that a reload brings after it. I/O: binds.
//!
//! Each reactor has a socket of its own per listener (SO_REUSEPORT), so that the kernel spreads connections and no lock
//! is shared; a socket that systemd handed over is shared by all reactors instead. An address that another process
//! listens on is an error even though SO_REUSEPORT would allow it: two servers must not split one port by accident.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::limits::Limits;
use crate::config::settings::{self, ListenerTls};

/// Connections that the kernel completes ahead of `accept`; net.core.somaxconn bounds it.
pub(super) const BACKLOG: usize = 4096;

/// One listener as the configuration wants it.
#[derive(Clone, Debug)]
pub struct ListenerSetup {
    /// For logs and errors.
    pub name: Arc<str>,
    /// What its conversations are held to for their whole life, in a word (the role). With another word, name or TLS the
    /// same address is another listener: it takes new connections, and those that are there stay with the one they came to.
    pub terms: &'static str,
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
            name: listener.name.clone(),
            terms: listener.role.as_str(),
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
    /// systemd bound it, and listens on after us.
    pub activated: bool,
}

/// Binds one listener `reactors` times, or shares the socket among `activated` that has its address. `beside` are
/// addresses of our own whose sockets may stand on the same port (another's may not).
/// # Errors
/// With the listener in the text, and what to do.
pub(super) fn bind(
    setup: &ListenerSetup,
    reactors: usize,
    activated: &[OwnedFd],
    beside: &[SocketAddr],
) -> io::Result<BoundListener> {
    let named = |error: io::Error| {
        let help = help(&error);
        io::Error::new(error.kind(), format!("listener {} at {}: {error}{help}", setup.name, setup.address))
    };
    if let Some(shared) = find_activated(setup.address, activated) {
        let sockets = (0..reactors).map(|_| shared.try_clone()).collect::<io::Result<_>>().map_err(named)?;
        return Ok(BoundListener { address: setup.address, sockets, activated: true });
    }
    if setup.address.port() != 0 && !beside.iter().any(|ours| overlaps(*ours, setup.address)) {
        socket(setup.address, false).map_err(named)?;
    }
    let first = socket(setup.address, true).map_err(named)?;
    let address = first.local_addr().map_err(named)?;
    let mut sockets = vec![first];
    while sockets.len() < reactors {
        sockets.push(socket(address, true).map_err(named)?);
    }
    for socket in &sockets {
        socket2::SockRef::from(socket).listen(BACKLOG as i32).map_err(named)?;
    }
    Ok(BoundListener { address, sockets, activated: false })
}

/// What an operator can do about an address that can't be bound.
fn help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE: AmbientCapabilities= in the unit, or a start as root with \
             `[security] user`, which keeps that right; or let systemd bind it (weir.socket)"
        }
        io::ErrorKind::AddrInUse => "; another server listens there (`ss -ltnp` names it)",
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    }
}

/// One stands for all addresses and the other for one of them, on the same port.
fn overlaps(a: SocketAddr, b: SocketAddr) -> bool {
    let covers =
        |wide: SocketAddr, narrow: SocketAddr| wide.ip().is_unspecified() && wide.is_ipv4() == narrow.is_ipv4();
    a.port() == b.port() && (covers(a, b) || covers(b, a))
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

/// A copy, as the socket itself is kept for the next reload: systemd goes on listening, so nobody else can bind it.
fn find_activated(address: SocketAddr, activated: &[OwnedFd]) -> Option<TcpListener> {
    let found = activated.iter().find(|fd| bound_to(fd).is_some_and(|bound| is_same(bound, address)))?;
    let prepared = found.try_clone().map(Socket::from).and_then(|socket| {
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        Ok(socket)
    });
    match prepared {
        Ok(socket) => Some(socket.into()),
        Err(error) => {
            tracing::warn!(%address, %error, "a socket from systemd can't be prepared; binding anew");
            None
        }
    }
}

/// The address of a socket that was handed over.
pub(super) fn bound_to(fd: &OwnedFd) -> Option<SocketAddr> {
    socket2::SockRef::from(fd).local_addr().ok()?.as_socket()
}

/// systemd's `ListenStream=25` binds `[::]:25` for both families; that serves a listener at `0.0.0.0:25` too.
pub(super) fn is_same(bound: SocketAddr, wanted: SocketAddr) -> bool {
    let both_any = bound.ip().is_unspecified() && wanted.ip().is_unspecified() && bound.is_ipv6();
    bound == wanted || (both_any && bound.port() == wanted.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(address: SocketAddr) -> ListenerSetup {
        ListenerSetup {
            name: "mx".into(),
            terms: "mx",
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
        let bound = bind(&any, 3, &[], &[]).unwrap();
        assert_eq!(bound.sockets.len(), 3);
        assert!(bound.sockets.iter().all(|s| s.local_addr().unwrap() == bound.address));
        let again = bind(&setup(bound.address), 1, &[], &[]).err().unwrap();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        let start = format!("listener mx at {}: ", bound.address);
        assert!(again.to_string().starts_with(&start) && again.to_string().ends_with("names it)"), "{again}");
    }

    // `0.0.0.0:25` becomes `192.0.2.1:25` in one reload: for a moment both are bound, by us.
    #[test]
    fn an_address_of_ours_may_be_bound_beside_the_wildcard_and_only_if_it_is_ours() {
        let wide = bind(&setup("0.0.0.0:0".parse().unwrap()), 2, &[], &[]).unwrap();
        let narrow = SocketAddr::from(([127, 0, 0, 1], wide.address.port()));
        assert_eq!(bind(&setup(narrow), 2, &[], &[]).err().unwrap().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind(&setup(narrow), 2, &[], &[wide.address]).unwrap().address, narrow);
        let cases = [
            ("0.0.0.0:25", "192.0.2.1:25", true),
            ("192.0.2.1:25", "0.0.0.0:25", true),
            ("0.0.0.0:25", "192.0.2.1:26", false),
            ("192.0.2.2:25", "192.0.2.1:25", false),
            ("[::]:25", "192.0.2.1:25", false), // each family is a listener of its own
            ("[::]:25", "[::1]:25", true),
        ];
        for (a, b, expected) in cases {
            assert_eq!(overlaps(a.parse().unwrap(), b.parse().unwrap()), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_socket_from_systemd_is_matched_by_address_as_often_as_it_is_wanted() {
        let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = theirs.local_addr().unwrap();
        let activated = [OwnedFd::from(theirs)];
        for _ in 0..2 {
            let bound = bind(&setup(address), 2, &activated, &[]).unwrap();
            assert!(bound.activated);
            assert_eq!(bound.sockets.len(), 2);
        }
    }
}
