//! Every dialogue gives the same bytes whole, step by step, cut at every byte, and byte by byte; random input never
//! breaks a conversation.

#[path = "support/dialog.rs"]
mod dialog;
#[path = "support/session.rs"]
mod session;

use std::path::Path;

use dialog::{Dialog, Step, compare};
use proptest::prelude::*;
use session::{Driver, Record, settings, tls_facts};
use weir::base::content::ContentSource;
use weir::base::machine::Machine;
use weir::config::settings::{BareLf, Role};
use weir::smtp::server::ask::{Answer, Ask};
use weir::smtp::server::counters::Limit;
use weir::smtp::server::{Session, SessionSettings};
use weir::wire::reply::{Enhanced, Reply};

/// How the client's bytes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// As much as the dialogue allows in one piece.
    Whole,
    /// Each `C:` or `B:` line by itself.
    Steps,
    /// In two, everywhere after so many bytes.
    At(usize),
    /// One by one.
    Bytes,
}

/// Runs the dialogue; returns what was seen and the length of the longest piece.
fn run(dialog: &Dialog, cut: Cut) -> (Record, usize) {
    let mut driver = Driver::for_dialog(dialog);
    driver.pump(b"");
    let mut waiting = Vec::new();
    let mut longest = 0;
    for step in &dialog.steps {
        if let Step::Send(bytes) = step {
            waiting.extend_from_slice(bytes);
        }
        let send_now = match step {
            Step::Send(_) => cut == Cut::Steps,
            Step::Expect(_) | Step::Close => false,
            _ => true,
        };
        if send_now {
            longest = longest.max(waiting.len());
            send(&mut driver, &std::mem::take(&mut waiting), cut);
        }
        act(&mut driver, step);
    }
    longest = longest.max(waiting.len());
    send(&mut driver, &waiting, cut);
    (driver.record, longest)
}

fn send(driver: &mut Driver, bytes: &[u8], cut: Cut) {
    match cut {
        Cut::Whole | Cut::Steps => driver.feed(bytes),
        Cut::At(at) => {
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            driver.feed(first);
            driver.feed(second);
        }
        Cut::Bytes => bytes.chunks(1).for_each(|byte| driver.feed(byte)),
    }
}

fn act(driver: &mut Driver, step: &Step) {
    match step {
        Step::Advance(by) => driver.advance(*by),
        Step::Stop => driver.session.handle_stop(driver.now),
        Step::Eof => driver.session.handle_eof(driver.now),
        Step::Tls => {
            assert_eq!(driver.record.handshakes, 1, "the server begins TLS");
            driver.session.handle_tls(driver.now, tls_facts());
        }
        _ => {}
    }
    driver.pump(b"");
}

fn check(dialog: &Dialog) -> Result<(), String> {
    let (record, longest) = run(dialog, Cut::Steps);
    let expected: Vec<&str> = dialog
        .steps
        .iter()
        .filter_map(|step| if let Step::Expect(text) = step { Some(text.as_str()) } else { None })
        .collect();
    compare(&expected, &record.out)?;
    if dialog.steps.contains(&Step::Close) != record.closed {
        return Err(format!("closed: {}", record.closed));
    }
    for (index, wanted) in dialog.messages.iter().enumerate() {
        let got = record.messages.get(index);
        if !got.is_some_and(|got| got.contains(wanted.as_str())) {
            return Err(format!("expected message {wanted:?}, got {got:?}"));
        }
    }
    // What depends on bytes arriving together is not cut.
    if dialog.value("uncut").is_some() {
        return Ok(());
    }
    let others = (1..longest).map(Cut::At).chain([Cut::Whole, Cut::Bytes]);
    for cut in others {
        let (other, _) = run(dialog, cut);
        if other != record {
            return Err(format!("{cut:?} differs: {other:#?}\nfrom {record:#?}"));
        }
    }
    Ok(())
}

#[test]
fn every_dialogue_holds_however_it_is_cut() {
    let dialogs = Dialog::load_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs/smtp"));
    assert!(dialogs.len() >= 60, "only {} dialogues", dialogs.len());
    let failed: Vec<String> = dialogs
        .iter()
        .filter_map(|dialog| check(dialog).err().map(|error| format!("{}: {error}", dialog.path.display())))
        .collect();
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), dialogs.len(), failed.join("\n"));
}

/// What was led to end DATA early elsewhere (CVE-2023-51764, -51765, -51766 and kin); none of it is CR LF . CR LF.
const SMUGGLING: [&str; 21] = [
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\n.\r",
    "\r.\n",
    "\r\n.\r\r\n",
    "\r\r\n.\r\r\n",
    "\n\n.\n\n",
    "\n\n.\r\n",
    "\r\n\n.\n",
    "\r\n.\0\r\n",
    "\r\n\0.\r\n",
    "\r\n.\r\0\n",
    "\r\0\n.\r\n",
    "\r\n .\r\n",
    "\r\n. \r\n",
    "\r\n.\t\r\n",
    "\r\n.\x0b\r\n",
];

const OPEN_DATA: &str = "EHLO c\r\nMAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n";
const SECOND_MAIL: &str = "MAIL FROM:<evil@c>\r\nRCPT TO:<x@d>\r\nDATA\r\nforged\r\n.\r\n";

#[test]
fn nothing_is_smuggled_through_data() {
    for bare_lf in [BareLf::Accept, BareLf::Normalize, BareLf::Reject] {
        for sequence in SMUGGLING {
            let mut driver = Driver::new(SessionSettings { bare_lf, ..settings(Role::Mx) }, "192.0.2.1", false, vec![]);
            driver.feed(format!("{OPEN_DATA}text{sequence}{SECOND_MAIL}NOOP\r\n").as_bytes());
            assert!(driver.record.messages.len() <= 1, "{sequence:?} smuggles with {bare_lf:?}");
            assert!(driver.record.messages.iter().all(|message| message.contains("<a@c> -> b@d ")), "{sequence:?}");
            assert!(driver.record.out.ends_with(b"250 2.0.0 Ok\r\n"), "{sequence:?} loses the order");
        }
    }
}

#[test]
fn replies_that_nobody_reads_stop_the_commands() {
    let mut driver = Driver::new(settings(Role::Relay), "192.0.2.1", false, vec![]);
    driver.pump(b"");
    let greedy = "EHLO c\r\n".repeat(10_000);
    let used = driver.session.handle_input(driver.now, greedy.as_bytes());
    assert!(used < greedy.len(), "the output has a bound");
    let mut out = Vec::new();
    driver.session.poll_output(&mut out);
    assert!(out.len() < 32 * 1024, "{} bytes of replies", out.len());
}

#[test]
fn content_without_a_place_is_put_off_and_its_memory_given_back() {
    let content = ContentSource { spill_at_bytes: 10, ..ContentSource::unbounded() };
    let budget = content.budget.clone();
    let mut driver = Driver::with_content(settings(Role::Mx), content, "192.0.2.1", false, vec![]);
    driver.feed(format!("{OPEN_DATA}one\r\n").as_bytes());
    assert!(budget.used_bytes() > 0, "small content is in memory");
    driver.feed(b"two, and more than fits\r\n");
    assert_eq!(budget.used_bytes(), 0, "given back before the end has come");
    driver.feed(b".\r\nNOOP\r\n");
    let out = String::from_utf8_lossy(&driver.record.out).into_owned();
    assert!(out.ends_with("452 4.3.1 Insufficient system storage, try again later\r\n250 2.0.0 Ok\r\n"), "{out}");
}

#[test]
fn a_long_list_hears_452_and_only_a_flood_ends() {
    let mut limits = settings(Role::Relay);
    limits.limits.recipients = 10;
    let mut driver = Driver::new(limits, "192.0.2.1", false, vec![]);
    driver.feed(b"EHLO c\r\nMAIL FROM:<a@c>\r\n");
    driver.feed("RCPT TO:<b@d>\r\n".repeat(1010).as_bytes());
    assert!(!driver.record.closed);
    driver.feed("RCPT TO:<b@d>\r\n".repeat(20).as_bytes());
    assert!(driver.record.closed, "a flood has an end");
    assert_eq!(driver.session.counters().hits(Limit::Recipients), 1020);
}

#[test]
fn pipelined_commands_have_one_batch_of_replies() {
    let mut driver = Driver::new(settings(Role::Relay), "192.0.2.1", false, vec![]);
    driver.pump(b"");
    let batch = b"EHLO c\r\nMAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nDATA\r\n";
    let mut used = 0;
    while used < batch.len() {
        used += driver.session.handle_input(driver.now, &batch[used..]);
        if driver.session.poll_ask().is_some() {
            driver.session.handle_answer(driver.now, Answer::Go);
        }
    }
    let mut out = Vec::new();
    assert_eq!(driver.session.poll_output(&mut out), None);
    assert!(out.starts_with(b"250-") && out.ends_with(b"354 End data with <CR><LF>.<CR><LF>\r\n"));
}

/// What a reactor needs: the conversation and its questions move between threads.
const fn moves_between_threads<T: Send + 'static>() {}
const _: () = moves_between_threads::<Session>();
const _: () = moves_between_threads::<Ask>();
const _: () = moves_between_threads::<Answer>();

#[test]
fn an_idle_conversation_is_small() {
    assert!(size_of::<Session>() <= 512, "{} bytes", size_of::<Session>());
}

#[test]
fn counters_tell_what_happened() {
    let mut driver = Driver::new(settings(Role::Mx), "192.0.2.1", false, vec![]);
    driver.feed(format!("{OPEN_DATA}one\r\n.\r\nMAIL FROM:<a@c> SIZE=99999999999\r\nXYZZY\r\n").as_bytes());
    let counters = driver.session.counters();
    assert_eq!((counters.messages, counters.commands, counters.content_bytes), (1, 6, 5));
    assert_eq!(counters.limits().collect::<Vec<_>>(), [(Limit::Size, 1)]);
    let replies: Vec<_> = counters.replies.iter().collect();
    assert_eq!(replies, [(250, 4), (354, 1), (220, 1), (500, 1), (552, 1)]);
    // The one behind EHLO and the one behind DATA.
    assert_eq!(counters.pipelining_faults, 2);
}

/// Pieces that a hostile or clumsy client is made of.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "EHLO c\r\n",
        "HELO c\r\n",
        "LHLO c\r\n",
        "MAIL FROM:<a@c>\r\n",
        "MAIL FROM:<> BODY=BINARYMIME SMTPUTF8\r\n",
        "RCPT TO:<b@d>\r\n",
        "RCPT TO:<no@d>\r\n",
        "DATA\r\n",
        "x\r\n.\r\n",
        ".\r\n",
        "BDAT 5 LAST\r\nabcde",
        "BDAT 3\r\nab",
        "BDAT 0 LAST\r\n",
        "BDAT 18446744073709551615\r\n",
        "BDAT 99999999999999999999\r\n",
        "RSET\r\n",
        "NOOP\r\n",
        "QUIT\r\n",
        "STARTTLS\r\n",
        "AUTH PLAIN\r\n",
        "AUTH PLAIN AHVzZXIAcGVuY2ls\r\n",
        "AUTH LOGIN dXNlcg==\r\n",
        "cGVuY2ls\r\n",
        "*\r\n",
        "AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=\r\n",
        "XCLIENT ADDR=192.0.2.7 LOGIN=x\r\n",
        "VRFY a\r\n",
        "\r\n",
        "\n",
        "\r",
        ".",
        "\0",
        "GET / HTTP/1.1\r\n",
    ])
    .prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![9 => known, 1 => prop::collection::vec(any::<u8>(), 0..40)]
}

fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(vec![Role::Lmtp, Role::Mx, Role::Relay, Role::Submission])
}

fn converse(role: Role, input: &[u8], piece_bytes: usize) -> Record {
    let mut settings = SessionSettings { starttls: true, auth: true, auth_plaintext: true, ..settings(role) };
    settings.xclient.push("192.0.2.0/24".parse().expect("a network"));
    settings.limits.size = 1000;
    let refusals = vec![("rcpt".into(), "no@".into(), vec![Reply::fixed(550, Enhanced(5, 1, 1), "No such user")])];
    let mut driver = Driver::new(settings, "192.0.2.1", false, refusals);
    driver.pump(b"");
    for bytes in input.chunks(piece_bytes) {
        if driver.record.handshakes > 0 {
            driver.session.handle_tls(driver.now, tls_facts());
        }
        driver.feed(bytes);
    }
    driver.session.handle_eof(driver.now);
    driver.pump(b"");
    assert!(driver.record.closed, "the end is an end");
    driver.record
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_input_breaks_a_conversation(
        role in role(),
        pieces in prop::collection::vec(piece(), 0..40),
        piece_bytes in 1usize..200,
    ) {
        let input = pieces.concat();
        let record = converse(role, &input, piece_bytes);
        // Every reply is a line of its own that begins with a code.
        for line in String::from_utf8(record.out).expect("replies are text").split_terminator("\r\n") {
            prop_assert!(line.len() >= 4 && line.as_bytes()[..3].iter().all(u8::is_ascii_digit), "{line:?}");
            prop_assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        }
    }

    #[test]
    fn random_input_is_answered_alike_however_it_is_cut(
        role in role(),
        pieces in prop::collection::vec(piece(), 0..30),
        piece_bytes in 1usize..50,
    ) {
        // STARTTLS is left out: what stands behind it counts as an attack or as a handshake, by when it comes.
        let input: Vec<u8> = pieces.into_iter().filter(|piece| !piece.to_ascii_uppercase().starts_with(b"START")).flatten().collect();
        prop_assert_eq!(converse(role, &input, piece_bytes), converse(role, &input, usize::MAX));
    }
}
