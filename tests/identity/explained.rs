//! What `weir explain` keeps of the identity checks: what was asked, what DNS said and how long it took, with the line responsible.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dns_answers_timings_and_the_configuration_line_are_kept() {
    let mut zone = Zone::new();
    txt(&mut zone, "told.example", "v=spf1 ip4:198.51.100.7 -all");
    txt(&mut zone, "_dmarc.told.example", "v=DMARC1; p=quarantine");
    let dns = Dns::start(&zone).await;
    let listener =
        config::listener("judging", "mx", "verify = \"tag\"\nfilter = \"enforce\"\nxclient = [\"127.0.0.0/8\"]");
    let weir = gateway(dns.address, &(listener + "[filter]\ntag = 2.0\nquarantine = 2.9\nreject = 3.0\n"));
    let mut client = Smtp::connect(&weir.address("judging"));
    let mail = "From: Bank <a@told.example>\r\nSubject: WINNER!!\r\n\r\nDear friend, my late husband left 5 million dollars.\r\n";
    let reply = client.send(&Mail::new("bob", "x@told.example", mail));
    assert!(reply.starts_with("550 5.7.1 Refused as spam"), "{reply}");
    let reference = reply.split_ascii_whitespace().last().unwrap().to_owned();
    let story = wait_for("the record", || {
        let output = weir.cli(&["explain", &reference]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    for wanted in [
        "TXT told.example",
        "v=spf1 ip4:198.51.100.7 -all",
        "TXT _dmarc.told.example",
        "v=DMARC1; p=quarantine",
        "spf=fail",
        "SPF_FAIL",
        " ms",
        "[192.0.2.10]",
        "HELO out.other.example",
        "<x@told.example>",
    ] {
        assert!(story.contains(wanted), "{wanted}: {story}");
    }
    let line = story.split("reject = 3 (weir.toml:").nth(1).and_then(|rest| rest.split(')').next());
    let line = line.unwrap_or_else(|| panic!("the line of the threshold: {story}"));
    let config = fs::read_to_string(weir.path().join("weir.toml")).unwrap();
    let named = config.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
    assert_eq!(named, "reject = 3.0");
    // What was recorded is enough to judge again, with no question to DNS, and it comes to the same.
    let asked = weir.ok(&["replay", "--since", "1h"]);
    assert!(asked.contains("newly rejected: 0\nnewly accepted: 0"), "{asked}");
}
