//! Debian's rules hit here as they hit in SpamAssassin itself.
//!
//! `WEIR_PARITY_MAIL=FOLDER cargo test --release --test filter same_hits -- --nocapture` compares on other mail and prints what differs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use weir::filter::Facts;
use weir::filter::budget::Budget;
use weir::filter::message::View;
use weir::filter::rules::{Rules, Source};

use super::root;

const RULES: &str = "/usr/share/spamassassin";
/// Share of all hits that both must have.
const AGREEMENT_MIN: f64 = 0.99;

/// Rules that are not compared, and why; tests/vectors/FILTER.md explains what else differs.
const EXPLAINED: [(&str, &str); 2] = [
    (
        "__FILL_THIS_FORM_FRAUD_PHISH1",
        "defined twice: SpamAssassin mixes the pattern of one with the kind of the other",
    ),
    ("__RDNS_NUMERIC_TLD", "a Received field of a program that neither knows"),
];

#[derive(Default)]
struct Tally {
    both: usize,
    ours: BTreeMap<String, Vec<String>>,
    theirs: BTreeMap<String, Vec<String>>,
}

impl Tally {
    fn differences(&self) -> usize {
        self.ours.values().chain(self.theirs.values()).map(Vec::len).sum()
    }

    fn agreement(&self) -> f64 {
        self.both as f64 / (self.both + self.differences()) as f64
    }

    fn add(&mut self, message: &str, ours: &BTreeSet<String>, theirs: &BTreeSet<String>) {
        self.both += ours.intersection(theirs).count();
        for (only, into) in [(ours.difference(theirs), &mut self.ours), (theirs.difference(ours), &mut self.theirs)] {
            only.for_each(|rule| into.entry(rule.clone()).or_default().push(message.to_owned()));
        }
    }

    fn print(&self) {
        println!("{} hits of both, {} of one: {:.4}", self.both, self.differences(), self.agreement());
        for (word, side) in [("only here", &self.ours), ("only there", &self.theirs)] {
            let mut rows: Vec<_> = side.iter().collect();
            rows.sort_by_key(|(_, messages)| std::cmp::Reverse(messages.len()));
            for (rule, messages) in rows {
                println!("{:5} {word} {rule} {}", messages.len(), messages[..messages.len().min(3)].join(" "));
            }
        }
    }
}

#[test]
fn same_hits_as_spamassassin() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let files = match std::env::var_os("WEIR_PARITY_MAIL") {
        Some(mail) => {
            fs::read_dir(mail).expect("the folder is there").map(|file| file.expect("readable").path()).collect()
        }
        None => own_mail(folder.path()),
    };
    assert!(files.len() > 50, "{} messages", files.len());
    let rules = Rules::load(Source::read(&[PathBuf::from(RULES)]));
    let explained: HashSet<&str> = EXPLAINED.iter().map(|(rule, _)| *rule).collect();
    let compared: HashSet<&str> = rules.names_loaded().filter(|name| !explained.contains(name)).collect();
    let mut tally = Tally::default();
    for (file, theirs) in ask_spamassassin(&files) {
        let raw = fs::read(&file).expect("the message can be read");
        let hits = rules.run_all(&View::read(&raw), &Facts::default(), &mut Budget::default());
        let ours = hits.into_iter().map(|hit| rules.rules[hit.rule].name.clone());
        let keep =
            |names: &mut dyn Iterator<Item = String>| names.filter(|name| compared.contains(name.as_str())).collect();
        tally.add(&file, &keep(&mut ours.into_iter()), &keep(&mut theirs.into_iter()));
    }
    tally.print();
    assert!(tally.both > 2_000, "{} hits were compared", tally.both);
    assert!(tally.agreement() >= AGREEMENT_MIN, "{:.4}", tally.agreement());
}

/// How mail comes in: Received fields as several programs write them.
const WAYS: [&str; 7] = [
    "Received: from mail.sender.example.com (mail.sender.example.com [192.0.2.9])\n\tby mx.here.example.com (Postfix) with ESMTPS id 4Xq7Fz0;\n\tTue, 14 Nov 2023 22:13:20 +0000 (UTC)\n",
    "Received: from friend (IDENT:me@pool-9.isp.example.com [192.0.2.10]) by mx.here.example.com (8.11.6/8.11.6) with ESMTP id fAE1; Tue, 14 Nov 2023 22:13:20 GMT\n",
    "Received: from [192.0.2.11] (helo=localhost.localdomain) by mx.here.example.com with esmtp (Exim 4.94) (envelope-from <bounce@list.example.com>) id 1r31; Tue, 14 Nov 2023 22:13:20 +0000\n",
    "Received: from unknown (HELO yahoo.com) (192.0.2.12) by mx.here.example.com with SMTP; 14 Nov 2023 22:13:20 -0000\nReceived: (qmail 27981 invoked by uid 225); 14 Nov 2023 22:13:10 -0000\n",
    "Received: from EX1.sender.example.com (2001:db8::9) by EX2.here.example.com (2001:db8::1) with Microsoft SMTP Server (version=TLS1_2, cipher=X) id 15.1.2; Tue, 14 Nov 2023 22:13:20 +0000\nReceived: from pc ([192.0.2.13]) by EX1.sender.example.com with Microsoft SMTPSVC(6.0.3790); Tue, 14 Nov 2023 22:13:18 +0000\n",
    "Received: from gate.here.example.com (localhost [127.0.0.1]) by mx.here.example.com (Postfix) with ESMTP id 7; Tue, 14 Nov 2023 22:13:21 +0000\nReceived: from mail-pl1-f193.google.com (mail-pl1-f193.google.com [192.0.2.14]) by gate.here.example.com (Postfix) with ESMTPSA id 8; Tue, 14 Nov 2023 22:13:20 +0000\n",
    "",
];

/// What it says: header fields and body.
const LETTERS: [&str; 12] = [
    "From: \"Mr. John Banker\" <john@gmail.com>\nReply-To: other77@yahoo.com\nTo: undisclosed-recipients:;\nSubject: CONFIDENTIAL BUSINESS PROPOSAL\nX-Priority: 1\n\nDear friend,\n\nI am a barrister. The sum of $15,500,000 (fifteen million dollars) was left\nby my late client. You will receive 40% for your assistance.\n\nContact me at john.banker@hotmail.com with your full name and bank account.\n",
    "From: news@shop.example.com\nTo: Ann <ann@here.example.com>\nSubject: Sale\nMIME-Version: 1.0\nContent-Type: text/html; charset=utf-8\n\n<html><head><title>Sale now</title></head><body bgcolor=white><center><a href=\"http://shop.example.com/buy?id=1\"><img src=\"http://img.example.com/a.gif\" width=600 height=\"50%\"></a></center><p><font color=\"#fefefe\" size=1>random words here</font><p>Click <a href=\"http://shop.example.com/unsubscribe\">here</a> to unsubscribe.</body></html>\n",
    "From: Ann Example <ann@sender.example.com>\nTo: bob@here.example.com, carl@here.example.com\nCc: dora@here.example.com\nSubject: Re: [list] a patch\nIn-Reply-To: <1@here.example.com>\nReferences: <1@here.example.com>\nUser-Agent: Mutt/1.5.21\n\nOn Monday Bob wrote:\n> Does it work?\n\nYes, see http://git.example.com/x.git and lib.c; mail bob@here.example.com.\n-- \nAnn\n",
    "From: \"Bank\" <security@bank.example.com>\nTo: ann@here.example.com\nSubject: =?UTF-8?B?WW91ciBhY2NvdW50IGlzIGxpbWl0ZWQ=?=\nMIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=\"b1\"\n\n--b1\nContent-Type: text/plain; charset=us-ascii\n\nPlease verify your account.\n\n--b1\nContent-Type: text/html; charset=us-ascii\n\n<html><body><p>Please <a href=\"http://192.0.2.77/login.php\">https://bank.example.com/</a> verify your password.</p></body></html>\n\n--b1--\n",
    "From: info@sender.example.com\nTo: info@here.example.com\nSubject: Invoice 4711\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"----=_NextPart_000_0007\"\n\n------=_NextPart_000_0007\nContent-Type: text/plain\nContent-Transfer-Encoding: base64\n\nU2VlIHRoZSBhdHRhY2hlZCBpbnZvaWNlLiBUaGFuayB5b3UuCg==\n------=_NextPart_000_0007\nContent-Type: application/octet-stream; name=\"invoice.pdf.exe\"\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment; filename=\"invoice.pdf.exe\"\n\nTVqQAAMAAAAEAAAA\n------=_NextPart_000_0007--\n",
    "From: =?iso-8859-1?Q?Jos=E9?= <jose@sender.example.com>\nTo: ann@here.example.com\nSubject: =?iso-8859-1?Q?Caf=E9_am_Montag?=\nMIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nGr=FC=DFe aus M=FCnchen, bis =4D=6F=6E=74=61=67 im Caf=E9. Das ist eine lange Zeile, die umbrochen =\nwerden mu=DF.\n",
    "From: offers@pills.example.com\nTo: ann@here.example.com\nSubject: CHEAP MEDS ONLINE!!! SAVE 80% NOW\n\nVIAGRA CIALIS LOWEST PRICES ANYWHERE!!!\nNO PRESCRIPTION NEEDED. 100% MONEY BACK GUARANTEE. ORDER NOW AND SAVE BIG WITH US TODAY, FRIEND.\nTHIS IS A LIMITED TIME OFFER, SO ACT NOW AND CLICK BELOW TO GET YOUR DISCOUNT TODAY.\n\nwww.pills.example.com/order\n",
    "From: a@b.example.com\nSubject:\n\nhi\n",
    "From: =?utf-8?B?0JDQvdC90LA=?= <anna@sender.example.com>\nTo: ann@here.example.com\nSubject: =?utf-8?B?0J/RgNC40LLQtdGC?=\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nПривет, как дела? Смотри http://пример.example.com/ и ответь мне, пожалуйста.\n",
    "From: \"Lottery Board\" <win@lotto.example.com>\nTo: ann@here.example.com\nSubject: You have WON 1,000,000 EUR\nList-Unsubscribe: <mailto:leave-x@lotto.example.com>\nPrecedence: bulk\nX-Mailer: Microsoft Outlook Express 6.00.2900\nMessage-ID: <000a01c3abcd$12345678$9abcdef0@host>\n\nYour email address was drawn as the winner of the lottery. To claim your prize\nfill in this form:\n\nFull name: ________\nAddress: ________\nPhone number: ________\nAge: ____\n",
    "From: coin@extort.example.com\nTo: ann@here.example.com\nSubject: ann : hunter2\n\nI know hunter2 is your password. I installed malware on the porn site you visited and recorded\nyou with your webcam. Send $900 in Bitcoin to 1BoatSLRHtKNngkdXEeobR76b53LETtpyT within 48 hours.\n",
    "From: img@spam.example.com\nTo: ann@here.example.com\nSubject: Fwd: picture\nMIME-Version: 1.0\nContent-Type: multipart/related; boundary=rel\n\n--rel\nContent-Type: text/html\n\n<html><body><div style=\"display:none\">lorem ipsum dolor sit amet</div><img src=\"cid:1\"><br><!-- x --></body></html>\n--rel\nContent-Type: image/gif; name=a.gif\nContent-ID: <1>\nContent-Transfer-Encoding: base64\n\nR0lGODlhWAKQAfAAAP///wAAACH5BAAAAAAALAAAAAABAAEAAAICRAEAOw==\n--rel--\n",
];

/// The demo's mail, and every letter on every way.
fn own_mail(folder: &Path) -> Vec<PathBuf> {
    let demo = fs::read_dir(root().join("src/cli/demo/mail")).expect("the demo's mail is there").flatten();
    let mut files: Vec<PathBuf> = demo.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    for (place, way) in WAYS.iter().enumerate() {
        for (number, letter) in LETTERS.iter().enumerate() {
            let file = folder.join(format!("way{place}-letter{number}.eml"));
            let date = "Date: Tue, 14 Nov 2023 22:13:00 +0000\n";
            fs::write(&file, format!("{way}{date}{letter}")).expect("own folder");
            files.push(file);
        }
    }
    files
}

/// What SpamAssassin says about each.
fn ask_spamassassin(files: &[PathBuf]) -> Vec<(String, Vec<String>)> {
    let mut child = Command::new("perl")
        .arg(root().join("tests/peers/spamassassin_hits.pl"))
        .arg(RULES)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("perl is installed");
    let mut stdin = child.stdin.take().expect("it was asked for");
    let names: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    // It reads all names before it has written much: a pipe holds them.
    let writer = std::thread::spawn(move || stdin.write_all(names.as_bytes()));
    let out = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends").expect("it reads its names");
    assert!(out.status.success(), "SpamAssassin is installed and runs");
    let text = String::from_utf8(out.stdout).expect("names are ASCII");
    let line = |line: &str| {
        let (file, rules) = line.split_once('\t').expect("a file and its rules");
        (file.to_owned(), rules.split(' ').filter(|rule| !rule.is_empty()).map(str::to_owned).collect())
    };
    text.lines().map(line).collect()
}
