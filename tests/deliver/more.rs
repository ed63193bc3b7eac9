//! Leases that must not get lost, the life of a queue, protection on the wire, and hosts that hang.

use std::collections::BTreeMap;

use rustls::RootCertStore;
use weir::spool::queue::NewMessage;
use weir::wire::envelope::{Envelope, Notify};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn with(mut message: NewMessage, change: impl FnOnce(&mut Envelope)) -> NewMessage {
    change(Arc::make_mut(&mut message.envelope));
    message
}

fn one(content: &str) -> NewMessage {
    message("a@sender.example", &["b@example.org"], content.as_bytes())
}

async fn paused_hop(manners: Manners) -> (Bench, Hop) {
    let hop = Hop::start(manners).await;
    let mut config = config();
    config.deliver.paused = true;
    config.domains = vec![domain("example.org", smtp(&hop))];
    (bench(config), hop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_panics_defers_its_recipient_and_no_other() {
    let mut config = config();
    config.domains = vec![domain("example.org", NextHop::Store)];
    let bench = bench_with(config, Arc::new(BrokenStore), ClientTls::new());
    bench.queue.submit(message("a@sender.example", &["broken@example.org"], b"x\r\n"));
    let text = bench.first_outcome().await;
    assert!(text.starts_with("Deferred") && text.contains("fault inside the store"), "{text}");
    bench.queue.submit(one("x\r\n"));
    until("the other", || bench.delivered() == 1).await;
    assert_eq!(bench.queue.leased(), 0);
    assert!(bench.delivery.stop(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_panics_defers_its_message_and_delivery_goes_on() {
    let (bench, _hop) = paused_hop(Manners { rcpt: "550 5.1.1 no", ..Manners::default() }).await;
    bench.queue.submit(one("x\r\n"));
    bench.queue.broken_ids.store(true, Ordering::Relaxed);
    bench.delivery.resume();
    let text = bench.first_outcome().await;
    assert!(text.starts_with("Deferred") && text.contains("a fault inside this server"), "{text}");
    assert_eq!((bench.queue.leased(), bench.queue.waiting()), (0, 1));
    bench.queue.broken_ids.store(false, Ordering::Relaxed);
    bench.queue.age(Duration::ZERO);
    bench.delivery.wake();
    until("the bounce", || bench.queue.reports().len() == 1).await;
    assert!(bench.delivery.stop(PATIENCE).await, "the dead worker's seat is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_must_cut_gives_the_leases_back() {
    let hop = Hop::start(Manners { hang_after_dot: true, ..Manners::default() }).await;
    let mut config = config();
    config.deliver.final_dot_timeout = Duration::from_secs(600);
    config.domains = vec![domain("example.org", smtp(&hop))];
    let bench = bench(config);
    for _ in 0..5 {
        bench.queue.submit(one("x\r\n"));
    }
    until("a connection", || hop.connections() > 0).await;
    assert!(!bench.delivery.stop(Duration::from_millis(50)).await);
    assert_eq!((bench.queue.leased(), bench.queue.waiting()), (0, 5));
    assert!(bench.queue.outcomes().is_empty());
    bench.queue.submit(one("x\r\n"));
    assert_eq!(bench.queue.leased(), 0, "after a stop nothing is begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_mail_waits_and_takes_the_route_of_the_day_it_goes() {
    let (bench, old) = paused_hop(Manners::default()).await;
    for _ in 0..5 {
        bench.queue.submit(one("x\r\n"));
    }
    assert!(bench.delivery.is_paused());
    assert_eq!((bench.queue.leased(), bench.queue.waiting()), (0, 5));
    let new = Hop::start(Manners::default()).await;
    let mut changed = config();
    changed.domains = vec![domain("example.org", smtp(&new))];
    bench.delivery.configure(Arc::new(changed));
    bench.delivery.resume();
    until("all", || bench.delivered() == 5).await;
    assert_eq!((old.taken().len(), new.taken().len()), (0, 5));
    bench.delivery.pause();
    bench.queue.submit(one("x\r\n"));
    assert_eq!(bench.queue.leased(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_grows_while_a_hop_keeps_up_and_shrinks_where_it_asks_for_less() {
    const MESSAGES: usize = 300;
    let slow = Manners { thinks: Duration::from_millis(20), ..Manners::PLAIN };
    for (at_once_max, fewest, most) in [(usize::MAX, 8, 20), (4, 3, 9)] {
        let (bench, hop) = paused_hop(Manners { at_once_max, ..slow.clone() }).await;
        for _ in 0..MESSAGES {
            bench.queue.submit(one("x\r\n"));
        }
        bench.delivery.resume();
        until("all tried", || bench.queue.outcomes().len() == MESSAGES).await;
        assert!((fewest..=most).contains(&hop.at_once()), "{} at once, {at_once_max} allowed", hop.at_once());
        let deferred = MESSAGES - bench.delivered();
        assert!(deferred <= if at_once_max == 4 { MESSAGES / 2 } else { 0 }, "{deferred} deferred");
        assert!(hop.connections() <= 3 * MESSAGES / 4, "{} connections: they are used again", hop.connections());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_that_begins_to_hang_is_left_one_connection() {
    let manners = Manners { thinks: Duration::from_millis(20), hang_from: 150, ..Manners::PLAIN };
    let hop = Hop::start(manners).await;
    let mut config = config();
    config.deliver.final_dot_timeout = Duration::from_secs(1);
    config.domains = vec![domain("example.org", smtp(&hop))];
    let bench = bench(config);
    for _ in 0..300 {
        bench.queue.submit(one("x\r\n"));
    }
    let destination = bench.queue.destination("b@example.org");
    until("the window to have grown", || hop.at_once() >= 6).await;
    until("one place", || bench.delivery.why(&destination).contains("of 1 connections")).await;
    assert!((150..180).contains(&bench.delivered()), "{}", bench.delivered());
}

/// What waited while the server was down is tried before it is given up.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_is_too_old_at_a_start_gets_its_attempt() {
    let (good, bad) = (
        Hop::start(Manners::default()).await,
        Hop::start(Manners { rcpt: "450 4.2.1 no", ..Manners::default() }).await,
    );
    let mut config = config();
    config.domains = vec![domain("good.example", smtp(&good)), domain("bad.example", smtp(&bad))];
    let queue = MemoryQueue::new(&config);
    for sender in ["a@sender.example", ""] {
        for to in ["b@good.example", "b@bad.example"] {
            queue.submit(message(sender, &[to], b"x\r\n"));
        }
    }
    queue.age(30 * DAY);
    let bench = bench_over(queue, config, Arc::new(NoStore), ClientTls::new());
    until("four attempts", || bench.queue.outcomes().len() == 4).await;
    assert_eq!(bench.delivered(), 2);
    assert_eq!(bench.queue.waiting(), 2, "the rest has a round of retries: {:?}", bench.queue.outcomes());
    assert!(bench.queue.reports().iter().all(|report| !String::from_utf8_lossy(&report.content).contains("failed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waited_too_long_expires_even_where_nothing_is_tried() {
    let mut config = config();
    config.deliver.paused = true;
    // The rest behind a start, for which mail is kept that was too old before it.
    (config.retry.first, config.retry.max) = (Duration::from_secs(1), Duration::from_secs(1));
    let queue = MemoryQueue::new(&config);
    queue.submit(message("a@sender.example", &["b@dead.example"], b"x\r\n"));
    queue.submit(message("", &["b@dead.example"], b"x\r\n"));
    queue.age(6 * DAY);
    queue.submit(message("", &["c@dead.example"], b"x\r\n"));
    queue.age(2 * DAY);
    queue.submit(message("a@sender.example", &["d@dead.example"], b"x\r\n"));
    queue.age(2 * DAY);
    let bench = bench_over(queue, config, Arc::new(NoStore), ClientTls::new());
    until("three ends", || bench.queue.count(|outcome| matches!(outcome, Outcome::Expired { .. })) == 3).await;
    assert_eq!(bench.queue.waiting(), 1, "two days are not too long for a sender that can hear of it");
    let reports = bench.queue.reports();
    assert_eq!(reports.len(), 1);
    let text = String::from_utf8(reports[0].content.to_vec()).unwrap();
    assert!(text.contains("Action: failed\r\nStatus: 4.4.7") || text.contains("Status: 5.4.7"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_hears_of_a_delay_once() {
    let (bench, _hop) = paused_hop(Manners { after_dot: "451 4.3.0 later", ..Manners::default() }).await;
    bench.queue.submit(one("Subject: x\r\n\r\n"));
    bench.queue.age(Duration::from_secs(5 * 3600));
    bench.delivery.resume();
    until("the first attempt", || bench.queue.outcomes().len() == 1).await;
    let text = String::from_utf8(bench.queue.reports()[0].content.to_vec()).unwrap();
    assert!(text.contains("Action: delayed\r\n") && text.contains("451 4.3.0 later"), "{text}");
    bench.queue.age(Duration::ZERO);
    bench.delivery.wake();
    until("the second attempt", || bench.queue.outcomes().len() == 2).await;
    assert_eq!(bench.queue.reports().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn success_is_reported_by_the_last_who_can() {
    const DSN: Manners = Manners { offers: &["8BITMIME", "DSN"], ..Manners::PLAIN };
    for (manners, reported) in [(Manners::default(), true), (DSN, false)] {
        let (bench, hop) = one_hop(manners).await;
        let notify = Some(Notify { success: true, failure: true, delay: false });
        bench.queue.submit(with(one("Subject: x\r\n\r\n"), |envelope| envelope.recipients[0].notify = notify));
        until("delivered", || bench.delivered() == 1).await;
        let asked = hop.taken()[0].recipients[0].ends_with(" NOTIFY=SUCCESS,FAILURE");
        assert_eq!(asked, !reported, "{:?}", hop.taken());
        let texts: Vec<String> =
            bench.queue.reports().iter().map(|r| String::from_utf8_lossy(&r.content).into_owned()).collect();
        assert_eq!(texts.iter().filter(|text| text.contains("Action: relayed\r\n")).count(), usize::from(reported));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn international_addresses_go_only_where_they_are_understood() {
    const UTF8: Manners = Manners { offers: &["8BITMIME", "SMTPUTF8"], ..Manners::PLAIN };
    let (bench, hop) = one_hop(UTF8).await;
    bench.queue.submit(message("ä@sender.example", &["ü@example.org"], b"x\r\n"));
    until("delivered", || bench.delivered() == 1).await;
    assert_eq!(hop.taken()[0].mail_from, "MAIL FROM:<ä@sender.example> SMTPUTF8");
    assert_eq!(hop.taken()[0].recipients, ["RCPT TO:<ü@example.org>"]);
    let (bench, hop) = one_hop(Manners::default()).await;
    bench.queue.submit(message("a@sender.example", &["ü@example.org", "b@example.org"], b"x\r\n"));
    until("both", || bench.queue.outcomes().len() == 2).await;
    assert_eq!((bench.delivered(), hop.taken()[0].recipients.len()), (1, 1));
    let bounced = bench.queue.count(|o| matches!(o, Outcome::Bounced { remote } if remote.contains("SMTPUTF8")));
    assert_eq!(bounced, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn requiretls_asks_for_a_verified_name_and_the_promise_to_pass_it_on() {
    let tls = Tls::new();
    let strict = Manners { tls: Some(tls.clone()), offers: &["REQUIRETLS"], ..Manners::default() };
    let lax = Manners { tls: Some(tls.clone()), ..Manners::default() };
    let table = [
        (strict.clone(), true, "Delivered", ""),
        (lax, true, "Bounced", "REQUIRETLS"),
        (strict, false, "Bounced", "TLS failed"),
        (Manners::default(), true, "Bounced", "TLS is required by the message"),
    ];
    for (manners, trusted, fate, word) in table {
        let hop = Hop::start(manners).await;
        let mut config = config();
        config.domains = vec![domain("example.org", smtp(&hop))];
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(tls.root.clone()).unwrap();
        }
        let bench = bench_with(config, Arc::new(NoStore), ClientTls::with_roots(Ok(roots)));
        bench.queue.submit(with(one("x\r\n"), |envelope| envelope.require_tls = true));
        let text = bench.first_outcome().await;
        assert!(text.starts_with(fate) && text.contains(word), "{text}");
        if fate == "Delivered" {
            assert_eq!(hop.taken()[0].mail_from, "MAIL FROM:<a@sender.example> REQUIRETLS");
            let metrics = bench.metrics();
            assert!(metrics.contains(r#"version="TLSv1_3"} 1"#), "{metrics}");
            assert!(metrics.contains(r#"weir_deliver_latency_seconds_count{transport="smtp"} 1"#), "{metrics}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lines_and_eight_bits_reach_a_hop_that_knows_neither() {
    const OLD: Manners = Manners { offers: &[], pipelining: false, ..Manners::PLAIN };
    let (bench, hop) = one_hop(OLD).await;
    bench.queue.submit(one(&format!("Subject: x\r\n\r\n{}\r\nä\r\n", "y".repeat(2500))));
    until("delivered", || bench.delivered() == 1).await;
    let content = String::from_utf8(hop.taken()[0].content.clone()).unwrap();
    assert!(content.is_ascii() && content.lines().all(|line| line.len() <= 76), "{content}");
    let (head, body) = content.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with("Content-Transfer-Encoding: quoted-printable"), "{head}");
    assert_eq!(body.replace("=\r\n", ""), format!("{}\r\n=C3=A4\r\n", "y".repeat(2500)));
}

#[tokio::test(flavor = "multi_thread")]
async fn dovecot_takes_mail_over_its_unix_socket() {
    let dovecot = Peer::start("dovecot", &[]);
    let mut config = config();
    let hop = NextHop::parse(&format!("lmtp+unix:{}", dovecot.value("LMTPUNIX"))).unwrap();
    config.domains = vec![domain("example.test", hop)];
    let bench = bench(config);
    bench.queue.submit(message("a@sender.example", &["u1@example.test", "nobody@example.test"], b"Subject: x\r\n\r\n"));
    until("both", || bench.queue.outcomes().len() == 2).await;
    assert_eq!(bench.delivered(), 1, "{:?}", bench.queue.outcomes());
    let text = python(POP3, &[&dovecot.port("POP3").to_string(), "u1"]);
    assert!(text.contains("X-Prefix: y\nSubject: x"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_lets_us_in_by_smtps_and_by_starttls_with_dovecots_passwords() {
    let dovecot = Peer::start("dovecot", &[]);
    let sasl = format!(
        "smtpd_sasl_auth_enable=yes;smtpd_sasl_type=dovecot;smtpd_sasl_path=inet:{};smtpd_tls_auth_only=yes;smtpd_relay_restrictions=permit_sasl_authenticated,reject;smtpd_recipient_restrictions=",
        dovecot.value("AUTH")
    );
    let postfix = Peer::start("postfix", &[("EXTRA", &sasl)]);
    let log = || std::fs::read_to_string(postfix.path().join("log/mail.log")).unwrap();
    let table = [
        (format!("smtps://u1:pw@{}", postfix.value("SMTPS")), "Delivered"),
        (format!("smtp://u2:pw@{}", postfix.value("SMTP")), "Delivered"),
        (format!("smtp://u3:wrong@{}", postfix.value("SMTP")), "Deferred"),
        (format!("smtp://{}", postfix.value("SMTP")), "Bounced"),
    ];
    for (hop, fate) in table {
        let mut config = config();
        config.relay.smarthost = Some(NextHop::parse(&hop).unwrap());
        let bench = bench(config);
        bench.queue.submit(message("a@sender.example", &["b@elsewhere.example"], b"Subject: x\r\n\r\n"));
        let text = bench.first_outcome().await;
        assert!(text.starts_with(fate), "{hop}: {text}\n{}", log());
    }
    for user in ["u1", "u2"] {
        let word = format!("sasl_method=SCRAM-SHA-256, sasl_username={user}");
        assert!(log().contains(&word), "{}", log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_hangs_and_one_that_refuses_are_passed_over() {
    let up = Hop::start(Manners::default()).await;
    let _hangs =
        Hop::start_at(&format!("127.0.0.2:{}", up.port), Manners { hang_at_greeting: true, ..Manners::default() })
            .await;
    let server = dns::serve(|name, kind| match (name, kind) {
        ("hangs.example", "MX") => dns::mx(&[(10, "hang.example"), (20, "up.example")]),
        ("refuses.example", "MX") => dns::mx(&[(10, "both.example")]),
        ("six.example", "MX") => dns::mx(&[(10, "six.example")]),
        ("hang.example", "A") => dns::a("127.0.0.2"),
        ("up.example", "A") => dns::a("127.0.0.1"),
        ("both.example", "A") => dns::Answer::Records(vec![record("127.0.0.9"), record("127.0.0.1")]),
        ("dual.example", "MX") => dns::mx(&[(10, "dual.example")]),
        ("dual.example", "A") => dns::a("127.0.0.1"),
        ("dual.example", "AAAA") => dns::aaaa("::1"),
        // Nobody listens there, or there is no IPv6 at all: the answer says so, and the mail waits.
        ("six.example", "AAAA") => dns::aaaa("::1"),
        _ => dns::NODATA,
    })
    .await;
    let mut config = config();
    config.dns.servers = vec![server];
    config.deliver.port = up.port;
    let bench = bench(config);
    for (n, name) in ["hangs.example", "refuses.example", "dual.example"].into_iter().enumerate() {
        bench.queue.submit(message("", &[&format!("b@{name}")], b"x\r\n"));
        until(name, || bench.delivered() == n + 1).await;
    }
    let metrics = bench.metrics();
    assert!(metrics.contains(r#"weir_deliver_connections_total{outcome="failed"} 2"#), "{metrics}");
    bench.queue.submit(message("", &["b@six.example"], b"x\r\n"));
    until("six", || bench.queue.outcomes().len() == 4).await;
    let text = format!("{:?}", bench.queue.outcomes()[3].1);
    assert!(text.starts_with("Deferred") && text.contains("six.example [::1]"), "{text}");
}

fn record(address: &str) -> hickory_resolver::proto::rr::RData {
    match dns::a(address) {
        dns::Answer::Records(mut list) => list.remove(0),
        dns::Answer::Code(_) => unreachable!("a() gives a record"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_question_at_once_goes_out_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let server = dns::serve(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
        dns::mx(&[(10, "mx.example")])
    })
    .await;
    let mut config = config();
    config.dns.servers = vec![server];
    let resolver = Arc::new(Resolver::new(&config.dns).unwrap());
    let askers: Vec<_> = (0..50)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { resolver.mx("Example.org").await.unwrap()[0].host.clone() })
        })
        .collect();
    for asker in askers {
        assert_eq!(asker.await.unwrap(), "mx.example");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn few_seats_are_shared_by_all_destinations() {
    let (small, large) = (Hop::start(Manners::default()).await, Hop::start(Manners::default()).await);
    let mut config = config();
    config.deliver.concurrency = 2;
    config.deliver.paused = true;
    config.domains = vec![domain("large.example", smtp(&large)), domain("small.example", smtp(&small))];
    let bench = bench(config);
    for n in 0..2000 {
        let to = if n % 200 == 199 { "b@small.example" } else { "b@large.example" };
        bench.queue.submit(message("a@sender.example", &[to], b"x\r\n"));
    }
    bench.delivery.resume();
    let mut left_when_done = BTreeMap::new();
    until("all", || {
        if small.taken().len() == 10 {
            left_when_done.entry("small").or_insert(1990 - large.taken().len());
        }
        bench.delivered() == 2000
    })
    .await;
    assert!(left_when_done["small"] > 0, "ten messages waited for two thousand");
}
