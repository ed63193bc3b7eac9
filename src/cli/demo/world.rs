//! What the demo runs: a gateway with the embedded store, and a DNS of its own, in a folder that goes with it. I/O: everything.
//!
//! The gateway is the one of `weir serve`, with the hardening that it has there: it is started on a thread of its own,
//! since Landlock binds that thread and those it makes, and this process has to remove the folder afterwards.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use socket2::{Domain, Socket, Type};

use super::dns::ZoneServer;
use super::identity::Keys;
use super::samples::{DOMAIN, PASSWORD, USERS};
use crate::base::secret::Secret;
use crate::config::Config;
use crate::flow::gateway::Gateway;
use crate::store::users::file::{self, UserEntry};
use crate::store::users::password;

/// The gateway's name.
pub const HOST: &str = "mx.weir.example";

/// What every zone says: mail goes to `mx`, which is this host and the only one that may send.
const ZONE: &str = "@ 300 IN SOA mx root 1 3600 600 86400 60\n@ 300 IN MX 10 mx\nmx 300 IN A 127.0.0.1\n@ 300 IN TXT \"v=spf1 mx -all\"\n";
/// Domains without a policy, and the root, so that no other name exists.
const ZONES: [(&str, &str); 4] = [
    (".", "@ 300 IN SOA mx root 1 3600 600 86400 60\n"),
    ("club.example.", ZONE),
    ("down.example.", ZONE),
    ("shop.example.", ZONE),
];
/// Rules for the filter.
const RULES: &str = include_str!("rules.cf");

/// The running demo; [`World::stop`] ends it, and dropping it removes the folder.
pub struct World {
    /// The gateway.
    pub gateway: Gateway,
    /// Its settings.
    pub config: Config,
    /// The certificate that it made for itself, as a client would import it.
    pub roots: RootCertStore,
    /// Keys of the demo's domains.
    pub keys: Keys,
    folder: Folder,
    _dns: ZoneServer,
    _closed_port: Socket,
}

impl World {
    /// Starts it all.
    /// # Errors
    /// What could not be started, and why.
    pub async fn start() -> Result<Self, String> {
        let text = |error: io::Error| error.to_string();
        let folder = Folder::make().map_err(text)?;
        let keys = Keys::make()?;
        let zones = keys.zones(ZONE)?;
        let zones = ZONES.into_iter().chain(zones.iter().map(|(origin, records)| (&**origin, &**records)));
        let dns = ZoneServer::start(&zones.collect::<Vec<_>>()).await.map_err(text)?;
        let closed_port = closed_port().map_err(text)?;
        let closed = closed_port.local_addr().map_err(text)?.as_socket().expect("an IPv4 socket has such an address");
        let file = folder.0.join("weir.toml");
        std::fs::write(folder.0.join("rules.cf"), RULES).map_err(text)?;
        for (name, pem) in keys.files() {
            std::fs::write(folder.0.join(name), pem).map_err(text)?;
        }
        let settings = settings(&folder.0, dns.address(), closed.port()) + &keys.sections();
        std::fs::write(&file, settings).map_err(text)?;
        let config = Config::load(&file).map_err(|problems| problems.to_string())?;
        add_users(&config).map_err(text)?;
        let started = {
            let config = config.clone();
            std::thread::spawn(move || Gateway::start(config, Some(file), None)).join()
        };
        let gateway = started.map_err(|_| "the gateway panicked")?.map_err(|error| error.to_string())?;
        let roots = roots(&config.data_dir).map_err(text)?;
        Ok(World { gateway, config, roots, keys, folder, _dns: dns, _closed_port: closed_port })
    }

    /// Where a listener is: `mx`, `enforced`, `submission`, `pop3`, `pop3s`, `admin`.
    pub fn address(&self, name: &str) -> SocketAddr {
        self.gateway.address(name).expect("the demo's settings name every listener")
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// Stops the gateway and removes its folder.
    pub fn stop(self) {
        self.gateway.stop();
    }
}

/// A port that is taken and refuses connections for as long as the socket lives.
fn closed_port() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    Ok(socket)
}

fn settings(folder: &Path, dns: SocketAddr, closed_port: u16) -> String {
    let data = toml::Value::from(folder.join("data").display().to_string());
    format!(
        r#"hostname = "{HOST}"
data_dir = {data}

[filter]
rules = ["rules.cf"]

[filter.classifier]
seed = false

[dns]
servers = ["{dns}"]

[[listener]]
role = "mx"
address = "127.0.0.1:0"
tls = "starttls"
verify = "tag"
filter = "tag"

[[listener]]
name = "enforced"
role = "mx"
address = "127.0.0.1:0"
tls = "starttls"
verify = "enforce"
filter = "tag"

[verify]
trusted_sealers = ["list.example"]

[[listener]]
name = "filtered"
role = "mx"
address = "127.0.0.1:0"
tls = "starttls"
verify = "tag"
filter = "enforce"

[trace]
content = "judged"

[[listener]]
role = "submission"
address = "127.0.0.1:0"
tls = "starttls"

[[domain]]
name = "{DOMAIN}"
deliver_to = "store:"
recipients = "store"

[store]
pop3 = "127.0.0.1:0"
pop3s = "127.0.0.1:0"

[spool]
segment_bytes = "16 MiB"
free_space_min = "64 MiB"

# Whatever DNS says, nobody answers at this port: that is how a domain is down here.
[deliver]
port = {closed_port}
allow_local = true

[admin]
address = "127.0.0.1:0"
"#
    )
}

fn add_users(config: &Config) -> io::Result<()> {
    std::fs::create_dir_all(&config.data_dir)?;
    let secret = Secret::new(PASSWORD);
    // One hash for all: argon2 takes its time, and they share the password anyway.
    let hash = password::hash(&secret);
    file::edit(&config.auth.users_file, |users| {
        for name in USERS {
            let scram = Some(password::scram_text(&password::scram_keys(name, &secret)));
            users.users.insert(name.to_owned(), UserEntry { password: hash.clone(), scram, ..UserEntry::default() });
        }
        Ok(())
    })
}

/// The gateway's own certificate as the only one to be believed.
fn roots(data_dir: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(data_dir.join("self-signed.pem")).map_err(io::Error::other)?;
    roots.add(certificate).map_err(io::Error::other)?;
    Ok(roots)
}

/// A folder of ours only, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> io::Result<Self> {
        // Made, never reused: somebody else's folder or link of that name is an error.
        let path = std::env::temp_dir().join(format!("weir-demo-{:016x}", fastrand::u64(..)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("weir demo: {} can't be removed: {error}", self.0.display());
        }
    }
}
