//! Reports through running gateways: what one of them saw becomes mail that a second one delivers, checked field by field by Python.

#![allow(clippy::unwrap_used)] // helpers of tests may fail a test

mod support;
mod verify_dns;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use support::config::{domain, head, listener};
use support::{Weir, python, run, wait_for};
use verify_dns::{Dns, Zone, txt};

/// Makes a key, published in the zone; gives its section of the configuration.
fn key(domain: &str, folder: &Path, zone: &mut Zone) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.args(["dkim", "keygen", domain, "s", "--directory"]).arg(folder).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let record = said.lines().find(|line| line.contains(" IN TXT ( ")).unwrap_or_else(|| panic!("{said}"));
    let strings: Vec<_> = record.split('"').skip(1).step_by(2).collect();
    txt(zone, &format!("s._domainkey.{domain}"), &strings.concat());
    said[said.find("[[dkim]]").unwrap()..].to_owned()
}

/// A gateway whose own domains are delivered to `box/DOMAIN/USER` and which gives all else to `next`.
fn gateway(dns: &Dns, hostname: &str, domains: &[&str], next: &str, more: &str) -> Weir {
    let config = base(dns, hostname)
        + &listener("mx", "mx", "verify = \"enforce\"")
        + &format!("[relay]\nsmarthost = \"smtp://{next}?tls=none\"\n")
        + &domains.iter().map(|name| domain(name, "maildir:DIR/box/{domain}/{user}")).collect::<String>()
        + more;
    Weir::start(&config)
}

fn base(dns: &Dns, hostname: &str) -> String {
    let servers = dns.address;
    head(hostname)
        + &format!("[spool]\nsegment_bytes = \"1 MiB\"\n[dns]\nservers = [\"{servers}\"]\ntimeout = \"1500ms\"\n")
}

const JUDGE: &str = "mx.judge.example";

/// What is published: a.example is forged, b.example sends from here.
fn zone() -> Zone {
    let mut zone = Zone::new();
    txt(&mut zone, "a.example", "v=spf1 -all");
    txt(
        &mut zone,
        "_dmarc.a.example",
        "v=DMARC1; p=reject; sp=quarantine; adkim=s; fo=1; rua=mailto:dmarc@a.example!10m, mailto:x@r.example, \
         mailto:y@no.example,mailto:tiny@a.example!500; ruf=mailto:ruf@a.example,mailto:y@no.example",
    );
    txt(&mut zone, "a.example._report._dmarc.r.example", "v=DMARC1;");
    txt(&mut zone, "b.example", "v=spf1 ip4:127.0.0.1 -all");
    txt(&mut zone, "_dmarc.b.example", "v=DMARC1; p=quarantine; t=y; rua=mailto:dmarc@b.example");
    txt(&mut zone, "_dmarc.judge.example", "v=DMARC1; p=reject; rua=mailto:agg@judge.example");
    txt(&mut zone, "_dmarc.owner.example", "v=DMARC1; p=none; rua=mailto:agg@owner.example");
    zone
}

fn swaks(weir: &Weir, from: &str, to: &str, more: &[&str]) -> Output {
    let server = weir.address("mx");
    let mut command = Command::new("swaks");
    command.args(["--server", &server, "--from", from, "--to", to, "--helo", "client.example", "--timeout", "60"]);
    command.args(more).output().expect("swaks runs")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// `DOMAIN ROWS COUNT` of each row that waits.
fn waiting(weir: &Weir) -> Vec<String> {
    let all = json(&weir.ok(&["report", "waiting", "--json"]));
    let told = |one: &Value| {
        format!(
            "{} {} {} {}",
            one["kind"].as_str().unwrap(),
            one["domain"].as_str().unwrap(),
            one["rows"],
            one["count"]
        )
    };
    all.as_array().unwrap().iter().map(told).collect()
}

fn files(weir: &Weir, mailbox: &str) -> Vec<PathBuf> {
    let (user, domain) = mailbox.split_once('@').unwrap();
    let new = weir.path().join("box").join(domain).join(user).join("new");
    fs::read_dir(new).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Waits for exactly one message.
fn delivered(weir: &Weir, mailbox: &str) -> PathBuf {
    wait_for(&format!("mail for {mailbox}"), || files(weir, mailbox).pop())
}

/// Takes a report apart with Python's own parsers, and verifies its signature with dkimpy.
const TAKE_APART: &str = r#"
import sys, json, gzip, email, email.policy, dkim
import xml.etree.ElementTree as ET
raw = open(sys.argv[1], "rb").read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
record = sys.argv[2]
m = email.message_from_bytes(raw, policy=email.policy.default)
out = {"headers": {k: str(v) for k, v in m.items()}, "type": m.get_content_type(), "report_type": m.get_param("report-type")}
out["dkim"] = dkim.verify(raw, dnsfunc=lambda name, timeout=5: record.encode())
out["parts"] = [p.get_content_type() for p in m.iter_parts()]
def tree(e):
    kids = list(e)
    if not kids: return e.text
    d = {}
    for k in kids: d.setdefault(k.tag.split("}")[-1], []).append(tree(k))
    return {k: v[0] if len(v) == 1 else v for k, v in d.items()}
for p in m.iter_parts():
    t = p.get_content_type()
    if t.startswith("application/"):
        out["file"], data = p.get_filename(), gzip.decompress(p.get_payload(decode=True))
        if t == "application/gzip":
            root = ET.fromstring(data)
            out["root"], out["xml"] = root.tag, tree(root)
        else: out["json"] = json.loads(data)
    if t == "message/feedback-report":
        inner = p.get_payload()
        inner = inner[0] if isinstance(inner, list) else email.message_from_string(inner)
        out["feedback"] = {k: " ".join(v.split()) for k, v in inner.items()}
    if t == "text/rfc822-headers": out["quoted"] = p.get_payload(decode=True).decode()
print(json.dumps(out))
"#;

fn take_apart(file: &Path, zone: &Zone) -> Value {
    let record = zone["s._domainkey.judge.example"][0].1.as_str().unwrap();
    // The system's own Python has the Debian package; another may stand first in the path.
    let (ok, text) = run("/usr/bin/python3", &["-c", TAKE_APART, file.to_str().unwrap(), record]);
    assert!(ok, "{text}");
    json(&text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregate_reports_reach_whom_they_may_and_say_what_was_seen() {
    let (keys, mut zone) = (support::folder(), zone());
    let judge_key = key("judge.example", keys.path(), &mut zone);
    let owner_key = key("owner.example", keys.path(), &mut zone);
    let dns = Dns::start(&zone).await;
    let more = format!("[reports]\nfrom = \"reports@owner.example\"\n\n{owner_key}");
    let owners = ["a.example", "b.example", "r.example", "no.example", "owner.example"];
    let owner = gateway(&dns, "mx.owner.example", &owners, "127.0.0.1:1", &more);
    let more = format!("[reports]\nfrom = \"reports@judge.example\"\norganization = \"Judge & Co\"\n\n{judge_key}");
    let mut judge = gateway(&dns, JUDGE, &["judge.example"], &owner.address("mx"), &more);

    for _ in 0..3 {
        let refused = swaks(&judge, "ann@a.example", "bob@judge.example", &[]);
        assert!(
            String::from_utf8_lossy(&refused.stdout).contains("550 5.7.1 rejected by the DMARC policy"),
            "{refused:?}"
        );
    }
    assert!(swaks(&judge, "ann@b.example", "bob@judge.example", &[]).status.success());
    let seen = ["aggregate a.example 1 3", "aggregate b.example 1 1"];
    assert_eq!(waiting(&judge), seen);

    // Neither a stop nor, a little later, a crash costs a row.
    judge.signal("TERM");
    assert!(judge.wait_end());
    judge.restart();
    assert_eq!(waiting(&judge), seen);
    assert!(swaks(&judge, "ann@b.example", "bob@judge.example", &[]).status.success());
    let journal = judge.path().join("data/reports/dmarc");
    let size = fs::metadata(&journal).unwrap().len();
    wait_for("the row on disk", || (fs::metadata(&journal).unwrap().len() > size).then_some(()));
    judge.kill();
    judge.restart();
    assert_eq!(waiting(&judge), ["aggregate a.example 1 3", "aggregate b.example 1 2"]);

    // Nothing is due before the day is over; an operator may have it now.
    assert_eq!(json(&judge.ok(&["report", "send", "--json"]))["sent"], 0);
    let sent = json(&judge.ok(&["report", "send", "--now", "--json"]));
    assert_eq!((&sent["sent"], &sent["failed"]), (&3.into(), &2.into()), "{sent}");
    assert_eq!(waiting(&judge), Vec::<String>::new());
    let told = take_apart(&delivered(&owner, "dmarc@a.example"), &zone);
    check_report_about_a(&told);
    assert_eq!(take_apart(&delivered(&owner, "x@r.example"), &zone)["xml"], told["xml"]);
    let told = take_apart(&delivered(&owner, "dmarc@b.example"), &zone);
    let (published, record) = (&told["xml"]["policy_published"], &told["xml"]["record"]);
    assert_eq!((&published["testing"], &record["row"]["count"]), (&"y".into(), &"2".into()), "{told}");
    assert_eq!(record["row"]["policy_evaluated"]["disposition"], "pass");
    assert!(files(&owner, "y@no.example").is_empty() && files(&owner, "tiny@a.example").is_empty());
    assert!(files(&owner, "ruf@a.example").is_empty(), "failure reports are off");

    // Reports are no reason for reports, though judge.example asks for them and other mail of it counts.
    assert_eq!(waiting(&owner), Vec::<String>::new());
    let from_judge = ["--header", "Subject: hello"];
    swaks(&owner, "someone@judge.example", "dmarc@a.example", &from_judge);
    assert_eq!(waiting(&owner), ["aggregate judge.example 1 1"]);
    assert!(swaks(&judge, "x@owner.example", "reports@judge.example", &[]).status.success());
    assert_eq!(waiting(&judge), Vec::<String>::new(), "mail to the author of reports does not count");

    // The rows of a second report of the same day begin where the first one ended.
    assert!(swaks(&judge, "ann@b.example", "bob@judge.example", &[]).status.success());
    assert_eq!(json(&judge.ok(&["report", "send", "--now", "--json"]))["sent"], 1);
    let second = wait_for("the second report", || Some(files(&owner, "dmarc@b.example")).filter(|all| all.len() == 2));
    let dates = second.iter().map(|file| take_apart(file, &zone)["xml"]["report_metadata"]["date_range"].clone());
    let mut dates: Vec<(u64, u64)> =
        dates.map(|dates| ["begin", "end"].map(|word| dates[word].as_str().unwrap().parse().unwrap()).into()).collect();
    dates.sort_unstable();
    assert!(dates[0].1 < dates[1].0, "{dates:?}");
    let metrics = run("curl", &["-s", &format!("http://{}/metrics", judge.address("admin"))]).1;
    assert!(metrics.contains("weir_verify_reports_noted_total{kind=\"aggregate\"} 1\n"), "{metrics}");
    assert!(metrics.contains("weir_verify_reports_sent_total{kind=\"aggregate\"} 4\n"), "{metrics}");
}

fn check_report_about_a(told: &Value) {
    let xml = &told["xml"];
    assert_eq!(told["dkim"], true, "{told}");
    assert_eq!(told["root"], "{urn:ietf:params:xml:ns:dmarc-2.0}feedback");
    let (metadata, published, record) = (&xml["report_metadata"], &xml["policy_published"], &xml["record"]);
    assert_eq!((&metadata["org_name"], &metadata["email"]), (&"Judge & Co".into(), &"reports@judge.example".into()));
    let [begin, end] =
        ["begin", "end"].map(|word| metadata["date_range"][word].as_str().unwrap().parse::<u64>().unwrap());
    assert!(begin.is_multiple_of(86_400) && end > begin && end < begin + 86_400, "{begin} {end}");
    let policy = ["domain", "p", "sp", "np", "adkim", "aspf", "fo", "testing", "discovery_method"];
    let policy = policy.map(|name| published[name].as_str().unwrap());
    assert_eq!(policy, ["a.example", "reject", "quarantine", "quarantine", "s", "r", "1", "n", "treewalk"]);
    let row = &record["row"];
    assert_eq!((&row["source_ip"], &row["count"]), (&"127.0.0.1".into(), &"3".into()), "{row}");
    let evaluated = ["disposition", "dkim", "spf"].map(|name| row["policy_evaluated"][name].as_str().unwrap());
    assert_eq!(evaluated, ["reject", "fail", "fail"]);
    assert_eq!(record["identifiers"]["header_from"], "a.example");
    assert_eq!(record["identifiers"]["envelope_from"], "a.example");
    let spf = ["domain", "scope", "result"].map(|name| record["auth_results"]["spf"][name].as_str().unwrap());
    assert_eq!(spf, ["a.example", "mfrom", "fail"]);
    assert_eq!(told["file"], format!("{JUDGE}!a.example!{begin}!{end}.xml.gz"));
    let id = metadata["report_id"].as_str().unwrap();
    let headers = &told["headers"];
    assert_eq!(headers["Subject"], format!("Report Domain: a.example Submitter: {JUDGE} Report-ID: <{id}>"));
    assert_eq!((&headers["Auto-Submitted"], &headers["Return-Path"]), (&"auto-generated".into(), &"<>".into()));
    assert_eq!(told["parts"], serde_json::json!(["text/plain", "application/gzip"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_reports_are_asked_for_rated_and_without_local_parts() {
    let (keys, mut zone) = (support::folder(), zone());
    let section = key("judge.example", keys.path(), &mut zone);
    let dns = Dns::start(&zone).await;
    let owner = gateway(&dns, "mx.owner.example", &["a.example", "no.example"], "127.0.0.1:1", "");
    let more = format!(
        "[reports]\nfrom = \"reports@judge.example\"\nfailure = \"headers\"\nfailure_per_hour = 2\naggregate = false\n\n{section}"
    );
    let judge = gateway(&dns, JUDGE, &["judge.example"], &owner.address("mx"), &more);
    // A machine's message, and one without a reverse-path, are no reason; b.example has no ruf.
    let automatic = ["--header", "Auto-Submitted: auto-replied"];
    swaks(&judge, "ann@a.example", "bob@judge.example", &automatic);
    swaks(&judge, "<>", "bob@judge.example", &["--h-From", "ann@a.example"]);
    swaks(&judge, "ann@b.example", "bob@judge.example", &[]);
    for _ in 0..4 {
        swaks(
            &judge,
            "ann.secret@a.example",
            "bob@judge.example",
            &["--header", "Subject: you have won", "--body", "hidden"],
        );
    }
    let metric = "weir_verify_reports_dropped_total{kind=\"failure\"} 2\n";
    let metrics = || run("curl", &["-s", &format!("http://{}/metrics", judge.address("admin"))]).1;
    wait_for("the rate", || metrics().contains(metric).then_some(()));
    let reports = wait_for("two reports", || Some(files(&owner, "ruf@a.example")).filter(|all| all.len() == 2));
    assert!(files(&owner, "y@no.example").is_empty());
    assert_eq!(waiting(&judge), Vec::<String>::new(), "aggregate reports are off");
    for file in reports {
        let told = take_apart(&file, &zone);
        assert_eq!((&told["dkim"], &told["type"]), (&true.into(), &"multipart/report".into()), "{told}");
        assert_eq!(told["report_type"], "feedback-report");
        assert_eq!(told["parts"], serde_json::json!(["text/plain", "message/feedback-report", "text/rfc822-headers"]));
        let feedback = &told["feedback"];
        for (name, value) in [
            ("Feedback-Type", "auth-failure"),
            ("Auth-Failure", "dmarc"),
            ("Source-IP", "127.0.0.1"),
            ("Reported-Domain", "a.example"),
            ("Delivery-Result", "reject"),
            ("Identity-Alignment", "none"),
            ("Version", "1"),
        ] {
            assert_eq!(feedback[name], value, "{told}");
        }
        assert!(feedback["Authentication-Results"].as_str().unwrap().contains("dmarc=fail"), "{feedback}");
        let mail = fs::read_to_string(&file).unwrap();
        assert!(!mail.contains("ann.secret") && !mail.contains("hidden"), "{mail}");
        assert!(told["quoted"].as_str().unwrap().contains("Subject: you have won"), "{told}");
        let read = json(&judge.ok(&["report", "read", "--json", file.to_str().unwrap()]));
        let report = &read[0]["report"];
        assert_eq!((&report["kind"], &report["domain"]), (&"failure".into(), &"a.example".into()), "{read}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_come_are_read_summed_up_and_delivered() {
    let dns = Dns::start(&zone()).await;
    let more = "[reports]\ninbox = [\"dmarc@judge.example\"]\n";
    let mut judge = gateway(&dns, JUDGE, &["judge.example"], "127.0.0.1:1", more);
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/reports");
    for file in ["dmarc-xml/100.eml", "tlsrpt/rpt01.eml", "arf/003.eml", "dmarc-xml/100.eml"] {
        let data = format!("@{}", vectors.join(file).display());
        let taken = swaks(&judge, "<>", "dmarc@judge.example", &["--data", &data]);
        assert!(taken.status.success(), "{file}: {taken:?}");
    }
    assert!(swaks(&judge, "<>", "dmarc@judge.example", &["--h-From", "ann@plain.example"]).status.success());
    let summary = |judge: &Weir, more: &[&str]| {
        let all = json(&judge.ok(&[&["report", "summary", "--json"][..], more].concat()));
        let mut kinds: Vec<String> = all
            .as_array()
            .unwrap()
            .iter()
            .map(|one| format!("{} {}", one["kind"].as_str().unwrap(), one["domain"].as_str().unwrap()))
            .collect();
        kinds.sort_unstable();
        kinds
    };
    let unread = "weir_verify_reports_received_total{kind=\"unreadable\"} 1\n";
    let metrics = |judge: &Weir| run("curl", &["-s", &format!("http://{}/metrics", judge.address("admin"))]).1;
    wait_for("all of them", || (summary(&judge, &[]).len() == 3 && metrics(&judge).contains(unread)).then_some(()));
    let found = summary(&judge, &[]);
    assert!(
        found[0].starts_with("dmarc ") && found[1].starts_with("failure ") && found[2].starts_with("tls "),
        "{found:?}"
    );
    let domain = found[0].split(' ').nth(1).unwrap();
    assert_eq!(summary(&judge, &["--domain", domain, "--since", "1h"])[..1], found[..1]);
    assert!(judge.ok(&["report", "summary"]).contains(domain));
    wait_for("delivery", || (files(&judge, "dmarc@judge.example").len() == 5).then_some(()));
    judge.signal("TERM");
    assert!(judge.wait_end());
    judge.restart();
    assert_eq!(summary(&judge, &[]), found);
}

/// Sends every report below a folder to an address, as it is or attached; prints how many.
const SENDER: &str = r#"
import email.message, glob, os, re, smtplib, sys
client = smtplib.SMTP(*sys.argv[1].split(":"), timeout=60); client.ehlo("client.example")
sent = 0
for name in sorted(glob.glob(sys.argv[2] + "/[a-z]*/*")):
    end = os.path.splitext(name)[1]
    if end == ".json" and "/pd-" not in name:  # what a reader should find
        continue
    content = open(name, "rb").read()
    if end != ".eml":
        message = email.message.EmailMessage()
        message["Subject"] = "a report"; message["From"] = "reporter@plain.example"; message.set_content("attached")
        kind = {".gz": "gzip", ".zip": "zip", ".json": "tlsrpt+json"}.get(end, "xml")
        message.add_attachment(content, maintype="application", subtype=kind, filename=os.path.basename(name))
        content = message.as_bytes()
    client.sendmail("", ["dmarc@judge.example"], re.sub(rb"\r?\n", b"\r\n", content)); sent += 1
print(sent)
"#;

/// What else there is to say of each stands in tests/verify.rs, where the same reader is asked.
#[tokio::test(flavor = "multi_thread")]
async fn every_report_of_the_vectors_is_read_on_its_way_to_the_mailbox() {
    let dns = Dns::start(&zone()).await;
    let judge =
        gateway(&dns, JUDGE, &["judge.example"], "127.0.0.1:1", "[reports]\ninbox = [\"dmarc@judge.example\"]\n");
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/reports");
    let sent: usize = python(SENDER, &[&judge.address("mx"), &vectors.display().to_string()]).trim().parse().unwrap();
    assert!(sent >= 40, "{sent} vectors");
    let counts = || {
        let text = run("curl", &["-s", &format!("http://{}/metrics", judge.address("admin"))]).1;
        let counts = text.lines().filter(|line| line.starts_with("weir_verify_reports_received_total{"));
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap();
        counts.map(|line| (line.contains("unreadable"), count(line))).collect::<Vec<_>>()
    };
    let all = |counts: &[(bool, usize)]| counts.iter().map(|(_, count)| count).sum::<usize>();
    let counts = wait_for("all of them", || Some(counts()).filter(|counts| all(counts) == sent));
    let unreadable: usize = counts.iter().filter(|(unreadable, _)| *unreadable).map(|(_, count)| count).sum();
    assert_eq!(unreadable, 2, "those that IDENTITY.md names: {counts:?}");
}

/// Takes one POST on a port of its own with the certificate given; writes what came to a file.
const HTTPS: &str = r#"
import http.server, json, ssl, sys
folder = sys.argv[1]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        open(folder + "/body", "wb").write(body)
        open(folder + "/said.new", "w").write(json.dumps([self.path, self.headers["Content-Type"], self.headers["Host"]]))
        import os; os.rename(folder + "/said.new", folder + "/said")
        self.send_response(201); self.end_headers()
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(folder + "/cert.pem", folder + "/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;

/// A child that ends with the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn host(zone: &mut Zone, name: &str) {
    zone.entry(name.to_owned()).or_default().push(("A".to_owned(), "127.0.0.1".into()));
}

fn check_tls_report(told: &Value) {
    assert_eq!(
        (&told["dkim"], &told["type"], &told["report_type"]),
        (&true.into(), &"multipart/report".into(), &"tlsrpt".into())
    );
    assert_eq!(told["parts"], serde_json::json!(["text/plain", "application/tlsrpt+gzip"]));
    assert_eq!(
        (&told["headers"]["TLS-Report-Domain"], &told["headers"]["TLS-Report-Submitter"]),
        (&"t.example".into(), &JUDGE.into())
    );
    let report = &told["json"];
    let policy = &report["policies"][0];
    assert_eq!(
        (&policy["policy"]["policy-type"], &policy["policy"]["policy-domain"]),
        (&"no-policy-found".into(), &"t.example".into())
    );
    let details = &policy["failure-details"][0];
    assert_eq!(
        (&policy["summary"]["total-failure-session-count"], &details["failed-session-count"]),
        (&1.into(), &1.into()),
        "{told}"
    );
    assert_eq!(
        (&details["result-type"], &details["receiving-mx-hostname"]),
        (&"starttls-not-supported".into(), &"mx.t.example".into())
    );
    let dates = ["start-datetime", "end-datetime"].map(|name| report["date-range"][name].as_str().unwrap().to_owned());
    assert!(dates[0].ends_with("T00:00:00Z") && dates[0] < dates[1], "{dates:?}");
    let name = told["file"].as_str().unwrap();
    assert!(name.starts_with(&format!("{JUDGE}!t.example!")) && name.ends_with(".json.gz"), "{name}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_reports_go_by_mail_and_https_to_domains_that_ask() {
    let (keys, mut zone) = (support::folder(), zone());
    let section = key("judge.example", keys.path(), &mut zone);
    let https = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for name in ["t.example", "quiet.example"] {
        zone.entry(name.to_owned()).or_default().push(("MX".to_owned(), serde_json::json!([10, "mx.t.example"])));
    }
    host(&mut zone, "mx.t.example");
    host(&mut zone, "rua.t.example");
    let rua = format!("v=TLSRPTv1; rua=mailto:tls@t.example,https://rua.t.example:{https}/v1/tlsrpt?a=b");
    txt(&mut zone, "_smtp._tls.t.example", &rua);
    let dns = Dns::start(&zone).await;
    let owner = gateway(&dns, "mx.t.example", &["t.example", "quiet.example"], "127.0.0.1:1", "");
    let at = |name: &str| keys.path().join(name).display().to_string();
    let certified = rcgen::generate_simple_self_signed(vec!["rua.t.example".to_owned()]).unwrap();
    fs::write(at("cert.pem"), certified.cert.pem()).unwrap();
    fs::write(at("key.pem"), certified.signing_key.serialize_pem()).unwrap();
    let port = https.to_string();
    let server = Command::new("python3").args(["-c", HTTPS, &at(""), &port]).spawn().unwrap();
    let _server = Child(server);
    wait_for("the HTTPS server", || std::net::TcpStream::connect(("127.0.0.1", https)).ok());
    let judge = Weir::start_under(
        &format!("export SSL_CERT_FILE={}", at("cert.pem")),
        &(base(&dns, JUDGE)
            + &listener("mx", "relay", "")
            + &domain("judge.example", "discard:")
            + "[security]\nlandlock = false\n[reports]\nfrom = \"reports@judge.example\"\n"
            + &format!("[deliver]\nallow_local = true\nport = {}\n{section}", owner.port("mx"))),
    );
    // A connection is kept for the next message, so that two messages may be one session.
    for to in ["u@quiet.example", "u@t.example"] {
        assert!(swaks(&judge, "ann@judge.example", to, &[]).status.success());
    }
    let seen = ["tls t.example 1 1".to_owned()];
    wait_for("a session", || (waiting(&judge) == seen).then_some(()));
    let sent = json(&judge.ok(&["report", "send", "--now", "--json"]));
    assert_eq!((&sent["sent"], &sent["failed"]), (&2.into(), &0.into()), "{sent}");
    let file = delivered(&owner, "tls@t.example");
    let told = take_apart(&file, &zone);
    check_tls_report(&told);
    let said = wait_for("the POST", || fs::read_to_string(at("said")).ok());
    let wanted = ["/v1/tlsrpt?a=b".to_owned(), "application/tlsrpt+gzip".to_owned(), format!("rua.t.example:{https}")];
    assert_eq!(json(&said), serde_json::json!(wanted));
    let posted = json(&judge.ok(&["report", "read", "--json", &at("body")]));
    let mailed = json(&judge.ok(&["report", "read", "--json", file.to_str().unwrap()]));
    assert_eq!(posted[0]["report"], mailed[0]["report"]);
    assert_eq!(posted[0]["report"]["rows"][0]["failed"], 1);
    wait_for("the delivery of the report itself", || judge.queue().is_empty().then_some(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_dns_can_not_vouch_for_is_asked_again_later() {
    let (keys, mut zone) = (support::folder(), zone());
    let section = key("judge.example", keys.path(), &mut zone);
    txt(&mut zone, "c.example", "v=spf1 ip4:127.0.0.1");
    txt(&mut zone, "_dmarc.c.example", "v=DMARC1; p=none; rua=mailto:x@silent.example");
    zone.entry("c.example._report._dmarc.silent.example".into()).or_default().push(("SERVFAIL".into(), "ANY".into()));
    let dns = Dns::start(&zone).await;
    let more = format!("[reports]\nfrom = \"reports@judge.example\"\n\n{section}");
    let judge = gateway(&dns, JUDGE, &["judge.example"], "127.0.0.1:1", &more);
    assert!(swaks(&judge, "ann@c.example", "bob@judge.example", &[]).status.success());
    let sent = json(&judge.ok(&["report", "send", "--now", "--json"]));
    assert!(sent["lines"][0].as_str().unwrap().ends_with("tried again later"), "{sent}");
    assert_eq!((&sent["sent"], waiting(&judge)), (&0.into(), vec!["aggregate c.example 1 1".to_owned()]));
}
