//! POP3 dialogues against a store of three messages, whole and cut at every byte; nonsense. I/O: none but one look at the clock.
//!
//! In a dialogue a run of `C:` lines is sent together, `S:` is what comes back, `SILENCE` that nothing more does, `T: secs` lets time pass,
//! `TLS` is a handshake, `EOF` the client's end, and `REMOVED 1 3` what the store was told to remove. The world: alice, password `wonder land`; bob's maildrop is in use.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::ask::{Answer, Ask, Entry};
use super::session::{Options, Session};
use crate::base::machine::{Control, Machine, TlsFacts};
use crate::base::secret::Secret;
use crate::wire::sasl::{ScramClient, ScramKeys};

const DIALOGS: [(&str, &str); 8] = [
    ("apop.txt", include_str!("../../../tests/dialogs/pop3/apop.txt")),
    ("delete.txt", include_str!("../../../tests/dialogs/pop3/delete.txt")),
    ("errors.txt", include_str!("../../../tests/dialogs/pop3/errors.txt")),
    ("failures.txt", include_str!("../../../tests/dialogs/pop3/failures.txt")),
    ("plaintext.txt", include_str!("../../../tests/dialogs/pop3/plaintext.txt")),
    ("retrieve.txt", include_str!("../../../tests/dialogs/pop3/retrieve.txt")),
    ("sasl.txt", include_str!("../../../tests/dialogs/pop3/sasl.txt")),
    ("timeout.txt", include_str!("../../../tests/dialogs/pop3/timeout.txt")),
];

const MESSAGES: [&[u8]; 3] = [b"Subject: one\r\n\r\n.dot\r\nlast\r\n", b"Subject: two\n\nbare\n..\nno end", b""];
/// Small, so that every message comes in pieces.
const PIECE_BYTES: usize = 7;
const PASSWORD: &str = "wonder land";

fn keys() -> ScramKeys {
    ScramKeys::derive("alice", &Secret::new(PASSWORD), b"salt", 4096)
}

struct World {
    machine: Session,
    now: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    controls: Vec<Control>,
    removed: Vec<usize>,
}

impl World {
    fn new(options: Options) -> Self {
        let now = Instant::now();
        let machine = Session::new(options, now);
        World { machine, now, input: vec![], output: vec![], controls: vec![], removed: vec![] }
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        let credentials = |right: bool| if right { Answer::Authenticated("alice".into()) } else { Answer::Refused };
        match ask {
            Ask::Password { login, .. } if login == "bob" => Answer::Authenticated("bob".into()),
            Ask::Password { login, .. } if login == "broken" => Answer::Unavailable,
            Ask::Password { login, password } => credentials(login == "alice" && password.expose() == PASSWORD),
            Ask::Apop { login, timestamp, digest } => {
                credentials(login == "alice" && &*timestamp == "<1@test>" && digest == "good")
            }
            Ask::ScramKeys { .. } => Answer::ScramKeys(keys()),
            Ask::AuthFailed => Answer::Refused,
            Ask::Open { user } if &*user == "bob" => Answer::InUse,
            Ask::Open { .. } => Answer::Opened(entries()),
            Ask::Read { index, offset } => {
                let rest = &MESSAGES[index][offset as usize..];
                let bytes = rest[..rest.len().min(PIECE_BYTES)].to_vec();
                let last = bytes.len() < PIECE_BYTES;
                Answer::Piece { bytes, last }
            }
            Ask::Remove { indexes } => {
                self.removed = indexes.iter().map(|index| index + 1).collect();
                Answer::Removed { failed: 0 }
            }
        }
    }

    /// Does all that can be done without the client and without time.
    fn settle(&mut self) {
        loop {
            let before = self.output.len();
            let control = self.machine.poll_output(&mut self.output);
            self.controls.extend(control);
            if control == Some(Control::StartTls) {
                self.input.clear();
            }
            if self.output.len() > before {
                continue;
            }
            if let Some(ask) = self.machine.poll_ask() {
                assert_eq!(self.machine.handle_input(self.now, b"NOOP\r\n"), 0, "a question is open: {ask:?}");
                let answer = self.answer(ask);
                self.machine.handle_answer(self.now, answer);
                continue;
            }
            let used = self.machine.handle_input(self.now, &self.input);
            self.input.drain(..used);
            if used == 0 {
                return;
            }
        }
    }

    fn send(&mut self, bytes: &[u8], cut: usize) {
        for piece in bytes.chunks(cut) {
            self.input.extend_from_slice(piece);
            self.settle();
        }
    }

    fn pass(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
        if self.machine.poll_timeout().is_some_and(|due| due <= self.now) {
            self.machine.handle_timeout(self.now);
        }
        self.settle();
    }
}

fn entries() -> Vec<Entry> {
    let sizes = [28, 33, 0];
    (1..=3).zip(sizes).map(|(n, size)| Entry { size, uidl: format!("uid{n}").into() }).collect()
}

fn options(tls: bool) -> Options {
    Options { tls, stls: !tls, plaintext_login: false, timestamp: Some("<1@test>".into()), nonce: "server".to_owned() }
}

/// Plays a dialogue with the client's bytes in pieces of `cut`.
fn play(name: &str, script: &str, cut: usize) {
    let tls = !script.starts_with("# in the clear");
    let mut world = World::new(options(tls));
    world.settle();
    let mut said = 0;
    let mut sent = String::new();
    for (number, line) in script.lines().enumerate() {
        let at = format!("{name}:{} in pieces of {cut}", number + 1);
        if !line.starts_with("C:") && !sent.is_empty() {
            world.send(std::mem::take(&mut sent).as_bytes(), cut);
        }
        match line.split_once(' ').unwrap_or((line, "")) {
            ("#" | "", _) => {}
            ("C:", text) => sent.push_str(&format!("{text}\r\n")),
            ("S:", text) => {
                let rest = &world.output[said..];
                let end = rest.windows(2).position(|w| w == b"\r\n").unwrap_or_else(|| panic!("{at}: silence"));
                assert_eq!(String::from_utf8_lossy(&rest[..end]), text, "{at}");
                said += end + 2;
            }
            ("T:", secs) => world.pass(secs.parse().unwrap()),
            ("TLS", _) => {
                assert_eq!(world.controls.pop(), Some(Control::StartTls), "{at}");
                world.machine.handle_tls(world.now, TlsFacts::default());
                world.settle();
            }
            ("EOF", _) => {
                world.machine.handle_eof(world.now);
                world.settle();
            }
            ("SILENCE", _) => assert_eq!(String::from_utf8_lossy(&world.output[said..]), "", "{at}"),
            ("CLOSED", _) => assert_eq!(world.controls.pop(), Some(Control::Close), "{at}"),
            ("REMOVED", list) => {
                let removed: Vec<String> = world.removed.iter().map(usize::to_string).collect();
                assert_eq!(removed.join(" "), list, "{at}");
            }
            _ => panic!("{at}: not a line of a dialogue: {line}"),
        }
    }
    assert_eq!(String::from_utf8_lossy(&world.output[said..]), "", "{name}: more was said in pieces of {cut}");
}

#[test]
fn dialogues_are_the_same_whole_and_cut_at_every_byte() {
    for (name, script) in DIALOGS {
        for cut in [usize::MAX, 1, 2, 3, 7] {
            play(name, script, cut);
        }
    }
}

#[test]
fn scram_logs_in_and_proves_the_server() {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    for (password, works) in [(PASSWORD, true), ("wrong", false)] {
        let mut world = World::new(options(true));
        world.settle();
        let (first, client) = ScramClient::start("alice", &Secret::new(password), "client");
        world.output.clear();
        world.send(format!("AUTH SCRAM-SHA-256 {}\r\n", STANDARD.encode(first)).as_bytes(), usize::MAX);
        let challenge = std::str::from_utf8(&world.output).unwrap().trim_end().strip_prefix("+ ").unwrap();
        let (last, verifier) = client.respond(&STANDARD.decode(challenge).unwrap()).unwrap();
        world.output.clear();
        world.send(format!("{}\r\n", STANDARD.encode(last)).as_bytes(), usize::MAX);
        if works {
            assert_eq!(world.output, format!("+ {}\r\n", STANDARD.encode(verifier)).as_bytes());
            world.send(b"\r\nSTAT\r\n", usize::MAX);
            assert!(world.output.ends_with(b"+OK 3 61\r\n"), "{}", String::from_utf8_lossy(&world.output));
        } else {
            world.pass(1);
            assert!(world.output.starts_with(b"-ERR [AUTH]"));
        }
    }
}

#[test]
fn a_stop_ends_idle_sessions_at_once_and_others_after_their_message() {
    let mut world = World::new(options(true));
    world.settle();
    world.machine.handle_stop(world.now);
    world.settle();
    assert_eq!(world.controls, [Control::Close]);

    let mut world = World::new(options(true));
    world.send(format!("USER alice\r\nPASS {PASSWORD}\r\n").as_bytes(), usize::MAX);
    assert!(world.machine.handle_input(world.now, b"RETR 1\r\n") > 0);
    world.machine.handle_stop(world.now);
    world.settle();
    let said = String::from_utf8_lossy(&world.output).into_owned();
    assert!(said.contains("last\r\n.\r\n-ERR [SYS/TEMP]"), "{said}");
    assert_eq!(world.controls, [Control::Close]);
}

#[test]
fn what_follows_stls_in_the_clear_is_not_heard() {
    let mut world = World::new(options(false));
    world.send(b"STLS\r\nUSER alice\r\n", usize::MAX);
    world.machine.handle_tls(world.now, TlsFacts::default());
    world.send(format!("PASS {PASSWORD}\r\n").as_bytes(), usize::MAX);
    assert!(world.output.ends_with(b"+OK begin TLS\r\n-ERR USER first\r\n"));
}

#[test]
fn a_long_list_is_written_in_pieces() {
    let mut machine = Session::new(options(true), Instant::now());
    let now = Instant::now();
    let mut sink = Vec::new();
    machine.handle_input(now, b"USER a\r\nPASS b\r\n");
    machine.poll_output(&mut sink);
    machine.poll_ask().unwrap();
    machine.handle_answer(now, Answer::Authenticated("a".into()));
    machine.poll_ask().unwrap();
    let many = vec![Entry { size: 1, uidl: "x".repeat(70).into() }; 100_000];
    machine.handle_answer(now, Answer::Opened(many));
    machine.handle_input(now, b"UIDL\r\n");
    let mut total = 0;
    loop {
        sink.clear();
        machine.poll_output(&mut sink);
        assert!(sink.len() < 70 * 1024, "{} bytes at once", sink.len());
        total += sink.len();
        if sink.ends_with(b"\r\n.\r\n") {
            break;
        }
        assert!(!sink.is_empty());
    }
    assert!(total > 7_000_000);
}

proptest! {
    #[test]
    fn nonsense_is_answered_and_never_panics(
        lines in proptest::collection::vec(
            prop_oneof![
                Just(b"USER alice".to_vec()),
                Just(b"PASS wonder land".to_vec()),
                Just(b"RETR 1".to_vec()),
                Just(b"TOP 2 1".to_vec()),
                Just(b"DELE 1".to_vec()),
                Just(b"UIDL".to_vec()),
                Just(b"AUTH PLAIN".to_vec()),
                Just(b"AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPXg=".to_vec()),
                Just(b"QUIT".to_vec()),
                proptest::collection::vec(any::<u8>(), 0..40),
                proptest::collection::vec(Just(b'x'), 0..3000),
            ],
            0..20,
        ),
        cut in 1usize..64,
        tls in any::<bool>(),
    ) {
        let mut world = World::new(options(tls));
        for line in lines {
            world.send(&line, cut);
            world.send(b"\r\n", cut);
            world.pass(4);
        }
        world.machine.handle_eof(world.now);
        world.settle();
        let ended = world.controls.contains(&Control::Close) || world.controls.contains(&Control::StartTls);
        prop_assert!(ended);
        prop_assert!(world.output.starts_with(b"+OK"));
    }
}
