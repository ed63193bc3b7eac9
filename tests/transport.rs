//! Outbound TLS through the running gateway: a signed zone on Knot behind a validating Unbound, Postfix and another Weir as
//! mail hosts, MTA-STS policies on a real web server.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use support::config::{domain, head, listener};
use support::{Peer, Weir, folder, python, wait_for};
use tempfile::TempDir;

/// A certificate authority and what it signed: one key for all good names.
struct Papers {
    folder: TempDir,
    key_hash: String,
    ca_hash: String,
}

const GOOD_NAMES: [&str; 8] = [
    "mx.signed.test",
    "tamx.signed.test",
    "unmx.signed.test",
    "weirmx.signed.test",
    "mx.plain.test",
    "mta-sts.good.plain.test",
    "mta-sts.outside.plain.test",
    "mta-sts.badcert.plain.test",
];

impl Papers {
    fn new(more: &[&str]) -> Self {
        let folder = folder();
        let (ca_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = ca.self_signed(&ca_key).unwrap();
        let names: Vec<String> = GOOD_NAMES.iter().chain(more).map(|name| (*name).to_owned()).collect();
        let own = CertificateParams::new(names).unwrap().signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", root.pem());
        write("chain.pem", own.pem() + &root.pem());
        write("key.pem", key.serialize_pem());
        let hash = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Papers { key_hash: hash(&key.subject_public_key_info()), ca_hash: hash(root.der()), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Everything around the gateway.
struct World {
    papers: Papers,
    zones: TempDir,
    policies: TempDir,
    postfix: Peer,
    knot: Peer,
    unbound: Peer,
    web: Peer,
}

const HEAD: &str = "$TTL 1\n@ SOA ns host 1 60 60 600 1\n@ NS ns\nns A 127.0.0.1\n";

impl World {
    fn new() -> Self {
        let papers =
            Papers::new(&["mta-sts.testing.plain.test", "mta-sts.moved.plain.test", "mta-sts.renewed.plain.test"]);
        let (zones, policies) = (folder(), folder());
        let (chain, key) = (text(&papers.path("chain.pem")), text(&papers.path("key.pem")));
        let extra =
            format!("relay_domains=signed.test,plain.test;smtpd_tls_cert_file={chain};smtpd_tls_key_file={key}");
        let postfix = Peer::start("postfix", &[("EXTRA", &extra)]);
        let port = postfix.port("SMTP");
        fs::write(zones.path().join("signed.test.zone"), signed_zone(&papers, port)).unwrap();
        fs::write(zones.path().join("plain.test.zone"), plain_zone(port)).unwrap();
        write_policies(policies.path());
        let knot = Peer::start("knot", &[("ZONES", &text(zones.path()))]);
        let (auth, anchor) = (knot.value("DNS"), knot.value("TRUST_DS"));
        let bogus = "_tcp.brokenmx.signed.test.";
        let unbound = Peer::start("unbound", &[("AUTH", auth), ("TRUST_DS", anchor), ("BOGUS", bogus)]);
        let served = text(policies.path());
        let web = Peer::start("policy", &[("CERT", &chain), ("KEY", &key), ("POLICIES", &served)]);
        World { papers, zones, policies, postfix, knot, unbound, web }
    }

    fn config(&self, more: &str) -> String {
        let World { papers, postfix, unbound, web, .. } = self;
        let tables = format!(
            r#"
[dns]
servers = ["{dns}"]
trust_ad = true
[deliver]
port = {port}
allow_local = true
mta_sts_port = {web}
ca_file = "{ca}"
[retry]
first = "1h"
{more}"#,
            dns = unbound.value("DNS"),
            port = postfix.port("SMTP"),
            web = web.port("HTTPS"),
            ca = text(&papers.path("ca.pem")),
        );
        head("out.test") + &listener("relay", "relay", "tls = \"starttls\"") + &domain("home.test", "store:") + &tables
    }

    fn asked(&self, name: &str) -> usize {
        let asked = fs::read_to_string(self.web.path().join("asked")).unwrap();
        asked.lines().filter(|line| *line == name).count()
    }
}

fn signed_zone(papers: &Papers, port: u16) -> String {
    let (key, ca, zero) = (&papers.key_hash, &papers.ca_hash, "0".repeat(64));
    let mut zone = HEAD.to_owned();
    // domain, its mail host, the host's address, its TLSA record
    let hosts = [
        ("@", "mx", "127.0.0.1", format!("3 1 1 {key}")),
        ("bad", "badmx", "127.0.0.1", format!("3 1 1 {zero}")),
        ("ta", "tamx", "127.0.0.1", format!("2 0 1 {ca}")),
        ("tawrong", "wrongmx", "127.0.0.1", format!("2 0 1 {ca}")),
        ("unusable", "unmx", "127.0.0.1", format!("1 1 1 {key}")),
        ("broken", "brokenmx", "127.0.0.1", format!("3 1 1 {key}")),
        ("strict", "weirmx", "127.0.0.2", format!("3 1 1 {key}")),
    ];
    for (domain, host, address, record) in hosts {
        zone += &format!("{domain} MX 10 {host}\n{host} A {address}\n_{port}._tcp.{host} TLSA {record}\n");
    }
    // A validated CNAME into a zone that is not: only what stands below the CNAME's own name counts.
    for (domain, record) in [("aside", format!("TLSA 3 1 1 {key}")), ("asidebad", format!("TLSA 3 1 1 {zero}"))] {
        zone +=
            &format!("{domain} MX 10 {domain}mx\n{domain}mx CNAME mx.plain.test.\n_{port}._tcp.{domain}mx {record}\n");
    }
    zone += "asidenone MX 10 asidenonemx\nasidenonemx CNAME mx.plain.test.\n";
    zone + "none MX 10 nonemx\nnonemx A 127.0.0.1\nalias MX 10 aliasmx\naliasmx CNAME mx\nleaving MX 10 mx.plain.test.\n"
}

fn plain_zone(port: u16) -> String {
    let mut zone = HEAD.to_owned();
    zone +=
        &format!("@ MX 10 mx\nmx A 127.0.0.1\n_{port}._tcp.mx TLSA 3 1 1 {}\nwrongmx A 127.0.0.1\n", "0".repeat(64));
    for (name, host) in [
        ("good", "mx"),
        ("outside", "mx"),
        ("badcert", "wrongmx"),
        ("testing", "wrongmx"),
        ("moved", "mx"),
        ("renewed", "mx"),
    ] {
        zone += &format!("{name} MX 10 {host}\n_mta-sts.{name} TXT \"v=STSv1; id=1\"\nmta-sts.{name} A 127.0.0.1\n");
    }
    zone
}

fn policy(mode: &str, host: &str) -> String {
    format!("version: STSv1\r\nmode: {mode}\r\nmx: {host}\r\nmax_age: 86400\r\n")
}

fn write_policies(folder: &Path) {
    for (name, content) in [
        ("good.plain.test", policy("enforce", "mx.plain.test")),
        ("outside.plain.test", policy("enforce", "other.plain.test")),
        ("badcert.plain.test", policy("enforce", "*.plain.test")),
        ("testing.plain.test", policy("testing", "mx.plain.test")),
        ("moved.plain.test", "HTTP 301".to_owned()),
        ("renewed.plain.test", policy("enforce", "mx.plain.test")),
    ] {
        fs::write(folder.join(name), content).unwrap();
    }
}

const SEND: &str = r#"
import smtplib, ssl, sys
port, sender, to, strict, relaxed = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "strict", sys.argv[4] == "relaxed"
s = smtplib.SMTP("127.0.0.1", port, local_hostname="client.test")
s.starttls(context=ssl._create_unverified_context()); s.ehlo("client.test")
field = "TLS-Required: No\r\n" if relaxed else ""
s.sendmail(sender, [to], "From: <a@home.test>\r\nSubject: x\r\n" + field + "\r\nhello\r\n", mail_options=["REQUIRETLS"] if strict else [])
s.quit()
"#;

fn send(weir: &Weir, to: &str, manner: &str) {
    python(SEND, &[&weir.port("relay").to_string(), "a@home.test", to, manner]);
}

/// The line that tells of the delivery to `recipient`: its outcome, TLS and remote text.
fn delivery(weir: &Weir, recipient: &str) -> String {
    let mark = format!("recipient={recipient} ");
    wait_for(&format!("the delivery to {recipient}"), || {
        weir.log().lines().find(|line| line.contains("delivery") && line.contains(&mark)).map(str::to_owned)
    })
}

fn fates(weir: &Weir, table: &[(&str, &str, &[&str])]) {
    for (to, manner, _) in table {
        send(weir, to, manner);
    }
    for (to, _, words) in table {
        let line = delivery(weir, to);
        for word in *words {
            assert!(line.contains(word), "{to}: no `{word}` in {line}");
        }
    }
}

fn what_is_told_of_tlsa(world: &World, weir: &Weir, strict: &Weir) {
    for (domain, words) in [
        ("signed.test", "tlsa     good     _PORT._tcp.mx.signed.test: 3 1 1 "),
        ("aside.signed.test", "tlsa     good     _PORT._tcp.asidemx.signed.test: 3 1 1 "),
        ("none.signed.test", "tlsa     missing  _PORT._tcp.nonemx.signed.test: no DANE, though the zone is signed"),
        ("unusable.signed.test", "none can be used for mail (usage 2 or 3, RFC 7672 §3.1)"),
        ("broken.signed.test", "tlsa     bad      _PORT._tcp.brokenmx.signed.test: DNS trouble: "),
        ("plain.test", "no DANE, for the MX record of plain.test is not signed (DNSSEC)"),
        ("leaving.signed.test", "no DANE, for the address of mx.plain.test is not signed (DNSSEC)"),
    ] {
        let told = String::from_utf8_lossy(&weir.cli(&["dns", domain]).stdout).into_owned();
        assert!(told.contains(&words.replace("PORT", &world.postfix.port("SMTP").to_string())), "{domain}: {told}");
    }
    // Our own host: the record for the certificate that we show is named.
    let own = String::from_utf8_lossy(
        &strict.cli(&["dns", "strict.signed.test", "--dns", world.unbound.value("DNS")]).stdout,
    )
    .into_owned();
    let record = format!("publish: _25._tcp.weirmx.signed.test. IN TLSA 3 1 1 {}", world.papers.key_hash);
    assert!(own.contains("tlsa     missing  _25._tcp.weirmx.signed.test: no DANE\n") && own.contains(&record), "{own}");
}

#[test]
fn dane_and_mta_sts_decide_who_gets_mail() {
    let world = World::new();
    let (chain, key) = (text(&world.papers.path("chain.pem")), text(&world.papers.path("key.pem")));
    let tables = format!(
        "[tls]\ncertificate = \"{chain}\"\nkey = \"{key}\"\n\
         [[listener]]\naddress = \"127.0.0.2:{}\"\nrole = \"mx\"\nverify = \"off\"\nfilter = \"off\"\n",
        world.postfix.port("SMTP")
    );
    let strict = Weir::start(&(head("weirmx.signed.test") + &tables + &domain("strict.signed.test", "discard:")));
    let weir = Weir::start(&world.config(""));
    fates(
        &weir,
        &[
            // DANE
            ("a@signed.test", "", &["delivered", "tls=\"dane\""]),
            ("a@ta.signed.test", "", &["delivered", "tls=\"dane\""]),
            ("a@alias.signed.test", "", &["delivered", "tls=\"dane\""]),
            (
                "a@bad.signed.test",
                "",
                &["deferred", "TLSA of badmx.signed.test matches nothing: usage 3 selector 1 matching 1"],
            ),
            ("a@tawrong.signed.test", "", &["deferred", "the certificate is for another host"]),
            ("a@unusable.signed.test", "", &["delivered", "tls=\"unverified\""]),
            ("a@broken.signed.test", "", &["deferred", "TLSA of brokenmx.signed.test can't be had"]),
            ("a@none.signed.test", "", &["delivered", "tls=\"unverified\""]),
            ("a@leaving.signed.test", "", &["delivered", "tls=\"unverified\""]),
            ("a@plain.test", "", &["delivered", "tls=\"unverified\""]),
            ("a@aside.signed.test", "", &["delivered", "tls=\"dane\""]),
            ("a@asidebad.signed.test", "", &["deferred", "TLSA of asidebadmx.signed.test matches nothing"]),
            ("a@asidenone.signed.test", "", &["delivered", "tls=\"unverified\""]),
            // MTA-STS
            ("a@good.plain.test", "", &["delivered", "tls=\"sts\""]),
            (
                "a@outside.plain.test",
                "",
                &["deferred", "mx.plain.test is no mail host by the MTA-STS policy of outside.plain.test"],
            ),
            ("a@badcert.plain.test", "", &["deferred", "the certificate is for another host"]),
            ("a@testing.plain.test", "", &["delivered", "tls=\"unverified\""]),
            ("a@moved.plain.test", "", &["delivered", "tls=\"unverified\""]),
            // RFC 8689
            ("b@strict.signed.test", "strict", &["delivered", "tls=\"dane\""]),
            ("b@good.plain.test", "strict", &["bounced", "does not offer REQUIRETLS"]),
            (
                "b@plain.test",
                "strict",
                &["bounced", "neither DNSSEC nor MTA-STS says that mx.plain.test is a host of plain.test"],
            ),
            ("b@bad.signed.test", "strict", &["bounced", "matches nothing"]),
            ("b@broken.signed.test", "strict", &["deferred", "can't be had"]),
            ("c@bad.signed.test", "relaxed", &["delivered", "tls=\"unverified\""]),
            ("c@badcert.plain.test", "relaxed", &["delivered", "tls=\"unverified\""]),
        ],
    );
    let why = weir.queue().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let why: Vec<String> = why.iter().map(|id| weir.ok(&["queue", "why", id])).collect();
    assert!(why.iter().any(|text| text.contains("TLSA of badmx.signed.test matches nothing: usage 3")), "{why:?}");
    assert_eq!(world.asked("moved.plain.test"), 1, "a fetch that failed is not repeated at once");
    assert!(strict.log().contains("a@home.test"), "{}", strict.log());
    what_is_told_of_tlsa(&world, &weir, &strict);
}

#[test]
fn other_dns_servers_and_authorities_are_in_force_after_a_reload() {
    let (world, strangers) = (World::new(), Papers::new(&[]));
    let (dns, ca) = (world.unbound.value("DNS"), text(&world.papers.path("ca.pem")));
    let weir = Weir::start(&world.config(""));
    let file = weir.path().join("weir.toml");
    let right = fs::read_to_string(&file).unwrap();
    let put = |config: String| {
        fs::write(&file, config).unwrap();
        let told = weir.ok(&["reload"]);
        assert!(!told.contains("restart"), "{told}");
    };
    put(right.replace(dns, "127.0.0.1:1"));
    send(&weir, "e@unusable.signed.test", "");
    assert!(delivery(&weir, "e@unusable.signed.test").contains("DNS trouble"));
    // Beside the right one, for nothing outside of the folders of the start can be reached.
    let others = world.papers.path("others.pem");
    fs::copy(strangers.path("ca.pem"), &others).unwrap();
    put(right.replace(&ca, &text(&others)));
    send(&weir, "e@signed.test", "");
    assert!(delivery(&weir, "e@signed.test").contains("tls=\"dane\""), "the right servers, and trusted");
    send(&weir, "e@renewed.plain.test", "");
    let told = delivery(&weir, "e@renewed.plain.test");
    assert!(told.contains("tls=\"unverified\""), "the policy's host has a certificate of others: {told}");
    put(right);
    send(&weir, "e@good.plain.test", "");
    assert!(delivery(&weir, "e@good.plain.test").contains("tls=\"sts\""));
    fs::write(&file, "[deliver]\nca_file = \"nothing.pem\"\n").unwrap();
    assert!(!weir.cli(&["reload"]).status.success());
}

#[test]
fn a_policy_outlives_the_web_server_and_the_gateway_until_its_id_changes() {
    let world = World::new();
    let mut weir = Weir::start(&world.config(""));
    send(&weir, "1@badcert.plain.test", "");
    assert!(delivery(&weir, "1@badcert.plain.test").contains("deferred"));
    send(&weir, "1@renewed.plain.test", "");
    assert!(delivery(&weir, "1@renewed.plain.test").contains("tls=\"sts\""));
    assert_eq!((world.asked("badcert.plain.test"), world.asked("renewed.plain.test")), (1, 1));
    weir.signal("TERM");
    assert!(weir.wait_end());
    weir.restart();
    send(&weir, "2@renewed.plain.test", "");
    assert!(delivery(&weir, "2@renewed.plain.test").contains("tls=\"sts\""));
    assert_eq!(world.asked("renewed.plain.test"), 1, "it was kept");
    // A new id: the policy is fetched again, and one that can't be had leaves the old one in force.
    fs::write(world.policies.path().join("renewed.plain.test"), policy("none", "mx.plain.test")).unwrap();
    fs::write(world.policies.path().join("badcert.plain.test"), "HTTP 500").unwrap();
    let zone = world.zones.path().join("plain.test.zone");
    let first = fs::read_to_string(&zone).unwrap();
    let pid = fs::read_to_string(world.knot.path().join("run/knot.pid")).unwrap();
    let mut round = 1;
    wait_for("the policy that is none", || {
        // Another id each time: a fetch that failed on a busy machine is not made again for five minutes.
        round += 1;
        fs::write(&zone, first.replace("id=1", &format!("id={round}"))).unwrap();
        assert!(support::run("kill", &["-HUP", pid.trim()]).0);
        let to = format!("n{round}@renewed.plain.test");
        send(&weir, &to, "");
        delivery(&weir, &to).contains("tls=\"unverified\"").then_some(())
    });
    send(&weir, "2@badcert.plain.test", "");
    assert!(delivery(&weir, "2@badcert.plain.test").contains("deferred"), "the old policy is in force");
    assert_eq!(world.asked("badcert.plain.test"), 2);
    let metrics = support::run("curl", &["-s", &format!("http://{}/metrics", weir.address("admin"))]).1;
    assert!(metrics.contains("weir_deliver_mta_sts_total{outcome=\"fetched\"}"), "{metrics}");
}

const FORWARD: &str = r#"
[[alias]]
address = "sales@home.test"
to = ["ann@home.test", "bob@signed.test"]
[[alias]]
address = "boss@home.test"
to = ["sales@home.test"]
[srs]
domain = "home.test"
secrets = [SECRETS]
"#;

/// Speaks to the mx listener: MAIL from `argv[2]` (may be empty) to `argv[3]`; prints the reply to RCPT, then that to the content.
const KNOCK: &str = r#"
import smtplib, sys
s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), local_hostname="client.test"); s.ehlo()
s.mail(sys.argv[2]); code, text = s.rcpt(sys.argv[3]); print(code, text.decode())
if code == 250: print(*[x if isinstance(x, int) else x.decode() for x in s.data("From: <x@far.test>\r\nSubject: x\r\n\r\nhello\r\n")])
"#;

#[test]
fn forwarded_mail_bears_our_reverse_path_and_its_bounces_come_home() {
    let world = World::new();
    let config = |secrets: &str| {
        let mx = listener("mx", "mx", "tls = \"starttls\"");
        world.config(&(mx + &FORWARD.replace("SECRETS", secrets)))
    };
    let mut weir = Weir::start(&config("\"the first secret of all\""));
    for name in ["ann", "nobody"] {
        weir.add_user(name);
    }
    let knock = |weir: &Weir, from: &str, to: &str| python(KNOCK, &[&weir.port("mx").to_string(), from, to]);
    let said = knock(&weir, "ann@plain.test", "Boss+x@home.test");
    assert!(said.contains("queued as"), "{said}");
    assert!(delivery(&weir, "ann@home.test").contains("delivered"));
    assert!(delivery(&weir, "bob@signed.test").contains("delivered"));
    let log = || fs::read_to_string(world.postfix.path().join("log/mail.log")).unwrap();
    let rewritten = wait_for("the rewritten reverse-path", || {
        let text = log();
        let start = text.find("from=<SRS0=")? + 6;
        Some(text[start..start + text[start..].find('>')?].to_owned())
    });
    assert!(rewritten.ends_with("=plain.test=ann@home.test"), "{rewritten}");
    assert!(!log().contains("from=<ann@plain.test>"), "the stranger's own name did not leave");

    // Bounces: ours come home, all else is refused.
    assert!(knock(&weir, "x@far.test", &rewritten).contains("550 5.7.1"), "not a bounce");
    let forged = rewritten.replace("=plain.test=", "=signed.test=");
    assert!(knock(&weir, "", &forged).contains("550 5.1.1"), "a forged one");
    assert!(knock(&weir, "", &rewritten).contains("queued as"));
    assert!(delivery(&weir, "ann@plain.test").contains("delivered"), "it went to who wrote");

    // A new secret in front keeps the old addresses; without the old one they end.
    let rewrite = |secrets: &str| {
        let text = config(secrets).replace("DIR", &weir.path().display().to_string());
        fs::write(weir.path().join("weir.toml"), text).unwrap();
        weir.ok(&["reload"]);
    };
    rewrite("\"a second secret is new\", \"the first secret of all\"");
    assert!(knock(&weir, "", &rewritten).contains("queued as"));
    rewrite("\"a second secret is new\"");
    assert!(knock(&weir, "", &rewritten).contains("550 5.1.1"));

    // Our own report about forwarded mail that fails goes straight to who wrote.
    fs::write(
        weir.path().join("weir.toml"),
        config("\"a second secret is new\"")
            .replace("DIR", &weir.path().display().to_string())
            .replace("bob@signed.test", "bob@nowhere.signed.test"),
    )
    .unwrap();
    weir.ok(&["reload"]);
    assert!(knock(&weir, "carl@plain.test", "sales@home.test").contains("queued as"));
    assert!(delivery(&weir, "bob@nowhere.signed.test").contains("bounced"));
    assert!(delivery(&weir, "carl@plain.test").contains("delivered"));
    weir.kill();
}
