//! The replies that a conversation gives by itself. Pure. RFC 5321 §4.2.2, RFC 3463, RFC 5248.

use crate::wire::address::AddressError;
use crate::wire::command::CommandError;
use crate::wire::parameters::ParameterError;
use crate::wire::reply::{Enhanced, Reply};

pub(super) const OK: Reply = Reply::fixed(250, Enhanced(2, 0, 0), "Ok");
pub(super) const SENDER_OK: Reply = Reply::fixed(250, Enhanced(2, 1, 0), "Sender ok");
pub(super) const RECIPIENT_OK: Reply = Reply::fixed(250, Enhanced(2, 1, 5), "Recipient ok");
pub(super) const CHUNK_OK: Reply = Reply::fixed(250, Enhanced(2, 0, 0), "Chunk ok");
pub(super) const START_CONTENT: Reply = Reply::simple(354, "End data with <CR><LF>.<CR><LF>");
pub(super) const START_TLS: Reply = Reply::fixed(220, Enhanced(2, 0, 0), "Ready to start TLS");
pub(super) const AUTHENTICATED: Reply = Reply::fixed(235, Enhanced(2, 7, 0), "Authentication successful");
pub(super) const HELP: Reply = Reply::fixed(214, Enhanced(2, 0, 0), "See RFC 5321; the postmaster of this host helps");
pub(super) const VRFY: Reply =
    Reply::fixed(252, Enhanced(2, 0, 0), "Cannot VRFY, but will take mail and try to deliver it");
pub(super) const EXPN: Reply = Reply::fixed(502, Enhanced(5, 5, 1), "EXPN is not available");

pub(super) const NO_STARTTLS: Reply = Reply::fixed(502, Enhanced(5, 5, 1), "STARTTLS is not available");
pub(super) const NO_AUTH: Reply = Reply::fixed(502, Enhanced(5, 5, 1), "AUTH is not available");
pub(super) const NO_XCLIENT: Reply = Reply::fixed(550, Enhanced(5, 7, 0), "XCLIENT is not for you");
pub(super) const IN_TLS: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "TLS is active already");
pub(super) const HELLO_FIRST: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "Say EHLO or HELO first");
pub(super) const LHLO_FIRST: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "Say LHLO first");
pub(super) const EHLO_FIRST: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "Say EHLO first");
pub(super) const LMTP_ONLY: Reply = Reply::fixed(500, Enhanced(5, 5, 1), "This is LMTP, say LHLO");
pub(super) const SMTP_ONLY: Reply = Reply::fixed(500, Enhanced(5, 5, 1), "This is SMTP, say EHLO");
pub(super) const NESTED_MAIL: Reply =
    Reply::fixed(503, Enhanced(5, 5, 1), "Nested MAIL, end or RSET the transaction first");
pub(super) const MAIL_FIRST: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "Need MAIL before this");
pub(super) const RCPT_FIRST: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "Need RCPT before this");
pub(super) const NO_RECIPIENTS: Reply = Reply::fixed(554, Enhanced(5, 5, 1), "No valid recipients");
pub(super) const IN_CHUNKS: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "Only BDAT or RSET may follow BDAT");
pub(super) const IN_TRANSACTION: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "Not within a transaction");
pub(super) const BINARY_BY_DATA: Reply =
    Reply::fixed(503, Enhanced(5, 5, 1), "BODY=BINARYMIME goes by BDAT only (RFC 3030)");

pub(super) const AUTH_REQUIRED: Reply = Reply::fixed(530, Enhanced(5, 7, 0), "Authentication required");
pub(super) const STARTTLS_REQUIRED: Reply =
    Reply::fixed(530, Enhanced(5, 7, 0), "Issue STARTTLS first, then authenticate");
pub(super) const AUTH_NEEDS_TLS: Reply =
    Reply::fixed(538, Enhanced(5, 7, 11), "Encryption required for authentication");
pub(super) const AUTH_DONE: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "Authenticated already");
pub(super) const AUTH_MECHANISM: Reply = Reply::fixed(504, Enhanced(5, 5, 4), "Unknown authentication mechanism");
pub(super) const AUTH_CANCELLED: Reply = Reply::fixed(501, Enhanced(5, 0, 0), "Authentication cancelled");
pub(super) const AUTH_MALFORMED: Reply = Reply::fixed(501, Enhanced(5, 5, 2), "Malformed authentication message");
pub(super) const AUTH_UNSUPPORTED: Reply =
    Reply::fixed(535, Enhanced(5, 7, 8), "Channel binding and foreign authorization identities are not supported");
pub(super) const AUTH_FAILED: Reply = Reply::fixed(535, Enhanced(5, 7, 8), "Authentication credentials invalid");
pub(super) const AUTH_LINE_LONG: Reply = Reply::fixed(500, Enhanced(5, 5, 6), "Authentication line too long");

pub(super) const LINE_LONG: Reply = Reply::fixed(500, Enhanced(5, 5, 2), "Command line too long");
pub(super) const BARE_LF: Reply = Reply::fixed(500, Enhanced(5, 5, 2), "Command ended by a bare LF, use CR LF");
pub(super) const EARLY: Reply = Reply::fixed(554, Enhanced(5, 5, 0), "You talked before the greeting");
pub(super) const HTTP: Reply = Reply::fixed(554, Enhanced(5, 5, 0), "This is a mail server, not a web server");
pub(super) const BEHIND_STARTTLS: Reply =
    Reply::fixed(554, Enhanced(5, 5, 0), "Nothing may follow STARTTLS before the handshake");
pub(super) const CHUNK_SIZE: Reply =
    Reply::fixed(554, Enhanced(5, 5, 4), "Chunk size makes no sense, cannot tell content from commands");

pub(super) const TOO_BIG: Reply = Reply::fixed(552, Enhanced(5, 3, 4), "Message is larger than this server takes");
pub(super) const TOO_MANY_RECIPIENTS: Reply =
    Reply::fixed(452, Enhanced(4, 5, 3), "Too many recipients, send the rest in another transaction");
pub(super) const TOO_MANY_MESSAGES: Reply = Reply::fixed(
    421,
    Enhanced(4, 7, 0),
    "Too many messages in one connection (messages_per_connection), connect again",
);
pub(super) const HEADER_TOO_BIG: Reply =
    Reply::fixed(552, Enhanced(5, 3, 4), "Header section too large (header_bytes)");
pub(super) const TOO_MANY_HOPS: Reply =
    Reply::fixed(554, Enhanced(5, 4, 6), "Too many hops, this looks like a mail loop");
pub(super) const BARE_IN_CONTENT: Reply = Reply::fixed(
    550,
    Enhanced(5, 5, 2),
    "Message has a bare CR or LF, which allows SMTP smuggling; lines must end with CR LF (RFC 5321 2.3.8)",
);
pub(super) const NUL_IN_CONTENT: Reply =
    Reply::fixed(554, Enhanced(5, 6, 0), "Message has a NUL, which only BDAT with BODY=BINARYMIME may carry");

pub(super) const UTF8_NEEDED: Reply =
    Reply::fixed(553, Enhanced(5, 6, 7), "Non-ASCII address needs the SMTPUTF8 parameter of MAIL");
pub(super) const NO_REQUIRETLS: Reply =
    Reply::fixed(530, Enhanced(5, 7, 10), "REQUIRETLS needs TLS, issue STARTTLS first");
pub(super) const UNKNOWN_PARAMETER: Reply = Reply::fixed(555, Enhanced(5, 5, 4), "Unsupported parameter");

/// The reply to a line that is no command.
pub(super) fn to_command_error(error: CommandError) -> Reply {
    match error {
        CommandError::ChunkSize => CHUNK_SIZE,
        CommandError::Control => Reply::fixed(500, Enhanced(5, 5, 2), "Control character in command"),
        CommandError::EightBit => Reply::fixed(500, Enhanced(5, 5, 2), "8-bit character in command"),
        CommandError::Syntax(form) => Reply::new(501, Enhanced(5, 5, 4), format!("Syntax: {form}")),
        CommandError::Unknown => Reply::fixed(500, Enhanced(5, 5, 1), "Command not recognized"),
    }
}

/// The reply to a reverse-path (`5.1.7`) that is no address.
pub(super) fn to_bad_sender(error: AddressError) -> Reply {
    to_bad_address(error, Enhanced(5, 1, 7), "sender")
}

/// The reply to a forward-path (`5.1.3`) that is no address.
pub(super) fn to_bad_recipient(error: AddressError) -> Reply {
    to_bad_address(error, Enhanced(5, 1, 3), "recipient")
}

fn to_bad_address(error: AddressError, enhanced: Enhanced, whose: &str) -> Reply {
    match error {
        AddressError::NeedsUtf8 => UTF8_NEEDED,
        error => Reply::new(553, enhanced, format!("Bad {whose} address syntax: {error}")),
    }
}

/// The reply to bad parameters.
pub(super) fn to_bad_parameter(error: ParameterError) -> Reply {
    match error {
        ParameterError::Bad(keyword) => Reply::new(501, Enhanced(5, 5, 4), format!("Bad value of parameter {keyword}")),
        ParameterError::Syntax => Reply::fixed(501, Enhanced(5, 5, 4), "Bad parameter syntax"),
        ParameterError::Unknown => UNKNOWN_PARAMETER,
    }
}
