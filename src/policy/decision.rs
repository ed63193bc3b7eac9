//! What was decided and why, as values. Pure.

use crate::wire::reply::{Enhanced, Reply};

/// Why something was allowed or refused. The word is a label of metrics and logs: bounded, stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing speaks against it.
    Ordinary,
    /// The recipient's domain is ours and takes it.
    OurDomain,
    /// An alias of ours.
    Alias,
    /// A bounce to a reverse-path that we rewrote.
    SrsBounce,
    /// What claims to be such a bounce and is none.
    SrsRefused,
    /// The session has a login.
    Login,
    /// The client's network may relay.
    TrustedNetwork,
    /// Mail for the postmaster is always taken (RFC 5321 §4.5.1).
    Postmaster,
    /// This listener is for trusted networks.
    ClientNotTrusted,
    /// AUTH must come first.
    AuthRequired,
    /// The reverse-path belongs to somebody else.
    SenderNotOwned,
    /// The recipient's domain is not ours and the client may not relay.
    RelayDenied,
    /// A route hidden in the local part: `%`, `!`, a quoted `@`.
    HiddenRoute,
    /// `user@[192.0.2.1]`.
    AddressLiteral,
    /// A local part that programs behind us could take for an option, a pipe or a file.
    BadLocalPart,
    /// Nobody of that name.
    UnknownUser,
    /// Whether there is anybody of that name is not known now.
    UserUnverified,
    /// Above a `[[rate]]`.
    Rate,
    /// A milter will not have the recipient.
    Scanner,
}

impl Reason {
    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Ordinary => "ordinary",
            Reason::OurDomain => "our_domain",
            Reason::Alias => "alias",
            Reason::SrsBounce => "srs_bounce",
            Reason::SrsRefused => "srs_refused",
            Reason::Login => "login",
            Reason::TrustedNetwork => "trusted_network",
            Reason::Postmaster => "postmaster",
            Reason::ClientNotTrusted => "client_not_trusted",
            Reason::AuthRequired => "auth_required",
            Reason::SenderNotOwned => "sender_not_owned",
            Reason::RelayDenied => "relay_denied",
            Reason::HiddenRoute => "hidden_route",
            Reason::AddressLiteral => "address_literal",
            Reason::BadLocalPart => "bad_local_part",
            Reason::UnknownUser => "unknown_user",
            Reason::UserUnverified => "user_unverified",
            Reason::Rate => "rate",
            Reason::Scanner => "scanner",
        }
    }
}

/// What to say and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The refusal; nothing: go on with the standard positive reply.
    pub reply: Option<Reply>,
    /// Why.
    pub reason: Reason,
    /// The setting that is responsible, where the reason alone does not tell it: which rate, which scanner.
    pub setting: String,
}

impl Decision {
    /// Go on.
    pub fn allow(reason: Reason) -> Self {
        Decision { reply: None, reason, setting: String::new() }
    }

    /// Say no with a text that is known at compile time.
    pub const fn refuse(reason: Reason, code: u16, enhanced: Enhanced, text: &'static str) -> Self {
        Decision { reply: Some(Reply::fixed(code, enhanced, text)), reason, setting: String::new() }
    }

    /// True unless there is a refusal.
    pub fn is_allowed(&self) -> bool {
        self.reply.is_none()
    }

    /// True if the refusal may not hold for ever.
    pub fn is_transient(&self) -> bool {
        self.reply.as_ref().is_some_and(Reply::is_transient)
    }
}
