//! The banner, HELO, EHLO and LHLO, and the list of extensions. Pure. RFC 5321 §3.2, §4.1.1.1; RFC 2033 §4.1.

use super::ask::Ask;
use super::context::{Context, Hello};
use super::replies;
use super::session::Session;
use super::state::{Asked, State};
use crate::wire::command::Command;
use crate::wire::reply::Reply;

/// Attributes of XCLIENT that are understood.
const XCLIENT_KEYWORD: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

impl Session {
    /// HELO, EHLO or LHLO. Ends a transaction like RSET (RFC 5321 §4.1.4).
    pub(super) fn hello(&mut self, state: State, command: Command<'_>, name: &str) -> State {
        let hello = match command {
            Command::Lhlo(_) => Hello::Lmtp,
            Command::Ehlo(_) => Hello::Esmtp,
            _ => Hello::Smtp,
        };
        match (self.context.is_lmtp(), hello) {
            (true, Hello::Smtp | Hello::Esmtp) => return self.context.error(&replies::LMTP_ONLY, state),
            (false, Hello::Lmtp) => return self.context.error(&replies::SMTP_ONLY, state),
            _ => {}
        }
        if self.context.pipelined && hello != Hello::Smtp {
            self.context.counters.pipelining_faults += 1;
        }
        self.context.hello = Some(hello);
        self.context.mail_refused = false;
        self.context.change_origin(|origin| name.clone_into(&mut origin.helo));
        let origin = self.context.origin.clone();
        self.context.ask(Ask::Hello { origin }, Asked::Hello(hello))
    }
}

impl Context {
    /// The banner.
    pub(super) fn banner(&self) -> Reply {
        let protocol = if self.is_lmtp() { "LMTP" } else { "ESMTP" };
        Reply { code: 220, enhanced: None, text: format!("{} {protocol} ready", self.settings.hostname).into() }
    }

    /// What EHLO is answered: our name, and for ESMTP what we can do.
    pub(super) fn hello_text(&self, hello: Hello) -> String {
        let mut text = String::from(&*self.settings.hostname);
        if hello == Hello::Smtp {
            return text;
        }
        let limits = &self.settings.limits;
        text.push_str("\nPIPELINING\nSIZE ");
        text.push_str(&limits.size.to_string());
        text.push_str("\n8BITMIME\nSMTPUTF8\nDSN\nENHANCEDSTATUSCODES\nCHUNKING");
        if self.settings.binarymime {
            text.push_str("\nBINARYMIME");
        }
        if self.settings.starttls && !self.has_tls() {
            text.push_str("\nSTARTTLS");
        }
        if self.settings.auth_usable(self.has_tls()) && self.origin.login.is_none() {
            text.push_str("\nAUTH SCRAM-SHA-256 PLAIN LOGIN");
        }
        if self.has_tls() {
            text.push_str("\nREQUIRETLS");
        }
        text.push_str(&format!("\nLIMITS MAILMAX={} RCPTMAX={}", limits.messages_per_connection, limits.recipients));
        if self.xclient_trusted {
            text.push('\n');
            text.push_str(XCLIENT_KEYWORD);
        }
        text
    }
}
