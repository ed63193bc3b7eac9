//! ESMTP extensions from one end of a live gateway to the other: what was asked for at the front arrives at the next hop, or the
//! sender is told why not. SNI (RFC 6066), DSN (RFC 3461), BINARYMIME (RFC 3030), REQUIRETLS (RFC 8689), LIMITS (RFC 9422).
#![allow(clippy::unwrap_used)] // Helpers of tests, too.

#[path = "support/hop.rs"]
mod hop;
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;

use hop::{Client, Hop, Manner};
use support::config::{domain, head, listener};
use support::{Peer, Weir, python, wait_for};

/// Mail for here.test goes into a Maildir.
fn base() -> String {
    head("mx.example.test")
        + "[retry]\nfirst = \"1s\"\nmax = \"1s\"\n"
        + &listener("mx", "mx", "tls = \"starttls\"\nrecipients = 7")
        + &domain("here.test", "maildir:DIR/box")
}

/// A gateway that delivers `*.test` to these next hops.
fn start(hops: &[(&str, &str, &Hop)]) -> Weir {
    let mut config = base();
    for (name, scheme, hop) in hops {
        config.push_str(&domain(name, &format!("{scheme}://127.0.0.1:{}", hop.port)));
    }
    Weir::start(&config)
}

/// Waits for the messages in the senders' mailbox.
fn reports(folder: &Path, count: usize) -> Vec<String> {
    wait_for("reports to the sender", || {
        let entries = fs::read_dir(folder.join("box/new")).into_iter().flatten();
        let texts: Vec<String> = entries.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
        (texts.len() >= count).then_some(texts)
    })
}

fn ready(weir: &Weir) -> (Client, String) {
    let mut client = Client::connect(&weir.address("mx"));
    let offers = client.command("EHLO client.test");
    (client, offers)
}

#[test]
fn dsn_parameters_reach_the_next_hop_and_where_they_cannot_the_sender_hears() {
    let (smtp, lmtp) = (Hop::start(Manner::Good, &["DSN"]), Hop::start(Manner::Good, &["DSN", "PIPELINING"]));
    let plain = Hop::start(Manner::Good, &[]);
    let weir = start(&[("smtp.test", "smtp", &smtp), ("lmtp.test", "lmtp", &lmtp), ("plain.test", "smtp", &plain)]);
    let (mut client, offers) = ready(&weir);
    assert!(offers.contains("DSN") && offers.contains("LIMITS MAILMAX=10000 RCPTMAX=7"), "{offers}");
    for domain in ["smtp.test", "lmtp.test", "plain.test"] {
        assert!(client.command("MAIL FROM:<a@here.test> RET=HDRS ENVID=id+2B1").starts_with("250"));
        let rcpt = format!("RCPT TO:<u@{domain}> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;U+2B@{domain}");
        assert!(client.command(&rcpt).starts_with("250"));
        client.command("DATA");
        assert!(client.command("Subject: dsn\r\n\r\nSECRET\r\n.").starts_with("250"));
    }
    for (hop, domain) in [(&smtp, "smtp.test"), (&lmtp, "lmtp.test")] {
        wait_for("the mail", || (hop.count() == 1).then_some(()));
        let envelope = hop.all()[0].envelope.join("|");
        assert!(envelope.contains(" RET=HDRS ENVID=id+2B1|"), "{envelope}");
        assert!(envelope.contains(&format!(" NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;U+2B@{domain}")), "{envelope}");
    }
    // A hop without DSN can't report: we do, as relayed, with the header only (RFC 3461 §5.2.2). By LMTP it is delivered.
    let report = reports(weir.path(), 2).concat();
    assert!(report.contains("Action: relayed") && report.contains("Original-Envelope-Id: id+1"), "{report}");
    assert!(report.contains("u@plain.test") && !report.contains("SECRET"), "{report}");
}

/// RFC 3030 with BDAT in two chunks and an empty last one.
fn send_binary(client: &mut Client, to: &str, content: &[u8]) {
    assert!(client.command("MAIL FROM:<a@here.test> BODY=BINARYMIME").starts_with("250"));
    assert!(client.command(&format!("RCPT TO:<{to}>")).starts_with("250"));
    client.send(b"BDAT 20\r\n");
    client.send(&content[..20]);
    assert!(client.reply().starts_with("250"));
    client.send(format!("BDAT {}\r\n", content.len() - 20));
    client.send(&content[20..]);
    assert!(client.reply().starts_with("250"));
    assert!(client.command("BDAT 0 LAST").starts_with("250"));
}

/// A multipart with a text of bare line feeds and every byte there is.
fn binary_mail(media: &str) -> Vec<u8> {
    let head = |media: &str| format!("Content-Type: {media}\r\nContent-Transfer-Encoding: binary\r\n\r\n");
    let all: Vec<u8> = (0..=255).collect();
    let top = format!("Subject: binary\r\nMIME-Version: 1.0\r\n{}", head(&format!("{media}; boundary=b1")));
    let text = format!("--b1\r\n{}one\ntwo = 2\n.\nä\r", head("text/plain; charset=utf-8"));
    let data = format!("\r\n--b1\r\n{}", head("application/octet-stream"));
    [top.as_bytes(), text.as_bytes(), data.as_bytes(), &all, b"\n.\r\n.\r\n", b"\r\n--b1--\r\n"].concat()
}

#[test]
fn binary_content_goes_on_as_it_is_or_comes_back() {
    let binary = Hop::start(Manner::Good, &["CHUNKING", "BINARYMIME", "8BITMIME"]);
    let chunking = Hop::start(Manner::Good, &["CHUNKING"]);
    let weir = start(&[("binary.test", "smtp", &binary), ("chunking.test", "smtp", &chunking)]);
    let (mut client, offers) = ready(&weir);
    assert!(offers.contains("BINARYMIME") && offers.contains("CHUNKING"), "{offers}");
    let content = binary_mail("multipart/signed");
    send_binary(&mut client, "u@binary.test", &content);
    send_binary(&mut client, "u@chunking.test", &content);
    wait_for("the mail", || (binary.count() == 1).then_some(()));
    let taken = binary.all().remove(0);
    assert!(taken.envelope.join("|").contains("BODY=BINARYMIME"));
    assert!(taken.content.ends_with(&content), "{}", taken.text());
    let report = reports(weir.path(), 1).concat();
    assert!(report.contains("Action: failed") && report.contains("Status: 5.6.3"), "{report}");
    assert_eq!(chunking.count(), 0, "what is signed can't be converted");
    // Where nobody converts, it comes back too.
    let config = base() + "[deliver]\neight_bit = \"bounce\"\n";
    let weir = Weir::start(&(config + &domain("chunking.test", &format!("smtp://127.0.0.1:{}", chunking.port))));
    send_binary(&mut ready(&weir).0, "u@chunking.test", &binary_mail("multipart/mixed"));
    let report = reports(weir.path(), 1).concat();
    assert!(report.contains("Status: 5.6.3") && report.contains("BINARYMIME"), "{report}");
}

/// RFC 3030 §3, with a Postfix as it is and one that takes 7 bits only; both pass on what they get.
#[test]
fn binary_content_becomes_lines_where_no_binary_is_taken() {
    let mail = binary_mail("multipart/mixed");
    for (discarded, label) in [("", "8bit"), ("smtpd_discard_ehlo_keywords=8bitmime,chunking", "7bit")] {
        let end = Hop::start(Manner::Good, &["8BITMIME"]);
        let relay = format!("127.0.0.1:{}", end.port);
        let postfix = Peer::start("postfix", &[("RELAY", &relay), ("EXTRA", discarded)]);
        let weir = Weir::start(&(base() + &domain("example.test", &format!("smtp://{}", postfix.value("SMTP")))));
        send_binary(&mut ready(&weir).0, "u@example.test", &mail);
        wait_for("the mail", || (end.count() == 1).then_some(()));
        let taken = end.all().remove(0);
        let bare = taken.text().replace("\r\n", "");
        assert!(!bare.contains(['\r', '\n', '\0']) && !taken.text().contains("binary\r\n\r\n"), "{}", taken.text());
        assert!(
            taken.text().contains(&format!("boundary=b1\r\nContent-Transfer-Encoding: {label}\r\n")),
            "{}",
            taken.text()
        );
        assert_eq!(leaves(weir.path(), &taken.content), leaves(weir.path(), &mail));
    }
}

const LEAVES: &str = "import sys, email\n\
    for leaf in email.message_from_bytes(open(sys.argv[1], 'rb').read()).walk():\n\
    \x20   if not leaf.is_multipart(): print(leaf.get_content_type(), leaf.get_payload(decode=True))";

/// What Python's email reads in each part of a message.
fn leaves(folder: &Path, content: &[u8]) -> String {
    let file = folder.join("mail.eml");
    fs::write(&file, content).unwrap();
    python(LEAVES, &[&file.display().to_string()])
}

/// RFC 6152 §3, with a Postfix that does not offer 8BITMIME.
#[test]
fn eight_bit_content_goes_in_seven_bits_where_no_others_are_taken() {
    let end = Hop::start(Manner::Good, &["8BITMIME"]);
    let relay = format!("127.0.0.1:{}", end.port);
    let keywords = "smtpd_discard_ehlo_keywords=8bitmime,chunking,smtputf8";
    let postfix = Peer::start("postfix", &[("RELAY", &relay), ("EXTRA", keywords)]);
    let weir = Weir::start(&(base() + &domain("example.test", &format!("smtp://{}", postfix.value("SMTP")))));
    let (mut client, _) = ready(&weir);
    let head = |media: &str| format!("Content-Type: {media}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n");
    let long = "äöü ".repeat(100);
    let mail = |media: &str| {
        format!(
            "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/{media}; boundary=b1\r\n\r\n--b1\r\n\
             {}Grüße = von \r\n.\r\n..{long}\r\n\r\n--b1\r\n{}ÄÖÜ\r\n--b1--\r\n",
            head("text/plain; charset=utf-8"),
            head("application/octet-stream")
        )
    };
    let mut send = |media: &str| {
        assert!(client.command("MAIL FROM:<a@here.test> BODY=8BITMIME").starts_with("250"));
        assert!(client.command("RCPT TO:<u@example.test>").starts_with("250"));
        client.command("DATA");
        let stuffed = mail(media).replace("\r\n.", "\r\n..");
        assert!(client.command(&format!("{stuffed}.")).starts_with("250"));
    };
    send("mixed");
    wait_for("the mail", || (end.count() == 1).then_some(()));
    let taken = end.all().remove(0);
    assert!(taken.content.is_ascii() && taken.text().contains("Gr=C3=BC=C3=9Fe =3D von=20\r\n"), "{}", taken.text());
    assert!(taken.text().lines().all(|line| line.len() <= 200), "{}", taken.text());
    assert_eq!(leaves(weir.path(), &taken.content), leaves(weir.path(), mail("mixed").as_bytes()));
    // What is signed would be broken: it comes back.
    send("signed");
    let report = reports(weir.path(), 1).concat();
    assert!(report.contains("Action: failed") && report.contains("Status: 5.6.3"), "{report}");
    assert_eq!(end.count(), 1);
}

#[test]
fn a_message_that_requires_tls_never_leaves_without() {
    let hop = Hop::start(Manner::Good, &["PIPELINING"]);
    let weir = start(&[("far.test", "smtp", &hop)]);
    let (mut client, offers) = ready(&weir);
    assert!(!offers.contains("REQUIRETLS"), "not offered in the clear: {offers}");
    assert!(client.command("MAIL FROM:<a@here.test> REQUIRETLS").starts_with('5'));
    python(
        r#"
import smtplib, ssl, sys
s = smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=30)
s.starttls(context=ssl._create_unverified_context()); s.ehlo("client.test")
assert s.has_extn("requiretls")
s.sendmail("a@here.test", ["u@far.test"], "Subject: tls\r\n\r\nx\r\n", mail_options=["REQUIRETLS"]); s.quit()
"#,
        &[&weir.port("mx").to_string()],
    );
    let report = reports(weir.path(), 1).concat();
    assert!(report.contains("5.7.10") && report.contains("TLS is required"), "{report}");
    assert_eq!(hop.count(), 0);
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let keys = support::folder();
    let mut config = base();
    for (table, name) in [("[tls]", "mx.example.test"), ("[[tls.also]]", "mx.other.test")] {
        let [certificate, key] = ["pem", "key"].map(|end| format!("{}/{name}.{end}", keys.path().display()));
        let subject = [format!("/CN={name}"), format!("subjectAltName=DNS:{name}")];
        let (made, said) = support::run(
            "openssl",
            &[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
                "-subj",
                &subject[0],
                "-addext",
                &subject[1],
                "-out",
                &certificate,
                "-keyout",
                &key,
            ],
        );
        assert!(made, "{said}");
        config.push_str(&format!("{table}\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n"));
    }
    let weir = Weir::start(&config);
    let presented = |asked: &str| {
        python(
            r#"
import smtplib, socket, ssl, subprocess, sys
host, port = sys.argv[1].rsplit(":", 1)
s = smtplib.SMTP(host, int(port)); s.ehlo("client.test"); s.docmd("STARTTLS")
context = ssl._create_unverified_context()
t = context.wrap_socket(s.sock, server_hostname=sys.argv[2] or None)
der = t.getpeercert(binary_form=True)
print(subprocess.run(["openssl", "x509", "-inform", "der", "-noout", "-subject"], input=der, capture_output=True).stdout.decode())
"#,
            &[&weir.address("mx"), asked],
        )
    };
    assert!(presented("").contains("mx.example.test"), "{}", presented(""));
    assert!(presented("mx.other.test").contains("mx.other.test"), "{}", presented("mx.other.test"));
    assert!(presented("unknown.test").contains("mx.example.test"), "{}", presented("unknown.test"));
}
