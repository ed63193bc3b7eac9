//! Delivery from outside: an in-memory queue, next hops of every kind of manners, and real ones.

#[path = "deliver/hops.rs"]
mod hops;
#[path = "deliver/memory.rs"]
mod memory;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use hops::{Hop, Manners};
use memory::{MemoryQueue, NoStore, config, message};
use prometheus::Registry;
use weir::config::settings::{Config, DeliverTls, Domain, NextHop, Recipients};
use weir::deliver::meters::Meters;
use weir::deliver::transport::tls::ClientTls;
use weir::deliver::{Delivery, Parts};
use weir::dns::Resolver;
use weir::spool::queue::Outcome;

/// A delivery engine over a queue in memory.
struct Bench {
    queue: Arc<MemoryQueue>,
    delivery: Delivery,
}

fn bench(config: Config) -> Bench {
    let queue = MemoryQueue::new(&config);
    let parts = Parts {
        queue: queue.clone(),
        store: Arc::new(NoStore),
        resolver: Arc::new(Resolver::new(&config.dns).unwrap()),
        tls: ClientTls::new(),
        meters: Meters::register(&Registry::new()).unwrap(),
        config: Arc::new(config),
    };
    let delivery = Delivery::start(parts, tokio::runtime::Handle::current());
    Bench { queue, delivery }
}

/// Waits until `done` holds, 20 s at most.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn domain(name: &str, deliver_to: NextHop) -> Domain {
    Domain { name: name.into(), deliver_to, recipients: Recipients::Any, detail_separator: None, subdomains: false }
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
    assert!(bench.delivery.stop(Duration::from_secs(5)).await);
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
