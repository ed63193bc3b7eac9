//! A whole gateway: from checked settings to serving, reloading and stopping. I/O: everything, by starting the rooms.
//!
//! The order matters: ports are taken while the process may still do that, then privileges and reach are given up,
//! and only then threads are made (they inherit the restrictions) and mail is read from disk.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::admin;
use crate::base::content::{ContentSource, MemoryBudget};
use crate::base::id::QueueId;
use crate::config::Config;
use crate::deliver::call_ahead::CallAhead;
use crate::deliver::mta_sts::Sts;
use crate::deliver::tls_result::{RESULTS_MAX, TlsResult, TlsResultSink};
use crate::deliver::transport::open::Opener;
use crate::deliver::transport::tls::ClientTls;
use crate::deliver::{self, Delivery};
use crate::dns::{self, Resolver};
use crate::front::systemd::activated_sockets;
use crate::front::tls::TlsStore;
use crate::front::{self, Bound, Front};
use crate::observe::log::LogHandle;
use crate::observe::metrics::Metrics;
use crate::observe::trace::{self, Trace};
use crate::services::{self, listen};
use crate::spool::{self, SpillDirectory, Spool};
use crate::store::mailbox::Mailboxes;
use crate::store::server::{Logins, Pop3Listeners, Pop3Server};
use crate::store::users::{self, Users};
use crate::store::{self};

use super::backend::Backend;
use super::clock::DateClock;
use super::confine::{confine, make_folders};
use super::counsel::Counsel;
use super::house::{House, Places};
use super::local::LocalMailboxes;
use super::meters::Meters;
use super::passwords::Passwords;
use super::pool;
use super::reports::{self, Reports};
use super::run_file::RunFile;
use super::service::SmtpService;
use super::shared::{Shared, load_greylist, load_rates, setups};
use super::snapshot::Snapshot;
use super::teach::{keep_lessons, watch_junk};
use super::underway::Underway;
use super::workshop::Workshop;

/// How long conversations and deliveries may take to end when the gateway stops.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Messages that are checked at once; each is held by a connection that waits.
const CHECKS_MAX: usize = 1024;
/// Where MTA-STS policies are kept, in `data_dir`.
const STS_DIRECTORY: &str = "mta-sts";
/// How often the keys of rates are counted for the gauge: as often as a scraper asks.
const RATES_COUNTED_EVERY: Duration = Duration::from_secs(15);

/// Why a gateway did not start.
#[derive(Debug)]
pub struct StartError {
    what: &'static str,
    why: String,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for StartError {}

/// Names the step that failed.
fn at<E: fmt::Display>(what: &'static str) -> impl FnOnce(E) -> StartError {
    move |why| StartError { what, why: why.to_string() }
}

/// A running gateway.
pub struct Gateway {
    shared: Arc<Shared>,
    front: Front,
    runtime: Runtime,
    stop: watch::Sender<bool>,
}

/// Everything that was bound before privileges went.
struct Ports {
    front: Bound,
    pop3: Pop3Listeners,
    admin: Option<TcpListener>,
    services: listen::Bound,
}

impl Ports {
    fn bind(config: &Config) -> Result<Self, StartError> {
        let reactors = std::thread::available_parallelism().map_or(1, usize::from);
        let front =
            front::bind(setups(config), reactors, activated_sockets()).map_err(at("a listener can't be bound"))?;
        let pop3 = Pop3Listeners::bind(&config.store).map_err(at("[store] can't be bound"))?;
        let admin =
            config.admin.address.map(TcpListener::bind).transpose().map_err(at("[admin] address can't be bound"))?;
        let services = listen::bind(&config.service).map_err(at("[service] can't be bound"))?;
        Ok(Ports { front, pop3, admin, services })
    }
}

impl Gateway {
    /// Starts everything. `config_file` is what a reload reads again; `log` is told of a changed level.
    /// # Errors
    /// A [`StartError`] that names the step: a port that is taken, a certificate that can't be read, a spool that is in use.
    pub fn start(config: Config, config_file: Option<PathBuf>, log: Option<LogHandle>) -> Result<Self, StartError> {
        front::raise_descriptor_limit();
        make_folders(&config).map_err(at("a directory can't be made"))?;
        let ports = Ports::bind(&config)?;
        let tls = TlsStore::open(&config.tls, &config.data_dir, &config.hostname).map_err(at("[tls]"))?;
        confine(&config, config_file.as_deref(), &ports.front).map_err(at("[security]"))?;
        if let Some(log) = &log {
            log.detach();
        }
        pool::make();
        let config = Arc::new(config);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("tokio")
            .build()
            .map_err(at("no runtime"))?;
        let metrics = Metrics::new().map_err(at("metrics"))?;
        if let Some(log) = &log {
            log.register(metrics.registry()).map_err(at("metrics"))?;
        }
        let parts = Parts { config, tls, metrics, runtime: &runtime };
        let built = parts.build(config_file, log)?;
        parts.serve(ports, built, runtime.handle().clone()).map(|(front, stop, shared)| {
            tracing::info!(hostname = %shared.house.snapshot.load().config.hostname, "serving");
            Gateway { shared, front, stop, runtime }
        })
    }

    /// Where a listener is, by its name; `pop3`, `pop3s` and `admin` too.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        self.shared.run_file.lock().address(name)
    }

    /// The queue.
    pub fn spool(&self) -> &Arc<Spool> {
        &self.shared.spool
    }

    /// Why a message is where it is, in a sentence; nothing if it is not in the queue.
    pub fn why(&self, id: QueueId) -> Option<String> {
        self.shared.why(id)
    }

    /// True while every part runs; false is a defect, and the process should be started anew.
    pub fn is_whole(&self) -> bool {
        self.front.is_whole() && self.shared.spool.is_running()
    }

    /// Waits for `task` on the gateway's runtime.
    pub fn block_on<F: Future>(&self, task: F) -> F::Output {
        self.runtime.block_on(task)
    }

    /// Reads the configuration again. What it says is in force when this returns; a bad file changes nothing.
    /// # Errors
    /// All that is wrong with the file.
    pub fn reload(&self) -> Result<String, String> {
        self.shared.reload()
    }

    /// Stops: no new connections, conversations and deliveries end within half a minute, leases go back, everything is synced.
    pub fn stop(self) {
        tracing::info!("stopping");
        self.shared.stopping.store(true, Ordering::Relaxed);
        let stopped = self.front.stop(STOP_PATIENCE);
        let _ = self.stop.send(true);
        let finished = self.runtime.block_on(self.shared.delivery.stop(STOP_PATIENCE));
        self.shared.save_rates();
        self.shared.house.reports.keep();
        self.shared.house.save_lessons();
        self.shared.spool.close();
        self.shared.house.trace.close();
        self.shared.run_file.lock().remove();
        tracing::info!(conversations_cut = stopped.cut, deliveries_finished = finished, "stopped");
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

/// What the rooms are built from.
struct Parts<'a> {
    config: Arc<Config>,
    tls: Arc<TlsStore>,
    metrics: Metrics,
    runtime: &'a Runtime,
}

/// The rooms behind the front.
struct Built {
    shared: Arc<Shared>,
    mailboxes: Arc<Mailboxes>,
    store_meters: Arc<store::meters::Meters>,
    tls_results: (TlsResultSink, mpsc::Receiver<TlsResult>),
}

impl Parts<'_> {
    fn build(&self, config_file: Option<PathBuf>, log: Option<LogHandle>) -> Result<Built, StartError> {
        let (config, registry) = (&self.config, self.metrics.registry());
        let resolver = Resolver::new(&config.dns).map_err(at("[dns]"))?;
        let resolver = Arc::new(resolver.with_meters(dns::meters::Meters::register(registry).map_err(at("metrics"))?));
        let workshop = Workshop::new(resolver.clone(), registry).map_err(at("metrics"))?;
        let checks = workshop.checks(config, None).map_err(at("checks"))?;
        let meters = Meters::register(registry).map_err(at("metrics"))?;
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::new(config.clone(), checks, &meters.flow)));
        let spool = Arc::new(self.open_spool()?);
        let users = Arc::new(Users::open(&config.auth.users_file).map_err(at("[auth] users"))?);
        let store_meters = Arc::new(store::meters::Meters::register(registry).map_err(at("metrics"))?);
        let mailboxes = Mailboxes::open(&config.store.directory, &config.hostname, store_meters.clone());
        let mailboxes = Arc::new(mailboxes.map_err(at("[store] directory"))?);
        let deliver_meters = deliver::meters::Meters::register(registry).map_err(at("metrics"))?;
        let tls = ClientTls::open(config.deliver.ca_file.as_deref()).map_err(at("[deliver]"))?;
        let sts =
            Sts::open(&config.data_dir.join(STS_DIRECTORY), resolver.clone(), tls.clone(), deliver_meters.clone());
        let sts = Arc::new(sts);
        let opener = || Opener::new(resolver.clone(), tls.clone(), deliver_meters.clone());
        let (tls_sink, tls_results) = TlsResultSink::bounded(RESULTS_MAX);
        let delivery = Delivery::start(
            deliver::Parts {
                queue: spool.clone(),
                store: Arc::new(LocalMailboxes::new(users.clone(), mailboxes.clone(), snapshot.clone())),
                resolver: resolver.clone(),
                tls: tls.clone(),
                sts: Some(sts.clone()),
                tls_results: tls_sink.clone(),
                meters: deliver_meters.clone(),
                config: config.clone(),
            },
            self.runtime.handle().clone(),
        );
        let queue = |name| meters.flow.queue_of(name);
        let house = Arc::new(House {
            snapshot,
            spool: spool.clone(),
            content: ContentSource {
                budget: MemoryBudget::new(config.spool.memory as usize),
                spill_at_bytes: config.spool.spill_at as usize,
                spill: Arc::new(SpillDirectory::new(&config.spool.directory)),
            },
            passwords: Passwords::new(users.clone(), queue("passwords")),
            users,
            rates: ArcSwap::from_pointee(load_rates(config)),
            call_ahead: CallAhead::new(opener()),
            reports: Reports::open(config, resolver.clone(), registry, queue("reports")).map_err(at("[reports]"))?,
            underway: Underway::default(),
            checks_under_way: Places::new(CHECKS_MAX, queue("checks")),
            greylist: load_greylist(config),
            trace: Trace::open(&config.data_dir.join(trace::FOLDER), &config.trace, registry).map_err(at("[trace]"))?,
            meters,
            runtime: self.runtime.handle().clone(),
            clock: DateClock::default(),
        });
        let shared = Shared {
            house,
            spool,
            delivery,
            workshop,
            tls: self.tls.clone(),
            client_tls: tls,
            front: Mutex::default(),
            run_file: Mutex::new(RunFile::new(&config.data_dir)),
            config_file,
            log,
            started: SystemTime::now(),
            stopping: AtomicBool::new(false),
        };
        Ok(Built { shared: Arc::new(shared), mailboxes, store_meters, tls_results: (tls_sink, tls_results) })
    }

    fn open_spool(&self) -> Result<Spool, StartError> {
        let settings = &self.config.spool;
        let options = spool::Options {
            segment_bytes: settings.segment_bytes,
            free_space_min: settings.free_space_min,
            messages_max: settings.messages_max,
            quarantine_keep: settings.quarantine_keep,
            delay_max: delay_max(&self.config),
            ..spool::Options::default()
        };
        std::fs::create_dir_all(&settings.directory).map_err(at("[spool] directory"))?;
        let meters = spool::meters::Meters::register(self.metrics.registry()).map_err(at("metrics"))?;
        let spool = Spool::open(&settings.directory, options, meters).map_err(at("[spool]"))?;
        let opening = spool.opening();
        tracing::info!(
            messages = opening.messages,
            seconds = opening.seconds,
            damage = opening.damage.len(),
            "spool open"
        );
        Ok(spool)
    }

    fn serve(
        &self,
        ports: Ports,
        built: Built,
        handle: tokio::runtime::Handle,
    ) -> Result<(Front, watch::Sender<bool>, Arc<Shared>), StartError> {
        let Built { shared, mailboxes, store_meters, tls_results: (tls_sink, tls_results) } = built;
        let mut run_file = shared.run_file.lock();
        run_file.set_listeners(&self.config.listeners, &ports.front.local_addrs());
        for (listener, address) in self.config.listeners.iter().zip(ports.front.local_addrs()) {
            tracing::info!(name = %listener.name, %address, "listening");
        }
        for (name, address) in [("pop3", ports.pop3.pop3_address()), ("pop3s", ports.pop3.pop3s_address())] {
            address.into_iter().for_each(|address| run_file.add(name, address));
        }
        let front_meters = front::meters::Meters::register(self.metrics.registry()).map_err(at("metrics"))?;
        self.tls.watch(front_meters.clone()).map_err(at("[tls]"))?;
        let service = Arc::new(SmtpService::new(shared.house.clone()));
        let front = ports.front.start(service, Some(&self.tls), front_meters).map_err(at("reactors"))?;
        *shared.front.lock() = Some(front.reloader());
        let (stop, stopped) = watch::channel(false);
        handle.spawn(users::watch(shared.house.users.clone()));
        handle.spawn(reports::count_tls(shared.house.clone(), tls_sink, tls_results));
        handle.spawn(reports::run(shared.house.clone(), until(stopped.clone())));
        handle.spawn(count_rates(shared.house.clone(), until(stopped.clone())));
        handle.spawn(keep_lessons(shared.house.clone(), until(stopped.clone())));
        handle.spawn(watch_junk(shared.house.clone(), until(stopped.clone())));
        let tls = self.tls.clone();
        let pop3 = Pop3Server::new(
            ports.pop3,
            &self.config.store,
            &self.config.hostname,
            Arc::new(move || Some(tls.server_config())),
            Logins { users: shared.house.users.clone(), guard: shared.house.clone() },
            mailboxes,
            store_meters,
        );
        let end = until(stopped.clone());
        handle.spawn(async move {
            if let Err(error) = pop3.run(end).await {
                tracing::error!(%error, "POP3 can't be served");
            }
        });
        ports.services.addresses().into_iter().for_each(|(name, address)| run_file.add(name, address));
        let services_meters = services::meters::Meters::register(self.metrics.registry()).map_err(at("metrics"))?;
        let counsel = Arc::new(Counsel(shared.house.clone()));
        let end = until(stopped.clone());
        handle.spawn(async move {
            if let Err(error) = ports.services.serve(counsel, services_meters, end).await {
                tracing::error!(%error, "[service] can't be served");
            }
        });
        if let Some(listener) = ports.admin {
            run_file.add("admin", self.serve_admin(listener, &shared, stopped, &handle)?);
        }
        run_file.write().map_err(at("data_dir"))?;
        drop(run_file);
        Ok((front, stop, shared))
    }

    fn serve_admin(
        &self,
        listener: TcpListener,
        shared: &Arc<Shared>,
        stopped: watch::Receiver<bool>,
        handle: &tokio::runtime::Handle,
    ) -> Result<SocketAddr, StartError> {
        let address = listener.local_addr().map_err(at("[admin]"))?;
        let token = admin::token::load_or_make(&self.config).map_err(at("[admin] token"))?;
        let api = Arc::new(admin::server::Api {
            backend: Arc::new(Backend::new(shared.clone())),
            metrics: self.metrics.clone(),
            guard: admin::guard::Guard::new(token, &self.config),
        });
        listener.set_nonblocking(true).map_err(at("[admin]"))?;
        let _entered = handle.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(at("[admin]"))?;
        handle.spawn(admin::server::serve(listener, api, until(stopped)));
        Ok(address)
    }
}

/// What no delay of `[retry]` reaches, chance included.
pub(super) fn delay_max(config: &Config) -> Duration {
    config.retry.max * 3 / 2
}

/// Keeps the gauges of counted keys and of content in memory up to date until `stop` is there.
async fn count_rates(house: Arc<House>, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        house.meters.policy.rate_entries.set(house.rates.load().len() as i64);
        house.meters.flow.content_memory.set(house.content.budget.used_bytes() as i64);
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(RATES_COUNTED_EVERY) => {}
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopped.wait_for(|stop| *stop).await;
}
