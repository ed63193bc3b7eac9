//! SMTP and LMTP command lines as values that borrow from the line. Pure. RFC 5321 §4.1.1 and its extensions.
//!
//! Invariant: a [`Command`] holds no control character, and bytes above 127 only where SMTPUTF8 may allow them.
//! Not here: whether a command may come now, and what to answer.

use std::fmt;

use super::path::PathArgument;

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// AUTH (RFC 4954); the initial response is base64 or `=`.
    Auth {
        /// The mechanism's name as given.
        mechanism: &'a str,
        /// The initial response.
        initial: Option<&'a str>,
    },
    /// BDAT (RFC 3030).
    Bdat {
        /// Octets that follow.
        bytes: u64,
        /// The last chunk.
        last: bool,
    },
    /// DATA
    Data,
    /// EHLO with the client's name.
    Ehlo(&'a str),
    /// EXPN
    Expn,
    /// HELO with the client's name.
    Helo(&'a str),
    /// HELP
    Help,
    /// An HTTP request line: a browser was made to talk to us.
    Http,
    /// LHLO (RFC 2033) with the client's name.
    Lhlo(&'a str),
    /// MAIL
    Mail(PathArgument<'a>),
    /// NOOP
    Noop,
    /// QUIT
    Quit,
    /// RCPT
    Rcpt(PathArgument<'a>),
    /// RSET
    Rset,
    /// STARTTLS (RFC 3207)
    StartTls,
    /// VRFY
    Vrfy,
    /// XCLIENT (Postfix) with its attributes.
    Xclient(&'a str),
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// BDAT with a size that can't be read: what follows can't be told from commands.
    ChunkSize,
    /// A control character, a NUL, or a CR or LF that does not end the line.
    Control,
    /// Bytes above 127 where nothing allows them, or that are not UTF-8.
    EightBit,
    /// A known verb with a bad argument; holds how it is written.
    Syntax(&'static str),
    /// A verb that we don't know.
    Unknown,
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::ChunkSize => f.write_str("bad chunk size"),
            CommandError::Control => f.write_str("control character in command"),
            CommandError::EightBit => f.write_str("8-bit character in command"),
            CommandError::Syntax(form) => write!(f, "syntax: {form}"),
            CommandError::Unknown => f.write_str("command not recognized"),
        }
    }
}

impl std::error::Error for CommandError {}

/// Verbs of HTTP (RFC 9110 §9, RFC 9113 §3.4) that begin a cross-protocol attack.
const HTTP_VERBS: [&str; 10] = ["GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH", "TRACE", "PRI"];

impl<'a> Command<'a> {
    /// Parses a line without its CR LF. Trailing spaces are tolerated (RFC 5321 §4.1.1).
    /// # Errors
    /// See [`CommandError`].
    pub fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        if line.iter().any(|b| b.is_ascii_control()) {
            return Err(CommandError::Control);
        }
        let text = std::str::from_utf8(line).map_err(|_| CommandError::EightBit)?.trim_end_matches(' ');
        let (verb, argument) = text.split_once(' ').unwrap_or((text, ""));
        if verb.eq_ignore_ascii_case("MAIL") {
            return path_after(argument, "FROM:").map(Command::Mail).ok_or(CommandError::Syntax("MAIL FROM:<address>"));
        }
        if verb.eq_ignore_ascii_case("RCPT") {
            return path_after(argument, "TO:").map(Command::Rcpt).ok_or(CommandError::Syntax("RCPT TO:<address>"));
        }
        if verb.eq_ignore_ascii_case("VRFY") {
            return required(argument, "VRFY address").map(|_| Command::Vrfy);
        }
        if !text.is_ascii() {
            return Err(CommandError::EightBit);
        }
        Self::parse_ascii(verb, argument.trim_start_matches(' '))
    }

    fn parse_ascii(verb: &'a str, argument: &'a str) -> Result<Self, CommandError> {
        let is = |name: &str| verb.eq_ignore_ascii_case(name);
        match verb.len() {
            4 if is("DATA") => bare(argument, Command::Data, "DATA"),
            4 if is("BDAT") => parse_bdat(argument),
            4 if is("EHLO") => parse_name(argument, "EHLO hostname").map(Command::Ehlo),
            4 if is("HELO") => parse_name(argument, "HELO hostname").map(Command::Helo),
            4 if is("LHLO") => parse_name(argument, "LHLO hostname").map(Command::Lhlo),
            4 if is("RSET") => bare(argument, Command::Rset, "RSET"),
            4 if is("QUIT") => bare(argument, Command::Quit, "QUIT"),
            4 if is("NOOP") => Ok(Command::Noop),
            4 if is("HELP") => Ok(Command::Help),
            4 if is("AUTH") => parse_auth(argument),
            4 if is("EXPN") => required(argument, "EXPN list").map(|_| Command::Expn),
            8 if is("STARTTLS") => bare(argument, Command::StartTls, "STARTTLS"),
            7 if is("XCLIENT") => required(argument, "XCLIENT attribute=value ...").map(Command::Xclient),
            _ if HTTP_VERBS.iter().any(|v| is(v)) && !argument.is_empty() => Ok(Command::Http),
            _ => Err(CommandError::Unknown),
        }
    }
}

fn path_after<'a>(argument: &'a str, keyword: &str) -> Option<PathArgument<'a>> {
    let argument = argument.trim_start_matches(' ');
    let found = argument.get(..keyword.len())?.eq_ignore_ascii_case(keyword);
    found.then(|| PathArgument::split(&argument[keyword.len()..])).flatten()
}

fn bare<'a>(argument: &str, command: Command<'a>, form: &'static str) -> Result<Command<'a>, CommandError> {
    if argument.is_empty() { Ok(command) } else { Err(CommandError::Syntax(form)) }
}

fn required<'a>(argument: &'a str, form: &'static str) -> Result<&'a str, CommandError> {
    if argument.is_empty() { Err(CommandError::Syntax(form)) } else { Ok(argument) }
}

/// RFC 5321 §4.5.3.1.2.
const NAME_BYTES_MAX: usize = 255;

/// The name is any printable word: half the world's clients send none that RFC 5321 would allow, and what to think
/// of it is policy's (see [`super::address::check_domain`]).
fn parse_name<'a>(argument: &'a str, form: &'static str) -> Result<&'a str, CommandError> {
    let word =
        !argument.is_empty() && argument.len() <= NAME_BYTES_MAX && argument.bytes().all(|b| b.is_ascii_graphic());
    if word { Ok(argument) } else { Err(CommandError::Syntax(form)) }
}

fn parse_bdat(argument: &str) -> Result<Command<'_>, CommandError> {
    let mut words = argument.split(' ').filter(|w| !w.is_empty());
    let size = words.next().ok_or(CommandError::ChunkSize)?;
    if !size.bytes().all(|b| b.is_ascii_digit()) {
        return Err(CommandError::ChunkSize);
    }
    let bytes = size.parse().map_err(|_| CommandError::ChunkSize)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(CommandError::ChunkSize),
    };
    if words.next().is_some() {
        return Err(CommandError::ChunkSize);
    }
    Ok(Command::Bdat { bytes, last })
}

fn parse_auth(argument: &str) -> Result<Command<'_>, CommandError> {
    let form = "AUTH mechanism [initial-response]";
    let mut words = argument.split(' ').filter(|w| !w.is_empty());
    let mechanism = words.next().ok_or(CommandError::Syntax(form))?;
    let initial = words.next();
    if words.next().is_some() {
        return Err(CommandError::Syntax(form));
    }
    Ok(Command::Auth { mechanism, initial })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case() {
        let parse = |line: &'static str| Command::parse(line.as_bytes()).unwrap();
        assert_eq!(parse("ehlo mx.example.org"), Command::Ehlo("mx.example.org"));
        assert_eq!(parse("data  "), Command::Data);
        assert_eq!(parse("BDAT 86 last"), Command::Bdat { bytes: 86, last: true });
        assert_eq!(parse("BDAT 18446744073709551615"), Command::Bdat { bytes: u64::MAX, last: false });
        assert_eq!(parse("auth plain ="), Command::Auth { mechanism: "plain", initial: Some("=") });
        assert_eq!(
            parse("mail from:<a@b.c> SIZE=1"),
            Command::Mail(PathArgument { path: "a@b.c", parameters: "SIZE=1" })
        );
        assert_eq!(parse("RCPT TO:<é@b.c>"), Command::Rcpt(PathArgument { path: "é@b.c", parameters: "" }));
        assert_eq!(parse("GET / HTTP/1.1"), Command::Http);
        assert_eq!(parse("NOOP whatever"), Command::Noop);
    }

    #[test]
    fn what_is_no_command_says_why() {
        let parse = |line: &'static [u8]| Command::parse(line).unwrap_err();
        for control in [&b"NOOP\0"[..], b"NO\rOP", b"MAIL FROM:<a\x1b@b.c>", b"EHLO a\x7f", b"\tNOOP", b"NOOP\n"] {
            assert_eq!(parse(control), CommandError::Control);
        }
        for eight in [&b"EHLO \xc3\xa9"[..], b"MAIL FROM:<\xff@b.c>", b"NOOP \xe9", b"\xff"] {
            assert_eq!(parse(eight), CommandError::EightBit);
        }
        for size in [
            &b"BDAT"[..],
            b"BDAT -1",
            b"BDAT +1",
            b"BDAT 18446744073709551616",
            b"BDAT 1 LAST X",
            b"BDAT 1 X",
            b"BDAT 0x1",
        ] {
            assert_eq!(parse(size), CommandError::ChunkSize);
        }
        for syntax in [
            &b"MAIL"[..],
            b"MAIL <a@b.c>",
            b"MAIL FROM:a@b.c",
            b"RCPT TO: a@b.c",
            b"EHLO",
            b"EHLO a b",
            b"DATA x",
            b"VRFY",
        ] {
            assert!(matches!(parse(syntax), CommandError::Syntax(_)), "{syntax:?}");
        }
        for unknown in [&b""[..], b" ", b"XYZZY", b"MAILFROM:<a@b.c>", b"GET", b"HELOO a"] {
            assert_eq!(parse(unknown), CommandError::Unknown, "{unknown:?}");
        }
    }
}
