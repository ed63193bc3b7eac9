//! MAIL and RCPT, and the end of a message. Pure. RFC 5321 §4.1.1.2, §4.1.1.3; RFC 3461; RFC 6531; RFC 8689.

use super::ask::{Ask, Received};
use super::context::{Context, protocol};
use super::counters::Limit;
use super::replies;
use super::session::Session;
use super::state::{Asked, State};
use crate::base::content::ContentBuilder;
use crate::config::settings::Role;
use crate::wire::address::Mailbox;
use crate::wire::data::ContentFacts;
use crate::wire::envelope::{BodyType, Envelope, Recipient};
use crate::wire::header::HeaderFacts;
use crate::wire::parameters::{MailParameters, RcptParameters};
use crate::wire::path::PathArgument;
use crate::wire::reply::Reply;

/// RCPTs over the limit that cost nothing, because a sender with a long list sends them all before it reads the first `452`;
/// Postfix's smtpd_recipient_overshoot_limit.
const RECIPIENTS_OVERSHOOT_MAX: u32 = 1000;

/// An accepted MAIL and the recipients accepted since.
pub(super) struct Transaction {
    reverse_path: Option<Mailbox>,
    parameters: MailParameters,
    recipients: Vec<Recipient>,
    /// A RCPT was refused.
    refused: bool,
    /// RCPTs that came over the limit.
    overshoot: u32,
}

impl Transaction {
    /// What DATA or BDAT hears instead of going on, if it may not.
    pub fn not_ready(&self, lmtp: bool) -> Option<Reply> {
        match (self.recipients.is_empty(), self.refused && !lmtp) {
            (false, _) => None,
            (true, true) => Some(replies::NO_RECIPIENTS),
            // RFC 2033 §4.2 wants 503 of LMTP in either case.
            (true, false) => Some(replies::RCPT_FIRST),
        }
    }

    /// A RCPT was refused.
    pub fn has_refused(&self) -> bool {
        self.refused
    }

    /// True if the content may only come by BDAT.
    pub fn is_binary(&self) -> bool {
        self.parameters.body == Some(BodyType::BinaryMime)
    }

    /// Replies that the end of the content calls for.
    fn replies(&self, context: &Context) -> usize {
        if context.is_lmtp() { self.recipients.len() } else { 1 }
    }

    /// Refuses the content; LMTP says so to each recipient.
    pub fn refuse(self, context: &mut Context, reply: &Reply) -> State {
        context.end_transaction();
        for _ in 0..self.replies(context) {
            context.reply(reply);
        }
        State::Ready
    }

    /// The content is whole: looks at its header section and asks what becomes of it.
    pub fn finish(self, context: &mut Context, builder: ContentBuilder, facts: ContentFacts, chunked: bool) -> State {
        let Ok(content) = builder.finish() else {
            return self.refuse(context, &Reply::NO_SPACE);
        };
        let header = HeaderFacts::of(&content);
        if let Some((limit, reply)) = header_fault(context, &header) {
            context.counters.hit(limit);
            return self.refuse(context, &reply);
        }
        let replies = self.replies(context);
        let envelope = self.into_envelope(context, facts.eight_bit);
        let bare = facts.bare || facts.nul;
        let received = Received { envelope, content, chunked, bare, header };
        context.ask(Ask::Message(Box::new(received)), Asked::Message { replies })
    }

    fn into_envelope(self, context: &Context, eight_bit: bool) -> Envelope {
        let mut origin = (*context.origin).clone();
        origin.protocol = protocol(context.hello, &origin, self.parameters.smtputf8);
        // What was declared as 7BIT and is not would be refused, or mangled, by a next hop that believes it.
        let body = match self.parameters.body.unwrap_or_default() {
            BodyType::SevenBit if eight_bit => BodyType::EightBitMime,
            declared => declared,
        };
        Envelope {
            origin,
            reverse_path: self.reverse_path,
            recipients: self.recipients,
            body,
            smtputf8: self.parameters.smtputf8,
            require_tls: self.parameters.require_tls,
            ret: self.parameters.ret,
            envid: self.parameters.envid,
        }
    }

    /// RCPT was allowed.
    pub fn add(mut self: Box<Self>, recipient: Recipient) -> State {
        self.recipients.push(recipient);
        State::Transaction(self)
    }

    /// RCPT was refused.
    pub fn not_added(mut self: Box<Self>) -> State {
        self.refused = true;
        State::Transaction(self)
    }
}

fn header_fault(context: &Context, header: &HeaderFacts) -> Option<(Limit, Reply)> {
    let limits = &context.settings.limits;
    if header.bytes > limits.header_bytes as usize {
        return Some((Limit::HeaderBytes, replies::HEADER_TOO_BIG));
    }
    // RFC 5321 §6.3.
    (header.received > limits.hops).then_some((Limit::Hops, replies::TOO_MANY_HOPS))
}

impl Session {
    pub(super) fn mail(&mut self, state: State, argument: PathArgument<'_>) -> State {
        if let Some(reply) = self.mail_out_of_order(&state) {
            return self.context.error(&reply, state);
        }
        self.context.mail_refused = true;
        if self.context.transactions >= self.context.settings.limits.messages_per_connection {
            self.context.counters.hit(Limit::MessagesPerConnection);
            return self.context.reply_and_close(&replies::TOO_MANY_MESSAGES);
        }
        let parameters = match MailParameters::parse(argument.parameters) {
            Ok(parameters) => parameters,
            Err(error) => return self.context.error(&replies::to_bad_parameter(error), state),
        };
        if let Some(reply) = self.parameters_refused(&parameters) {
            return self.context.error(&reply, state);
        }
        if parameters.size.is_some_and(|size| size > self.context.settings.limits.size) {
            self.context.counters.hit(Limit::Size);
            return self.context.junk(&replies::TOO_BIG, state);
        }
        let reverse_path = match argument.reverse_path(parameters.smtputf8) {
            Ok(path) => path,
            Err(error) => return self.context.error(&replies::to_bad_sender(error), state),
        };
        let ask = Ask::Mail {
            origin: self.context.origin.clone(),
            reverse_path: reverse_path.clone(),
            size: parameters.size,
        };
        let transaction =
            Transaction { reverse_path, parameters, recipients: Vec::new(), refused: false, overshoot: 0 };
        self.context.ask(ask, Asked::Mail(Box::new(transaction)))
    }

    fn mail_out_of_order(&self, state: &State) -> Option<Reply> {
        let context = &self.context;
        if !matches!(state, State::Ready) {
            return Some(replies::NESTED_MAIL);
        }
        if context.hello.is_none() {
            return Some(self.hello_first());
        }
        if context.settings.role == Role::Submission && context.origin.login.is_none() {
            let usable = context.settings.auth_usable(context.has_tls());
            return Some(if usable { replies::AUTH_REQUIRED } else { replies::STARTTLS_REQUIRED });
        }
        None
    }

    fn parameters_refused(&self, parameters: &MailParameters) -> Option<Reply> {
        if parameters.body == Some(BodyType::BinaryMime) && !self.context.settings.binarymime {
            return Some(replies::UNKNOWN_PARAMETER);
        }
        // RFC 4954 §5: the parameter belongs to AUTH, and is nothing without it.
        if parameters.auth && !self.context.settings.auth {
            return Some(replies::UNKNOWN_PARAMETER);
        }
        (parameters.require_tls && !self.context.has_tls()).then_some(replies::NO_REQUIRETLS)
    }

    pub(super) fn rcpt(&mut self, state: State, argument: PathArgument<'_>) -> State {
        let mut transaction = match state {
            State::Transaction(transaction) => transaction,
            State::Chunking(_) => return self.context.error(&replies::IN_CHUNKS, state),
            _ => return self.context.misplaced(&replies::MAIL_FIRST, self.context.mail_refused, state),
        };
        let utf8 = transaction.parameters.smtputf8;
        if transaction.recipients.len() >= self.context.settings.limits.recipients as usize {
            self.context.counters.hit(Limit::Recipients);
            transaction.overshoot += 1;
            let forgiven = transaction.overshoot <= RECIPIENTS_OVERSHOOT_MAX;
            let next = State::Transaction(transaction);
            let reply = &replies::TOO_MANY_RECIPIENTS;
            return if forgiven { self.context.reply_then(reply, next) } else { self.context.error(reply, next) };
        }
        let parameters = match RcptParameters::parse(argument.parameters, utf8) {
            Ok(parameters) => parameters,
            Err(error) => return self.context.error(&replies::to_bad_parameter(error), transaction.not_added()),
        };
        let mailbox = match argument.forward_path(utf8, &self.context.settings.hostname) {
            Ok(mailbox) => mailbox,
            Err(error) => return self.context.error(&replies::to_bad_recipient(error), transaction.not_added()),
        };
        let recipient = Recipient { mailbox, notify: parameters.notify, orcpt: parameters.orcpt };
        let ask = Ask::Rcpt {
            origin: self.context.origin.clone(),
            reverse_path: transaction.reverse_path.clone(),
            recipient: recipient.clone(),
            accepted: transaction.recipients.len() as u32,
        };
        self.context.ask(ask, Asked::Rcpt(transaction, Box::new(recipient)))
    }
}
