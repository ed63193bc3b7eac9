//! The server's certificate and TLS settings. I/O: reads and writes certificate files.
//!
//! The certificate is behind a swap: connections that are there keep theirs, the next handshake takes the new one.
//! Without a configured certificate a self-signed one is made in the data folder and kept, so that clients that pin it
//! see the same after a restart. A file that can't be read or does not fit its key leaves the old one in place, loudly.

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
use crate::config::settings;

/// How often the watcher looks at the files.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// Names of the self-signed pair in the data folder.
const SELF_SIGNED: [&str; 2] = ["self-signed.pem", "self-signed.key"];
/// Tickets sent after a TLS 1.3 handshake. Mail clients seldom come back at once; one is enough, and is one write less.
const TICKETS: usize = 1;

/// Certificate, key and the settings of every server-side handshake.
pub struct TlsStore {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    files: Mutex<Files>,
}

/// Where certificate and key are, and what they were like when last read.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    seen: Stamp,
}

/// What tells that a file was replaced: time of change and length of both files.
type Stamp = [Option<(SystemTime, u64)>; 2];

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl TlsStore {
    /// Opens the configured pair, or the self-signed one in `data_dir`, which is made for `hostname` if it is not there.
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

    /// Loads the files again if they changed; true if a new certificate is in use.
    /// # Errors
    /// As [`TlsStore::open`]; the old certificate stays.
    pub fn reload(&self) -> io::Result<bool> {
        let mut files = self.files.lock();
        let found = stamp(&files.certificate, &files.key);
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
    /// As [`TlsStore::open`]; the old certificate and its files stay.
    pub fn reconfigure(&self, tls: &settings::Tls, data_dir: &Path, hostname: &str) -> io::Result<()> {
        let files = Files::find(tls, data_dir, hostname)?;
        self.use_files(&files)?;
        *self.files.lock() = files;
        Ok(())
    }

    fn use_files(&self, files: &Files) -> io::Result<()> {
        self.current.0.store(Arc::new(files.load(self.config.crypto_provider())?));
        tracing::info!(certificate = %files.certificate.display(), "the certificate was loaded");
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

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    [certificate, key].map(|path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

impl Files {
    /// The configured files, or the self-signed ones.
    fn find(tls: &settings::Tls, data_dir: &Path, hostname: &str) -> io::Result<Self> {
        let [certificate, key] = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => [certificate.clone(), key.clone()],
            // One PEM file may hold both.
            (Some(both), None) => [both.clone(), both.clone()],
            _ => self_signed(data_dir, hostname)?,
        };
        Ok(Files { seen: stamp(&certificate, &key), certificate, key })
    }

    fn load(&self, provider: &CryptoProvider) -> io::Result<CertifiedKey> {
        let named = |path: &Path, error: &dyn Display| io::Error::other(format!("{}: {error}", path.display()));
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| named(&self.certificate, &error))?;
        if chain.is_empty() {
            return Err(named(&self.certificate, &"no certificate in this file"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| named(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| named(&self.key, &error))
    }
}

/// The self-signed pair, made if it is not there.
fn self_signed(data_dir: &Path, hostname: &str) -> io::Result<[PathBuf; 2]> {
    let paths = SELF_SIGNED.map(|name| data_dir.join(name));
    if paths.iter().all(|path| path.exists()) {
        return Ok(paths);
    }
    let pair = rcgen::generate_simple_self_signed([hostname.to_owned()]).map_err(io::Error::other)?;
    fs::create_dir_all(data_dir)?;
    // The key first: a certificate without its key would look like a pair at the next start.
    write_private(&paths[1], &pair.signing_key.serialize_pem())?;
    write_private(&paths[0], &pair.cert.pem())?;
    tracing::warn!(path = %paths[0].display(), "no certificate is configured; made a self-signed one");
    Ok(paths)
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: settings::Tls = settings::Tls { certificate: None, key: None };

    #[test]
    fn the_self_signed_pair_is_made_once_and_a_broken_file_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = TlsStore::open(&NONE, dir.path(), "mx.example.org").unwrap();
        let first = store.current.0.load_full();
        let again = TlsStore::open(&NONE, dir.path(), "mx.example.org").unwrap();
        assert_eq!(again.current.0.load().cert, first.cert, "kept over a restart");
        assert!(!store.reload().unwrap(), "nothing changed");

        fs::write(dir.path().join(SELF_SIGNED[0]), "no certificate").unwrap();
        assert!(store.reload().is_err());
        assert_eq!(store.current.0.load().cert, first.cert);

        for name in SELF_SIGNED {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        TlsStore::open(&NONE, dir.path(), "other.example.org").unwrap();
        assert!(store.reload().unwrap());
        assert_ne!(store.current.0.load().cert, first.cert);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        TlsStore::open(&NONE, one.path(), "one.example").unwrap();
        TlsStore::open(&NONE, two.path(), "two.example").unwrap();
        let mixed = settings::Tls {
            certificate: Some(one.path().join(SELF_SIGNED[0])),
            key: Some(two.path().join(SELF_SIGNED[1])),
        };
        assert!(TlsStore::open(&mixed, one.path(), "x").is_err());
    }
}
