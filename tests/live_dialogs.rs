//! Every dialogue file against the live gateway: over sockets, with real TLS, users and spool, the replies are byte for
//! byte those that the machine gives without them, but for queue ids and the client's address.

#[path = "support/dialog.rs"]
mod dialog;
#[path = "support/session.rs"]
mod session;
#[path = "support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dialog::{Dialog, Step, unescape};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use session::Driver;
use support::{PATIENCE, Weir, config};
use weir::base::machine::Machine;

/// Seconds pass in an instant there.
const TIME: &str = "virtual time";
/// The dialogue says what policy or the next hop answers.
const SCRIPTED: &str = "scripted answers";
/// The nonce is scripted.
const NONCE: &str = "scripted nonce";
/// The server is told to stop in the middle, which ends it for the others; tests/gateway.rs stops a live one.
const STOP: &str = "stops the server";
/// The bound is too small for a configuration file.
const FLOOR: &str = "a limit below the configuration's floor";

/// What can't be replayed against a live gateway, and why.
const SKIPPED: [(&str, &str); 35] = [
    ("address_syntax", SCRIPTED), // a literal address is taken, which policy refuses
    ("auth_long_line", FLOOR),
    ("auth_scram", NONCE),
    ("auth_scram_end", NONCE),
    ("auth_scram_wrong", NONCE),
    ("bdat_timeout", TIME),
    ("bdat_too_big", FLOOR),
    ("binarymime_not_offered", SCRIPTED), // always offered
    ("command_timeout", TIME),
    ("connect_refused", SCRIPTED),
    ("data_timeout", TIME),
    ("handshake_timeout", TIME),
    ("header_too_big", FLOOR),
    ("lmtp", SCRIPTED),
    ("lmtp_bdat", FLOOR),
    ("lmtp_no_recipients", SCRIPTED),
    ("long_command", FLOOR),
    ("loop", FLOOR),
    ("message_refused", SCRIPTED),
    ("misfit_answer", SCRIPTED),
    ("password_backend_down", SCRIPTED),
    ("pipelined_refusal", SCRIPTED),
    ("refused_mail_costs", SCRIPTED),
    ("routing_tricks_pass_the_grammar", SCRIPTED),
    ("sender_refused", SCRIPTED),
    ("session_timeout", TIME),
    ("size_declared", FLOOR),
    ("size_exceeded_by_data", FLOOR),
    ("slow_data", TIME),
    ("slow_data_paid", TIME),
    ("stop_idle", STOP),
    ("stop_in_data", STOP),
    ("stop_then_quit", STOP),
    ("unknown_recipients_budget", SCRIPTED),
    ("xclient_connect_refused", SCRIPTED),
];

/// How long to listen for what must not come.
const SILENCE: Duration = Duration::from_millis(30);

/// The dialogues' relay, and deliveries that nobody makes.
const PAUSED: &str = r#"
[relay]
networks = ["127.0.0.0/8", "198.51.100.0/24"]
smarthost = "smtp://127.0.0.1:1"
[deliver]
paused = true
"#;
/// Domains of the dialogues; `nobody` is nobody in each.
const DOMAINS: [&str; 5] = ["d", "example.org", "mx.example.org", "bücher.example", "c"];
const RECIPIENTS: &str = r#"{ list = ["a", "b", "e", "f", "x", "ö", "é"] }"#;
/// The client of the dialogues; here it is loopback.
const CLIENT: &str = "192.0.2.1";

fn name_of(dialog: &Dialog) -> &str {
    dialog.path.file_stem().and_then(|name| name.to_str()).expect("a UTF-8 name")
}

/// A listener as the dialogue's directives ask for it.
fn listener(dialog: &Dialog) -> String {
    let role = dialog.value("role").unwrap_or("mx");
    let has = |name: &str| dialog.value(name).is_some();
    let tls = match (has("tls"), has("starttls")) {
        (true, _) => "implicit",
        (false, true) => "starttls",
        (false, false) if role == "submission" && !has("auth_plaintext") => "starttls",
        (false, false) => "none",
    };
    let auth = role == "submission" || has("auth");
    let mut more = format!("tls = \"{tls}\"\nauth = {auth}\nauth_plaintext = {}\n", has("auth_plaintext"));
    for (name, value) in &dialog.directives {
        let _ = match name.as_str() {
            "bare_lf" => writeln!(more, "bare_lf = \"{value}\""),
            "xclient" if value.starts_with("192.0.2.") => writeln!(more, "xclient = [\"127.0.0.0/8\"]"),
            "xclient" => writeln!(more, "xclient = [\"{value}\"]"),
            "limit" => writeln!(more, "{}", value.replacen(' ', " = ", 1)),
            _ => Ok(()),
        };
    }
    config::listener(name_of(dialog), role, &more)
}

fn configuration(dialogs: &[Dialog]) -> String {
    let mut text = config::head("mx.example.org") + PAUSED;
    for domain in DOMAINS {
        let _ = writeln!(text, "[[domain]]\nname = \"{domain}\"\ndeliver_to = \"discard:\"\nrecipients = {RECIPIENTS}");
    }
    text.extend(dialogs.iter().map(listener));
    text
}

/// The client's side of a connection.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Gone,
}

impl Wire {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Wire::Plain(socket) => Some(socket),
            Wire::Tls(stream) => Some(&stream.sock),
            Wire::Gone => None,
        }
    }

    fn begin_tls(self, certificate: &Path) -> Self {
        let Wire::Plain(socket) = self else { panic!("TLS within TLS") };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate).expect("a certificate")).expect("it fits");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("they exist")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("mx.example.org").expect("a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("a client");
        Wire::Tls(Box::new(StreamOwned::new(session, socket)))
    }

    fn send(&mut self, bytes: &[u8]) {
        // A server that has closed already is found by what is read.
        let _ = match self {
            Wire::Plain(socket) => socket.write_all(bytes),
            Wire::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Wire::Gone => Ok(()),
        };
    }

    /// Reads some: `None` when nothing came in time, nothing at the end.
    fn read(&mut self, patience: Duration) -> Option<Vec<u8>> {
        self.socket()?.set_read_timeout(Some(patience)).expect("a timeout");
        let mut buffer = [0; 4096];
        let read = match self {
            Wire::Plain(socket) => socket.read(&mut buffer),
            Wire::Tls(stream) => stream.read(&mut buffer),
            Wire::Gone => Ok(0),
        };
        match read {
            Ok(read) => Some(buffer[..read].to_vec()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(_) => Some(Vec::new()),
        }
    }
}

/// The machine and the gateway side by side.
struct Pair<'a> {
    machine: Driver,
    wire: Wire,
    got: Vec<u8>,
    closed: bool,
    certificate: &'a Path,
}

impl Pair<'_> {
    /// Reads as many lines as the machine has said.
    fn catch_up(&mut self) -> Result<(), String> {
        let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let wanted = lines(&self.machine.record.out);
        while lines(&self.got) < wanted && !self.closed {
            let Some(bytes) = self.wire.read(PATIENCE) else {
                return Err(format!("silence after {:?}", String::from_utf8_lossy(&self.got)));
            };
            self.closed = bytes.is_empty();
            self.got.extend(bytes);
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Send(bytes) => {
                self.machine.feed(bytes);
                self.wire.send(bytes);
            }
            Step::Tls => {
                self.machine.session.handle_tls(self.machine.now, session::tls_facts());
                self.wire = std::mem::replace(&mut self.wire, Wire::Gone).begin_tls(self.certificate);
            }
            Step::Eof => {
                self.machine.session.handle_eof(self.machine.now);
                let _ = self.wire.socket().expect("it is open").shutdown(Shutdown::Write);
            }
            Step::Advance(_) | Step::Stop => panic!("this dialogue has to be skipped"),
            Step::Barrier | Step::Close | Step::Expect(_) => {}
        }
        self.machine.pump(b"");
        self.catch_up()
    }

    /// Nothing more comes, and it closes if the machine does.
    fn end(&mut self) -> Result<(), String> {
        let closes = self.machine.record.closed;
        while !self.closed {
            match self.wire.read(if closes { PATIENCE } else { SILENCE }) {
                Some(bytes) => {
                    self.closed = bytes.is_empty();
                    self.got.extend(bytes);
                }
                None => break,
            }
        }
        if self.closed != closes {
            return Err(format!("closed: {}", self.closed));
        }
        let (got, wanted) = (alike(&self.got), alike(&self.machine.record.out));
        if got != wanted {
            return Err(format!("got\n{got}instead of\n{wanted}"));
        }
        Ok(())
    }
}

/// Replies without what can't be the same: queue ids, the words of this policy, the client's address.
fn alike(replies: &[u8]) -> String {
    let mut out = String::new();
    for line in String::from_utf8_lossy(replies).split_terminator("\r\n") {
        let line = line.replace("127.0.0.1", CLIENT);
        let kept = ["250 2.0.0 ", "535 5.7.8 ", "550 5.1.1 "].iter().find(|start| line.starts_with(**start));
        let said = line.contains("queued as") || line.ends_with("Queued") || !line.starts_with("250");
        out.push_str(kept.filter(|_| said).unwrap_or(&line.as_str()));
        out.push('\n');
    }
    out
}

fn replay(weir: &Weir, dialog: &Dialog) -> Result<(), String> {
    let certificate = weir.path().join("data/self-signed.pem");
    let early = dialog.value("early").map(unescape);
    // Held, the gateway finds the connection and what was said on it at once.
    if early.is_some() {
        weir.signal("STOP");
    }
    let mut wire = Wire::Plain(TcpStream::connect(weir.address(name_of(dialog))).expect("it listens"));
    if let Some(bytes) = &early {
        wire.send(bytes);
        weir.signal("CONT");
    }
    if dialog.value("tls").is_some() {
        wire = wire.begin_tls(&certificate);
    }
    let machine = Driver::for_dialog(dialog);
    let mut pair = Pair { machine, wire, got: Vec::new(), closed: false, certificate: &certificate };
    pair.machine.pump(b"");
    if let Some(bytes) = early {
        pair.machine.feed(&bytes);
    }
    pair.catch_up()?;
    for step in &dialog.steps {
        pair.step(step)?;
    }
    pair.end()
}

#[test]
fn the_live_gateway_speaks_as_the_machine_does() {
    let all = Dialog::load_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs/smtp"));
    for (name, why) in SKIPPED {
        assert!(all.iter().any(|dialog| name_of(dialog) == name), "{name}, skipped for {why}, does not exist");
    }
    let total = all.len();
    let live: Vec<Dialog> =
        all.into_iter().filter(|dialog| SKIPPED.iter().all(|(name, _)| *name != name_of(dialog))).collect();
    assert_eq!(live.len(), total - SKIPPED.len());
    assert!(live.len() >= 40, "only {} dialogues", live.len());
    let weir = Weir::start(&configuration(&live));
    add_users(&weir);
    let failed: Vec<String> = live
        .iter()
        .filter_map(|dialog| replay(&weir, dialog).err().map(|error| format!("{}: {error}", name_of(dialog))))
        .collect();
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), live.len(), failed.join("\n"));
    assert!(!weir.log().contains("panicked"));
}

/// The logins of the dialogues; their password is the one of RFC 7677 §3.
fn add_users(weir: &Weir) {
    let file = weir.path().join("password");
    fs::write(&file, "pencil\n").expect("own folder");
    for user in ["user", "alice-with-a-long-login-name-that-needs-space@example.org"] {
        weir.ok(&["user", "add", user, "--password-file", &file.display().to_string()]);
    }
}
