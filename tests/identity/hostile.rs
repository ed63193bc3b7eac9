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
