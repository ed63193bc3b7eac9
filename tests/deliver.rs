//! Delivery from outside: an in-memory queue, next hops of every kind of manners, and real ones.

#![allow(clippy::unwrap_used)]

#[path = "deliver/dns.rs"]
mod dns;
#[path = "deliver/hops.rs"]
mod hops;
#[path = "deliver/memory.rs"]
mod memory;
#[path = "deliver/more.rs"]
mod more;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hops::{Hop, Manners, Tls};
use memory::{BrokenStore, MemoryQueue, NoStore, config, message};
use prometheus::Registry;
use support::{Peer, python};
use weir::config::settings::{Config, DeliverTls, Domain, NextHop, Recipients, Scores};
use weir::deliver::meters::Meters;
use weir::deliver::tls_result::TlsResultSink;
use weir::deliver::transport::LocalStore;
use weir::deliver::transport::tls::ClientTls;
use weir::deliver::{Delivery, Parts};
use weir::dns::Resolver;
use weir::spool::queue::Outcome;

/// A delivery engine over a queue in memory.
struct Bench {
    queue: Arc<MemoryQueue>,
    delivery: Delivery,
    registry: Registry,
}

fn bench(config: Config) -> Bench {
    bench_with(config, Arc::new(NoStore), ClientTls::new())
}

fn bench_with(config: Config, store: Arc<dyn LocalStore>, tls: ClientTls) -> Bench {
    bench_over(MemoryQueue::new(&config), config, store, tls)
}

fn bench_over(queue: Arc<MemoryQueue>, config: Config, store: Arc<dyn LocalStore>, tls: ClientTls) -> Bench {
    let registry = Registry::new();
    let parts = Parts {
        queue: queue.clone(),
        store,
        resolver: Arc::new(Resolver::new(&config.dns).unwrap()),
        tls,
        sts: None,
        tls_results: TlsResultSink::default(),
        meters: Meters::register(&registry).unwrap(),
        config: Arc::new(config),
    };
    let delivery = Delivery::start(parts, tokio::runtime::Handle::current());
    Bench { queue, delivery, registry }
}

impl Bench {
    fn delivered(&self) -> usize {
        self.queue.count(|outcome| matches!(outcome, Outcome::Delivered { .. }))
    }

    /// The first outcome, as text.
    async fn first_outcome(&self) -> String {
        until("an outcome", || !self.queue.outcomes().is_empty()).await;
        format!("{:?}", self.queue.outcomes()[0].1)
    }

    /// Metrics as text.
    fn metrics(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }
}

/// How long anything may take. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `done` holds.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn domain(name: &str, deliver_to: NextHop) -> Domain {
    Domain {
        name: name.into(),
        deliver_to,
        recipients: Recipients::Any,
        detail_separator: None,
        subdomains: false,
        scores: Scores::default(),
        line: Default::default(),
    }
}

fn smtp(hop: &Hop) -> NextHop {
    let tls = Some(DeliverTls::Opportunistic);
    NextHop::Smtp { host: "127.0.0.1".into(), port: hop.port, implicit_tls: false, login: None, tls }
}

async fn one_hop(manners: Manners) -> (Bench, Hop) {
    let hop = Hop::start(manners).await;
    let mut config = config();
    config.domains = vec![domain("example.org", smtp(&hop))];
    (bench(config), hop)
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_byte_for_byte_over_few_connections() {
    let (bench, hop) = one_hop(Manners::default()).await;
    let content = b"Subject: x\r\n\r\n.dot\r\n..\r\nend";
    for n in 0..200 {
        bench.queue.submit(message("a@sender.example", &[&format!("u{n}@example.org")], content));
    }
    until("200 deliveries", || bench.queue.count(|o| matches!(o, Outcome::Delivered { .. })) == 200).await;
    let taken = hop.taken();
    assert_eq!(taken.len(), 200);
    assert!(taken.iter().all(|mail| mail.content == b"X-Prefix: y\r\nSubject: x\r\n\r\n.dot\r\n..\r\nend\r\n"));
    assert!(hop.connections() <= 20, "{} connections", hop.connections());
    assert!(bench.delivery.stop(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunking_carries_bare_line_feeds_as_they_are() {
    let (bench, hop) = one_hop(Manners { chunking: true, ..Manners::default() }).await;
    let content = b"Subject: x\r\n\r\nbare\nfeed\r.\r\n";
    bench.queue.submit(message("a@sender.example", &["b@example.org", "c@example.org"], content));
    until("both", || bench.queue.count(|o| matches!(o, Outcome::Delivered { .. })) == 2).await;
    let mut sent = b"X-Prefix: y\r\n".to_vec();
    sent.extend_from_slice(content);
    assert_eq!(hop.taken()[0].content, sent);
    assert_eq!(hop.taken()[0].recipients.len(), 2, "one transaction for both");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_next_hops_leave_the_queue_as_expected() {
    // manners -> (deferred, bounced), and a word of the remote text
    let table = [
        (Manners { hang_after_dot: true, ..Manners::default() }, true, "after the whole message was sent"),
        (Manners { garbage: true, ..Manners::default() }, true, "nonsense"),
        (Manners { close_mid_reply: true, ..Manners::default() }, true, "closed"),
        (Manners { after_dot: "451 4.3.0 later", ..Manners::default() }, true, "451 4.3.0 later"),
        (Manners { after_dot: "554 5.6.0 spam", ..Manners::default() }, false, "554 5.6.0 spam"),
        (Manners { greeting: "554 5.7.1 go", ..Manners::default() }, true, "554 5.7.1 go"),
        (Manners { rcpt: "550 5.1.1 no\x07 such", ..Manners::default() }, false, "550 5.1.1 no? such"),
        (Manners { rcpt: "550 5.1.1 no", data_anyway: true, ..Manners::default() }, false, "550 5.1.1 no"),
        (Manners { rcpt: "421 4.3.2 bye", ..Manners::default() }, true, "421 4.3.2 bye"),
    ];
    for (manners, deferred, word) in table {
        let name = format!("{manners:?}");
        let (bench, _hop) = one_hop(manners).await;
        bench.queue.submit(message("a@sender.example", &["b@example.org"], b"x\r\n"));
        until(&name, || bench.queue.count(|_| true) >= 1).await;
        let outcomes = bench.queue.outcomes();
        let (_, outcome) = &outcomes[0];
        match outcome {
            Outcome::Deferred { remote, next, .. } => {
                assert!(deferred && remote.contains(word), "{name}: {outcome:?}");
                assert!(*next > SystemTime::now(), "{name}");
                assert_eq!(bench.queue.reports().len(), 0);
            }
            Outcome::Bounced { remote } => {
                assert!(!deferred && remote.contains(word), "{name}: {outcome:?}");
                let reports = bench.queue.reports();
                assert_eq!(reports.len(), 1, "{name}");
                assert!(reports[0].envelope.reverse_path.is_none());
            }
            _ => panic!("{name}: {outcome:?}"),
        }
    }
}

/// Reads all mail of a Dovecot user by POP3, as one text.
const POP3: &str = r#"
import poplib, sys
box = poplib.POP3("127.0.0.1", int(sys.argv[1]))
box.user(sys.argv[2]); box.pass_("pw")
for n in range(1, len(box.list()[1]) + 1):
    print(b"\n".join(box.retr(n)[1]).decode("latin-1"))
"#;

#[tokio::test(flavor = "multi_thread")]
async fn dovecot_takes_mail_by_lmtp_and_answers_for_each_recipient() {
    let dovecot = Peer::start("dovecot", &[]);
    let mut config = config();
    config.domains =
        vec![domain("example.test", NextHop::parse(&format!("lmtp://{}", dovecot.value("LMTP"))).unwrap())];
    let bench = bench(config);
    let recipients = ["u1@example.test", "nobody@example.test", "u2@example.test"];
    bench.queue.submit(message("a@sender.example", &recipients, b"Subject: hello\r\n\r\n.dotted\r\n"));
    until("three outcomes", || bench.queue.outcomes().len() == 3).await;
    let outcomes = bench.queue.outcomes();
    assert_eq!(bench.queue.count(|o| matches!(o, Outcome::Delivered { .. })), 2, "{outcomes:?}");
    assert_eq!(bench.queue.count(|o| matches!(o, Outcome::Bounced { .. })), 1, "{outcomes:?}");
    for user in ["u1", "u2"] {
        let text = python(POP3, &[&dovecot.port("POP3").to_string(), user]);
        assert!(text.contains("X-Prefix: y\nSubject: hello\n\n.dotted"), "{text}");
    }
    let report = String::from_utf8(bench.queue.reports()[0].content.to_vec()).unwrap();
    assert!(
        report.contains("Final-Recipient: rfc822;nobody@example.test\r\nAction: failed\r\nStatus: 5.1.1"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_takes_mail_over_starttls_with_pipelining() {
    let dovecot = Peer::start("dovecot", &[]);
    let postfix = Peer::start("postfix", &[("LMTP", dovecot.value("LMTP"))]);
    let mut config = config();
    config.domains =
        vec![domain("example.test", NextHop::parse(&format!("smtp://{}", postfix.value("SMTP"))).unwrap())];
    let bench = bench(config);
    let large = vec![b"0123456789abcdef\r\n".as_slice(); 60_000].concat();
    for n in 0..50 {
        let content = if n == 7 { large.clone() } else { format!("Subject: m{n}\r\n\r\n..x\r\n").into_bytes() };
        bench.queue.submit(message("a@sender.example", &["u1@example.test", "u2@example.test"], &content));
    }
    bench.queue.submit(message("a@sender.example", &["u3@elsewhere.example"], b"x\r\n"));
    until("all delivered", || bench.queue.count(|o| matches!(o, Outcome::Delivered { .. })) == 100).await;
    let arrived = || python(POP3, &[&dovecot.port("POP3").to_string(), "u2"]).matches("X-Prefix: y").count();
    until("50 in the mailbox", || arrived() == 50).await;
    let text = python(POP3, &[&dovecot.port("POP3").to_string(), "u1"]);
    assert!(text.contains("with ESMTPS"), "STARTTLS was not used: {text:.2000}");
    let log = std::fs::read_to_string(postfix.path().join("log/mail.log")).unwrap();
    assert!(!log.contains("improper command pipelining"), "{log}");
    until("no DNS: deferred", || bench.queue.count(|o| matches!(o, Outcome::Deferred { .. })) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn required_tls_refuses_a_certificate_that_nobody_signed() {
    let postfix = Peer::start("postfix", &[]);
    let mut config = config();
    let hop = format!("smtp://{}?tls=required", postfix.value("SMTP"));
    config.domains = vec![domain("example.test", NextHop::parse(&hop).unwrap())];
    let bench = bench(config);
    bench.queue.submit(message("a@sender.example", &["u1@example.test"], b"x\r\n"));
    until("an outcome", || bench.queue.outcomes().len() == 1).await;
    let text = format!("{:?}", bench.queue.outcomes()[0].1);
    assert!(text.starts_with("Deferred") && text.contains("TLS failed") && text.contains("certificate"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn maildir_gets_return_path_and_refuses_loops() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    let template = format!("{}/{{domain}}/{{user}}", folder.path().display());
    config.domains = vec![domain("example.org", NextHop::Maildir(template))];
    let bench = bench(config);
    bench.queue.submit(message("a@sender.example", &["b@example.org"], b"Subject: x\r\n\r\ny\r\n"));
    until("delivered", || bench.queue.count(|o| matches!(o, Outcome::Delivered { .. })) == 1).await;
    let new = folder.path().join("example.org/b/new");
    let file = std::fs::read_dir(new).unwrap().next().unwrap().unwrap().path();
    let content = std::fs::read(file).unwrap();
    let expected =
        "Return-Path: <a@sender.example>\r\nDelivered-To: b@example.org\r\nX-Prefix: y\r\nSubject: x\r\n\r\ny\r\n";
    assert_eq!(String::from_utf8_lossy(&content), expected);
    bench.queue.submit(message("a@sender.example", &["b@example.org"], &content));
    until("bounced", || bench.queue.count(|o| matches!(o, Outcome::Bounced { .. })) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_with_limits_get_all_mail_without_a_deferral() {
    let table = [
        Manners { recipients_max: 2, ..Manners::default() },
        Manners { recipients_max: 3, pipelining: false, ..Manners::default() },
        Manners { messages_max: 3, ..Manners::default() },
        Manners { messages_max: 1, pipelining: false, chunking: true, ..Manners::default() },
        Manners { start_tls_fails: true, ..Manners::default() },
    ];
    for manners in table {
        let name = format!("{manners:?}");
        let (bench, hop) = one_hop(manners).await;
        let recipients: Vec<String> = (0..5).map(|n| format!("u{n}@example.org")).collect();
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        for _ in 0..10 {
            bench.queue.submit(message("a@sender.example", &recipients, b"x\r\n"));
        }
        until(&name, || bench.queue.outcomes().len() == 50).await;
        assert_eq!(bench.queue.count(|o| matches!(o, Outcome::Delivered { .. })), 50, "{name}");
        let taken: usize = hop.taken().iter().map(|mail| mail.recipients.len()).sum();
        assert_eq!(taken, 50, "{name}: nothing twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_destination_costs_two_connections_and_not_one_a_message() {
    // A port that nobody listens on: bound, then closed.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hop = NextHop::parse(&format!("smtp://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let mut config = config();
    config.domains = vec![domain("example.org", hop)];
    let bench = bench(config);
    for _ in 0..500 {
        bench.queue.submit(message("a@sender.example", &["b@example.org"], b"x\r\n"));
    }
    let destination = bench.queue.destination("b@example.org");
    until("dead", || bench.delivery.why(&destination).contains("unreachable")).await;
    until("idle", || bench.queue.leased() == 0).await;
    assert!(bench.queue.outcomes().len() <= 10, "{} attempts", bench.queue.outcomes().len());
    bench.delivery.pause();
    assert_eq!(bench.delivery.why(&destination), "delivery is paused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_domain_is_asked_for_in_dns_no_more_often_than_it_is_tried() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let server = dns::serve(move |name, kind| {
        counter.fetch_add(1, Ordering::SeqCst);
        match (name, kind) {
            ("down.example", "MX") => dns::Answer::Records(vec![]),
            ("down.example", "A") => dns::a("127.0.0.9"),
            ("sick.example", _) => dns::SERVFAIL,
            _ => dns::NODATA,
        }
    })
    .await;
    for name in ["down.example", "sick.example"] {
        let mut config = config();
        config.dns.servers = vec![server];
        let bench = bench(config);
        let to = format!("b@{name}");
        let wave = || (0..300).for_each(|_| bench.queue.submit(message("a@sender.example", &[&to], b"x\r\n")));
        wave();
        let destination = bench.queue.destination(&to);
        until("dead", || bench.delivery.why(&destination).contains("unreachable")).await;
        until("idle", || bench.queue.leased() == 0).await;
        let (tried, questions) = (bench.queue.outcomes().len(), asked.load(Ordering::SeqCst));
        assert!(tried <= 4 && questions <= 16, "{name}: {tried} attempts, {questions} questions");
        // What comes later costs nothing at all.
        (0..3).for_each(|_| wave());
        bench.delivery.wake();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!((bench.queue.outcomes().len(), asked.load(Ordering::SeqCst)), (tried, questions), "{name}");
        assert_eq!(bench.queue.waiting(), 1200, "all of it waits");
        asked.store(0, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_by_mx_obeys_what_the_zone_says() {
    let hop = Hop::start(Manners::default()).await;
    let server = dns::serve(|name, kind| match (name, kind) {
        ("good.example", "MX") => dns::mx(&[(10, "down.example"), (20, "up.example")]),
        ("up.example", "A") | ("implicit.example", "A") => dns::a("127.0.0.1"),
        ("down.example", "A") => dns::a("127.0.0.9"),
        ("null.example", "MX") => dns::mx(&[(0, ".")]),
        ("loop.example", "MX") => dns::mx(&[(5, "weir.test"), (10, "up.example")]),
        ("implicit.example" | "up.example" | "down.example", _) => dns::NODATA,
        ("broken.example", _) => dns::SERVFAIL,
        _ => dns::NXDOMAIN,
    })
    .await;
    let mut config = config();
    config.dns.servers = vec![server];
    config.deliver.port = hop.port;
    let bench = bench(config);
    let table = [
        ("good.example", "Delivered", "up.example [127.0.0.1]"),
        ("implicit.example", "Delivered", "implicit.example [127.0.0.1]"),
        ("null.example", "Bounced", "null MX"),
        ("loop.example", "Bounced", "this host"),
        ("absent.example", "Bounced", "no such domain"),
        ("broken.example", "Deferred", "DNS trouble"),
        ("[127.0.0.1]", "Delivered", "[127.0.0.1]"),
    ];
    for (name, outcome, word) in table {
        let before = bench.queue.outcomes().len();
        bench.queue.submit(message("", &[&format!("b@{name}")], b"x\r\n"));
        until(name, || bench.queue.outcomes().len() > before).await;
        let text = format!("{:?}", bench.queue.outcomes()[before].1);
        assert!(text.starts_with(outcome) && text.contains(word), "{name}: {text}");
    }
    assert!(bench.queue.reports().is_empty(), "null senders hear of nothing");
}

/// Not a test by itself: what `an_address_of_this_host_gets_no_mail_by_mx` runs where 192.0.2.77 is the host's own.
#[tokio::test(flavor = "multi_thread")]
async fn child_at_an_address_of_its_own() {
    if std::env::var_os("DELIVER_CHILD").is_none() {
        return;
    }
    let hop = Hop::start_at("192.0.2.77:0", Manners::default()).await;
    let server = dns::serve(|_, kind| if kind == "A" { dns::a("192.0.2.77") } else { dns::NODATA }).await;
    let mut config = config();
    config.dns.servers = vec![server];
    config.deliver.port = hop.port;
    config.deliver.allow_local = false;
    let bench = bench(config);
    bench.queue.submit(message("a@sender.example", &["b@evil.example"], b"x\r\n"));
    let text = bench.first_outcome().await;
    assert!(text.starts_with("Deferred") && text.contains("address is one of this host"), "{text}");
    assert!(hop.taken().is_empty());
    println!("nothing came in at our own door");
}

#[test]
fn an_address_of_this_host_gets_no_mail_by_mx() {
    let script = "ip link set lo up && ip addr add 192.0.2.77/32 dev lo && exec \"$0\" --exact child_at_an_address_of_its_own --nocapture";
    let child = std::env::current_exe().unwrap().display().to_string();
    let output = std::process::Command::new("unshare")
        .args(["-n", "bash", "-c", script, &child])
        .env("DELIVER_CHILD", "1")
        .output();
    let said = format!("{output:?}");
    assert!(output.is_ok_and(|output| output.status.success()) && said.contains("at our own door"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_dns_can_not_send_our_mail_to_ourselves() {
    let hop = Hop::start(Manners::default()).await;
    let server = dns::serve(|_, kind| if kind == "A" { dns::a("127.0.0.1") } else { dns::NODATA }).await;
    let mut config = config();
    config.dns.servers = vec![server];
    config.deliver.port = hop.port;
    config.deliver.allow_local = false;
    let bench = bench(config);
    bench.queue.submit(message("a@sender.example", &["b@evil.example"], b"x\r\n"));
    until("bounced", || bench.queue.count(|o| matches!(o, Outcome::Bounced { .. })) == 1).await;
    assert_eq!(hop.connections(), 0);
}
