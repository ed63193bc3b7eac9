//! systemd: the sockets that it hands over, and what it wants to be told. I/O: environment, a unix datagram socket.
//!
//! sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3), by their documented protocols. Outside of systemd all of it
//! does nothing. Names (LISTEN_FDNAMES) are not looked at: a socket belongs to the listener with its address.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::base::sys;

/// The sockets that were handed over to this very process; empty without systemd. Call first in `main`, once.
pub fn activated_sockets() -> Vec<OwnedFd> {
    let for_us = number("LISTEN_PID") == Some(u64::from(std::process::id()));
    let count = number("LISTEN_FDS").filter(|_| for_us).unwrap_or(0);
    sys::take_inherited(usize::try_from(count).unwrap_or(0))
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Tells systemd how the service is.
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

impl Notifier {
    /// Connects to `$NOTIFY_SOCKET`, while that can still be reached; without one, every message is dropped.
    pub fn from_env() -> Self {
        let address = env::var_os("NOTIFY_SOCKET");
        let socket = address.and_then(|address| match connect(&address) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "systemd can't be told anything");
                None
            }
        });
        Notifier { socket }
    }

    /// The service accepts mail.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again; [`Notifier::ready`] ends it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The service finishes what it has.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// The service is alive.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// How often [`Notifier::watchdog`] must be called: half of what systemd waits, as it asks for.
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        number("WATCHDOG_USEC").filter(|micros| for_us && *micros > 0).map(|micros| Duration::from_micros(micros / 2))
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            tracing::debug!(%error, "systemd was not told");
        }
    }
}

/// A path, or after `@` a name in the abstract name space.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // systemd that does not listen must not stop a mail server.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_a_path_and_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("weir-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let servers = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&abstract_name).unwrap()];
        for (server, address) in servers.iter().zip([path.into_os_string(), format!("@{name}").into()]) {
            let notifier = Notifier { socket: Some(connect(&address).unwrap()) };
            notifier.ready();
            notifier.status("two\nlines");
            notifier.reloading();
            let mut text = [0; 100];
            let mut next = || {
                let length = server.recv(&mut text).unwrap();
                String::from_utf8_lossy(&text[..length]).into_owned()
            };
            assert_eq!(next(), "READY=1");
            assert_eq!(next(), "STATUS=two lines");
            assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        }
    }

    #[test]
    fn outside_of_systemd_nothing_happens() {
        let silent = Notifier { socket: None };
        silent.watchdog();
        assert_eq!(silent.watchdog_every(), None);
    }
}
