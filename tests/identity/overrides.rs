//! Policies of others, and the operator's exceptions to them, through the running gateway.

use super::*;

fn counter(weir: &Weir, line: &str) -> u64 {
    let metrics = super::metrics(weir);
    let found = metrics.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{line} is not in {metrics}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_gives_way_to_each_exception_and_to_nothing_else() {
    let mut zone = Zone::new();
    for domain in ["a.example", "exempt.example"] {
        txt(&mut zone, domain, "v=spf1 -all");
        txt(&mut zone, &format!("_dmarc.{domain}"), "v=DMARC1; p=reject");
    }
    let dns = Dns::start(&zone).await;
    let weir = gateway(
        dns.address,
        "[verify]\ntrusted_forwarders = [\"192.0.2.64/26\"]\nallowed_domains = [\"exempt.example\"]\n",
    );
    let mut enforce = Smtp::connect(&weir.address("enforce"));
    let mail = |to: &str, domain: &str, ip: &str| Mail {
        ip: ip.to_owned(),
        ..Mail::new(to, &format!("ann@{domain}"), &MAIL.replace("a.example", domain))
    };
    let refused = enforce.send(&mail("plain", "a.example", "192.0.2.10"));
    assert!(
        refused.starts_with("550 5.7.1 rejected by the DMARC policy of a.example; see RFC 9989; ref "),
        "{refused}"
    );
    for (to, domain, ip) in [("forwarder", "a.example", "192.0.2.70"), ("exempt", "exempt.example", "192.0.2.10")] {
        let reply = enforce.send(&mail(to, domain, ip));
        assert!(reply.starts_with("250"), "{to}: {reply}");
        // What was found is told as it is; only what becomes of it is the operator's.
        assert_eq!(words(&results(&delivered(&weir, to)), "dmarc"), ["fail"]);
    }
    // A name below the exempt domain is another domain.
    let reply = enforce.send(&mail("below", "x.exempt.example", "192.0.2.10"));
    assert!(reply.starts_with("550 5.7.1 "), "{reply}");
    for (line, count) in [
        ("weir_verify_results_total{method=\"dmarc\",result=\"fail\"}", 4),
        ("weir_verify_results_total{method=\"spf\",result=\"fail\"}", 3),
        ("weir_verify_results_total{method=\"arc\",result=\"none\"}", 4),
        ("weir_verify_decisions_total{action=\"reject\",overridden=\"none\"}", 2),
        ("weir_verify_decisions_total{action=\"accept\",overridden=\"trusted_forwarder\"}", 1),
        ("weir_verify_decisions_total{action=\"accept\",overridden=\"local_policy\"}", 1),
    ] {
        assert_eq!(counter(&weir, line), count, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authors_that_cannot_be_told_are_refused_where_enforced() {
    let mut zone = Zone::new();
    txt(&mut zone, "_dmarc.a.example", "v=DMARC1; p=reject");
    let dns = Dns::start(&zone).await;
    let weir = gateway(dns.address, "");
    let mut enforce = Smtp::connect(&weir.address("enforce"));
    let mut tag = Smtp::connect(&weir.address("tag"));
    for (user, fields, reply) in [
        ("two", "From: ann@a.example\r\nFrom: bob@b.example", "550 5.6.0 there are several From fields; see RFC 5322"),
        ("none", "Subject: x", "550 5.6.0 there is no From field; see RFC 5322"),
        ("mixed", "From: ann@a.example, bob@b.example", "550 5.6.0 "),
        ("nobody", "From: undisclosed:;", "250 "),
        // A group whose members agree has one domain, and that domain's policy.
        ("group", "From: Team: ann@a.example, <bob@a.example>;", "550 5.7.1 rejected by the DMARC policy of a.example"),
    ] {
        let mail = Mail::new(user, "x@plain.test", &format!("{fields}\r\nTo: judge\r\n\r\nHi\r\n"));
        let said = enforce.send(&mail);
        assert!(said.starts_with(reply), "{user}: {said}");
        assert!(said.starts_with("250") || said.contains("; ref "), "{user}: {said}");
        let said = tag.send(&mail);
        assert!(said.starts_with("250"), "{user}: {said}");
        delivered(&weir, user);
    }
    assert!(weir.ok(&["quarantine", "list"]).contains("no address with a domain"));
}
