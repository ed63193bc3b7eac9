//! The AUTHORIZATION state: USER and PASS, APOP, AUTH, STLS, CAPA (RFC 1939 §4 and §7, RFC 5034, RFC 2595 §4). Pure.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::ask::{Answer, Ask};
use super::command::{Command, parse};
use super::session::{Session, State};
use super::transaction::Maildrop;
use crate::wire::sasl::{ScramExchange, ScramFirst, parse_plain};

const TLS_FIRST: &str = "no login without TLS here; use STLS or the TLS port";

/// Between two lines of a client that is not logged in.
#[derive(Debug, Default)]
pub(super) enum Authorization {
    /// Nothing is begun.
    #[default]
    Idle,
    /// USER was taken; PASS may follow.
    User(String),
    /// AUTH waits for a line.
    Sasl(Sasl),
}

/// What AUTH waits for.
#[derive(Debug)]
pub(super) enum Sasl {
    Plain,
    ScramFirst,
    ScramLast(Box<ScramExchange>),
    /// The client's empty answer to our last message.
    ScramEnd(Arc<str>),
}

/// What a question of a login is about.
#[derive(Debug)]
pub(super) enum Login {
    Credentials,
    Keys(ScramFirst),
    Opening(Arc<str>),
}

impl Session {
    /// A line in the AUTHORIZATION state. The state is `Closed` meanwhile and set by whatever the line leads to.
    pub(super) fn authorize(&mut self, state: Authorization, line: &[u8]) {
        self.state = State::Authorization(Authorization::Idle);
        if let Authorization::Sasl(sasl) = state {
            return self.handle_sasl(sasl, line);
        }
        let command = match parse(line) {
            Ok(command) => command,
            Err(text) => return self.error(text),
        };
        match command {
            Command::Capa => {
                self.say_capabilities(true);
                self.state = State::Authorization(state);
            }
            Command::Quit => {
                self.say("+OK bye");
                self.close();
            }
            Command::Stls if self.options.tls => self.error("TLS is active already"),
            Command::Stls if !self.options.stls => self.error("STLS is not offered"),
            Command::Stls => {
                self.say("+OK begin TLS");
                self.start_tls();
            }
            Command::User(_) | Command::Pass(_) | Command::Apop(..) | Command::Auth(..) if !self.login_allowed() => {
                self.error(TLS_FIRST);
            }
            Command::User(login) => {
                // The same for every name: who exists is not told.
                self.say("+OK");
                self.state = State::Authorization(Authorization::User(login));
            }
            Command::Pass(password) => match state {
                Authorization::User(login) => self.check(Ask::Password { login, password }),
                _ => self.error("USER first"),
            },
            Command::Apop(login, digest) => match self.options.timestamp.clone() {
                Some(timestamp) => self.check(Ask::Apop { login, timestamp, digest }),
                None => self.error("APOP is not offered"),
            },
            Command::Auth(mechanism, initial) => self.begin_sasl(&mechanism, initial),
            _ => self.error("log in first"),
        }
    }

    fn check(&mut self, ask: Ask) {
        self.ask(ask);
        self.state = State::Login(Login::Credentials);
    }

    fn begin_sasl(&mut self, mechanism: &str, initial: Option<String>) {
        let sasl = match mechanism {
            "PLAIN" => Sasl::Plain,
            "SCRAM-SHA-256" => Sasl::ScramFirst,
            _ => return self.error("mechanism not supported"),
        };
        match initial {
            // RFC 5034 §4: "=" is an empty initial response.
            Some(text) if text == "=" => self.handle_sasl(sasl, b""),
            Some(text) => self.handle_sasl(sasl, text.as_bytes()),
            None => self.challenge(sasl, b""),
        }
    }

    fn challenge(&mut self, sasl: Sasl, message: &[u8]) {
        self.say(&format!("+ {}", STANDARD.encode(message)));
        self.state = State::Authorization(Authorization::Sasl(sasl));
    }

    fn handle_sasl(&mut self, sasl: Sasl, line: &[u8]) {
        if line == b"*" {
            return self.error("authentication cancelled");
        }
        let Ok(message) = STANDARD.decode(line) else {
            return self.error("not base64");
        };
        match sasl {
            Sasl::Plain => match parse_plain(&message) {
                Ok((login, password)) => self.check(Ask::Password { login, password }),
                Err(error) => self.error(&error.to_string()),
            },
            Sasl::ScramFirst => match ScramFirst::parse(&message) {
                Ok(first) => {
                    self.ask(Ask::ScramKeys { login: first.login.clone() });
                    self.state = State::Login(Login::Keys(first));
                }
                Err(error) => self.error(&error.to_string()),
            },
            Sasl::ScramLast(exchange) => match exchange.finish(&message) {
                Ok((user, verifier)) => self.challenge(Sasl::ScramEnd(user), &verifier),
                Err(_) => self.check(Ask::AuthFailed),
            },
            Sasl::ScramEnd(user) => self.open(user),
        }
    }

    fn open(&mut self, user: Arc<str>) {
        self.ask(Ask::Open { user: user.clone() });
        self.state = State::Login(Login::Opening(user));
    }

    /// The answer to a login's question. The state is `Closed` meanwhile.
    pub(super) fn handle_login(&mut self, now: Instant, login: Login, answer: Answer) {
        self.state = State::Authorization(Authorization::Idle);
        match (login, answer) {
            (Login::Credentials, Answer::Authenticated(user)) => self.open(user),
            (Login::Credentials, Answer::Refused) => self.refuse_login(now),
            (Login::Keys(first), Answer::ScramKeys(keys)) => {
                let nonce = format!("{}{}", self.options.nonce, self.auth_failures);
                let (message, exchange) = first.challenge(keys, &nonce);
                self.challenge(Sasl::ScramLast(Box::new(exchange)), &message);
            }
            (Login::Opening(user), Answer::Opened(entries)) => {
                let maildrop = Maildrop::new(entries);
                let (count, bytes) = maildrop.stat();
                self.say(&format!("+OK {user} has {count} messages ({bytes} octets)"));
                self.state = State::Transaction(maildrop);
            }
            (Login::Credentials | Login::Keys(_), Answer::TooManyFailures) => self.put_off_login(now),
            // RFC 2449 §8.1.2: not the credentials' fault.
            (Login::Opening(_), Answer::InUse) => self.error("[IN-USE] another session has this maildrop"),
            _ => self.error("[SYS/TEMP] local trouble, try again later"),
        }
    }

    /// RFC 2449 §5.
    pub(super) fn say_capabilities(&mut self, authorization: bool) {
        self.say("+OK capabilities");
        for capability in ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER"] {
            self.say(capability);
        }
        if self.login_allowed() {
            self.say("USER");
            self.say("SASL PLAIN SCRAM-SHA-256");
        }
        if authorization && self.options.stls && !self.options.tls {
            self.say("STLS");
        }
        self.say("IMPLEMENTATION Weir");
        self.say(".");
    }
}
