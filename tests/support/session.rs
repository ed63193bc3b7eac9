//! Drives a server machine without sockets: an artificial clock, canned answers, everything recorded.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use weir::base::content::ContentSource;
use weir::base::machine::{Control, Machine, TlsFacts};
use weir::base::secret::Secret;
use weir::config::limits::Limits;
use weir::config::settings::{BareLf, Role};
use weir::smtp::server::ask::{Answer, Ask, Received};
use weir::smtp::server::{Session, SessionSettings};
use weir::wire::reply::{Enhanced, Reply};
use weir::wire::sasl::ScramKeys;

use super::dialog::{Dialog, unescape};

/// RFC 7677 §3.
const SCRAM_SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
const SCRAM_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

/// What a [`Driver`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Everything that was sent.
    pub out: Vec<u8>,
    /// Messages taken in, as text.
    pub messages: Vec<String>,
    /// Handshakes begun.
    pub handshakes: usize,
    /// Closed.
    pub closed: bool,
}

/// One refusal: a question's name, a text that it must hold, and the reply.
pub type Refusal = (String, String, Vec<Reply>);

/// Drives one machine.
pub struct Driver {
    pub session: Session,
    pub now: Instant,
    pub record: Record,
    refusals: Vec<Refusal>,
}

pub fn tls_facts() -> TlsFacts {
    TlsFacts { version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256".into(), ..TlsFacts::default() }
}

pub fn settings(role: Role) -> SessionSettings {
    SessionSettings {
        hostname: "mx.example.org".into(),
        listener: role.as_str().into(),
        role,
        starttls: false,
        auth: role == Role::Submission,
        auth_plaintext: false,
        binarymime: true,
        bare_lf: BareLf::Reject,
        xclient: Vec::new(),
        limits: Limits::default(),
        nonce: || SCRAM_NONCE.into(),
    }
}

impl Driver {
    pub fn new(settings: SessionSettings, peer: &str, tls: bool, refusals: Vec<Refusal>) -> Self {
        Self::with_content(settings, ContentSource::unbounded(), peer, tls, refusals)
    }

    pub fn with_content(
        settings: SessionSettings,
        content: ContentSource,
        peer: &str,
        tls: bool,
        refusals: Vec<Refusal>,
    ) -> Self {
        let now = Instant::now();
        let tls = tls.then(tls_facts);
        let peer = peer.parse().unwrap();
        let session = Session::new(Arc::new(settings), content, peer, 40000, tls, now);
        Driver { session, now, record: Record::default(), refusals }
    }

    /// A driver with the settings and answers that a dialogue's directives ask for.
    pub fn for_dialog(dialog: &Dialog) -> Self {
        let mut settings = settings(role_of(dialog.value("role").unwrap_or("mx")));
        let mut refusals = Vec::new();
        let mut peer = "192.0.2.1";
        let mut tls = false;
        for (name, value) in &dialog.directives {
            match name.as_str() {
                "role" | "early" | "uncut" => {}
                "tls" => tls = true,
                "starttls" => settings.starttls = true,
                "auth" => settings.auth = true,
                "auth_plaintext" => settings.auth_plaintext = true,
                "no_binarymime" => settings.binarymime = false,
                "bare_lf" => settings.bare_lf = bare_lf_of(value),
                "xclient" => settings.xclient.push(value.parse().unwrap()),
                "peer" => peer = value,
                "limit" => set_limit(&mut settings.limits, value),
                "answer" => refusals.push(refusal_of(value)),
                other => panic!("{}: unknown directive {other}", dialog.path.display()),
            }
        }
        let mut driver = Driver::new(settings, peer, tls, refusals);
        if let Some(early) = dialog.value("early") {
            assert_eq!(driver.session.handle_input(driver.now, &unescape(early)), 0);
        }
        driver
    }

    /// Polls, and answers what is asked, until nothing more happens; `pending` must not be touched while a question is open.
    pub fn pump(&mut self, pending: &[u8]) {
        loop {
            if let Some(control) = self.session.poll_output(&mut self.record.out) {
                match control {
                    Control::StartTls => self.record.handshakes += 1,
                    Control::Close => self.record.closed = true,
                }
            }
            let Some(ask) = self.session.poll_ask() else { return };
            assert!(self.session.poll_ask().is_none(), "one question at a time");
            assert!(self.session.poll_timeout().is_none(), "it is not the client who is late");
            if !matches!(ask, Ask::Connect { .. }) {
                assert_eq!(
                    self.session.handle_input(self.now, pending),
                    0,
                    "nothing is consumed while a question is open"
                );
            }
            let answer = self.answer(ask);
            self.session.handle_answer(self.now, answer);
        }
    }

    /// Feeds all of `bytes`, or as much as is taken before the end.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        self.pump(b"");
        while !bytes.is_empty() && !self.record.closed {
            let used = self.session.handle_input(self.now, bytes);
            bytes = &bytes[used..];
            let before = self.record.out.len();
            let asked = self.record.messages.len();
            self.pump(bytes);
            let moved = used > 0 || self.record.out.len() > before || self.record.messages.len() > asked;
            // After STARTTLS the machine takes nothing: what comes now is the handshake's.
            if !moved && self.record.handshakes > 0 {
                return;
            }
            assert!(moved || self.record.closed, "stuck with {} bytes", bytes.len());
        }
    }

    /// Lets time pass, calling the machine at each of its deadlines.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            self.pump(b"");
        }
        self.now = until;
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        let (name, text) = describe(&ask);
        if let Ask::Message(_) = &ask {
            self.record.messages.push(text.clone());
        }
        let refusal = self.refusals.iter().find(|(kind, part, _)| *kind == name && text.contains(part.as_str()));
        if let Some((_, _, replies)) = refusal {
            return if name == "message" {
                Answer::Message(replies.clone())
            } else {
                Answer::Refuse(replies[0].clone())
            };
        }
        match ask {
            Ask::Message(received) => Answer::Message(accept(&received)),
            Ask::Password { login, password, .. } if password.expose() == "pencil" => {
                Answer::Authenticated(login.into())
            }
            Ask::Password { .. } => {
                Answer::Refuse(Reply::fixed(535, Enhanced(5, 7, 8), "Authentication credentials invalid"))
            }
            Ask::ScramKeys { login, .. } => {
                let salt = base64::engine::general_purpose::STANDARD.decode(SCRAM_SALT).unwrap();
                Answer::ScramKeys(ScramKeys::derive(&login, &Secret::new("pencil"), &salt, 4096))
            }
            _ => Answer::Go,
        }
    }
}

fn accept(received: &Received) -> Vec<Reply> {
    let lmtp = received.envelope.origin.protocol.contains("LMTP");
    let replies = if lmtp { received.envelope.recipients.len() } else { 1 };
    vec![Reply::fixed(250, Enhanced(2, 0, 0), "Queued"); replies]
}

/// A question's name and what it says, for comparison.
fn describe(ask: &Ask) -> (&'static str, String) {
    match ask {
        Ask::Connect { ip } => ("connect", ip.to_string()),
        Ask::Hello { origin } => ("hello", origin.helo.clone()),
        Ask::Password { login, .. } => ("password", login.clone()),
        Ask::ScramKeys { login, .. } => ("scram", login.clone()),
        Ask::AuthFailed { login, .. } => ("failed", login.clone()),
        Ask::Mail { reverse_path, size, .. } => ("mail", format!("{reverse_path:?} {size:?}")),
        Ask::Rcpt { recipient, .. } => ("rcpt", recipient.mailbox.to_string()),
        Ask::Message(received) => ("message", describe_message(received)),
    }
}

/// `message PROTOCOL IP LOGIN HELO <reverse-path> -> recipient recipient [flags] "content"`
fn describe_message(received: &Received) -> String {
    let envelope = &received.envelope;
    let origin = &envelope.origin;
    let mut text = format!("{} {} {}", origin.protocol, origin.ip, origin.login.as_deref().unwrap_or("-"));
    let sender = envelope.reverse_path.as_ref().map_or("", |path| path.as_str());
    text.push_str(&format!(" {} <{sender}> ->", origin.helo));
    for recipient in &envelope.recipients {
        text.push_str(&format!(" {}", recipient.mailbox));
        if let Some(notify) = recipient.notify {
            let letter = |on: bool, letter: char| if on { letter } else { '-' };
            let (success, failure, delay) = (notify.success, notify.failure, notify.delay);
            text.push_str(&format!("[{}{}{}]", letter(success, 's'), letter(failure, 'f'), letter(delay, 'd')));
        }
        if let Some(orcpt) = &recipient.orcpt {
            text.push_str(&format!("({orcpt})"));
        }
    }
    text.push_str(&format!(" {:?}", envelope.body));
    for (flag, on) in [
        ("utf8", envelope.smtputf8),
        ("requiretls", envelope.require_tls),
        ("chunked", received.chunked),
        ("bare", received.bare),
    ] {
        if on {
            text.push_str(&format!(" {flag}"));
        }
    }
    if let Some(ret) = envelope.ret {
        text.push_str(&format!(" ret={ret:?}"));
    }
    if let Some(envid) = &envelope.envid {
        text.push_str(&format!(" envid={envid}"));
    }
    format!("{text} \"{}\"", received.content.escape_ascii())
}

fn role_of(text: &str) -> Role {
    [Role::Lmtp, Role::Mx, Role::Relay, Role::Submission]
        .into_iter()
        .find(|role| role.as_str() == text)
        .expect("a role")
}

fn bare_lf_of(text: &str) -> BareLf {
    match text {
        "accept" => BareLf::Accept,
        "normalize" => BareLf::Normalize,
        _ => BareLf::Reject,
    }
}

fn set_limit(limits: &mut Limits, text: &str) {
    let (key, value) = text.split_once(' ').expect("a key and a number");
    let number: u64 = value.parse().expect("a number");
    match key {
        "size" => limits.size = number,
        "recipients" => limits.recipients = number as u32,
        "messages_per_connection" => limits.messages_per_connection = number as u32,
        "data_rate_min" => limits.data_rate_min = number as u32,
        "errors" => limits.errors = number as u32,
        "unknown_recipients" => limits.unknown_recipients = number as u32,
        "auth_failures" => limits.auth_failures = number as u32,
        "junk_commands" => limits.junk_commands = number as u32,
        "command_bytes" => limits.command_bytes = number as u32,
        "header_bytes" => limits.header_bytes = number as u32,
        "hops" => limits.hops = number as u32,
        other => panic!("unknown limit {other}"),
    }
}

/// `rcpt bob 550 5.1.1 No such user`; several replies, for LMTP, stand apart by ` | `.
fn refusal_of(text: &str) -> Refusal {
    let mut words = text.splitn(3, ' ');
    let mut next = || words.next().expect("a question, a part of it, and a reply").to_owned();
    let (question, part, replies) = (next(), next(), next());
    let part = if part == "*" { String::new() } else { part };
    (question, part, replies.split(" | ").map(reply_of).collect())
}

fn reply_of(text: &str) -> Reply {
    let mut words = text.splitn(3, ' ');
    let code = words.next().and_then(|code| code.parse().ok()).expect("a code");
    let digits: Vec<u16> = words.next().expect("an enhanced code").split('.').map(|d| d.parse().unwrap()).collect();
    Reply::new(code, Enhanced(digits[0] as u8, digits[1], digits[2]), words.next().unwrap_or(""))
}
