//! Which command may come in which state. Pure. RFC 5321 §4.1.4 (order), §4.1.1 (commands).

use std::time::Instant;

use super::replies;
use super::session::Session;
use super::state::State;
use crate::config::settings::Role;
use crate::wire::command::{Command, CommandError};
use crate::wire::reply::{Enhanced, Reply};

impl Session {
    /// Takes a whole line, without its CR LF.
    pub(super) fn dispatch_line(&mut self, now: Instant, line: &[u8]) {
        let state = std::mem::replace(&mut self.state, State::Closed);
        let state = match state {
            State::Authenticating(exchange) => exchange.line(&mut self.context, line),
            state => match Command::parse(line) {
                Ok(command) => self.command(now, state, command),
                Err(error) => self.no_command(state, error),
            },
        };
        self.state = self.context.settle(state);
    }

    fn no_command(&mut self, state: State, error: CommandError) -> State {
        let reply = replies::to_command_error(error);
        match error {
            // Where the chunk ends can't be known, and its content must not be read as commands.
            CommandError::ChunkSize => self.context.reply_and_close(&reply),
            _ => self.context.error(&reply, state),
        }
    }

    fn command(&mut self, now: Instant, state: State, command: Command<'_>) -> State {
        if self.context.stopping && matches!(state, State::Ready) && command != Command::Quit {
            return self.context.reply_and_close(&Reply::STOPPING);
        }
        match command {
            Command::Mail(argument) => self.mail(state, argument),
            Command::Rcpt(argument) => self.rcpt(state, argument),
            Command::Data => self.data(now, state),
            Command::Bdat { bytes, last } => self.bdat(now, state, bytes, last),
            Command::Ehlo(name) | Command::Helo(name) | Command::Lhlo(name) => self.hello(state, command, name),
            Command::StartTls => self.start_tls(state),
            Command::Auth { mechanism, initial } => self.auth(state, mechanism, initial),
            Command::Xclient(attributes) => self.xclient(state, attributes),
            Command::Rset => self.rset(),
            Command::Noop => self.context.junk(&replies::OK, state),
            Command::Help => self.context.junk(&replies::HELP, state),
            Command::Vrfy => self.context.junk(&replies::VRFY, state),
            Command::Expn => self.context.junk(&replies::EXPN, state),
            Command::Quit => self.quit(),
            Command::Http => self.context.reply_and_close(&replies::HTTP),
        }
    }

    /// Sender, recipients and chunks go together (RFC 5321 §4.1.1.5).
    fn rset(&mut self) -> State {
        self.context.mail_refused = false;
        self.context.junk(&replies::OK, State::Ready)
    }

    fn quit(&mut self) -> State {
        let text = format!("{} closing connection", self.context.settings.hostname);
        self.context.reply_and_close(&Reply::new(221, Enhanced(2, 0, 0), text))
    }

    /// RFC 3207. What was learned in the clear is forgotten when the handshake begins.
    fn start_tls(&mut self, state: State) -> State {
        if !self.context.settings.starttls {
            return self.context.error(&replies::NO_STARTTLS, state);
        }
        if self.context.has_tls() {
            return self.context.error(&replies::IN_TLS, state);
        }
        if self.context.pipelined {
            self.context.counters.pipelining_faults += 1;
            return self.context.reply_and_close(&replies::BEHIND_STARTTLS);
        }
        self.context.hello = None;
        self.context.change_origin(|origin| {
            origin.helo.clear();
            origin.login = None;
        });
        State::StartTls
    }

    /// What a client hears that has not greeted us.
    pub(super) fn hello_first(&self) -> Reply {
        if self.context.settings.role == Role::Lmtp { replies::LHLO_FIRST } else { replies::HELLO_FIRST }
    }
}
