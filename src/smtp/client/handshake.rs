//! From the greeting to a session that takes mail: EHLO, STARTTLS, AUTH. Pure. RFC 5321 §3.2, RFC 3207, RFC 4954.
//!
//! Invariant: a password never leaves in the clear unless TLS is switched off for the route, and nothing learned
//! before TLS counts after it. Fails with a [`HandshakeFault`] that says where and with which reply.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Protocol;
use super::capabilities::Capabilities;
use super::reply::RemoteReply;
use crate::config::settings::{DeliverTls, Login};
use crate::wire::sasl::{ScramClient, plain_message};

/// What the session is wanted for.
#[derive(Clone, Debug)]
pub struct HandshakeOptions {
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// Our host name.
    pub hello: String,
    /// TLS wanted.
    pub tls: DeliverTls,
    /// The connection is encrypted from its first byte.
    pub encrypted: bool,
    /// AUTH, if any.
    pub login: Option<Login>,
    /// Fresh random base64 text for SCRAM.
    pub nonce: String,
}

/// What the driver does next, after writing what was appended.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait for a reply.
    Await,
    /// Begin TLS, drop what was read before, then call [`Handshake::handle_tls`].
    StartTls,
    /// Transactions may begin.
    Ready,
    /// Of no use.
    Failed(HandshakeFault),
}

/// Why a session did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// The server refused a step.
    Refused {
        /// The step: `greeting`, `EHLO` …
        at: &'static str,
        /// What it said.
        reply: RemoteReply,
    },
    /// STARTTLS is not offered or was refused, and the route asks for TLS.
    NoTls,
    /// A login is configured and no common mechanism may be used.
    NoMechanism,
    /// The server's SCRAM message is wrong: it may not know the password.
    BadServerProof,
}

enum State {
    Greeting,
    Hello,
    Helo,
    StartTls,
    Plain,
    LoginUser(Login),
    LoginPassword(Login),
    ScramFirst(ScramClient),
    ScramLast(Vec<u8>),
    ScramDone,
    Ready,
}

/// The machine.
pub struct Handshake {
    options: HandshakeOptions,
    state: State,
    capabilities: Capabilities,
}

impl Handshake {
    /// A session that waits for the greeting.
    pub fn new(options: HandshakeOptions) -> Self {
        Handshake { options, state: State::Greeting, capabilities: Capabilities::default() }
    }

    /// True once TLS is there.
    pub fn is_encrypted(&self) -> bool {
        self.options.encrypted
    }

    /// What the server offers, once ready.
    pub fn into_capabilities(self) -> Capabilities {
        self.capabilities
    }

    /// The step that a reply is awaited for.
    pub fn step(&self) -> &'static str {
        match self.state {
            State::Greeting => "greeting",
            State::Hello => "EHLO",
            State::Helo => "HELO",
            State::StartTls => "STARTTLS",
            State::Ready => "ready",
            _ => "AUTH",
        }
    }

    /// TLS is up: all that was learned is void, EHLO again.
    pub fn handle_tls(&mut self, out: &mut Vec<u8>) {
        self.options.encrypted = true;
        self.capabilities = Capabilities::default();
        self.send_hello(out);
    }

    /// Takes one reply; appends what to send.
    pub fn handle_reply(&mut self, reply: RemoteReply, out: &mut Vec<u8>) -> Next {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Greeting if reply.code == 220 => self.send_hello(out),
            State::Hello if reply.is_positive() => {
                self.capabilities = Capabilities::parse(&reply);
                return self.after_hello(out);
            }
            State::Hello if self.may_helo(&reply) => {
                send(out, &["HELO ", &self.options.hello]);
                self.state = State::Helo;
            }
            State::Helo if reply.is_positive() => return self.after_hello(out),
            State::StartTls => return self.after_start_tls(&reply, out),
            State::Plain | State::ScramDone if reply.is_positive() => return Next::Ready,
            State::LoginUser(login) if reply.code == 334 => {
                send(out, &[&STANDARD.encode(&login.user)]);
                self.state = State::LoginPassword(login);
            }
            State::LoginPassword(login) if reply.code == 334 => {
                send(out, &[&STANDARD.encode(login.password.expose())]);
                self.state = State::Plain;
            }
            State::ScramFirst(client) if reply.code == 334 => return self.scram_respond(client, &reply, out),
            State::ScramLast(proof) => return self.scram_verify(&proof, reply, out),
            state => {
                self.state = state;
                return Next::Failed(HandshakeFault::Refused { at: self.step(), reply });
            }
        }
        Next::Await
    }

    fn send_hello(&mut self, out: &mut Vec<u8>) {
        let verb = if self.options.protocol == Protocol::Lmtp { "LHLO " } else { "EHLO " };
        send(out, &[verb, &self.options.hello]);
        self.state = State::Hello;
    }

    /// RFC 5321 §3.2: a server that does not know EHLO says 500 or 502; some say 550.
    fn may_helo(&self, reply: &RemoteReply) -> bool {
        self.options.protocol == Protocol::Smtp && reply.is_permanent()
    }

    fn after_hello(&mut self, out: &mut Vec<u8>) -> Next {
        if self.options.encrypted || self.options.tls == DeliverTls::None {
            return self.authenticate(out);
        }
        if self.capabilities.start_tls {
            send(out, &["STARTTLS"]);
            self.state = State::StartTls;
            return Next::Await;
        }
        self.without_tls(out)
    }

    fn after_start_tls(&mut self, reply: &RemoteReply, out: &mut Vec<u8>) -> Next {
        if reply.code == 220 { Next::StartTls } else { self.without_tls(out) }
    }

    fn without_tls(&mut self, out: &mut Vec<u8>) -> Next {
        if self.options.tls == DeliverTls::Required {
            return Next::Failed(HandshakeFault::NoTls);
        }
        self.authenticate(out)
    }

    fn authenticate(&mut self, out: &mut Vec<u8>) -> Next {
        let Some(login) = self.options.login.clone() else {
            self.state = State::Ready;
            return Next::Ready;
        };
        let offered = |name: &str| self.capabilities.auth.iter().any(|known| known == name);
        let password_may_leave = self.options.encrypted || self.options.tls == DeliverTls::None;
        if offered("SCRAM-SHA-256") {
            let (first, client) = ScramClient::start(&login.user, &login.password, &self.options.nonce);
            send(out, &["AUTH SCRAM-SHA-256 ", &STANDARD.encode(first)]);
            self.state = State::ScramFirst(client);
        } else if password_may_leave && offered("PLAIN") {
            send(out, &["AUTH PLAIN ", &STANDARD.encode(plain_message(&login.user, &login.password))]);
            self.state = State::Plain;
        } else if password_may_leave && offered("LOGIN") {
            send(out, &["AUTH LOGIN"]);
            self.state = State::LoginUser(login);
        } else {
            return Next::Failed(HandshakeFault::NoMechanism);
        }
        Next::Await
    }

    fn scram_respond(&mut self, client: ScramClient, reply: &RemoteReply, out: &mut Vec<u8>) -> Next {
        let answer = STANDARD.decode(&reply.text).ok().and_then(|first| client.respond(&first).ok());
        let Some((last, proof)) = answer else {
            return Next::Failed(HandshakeFault::BadServerProof);
        };
        send(out, &[&STANDARD.encode(last)]);
        self.state = State::ScramLast(proof);
        Next::Await
    }

    /// The proof comes as a challenge, answered by an empty line, or with the 235 (RFC 4954 §4 allows only the first).
    fn scram_verify(&mut self, proof: &[u8], reply: RemoteReply, out: &mut Vec<u8>) -> Next {
        let proven = STANDARD.decode(&reply.text).is_ok_and(|sent| sent == proof);
        match reply.code {
            334 if proven => {
                send(out, &[]);
                self.state = State::ScramDone;
                Next::Await
            }
            235 if proven => Next::Ready,
            235 | 334 => Next::Failed(HandshakeFault::BadServerProof),
            _ => Next::Failed(HandshakeFault::Refused { at: "AUTH", reply }),
        }
    }
}

fn send(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::smtp::client::reply::ReplyReader;

    fn options(tls: DeliverTls, login: bool) -> HandshakeOptions {
        let login = login.then(|| Login { user: "u".into(), password: Secret::new("p") });
        HandshakeOptions {
            protocol: Protocol::Smtp,
            hello: "me".into(),
            tls,
            encrypted: false,
            login,
            nonce: "abc".into(),
        }
    }

    /// Plays `script` (server lines) cut at `cut` bytes; gives what was sent and the last step.
    fn play(options: HandshakeOptions, script: &str, cut: usize) -> (String, Next) {
        let mut machine = Handshake::new(options);
        let (mut reader, mut out, mut last) = (ReplyReader::default(), Vec::new(), Next::Await);
        for piece in script.as_bytes().chunks(cut) {
            reader.feed(piece);
            while let Some(reply) = reader.next_reply().unwrap() {
                last = machine.handle_reply(reply, &mut out);
                if last == Next::StartTls {
                    machine.handle_tls(&mut out);
                }
            }
        }
        (String::from_utf8(out).unwrap().replace("\r\n", "|"), last)
    }

    #[test]
    fn dialogues_are_the_same_however_they_are_cut() {
        use DeliverTls::{None as Plain, Opportunistic, Required};
        let tls = "220 hi\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n250-x\r\n250 AUTH PLAIN\r\n235 ok\r\n";
        let table = [
            (Opportunistic, true, tls, "EHLO me|STARTTLS|EHLO me|AUTH PLAIN AHUAcA==|", "Ready"),
            (Opportunistic, false, "220 hi\r\n502 no\r\n250 x\r\n", "EHLO me|HELO me|", "Ready"),
            (Opportunistic, true, "220 hi\r\n250-x\r\n250 AUTH PLAIN\r\n", "EHLO me|", "Failed(NoMechanism)"),
            (
                Plain,
                true,
                "220 a\r\n250-x\r\n250 AUTH LOGIN\r\n334 U\r\n334 P\r\n235 k\r\n",
                "EHLO me|AUTH LOGIN|dQ==|cA==|",
                "Ready",
            ),
            (Required, false, "220 hi\r\n250 x\r\n", "EHLO me|", "Failed(NoTls)"),
            (Opportunistic, false, "220 hi\r\n250-x\r\n250 STARTTLS\r\n454 no\r\n", "EHLO me|STARTTLS|", "Ready"),
            (Opportunistic, false, "554 go away\r\n", "", "Failed(Refused { at: \"greeting\""),
            (
                Plain,
                true,
                "220 a\r\n250-x\r\n250 AUTH PLAIN\r\n535 5.7.8 no\r\n",
                "EHLO me|AUTH PLAIN AHUAcA==|",
                "Failed(Refused { at: \"AUTH\"",
            ),
            (
                Plain,
                true,
                "220 a\r\n250-x\r\n250 AUTH SCRAM-SHA-256\r\n235 ok\r\n",
                "EHLO me|AUTH SCRAM-SHA-256 biwsbj11LHI9YWJj|",
                "Failed(Refused",
            ),
        ];
        for (tls, login, script, sent, last) in table {
            for cut in 1..=script.len() {
                let (out, next) = play(options(tls, login), script, cut);
                assert_eq!(out, sent, "{script:?}");
                assert!(format!("{next:?}").starts_with(last), "{script:?}: {next:?}");
            }
        }
    }
}
