//! What the tests from outside share: a gateway of their own, real peers, clients.
#![allow(dead_code)] // Each test file uses its part.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub mod config;

/// How long anything may take before a test calls it broken. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder below /tmp that other users (a peer's own) can reach.
pub fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("weir-test-").tempdir().expect("a temporary folder");
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
    folder
}

/// A running gateway.
pub struct Weir {
    child: Child,
    folder: TempDir,
    /// What the shell does before.
    first: String,
}

impl Weir {
    /// Starts one with this configuration; `DIR` in it is replaced by the gateway's folder.
    pub fn start(config: &str) -> Self {
        Self::start_under("", config)
    }

    /// The same, from a shell that did `first` (`ulimit -n 128`).
    pub fn start_under(first: &str, config: &str) -> Self {
        let folder = folder();
        let config = config.replace("DIR", &folder.path().display().to_string());
        fs::write(folder.path().join("weir.toml"), config).expect("the folder is writable");
        let child = spawn(first, folder.path());
        let mut weir = Weir { child, folder, first: first.to_owned() };
        weir.wait_ready();
        weir
    }

    fn wait_ready(&mut self) {
        let pid = self.child.id();
        wait_for("the gateway", || {
            let ended = self.child.try_wait().expect("own child");
            assert!(ended.is_none(), "the gateway ended: {ended:?}");
            let text = fs::read_to_string(self.run_file()).ok()?;
            let run: serde_json::Value = serde_json::from_str(&text).ok()?;
            (run["pid"] == pid).then_some(())
        });
    }

    fn run_file(&self) -> PathBuf {
        self.folder.path().join("data/run.json")
    }

    /// The gateway's folder: weir.toml, data/, log.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `127.0.0.1:PORT` of a listener by its name (`mx`, `submission`, `admin`, `pop3` …).
    pub fn address(&self, name: &str) -> String {
        let text = fs::read_to_string(self.run_file()).expect("the gateway runs");
        let run: serde_json::Value = serde_json::from_str(&text).expect("run.json is JSON");
        run["addresses"][name].as_str().unwrap_or_else(|| panic!("no {name} in {run}")).to_owned()
    }

    /// Port of a listener.
    pub fn port(&self, name: &str) -> u16 {
        self.address(name).rsplit(':').next().expect("host:port").parse().expect("a port")
    }

    /// Runs `weir ARGS… --config weir.toml`.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        command().args(arguments).arg("--config").arg(self.folder.path().join("weir.toml")).output().expect("weir runs")
    }

    /// The same, which must succeed; gives standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "weir {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Makes a user whose password is `pw`.
    pub fn add_user(&self, name: &str) {
        let file = self.folder.path().join("password");
        fs::write(&file, "pw\n").expect("own folder");
        self.ok(&["user", "add", name, "--password-file", &file.display().to_string()]);
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal (`TERM`, `HUP`, `KILL`).
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for its end; true for exit code 0.
    pub fn wait_end(&mut self) -> bool {
        wait_for("the gateway's end", || self.child.try_wait().expect("own child")).success()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on the same folder.
    pub fn restart(&mut self) {
        let _ = fs::remove_file(self.run_file());
        self.child = spawn(&self.first, self.folder.path());
        self.wait_ready();
    }

    /// Items in the queue by `weir queue list --json`.
    pub fn queue(&self) -> Vec<serde_json::Value> {
        let text = self.ok(&["queue", "list", "--json"]);
        match serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")) {
            serde_json::Value::Array(rows) => rows,
            serde_json::Value::Object(map) => {
                map.values().find_map(|v| v.as_array().cloned()).unwrap_or_else(|| panic!("no list in {text}"))
            }
            _ => panic!("no list in {text}"),
        }
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the gateway's log\n{}", self.log());
        }
    }
}

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_weir"))
}

fn spawn(first: &str, folder: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).expect("own folder");
    Command::new("bash")
        .args(["-c", &format!("{first}\nexec \"$0\" serve --config \"$1\""), env!("CARGO_BIN_EXE_weir")])
        .arg(folder.join("weir.toml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be cloned"))
        .stderr(log)
        .spawn()
        .expect("weir starts")
}

/// A real server from tests/peers, ended when dropped.
pub struct Peer {
    script: PathBuf,
    folder: TempDir,
    values: BTreeMap<String, String>,
}

impl Peer {
    /// Runs `tests/peers/NAME.sh start`, with more variables in its environment.
    pub fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/peers/{name}.sh"));
        let folder = folder();
        let output = Command::new("bash")
            .arg(&script)
            .arg("start")
            .arg(folder.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{name}: {text}{}", String::from_utf8_lossy(&output.stderr));
        let values =
            text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Peer { script, folder, values }
    }

    /// A value that it printed (`LMTP`, `POP3` …), usually `127.0.0.1:PORT`.
    pub fn value(&self, name: &str) -> &str {
        self.values.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.values))
    }

    /// The port of such a value.
    pub fn port(&self, name: &str) -> u16 {
        self.value(name).rsplit(':').next().expect("host:port").parse().expect("a port")
    }

    /// Its folder, with logs.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = Command::new("bash").arg(&self.script).arg("stop").arg(self.folder.path()).output();
    }
}

/// Runs a Python program, which must succeed; gives what it printed.
pub fn python(program: &str, arguments: &[&str]) -> String {
    let output = Command::new("python3").arg("-c").arg(program).args(arguments).output().expect("python3 runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs a program; gives its exit success and all that it printed.
pub fn run(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}
