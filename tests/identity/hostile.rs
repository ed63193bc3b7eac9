//! Mail and zones that are made to cost: a result within a bound, and a metric that tells.

use super::*;

/// Long enough for a debug build on a loaded machine; unbounded work would take minutes.
const TIME_MAX: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_mail_gets_a_result_in_time_and_is_counted() {
    let mut zone = Zone::new();
    txt(&mut zone, "loop.example", "v=spf1 include:loop.example -all");
    txt(
        &mut zone,
        "bomb.example",
        "v=spf1 exists:%{l}%{l}%{l}%{l}.%{i}.%{s}.%{s}.bomb.example include:bomb.example -all",
    );
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    for n in 0..300 {
        txt(&mut zone, "endless.example", &format!("text {n} {}", "z".repeat(150)));
    }
    let dns = Dns::start(&zone).await;
    let weir = gateway(dns.address, "[limits]\nheader_bytes = \"8 MiB\"\nsize = \"20 MiB\"\n");
    let mut tag = Smtp::connect(&weir.address("tag"));
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=from; bh=AA==; b=AA==\r\n";
    let seals: String = (1..=3400)
        .map(|i| {
            format!(
                "ARC-Seal: i={i}; a=rsa-sha256; cv=none; d=x.example; s=s; b=AA==\r\nARC-Message-Signature: i={i}; \
                 a=rsa-sha256; d=x.example; s=s; h=from; bh=AA==; b=AA==\r\nARC-Authentication-Results: i={i}; x; none\r\n"
            )
        })
        .collect();
    let long = format!("X-Long: {}\r\n", "y".repeat(900)).repeat(5600);
    for (user, path, fields, method, word) in [
        ("signatures", "x@plain.test", signature.repeat(1000), "dkim", "permerror"),
        ("seals", "x@plain.test", seals, "arc", "fail"),
        ("header", "x@plain.test", long, "dmarc", "fail"),
        ("fields", "x@plain.test", "A: b\r\n".repeat(30_000), "dmarc", "permerror"),
        ("loop", "x@loop.example", String::new(), "spf", "permerror"),
        ("bomb", "x@bomb.example", String::new(), "spf", "permerror"),
        ("endless", "x@endless.example", String::new(), "spf", "none"),
    ] {
        let began = std::time::Instant::now();
        let reply = tag.send(&Mail::new(user, path, &(fields + MAIL)));
        assert!(reply.starts_with("250"), "{user}: {reply}");
        assert!(began.elapsed() < TIME_MAX, "{user}: {:?}", began.elapsed());
        let mail = delivered(&weir, user);
        let found = results(&mail);
        assert_eq!(words(&found, method)[0], word, "{user}: {}", &mail[..mail.len().min(2000)]);
        assert!(found.results.len() < 20, "{user}: {}", found.results.len());
    }
    let metrics = super::metrics(&weir);
    for bound in ["arc_sets", "dkim_signatures", "header_fields"] {
        let line = format!("weir_verify_bounds_reached_total{{bound=\"{bound}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}

/// DNS queries are a limit of the filter's table: a message that uses up its share says so in its verdict and is counted there too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_uses_up_all_queries_has_the_symbol_of_the_limit() {
    let mut zone = Zone::new();
    let add = |zone: &mut Zone, name: String, kind: &str, value: Value| {
        zone.entry(name).or_default().push((kind.to_owned(), value));
    };
    let terms: String = (0..10).map(|term| format!("mx:m{term}.greedy.example ")).collect();
    txt(&mut zone, "greedy.example", &format!("v=spf1 {terms}-all"));
    for term in 0..10 {
        for host in 0..10 {
            let name = format!("h{host}.m{term}.greedy.example");
            add(&mut zone, format!("m{term}.greedy.example"), "MX", serde_json::json!([10, name]));
            add(&mut zone, name, "A", "192.0.2.200".into());
        }
    }
    let dns = Dns::start(&zone).await;
    let listener = config::listener("judging", "mx", "verify = \"tag\"\nfilter = \"tag\"\nxclient = [\"127.0.0.0/8\"]");
    let weir = gateway(dns.address, &listener);
    let mut judging = Smtp::connect(&weir.address("judging"));
    let signatures: String = (0..40)
        .map(|nth| format!("DKIM-Signature: v=1; a=rsa-sha256; d=d{nth}.example; s=s; h=from; bh=AA==; b=AA==\r\n"))
        .collect();
    let seals: String = (1..=50)
        .map(|i| {
            let cv = if i == 1 { "none" } else { "pass" };
            format!(
                "ARC-Seal: i={i}; a=rsa-sha256; cv={cv}; d=x{i}.example; s=s; b=AA==\r\nARC-Message-Signature: i={i}; \
                 a=rsa-sha256; d=x{i}.example; s=s; h=from; bh=AA==; b=AA==\r\nARC-Authentication-Results: i={i}; x; none\r\n"
            )
        })
        .collect();
    let from = "From: a@a.b.c.d.e.f.g.h.i.j.greedy.example\r\nSubject: queries\r\n\r\nhello\r\n";
    let mail = format!("{signatures}{seals}{from}");
    for (user, path, mail) in [("greedy", "x@greedy.example", mail.as_str()), ("modest", "x@plain.test", MAIL)] {
        let reply = judging.send(&Mail::new(user, path, mail));
        assert!(reply.starts_with("250"), "{user}: {reply}");
    }
    let (greedy, modest) = (delivered(&weir, "greedy"), delivered(&weir, "modest"));
    assert!(greedy.contains("LIMIT_DNS_QUERIES=1") && !modest.contains("LIMIT_DNS_QUERIES"), "{greedy}");
    let metrics = super::metrics(&weir);
    for line in [
        "weir_filter_over_limit_total{limit=\"LIMIT_DNS_QUERIES\"} 1",
        "weir_verify_bounds_reached_total{bound=\"lookups\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}
