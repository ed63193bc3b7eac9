//! The API and the command line that talks to it, over a real socket, with a gateway made of a list.
#![allow(clippy::unwrap_used)] // helpers of tests may fail a test

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use weir::admin::backend::{AdminBackend, AdminFault, Answering};
use weir::admin::guard::Guard;
use weir::admin::model::*;
use weir::admin::server::{Api, serve};
use weir::admin::token;
use weir::config::Config;
use weir::observe::metrics::Metrics;

#[derive(Default)]
struct Fake {
    entries: Mutex<Vec<QueueEntry>>,
    acted: Mutex<Vec<(QueueAction, Selection, bool)>>,
}

fn now<T: Send + 'static>(value: Result<T, AdminFault>) -> Answering<'static, T> {
    Box::pin(std::future::ready(value))
}

fn sentence(text: &str) -> Answering<'static, Sentence> {
    now(Ok(Sentence { text: text.to_owned() }))
}

impl AdminBackend for Fake {
    fn not_ready(&self) -> Option<String> {
        None
    }
    fn queue_list(&self, filter: Filter, most: usize) -> Answering<'_, Vec<QueueEntry>> {
        let fits = |entry: &&QueueEntry| {
            filter.sender.as_ref().is_none_or(|sender| Filter::address_matches(sender, &entry.sender))
                && filter.state.is_none_or(|state| state == entry.state)
        };
        now(Ok(self.entries.lock().unwrap().iter().filter(fits).take(most).cloned().collect()))
    }
    fn queue_show(&self, id: String) -> Answering<'_, QueueDetail> {
        now(Err(AdminFault::NotFound(format!("there is no message {id}"))))
    }
    fn queue_content(&self, id: String) -> Answering<'_, Vec<u8>> {
        now(Ok(format!("Subject: {id}\r\n\r\n").into_bytes()))
    }

    fn queue_why(&self, _: String) -> Answering<'_, Sentence> {
        sentence("it waits for mx.example.net, which said 451 \u{1b}[2J; next attempt in 5m")
    }
    fn queue_act(&self, action: QueueAction, selection: Selection, only: bool) -> Answering<'_, Acted> {
        let count = selection.ids.len() as u64;
        self.acted.lock().unwrap().push((action, selection, only));
        now(Ok(Acted { count, taught: 0 }))
    }
    fn queue_verify(&self) -> Answering<'_, Verified> {
        let named = vec!["0000000000001".to_owned()];
        let clean = false;
        now(Ok(Verified { clean, records: 7, messages: 2, damage: vec![], differences: 1, named, books_agree: true }))
    }
    fn audit(&self, from: Option<u64>, _: Option<u64>) -> Answering<'_, Audited> {
        let text = r#"{"from":0,"to":3600,"opening":1,"accepted":2,"delivered":3,"bounced":0,"expired":0,"discarded":0,
            "dropped":0,"lost":0,"closing":0,"queued_now":0,"quarantined_now":0,"balanced":true}"#;
        let audited: Audited = serde_json::from_str(text).unwrap();
        now(Ok(Audited { from: from.unwrap_or(0), ..audited }))
    }
    fn learn(&self, lessons: Lessons) -> Answering<'_, Taught> {
        now(Ok(Taught { count: lessons.messages.len() as u64, ham: 0, spam: 0 }))
    }
    fn reports_waiting(&self, _: usize) -> Answering<'_, Vec<ReportWaiting>> {
        now(Ok(Vec::new()))
    }
    fn reports_send(&self, what: ReportSend) -> Answering<'_, ReportsSent> {
        now(Ok(ReportsSent { sent: what.now.into(), ..ReportsSent::default() }))
    }
    fn reports_received(&self, _: ReportFilter, _: usize) -> Answering<'_, Vec<ReportReceived>> {
        now(Ok(Vec::new()))
    }
    fn stats(&self) -> Answering<'_, Stats> {
        now(Ok(Stats::from([("queued".to_owned(), 2.0)])))
    }
    fn config_summary(&self) -> Answering<'_, Sentence> {
        sentence("summary")
    }
    fn rate_list(&self, key: Option<String>, _: usize) -> Answering<'_, Vec<RateEntry>> {
        let windows = vec![RateUse { used: 150, limit: 200, period_secs: 3600 }];
        now(Ok(vec![RateEntry { rate: "messages by login".into(), key: key.unwrap_or("login=alice".into()), windows }]))
    }
    fn rule_costs(&self) -> Answering<'_, Vec<RuleCost>> {
        now(Ok(vec![RuleCost { rule: "OFFER".into(), tried: 4, hits: 1, nanoseconds: 8000 }]))
    }
    fn rate_reset(&self, key: String) -> Answering<'_, Acted> {
        now(Ok(Acted { count: u64::from(key == "alice"), taught: 0 }))
    }
    fn reload(&self) -> Answering<'_, Reloaded> {
        now(Ok(Reloaded { ok: false, text: "error: weir.toml:1:1: no".to_owned() }))
    }
    fn pause_delivery(&self, paused: bool) -> Answering<'_, Sentence> {
        sentence(if paused { "paused" } else { "resumed" })
    }
}

fn entry(id: &str, sender: &str, state: State) -> QueueEntry {
    QueueEntry {
        id: id.into(),
        state,
        sender: sender.into(),
        recipients: 1,
        size: 4096,
        accepted: 1_700_000_000,
        next_attempt: Some(1_700_000_300),
        destination: "example.net".into(),
        reason: "451 4.7.1 greylisted".into(),
    }
}

struct Running {
    dir: tempfile::TempDir,
    address: SocketAddr,
    token: String,
    fake: Arc<Fake>,
    _runtime: tokio::runtime::Runtime,
}

impl Running {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let text = format!("data_dir = \".\"\n[admin]\naddress = \"{address}\"\n");
        std::fs::write(dir.path().join("weir.toml"), text).unwrap();
        let config = Config::load(&dir.path().join("weir.toml")).unwrap();
        let token = token::load_or_make(&config).unwrap();
        let fake = Arc::new(Fake::default());
        *fake.entries.lock().unwrap() = vec![
            entry("0000000000001", "a@example.org", State::Deferred),
            entry("0000000000002", "", State::Quarantined),
        ];
        let guard = Guard::new(token.clone(), &config);
        let api = Arc::new(Api { backend: fake.clone(), metrics: Metrics::new().unwrap(), guard });
        runtime.spawn(serve(listener, api, std::future::pending()));
        Running { dir, address, token: token.expose().to_owned(), fake, _runtime: runtime }
    }

    fn weir(&self, args: &[&str]) -> Output {
        weir(self.dir.path(), args)
    }

    /// Sends raw bytes, answers all that comes back.
    fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is the server's right: it did not read a body that it refused.
        let _reset = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, path: &str, headers: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address))
    }

    fn post(&self, path: &str, headers: &str, body: &str) -> String {
        let token = &self.token;
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n", self.address);
        self.raw(&format!("{head}Content-Length: {length}\r\n{headers}\r\n{body}"))
    }
}

fn weir(dir: &Path, args: &[&str]) -> Output {
    let config = dir.join("weir.toml");
    Command::new(env!("CARGO_BIN_EXE_weir")).args(args).arg("--config").arg(config).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_command_line_lists_acts_and_says_no() {
    let running = Running::start();
    let list = running.weir(&["queue", "list"]);
    assert!(out(&list).contains("0000000000001  deferred") && out(&list).contains("greylisted"), "{list:?}");
    let one = running.weir(&["queue", "list", "--json", "--sender", "@example.org"]);
    let entries: Vec<QueueEntry> = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!(entries, [entry("0000000000001", "a@example.org", State::Deferred)]);
    let quarantine = running.weir(&["quarantine", "list"]);
    assert!(out(&quarantine).contains("0000000000002") && !out(&quarantine).contains("0000000000001"));
    let why = running.weir(&["queue", "why", "0000000000001"]);
    assert_eq!(out(&why), "it waits for mx.example.net, which said 451 \\u{1b}[2J; next attempt in 5m\n");
    assert_eq!(running.weir(&["queue", "show", "0000000000009"]).status.code(), Some(1));
    assert_eq!(running.weir(&["queue", "hold", "0000000000001"]).status.code(), Some(0));
    assert_eq!(running.weir(&["queue", "drop"]).status.code(), Some(2), "nothing named is not everything");
    assert_eq!(running.weir(&["queue", "drop", "--state", "lost"]).status.code(), Some(2));
    running.weir(&["quarantine", "release", "--sender", "<>", "--older", "1h"]);
    let acted = running.fake.acted.lock().unwrap().clone();
    let filter = Filter { sender: Some("<>".into()), older_secs: Some(3600), ..Filter::default() };
    assert_eq!(
        acted,
        [
            (QueueAction::Hold, Selection { ids: vec!["0000000000001".into()], filter: None, teach: None }, false),
            (QueueAction::Release, Selection { ids: vec![], filter: Some(filter), teach: None }, true),
        ]
    );
    let rates = running.weir(&["rate", "list"]);
    assert!(out(&rates).contains("login=alice  150/200 in 1h"), "{rates:?}");
    assert_eq!(running.weir(&["rate", "reset", "nobody"]).status.code(), Some(1));
    let reload = running.weir(&["reload"]);
    assert_eq!(reload.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&reload.stderr).contains("the old configuration stays in force"));
}

#[test]
fn proof_is_asked_of_the_running_weir() {
    let running = Running::start();
    let verify = running.weir(&["queue", "verify"]);
    assert_eq!(verify.status.code(), Some(1));
    assert!(out(&verify).starts_with("the running Weir: 7 records") && out(&verify).ends_with("not clean\n"));
    let audit = running.weir(&["audit", "--from", "1970-01-01T01:00:00Z"]);
    assert!(audit.status.success() && out(&audit).contains("from the hour of 1970-01-01 01:00 UTC"), "{audit:?}");
    assert!(out(&audit).ends_with("\nadds up\n"));
    assert_eq!(running.weir(&["audit", "--to", "tomorrow"]).status.code(), Some(2));
}

#[test]
fn without_a_running_weir_the_exit_is_temporary() {
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago and that nobody listens on.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!("data_dir = \".\"\n[admin]\naddress = \"{address}\"\ntoken = \"0123456789abcdef\"\n");
    std::fs::write(dir.path().join("weir.toml"), text).unwrap();
    assert_eq!(weir(dir.path(), &["queue", "list"]).status.code(), Some(75));
    std::fs::write(dir.path().join("weir.toml"), "nonsense").unwrap();
    assert_eq!(weir(dir.path(), &["check"]).status.code(), Some(1));
    assert_eq!(weir(dir.path(), &["no-such-command"]).status.code(), Some(2));
}

#[test]
fn strangers_and_nonsense_are_refused_and_bounded() {
    let running = Running::start();
    let status = |answer: &str| answer.get(9..12).unwrap_or_default().to_owned();
    let token = format!("Authorization: Bearer {}\r\n", running.token);
    let json = "Content-Type: application/json\r\n";
    let metrics = running.get("/metrics", "");
    assert!(status(&metrics) == "200" && metrics.contains("process_resident_memory_bytes"), "{metrics}");
    assert_eq!(status(&running.get("/healthz", "")), "200");
    assert_eq!(status(&running.get("/readyz", "")), "200");
    assert_eq!(status(&running.get("/v1/queue", "")), "401");
    assert_eq!(status(&running.get("/v1/nothing", "")), "401");
    assert_eq!(status(&running.get("/v1/queue", &token)), "200");
    assert_eq!(status(&running.get("/v1/nothing", &token)), "404");
    assert_eq!(status(&running.get("/v1/queue/drop", &token)), "405");
    assert_eq!(status(&running.get("/v1/queue?sendr=x", &token)), "400");
    assert_eq!(status(&running.get("/v1/queue", &format!("{token}Origin: http://evil.example\r\n"))), "403");
    assert_eq!(status(&running.raw("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n")), "403");
    assert_eq!(status(&running.post("/v1/queue/drop", "", "{}")), "415");
    assert_eq!(status(&running.post("/v1/queue/drop", json, "{}")), "400", "an empty selection is not everything");
    assert_eq!(status(&running.post("/v1/queue/drop", json, r#"{"id":["x"]}"#)), "400");
    assert_eq!(status(&running.post("/v1/queue/drop", json, &" ".repeat(300 * 1024))), "413");
    assert_eq!(status(&running.post("/v1/delivery/pause", json, "")), "200");
    let long = format!("X: {}\r\n", "x".repeat(64 * 1024));
    assert_eq!(status(&running.get("/metrics", &long)), "431");
    assert!(running.fake.acted.lock().unwrap().is_empty());
}
