//! POP3 commands (RFC 1939 §4 to §7, RFC 2449 §5, RFC 2595 §4, RFC 5034 §4). Pure.

use crate::base::secret::Secret;

/// A command with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// `APOP name digest`
    Apop(String, String),
    /// `AUTH mechanism [initial-response]`; the mechanism in upper case.
    Auth(String, Option<String>),
    /// `CAPA`
    Capa,
    /// `DELE msg`
    Dele(u32),
    /// `LIST [msg]`
    List(Option<u32>),
    /// `NOOP`
    Noop,
    /// `PASS string`; may have spaces.
    Pass(Secret),
    /// `QUIT`
    Quit,
    /// `RETR msg`
    Retr(u32),
    /// `RSET`
    Rset,
    /// `STAT`
    Stat,
    /// `STLS`
    Stls,
    /// `TOP msg n`
    Top(u32, u32),
    /// `UIDL [msg]`
    Uidl(Option<u32>),
    /// `USER name`
    User(String),
}

/// Why a line is no command; the text of the `-ERR`.
pub type SyntaxError = &'static str;

const UNKNOWN: SyntaxError = "unknown command";
const NO_ARGUMENTS: SyntaxError = "this command has no arguments";
const MESSAGE_NUMBER: SyntaxError = "a message number is needed";

/// Parses one line, without its end.
/// # Errors
/// The text to answer.
pub fn parse(line: &[u8]) -> Result<Command, SyntaxError> {
    let line = std::str::from_utf8(line).map_err(|_| "a command is ASCII or UTF-8")?;
    if line.contains(char::is_control) {
        return Err("a command has no control characters");
    }
    let (keyword, rest) = line.split_once(' ').map_or((line, None), |(keyword, rest)| (keyword, Some(rest)));
    // What follows PASS is the password as it is; everywhere else the spaces around are not looked at.
    let words = rest.map(str::trim).filter(|rest| !rest.is_empty());
    match keyword.to_ascii_uppercase().as_str() {
        "APOP" => apop(words),
        "AUTH" => auth(words),
        "CAPA" => alone(Command::Capa, words),
        "DELE" => number(words).map(Command::Dele),
        "LIST" => optional_number(words).map(Command::List),
        "NOOP" => alone(Command::Noop, words),
        "PASS" => match rest.filter(|rest| !rest.is_empty()) {
            Some(password) => Ok(Command::Pass(Secret::new(password))),
            None => Err("a password is needed"),
        },
        "QUIT" => alone(Command::Quit, words),
        "RETR" => number(words).map(Command::Retr),
        "RSET" => alone(Command::Rset, words),
        "STAT" => alone(Command::Stat, words),
        "STLS" => alone(Command::Stls, words),
        "TOP" => top(words),
        "UIDL" => optional_number(words).map(Command::Uidl),
        "USER" => words.map(|name| Command::User(name.to_owned())).ok_or("a user name is needed"),
        _ => Err(UNKNOWN),
    }
}

fn alone(command: Command, words: Option<&str>) -> Result<Command, SyntaxError> {
    if words.is_some() { Err(NO_ARGUMENTS) } else { Ok(command) }
}

fn number(words: Option<&str>) -> Result<u32, SyntaxError> {
    let digits = words.filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(MESSAGE_NUMBER)
}

fn optional_number(words: Option<&str>) -> Result<Option<u32>, SyntaxError> {
    if words.is_none() { Ok(None) } else { number(words).map(Some) }
}

fn top(words: Option<&str>) -> Result<Command, SyntaxError> {
    const SHAPE: SyntaxError = "TOP takes a message number and a number of lines";
    let (message, lines) = words.and_then(|text| text.split_once(' ')).ok_or(SHAPE)?;
    let message = number(Some(message)).map_err(|_| SHAPE)?;
    number(Some(lines.trim_start())).map(|lines| Command::Top(message, lines)).map_err(|_| SHAPE)
}

fn apop(words: Option<&str>) -> Result<Command, SyntaxError> {
    let (name, digest) = words.and_then(|text| text.rsplit_once(' ')).ok_or("APOP takes a name and a digest")?;
    Ok(Command::Apop(name.trim_end().to_owned(), digest.to_owned()))
}

fn auth(words: Option<&str>) -> Result<Command, SyntaxError> {
    let words = words.ok_or("a mechanism is needed")?;
    let (mechanism, initial) = words.split_once(' ').map_or((words, None), |(m, i)| (m, Some(i.to_owned())));
    Ok(Command::Auth(mechanism.to_ascii_uppercase(), initial))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_the_rfc_writes_them() {
        let cases: [(&str, Command); 14] = [
            ("quit", Command::Quit),
            ("QUIT ", Command::Quit),
            ("USER alice", Command::User("alice".into())),
            ("PASS two  words ", Command::Pass(Secret::new("two  words "))),
            ("APOP alice 0123", Command::Apop("alice".into(), "0123".into())),
            ("LIST", Command::List(None)),
            ("LIST 7", Command::List(Some(7))),
            ("UIDL 1", Command::Uidl(Some(1))),
            ("RETR 0001", Command::Retr(1)),
            ("DELE 2", Command::Dele(2)),
            ("TOP 1 0", Command::Top(1, 0)),
            ("AUTH plain", Command::Auth("PLAIN".into(), None)),
            ("AUTH PLAIN =", Command::Auth("PLAIN".into(), Some("=".into()))),
            ("CAPA", Command::Capa),
        ];
        for (line, wanted) in cases {
            assert_eq!(parse(line.as_bytes()), Ok(wanted), "{line}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for line in ["", " ", "HELO x", "RETR", "RETR x", "RETR +1", "RETR -1", "RETR 99999999999", "TOP 1", "TOP 1 x"]
        {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        for line in [&b"USER a\0b"[..], b"USER \xff", b"PASS", b"PASS ", b"STAT 1", b"USER ", b"APOP x", b"AUTH"] {
            assert!(parse(line).is_err(), "{line:?}");
        }
    }
}
