//! The client machine against the server machine: no sockets, virtual time, everything that may vary drawn from a seed that is printed.
//!
//! Whatever is cut, delayed, refused or lost: what the client counts as delivered is what the server asked to keep and
//! answered 250, byte for byte; what was kept without the client's knowing is at most the one message whose answer was lost.
//! `WEIR_SIM_SEED=N WEIR_SIM_HISTORIES=N cargo test --test simulation` repeats one or runs more.

#[path = "support/dialog.rs"]
mod dialog;
#[path = "support/session.rs"]
mod session;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fastrand::Rng;
use weir::base::content::ContentSource;
use weir::base::machine::{Control, Machine};
use weir::config::settings::{DeliverTls, Role};
use weir::smtp::client::Protocol;
use weir::smtp::client::capabilities::Capabilities;
use weir::smtp::client::content::{ContentNeeds, DataPieces, data_end};
use weir::smtp::client::handshake::{Handshake, HandshakeOptions, Next};
use weir::smtp::client::plan::{Link, Plan, Tail};
use weir::smtp::client::reply::{RemoteReply, ReplyReader};
use weir::smtp::client::transaction::{Progress, Transaction, Verdict};
use weir::smtp::server::Session;
use weir::smtp::server::ask::{Answer, Ask, Received};
use weir::wire::address::Mailbox;
use weir::wire::envelope::{Envelope, Origin, Recipient};
use weir::wire::reply::{Enhanced, Reply};

const HISTORIES: u64 = 3000;
/// Far more events than any history needs; one that takes more hangs.
const EVENTS_MAX: usize = 100_000;
const OK: Reply = Reply::fixed(250, Enhanced(2, 0, 0), "Ok");
const LATER: Reply = Reply::fixed(451, Enhanced(4, 3, 0), "Later");
const NEVER: Reply = Reply::fixed(550, Enhanced(5, 7, 1), "Never");

/// `(message, recipient)`, and its content by the message's number.
type Fates = BTreeSet<(usize, String)>;

/// What is drawn once a history.
struct Chances {
    pipelining: bool,
    chunking: bool,
    lmtp: bool,
    /// Largest piece that the network carries at once.
    piece: usize,
    /// One event in so many loses the connection; 0: never.
    cut: usize,
    /// One event in so many takes ten minutes; 0: never.
    stall: usize,
    /// One question in so many is answered with a refusal; 0: never.
    refuse: usize,
}

impl Chances {
    fn draw(rng: &mut Rng) -> Self {
        let rarely = |rng: &mut Rng, among: usize| if rng.u8(..3) == 0 { rng.usize(2..among) } else { 0 };
        Chances {
            pipelining: rng.bool(),
            chunking: rng.bool(),
            lmtp: rng.u8(..3) == 0,
            piece: if rng.bool() { 1 + rng.usize(..20) } else { 1 + rng.usize(..5000) },
            cut: rarely(rng, 400),
            stall: rarely(rng, 400),
            refuse: rarely(rng, 6),
        }
    }
}

enum Talk {
    Handshake(Handshake),
    Transaction(Transaction),
    Quitting,
}

/// The sending side.
struct Client {
    talk: Option<Talk>,
    replies: ReplyReader,
    offers: Capabilities,
    messages: Vec<(Envelope, Vec<u8>)>,
    /// The message under way or next.
    current: usize,
    delivered: Fates,
    out: Vec<u8>,
}

impl Client {
    fn new(messages: Vec<(Envelope, Vec<u8>)>, protocol: Protocol) -> Self {
        let options = HandshakeOptions {
            protocol,
            hello: "client.test".into(),
            tls: DeliverTls::None,
            encrypted: false,
            login: None,
            nonce: String::new(),
        };
        Client {
            talk: Some(Talk::Handshake(Handshake::new(options))),
            replies: ReplyReader::default(),
            offers: Capabilities::default(),
            messages,
            current: 0,
            delivered: Fates::new(),
            out: Vec::new(),
        }
    }

    fn handle_input(&mut self, bytes: &[u8], chances: &Chances) {
        self.replies.feed(bytes);
        while let Some(reply) = self.replies.next_reply().expect("the server speaks SMTP") {
            self.handle_reply(reply, chances);
        }
    }

    fn handle_reply(&mut self, reply: RemoteReply, chances: &Chances) {
        match self.talk.take() {
            Some(Talk::Handshake(mut handshake)) => match handshake.handle_reply(reply, &mut self.out) {
                Next::Await => self.talk = Some(Talk::Handshake(handshake)),
                Next::Ready => {
                    self.offers = handshake.into_capabilities();
                    self.offers.pipelining &= chances.pipelining;
                    self.offers.chunking &= chances.chunking;
                    self.begin(false, chances);
                }
                Next::Failed(_) | Next::StartTls => {}
            },
            Some(Talk::Transaction(mut transaction)) => match transaction.handle_reply(reply, &mut self.out) {
                Progress::Await => self.talk = Some(Talk::Transaction(transaction)),
                Progress::Content(tail) => {
                    self.send_content(tail);
                    self.talk = Some(Talk::Transaction(transaction));
                }
                Progress::Done { reset } => {
                    self.count(transaction);
                    self.current += 1;
                    self.begin(reset, chances);
                }
            },
            Some(Talk::Quitting) | None => {}
        }
    }

    fn begin(&mut self, reset: bool, chances: &Chances) {
        let Some((envelope, content)) = self.messages.get(self.current) else {
            self.out.extend_from_slice(b"QUIT\r\n");
            self.talk = Some(Talk::Quitting);
            return;
        };
        let protocol = if chances.lmtp { Protocol::Lmtp } else { Protocol::Smtp };
        let to = envelope.recipients.iter();
        let needs = ContentNeeds::of(content);
        let plan =
            Plan::new(envelope, to.clone(), needs, content.len() as u64, &self.offers, Link::Plain).expect("it fits");
        let transaction = Transaction::begin(protocol, &self.offers, &plan, envelope, to, reset, &mut self.out);
        self.talk = Some(Talk::Transaction(transaction));
    }

    fn send_content(&mut self, tail: Tail) {
        let content = &self.messages[self.current].1;
        match tail {
            Tail::Data { repair } => {
                DataPieces::new(content, repair).for_each(|piece| self.out.extend_from_slice(piece));
                self.out.extend_from_slice(data_end(content, repair));
            }
            Tail::Bdat => {
                self.out.extend_from_slice(format!("BDAT {} LAST\r\n", content.len()).as_bytes());
                self.out.extend_from_slice(content);
            }
            Tail::LoneDot => self.out.extend_from_slice(b".\r\n"),
        }
    }

    fn count(&mut self, transaction: Transaction) {
        let recipients = self.messages[self.current].0.recipients.iter();
        for (recipient, verdict) in recipients.zip(transaction.into_verdicts()) {
            if matches!(verdict, Some(Verdict::Accepted(_))) {
                self.delivered.insert((self.current, recipient.mailbox.to_string()));
            }
        }
    }
}

/// Both sides and the network between them.
struct World {
    rng: Rng,
    now: Instant,
    chances: Chances,
    client: Client,
    server: Session,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    asked: Option<Ask>,
    closed: bool,
    /// Lost, or too slow for somebody.
    troubled: bool,
    kept: Fates,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let chances = Chances::draw(&mut rng);
        let (role, protocol) = if chances.lmtp { (Role::Lmtp, Protocol::Lmtp) } else { (Role::Relay, Protocol::Smtp) };
        let mut settings = session::settings(role);
        settings.limits.recipients = rng.u32(1..8);
        let messages = (0..rng.usize(1..5)).map(|number| message(&mut rng, number, chances.chunking)).collect();
        let now = Instant::now();
        let peer = "192.0.2.1".parse().expect("an address");
        World {
            server: Session::new(Arc::new(settings), ContentSource::unbounded(), peer, 40000, None, now),
            client: Client::new(messages, protocol),
            rng,
            now,
            chances,
            to_server: Vec::new(),
            to_client: Vec::new(),
            asked: None,
            closed: false,
            troubled: false,
            kept: Fates::new(),
        }
    }

    fn one_in(&mut self, among: usize) -> bool {
        among > 0 && self.rng.usize(..among) == 0
    }

    /// One event; false when there is nothing left to happen.
    fn event(&mut self) -> bool {
        self.now += Duration::from_millis(self.rng.u64(..50));
        if self.one_in(self.chances.stall) {
            self.now += Duration::from_secs(600);
        }
        if self.server.poll_timeout().is_some_and(|at| at <= self.now) {
            self.server.handle_timeout(self.now);
            self.troubled = true;
        }
        if !self.closed && self.one_in(self.chances.cut) {
            self.lose();
        }
        self.exchange();
        !(self.to_server.is_empty() && self.to_client.is_empty() && self.asked.is_none())
    }

    fn exchange(&mut self) {
        self.poll_server();
        match self.rng.u8(..3) {
            0 if self.asked.is_some() => {
                let ask = self.asked.take().expect("it was looked at");
                let answer = self.answer(ask);
                self.server.handle_answer(self.now, answer);
            }
            1 => {
                let bytes = self.rng.usize(..=self.chances.piece).min(self.to_server.len());
                let used = self.server.handle_input(self.now, &self.to_server[..bytes]);
                assert!(used == 0 || self.asked.is_none(), "consumed while a question is open");
                self.to_server.drain(..used);
            }
            _ => {
                let bytes = self.rng.usize(..=self.chances.piece).min(self.to_client.len());
                let piece: Vec<u8> = self.to_client.drain(..bytes).collect();
                self.client.handle_input(&piece, &self.chances);
            }
        }
        self.poll_server();
        let said = std::mem::take(&mut self.client.out);
        if !self.closed {
            self.to_server.extend(said);
        }
    }

    fn poll_server(&mut self) {
        let mut out = Vec::new();
        let control = self.server.poll_output(&mut out);
        if !self.closed {
            self.to_client.extend(out);
        }
        if control == Some(Control::Close) {
            self.closed = true;
            self.to_server.clear();
        }
        if self.asked.is_none() {
            self.asked = self.server.poll_ask();
        }
    }

    /// The connection breaks; what was under way in either direction is gone.
    fn lose(&mut self) {
        self.troubled = true;
        self.closed = true;
        self.to_server.clear();
        self.to_client.clear();
        self.server.handle_eof(self.now);
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        let refusal = self.one_in(self.chances.refuse).then(|| if self.rng.bool() { LATER } else { NEVER });
        match (ask, refusal) {
            (Ask::Message(received), refusal) => Answer::Message(self.judge(&received, refusal)),
            (Ask::Connect { .. } | Ask::Hello { .. }, _) | (_, None) => Answer::Go,
            (_, Some(reply)) => Answer::Refuse(reply),
        }
    }

    /// Keeps the message for all, or for LMTP for each by itself, or not.
    fn judge(&mut self, received: &Received, refusal: Option<Reply>) -> Vec<Reply> {
        let envelope = &received.envelope;
        let sender = envelope.reverse_path.as_ref().expect("ours have one").local_part();
        let number: usize = sender[1..].parse().expect("`m` and the number");
        assert!(received.content[..] == self.client.messages[number].1[..], "message {number} is not what was sent");
        let mut replies = Vec::new();
        for recipient in &envelope.recipients {
            let refused = self.chances.lmtp && self.one_in(self.chances.refuse);
            let reply = refusal.clone().or(refused.then_some(LATER)).unwrap_or(OK);
            if reply == OK {
                let new = self.kept.insert((number, recipient.mailbox.to_string()));
                assert!(new, "message {number} was taken twice");
            }
            replies.push(reply);
        }
        if !self.chances.lmtp {
            replies.truncate(1);
        }
        replies
    }

    fn check(&self) {
        let delivered = &self.client.delivered;
        assert!(delivered.is_subset(&self.kept), "counted as delivered and not kept: {delivered:?}, {:?}", self.kept);
        let unknown: BTreeSet<usize> = self.kept.difference(delivered).map(|(number, _)| *number).collect();
        assert!(unknown.len() <= usize::from(self.troubled), "kept and not known: {unknown:?}");
        if !self.troubled {
            assert!(self.closed && self.client.current == self.client.messages.len(), "it came to no end");
        }
    }
}

fn message(rng: &mut Rng, number: usize, chunking: bool) -> (Envelope, Vec<u8>) {
    let mailbox = |text: String| Mailbox::parse(&text, false).expect("an address");
    let recipients = (0..rng.usize(1..6)).map(|n| Recipient::plain(mailbox(format!("r{n}@b.example")))).collect();
    let sender = Some(mailbox(format!("m{number}@a.example")));
    let envelope = Envelope::plain(Origin::local("relay"), sender, recipients);
    let mut pieces = vec!["a", ".", "..", "\r\n", "\r\n.\r\n", "\r\n..", "QUIT\r\n", "Subject: x\r\n", "é"];
    if chunking {
        pieces.extend(["\n", "\r", "\n.\n"]);
    }
    let mut content: String = (0..rng.usize(..60)).map(|_| pieces[rng.usize(..pieces.len())]).collect();
    content.push_str("\r\n");
    (envelope, content.into_bytes())
}

fn history(seed: u64) -> (usize, bool) {
    let mut world = World::new(seed);
    world.exchange();
    let mut idle = 0;
    for _ in 0..EVENTS_MAX {
        // A piece of no bytes may be drawn many times; only a long silence is the end.
        idle = if world.event() { 0 } else { idle + 1 };
        if idle > 20 {
            world.check();
            return (world.client.delivered.len(), world.troubled);
        }
    }
    panic!("it does not end");
}

#[test]
fn what_the_client_counts_is_what_the_server_keeps() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    let first = number("WEIR_SIM_SEED").unwrap_or(clock);
    let histories = number("WEIR_SIM_HISTORIES").unwrap_or(HISTORIES);
    let (mut delivered, mut troubled) = (0, 0);
    for seed in (0..histories).map(|n| first.wrapping_add(n)) {
        let ran = std::panic::catch_unwind(|| history(seed));
        let (count, trouble) = ran.unwrap_or_else(|_| panic!("WEIR_SIM_SEED={seed} WEIR_SIM_HISTORIES=1 repeats it"));
        delivered += count;
        troubled += u64::from(trouble);
    }
    println!("{histories} histories from seed {first}: {delivered} delivered, {troubled} with trouble");
    assert!(delivered as u64 > histories && troubled > histories / 20, "the histories prove something");
}
