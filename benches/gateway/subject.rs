//! What is measured: the limit, Weir, Postfix, Exim, each started anew in a folder of its own. I/O: processes.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::children::Part;
use crate::filtered;

const PATIENCE: Duration = Duration::from_secs(30);
const EXIM: &str = "usr/sbin/exim4";
/// The folder that Exim's packages were unpacked into.
pub static EXIM_FOLDER: OnceLock<PathBuf> = OnceLock::new();
/// Time for a server to make what it makes ahead; Weir fills segments.
const SETTLE: Duration = Duration::from_millis(1500);

/// Weir's log level, as it is by default.
pub const LOG_LEVEL: &str = "info";

/// A server that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    LimitInline,
    LimitThread,
    /// With its log as it is by default, into a file.
    Weir,
    /// Log level `warn`.
    WeirSilent,
    Postfix,
    Exim,
    /// Identity and filter on.
    WeirFiltered,
    /// With Rspamd as its milter.
    PostfixRspamd,
}

impl Subject {
    pub const ALL: [Subject; 6] = [
        Subject::LimitInline,
        Subject::LimitThread,
        Subject::Weir,
        Subject::WeirSilent,
        Subject::Postfix,
        Subject::Exim,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Subject::LimitInline => "limit, sync inline",
            Subject::LimitThread => "limit, sync thread",
            Subject::Weir => "Weir",
            Subject::WeirSilent => "Weir, log level warn",
            Subject::Postfix => "Postfix",
            Subject::Exim => "Exim",
            Subject::WeirFiltered => "Weir, all checks",
            Subject::PostfixRspamd => "Postfix with Rspamd",
        }
    }

    /// Why it can't be measured here.
    pub fn missing(self) -> Option<&'static str> {
        match self {
            Subject::Postfix if !Path::new("/usr/lib/postfix/sbin/master").exists() => Some("Postfix is not installed"),
            Subject::Exim if !exim_folder().join(EXIM).exists() => {
                Some("Exim is not here (benches/gateway/exim.sh unpack DIR, then --exim DIR)")
            }
            _ => None,
        }
    }

    /// Servers of thousands a second need more messages for the same time than those of hundreds.
    pub fn is_fast(self) -> bool {
        matches!(self, Subject::LimitInline | Subject::LimitThread | Subject::Weir | Subject::WeirSilent)
    }

    /// Messages of a relay run for each second of the plan, so that runs take about as long.
    pub fn relayed_a_second(self) -> f64 {
        match self {
            Subject::WeirFiltered => 2_500.0,
            _ if self.is_fast() => 12_000.0,
            _ => 700.0,
        }
    }

    /// Starts it in a folder below `place`. Without `to` it keeps the mail; with it, it relays there.
    pub fn start(self, place: &str, to: Option<SocketAddr>) -> Running {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(place).unwrap();
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        match self {
            Subject::LimitInline => limit(folder, "inline", to),
            Subject::LimitThread => limit(folder, "thread", to),
            Subject::Weir => weir(folder, LOG_LEVEL, to, "off"),
            Subject::WeirSilent => weir(folder, "warn", to, "off"),
            Subject::Postfix => postfix_with(folder, to, ""),
            Subject::Exim => exim(folder, to),
            Subject::WeirFiltered => filtered::start_weir(folder, to),
            Subject::PostfixRspamd => filtered::start_postfix(folder, to),
        }
    }
}

enum Handle {
    Part { _part: Part },
    Child(Child),
    Postfix,
}

/// A server that runs; ended when dropped.
pub struct Running {
    pub address: SocketAddr,
    pub pid: u32,
    handle: Handle,
    folder: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        match &mut self.handle {
            Handle::Part { .. } => {}
            Handle::Child(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Handle::Postfix => {
                let _ = postfix_script().arg("stop").arg(self.folder.path()).output();
                filtered::stop_rspamd(self.folder.path());
            }
        }
    }
}

impl Running {
    /// The same, reached by another of its listeners.
    pub fn at(mut self, listener: &str) -> Self {
        let text = fs::read_to_string(self.folder.path().join("data/run.json")).unwrap();
        let run: serde_json::Value = serde_json::from_str(&text).unwrap();
        self.address = run["addresses"][listener].as_str().unwrap().parse().unwrap();
        self
    }
}

fn limit(folder: TempDir, sync: &str, to: Option<SocketAddr>) -> Running {
    let file = folder.path().join("limit.bin").display().to_string();
    let mut options = vec![("file", file), ("sync", sync.to_owned()), ("seconds", "3600".to_owned())];
    options.extend(to.map(|to| ("relay", to.to_string())));
    let mut part = Part::start("limit", &options);
    let (address, pid) = (part.address(), part.pid());
    Running { address, pid, handle: Handle::Part { _part: part }, folder }
}

/// Weir with one listener for all that comes from here, no checks, and bounds that the load does not reach.
pub fn weir(folder: TempDir, level: &str, to: Option<SocketAddr>, admin: &str) -> Running {
    weir_with(folder, level, to, admin, "")
}

/// The same, with more configuration.
pub fn weir_with(folder: TempDir, level: &str, to: Option<SocketAddr>, admin: &str, more: &str) -> Running {
    let way = match to {
        Some(to) => format!("[relay]\nsmarthost = \"smtp://{to}?tls=none\"\n[deliver]\nallow_local = true\n"),
        None => "[deliver]\npaused = true\n".to_owned(),
    };
    let config = format!(
        "hostname = \"weir.bench\"\ndata_dir = \"data\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\nrole = \"relay\"\nname = \"in\"\n\
         [limits]\nmessages_per_connection = 10000000\nconnections = 100000\nconnections_per_ip = 100000\n\
         connections_per_net = 100000\n[store]\npop3 = \"off\"\npop3s = \"off\"\n[admin]\naddress = \"{admin}\"\n\
         [log]\nlevel = \"{level}\"\n{way}{more}"
    );
    let file = folder.path().join("weir.toml");
    fs::write(&file, config).unwrap();
    let (child, address) = serve(folder.path());
    std::thread::sleep(SETTLE);
    Running { address, pid: child.id(), handle: Handle::Child(child), folder }
}

/// Starts Weir in a folder that has its configuration; it listens when this returns.
fn serve(folder: &Path) -> (Child, SocketAddr) {
    let run = folder.join("data/run.json");
    let _ = fs::remove_file(&run); // what a killed one left behind
    let log = File::create(folder.join("log")).unwrap();
    let child = weir_command(folder, &["serve"]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let address = wait("Weir", || {
        let run: serde_json::Value = serde_json::from_str(&fs::read_to_string(&run).ok()?).ok()?;
        run["addresses"]["in"].as_str()?.parse().ok()
    });
    (child, address)
}

fn weir_command(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(words).arg("--config").arg(folder.join("weir.toml")).stdin(Stdio::null());
    command
}

impl Running {
    /// Ends a Weir by `signal` and starts it again: seconds until it had ended, and then until it took a message.
    pub fn restart(&mut self, signal: Signal) -> (f64, f64) {
        let Handle::Child(child) = &mut self.handle else { panic!("only Weir is started again") };
        let began = Instant::now();
        rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
        child.wait().unwrap();
        let ended = began.elapsed().as_secs_f64();
        let began = Instant::now();
        (*child, self.address) = serve(self.folder.path());
        self.pid = child.id();
        let options = [("to", self.address.to_string()), ("messages", "1".into()), ("connections", "1".into())];
        assert_eq!(Part::start("generate", &options).result()["messages"], 1);
        (ended, began.elapsed().as_secs_f64())
    }

    /// A command of the Weir that runs here.
    pub fn command(&self, words: &[&str]) -> Command {
        weir_command(self.folder.path(), words)
    }
}

/// Waits until `look` finds something.
pub fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn postfix_script() -> Command {
    let mut command = Command::new("bash");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/postfix.sh")).stdin(Stdio::null());
    command
}

/// Postfix with these milters.
pub fn postfix_with(folder: TempDir, to: Option<SocketAddr>, milters: &str) -> Running {
    let mut command = postfix_script();
    command.env("MILTERS", milters);
    let mut extra = "relay_domains=example.net;default_process_limit=200".to_owned();
    match to {
        Some(to) => drop(command.env("RELAY", to.to_string())),
        None => extra.push_str(";defer_transports=discard"),
    }
    let output = command.arg("start").arg(folder.path()).env("EXTRA", extra).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let address = text.lines().find_map(|line| line.strip_prefix("SMTP=")).expect("postfix.sh says where");
    let pid = fs::read_to_string(folder.path().join("queue/pid/master.pid")).unwrap().trim().parse().unwrap();
    Running { address: address.parse().unwrap(), pid, handle: Handle::Postfix, folder }
}

fn exim_folder() -> &'static Path {
    EXIM_FOLDER.get().expect("set when the bench begins")
}

/// Exim as it comes: a message's two files are synced before its 250.
fn exim(folder: TempDir, to: Option<SocketAddr>) -> Running {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = folder.path().display();
    let program = exim_folder().join(EXIM);
    let program = program.display();
    let (hold, route) = match to {
        Some(to) => ("", format!("* {} byname", to.ip())),
        None => ("queue_only = true\n", "* 127.0.0.1".to_owned()),
    };
    let next = to.map_or(25, |to| to.port());
    let config = format!(
        "spool_directory = {path}/spool\nlog_file_path = {path}/log-%slog\nprimary_hostname = exim.bench\n\
         exim_user = mail\nexim_group = mail\nexim_path = {program}\ndeliver_drop_privilege = true\ntls_advertise_hosts =\nsmtp_accept_max = 200\nsmtp_accept_queue_per_connection = 0\n\
         smtp_accept_max_per_connection = 0\nhost_lookup =\n{hold}acl_smtp_rcpt = accept\nbegin acl\naccept:\n accept\n\
         begin routers\nall:\n driver = manualroute\n transport = out\n route_list = {route}\n self = send\n\
         begin transports\nout:\n driver = smtp\n port = {next}\n hosts_try_fastopen =\n"
    );
    fs::write(folder.path().join("exim.conf"), config).unwrap();
    let _ = Command::new("chown").arg("mail:mail").arg(folder.path()).status();
    let child = Command::new("bash")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/gateway/exim.sh"))
        .arg("run")
        .arg(exim_folder())
        .arg(folder.path().join("exim.conf"))
        .arg(format!("127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait("Exim", || TcpStream::connect(address).ok());
    Running { address, pid: child.id(), handle: Handle::Child(child), folder }
}
