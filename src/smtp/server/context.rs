//! What outlives a protocol state: settings, the client, budgets, counts, and the one place that writes replies. Pure.

use std::sync::Arc;
use std::time::Instant;

use super::ask::Ask;
use super::counters::{Limit, SessionCounters};
use super::settings::SessionSettings;
use super::state::{Asked, State};
use crate::base::content::ContentSource;
use crate::base::machine::{Control, TlsFacts};
use crate::config::settings::Role;
use crate::wire::envelope::Origin;
use crate::wire::reply::{Enhanced, Reply};

/// How the client greeted us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// HELO
    Smtp,
    /// EHLO
    Esmtp,
    /// LHLO
    Lmtp,
}

/// What outlives a protocol state.
pub(super) struct Context {
    pub settings: Arc<SessionSettings>,
    pub content: ContentSource,
    pub origin: Arc<Origin>,
    pub hello: Option<Hello>,
    pub out: Vec<u8>,
    pub ask: Option<Ask>,
    pub control: Option<Control>,
    pub counters: SessionCounters,
    /// Since when the client has to do something.
    pub waiting_since: Instant,
    /// The server is stopping.
    pub stopping: bool,
    /// More input stood behind the line that is being looked at.
    pub pipelined: bool,
    /// The last MAIL was refused: what was pipelined behind it knows nothing of that.
    pub mail_refused: bool,
    /// The client has closed its sending side.
    pub eof: bool,
    /// The peer of the connection may use XCLIENT.
    pub xclient_trusted: bool,
    /// The budget that is spent, until the session ends for it.
    overdrawn: Option<Limit>,
    errors: u32,
    unknown_recipients: u32,
    auth_failures: u32,
    junk_commands: u32,
    /// Messages that came to an end, for `messages_per_connection`.
    pub transactions: u32,
}

impl Context {
    pub fn new(settings: Arc<SessionSettings>, content: ContentSource, origin: Origin, now: Instant) -> Self {
        let xclient_trusted = settings.xclient_trusted(origin.ip);
        Context {
            settings,
            content,
            origin: Arc::new(origin),
            hello: None,
            out: Vec::new(),
            ask: None,
            control: None,
            counters: SessionCounters::default(),
            waiting_since: now,
            stopping: false,
            pipelined: false,
            mail_refused: false,
            eof: false,
            xclient_trusted,
            overdrawn: None,
            errors: 0,
            unknown_recipients: 0,
            auth_failures: 0,
            junk_commands: 0,
            transactions: 0,
        }
    }

    /// Writes and counts a reply: every reply goes this way.
    pub fn reply(&mut self, reply: &Reply) {
        self.counters.replies.add(reply.code);
        reply.write_to(&mut self.out);
    }

    /// Replies, and goes to `next`, unless the reply ends the session (RFC 5321 §3.8).
    pub fn reply_then(&mut self, reply: &Reply, next: State) -> State {
        self.reply(reply);
        if reply.code == 421 { self.close() } else { next }
    }

    /// Replies and ends the session.
    pub fn reply_and_close(&mut self, reply: &Reply) -> State {
        self.reply(reply);
        self.close()
    }

    /// Ends the session once what is written has left.
    pub fn close(&mut self) -> State {
        self.control = Some(Control::Close);
        State::Closed
    }

    /// Replies to an error of syntax or sequence, which the client has a budget of.
    pub fn error(&mut self, reply: &Reply, next: State) -> State {
        self.spend(Limit::Errors);
        self.reply_then(reply, next)
    }

    /// Replies to a command that moves no mail, which the client has a budget of.
    pub fn junk(&mut self, reply: &Reply, next: State) -> State {
        self.spend(Limit::JunkCommands);
        self.reply_then(reply, next)
    }

    /// Replies to a command that came out of order. It is forgiven, and only no use, where a client that pipelines
    /// (RFC 2920) could not know yet that the command before was refused.
    pub fn misplaced(&mut self, reply: &Reply, forgiven: bool, next: State) -> State {
        if forgiven { self.junk(reply, next) } else { self.error(reply, next) }
    }

    /// Opens a question.
    pub fn ask(&mut self, ask: Ask, asked: Asked) -> State {
        debug_assert!(self.ask.is_none(), "one question at a time");
        self.ask = Some(ask);
        State::Asked(asked)
    }

    /// Takes one from a budget; the session ends when there is nothing left.
    pub fn spend(&mut self, limit: Limit) {
        let limits = &self.settings.limits;
        let (spent, budget) = match limit {
            Limit::AuthFailures => (&mut self.auth_failures, limits.auth_failures),
            Limit::JunkCommands => (&mut self.junk_commands, limits.junk_commands),
            Limit::UnknownRecipients => (&mut self.unknown_recipients, limits.unknown_recipients),
            _ => (&mut self.errors, limits.errors),
        };
        *spent += 1;
        if *spent >= budget {
            self.overdrawn = Some(limit);
        }
    }

    /// A message came to an end: NOOP and its like are no junk any more.
    pub fn end_transaction(&mut self) {
        self.transactions += 1;
        self.junk_commands = 0;
    }

    /// Ends the session if a budget is spent; call after each command and answer.
    pub fn settle(&mut self, state: State) -> State {
        match self.overdrawn.take() {
            Some(limit) if !matches!(state, State::Closed | State::Asked(_)) => self.overrun(limit),
            kept => {
                self.overdrawn = kept;
                state
            }
        }
    }

    fn overrun(&mut self, limit: Limit) -> State {
        self.counters.hit(limit);
        let what = match limit {
            Limit::AuthFailures => "Too many failed authentications (auth_failures)",
            Limit::JunkCommands => "Too many commands without a message (junk_commands)",
            Limit::UnknownRecipients => "Too many refused recipients (unknown_recipients)",
            _ => "Too many errors (errors)",
        };
        self.reply_and_close(&Reply::fixed(421, Enhanced(4, 7, 0), what))
    }

    /// True if the session is encrypted.
    pub fn has_tls(&self) -> bool {
        self.origin.tls.is_some()
    }

    /// True if the listener speaks LMTP.
    pub fn is_lmtp(&self) -> bool {
        self.settings.role == Role::Lmtp
    }

    /// Changes the origin; those who were asked before keep the old one.
    pub fn change_origin(&mut self, change: impl FnOnce(&mut Origin)) {
        let origin = Arc::make_mut(&mut self.origin);
        change(origin);
        origin.protocol = protocol(self.hello, origin, false);
    }
}

/// `version cipher`, as `Received` shows it.
pub(super) fn tls_text(facts: &TlsFacts) -> String {
    format!("{} {}", facts.version, facts.cipher)
}

/// The protocol's name for `Received` (RFC 3848, RFC 6531 §4.3).
pub(super) fn protocol(hello: Option<Hello>, origin: &Origin, utf8: bool) -> &'static str {
    let names = match (hello, utf8) {
        (Some(Hello::Lmtp), false) => ["LMTP", "LMTPA", "LMTPS", "LMTPSA"],
        (Some(Hello::Lmtp), true) => ["UTF8LMTP", "UTF8LMTPA", "UTF8LMTPS", "UTF8LMTPSA"],
        (Some(Hello::Esmtp), true) => ["UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"],
        (Some(Hello::Esmtp), false) => ["ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"],
        (Some(Hello::Smtp) | None, _) => ["SMTP"; 4],
    };
    names[usize::from(origin.tls.is_some()) * 2 + usize::from(origin.login.is_some())]
}
