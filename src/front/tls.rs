//! The server's certificates and TLS settings. I/O: reads and writes certificate files.
//!
//! Of several the client's SNI (RFC 6066 §3) chooses by the names in them. They are behind a swap: connections that are there keep theirs, the next handshake takes the new one.
//! Without a configured certificate a self-signed one is made in the data folder and kept, so that clients that pin it
//! see the same after a restart. A file that can't be read or does not fit its key leaves the old one in place, loudly.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

use super::meters::Meters;
use crate::base::owner;
use crate::config::settings::{self, Pair};

/// How often the watcher looks at the files.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// Names of the self-signed pair in the data folder.
const SELF_SIGNED: [&str; 2] = ["self-signed.pem", "self-signed.key"];
/// Tickets sent after a TLS 1.3 handshake. Mail clients seldom come back at once; one is enough, and is one write less.
const TICKETS: usize = 1;

/// The certificates and the settings of every server-side handshake.
pub struct TlsStore {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    files: Mutex<Files>,
}

/// The pairs, the one for everybody first, and what their files were like when last read.
struct Files {
    pairs: Vec<Pair>,
    seen: Vec<Stamp>,
}

/// What tells that a file was replaced: its time of change and length.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Debug)]
struct Current(ArcSwap<Certificates>);

/// What the next handshake chooses from.
#[derive(Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
    /// By each name in it, in lower case; `*.example.org` for a wildcard.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().choose(hello.server_name()))
    }
}

impl Certificates {
    /// The one that has `name`, or a wildcard for its first label (RFC 9525 §6.3), or the default one.
    fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let found = name.filter(|_| !self.by_name.is_empty()).and_then(|name| {
            let name = name.to_ascii_lowercase();
            let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
            self.by_name.get(&name).or_else(wildcard)
        });
        found.unwrap_or(&self.default).clone()
    }
}

impl TlsStore {
    /// Opens the configured pairs, or the self-signed one in `data_dir`, which is made for `hostname` if it is not there.
    /// # Errors
    /// When the files can't be read, hold no certificate or key, or don't belong together; the text names the file.
    pub fn open(tls: &settings::Tls, data_dir: &Path, hostname: &str) -> io::Result<Arc<Self>> {
        let files = Files::find(tls, data_dir, hostname)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = Arc::new(Current(ArcSwap::from_pointee(files.load(&provider)?)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(io::Error::other)?;
        config.send_tls13_tickets = TICKETS;
        Ok(Arc::new(TlsStore { config: Arc::new(config), current, files: Mutex::new(files) }))
    }

    /// The settings for a handshake; also fit for `tokio_rustls`.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Loads the files again if they changed; true if new certificates are in use.
    /// # Errors
    /// As [`TlsStore::open`]; the old certificates stay.
    pub fn reload(&self) -> io::Result<bool> {
        let mut files = self.files.lock();
        let found = stamps(&files.pairs);
        if files.seen == found {
            return Ok(false);
        }
        // A pair that is being replaced is tried again when its second file changes too.
        files.seen = found;
        self.use_files(&files)?;
        Ok(true)
    }

    /// Goes over to other files, as a new configuration may name them.
    /// # Errors
    /// As [`TlsStore::open`]; the old certificates and their files stay.
    pub fn reconfigure(&self, tls: &settings::Tls, data_dir: &Path, hostname: &str) -> io::Result<()> {
        let files = Files::find(tls, data_dir, hostname)?;
        self.use_files(&files)?;
        *self.files.lock() = files;
        Ok(())
    }

    fn use_files(&self, files: &Files) -> io::Result<()> {
        self.current.0.store(Arc::new(files.load(self.config.crypto_provider())?));
        for pair in &files.pairs {
            tracing::info!(certificate = %pair.certificate.display(), "the certificate was loaded");
        }
        Ok(())
    }

    /// Starts a thread that reloads changed files until the store is dropped.
    /// # Errors
    /// When no thread can be made.
    pub fn watch(self: &Arc<Self>, meters: Meters) -> io::Result<()> {
        let store = Arc::downgrade(self);
        let watch = move || {
            while let Some(store) = store.upgrade() {
                if let Err(error) = store.reload() {
                    meters.certificate_errors.inc();
                    tracing::error!(%error, "the changed certificate can't be used; the old one stays");
                }
                drop(store);
                std::thread::sleep(WATCH_EVERY);
            }
        };
        std::thread::Builder::new().name("certificates".into()).spawn(watch).map(drop)
    }
}

fn stamps(pairs: &[Pair]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    pairs.iter().flat_map(|pair| [&pair.certificate, &pair.key]).map(stamp).collect()
}

impl Files {
    /// The configured files, or the self-signed ones in the place of the default.
    fn find(tls: &settings::Tls, data_dir: &Path, hostname: &str) -> io::Result<Self> {
        let mut pairs = vec![match &tls.pair {
            Some(pair) => pair.clone(),
            None => self_signed(data_dir, hostname)?,
        }];
        pairs.extend_from_slice(&tls.also);
        Ok(Files { seen: stamps(&pairs), pairs })
    }

    fn load(&self, provider: &CryptoProvider) -> io::Result<Certificates> {
        let mut loaded = Vec::with_capacity(self.pairs.len());
        for pair in &self.pairs {
            loaded.push(Arc::new(load(pair, provider)?));
        }
        let default = loaded[0].clone();
        let mut by_name = HashMap::new();
        // A name that two have is the first one's; without a second there is nothing to choose.
        for key in loaded.iter().filter(|_| loaded.len() > 1) {
            for name in names(key)? {
                by_name.entry(name).or_insert_with(|| key.clone());
            }
        }
        Ok(Certificates { default, by_name })
    }
}

fn load(pair: &Pair, provider: &CryptoProvider) -> io::Result<CertifiedKey> {
    let named = |path: &Path, error: &dyn Display| io::Error::other(format!("{}: {error}", path.display()));
    let chain = CertificateDer::pem_file_iter(&pair.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| named(&pair.certificate, &error))?;
    if chain.is_empty() {
        return Err(named(&pair.certificate, &"no certificate in this file"));
    }
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(|error| named(&pair.key, &error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| named(&pair.key, &error))
}

/// The DNS names that a certificate is for.
fn names(key: &CertifiedKey) -> io::Result<Vec<String>> {
    let certificate = webpki::EndEntityCert::try_from(key.end_entity_cert().map_err(io::Error::other)?);
    Ok(certificate.map_err(io::Error::other)?.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

/// The self-signed pair, made if it is not there.
fn self_signed(data_dir: &Path, hostname: &str) -> io::Result<Pair> {
    let [certificate, key] = SELF_SIGNED.map(|name| data_dir.join(name));
    if certificate.exists() && key.exists() {
        return Ok(Pair { certificate, key });
    }
    let pair = rcgen::generate_simple_self_signed([hostname.to_owned()]).map_err(io::Error::other)?;
    fs::create_dir_all(data_dir)?;
    // The key first: a certificate without its key would look like a pair at the next start.
    write_private(&key, &pair.signing_key.serialize_pem())?;
    write_private(&certificate, &pair.cert.pem())?;
    tracing::warn!(path = %certificate.display(), "no certificate is configured; made a self-signed one");
    Ok(Pair { certificate, key })
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    // Root makes it before it becomes the user who reads it again.
    owner::inherit(path, &file)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: settings::Tls = settings::Tls { pair: None, also: Vec::new() };

    #[test]
    fn the_self_signed_pair_is_made_once_and_a_broken_file_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = TlsStore::open(&NONE, dir.path(), "mx.example.org").unwrap();
        let first = store.current.0.load_full().default.clone();
        let again = TlsStore::open(&NONE, dir.path(), "mx.example.org").unwrap();
        assert_eq!(again.current.0.load().default.cert, first.cert, "kept over a restart");
        assert!(!store.reload().unwrap(), "nothing changed");

        fs::write(dir.path().join(SELF_SIGNED[0]), "no certificate").unwrap();
        assert!(store.reload().is_err());
        assert_eq!(store.current.0.load().default.cert, first.cert);

        for name in SELF_SIGNED {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        TlsStore::open(&NONE, dir.path(), "other.example.org").unwrap();
        assert!(store.reload().unwrap());
        assert_ne!(store.current.0.load().default.cert, first.cert);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        TlsStore::open(&NONE, one.path(), "one.example").unwrap();
        TlsStore::open(&NONE, two.path(), "two.example").unwrap();
        let mixed = Pair { certificate: one.path().join(SELF_SIGNED[0]), key: two.path().join(SELF_SIGNED[1]) };
        let mixed = settings::Tls { pair: Some(mixed), ..NONE };
        assert!(TlsStore::open(&mixed, one.path(), "x").is_err());
    }

    #[test]
    fn the_name_that_a_client_asks_for_chooses_the_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let of = folder.path().join(name.replace('*', "any"));
            self_signed(&of, name).unwrap()
        };
        let also = vec![make("mx.example.net"), make("*.example.com")];
        let tls = settings::Tls { pair: Some(make("mx.example.org")), also };
        let store = TlsStore::open(&tls, folder.path(), "unused").unwrap();
        let chosen = |name: Option<&str>| names(&store.current.0.load().choose(name)).unwrap().concat();
        let table = [
            (None, "mx.example.org"),
            (Some("mx.example.org"), "mx.example.org"),
            (Some("MX.example.net"), "mx.example.net"),
            (Some("smtp.example.com"), "*.example.com"),
            (Some("a.b.example.com"), "mx.example.org"),
            (Some("example.com"), "mx.example.org"),
            (Some("localhost"), "mx.example.org"),
        ];
        for (asked, is) in table {
            assert_eq!(chosen(asked), is, "{asked:?}");
        }
    }
}
