//! What follows from a score, through the running gateway, and the account that it gives of itself: thresholds, lists, greylist,
//! headers, `weir explain`, `weir trace`, `weir replay`, the ledger, quarantine. swaks in front; Maildirs and Dovecot behind.

#![allow(clippy::unwrap_used)] // helpers of tests may fail a test

#[path = "verdict/door.rs"]
mod door;
mod support;

use std::fs;

use serde_json::Value;
use support::config::{self, POP3_ON, head_with_store};
use support::{Peer, Weir, python, run, wait_for};
use tempfile::TempDir;

/// Words with points: what is in the body decides.
const RULES: &str = "\
body W_THREE /three/\nscore W_THREE 3\ndescribe W_THREE The word three\n\
body W_SIX /six/\nscore W_SIX 6.25\ndescribe W_SIX The word six\n\
body W_NINE /nine/\nscore W_NINE 9.1\ndescribe W_NINE The word nine\n\
body W_TWENTY /twenty/\nscore W_TWENTY 20\ndescribe W_TWENTY The word twenty\n\
body W_MINUS /minus/\nscore W_MINUS -1.015\ntflags W_MINUS nice\n\
body W_SHADOW /./\nscore W_SHADOW 50\ntflags W_SHADOW shadow\n";

struct Gate {
    weir: Weir,
    rules: TempDir,
}

/// A perimeter for weir.test and other.test with a Maildir a user. `listener` and `domain` join those tables, `more` stands last.
fn gate(listener: &str, domain: &str, filter: &str, more: &str) -> Gate {
    let rules = support::folder();
    fs::write(rules.path().join("words.cf"), RULES).unwrap();
    let maildir = "maildir:DIR/box/{user}";
    let config = head_with_store("mx.weir.test", POP3_ON)
        + &format!(
            "[spool]\nsegment_bytes = \"1 MiB\"\n[filter]\nrules = [\"{}\"]\n{filter}\n[filter.classifier]\nseed = false\n",
            rules.path().display()
        )
        + &config::listener("mx", "mx", &format!("filter = \"enforce\"\nxclient = [\"127.0.0.0/8\"]\n{listener}"))
        + &format!("{}{domain}\n", config::domain("weir.test", maildir))
        + &config::domain("other.test", maildir)
        + more;
    Gate { weir: Weir::start(&config), rules }
}

impl Gate {
    /// Sends by swaks; success, and the last reply of the server.
    fn send(&self, to: &str, body: &str, more: &[&str]) -> (bool, String) {
        self.send_to("mx", to, body, more)
    }

    fn send_to(&self, listener: &str, to: &str, body: &str, more: &[&str]) -> (bool, String) {
        let server = self.weir.address(listener);
        let mut arguments = vec!["--server", &server, "--to", to, "--body", body];
        if !more.contains(&"--from") {
            arguments.extend(["--from", "nora@shop.test"]);
        }
        arguments.extend(more);
        let (ok, said) = run("swaks", &arguments);
        let mut replies = said.lines().filter(|line| line.starts_with("<-") || line.starts_with("<*"));
        let last = replies.rfind(|line| !line.contains(" 221 ")).unwrap_or_default();
        (ok, last.trim_start_matches(['<', '-', '*', ' ']).to_owned())
    }

    /// The one mail of a user.
    fn mail(&self, user: &str) -> String {
        let folder = self.weir.path().join("box").join(user).join("new");
        wait_for("the mail", || {
            let entry = fs::read_dir(&folder).ok()?.flatten().next()?;
            Some(String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).replace("\r\n", "\n"))
        })
    }

    fn has_mail(&self, user: &str) -> bool {
        fs::read_dir(self.weir.path().join("box").join(user).join("new"))
            .is_ok_and(|mut entries| entries.next().is_some())
    }

    fn explain(&self, reference: &str) -> String {
        // A record is written a moment after the reply.
        wait_for("the record", || {
            let output = self.weir.cli(&["explain", reference]);
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        })
    }

    fn record(&self, reference: &str) -> Value {
        self.explain(reference);
        serde_json::from_str(&self.weir.ok(&["explain", reference, "--json"])).unwrap()
    }

    fn quarantined(&self) -> Vec<Value> {
        serde_json::from_str(&self.weir.ok(&["quarantine", "list", "--json"])).unwrap()
    }
}

/// The id at the end of a reply.
fn reference(reply: &str) -> String {
    reply.split_ascii_whitespace().last().unwrap().to_owned()
}

/// The sum of a sheet in thousandths, by the JSON numbers as they are printed.
fn sum(record: &Value, parcel: usize) -> i64 {
    let decision = &record["decision"];
    let empty = Vec::new();
    let own = decision["parcels"][parcel]["more"].as_array().unwrap_or(&empty);
    let sheet = decision["symbols"].as_array().unwrap().iter().chain(own);
    let counted = sheet.filter(|reason| reason["shadow"] != true);
    counted.map(|reason| (reason["points"].as_f64().unwrap() * 1000.0).round() as i64).sum()
}

fn thousandths(value: &Value) -> i64 {
    (value.as_f64().unwrap() * 1000.0).round() as i64
}

#[test]
fn a_refusal_has_a_reason_in_words_and_a_reference_that_tells_the_whole_story() {
    let gate = gate("", "", "", "");
    let (ok, reply) = gate.send("bob@weir.test", "twenty three minus", &["--header", "Message-Id: <one@shop.test>"]);
    assert!(
        !ok && reply.starts_with("550 5.7.1 Refused as spam (score 21.985): The word twenty, The word three"),
        "{reply}"
    );
    let story = gate.explain(&reference(&reply));
    for wanted in [
        "rejected: 550 5.7.1 Refused as spam",
        "reject = 15 (default)",
        "<nora@shop.test>, inbound",
        "bob@weir.test",
        "<one@shop.test>",
        "[127.0.0.1]:",
        "loops, header section, rates: ordinary",
        "filter: score 21.985 of 5",
        "W_TWENTY The word twenty: `twenty` (",
        "words.cf:10)",
        "21.985  = score",
        "shadow, not counted",
        "tag 5 (default), quarantine 8 (default), reject 15 (default)",
    ] {
        assert!(story.contains(wanted), "{wanted}: {story}");
    }
    assert_eq!(gate.explain("<one@shop.test>"), story, "by Message-ID too");
    let record = gate.record(&reference(&reply));
    assert_eq!(sum(&record, 0), thousandths(&record["decision"]["parcels"][0]["score"]));

    let (ok, reply) = gate.send("bob@weir.test", "three", &[]);
    assert!(ok);
    let story = gate.explain(&reference(&reply));
    assert!(
        story.contains("accepted: 250 2.0.0 Ok: queued as") && story.contains("below tag = 5 (default)"),
        "{story}"
    );
    let mail = gate.mail("bob");
    assert!(mail.contains("X-Spam-Status: No, score=3 required=5 tests=W_THREE=3\n"), "{mail}");
    assert!(mail.contains("X-Spam-Level: ***\n") && !mail.contains("X-Spam-Flag"), "{mail}");
    assert!(mail.contains(&format!("X-Weir-Id: {}\n", reference(&reply))), "{mail}");

    let trace = |arguments: &[&str]| gate.weir.ok(&[&["trace"], arguments].concat()).lines().count() - 1;
    assert_eq!(trace(&["--ip", "127.0.0.0/8", "--from", "@shop.test", "--since", "1h"]), 2);
    assert_eq!(trace(&["--fate", "rejected", "--to", "bob@weir.test"]), 1);
    assert!(!gate.weir.cli(&["trace", "--from", "x@y.test"]).status.success());
    assert!(!gate.weir.cli(&["explain", "0000000000001"]).status.success());
}

#[test]
fn the_headers_that_sieve_rules_expect_arrive_in_dovecot() {
    let dovecot = Peer::start("dovecot", &[]);
    let gate = gate("", "", "", "");
    let config = fs::read_to_string(gate.weir.path().join("weir.toml")).unwrap();
    let hop = format!("lmtp://{}", dovecot.value("LMTP"));
    let box_of = format!("maildir:{}/box/{{user}}", gate.weir.path().display());
    fs::write(gate.weir.path().join("weir.toml"), config.replace(&box_of, &hop)).unwrap();
    gate.weir.ok(&["reload"]);
    let forged = ["--header", "X-Weir-Id: forged"];
    let (ok, reply) = gate.send("u1@weir.test", "six", &forged);
    assert!(ok, "{reply}");
    let mail = wait_for("the mail in Dovecot", || {
        let program = "import poplib, sys\np = poplib.POP3('127.0.0.1', int(sys.argv[1]))\np.user('u1'); p.pass_('pw')\n\
                       n = p.stat()[0]\nprint(b'\\n'.join(p.retr(1)[1]).decode() if n else '')";
        Some(python(program, &[&dovecot.port("POP3").to_string()])).filter(|mail| mail.contains("six"))
    });
    for wanted in
        ["X-Spam-Flag: YES\n", "X-Spam-Level: ******\n", "X-Spam-Status: Yes, score=6.25 required=5 tests=W_SIX=6.25\n"]
    {
        assert!(mail.contains(wanted), "{wanted}: {mail}");
    }
    let id = format!("X-Weir-Id: {}\n", reference(&reply));
    assert!(mail.contains(&id) && !mail.contains("forged"), "{mail}");
}

#[test]
fn each_action_does_what_it_says() {
    let scores = "subject = 5.5\nhold = 7.0\nquarantine = 9.0\nreject = \"off\"\ndiscard = 20.0";
    let gate = gate("", "", scores, "");
    assert!(gate.send("tagged@weir.test", "six", &["--header", "Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?="]).0);
    let mail = gate.mail("tagged");
    assert!(mail.contains("\nSubject: [SPAM] =?utf-8?q?gr=C3=BC=C3=9Fe?=\n"), "{mail}");
    assert_eq!(mail.matches("\nSubject:").count(), 1, "{mail}");
    let (ok, reply) = gate.send("held@weir.test", "six three minus", &[]);
    assert!(ok);
    let why = gate.weir.ok(&["queue", "why", &reference(&reply)]);
    assert!(why.contains("on hold (score 8.235 of 5"), "{why}");
    let (ok, reply) = gate.send("kept@weir.test", "nine", &[]);
    assert!(ok);
    let rows = gate.quarantined();
    assert!(rows.len() == 1 && rows[0]["id"] == reference(&reply).as_str(), "{rows:?}");
    let (ok, reply) = gate.send("gone@weir.test", "twenty", &[]);
    assert!(ok);
    let story = gate.explain(&reference(&reply));
    assert!(story.contains("decision     discarded") && story.contains("discard = 20 (weir.toml:"), "{story}");
    assert!(!gate.has_mail("gone") && !gate.has_mail("held") && !gate.has_mail("kept"));
    assert!(gate.weir.ok(&["audit"]).contains("adds up"));
}

#[test]
fn thresholds_differ_by_listener_by_domain_and_by_direction() {
    let enforce = "filter = \"enforce\"\n";
    let scores = "scores = { reject = 5.0, quarantine = 4.0, tag = 2.0 }\n";
    let more =
        config::listener("strict", "mx", &format!("{enforce}{scores}")) + &config::listener("relay", "relay", enforce);
    let gate = gate("", "scores = { reject = 9.0 }", "outbound = { reject = 6.0, quarantine = \"off\" }", &more);
    assert!(gate.send("bob@other.test", "nine", &[]).0, "quarantined");
    assert_eq!(gate.quarantined().len(), 1);
    let (ok, reply) = gate.send("bob@weir.test", "nine", &[]);
    assert!(!ok && reply.contains("score 9.1"), "by domain: {reply}");
    assert!(gate.explain(&reference(&reply)).contains("reject = 9 (weir.toml:"));
    let (ok, reply) = gate.send_to("strict", "bob@other.test", "six", &[]);
    assert!(!ok, "by listener: {reply}");
    let (ok, reply) = gate.send_to("relay", "bob@other.test", "six", &[]);
    assert!(!ok, "by direction: {reply}");
    let story = gate.explain(&reference(&reply));
    assert!(story.contains("outbound") && story.contains("reject = 6 (weir.toml:"), "{story}");
    let (_, metrics) = run("curl", &["-sS", &format!("http://{}/metrics", gate.weir.address("admin"))]);
    let judged = |action: &str, count: u32| {
        let line = format!("weir_filter_judged_total{{action=\"{action}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    };
    judged("reject", 3);
    judged("quarantine", 1);
}

#[test]
fn recipients_of_one_message_may_differ_and_nothing_is_lost() {
    let gate = gate("", "scores = { reject = 9.0 }", "", "");
    let (ok, reply) = gate.send("ann@weir.test,bob@other.test", "nine", &[]);
    assert!(ok, "{reply}");
    let record = gate.record(&reference(&reply));
    let parcels = record["decision"]["parcels"].as_array().unwrap();
    assert_eq!(parcels.len(), 2, "{record}");
    assert_ne!(parcels[0]["id"], parcels[1]["id"]);
    let rows = gate.quarantined();
    assert_eq!(rows.len(), 2, "refused for one, in quarantine for the other: both are kept");
    assert!(
        rows.iter().any(|row| row["reason"].as_str().unwrap().contains("not refused because of other")),
        "{rows:?}"
    );
    let (ok, _) = gate.send("ann@weir.test,bob@other.test", "twenty", &[]);
    assert!(!ok, "all would refuse");
}

/// LMTP says of each recipient what became of it (RFC 2033 §4.2).
#[test]
fn over_lmtp_each_recipient_has_its_own_answer() {
    let more = config::listener("lmtp", "lmtp", "filter = \"enforce\"");
    let gate = gate("", "scores = { reject = 9.0 }", "", &more);
    let program = "import socket, sys\n\
        s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\nf = s.makefile('rwb')\n\
        def say(line, replies=1):\n    f.write(line.encode() + b'\\r\\n'); f.flush()\n    out = []\n\
        \x20   while len(out) < replies:\n        line = f.readline().decode()\n\
        \x20       if line[3] == ' ': out.append(line)\n    return out\n\
        f.readline(); say('LHLO x'); say('MAIL FROM:<nora@shop.test>')\n\
        say('RCPT TO:<ann@weir.test>'); say('RCPT TO:<bob@other.test>'); say('DATA')\n\
        print(''.join(say('Subject: x\\r\\n\\r\\nnine\\r\\n.', 2)))";
    let said = python(program, &[&gate.weir.port("lmtp").to_string()]);
    let replies: Vec<&str> = said.lines().collect();
    assert!(replies[0].starts_with("550 5.7.1 Refused as spam (score 9.1)"), "{said}");
    assert!(replies[1].starts_with("250 2.0.0 "), "{said}");
    let rows = gate.quarantined();
    assert!(rows.len() == 1 && rows[0]["recipients"] == 1, "{rows:?}");
    let story = gate.explain(&reference(replies[1].trim()));
    assert!(story.contains("reject, so rejected") && story.contains("quarantine, so quarantined"), "{story}");
}

#[test]
fn lists_are_for_all_for_a_domain_and_for_one_recipient() {
    let more = "[[list]]\nblock = [\"@junk.test\", \"203.0.113.0/24\"]\n[[list]]\nfor = [\"other.test\"]\nblock = [\"nora@shop.test\"]\n\
        [[list]]\nfor = [\"ann@weir.test\"]\nallow = [\"127.0.0.1\", \"@shop.test\"]\n";
    let gate = gate("", "", "", more);
    let (ok, reply) = gate.send("bob@weir.test", "hello", &["--from", "x@junk.test"]);
    assert!(!ok && reply.contains("The sender is on a list of unwanted ones"), "{reply}");
    assert!(gate.explain(&reference(&reply)).contains("`@junk.test` means x@junk.test (weir.toml:"));
    assert!(!gate.send("bob@other.test", "hello", &[]).0, "the domain's list");
    assert!(gate.send("bob@weir.test", "hello", &[]).0, "is not another's");
    let (ok, reply) = gate.send("ann@weir.test", "nine", &[]);
    assert!(ok);
    let record = gate.record(&reference(&reply));
    let parcel = &record["decision"]["parcels"][0];
    assert_eq!((thousandths(&parcel["score"]), sum(&record, 0)), (-90_900, -90_900), "{record}");
    assert!(gate.mail("ann").contains("ALLOW_LISTED=-100"));
    let (ok, _) = gate.send("bob@weir.test", "hello", &["--xclient", "ADDR=203.0.113.7"]);
    assert!(!ok, "by network");
}

#[test]
fn who_is_greylisted_and_comes_again_is_let_through() {
    let gate = gate("", "", "greylist = 2.5", "[greylist]\ndelay = \"1s\"\n");
    assert!(gate.send("bob@weir.test", "hello", &[]).0, "below the score nobody waits");
    let (ok, reply) = gate.send("ann@weir.test", "three", &[]);
    assert!(!ok && reply.starts_with("451 4.7.1 "), "{reply}");
    let story = gate.explain(&reference(&reply));
    assert!(story.contains("decision     deferred: 451") && story.contains("greylist = 2.5 (weir.toml:"), "{story}");
    wait_for("the second try", || gate.send("ann@weir.test", "three", &[]).0.then_some(()));
    assert!(gate.mail("ann").contains("three"));
    assert!(!gate.send("ann@weir.test", "three", &["--from", "other@shop.test"]).0, "another sender waits");
    assert!(!gate.send("ann@weir.test", "twenty", &[]).0, "who came again is still judged");
}

#[test]
fn records_are_private_and_bounded_by_configuration() {
    use std::os::unix::fs::PermissionsExt;
    let gate = gate("", "", "", "[trace]\nrecord = \"refused\"\ncontent = \"refused\"\n");
    let (_, accepted) = gate.send("bob@weir.test", "hello", &[]);
    let (_, refused) = gate.send("bob@weir.test", "twenty", &[]);
    gate.explain(&reference(&refused));
    assert!(!gate.weir.cli(&["explain", &reference(&accepted)]).status.success());
    let folder = gate.weir.path().join("data/trace");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let mut kinds = Vec::new();
    let door = folder.join("door");
    assert_eq!(fs::metadata(&door).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&door).unwrap().count(), 0, "nothing was refused before DATA");
    for entry in fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.path() != door) {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
        kinds.push((entry.path().extension().unwrap().to_owned(), text.contains("Subject:")));
    }
    kinds.sort();
    assert_eq!(kinds, [("jsonl".into(), false), ("mail".into(), true)], "content stands beside the records only");
    let (_, metrics) = run("curl", &["-sS", &format!("http://{}/metrics", gate.weir.address("admin"))]);
    assert!(metrics.contains("weir_trace_written_total 1"), "{metrics}");
    drop(gate.rules);
}

#[test]
fn a_release_delivers_the_stored_bytes_and_teaches() {
    let gate = gate("", "", "", "");
    let (ok, reply) = gate.send("bob@weir.test", "nine", &[]);
    assert!(ok);
    let id = reference(&reply);
    assert!(gate.weir.ok(&["quarantine", "show", &id]).contains("score 9.1 of 5: W_NINE"));
    assert!(gate.weir.ok(&["quarantine", "show", &id, "--content"]).contains("nine"));
    let listed = |filter: &[&str]| gate.weir.ok(&[&["quarantine", "list"], filter].concat()).contains(&id);
    assert!(listed(&["--sender", "@shop.test"]) && !listed(&["--sender", "@club.test"]));
    assert_eq!(gate.weir.ok(&["quarantine", "release", &id, "--learn"]).trim(), "1 item, 1 learned");
    assert!(gate.mail("bob").contains("nine"));
    let story = wait_for("the later acts", || Some(gate.explain(&id)).filter(|story| story.contains("taught ham")));
    assert!(story.contains("later        released, "), "{story}");
    let (_, reply) = gate.send("ann@weir.test", "nine", &[]);
    gate.explain(&reference(&reply));
    assert_eq!(gate.weir.ok(&["quarantine", "drop", "--all", "--learn"]).trim(), "1 item, 1 learned");
    let ledger: Value = serde_json::from_str(&gate.weir.ok(&["rules", "ledger", "--json"])).unwrap();
    let nine = &ledger["rules"]["W_NINE"];
    assert_eq!((&nine["hits"], &nine["deciding"], &nine["released"]), (&2.into(), &2.into(), &1.into()), "{ledger}");
    let shadow = &ledger["rules"]["W_SHADOW"];
    assert_eq!((&shadow["hits"], &shadow["deciding"]), (&2.into(), &0.into()), "{ledger}");
    assert!(ledger["micros"]["W_NINE"].is_number(), "{ledger}");
}

#[test]
fn a_replay_says_what_would_change_and_says_it_again() {
    let gate = gate("", "", "", "[trace]\ncontent = \"refused\"\n");
    for body in ["three", "six minus", "nine", "twenty", "twenty three"] {
        let (_, reply) = gate.send("bob@weir.test", body, &[]);
        gate.explain(&reference(&reply));
    }
    let replay = |arguments: &[&str]| gate.weir.ok(&[&["replay", "--since", "1h"], arguments].concat());
    let same = replay(&[]);
    assert!(same.contains("5 decisions: 3 judged again whole, 2 only weighed again"), "{same}");
    assert!(
        same.contains("newly rejected: 0\nnewly accepted: 0\notherwise treated: 0\nscores: 0 higher, 0 lower"),
        "{same}"
    );
    let strict = replay(&["--set", "reject=9", "--set", "tag=2"]);
    assert!(strict.contains("newly rejected: 1\n") && strict.contains("quarantine 9.1 -> reject 9.1"), "{strict}");
    assert!(strict.contains("otherwise treated: 1\n") && strict.contains("accept 3 -> tag 3 (weighed)"), "{strict}");
    assert_eq!(replay(&["--set", "reject=9", "--set", "tag=2"]), strict, "the same twice");
    let lax = replay(&["--set", "reject=off", "--set", "quarantine=off"]);
    assert!(lax.contains("newly accepted: 3\n"), "{lax}");
    let rules = support::folder();
    let heavier =
        RULES.replace("score W_THREE 3", "score W_THREE 16").replace("body W_TWENTY /twenty/", "body W_TWENTY /never/");
    fs::write(rules.path().join("words.cf"), heavier).unwrap();
    let new = replay(&["--rules", &rules.path().display().to_string()]);
    assert!(new.contains("newly rejected: 1\n") && new.contains("W_THREE 3 -> 16"), "{new}");
    assert!(new.contains("newly accepted: 1\n") && new.contains("W_TWENTY 20 -> -"), "{new}");
    let cost = gate.weir.cli(&["replay", "--since", "1h"]).stderr;
    let cost = String::from_utf8_lossy(&cost);
    assert!(cost.contains("cost: ") && cost.contains(" µs a message then, "), "{cost}");
    assert!(!gate.weir.cli(&["replay", "--set", "explode=1"]).status.success());
}

#[test]
fn a_replay_counts_copies_as_they_were_counted_then() {
    let gate = gate("", "", "", "[trace]\ncontent = \"judged\"\n");
    let rules = "\nheader __SEEN eval:check_symbol('BULK_SEEN_2')\nmeta W_COPY __SEEN\nscore W_COPY 2.5\n\
                 header BULK_SEEN_2 eval:check_symbol('BULK_SEEN_2')\nscore BULK_SEEN_2 0.25\n";
    fs::write(gate.rules.path().join("copies.cf"), rules).unwrap();
    gate.weir.ok(&["reload"]);
    let letter = "Your parcel could not be delivered today because the address is not complete. Please open the page below \
        within two days, confirm the street and the house number, and pay the fee for the second delivery.";
    let records: Vec<Value> = (0..4)
        .map(|_| {
            let (_, reply) = gate.send("bob@weir.test", letter, &[]);
            gate.record(&reference(&reply))
        })
        .collect();
    let points = |record: &Value| record["decision"]["parcels"][0]["score"].as_f64();
    assert_eq!((points(&records[0]), points(&records[3])), (Some(0.0), Some(2.75)), "{}", records[3]);
    let said = gate.weir.ok(&["replay", "--since", "1h"]);
    assert!(said.contains("4 decisions: 4 judged again whole"), "{said}");
    assert!(said.contains("scores: 0 higher, 0 lower, 0 on average"), "{said}");
}

#[test]
fn who_sent_it_is_seen_by_rules_and_metas() {
    use weir::config::Config;
    use weir::filter::{Engine, Facts, Judge, Points, Symbol};
    let folder = tempfile::tempdir().unwrap();
    let rules = "meta SPOOFED SPF_FAIL && !DKIM_VALID && DMARC_REJECT\nscore SPOOFED 7\nscore SPF_FAIL 2.5\n";
    fs::write(folder.path().join("a.cf"), rules).unwrap();
    let mut filter = Config::default_for(std::path::Path::new("/nonexistent")).filter;
    filter.rules = vec![folder.path().to_owned()];
    let engine = Engine::open(&filter, None).unwrap();
    let symbol = |name: &str| {
        Symbol::new(Judge::Identity, name, Points::default(), "of shop.test").because("\"v=spf1 -all\" (TXT shop.test)")
    };
    let judge = |names: &[&str]| {
        let facts = Facts { symbols: names.iter().map(|name| symbol(name)).collect(), ..Facts::default() };
        engine.judge_again(b"Subject: x\r\n\r\nhello\r\n", &facts, Vec::new())
    };
    let verdict = judge(&["SPF_FAIL", "DMARC_REJECT"]);
    assert_eq!(verdict.score.to_string(), "9.5", "{:?}", verdict.symbols);
    let fail = verdict.symbols.iter().find(|symbol| symbol.name == "SPF_FAIL").unwrap();
    assert!(fail.evidence.as_ref().unwrap().contains("v=spf1 -all"), "{fail:?}");
    assert_eq!(verdict.symbols.iter().filter(|symbol| symbol.name == "SPF_FAIL").count(), 1);
    assert!(verdict.has("DMARC_REJECT"), "without points it is still shown");
    assert_eq!(judge(&["SPF_FAIL", "DMARC_REJECT", "DKIM_VALID"]).score.to_string(), "2.5");
}

proptest::proptest! {
    #[test]
    fn the_header_adds_up_to_what_it_says(
        points in proptest::collection::vec((-30_000i32..30_000, proptest::bool::ANY), 0..40),
        more in proptest::collection::vec(-100_000i32..100_000, 0..3),
    ) {
        use weir::filter::{Judge, Points, Symbol, Thresholds, Verdict};
        let symbol = |place: usize, points: i32, shadow: bool| {
            let points = Points::new(f64::from(points) / 1000.0);
            Symbol { shadow, ..Symbol::new(Judge::Rule, format!("R{place}"), points, "") }
        };
        let config = weir::config::Config::default_for(std::path::Path::new("/nonexistent"));
        let thresholds = Thresholds::from(&config.filter.scores);
        let symbols = points.iter().enumerate().map(|(place, (points, shadow))| symbol(place, *points, *shadow)).collect();
        let own = more.iter().enumerate().map(|(place, points)| symbol(100 + place, *points, false));
        let verdict = Verdict::new(symbols, thresholds, None).under(thresholds, own);
        let header = verdict.header_fields().replace("\r\n\t", " ");
        let status = header.lines().find(|line| line.starts_with("X-Spam-Status")).unwrap();
        let said: f64 = status.split("score=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let tests = status.split("tests=").nth(1).unwrap().split(", ").filter(|test| *test != "none");
        let sum: i64 = tests.map(|test| (test.rsplit('=').next().unwrap().parse::<f64>().unwrap() * 1000.0).round() as i64).sum();
        proptest::prop_assert_eq!(sum, (said * 1000.0).round() as i64);
    }
}
