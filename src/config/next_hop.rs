//! Next hops as URLs. Pure. RFC 3986 for the shape, percent-decoding included.
//!
//! `smtp://user:pass@host:587?tls=required`, `smtps://host`, `lmtp://host:24`, `lmtp+unix:/path`, `maildir:/path/{user}`,
//! `store:`, `mx:`, `discard:`. What is not available yet is named as such, never taken for something else.

use std::fmt;
use std::path::PathBuf;

use super::settings::{DeliverTls, Login, NextHop};
use super::units::{Wrong, nearest};
use crate::base::secret::Secret;
use crate::wire::address::check_domain;

const SMTP_PORT: u16 = 25;
/// RFC 8314 §7.3.
const SMTPS_PORT: u16 = 465;
/// RFC 2033 §5 forbids 25; 24 is "any private mail system".
const LMTP_PORT: u16 = 24;

const SCHEMES: [&str; 8] = ["smtp", "smtps", "lmtp", "lmtp+unix", "maildir", "store", "mx", "discard"];
const SCHEMES_LATER: [&str; 4] = ["imap", "imaps", "http", "https"];

impl NextHop {
    /// Reads a next hop.
    /// # Errors
    /// A sentence that says what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(unknown_scheme(text));
        };
        match scheme {
            "smtp" | "smtps" => parse_smtp(rest, scheme == "smtps"),
            "lmtp" => parse_lmtp(rest),
            "lmtp+unix" => {
                absolute(rest, "lmtp+unix:/run/dovecot/lmtp").map(|path| NextHop::LmtpUnix(PathBuf::from(path)))
            }
            "maildir" => absolute(rest, "maildir:/var/mail/{domain}/{user}").map(NextHop::Maildir),
            "store" | "mx" | "discard" if !rest.is_empty() => {
                Err(format!("`{scheme}:` takes nothing behind the colon, but `{rest}` stands there"))
            }
            "store" => Ok(NextHop::Store),
            "mx" => Ok(NextHop::Mx),
            "discard" => Ok(NextHop::Discard),
            later if SCHEMES_LATER.contains(&later) => Err(format!("`{later}:` is not available in this version")),
            other => Err(unknown_scheme(other)),
        }
    }
}

fn unknown_scheme(scheme: &str) -> Wrong {
    let hint = nearest(scheme, SCHEMES).map(|near| format!("; did you mean `{near}:`?")).unwrap_or_default();
    format!(
        "`{scheme}` names no way of delivery{hint} (there are smtp:// smtps:// lmtp:// lmtp+unix: maildir: store: mx: discard:)"
    )
}

pub(super) fn absolute(path: &str, example: &str) -> Result<String, Wrong> {
    let path = percent_decode(path)?;
    if !path.starts_with('/') {
        return Err(format!("the path must be absolute, such as `{example}`"));
    }
    Ok(path)
}

fn parse_smtp(rest: &str, implicit_tls: bool) -> Result<NextHop, Wrong> {
    let (authority, query) = split_authority(rest)?;
    let (login, host_port) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(parse_login(login)?), host),
        None => (None, authority),
    };
    let (host, port) = host_port_of(host_port, if implicit_tls { SMTPS_PORT } else { SMTP_PORT })?;
    let tls = query.map(parse_query).transpose()?;
    if implicit_tls && tls == Some(DeliverTls::None) {
        return Err("`smtps:` is TLS from the first byte; `tls=none` contradicts it".to_owned());
    }
    Ok(NextHop::Smtp { host, port, implicit_tls, login, tls })
}

fn parse_lmtp(rest: &str) -> Result<NextHop, Wrong> {
    let (authority, query) = split_authority(rest)?;
    if authority.contains('@') || query.is_some() {
        return Err("`lmtp:` takes neither a login nor options; write `lmtp://host:24`".to_owned());
    }
    let (host, port) = host_port_of(authority, LMTP_PORT)?;
    Ok(NextHop::Lmtp { host, port })
}

fn split_authority(rest: &str) -> Result<(&str, Option<&str>), Wrong> {
    let rest = rest.strip_prefix("//").ok_or("two slashes must follow the colon, as in `smtp://host:25`")?;
    let (authority, query) = match rest.split_once('?') {
        Some((authority, query)) => (authority, Some(query)),
        None => (rest, None),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains('/') {
        return Err("a path has no meaning here; write `smtp://host:25`".to_owned());
    }
    Ok((authority, query))
}

fn parse_login(text: &str) -> Result<Login, Wrong> {
    let (user, password) =
        text.split_once(':').ok_or("a login needs a password, as in `smtp://user:password@host:587`")?;
    let login = Login { user: percent_decode(user)?, password: Secret::new(percent_decode(password)?) };
    if login.user.is_empty() || login.password.expose().is_empty() {
        return Err("user and password must not be empty".to_owned());
    }
    Ok(login)
}

pub(super) fn host_port_of(text: &str, default_port: u16) -> Result<(String, u16), Wrong> {
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (host, tail) = literal.split_once(']').ok_or("the bracket of the address is not closed")?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| format!("`{host}` is no IPv6 address"))?;
            (host, tail.strip_prefix(':').or(tail.is_empty().then_some("")).ok_or("a colon must follow the bracket")?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    if !is_address && check_domain(host).is_err() {
        return Err(format!("`{host}` is no host name or address"));
    }
    let port = match port {
        "" => default_port,
        port => port.parse().ok().filter(|port| *port != 0).ok_or(format!("`{port}` is no port (1 to 65535)"))?,
    };
    Ok((host.to_ascii_lowercase(), port))
}

fn parse_query(query: &str) -> Result<DeliverTls, Wrong> {
    let word = query.strip_prefix("tls=").and_then(|word| DeliverTls::WORDS.iter().find(|(known, _)| *known == word));
    word.map(|(_, tls)| *tls).ok_or_else(|| {
        let known: Vec<String> = DeliverTls::WORDS.iter().map(|(word, _)| format!("`?tls={word}`")).collect();
        format!("`?{query}` is unknown; there is {}", known.join(", "))
    })
}

fn percent_decode(text: &str) -> Result<String, Wrong> {
    let wrong = || "a `%` must be followed by two hexadecimal digits; a percent sign itself is `%25`".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte.unwrap_or(b'-')).to_digit(16).ok_or_else(wrong);
        bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
    }
    let text = String::from_utf8(bytes).map_err(|_| "what the percent signs stand for is not UTF-8".to_owned())?;
    if text.contains(char::is_control) {
        return Err("control characters are not allowed".to_owned());
    }
    Ok(text)
}

impl fmt::Display for NextHop {
    /// The URL, without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracket = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            NextHop::Smtp { host, port, implicit_tls, login, tls } => {
                let scheme = if *implicit_tls { "smtps" } else { "smtp" };
                let user = login.as_ref().map(|login| format!("{}@", login.user)).unwrap_or_default();
                let tls = tls.map(|tls| format!("?tls={}", tls.as_str())).unwrap_or_default();
                write!(f, "{scheme}://{user}{}:{port}{tls}", bracket(host))
            }
            NextHop::Lmtp { host, port } => write!(f, "lmtp://{}:{port}", bracket(host)),
            NextHop::LmtpUnix(path) => write!(f, "lmtp+unix:{}", path.display()),
            NextHop::Maildir(path) => write!(f, "maildir:{path}"),
            NextHop::Store => f.write_str("store:"),
            NextHop::Mx => f.write_str("mx:"),
            NextHop::Discard => f.write_str("discard:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_read_back_as_they_are_shown() {
        for text in [
            "smtp://mx.example.org:2525",
            "smtp://[2001:db8::1]:25?tls=required",
            "smtps://192.0.2.1:465",
            "lmtp://127.0.0.1:24",
            "lmtp+unix:/run/dovecot/lmtp",
            "maildir:/var/mail/{domain}/{user}",
            "store:",
            "mx:",
            "discard:",
        ] {
            assert_eq!(NextHop::parse(text).map(|hop| hop.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_login_is_percent_decoded_and_never_shown() {
        let hop = NextHop::parse("smtp://me%40example.org:p%3A%2Fw@host:587").unwrap();
        let NextHop::Smtp { login: Some(login), port: 587, .. } = &hop else { panic!("{hop:?}") };
        assert_eq!((login.user.as_str(), login.password.expose()), ("me@example.org", "p:/w"));
        assert!(!format!("{hop} {hop:?}").contains("p:/w"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "host",
            "smtp:host",
            "smtp://",
            "smtp://h:0",
            "smtp://h:99999",
            "smtp://u@h",
            "smtp://u:%zz@h",
            "smtp://h/x",
            "smtp://h?tls=maybe",
            "smtps://h?tls=none",
            "lmtp://u:p@h",
            "maildir:rel",
            "store:x",
            "imap://h",
            "gopher://h",
            "smtp://[::1",
            "smtp://[zz]:1",
            "smtp://a b",
        ] {
            assert!(NextHop::parse(text).is_err(), "{text}");
        }
    }
}
