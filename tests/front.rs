//! The front end with a line protocol of its own, over real sockets: plain, TLS, STARTTLS, late answers, panics, limits,
//! PROXY headers, want of descriptors, slow readers, stop.
#![allow(clippy::unwrap_used)] // helpers of tests may fail a test

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use weir::base::machine::{Control, Machine, TlsFacts};
use weir::config::limits::Limits;
use weir::config::settings::{ListenerTls, Tls};
use weir::front::meters::Meters;
use weir::front::service::{Admission, Answered, Later, Peer, Refusal, Service};
use weir::front::tls::TlsStore;
use weir::front::{Front, ListenerSetup, bind};

/// No test waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers each line; see `command`.
struct Lines {
    name: String,
    listener: usize,
    output: Vec<u8>,
    control: Option<Control>,
    ask: Option<String>,
    asking: bool,
    timeout: Option<Instant>,
    busy: bool,
}

impl Lines {
    fn say(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    fn command(&mut self, now: Instant, line: &str) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "ECHO" => self.say(rest),
            "ASK" => self.ask = Some(rest.to_owned()),
            "BIG" => self.say(&"x".repeat(rest.parse().unwrap())),
            "BUSY" => self.busy = true,
            "DONE" => {
                self.say("done");
                self.control = Some(Control::Close);
            }
            "PANIC" => panic!("asked for by the test"),
            "QUIT" => {
                self.say("bye");
                self.control = Some(Control::Close);
            }
            "STARTTLS" => {
                self.say("go ahead");
                self.control = Some(Control::StartTls);
            }
            "WHICH" => self.say(&format!("listener {}", self.listener)),
            "WAKE" => self.timeout = Some(now + Duration::from_millis(rest.parse().unwrap())),
            _ => self.say("what?"),
        }
    }
}

impl Machine for Lines {
    type Ask = String;
    type Answer = String;

    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> usize {
        if self.asking || self.ask.is_some() || self.control.is_some() {
            return 0;
        }
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return 0 };
        let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
        self.command(now, &line);
        end + 2
    }
    fn handle_answer(&mut self, _: Instant, answer: String) {
        self.asking = false;
        self.say(&answer);
    }
    fn handle_timeout(&mut self, _: Instant) {
        self.timeout = None;
        self.say("awake");
    }
    fn handle_tls(&mut self, _: Instant, facts: TlsFacts) {
        self.say(&format!("secure {}", facts.version));
    }
    fn handle_eof(&mut self, _: Instant) {
        self.say("you left");
        self.control = Some(Control::Close);
    }
    fn handle_stop(&mut self, _: Instant) {
        if !self.busy {
            self.say("stopping");
            self.control = Some(Control::Close);
        }
    }
    fn poll_output(&mut self, sink: &mut Vec<u8>) -> Option<Control> {
        sink.append(&mut self.output);
        self.control.take()
    }
    fn poll_ask(&mut self) -> Option<String> {
        let ask = self.ask.take();
        self.asking |= ask.is_some();
        ask
    }
    fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }
}

#[derive(Default)]
struct LineService {
    closed: AtomicUsize,
}

impl Service for LineService {
    type Machine = Lines;

    fn open(&self, _: Instant, peer: &Peer, tls: Option<TlsFacts>) -> Admission<Lines> {
        let secure = tls.map_or("plain", |facts| facts.version);
        let mut lines = Lines {
            name: peer.remote.to_string(),
            listener: peer.listener,
            output: Vec::new(),
            control: None,
            ask: None,
            asking: false,
            timeout: None,
            busy: false,
        };
        lines.say(&format!("hello {} {secure}", lines.name));
        Admission::Open(lines)
    }

    fn refuse(&self, why: Refusal, _: &Peer) -> Vec<u8> {
        format!("no {}\r\n", why.as_str()).into_bytes()
    }

    fn answer(&self, _: Instant, _: &Peer, ask: String, later: &mut dyn Later<String>) -> Answered<String> {
        match ask.as_str() {
            "later" => {
                let ticket = later.ticket();
                std::thread::spawn(move || ticket.answer("answered later".to_owned()));
                Answered::Later
            }
            "lost" => {
                drop(later.ticket());
                Answered::Later
            }
            "never" => Answered::Later,
            "panic" => panic!("asked for by the test"),
            other => Answered::Now(format!("answered {other}")),
        }
    }

    fn closed(&self, _: &Peer, _: Lines) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

struct Server {
    front: Front,
    service: Arc<LineService>,
    meters: Meters,
    folder: tempfile::TempDir,
    tls: Arc<TlsStore>,
}

fn setup(tls: ListenerTls) -> ListenerSetup {
    let limits = Limits { connections_per_ip: 10_000, connections_per_net: 10_000, ..Limits::default() };
    let address = "127.0.0.1:0".parse().unwrap();
    ListenerSetup { name: "one".into(), terms: "lines", address, tls, proxy_networks: vec![], trusted: vec![], limits }
}

fn serve(setups: Vec<ListenerSetup>) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let none = Tls::default();
    let tls = TlsStore::open(&none, folder.path(), "localhost").unwrap();
    let service = Arc::new(LineService::default());
    let meters = Meters::new().unwrap();
    let bound = bind(setups, 2, Vec::new()).unwrap();
    let front = bound.start(service.clone(), Some(&tls), meters.clone()).unwrap();
    Server { front, service, meters, folder, tls }
}

impl Server {
    fn renew(&self, setups: Vec<ListenerSetup>) -> Vec<String> {
        self.front.reloader().prepare(setups).unwrap().commit()
    }

    fn address(&self) -> SocketAddr {
        self.front.local_addrs()[0]
    }

    fn connect(&self) -> Client<TcpStream> {
        let mut client = Client::new(dial(self.address()));
        client.expect_start("hello 127.0.0.1:");
        client
    }

    /// A client that trusts exactly the certificate in the server's folder.
    fn session(&self) -> rustls::ClientConnection {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.folder.path().join("self-signed.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        rustls::ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
    }

    fn connect_tls(&self, stream: TcpStream) -> Client<rustls::StreamOwned<rustls::ClientConnection, TcpStream>> {
        Client::new(rustls::StreamOwned::new(self.session(), stream))
    }
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

struct Client<S: Read + Write>(BufReader<S>);

impl<S: Read + Write> Client<S> {
    fn new(stream: S) -> Self {
        Client(BufReader::new(stream))
    }
    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        self.0.get_mut().flush().unwrap();
    }
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
    fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }
    fn expect_start(&mut self, start: &str) {
        let line = self.line();
        assert!(line.starts_with(start), "{line:?} does not start with {start:?}");
    }
    fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(String::from_utf8_lossy(&rest), ""),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof), "{error}")
            }
        }
    }
}

fn until(what: &str, mut met: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !met() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_dialogue_reads_the_same_whole_and_cut_at_every_byte() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let dialogue = "ECHO one\r\nASK now\r\nASK later\r\nECHO two\r\nQUIT\r\n";
    let mut whole = server.connect();
    whole.send(dialogue);
    let mut cut = server.connect();
    for byte in dialogue.chars() {
        cut.send(&byte.to_string());
    }
    for client in [&mut whole, &mut cut] {
        for line in ["one", "answered now", "answered later", "two", "bye"] {
            client.expect(line);
        }
        client.expect_end();
    }
    until("both are counted as closed", || server.service.closed.load(Ordering::Relaxed) == 2);
    until("their places are free", || server.front.connections() == 0);
    assert_eq!(server.meters.late_answers.get(), 2);
}

#[test]
fn the_end_of_input_comes_after_what_was_sent_before_it() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let mut client = server.connect();
    client.send("ASK later\r\nECHO last\r\nhalf a li");
    client.0.get_mut().shutdown(Shutdown::Write).unwrap();
    for line in ["answered later", "last", "you left"] {
        client.expect(line);
    }
    client.expect_end();
}

#[test]
fn tls_from_the_first_byte_and_on_demand() {
    let server = serve(vec![setup(ListenerTls::Implicit), setup(ListenerTls::StartTls)]);
    let mut implicit = server.connect_tls(dial(server.front.local_addrs()[0]));
    let hello = implicit.line();
    assert!(hello.ends_with("TLSv1.3"), "{hello}");
    implicit.send("ECHO secret\r\nASK later\r\nBIG 200000\r\nQUIT\r\n");
    implicit.expect("secret");
    implicit.expect("answered later");
    assert_eq!(implicit.line().len(), 200_000);
    implicit.expect("bye");
    implicit.expect_end();

    let mut plain = Client::new(dial(server.front.local_addrs()[1]));
    plain.expect_start("hello");
    // What an attacker puts behind STARTTLS must not be run inside TLS.
    plain.send("STARTTLS\r\nECHO injected\r\n");
    plain.expect("go ahead");
    let mut upgraded = server.connect_tls(plain.0.into_inner());
    upgraded.send("ECHO mine\r\n");
    upgraded.expect("secure TLSv1.3");
    upgraded.expect("mine");
    assert_eq!(server.meters.handshakes.with_label_values(&["TLSv1.3"]).get(), 2);
}

#[test]
fn tls_cut_at_every_byte_and_garbage_instead_of_it() {
    let server = serve(vec![setup(ListenerTls::Implicit)]);
    let mut socket = dial(server.address());
    let mut session = server.session();
    session.writer().write_all(b"ECHO cut\r\n").unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("cut\r\n") {
        let mut flight = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut flight).unwrap();
        }
        flight.iter().for_each(|byte| socket.write_all(&[*byte]).unwrap());
        if session.wants_read() {
            session.read_tls(&mut socket).unwrap();
            session.process_new_packets().unwrap();
        }
        let _ = session.reader().read_to_end(&mut seen);
    }
    let mut garbage = Client::new(dial(server.address()));
    garbage.send("EHLO not-tls\r\n\r\n\r\n\r\n");
    let mut alert = Vec::new();
    let _ = garbage.0.read_to_end(&mut alert);
    until("the failed handshake is counted", || server.meters.handshakes.with_label_values(&["failed"]).get() == 1);
}

#[test]
fn a_new_certificate_is_used_without_a_restart() {
    let server = serve(vec![setup(ListenerTls::Implicit)]);
    let mut old = server.connect_tls(dial(server.address()));
    old.expect_start("hello");
    for name in ["self-signed.pem", "self-signed.key"] {
        std::fs::remove_file(server.folder.path().join(name)).unwrap();
    }
    TlsStore::open(&Tls::default(), server.folder.path(), "localhost").unwrap();
    assert!(server.tls.reload().unwrap());
    let mut new = server.connect_tls(dial(server.address()));
    new.expect_start("hello");
    old.send("ECHO still here\r\n");
    old.expect("still here");
}

#[test]
fn panics_and_lost_questions_end_only_their_conversation() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let mut bystander = server.connect();
    for command in ["PANIC\r\n", "ASK panic\r\n", "ASK lost\r\n", "ASK never\r\n"] {
        let mut victim = server.connect();
        victim.send(command);
        victim.expect_end();
    }
    bystander.send("ECHO unharmed\r\n");
    bystander.expect("unharmed");
    assert_eq!(server.meters.panics.get(), 2);
    assert_eq!(server.meters.lost_questions.get(), 2);
    until("their places are free", || server.front.connections() == 1);
}

#[test]
fn timeouts_fire_and_a_silent_handshake_ends() {
    let mut slow = setup(ListenerTls::Implicit);
    slow.limits.handshake_timeout = Duration::from_millis(200);
    let server = serve(vec![setup(ListenerTls::None), slow]);
    let mut client = server.connect();
    client.send("WAKE 150\r\n");
    let asked = Instant::now();
    client.expect("awake");
    assert!(asked.elapsed() >= Duration::from_millis(150), "early");
    Client::new(dial(server.front.local_addrs()[1])).expect_end();
    assert_eq!(server.meters.handshakes.with_label_values(&["timeout"]).get(), 1);
    assert_eq!(server.meters.timeouts.with_label_values(&["handshake_timeout"]).get(), 1);
}

#[test]
fn a_slow_reader_stops_the_conversation_and_not_the_memory() {
    let server = serve(vec![setup(ListenerTls::None), setup(ListenerTls::Implicit)]);
    let mut bystander = server.connect();
    for implicit in [false, true] {
        let socket = dial(server.front.local_addrs()[usize::from(implicit)]);
        socket2::SockRef::from(&socket).set_recv_buffer_size(4096).unwrap();
        let mut writer = socket.try_clone().unwrap();
        writer.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let before = server.meters.bytes_in.get();
        let mut sent = 0;
        if implicit {
            let mut client = server.connect_tls(socket);
            client.expect_start("hello");
            // Each line asks for a hundred times its size; nobody reads.
            while client.0.get_mut().write_all(b"BIG 1000\r\n").is_ok() {
                sent += 10;
                assert!(sent < 64 << 20, "the server takes commands without end");
            }
        } else {
            while writer.write_all(b"BIG 1000\r\n").is_ok() {
                sent += 10;
                assert!(sent < 64 << 20, "the server takes commands without end");
            }
        }
        // What the server took made at most its bound of output, and what the kernel's buffers hold.
        let taken = server.meters.bytes_in.get() - before;
        assert!(taken < 1 << 20, "{taken} bytes of commands were taken for nobody");
    }
    bystander.send("ECHO unharmed\r\n");
    bystander.expect("unharmed");
}

#[test]
fn a_peer_that_never_reads_is_given_up() {
    let mut impatient = setup(ListenerTls::None);
    impatient.limits.command_timeout = Duration::from_millis(300);
    let server = serve(vec![impatient]);
    let mut client = server.connect();
    client.send("BIG 20000000\r\nQUIT\r\n");
    until("its place is free", || server.front.connections() == 0);
    assert_eq!(server.meters.timeouts.with_label_values(&["command_timeout"]).get(), 1);
}

#[test]
fn who_shakes_hands_too_often_is_told_at_the_next_connection() {
    let mut strict = setup(ListenerTls::StartTls);
    strict.limits.handshakes_per_minute = 3;
    let mut trusted = strict.clone();
    trusted.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let server = serve(vec![strict, trusted]);
    let shake = |place: usize| {
        let mut plain = Client::new(dial(server.front.local_addrs()[place]));
        let hello = plain.line();
        if !hello.starts_with("hello") {
            return hello;
        }
        plain.send("STARTTLS\r\n");
        plain.expect("go ahead");
        server.connect_tls(plain.0.into_inner()).line()
    };
    for _ in 0..5 {
        assert_eq!(shake(1), "secure TLSv1.3", "a host of ours may");
    }
    // A new minute may begin among them, and forgets.
    let told: Vec<String> = (0..8).map(|_| shake(0)).collect();
    assert!(told[..3].iter().all(|line| line == "secure TLSv1.3"), "{told:?}");
    let refused = told.iter().filter(|line| *line == "no handshakes").count();
    assert!(refused >= 2, "{told:?}");
    let label = server.address().to_string();
    assert_eq!(server.meters.refused.with_label_values(&[&label, "handshakes"]).get(), refused as u64);
}

#[test]
fn a_newcomer_displaces_the_idlest() {
    let mut full = setup(ListenerTls::None);
    full.limits = Limits { connections: 2, connections_reserved: 0, ..Limits::default() };
    let server = serve(vec![full]);
    let (mut first, _second) = (server.connect(), server.connect());
    // Nobody is idle for long enough yet.
    Client::new(dial(server.address())).expect("no total");
    until("the newcomer is let in", || {
        std::thread::sleep(Duration::from_millis(200));
        Client::new(dial(server.address())).line().starts_with("hello")
    });
    // The two may live on different reactors, and a newcomer displaces one of its own.
    assert!(server.meters.shed.get() >= 1);
    first.0.get_mut().shutdown(Shutdown::Write).unwrap();
    let line = first.line();
    assert!(["stopping", "you left"].contains(&line.as_str()), "{line}");
}

#[test]
fn a_reader_that_comes_back_gets_every_byte() {
    let server = serve(vec![setup(ListenerTls::None), setup(ListenerTls::Implicit)]);
    let commands = format!("{}QUIT\r\n", "BIG 100000\r\n".repeat(200));
    // A reader that came back just when the socket was tried in vain was forgotten, in one of thirty turns.
    for _ in 0..60 {
        let mut plain = server.connect();
        let mut secure = server.connect_tls(dial(server.front.local_addrs()[1]));
        secure.expect_start("hello");
        plain.send(&commands);
        secure.send(&commands);
        for _ in 0..200 {
            assert_eq!((plain.line().len(), secure.line().len()), (100_000, 100_000));
        }
        plain.expect("bye");
        secure.expect("bye");
    }
}

#[test]
fn fifteen_hundred_conversations_at_once() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let mut clients: Vec<_> = (0..1500).map(|_| server.connect()).collect();
    assert_eq!(server.front.connections(), 1500);
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(&format!("ECHO {number}\r\nASK later\r\n"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect(&number.to_string());
        client.expect("answered later");
    }
    drop(clients);
    until("all are gone", || server.front.connections() == 0);
}

#[test]
fn each_limit_has_its_answer_and_its_count() {
    let mut per_ip = setup(ListenerTls::None);
    per_ip.limits = Limits { connections_per_ip: 2, ..Limits::default() };
    let mut total = setup(ListenerTls::None);
    total.limits = Limits { connections: 4, connections_reserved: 1, ..Limits::default() };
    let mut trusted = total.clone();
    trusted.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let server = serve(vec![per_ip, total, trusted]);
    let addresses = server.front.local_addrs().to_vec();
    let greeted = |listener: usize| {
        let mut client = Client::new(dial(addresses[listener]));
        let line = client.line();
        (client, line)
    };
    let kept: Vec<_> = [0, 0, 1].into_iter().map(|listener| greeted(listener).0).collect();
    assert_eq!(greeted(0).1, "no per_ip");
    assert_eq!(greeted(1).1, "no total", "the last place is reserved");
    let (_last, line) = greeted(2);
    assert!(line.starts_with("hello"), "{line}");
    assert_eq!(greeted(2).1, "no total");
    for (listener, reason) in [(0, "per_ip"), (1, "total"), (2, "total")] {
        let label = addresses[listener].to_string();
        assert_eq!(server.meters.refused.with_label_values(&[&label, reason]).get(), 1);
    }
    drop(kept);
    until("a place is free", || server.front.connections() == 1);
    assert!(greeted(0).1.starts_with("hello"));
}

#[test]
fn the_proxy_header_is_believed_from_its_networks_and_needed_there() {
    let mut proxied = setup(ListenerTls::None);
    proxied.proxy_networks = vec!["127.0.0.0/8".parse().unwrap()];
    proxied.limits.handshake_timeout = PATIENCE;
    let mut implicit = proxied.clone();
    implicit.tls = ListenerTls::Implicit;
    let mut foreign = setup(ListenerTls::None);
    foreign.proxy_networks = vec!["192.0.2.0/24".parse().unwrap()];
    let mut hurried = proxied.clone();
    hurried.limits.handshake_timeout = Duration::from_millis(200);
    let server = serve(vec![proxied, implicit, foreign, hurried]);
    let at = |listener: usize| dial(server.front.local_addrs()[listener]);

    let mut text = Client::new(at(0));
    for byte in "PROXY TCP4 203.0.113.9 127.0.0.1 4711 25\r\nECHO behind\r\n".chars() {
        text.send(&byte.to_string());
    }
    text.expect("hello 203.0.113.9:4711 plain");
    text.expect("behind");

    let mut binary =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f\xcb\x00\x71\x0a\x7f\x00\x00\x01\x12\x67\x00\x19\x04\x00\x00".to_vec();
    binary.extend_from_slice(b"ECHO behind\r\n");
    let mut client = Client::new(at(0));
    client.0.get_mut().write_all(&binary).unwrap();
    client.expect("hello 203.0.113.10:4711 plain");
    client.expect("behind");

    let mut local = Client::new(at(0));
    local.0.get_mut().write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00").unwrap();
    local.expect_start("hello 127.0.0.1:");

    let mut stream = at(1);
    stream.write_all(b"PROXY TCP6 2001:db8::5 ::1 4711 465\r\n").unwrap();
    server.connect_tls(stream).expect("hello [2001:db8::5]:4711 TLSv1.3");

    for wrong in ["EHLO x\r\n", "PROXY TCP4 300.0.0.1 127.0.0.1 1 2\r\n"] {
        let mut client = Client::new(at(0));
        client.send(wrong);
        client.expect_end();
    }
    Client::new(at(3)).expect_end(); // says nothing at all
    assert_eq!(server.meters.proxy_errors.get(), 2);
    assert_eq!(server.meters.timeouts.with_label_values(&["handshake_timeout"]).get(), 1);

    let mut stranger = Client::new(at(2));
    stranger.send("PROXY TCP4 203.0.113.9 127.0.0.1 4711 25\r\n");
    stranger.expect_start("hello 127.0.0.1:");
    stranger.expect("what?");
}

#[test]
fn stopping_lets_work_finish_and_cuts_what_does_not() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let address = server.address();
    let [mut idle, mut busy, mut endless] = [server.connect(), server.connect(), server.connect()];
    for client in [&mut busy, &mut endless] {
        client.send("BUSY\r\nECHO noted\r\n");
        client.expect("noted");
    }
    let Server { front, service, .. } = server;
    let stopper = std::thread::spawn(move || front.stop(Duration::from_secs(8)));
    idle.expect("stopping");
    idle.expect_end();
    until("nobody listens", || TcpStream::connect(address).is_err());
    busy.send("DONE\r\n");
    busy.expect("done");
    busy.expect_end();
    endless.expect_end();
    let stopped = stopper.join().unwrap();
    assert_eq!((stopped.finished, stopped.cut), (2, 1));
    assert_eq!(service.closed.load(Ordering::Relaxed), 3);
}

#[test]
fn new_settings_hold_for_the_next_connection() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let mut kept = server.connect();
    let mut changed = setup(ListenerTls::None);
    changed.limits.connections = 1;
    assert!(server.renew(vec![changed]).is_empty(), "the same listener, under other limits");
    Client::new(dial(server.address())).expect("no total");
    kept.send("ECHO kept\r\n");
    kept.expect("kept");
}

#[test]
fn listeners_come_and_go_and_what_is_connected_goes_on() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let first = server.address();
    let mut kept = server.connect();
    let second = ListenerSetup { name: "two".into(), ..setup(ListenerTls::Implicit) };
    let told = server.renew(vec![setup(ListenerTls::None), second.clone()]);
    let new = server.front.local_addrs()[1];
    assert_eq!(told, [format!("listener two at {new}: new")]);
    server.connect_tls(dial(new)).expect_start("hello");
    server.connect();

    let told = server.renew(vec![second.clone()]);
    assert_eq!(told, [format!("listener one at {first}: closed; its connections go on: 1")]);
    assert_eq!(server.front.local_addrs(), [new]);
    assert_eq!(TcpStream::connect(first).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    kept.send("WHICH\r\nASK later\r\n");
    kept.expect("listener 0");
    kept.expect("answered later");

    // The number of the one that is gone is given away only once nobody is connected under it.
    let which = |place: usize| {
        let mut client = Client::new(dial(server.front.local_addrs()[place]));
        client.expect_start("hello");
        client.send("WHICH\r\n");
        client.line()
    };
    let third = ListenerSetup { name: "three".into(), ..setup(ListenerTls::None) };
    server.renew(vec![second.clone(), third.clone()]);
    assert_eq!(which(1), "listener 2");
    kept.send("QUIT\r\n");
    kept.expect("bye");
    kept.expect_end();
    let fourth = ListenerSetup { name: "four".into(), ..setup(ListenerTls::None) };
    until("its number is free", || {
        server.renew(vec![second.clone(), third.clone(), fourth.clone()]);
        let number = which(2);
        server.renew(vec![second.clone(), third.clone()]);
        number == "listener 0"
    });
}

#[test]
fn other_terms_at_the_same_address_are_for_new_connections() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let address = server.address();
    let mut old = server.connect();
    let secure = ListenerSetup { terms: "others", ..setup(ListenerTls::Implicit) };
    assert_eq!(server.renew(vec![secure]), [format!("listener one at {address}: changed, for new connections")]);
    assert_eq!(server.address(), address, "the sockets stay, and so does the port that the system chose");
    let mut new = server.connect_tls(dial(address));
    new.expect_start("hello");
    new.send("WHICH\r\n");
    new.expect("listener 1");
    old.send("WHICH\r\n");
    old.expect("listener 0");
}

#[test]
fn an_address_that_cant_be_bound_leaves_all_as_it_is() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let theirs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let named = |name: &str| ListenerSetup { name: name.into(), ..setup(ListenerTls::None) };
    let taken = ListenerSetup { address: theirs.local_addr().unwrap(), ..named("taken") };
    let before = server.front.local_addrs();
    let fault = server.front.reloader().prepare(vec![named("free"), taken]).err().unwrap();
    assert_eq!(fault.kind(), ErrorKind::AddrInUse);
    assert!(fault.to_string().starts_with("listener taken at 127.0.0.1:"), "{fault}");
    assert_eq!(server.front.local_addrs(), before);
    server.connect();
    drop(server.front.reloader().prepare(vec![]).unwrap());
    server.connect();
}

#[test]
fn no_connection_is_lost_while_terms_change_to_and_fro() {
    let server = serve(vec![setup(ListenerTls::None)]);
    let with_terms = |terms| ListenerSetup { terms, ..setup(ListenerTls::None) };
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| (0..400).for_each(|_| drop(server.connect())));
        let mut rounds = 0;
        while !clients.is_finished() {
            server.renew(vec![with_terms(if rounds % 2 == 0 { "others" } else { "lines" })]);
            rounds += 1;
        }
        assert!(rounds > 10, "{rounds} reloads");
    });
}

#[test]
fn a_listener_may_move_from_all_addresses_to_one_and_back() {
    let server = serve(vec![ListenerSetup { address: "0.0.0.0:0".parse().unwrap(), ..setup(ListenerTls::None) }]);
    let port = server.address().port();
    for address in [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([0, 0, 0, 0], port))] {
        server.renew(vec![ListenerSetup { address, ..setup(ListenerTls::None) }]);
        assert_eq!(server.front.local_addrs(), [address]);
        Client::new(dial(SocketAddr::from(([127, 0, 0, 1], port)))).expect_start("hello");
        let other = TcpStream::connect(SocketAddr::from(([127, 0, 0, 2], port)));
        assert_eq!(other.is_ok(), address.ip().is_unspecified());
    }
    // One address may also be another listener than all the others.
    let narrow = ListenerSetup { address: SocketAddr::from(([127, 0, 0, 1], port)), ..setup(ListenerTls::Implicit) };
    let both = [ListenerSetup { address: SocketAddr::from(([0, 0, 0, 0], port)), ..setup(ListenerTls::None) }, narrow];
    server.renew(both.to_vec());
    server.connect_tls(dial(both[1].address)).expect_start("hello");
    Client::new(dial(SocketAddr::from(([127, 0, 0, 2], port)))).expect_start("hello");
}

/// Runs in a process of its own, because the limit of descriptors is the process's.
#[test]
fn without_descriptors_it_waits_and_recovers() {
    const MARK: &str = "WEIR_TEST_CHILD";
    if std::env::var_os(MARK).is_none() {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["without_descriptors_it_waits_and_recovers", "--exact", "--nocapture"]).env(MARK, "1");
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }
    let server = serve(vec![setup(ListenerTls::None)]);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let mut clients: Vec<TcpStream> = (0..30).map(|_| dial(server.address())).collect();
    until("all are accepted", || server.front.connections() == 30);
    // These need no more descriptors here, but the server has five for the sixteen.
    let more: Vec<_> =
        (0..16).map(|_| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap()).collect();
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let tight = rustix::process::Rlimit { current: Some(used + 5), ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, tight).unwrap();
    more.iter().for_each(|socket| socket.connect(&server.address().into()).unwrap());
    until("the want is noticed", || server.meters.accept_pauses.get() >= 2);
    let cpu = cpu_seconds();
    std::thread::sleep(Duration::from_millis(500));
    assert!(cpu_seconds() - cpu < 0.25, "the server spins");
    clients.truncate(5);
    let mut late = Client::new(dial(server.address()));
    late.expect_start("hello");
}

/// Plays systemd by a few lines of Python: a listening socket as descriptor 3, then this test again in the same process.
#[test]
fn sockets_of_systemd_are_taken_over() {
    const SYSTEMD: &str = "import os, socket, sys
listener = socket.socket()
listener.bind(('127.0.0.1', 0))
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', WEIR_TEST_PORT=str(listener.getsockname()[1]))
os.execv(sys.argv[1], sys.argv[1:])";
    let Ok(port) = std::env::var("WEIR_TEST_PORT") else {
        let mut child = std::process::Command::new("python3");
        child.args(["-c", SYSTEMD]).arg(std::env::current_exe().unwrap());
        let output = child.args(["sockets_of_systemd_are_taken_over", "--exact", "--nocapture"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    };
    let sockets = weir::front::systemd::activated_sockets();
    assert_eq!(sockets.len(), 1);
    let address = SocketAddr::new("127.0.0.1".parse().unwrap(), port.parse().unwrap());
    let listener = ListenerSetup { address, ..setup(ListenerTls::None) };
    let bound = bind(vec![listener.clone()], 2, sockets).unwrap();
    let front = bound.start(Arc::new(LineService::default()), None, Meters::new().unwrap()).unwrap();
    let greeted = || (0..10).for_each(|_| Client::new(dial(address)).expect_start("hello"));
    greeted();
    // A reload that drops the listener leaves the socket with us, since nobody else could bind it, and the next one takes it again.
    let told = front.reloader().prepare(vec![]).unwrap().commit();
    assert!(told[0].ends_with("closed; systemd still holds the port: take it out of weir.socket too"), "{told:?}");
    assert_eq!(front.reloader().prepare(vec![listener]).unwrap().commit(), [format!("listener one at {address}: new")]);
    greeted();
    assert!(front.is_whole());
    front.stop(PATIENCE);
}

fn cpu_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
