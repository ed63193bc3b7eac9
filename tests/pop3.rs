//! The embedded store from outside: Python's poplib and curl against the live POP3 server.
#![allow(clippy::unwrap_used)] // A test's helpers may panic too.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::sync::oneshot;
use weir::base::secret::Secret;
use weir::config::settings;
use weir::store::mailbox::Mailboxes;
use weir::store::meters::Meters;
use weir::store::server::{LoginGuard, Logins, Pop3Listeners, Pop3Server, TlsSource};
use weir::store::users::file::{self, UserEntry};
use weir::store::users::{Users, password, watch};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server on a store of its own, or of an earlier one.
struct Live {
    pop3: SocketAddr,
    pop3s: SocketAddr,
    mailboxes: Arc<Mailboxes>,
    users: Arc<Users>,
    meters: Arc<Meters>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Lets everybody try, as often as they like.
struct Unguarded;

impl LoginGuard for Unguarded {
    fn may_try(&self, _: IpAddr, _: &str) -> bool {
        true
    }

    fn failed(&self, _: IpAddr, _: &str) {}
}

fn tls() -> TlsSource {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    Arc::new(move || Some(config.clone()))
}

fn add_user(folder: &Path, name: &str, text: &str, apop: bool) {
    let secret = Secret::new(text);
    let user = UserEntry {
        password: password::hash(&secret),
        scram: Some(password::scram_text(&password::scram_keys(name, &secret))),
        apop: apop.then(|| text.to_owned()),
        addresses: Vec::new(),
    };
    file::edit(&folder.join("users.toml"), |f| Ok::<_, std::io::Error>(f.users.insert(name.to_owned(), user))).unwrap();
}

impl Live {
    fn start(folder: &Path, plaintext_login: bool) -> Self {
        let meters = Arc::new(Meters::register(&prometheus::Registry::new()).unwrap());
        let mailboxes = Arc::new(Mailboxes::open(&folder.join("mail"), "mx.test", meters.clone()).unwrap());
        let users = Arc::new(Users::open(&folder.join("users.toml")).unwrap());
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let settings = settings::Store {
            directory: folder.join("mail"),
            pop3: any,
            pop3s: any,
            plaintext_login,
            connections_per_ip: 4,
            connections: 100,
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, addresses) = std::sync::mpsc::channel();
        let (u, m, c) = (users.clone(), mailboxes.clone(), meters.clone());
        let thread = thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let listeners = Pop3Listeners::bind(&settings).unwrap();
                ready.send((listeners.pop3_address().unwrap(), listeners.pop3s_address().unwrap())).unwrap();
                let logins = Logins { users: u.clone(), guard: Arc::new(Unguarded) };
                let server = Pop3Server::new(listeners, &settings, "mx.test", tls(), logins, m, c);
                let watcher = tokio::spawn(watch(u));
                server.run(async { stopped.await.unwrap_or(()) }).await.unwrap();
                watcher.abort();
            });
        });
        let (pop3, pop3s) = addresses.recv().unwrap();
        Live { pop3, pop3s, mailboxes, users, meters, stop: Some(stop), thread: Some(thread) }
    }

    /// Runs a Python program that finds the ports in `pop3` and `pop3s`; gives what it printed.
    fn python(&self, program: &str) -> String {
        let head = format!(
            "import poplib, ssl, socket, sys, time\npop3, pop3s = {}, {}\nPOP3 = poplib.POP3\n\
             tls = ssl.create_default_context()\ntls.check_hostname = False\ntls.verify_mode = ssl.CERT_NONE\n\
             def plain(): return POP3('127.0.0.1', pop3, timeout=60)\n\
             def error(f, *a):\n    try: f(*a)\n    except poplib.error_proto as e: return e.args[0].decode()\n    raise SystemExit('no error')\n",
            self.pop3.port(),
            self.pop3s.port()
        );
        let output = Command::new("python3").arg("-c").arg(head + program).output().expect("python3 runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    add_user(folder.path(), "alice", "pw", false);
    folder
}

/// Runs `weir user …` on the users of `folder`, in it.
fn weir_user(folder: &Path, arguments: &[&str]) {
    let config = "data_dir = \"data\"\n[auth]\nusers = { file = \"users.toml\" }\n";
    std::fs::write(folder.join("weir.toml"), config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .current_dir(folder)
        .arg("user")
        .args(arguments)
        .args(["--config", "weir.toml"])
        .output()
        .expect("weir runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "waited for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn poplib_reads_over_every_way_in() {
    let folder = folder();
    add_user(folder.path(), "carol", "clear", true);
    let live = Live::start(folder.path(), true);
    live.mailboxes.deliver("alice", b"Return-Path: <a@b>\r\n", b"Subject: x\r\n\r\n.dot\r\nend\r\n").unwrap();
    live.mailboxes.deliver_all(&["carol", "alice"], b"", b"Subject: y\r\n\r\nbody\r\n");
    let said = live.python(
        r#"
def read(box):
    n, size = box.stat()
    assert (n, size) == (2, 65), (n, size)
    assert box.list()[1][0].startswith(b'1 '), box.list()
    assert box.retr(1)[1] == [b'Return-Path: <a@b>', b'Subject: x', b'', b'.dot', b'end'], box.retr(1)
    assert box.top(1, 1)[1][-1] == b'.dot'
    ids = box.uidl()[1]
    box.rset(); box.noop(); box.quit()
    return ids
box = plain(); assert 'STLS' in box.capa(); box.user('alice'); box.pass_('pw'); a = read(box)
box = plain(); box.stls(tls); assert 'STLS' not in box.capa(); box.user('ALICE'); box.pass_('pw'); b = read(box)
box = poplib.POP3_SSL('127.0.0.1', pop3s, context=tls, timeout=60); box.user('alice@example.org'); box.pass_('pw'); c = read(box)
box = plain(); box._shortcmd('AUTH PLAIN AGFsaWNlAHB3'); d = read(box)
assert a == b == c == d, (a, b, c, d)
box = plain(); box.apop('carol', 'clear'); assert box.stat()[0] == 1; box.quit()
box = plain(); print(error(box.apop, 'alice', 'pw')); box.quit()
box = plain(); box.user('alice'); print(error(box.pass_, 'wrong')); box.quit()
"#,
    );
    assert_eq!(said.matches("[AUTH]").count(), 2, "{said}");
    assert_eq!(live.meters.logins.with_label_values(&["ok"]).get(), 5);
    assert_eq!(live.meters.logins.with_label_values(&["failed"]).get(), 2);
}

#[test]
fn scram_by_an_independent_client() {
    let folder = folder();
    let live = Live::start(folder.path(), false);
    let said = live.python(
        r#"
import base64, hashlib, hmac, os
h = lambda k, m: hmac.new(k, m, 'sha256').digest()
def scram(login, password):
    box = plain(); box.stls(tls)
    bare = f'n={login},r=' + base64.b64encode(os.urandom(12)).decode()
    box._putcmd('AUTH SCRAM-SHA-256 ' + base64.b64encode(('n,,' + bare).encode()).decode())
    first = base64.b64decode(box._getline()[0][2:]).decode()
    f = dict(x.split('=', 1) for x in first.split(','))
    salted = hashlib.pbkdf2_hmac('sha256', password.encode(), base64.b64decode(f['s']), int(f['i']))
    key = h(salted, b'Client Key')
    bare_last = 'c=biws,r=' + f['r']
    auth = ','.join([bare, first, bare_last]).encode()
    proof = bytes(a ^ b for a, b in zip(key, h(hashlib.sha256(key).digest(), auth)))
    box._putcmd(base64.b64encode((bare_last + ',p=' + base64.b64encode(proof).decode()).encode()).decode())
    line = box._getline()[0].decode()
    if line.startswith('+ '):
        assert base64.b64decode(line[2:]).decode() == 'v=' + base64.b64encode(h(h(salted, b'Server Key'), auth)).decode()
        box._putcmd(''); line = box._getline()[0].decode()
    box.quit()
    return line, f['s']
print(scram('alice', 'pw')[0])
print(scram('alice', 'wrong')[0])
assert scram('nobody', 'pw')[1] == scram('nobody', 'pw')[1]
"#,
    );
    assert!(said.starts_with("+OK alice has 0 messages"), "{said}");
    assert!(said.contains("-ERR [AUTH]"), "{said}");
}

#[test]
fn without_tls_no_password_is_taken_by_default() {
    let folder = folder();
    let live = Live::start(folder.path(), false);
    let said = live.python(
        "box = plain(); assert b'<' not in box.getwelcome(); print(error(box.user, 'alice'))\n\
         box.stls(tls); box.user('alice'); box.pass_('pw'); box.quit()",
    );
    assert!(said.contains("no login without TLS"), "{said}");
}

#[test]
fn a_maildrop_has_one_session_and_its_view_stands_still() {
    let folder = folder();
    let live = Live::start(folder.path(), true);
    for text in [&b"one\r\n"[..], b"two\r\n", b"three\r\n"] {
        live.mailboxes.deliver("alice", b"", text).unwrap();
    }
    let (opened, delivered) = (folder.path().join("opened"), folder.path().join("delivered"));
    // A delivery while the second session is open.
    let postman = {
        let (mailboxes, opened, delivered) = (live.mailboxes.clone(), opened.clone(), delivered.clone());
        thread::spawn(move || {
            wait_until("the second session", || opened.exists());
            mailboxes.deliver("alice", b"", b"four\r\n").unwrap();
            std::fs::write(delivered, "").unwrap();
        })
    };
    let program = r#"
import os
first = plain(); first.user('alice'); first.pass_('pw'); ids = first.uidl()[1]
second = plain(); second.user('alice'); print(error(second.pass_, 'pw'))
first.dele(1); first.close()
for attempt in range(1200):
    second.user('alice')
    try: second.pass_('pw'); break
    except poplib.error_proto: time.sleep(0.05)
assert second.uidl()[1] == ids
second.dele(2); open('OPENED', 'w').close()
until = time.time() + 60
while not os.path.exists('DELIVERED') and time.time() < until: time.sleep(0.02)
assert second.stat()[0] == 2, second.stat()
second.quit()
third = plain(); third.user('alice'); third.pass_('pw')
print([third.retr(n + 1)[1][0].decode() for n in range(third.stat()[0])]); third.quit()
"#;
    let program = program.replace("OPENED", opened.to_str().unwrap()).replace("DELIVERED", delivered.to_str().unwrap());
    let said = live.python(&program);
    postman.join().unwrap();
    assert!(said.contains("['one', 'three', 'four']"), "{said}");
    assert!(said.contains("[IN-USE]"), "{said}");
    assert_eq!(live.meters.removed_messages.get(), 1);
}

#[test]
fn uidls_survive_a_restart_and_a_move_by_another_program() {
    let folder = folder();
    let ids = |live: &Live| live.python("box = plain(); box.user('alice'); box.pass_('pw'); print(box.uidl()[1])");
    let live = Live::start(folder.path(), true);
    for number in 0..30 {
        live.mailboxes.deliver("alice", b"", format!("{number}\r\n").as_bytes()).unwrap();
    }
    let before = ids(&live);
    let maildir = live.mailboxes.path_of("alice").unwrap();
    drop(live);
    for entry in std::fs::read_dir(maildir.join("new")).unwrap().take(10) {
        let entry = entry.unwrap();
        let name = format!("{}:2,S", entry.file_name().to_str().unwrap());
        std::fs::rename(entry.path(), maildir.join("cur").join(name)).unwrap();
    }
    let live = Live::start(folder.path(), true);
    assert_eq!(ids(&live), before);
}

#[test]
fn a_large_message_comes_whole_and_a_slow_reader_holds_it_back() {
    const BYTES: usize = 50 * 1024 * 1024;
    let folder = folder();
    let live = Live::start(folder.path(), true);
    let line = format!(".{}\r\n", "x".repeat(70));
    let text = line.repeat(BYTES / line.len());
    live.mailboxes.deliver("alice", b"", text.as_bytes()).unwrap();
    let said = live.python(&format!(
        r#"
s = socket.create_connection(('127.0.0.1', pop3), timeout=60); f = s.makefile('rb')
f.readline(); s.sendall(b'USER alice\r\nPASS pw\r\nRETR 1\r\n'); f.readline(); f.readline()
print('waiting', flush=True); time.sleep(1)
assert f.readline() == b'+OK {} octets\r\n'
size = 0
for line in f:
    if line == b'.\r\n': break
    assert line[:2] == b'..'
    size += len(line) - 1
print(size)
"#,
        text.len()
    ));
    assert!(said.ends_with(&format!("{}\n", text.len())), "{said}");
    assert_eq!(live.meters.retrieved_bytes.get(), text.len() as u64);
}

#[test]
fn too_many_connections_of_one_address_are_refused() {
    let folder = folder();
    let live = Live::start(folder.path(), true);
    let said = live.python("boxes = [plain() for _ in range(4)]\nprint(error(plain))\nboxes[0].quit()");
    assert!(said.contains("[SYS/TEMP] too many connections"), "{said}");
    wait_until("places to be given back", || live.meters.open.get() == 0);
    live.python("plain().quit()");
    assert_eq!(live.meters.refused.get(), 1);
}

#[test]
fn a_user_added_while_it_runs_can_log_in_and_a_removed_one_cannot() {
    let folder = folder();
    let live = Live::start(folder.path(), true);
    live.python("box = plain(); box.user('alice'); box.pass_('pw'); box.quit()");
    std::fs::write(folder.path().join("password"), "new\n").unwrap();
    weir_user(folder.path(), &["add", "Dave", "--address", "d@example.org", "--password-file", "password"]);
    weir_user(folder.path(), &["remove", "alice"]);
    wait_until("the users file to be read again", || live.users.find("dave").is_some());
    let said = live.python(
        "box = plain(); box.user('d@example.org'); box.pass_('new'); box.quit()\n\
         box = plain(); box.user('alice'); print(error(box.pass_, 'pw')); box.quit()",
    );
    assert!(said.contains("[AUTH]"), "{said}");
}

#[test]
fn curl_reads_by_pop3_and_pop3s() {
    let folder = folder();
    let live = Live::start(folder.path(), true);
    live.mailboxes.deliver("alice", b"", b"Subject: curled\r\n\r\n.body\r\n").unwrap();
    for (url, more) in [
        (format!("pop3://{}/1", live.pop3), "--no-sessionid"),
        (format!("pop3://{}/1", live.pop3), "--ssl-reqd"),
        (format!("pop3s://{}/1", live.pop3s), "--no-sessionid"),
    ] {
        let output = Command::new("curl")
            .args(["-sS", "-k", more, "--max-time", "20", "--url", &url, "--user", "alice:pw"])
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(text, "Subject: curled\r\n\r\n.body\r\n", "{url}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
