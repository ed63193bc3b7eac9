//! What outlives one configuration: the rooms as a reload and the admin API reach them. I/O: the configuration file; small files.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use parking_lot::Mutex;

use crate::config::Config;
use crate::config::settings::Listener;
use crate::deliver::Delivery;
use crate::deliver::transport::tls::ClientTls;
use crate::dns::Upstream;
use crate::front::tls::TlsStore;
use crate::front::{self, ListenerSetup};
use crate::observe::log::LogHandle;
use crate::policy::greylist::Greylist;
use crate::policy::rates::Rates;
use crate::spool::Spool;

use super::gateway::delay_max;
use super::house::House;
use super::run_file::RunFile;
use super::snapshot::Snapshot;
use super::workshop::Workshop;

/// Where the counts of `[[rate]]` are kept between runs, in `data_dir`.
const RATES_FILE: &str = "rates";
/// The same for the greylist.
const GREYLIST_FILE: &str = "greylist";

/// What a reload and the admin API work on.
pub struct Shared {
    pub house: Arc<House>,
    pub spool: Arc<Spool>,
    pub delivery: Delivery,
    pub workshop: Workshop,
    pub tls: Arc<TlsStore>,
    pub client_tls: ClientTls,
    /// Its lock keeps reloads apart, too.
    pub front: Mutex<Option<front::Reloader>>,
    pub run_file: Mutex<RunFile>,
    pub config_file: Option<PathBuf>,
    pub log: Option<LogHandle>,
    pub started: SystemTime,
    /// Set when the gateway begins to stop.
    pub stopping: AtomicBool,
}

/// Ready to be put in force: nothing more can fail.
struct Outward {
    upstream: Option<Upstream>,
    tls: ClientTls,
}

/// What the front needs to know of each listener.
pub fn setups(config: &Config) -> Vec<ListenerSetup> {
    config.listeners.iter().map(|listener: &Listener| ListenerSetup::new(listener, &config.relay.networks)).collect()
}

/// Who was asked to come again, as the last run left it.
pub fn load_greylist(config: &Config) -> Greylist {
    let restored = std::fs::read(config.data_dir.join(GREYLIST_FILE)).map(|bytes| Greylist::restore(&bytes));
    match restored {
        Ok(Some(greylist)) => greylist,
        Ok(None) => {
            tracing::warn!("the greylist can't be read; it begins anew");
            Greylist::default()
        }
        Err(_) => Greylist::default(),
    }
}

/// The counts of `[[rate]]` as the last run left them.
pub fn load_rates(config: &Config) -> Rates {
    let rates = Rates::new(&config.rates);
    if let Ok(bytes) = std::fs::read(config.data_dir.join(RATES_FILE))
        && let Err(error) = rates.restore(&bytes, SystemTime::now())
    {
        tracing::warn!(%error, "the counts of rates can't be read; they begin anew");
    }
    rates
}

impl Shared {
    /// Reads the configuration again. What it says is in force when this returns, but for what needs a restart, which is
    /// named; what became of listeners is told before it. A bad file, or an address that can't be bound, changes nothing.
    /// # Errors
    /// All that is wrong.
    pub fn reload(&self) -> Result<String, String> {
        let file =
            self.config_file.as_ref().ok_or("started without a configuration file, so there is none to read again")?;
        let front = self.front.lock();
        let front =
            front.as_ref().filter(|_| !self.stopping.load(Ordering::Relaxed)).ok_or("the gateway is stopping")?;
        let running = self.house.snapshot.load_full();
        let mut config = Config::load(file).map_err(|problems| explained(problems.to_string(), &running.config))?;
        let waiting = config.keep_held(&running.config);
        let checks = self.workshop.checks(&config, Some(&running.checks))?;
        let outward = self.outward(&running.config, &config)?;
        let listeners = front.prepare(setups(&config)).map_err(|error| format!("error: {error}"))?;
        self.renew_certificate(&running.config, &config)?;
        self.turn_to(outward);
        let config = Arc::new(config);
        let rates = self.house.rates.load().reconfigured(&config.rates, SystemTime::now());
        self.house.rates.store(Arc::new(rates));
        let (before, meters) = (&running.listeners, &self.house.meters.flow);
        let next = Snapshot::following(before, config.clone(), checks, meters, listeners.by_number());
        self.house.snapshot.store(Arc::new(next));
        self.spool.set_delay_max(delay_max(&config));
        self.delivery.configure(config.clone());
        self.tell_where(&config, &listeners.local_addrs());
        let mut told = listeners.commit();
        if let Some(log) = &self.log {
            log.set_level(&config.log.level);
        }
        if !waiting.is_empty() {
            told.push(format!("needs a restart: {}", waiting.join(", ")));
        }
        tracing::info!(file = %file.display(), waiting = %waiting.join(", "), "configuration in force");
        Ok(told.join("\n"))
    }

    /// Notes where the listeners are.
    fn tell_where(&self, config: &Config, addresses: &[SocketAddr]) {
        let mut run_file = self.run_file.lock();
        run_file.set_listeners(&config.listeners, addresses);
        if let Err(error) = run_file.write() {
            tracing::error!(%error, "run.json can't be written");
        }
    }

    /// What the new configuration asks DNS with and believes of other hosts; nothing where it stayed the same.
    fn outward(&self, running: &Config, next: &Config) -> Result<Outward, String> {
        let _entered = self.house.runtime.enter();
        let upstream = (running.dns != next.dns).then(|| Upstream::new(&next.dns)).transpose();
        // The file of authorities is read again even under its old name: that is how they are renewed.
        let tls = ClientTls::open(next.deliver.ca_file.as_deref()).map_err(|error| format!("error: [deliver] {error}"));
        Ok(Outward { upstream: upstream.map_err(|error| format!("error: [dns]: {error}"))?, tls: tls? })
    }

    fn turn_to(&self, outward: Outward) {
        if let Some(upstream) = outward.upstream {
            self.workshop.resolver().turn_to(upstream);
        }
        self.client_tls.turn_to(&outward.tls);
    }

    /// Other files that can't be used are an error of the configuration; the same files, changed, leave the old certificate.
    fn renew_certificate(&self, running: &Config, next: &Config) -> Result<(), String> {
        if running.tls != next.tls {
            let changed = self.tls.reconfigure(&next.tls, &next.data_dir, &next.hostname);
            return changed.map_err(|error| format!("error: [tls]: {error}"));
        }
        if let Err(error) = self.tls.reload() {
            tracing::error!(%error, "the certificate can't be used; the old one stays");
        }
        Ok(())
    }

    /// Why no mail would be accepted now; nothing if it would.
    pub fn not_ready(&self) -> Option<String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Some("the gateway is stopping".to_owned());
        }
        self.spool.trouble().map(|fault| fault.to_string())
    }

    /// Keeps the counts of `[[rate]]` and the greylist for the next start.
    pub fn save_rates(&self) {
        let bytes = self.house.rates.load().snapshot(SystemTime::now());
        let path = self.house.snapshot.load().config.data_dir.join(RATES_FILE);
        if let Err(error) = write_whole(&path, &bytes) {
            tracing::error!(%error, "the counts of rates can't be kept");
        }
        let greylist = &self.house.greylist;
        if !greylist.is_empty()
            && let Err(error) = write_whole(&path.with_file_name(GREYLIST_FILE), &greylist.snapshot())
        {
            tracing::error!(%error, "the greylist can't be kept");
        }
    }
}

/// What the operator's own programs can read, the running process can't any more: without a word it is a riddle.
fn explained(problems: String, running: &Config) -> String {
    if !running.security.landlock || !problems.contains("Permission denied") {
        return problems;
    }
    format!(
        "{problems}\nlandlock lets the running process read only what it was started with, and the configuration's folder: \
         move the file there, or restart"
    )
}

/// Writes beside and renames, so that a reader sees the old file or the new one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)?;
    std::fs::rename(&beside, path)
}
