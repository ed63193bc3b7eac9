//! AUTH: PLAIN, LOGIN and SCRAM-SHA-256. Pure. RFC 4954, RFC 4616, RFC 7677; LOGIN by draft-murchison-sasl-login.
//!
//! Passwords leave by a question and are kept nowhere. A wrong password and an unknown login get the same reply.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::ask::Ask;
use super::context::{Context, Hello};
use super::counters::Limit;
use super::replies;
use super::session::Session;
use super::state::{Asked, State};
use crate::base::secret::Secret;
use crate::wire::reply::Reply;
use crate::wire::sasl::{SaslError, ScramExchange, ScramFirst, ScramKeys, parse_plain};

/// What most clients expect, word for word.
const LOGIN_NAME_PROMPT: &[u8] = b"Username:";
/// Likewise.
const LOGIN_PASSWORD_PROMPT: &[u8] = b"Password:";

/// An exchange that waits for the client.
pub(super) enum Exchange {
    /// LOGIN: the name.
    LoginName,
    /// LOGIN: the password.
    LoginPassword {
        /// The name.
        login: String,
    },
    /// PLAIN: everything.
    Plain,
    /// SCRAM: the client's proof.
    ScramFinal {
        /// The login that is tried.
        login: String,
        /// The exchange.
        exchange: Box<ScramExchange>,
    },
    /// SCRAM: the client's first message.
    ScramFirst,
    /// SCRAM: the empty line by which the client takes our own proof.
    ScramProven {
        /// The login that has proved itself.
        login: Arc<str>,
    },
}

impl Exchange {
    fn of(mechanism: &str) -> Option<Self> {
        match mechanism {
            m if m.eq_ignore_ascii_case("PLAIN") => Some(Exchange::Plain),
            m if m.eq_ignore_ascii_case("LOGIN") => Some(Exchange::LoginName),
            m if m.eq_ignore_ascii_case("SCRAM-SHA-256") => Some(Exchange::ScramFirst),
            _ => None,
        }
    }

    /// Takes a line of the client's.
    pub fn line(self, context: &mut Context, line: &[u8]) -> State {
        if line == b"*" {
            return context.error(&replies::AUTH_CANCELLED, State::Ready);
        }
        match STANDARD.decode(line) {
            Ok(message) => self.message(context, &message),
            Err(_) => context.error(&replies::AUTH_MALFORMED, State::Ready),
        }
    }

    /// Takes a decoded message of the client's.
    fn message(self, context: &mut Context, message: &[u8]) -> State {
        let next = match self {
            Exchange::Plain => parse_plain(message).map(|(login, password)| ask_password(context, login, password)),
            Exchange::LoginName => login_text(message).map(|login| {
                prompt(context, LOGIN_PASSWORD_PROMPT);
                State::Authenticating(Exchange::LoginPassword { login })
            }),
            Exchange::LoginPassword { login } => {
                login_text(message).map(|password| ask_password(context, login, Secret::new(password)))
            }
            Exchange::ScramFirst => ScramFirst::parse(message).map(|first| ask_keys(context, first)),
            Exchange::ScramFinal { login, exchange } => match exchange.finish(message) {
                Err(SaslError::Mismatch) => Ok(report_failure(context, login)),
                finished => finished.map(|(login, proof)| {
                    prompt(context, &proof);
                    State::Authenticating(Exchange::ScramProven { login })
                }),
            },
            Exchange::ScramProven { login } if message.is_empty() => Ok(context.authenticated(login)),
            Exchange::ScramProven { .. } => Err(SaslError::Malformed),
        };
        next.unwrap_or_else(|error| match error {
            SaslError::Malformed => context.error(&replies::AUTH_MALFORMED, State::Ready),
            SaslError::Unsupported | SaslError::Mismatch => context.error(&replies::AUTH_UNSUPPORTED, State::Ready),
        })
    }
}

fn prompt(context: &mut Context, message: &[u8]) {
    context.reply(&Reply { code: 334, enhanced: None, text: STANDARD.encode(message).into() });
}

fn login_text(message: &[u8]) -> Result<String, SaslError> {
    let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed)?;
    let valid = !text.is_empty() && !text.chars().any(char::is_control);
    if valid { Ok(text.to_owned()) } else { Err(SaslError::Malformed) }
}

fn ask_password(context: &mut Context, login: String, password: Secret) -> State {
    let origin = context.origin.clone();
    context.ask(Ask::Password { origin, login, password }, Asked::Password)
}

fn ask_keys(context: &mut Context, first: ScramFirst) -> State {
    let ask = Ask::ScramKeys { origin: context.origin.clone(), login: first.login.clone() };
    context.ask(ask, Asked::ScramKeys(Box::new(first)))
}

fn report_failure(context: &mut Context, login: String) -> State {
    let origin = context.origin.clone();
    context.ask(Ask::AuthFailed { origin, login }, Asked::AuthFailed)
}

impl Context {
    /// The login is who it says it is.
    pub(super) fn authenticated(&mut self, login: Arc<str>) -> State {
        self.change_origin(|origin| origin.login = Some(login));
        self.reply_then(&replies::AUTHENTICATED, State::Ready)
    }

    /// The login is not.
    pub(super) fn not_authenticated(&mut self, reply: &Reply) -> State {
        // After a 4xx (trouble of ours, or too many failures already) nobody has looked at the password.
        self.spend(if reply.is_permanent() { Limit::AuthFailures } else { Limit::Errors });
        self.reply_then(reply, State::Ready)
    }

    /// What is stored for the login has come.
    pub(super) fn scram_challenge(&mut self, first: ScramFirst, keys: ScramKeys) -> State {
        let login = first.login.clone();
        let (challenge, exchange) = first.challenge(keys, &(self.settings.nonce)());
        prompt(self, &challenge);
        State::Authenticating(Exchange::ScramFinal { login, exchange: Box::new(exchange) })
    }
}

impl Session {
    pub(super) fn auth(&mut self, state: State, mechanism: &str, initial: Option<&str>) -> State {
        if let Some(reply) = self.auth_out_of_order(&state) {
            return self.context.error(&reply, state);
        }
        let Some(exchange) = Exchange::of(mechanism) else {
            return self.context.error(&replies::AUTH_MECHANISM, state);
        };
        match (initial, &exchange) {
            // RFC 4954 §4: "=" is an initial response without a byte.
            (Some("="), _) => exchange.message(&mut self.context, b""),
            (Some(initial), _) => exchange.line(&mut self.context, initial.as_bytes()),
            (None, Exchange::LoginName) => {
                prompt(&mut self.context, LOGIN_NAME_PROMPT);
                State::Authenticating(exchange)
            }
            (None, _) => {
                prompt(&mut self.context, b"");
                State::Authenticating(exchange)
            }
        }
    }

    fn auth_out_of_order(&self, state: &State) -> Option<Reply> {
        let context = &self.context;
        if !context.settings.auth {
            return Some(replies::NO_AUTH);
        }
        if !matches!(state, State::Ready) {
            return Some(replies::IN_TRANSACTION);
        }
        if !matches!(context.hello, Some(Hello::Esmtp | Hello::Lmtp)) {
            return Some(if context.is_lmtp() { replies::LHLO_FIRST } else { replies::EHLO_FIRST });
        }
        if context.origin.login.is_some() {
            return Some(replies::AUTH_DONE);
        }
        (!context.settings.auth_usable(context.has_tls())).then_some(replies::AUTH_NEEDS_TLS)
    }
}
