//! Every parser of ours that reads bytes from outside, as a function of bytes. Each must come to an end without a panic, and
//! where a value can be written again, writing and reading must agree. I/O: `model` writes one temporary file.
#![allow(clippy::unwrap_used)] // A program for tests.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use weir::base::content::{Content, ContentSource};
use weir::base::machine::Machine;
use weir::base::secret::Secret;
use weir::config::Config;
use weir::config::settings::{DeliverTls, Duplicates, NextHop};
use weir::deliver::mta_sts::policy::Policy;
use weir::filter::duplicates::{self, Digest, store::Store};
use weir::filter::engine::Facts;
use weir::filter::message::View;
use weir::filter::rules::{Rules, source::Source};
use weir::filter::{attachment, classifier};
use weir::smtp::client::Protocol;
use weir::smtp::client::handshake::{Handshake, HandshakeOptions, Next};
use weir::smtp::client::reply::ReplyReader;
use weir::smtp::server::ask::{Answer, Ask};
use weir::smtp::server::session::Session;
use weir::smtp::server::settings::SessionSettings;
use weir::verify::arc::chain;
use weir::verify::dkim::canonical::{hash_body, write_field};
use weir::verify::dkim::key::KeyRecord;
use weir::verify::dkim::signature::{Canonicalization, Kind, Signature};
use weir::verify::spf::macros::{MacroString, Use, Values};
use weir::verify::{Message, author, authres, dmarc, hops, reports, spf, tags};
use weir::wire::address::Mailbox;
use weir::wire::command::Command;
use weir::wire::header::{HeaderFacts, fields, forged_fields, kept_parts};
use weir::wire::milter::{self, Response};
use weir::wire::{checkv2, clamd, data, parameters, sasl, spamd, srs, xtext};
use weir::{admin, front, spool, store};

/// One of them.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Reads any bytes.
    pub run: fn(&[u8]),
    /// What mutation begins with.
    pub seeds: &'static [&'static [u8]],
}

macro_rules! targets {
    ($($name:ident [$($seed:expr),* $(,)?])*) => {
        /// All of them.
        pub const ALL: &[Target] = &[$(Target { name: stringify!($name), run: $name, seeds: &[$($seed),*] }),*];
    };
}

targets! {
    admin_query [b"user=a%40b.example&limit=10"]
    arc_chain [
        b"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=x.example; s=s; b=AA==\r\nARC-Message-Signature: i=1; a=rsa-sha256; \
          d=x.example; s=s; h=from; bh=AA==; b=AA==\r\nARC-Authentication-Results: i=1; x; dmarc=pass\r\n\r\n",
    ]
    archive [
        ZIP,
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03KL\x04\x00\x9f\x1e\x8c\xd3\x03\x00\x00\x00",
        b"7z\xbc\xaf'\x1c\x00\x04",
        b"Rar!\x1a\x07\x01\x00",
        b"BZh91AY&SY{\x1dz\x0c\x00\x00\x01\xd7\x80\x00\x10@\x00\x00\x02\x00\x10.(D\x80 \x00\"\x00h\x02\x01\xa0\x00\xe1\xa3.\x85\xe7.\x97x\xbb\x92)\xc2\x84\x83\xd8\xeb\xd0`",
        b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x0fMZ packed twice\x0a\x00\xa0Q*\xdfyL\x87\xec\x00\x01(\x10\xe5\x0bl`\x1f\xb6\xf3}\x01\x00\x00\x00\x00\x04YZ",
        b"(\xb5/\xfd\x04X\x81\x00\x00MZ packed twice\x0a\xf9NY\xda",
    ]
    archive_names [
        b"\0\0\x73\0\0\x0d\0\0\0\0\0\0\0\0\0\x74\0\x80\x21\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0axyz\0\0\x7b\0\x40\x07\0",
        b"\0\0\0\0\x03\x01\0\0\0\0\0\0\x0e\x02\x03\x03\x03\0\x03\0\0\x01\x01a\x02\x01\0xyz\0\0\0\0\x03\x05\0\0",
        b"MSCF\0\0\0\0\0\0\0\0\0\0\0\0\x24\0\0\0\0\0\0\0\x03\x01\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0a\0",
    ]
    authentication_results [b" mx.example 1; dkim=pass (x) reason=\"y\" header.d=a.example; spf=fail smtp.mailfrom=b"]
    author [b" \"A, (b)\" <a@b.example>", b"Team: a@b.example, <c@b.example>;", b"=?utf-8?q?a?= <a@b.example>"]
    clamd_answer [b"stream: Eicar-Test-Signature FOUND", b"stream: OK", b"INSTREAM size limit exceeded. ERROR"]
    configuration [b"hostname = \"a.b\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n[limits]\nsize = \"5 MiB\"\n"]
    content [b"line\r\n..dot\r\n.\r\nQUIT\r\n", b"a\nb\r.\r\n"]
    dkim_key [b"v=DKIM1; k=ed25519; t=s; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
    dkim_signature [b" v=1; a=rsa-sha256; c=relaxed/simple; d=a.example; s=s; t=1; x=9; l=3; h=from:to;\r\n bh=AA==; b=AA=="]
    dmarc_record [b"v=DMARC1; p=reject; sp=none; np=quarantine; adkim=s; pct=50; t=y; rua=mailto:a@b.example!5m; ri=86400"]
    duplicates [b"The same text as a thousand others got, with one word that is not the same, and a number: 12345.", &[7; 40]]
    header [b"From: a\r\n b\r\nReceived : by x\r\nAuthentication-Results: (mx.example) mx.example; spf=pass\r\n\r\nbody"]
    hops [b"Received: from h.example (n.example [192.0.2.9]) by g.example; x\r\n\r\n"]
    identity_message [b"From: a@b.example\r\nDKIM-Signature: v=1\r\n\r\nHi  there \r\n \t\r\n\r\n"]
    milter_packet [
        b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff",
        b"\0\0\0\x0chX-A\0a\r\n b\0",
        b"\0\0\0\x0am\0\0\0\x01To\0x\0",
        b"\0\0\0\x13y550 5.7.1 no, 100%\0\0\0\0\x05+<a>\0",
    ]
    mime [
        b"Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/html; charset=utf-7\r\n\
          Content-Transfer-Encoding: quoted-printable\r\n\r\n<a href=3D\"http://x.example/%41\">y</a>\r\n--b\r\n\
          Content-Type: message/rfc822\r\n\r\nSubject: =?utf-8?b?eA==?=\r\n\r\nx\r\n--b--\r\n",
        b"Content-Type: text/html\r\n\r\n<p style=\"display:none\">a<!-- <b> --><script>x</script>&#x41;&nbsp;<td bgcolor=#fff>",
    ]
    model [b"weir", &[0; 64]]
    mta_sts_policy [b"version: STSv1\r\nmode: enforce\r\nmx: *.a.example\r\nmax_age: 86400\r\n"]
    next_hop [b"smtp://user:p%40ss@[::1]:25?tls=required", b"maildir:/a/{user}"]
    parameters [b"SIZE=10 BODY=8BITMIME RET=HDRS ENVID=a+2Bb SMTPUTF8", b"NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+40b"]
    pop3_command [b"RETR 1", b"AUTH PLAIN AGEAYg==", b"TOP 1 10"]
    proxy_header [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x01\0\x02"]
    report [
        b"Content-Type: application/tlsrpt+json\r\n\r\n{\"organization-name\":\"x\",\"date-range\":{},\"report-id\":\"1\",\"policies\":[]}",
        b"Content-Type: text/xml\r\n\r\n<feedback><report_metadata><org_name>x</org_name></report_metadata></feedback>",
    ]
    rspamd_answer [
        b"{\"score\":5.5,\"action\":\"add header\",\"symbols\":{\"A\":{\"score\":1,\"options\":[\"x\"]}},\"messages\":{\"smtp_message\":\"no\"},\
          \"milter\":{\"add_headers\":{\"X-A\":{\"value\":\"b\",\"order\":0},\"X-B\":[\"c\"]}}}",
    ]
    rules [
        b"body A /fo+ (?:b|c)/i\nscore A 1.5\nheader B Subject =~ /x/\nmeta C (A && !B) + 1 > 2\nuri D /%{x}/\nrawbody E /<a/\n\
          describe A words\nifplugin X\nfull F /a.*b/s\nendif\nreplace_tag X [a-z]\nheader __G exists:To\n",
        b"redirector_pattern m'^http://x\\.(\\w+).*?(?<=[?&])q=(.*)'i\nbrand a_b x.* y.example\nbody H eval:check_brand_uri()\n\
          dangerous_extensions foo\ndelist brand a_b y.example\nbody I eval:check_attached_extension('dangerous_extensions')\n",
    ]
    sasl_messages [b"\0user\0pass", b"n,,n=user,r=nonce"]
    smtp_client [b"220 x ESMTP\r\n250-x\r\n250-SIZE 10\r\n250-AUTH PLAIN SCRAM-SHA-256\r\n250 STARTTLS\r\n220 2.0.0 go\r\n"]
    smtp_commands [b"MAIL FROM:<\"a b\"@[IPv6:::1]> SIZE=5", b"RCPT TO:<@a,@b:c@d.example>", b"BDAT 10 LAST", b"EHLO [1.2.3.4]"]
    smtp_server [
        b"EHLO a.example\r\nMAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubject: x\r\n\r\n..\r\n.\r\nQUIT\r\n",
        b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nBDAT 3\r\nabcBDAT 0 LAST\r\nRSET\r\nNOOP\r\nVRFY x\r\n",
    ]
    spamd [
        b"TELL SPAMC/1.3\r\nContent-length: 12\r\nUser: bob\r\nMessage-class: spam\r\nSet: local, remote\r\nCompress: zlib\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nContent-length: 2\r\nSpam: True ; 6.5 / 5.0\r\n\r\nA,B",
    ]
    spf_record [b"v=spf1 ip4:192.0.2.0/24 a:%{d2r}.x.example//64 mx include:_spf.%{o} exists:%{ir}.%{v} ?all exp=e.%{d}", b"v=spf1 redirect=%{h}"]
    spool_record [&[0; 40], &[1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 1, 1], b"\x06\x01\xf8\xfe\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0:"]
    srs_address [b"SRS0=AAAAAAAA=AA=a.example=b@us.example", b"SRS1=AAAAAAAA=x.example==AAAA=AA=a.example=b@us.example"]
    tag_list [b"a=b; c = d e ;\r\n f=;"]
}

/// A zip with one stored entry, `a.txt`.
const ZIP: &[u8] = b"PK\x03\x04\x0a\0\0\0\0\0\0\0\0\0\x43\xbe\xb7\xe8\x01\0\0\0\x01\0\0\0\x05\0\0\0a.txtaPK\x01\x02\x1e\x03\x0a\0\0\0\0\0\
    \0\0\0\0\x43\xbe\xb7\xe8\x01\0\0\0\x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0a.txtPK\x05\x06\0\0\0\0\x01\0\x01\0\x33\0\0\0\x24\0\0\0\0\0";

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

fn message(data: &[u8]) -> Message {
    Message::parse(Content::from_bytes(data))
}

fn admin_query(data: &[u8]) {
    for (name, value) in admin::query::pairs(&text(data)).into_iter().flatten() {
        assert_eq!(admin::query::decode(&admin::query::encode(&name)), Some(name));
        assert_eq!(admin::query::decode(&admin::query::encode(&value)), Some(value));
    }
}

fn arc_chain(data: &[u8]) {
    let message = message(data);
    for set in chain::collect(&message).into_iter().flatten() {
        assert!(set.fields().iter().all(|field| !message.raw(field).is_empty()));
    }
}

/// As many names as may be, and no more, whatever kind of list the bytes are taken for.
fn archive_names(data: &[u8]) {
    for front in [&b"Rar!\x1a\x07\x00"[..], b"Rar!\x1a\x07\x01\x00", b""] {
        let bytes = [front, data].concat();
        assert!(attachment::listing::rar(&bytes, 5).names.len() <= 5);
        assert!(attachment::listing::cabinet(&bytes, 5).names.len() <= 5);
    }
}

/// The bytes are an attachment, which is found by its first bytes and by its name.
fn archive(data: &[u8]) {
    let head = b"Content-Type: application/octet-stream; name=\"a.zip\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n";
    let raw = [&head[..], data].concat();
    let mut view = View::read(&raw);
    let mut budget = std::mem::take(&mut view.budget);
    let _ = attachment::inspect(&view, &Default::default(), &mut budget);
}

fn authentication_results(data: &[u8]) {
    let _ = authres::AuthenticationResults::parse(&text(data));
}

fn author(data: &[u8]) {
    if let Ok(found) = author::parse(&text(data)) {
        assert!(author::normal_domain(&found.domain).as_deref() == Some(&found.domain), "{found:?}");
    }
}

fn clamd_answer(data: &[u8]) {
    if let Some(clamd::Answer::Found(name)) = clamd::parse(data) {
        assert!(!name.contains(char::is_control), "{name:?}");
    }
}

fn configuration(data: &[u8]) {
    if let Err(problems) = Config::parse(Path::new("weir.toml"), &text(data)) {
        assert!(!problems.to_string().is_empty());
    }
}

/// However the bytes are cut, the same comes out.
fn content(data: &[u8]) {
    for normalize in [false, true] {
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        let mut decoder = data::DotDecoder::new(normalize);
        let decoded = decoder.decode(data, &mut whole);
        let mut cut = data::DotDecoder::new(normalize);
        for byte in &data[..decoded.used] {
            cut.decode(std::slice::from_ref(byte), &mut pieces);
        }
        assert_eq!(whole, pieces);
        assert_eq!(decoder.facts(), cut.facts());
    }
}

fn dkim_key(data: &[u8]) {
    let _ = KeyRecord::parse(data);
}

fn dkim_signature(data: &[u8]) {
    for kind in [Kind::Dkim, Kind::ArcMessageSignature, Kind::ArcSeal] {
        let _ = Signature::parse(&text(data), kind);
    }
}

fn dmarc_record(data: &[u8]) {
    let _ = dmarc::Record::parse(&text(data));
}

/// The bytes are a text that is counted, and the entries of a file whose sum is right.
fn duplicates(data: &[u8]) {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    let settings = Duplicates { entries: 64, half_life: Duration::from_secs(3600) };
    let store = Store::new(&settings).unwrap();
    let file = FOLDER.path().join("digests");
    let body = [b"WEIRDIG1", data].concat();
    std::fs::write(&file, [&body[..], &crc32c::crc32c(&body).to_le_bytes()].concat()).unwrap();
    store.restore(&file).unwrap();
    let raw = [b"Subject: a\r\n\r\n", data].concat();
    if let Some(digest) = Digest::of(&View::read(&raw)) {
        let times = store.count(&digest, 1_000_000);
        let _ = duplicates::symbol(times);
    }
    store.save(&file).unwrap();
    Store::new(&settings).unwrap().restore(&file).unwrap();
}

/// Two walks of the same header section see the same fields, and what is cut is gone.
fn header(data: &[u8]) {
    let named = fields(data).filter(|field| !field.name.is_empty()).count();
    assert!(HeaderFacts::of(data).bytes <= data.len());
    assert!(message(data).fields().len() <= named.max(1) + 1);
    let cut = forged_fields(data, "mx.example", true);
    let kept = kept_parts(data, &cut).concat();
    assert!(forged_fields(&kept, "mx.example", true).is_empty(), "{:?}", text(&kept));
}

fn hops(data: &[u8]) {
    let trusted = ["10.0.0.0/8".parse().unwrap()];
    let _ = hops::client(&message(data), "10.0.0.1".parse().unwrap(), &trusted);
}

fn identity_message(data: &[u8]) {
    let message = message(data);
    for how in [Canonicalization::Relaxed, Canonicalization::Simple] {
        let all = hash_body(how, message.body(), None);
        let some = hash_body(how, message.body(), Some(u64::MAX));
        assert_eq!((all.digest, all.canonical_bytes), (some.digest, some.canonical_bytes));
        message.fields().iter().for_each(|field| write_field(how, &message, field, &mut Vec::new()));
    }
    let _ = author::author(&message);
}

/// What a milter sends, packet after packet; what is written again reads as the same, but for replies, which become one line.
fn milter_packet(mut data: &[u8]) {
    while let Ok(Some((packet, length))) = milter::split(data) {
        data = &data[length..];
        let Ok(response) = Response::parse(&packet) else { continue };
        let mut written = Vec::new();
        response.put(&mut written);
        let (packet, length) = milter::split(&written).unwrap().unwrap();
        let again = Response::parse(&packet).unwrap();
        assert_eq!(length, written.len());
        assert!(again == response || matches!(response, Response::Reply(_)), "{response:?} {again:?}");
    }
}

/// The whole walk that rules and classifier see: parts, charsets, HTML, URLs.
fn mime(data: &[u8]) {
    let view = View::read(data);
    let _ = classifier::features::extract(&view);
    assert!(view.text.len() + view.hidden.len() <= 64 * 1024 * 1024);
}

fn model(data: &[u8]) {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    let file = FOLDER.path().join("model");
    std::fs::write(&file, data).unwrap();
    let _ = classifier::file::load(&file);
}

fn mta_sts_policy(data: &[u8]) {
    let _ = Policy::parse(&text(data));
}

fn next_hop(data: &[u8]) {
    let _ = NextHop::parse(&text(data));
}

fn parameters(data: &[u8]) {
    let text = text(data);
    let _ = parameters::MailParameters::parse(&text);
    let _ = parameters::RcptParameters::parse(&text, true);
    let _ = (xtext::decode(&text), xtext::decode_orcpt(&text, true));
}

fn pop3_command(data: &[u8]) {
    let _ = store::pop3::command::parse(data);
}

fn proxy_header(data: &[u8]) {
    let _ = front::proxy::parse(data);
}

fn report(data: &[u8]) {
    let _ = reports::read::read(data);
}

fn rspamd_answer(data: &[u8]) {
    if let Some(judgement) = checkv2::Judgement::parse(data) {
        let json = serde_json::to_vec(&judgement.to_json()).unwrap();
        let again = checkv2::Judgement::parse(&json).unwrap();
        assert_eq!((&again.action, again.score), (&judgement.action, judgement.score));
        assert!(judgement.add_headers.iter().all(|(name, _)| !name.contains([':', '\r', '\n', ' '])));
    }
}

/// Loads the bytes as rules, and runs what loaded over a message.
fn rules(data: &[u8]) {
    let rules = Rules::load(Source::from_text("fuzz.cf", data));
    let mut view = View::read(b"Subject: foo b\r\nTo: x@y.example\r\n\r\nfoo b http://x.example/\r\n");
    let mut budget = std::mem::take(&mut view.budget);
    let _ = rules.run(&view, &Facts::default(), &mut budget);
}

fn sasl_messages(data: &[u8]) {
    let _ = sasl::parse_plain(data);
    let _ = sasl::ScramFirst::parse(data);
}

/// A hostile server: whatever it says, our client comes to an end.
fn smtp_client(data: &[u8]) {
    let options = HandshakeOptions {
        protocol: Protocol::Smtp,
        hello: "a.example".to_owned(),
        tls: DeliverTls::Opportunistic,
        encrypted: false,
        login: None,
        nonce: "n".to_owned(),
    };
    let (mut handshake, mut reader, mut out) = (Handshake::new(options), ReplyReader::default(), Vec::new());
    for piece in data.chunks(7) {
        reader.feed(piece);
        while let Ok(Some(reply)) = reader.next_reply() {
            assert!(reply.one_line().chars().all(|c| !c.is_control()));
            match handshake.handle_reply(reply, &mut out) {
                Next::Await => {}
                Next::StartTls => {
                    reader.clear();
                    handshake.handle_tls(&mut out);
                }
                Next::Ready | Next::Failed(_) => return,
            }
        }
    }
}

fn smtp_commands(data: &[u8]) {
    let _ = Command::parse(data);
    for utf8 in [false, true] {
        if let Ok(mailbox) = Mailbox::parse(&text(data), utf8) {
            assert_eq!(Mailbox::parse(mailbox.as_str(), utf8).as_ref(), Ok(&mailbox));
        }
    }
}

/// A hostile client: whatever it says and however it is cut, each question is answered and nothing is stuck.
fn smtp_server(data: &[u8]) {
    static SETTINGS: LazyLock<Arc<SessionSettings>> = LazyLock::new(|| {
        let config = Config::parse(Path::new("weir.toml"), "").unwrap_or_else(|problems| panic!("{problems}"));
        Arc::new(SessionSettings::from_listener(&config, &config.listeners[0]))
    });
    let now = Instant::now();
    let ip = "192.0.2.1".parse().unwrap();
    let mut session = Session::new(SETTINGS.clone(), ContentSource::unbounded(), ip, 1, None, now);
    let (mut rest, mut out, mut idle) = (data, Vec::new(), 0);
    while idle < 2 {
        let control = session.poll_output(&mut out);
        if control.is_some() {
            return;
        }
        if let Some(ask) = session.poll_ask() {
            session.handle_answer(now, answer(ask));
            idle = 0;
            continue;
        }
        let used = session.handle_input(now, &rest[..rest.len().min(11)]);
        rest = &rest[used..];
        idle = if used == 0 { idle + 1 } else { 0 };
    }
    assert!(out.starts_with(b"220") || out.starts_with(b"5") || out.starts_with(b"4"), "{:?}", text(&out));
    assert!(rest.is_empty(), "stuck before {:?}", text(rest));
}

fn answer(ask: Ask) -> Answer {
    match ask {
        Ask::Password { .. } | Ask::ScramKeys { .. } => Answer::Authenticated("x".into()),
        Ask::Message(received) => {
            assert!(!received.envelope.recipients.is_empty());
            Answer::Message(vec![weir::wire::reply::Reply::LOCAL_TROUBLE])
        }
        _ => Answer::Go,
    }
}

fn spamd(data: &[u8]) {
    let end = spamd::head_length(data).unwrap_or(data.len());
    let _ = spamd::Request::parse(&data[..end]);
    if let Some((score, threshold)) = spamd::Response::parse(data).and_then(|response| response.score) {
        assert!(score.is_finite() && threshold.is_finite());
    }
}

fn spf_record(data: &[u8]) {
    let _ = spf::record::Record::parse(data);
    let ip = "2001:db8::1".parse().unwrap();
    let query = spf::Query::mail_from(ip, "h.example", Some("a%b@c.example"), "r.example");
    let values = Values { query: &query, domain: "d.example", validated: Some("n.example"), now: 1 };
    for used in [Use::Domain, Use::Explanation] {
        if let Some(found) = MacroString::parse(&text(data), used) {
            assert!(found.expand(&values).len() <= 4096);
            let _ = found.expand_domain(&values);
        }
    }
}

fn spool_record(data: &[u8]) {
    spool::fuzz_record(data);
}

/// Nothing that we did not make leads anywhere.
fn srs_address(data: &[u8]) {
    let srs = srs::Srs::new(vec![Secret::new("secret")], "us.example").unwrap();
    let Ok(mailbox) = Mailbox::parse(&text(data), true) else { return };
    assert!(srs.reverse(&mailbox, 1_000_000).is_err(), "{mailbox}");
    let is_srs = mailbox.as_str().get(..3).is_some_and(|start| start.eq_ignore_ascii_case("SRS"));
    if let Ok(forward) = srs.forward(&mailbox, 1_000_000) {
        // What was rewritten before leads back to the first who did.
        let back = srs.reverse(&forward, 1_000_000).unwrap_or_else(|error| panic!("{mailbox} {forward}: {error:?}"));
        assert!(is_srs || back == mailbox, "{mailbox} {forward} {back}");
    }
}

fn tag_list(data: &[u8]) {
    let _ = tags::Tags::parse(&text(data));
}
