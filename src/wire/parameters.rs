//! ESMTP parameters of MAIL and RCPT. Pure.
//!
//! RFC 5321 §4.1.2 (grammar), RFC 1870 (SIZE), RFC 6152 and 3030 (BODY), RFC 6531 (SMTPUTF8), RFC 3461 (RET, ENVID,
//! NOTIFY, ORCPT), RFC 8689 (REQUIRETLS), RFC 4954 §5 (AUTH). Each may stand once; what is unknown is refused, as
//! RFC 5321 §4.1.1.11 asks. Whether an extension is offered at all is the session's to know.

use super::envelope::{BodyType, Notify, Return};
use super::xtext;

/// RFC 3461 §4.4.
const ENVID_BYTES_MAX: usize = 100;
/// RFC 3461 §4.2.
const ORCPT_BYTES_MAX: usize = 500;
/// RFC 1870 §4: twenty digits at most.
const SIZE_DIGITS_MAX: usize = 20;

/// Why parameters were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterError {
    /// The keyword's value breaks its grammar, or the keyword stands twice.
    Bad(&'static str),
    /// Not a keyword and its value at all.
    Syntax,
    /// A keyword that we don't offer.
    Unknown,
}

/// Parameters of MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailParameters {
    /// `SIZE`
    pub size: Option<u64>,
    /// `BODY`
    pub body: Option<BodyType>,
    /// `SMTPUTF8`
    pub smtputf8: bool,
    /// `REQUIRETLS`
    pub require_tls: bool,
    /// `RET`
    pub ret: Option<Return>,
    /// `ENVID`, decoded.
    pub envid: Option<String>,
    /// `AUTH` was given. Its value is checked and not believed (RFC 4954 §5).
    pub auth: bool,
}

impl MailParameters {
    /// Parses what follows the path.
    /// # Errors
    /// See [`ParameterError`].
    pub fn parse(text: &str) -> Result<Self, ParameterError> {
        let mut parameters = MailParameters::default();
        for word in words(text) {
            let (keyword, value) = split(word)?;
            parameters.set(keyword, value)?;
        }
        Ok(parameters)
    }

    fn set(&mut self, keyword: &str, value: Option<&str>) -> Result<(), ParameterError> {
        let is = |name: &str| keyword.eq_ignore_ascii_case(name);
        match value {
            Some(value) if is("SIZE") => once(&mut self.size, parse_size(value), "SIZE"),
            Some(value) if is("BODY") => once(&mut self.body, parse_body(value), "BODY"),
            Some(value) if is("RET") => once(&mut self.ret, parse_return(value), "RET"),
            Some(value) if is("ENVID") => once(&mut self.envid, parse_envid(value), "ENVID"),
            Some(value) if is("AUTH") => flag(&mut self.auth, xtext::decode_utf8(value).is_some(), "AUTH"),
            _ if is("SMTPUTF8") => flag(&mut self.smtputf8, value.is_none(), "SMTPUTF8"),
            _ if is("REQUIRETLS") => flag(&mut self.require_tls, value.is_none(), "REQUIRETLS"),
            _ => Err(ParameterError::Unknown),
        }
    }
}

/// Parameters of RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RcptParameters {
    /// `NOTIFY`
    pub notify: Option<Notify>,
    /// `ORCPT`, decoded.
    pub orcpt: Option<String>,
}

impl RcptParameters {
    /// Parses what follows the path. `utf8`: the transaction has SMTPUTF8.
    /// # Errors
    /// See [`ParameterError`].
    pub fn parse(text: &str, utf8: bool) -> Result<Self, ParameterError> {
        let mut parameters = RcptParameters::default();
        for word in words(text) {
            let (keyword, value) = split(word)?;
            let is = |name: &str| keyword.eq_ignore_ascii_case(name);
            match value {
                Some(value) if is("NOTIFY") => once(&mut parameters.notify, parse_notify(value), "NOTIFY")?,
                Some(value) if is("ORCPT") => once(&mut parameters.orcpt, parse_orcpt(value, utf8), "ORCPT")?,
                _ => return Err(ParameterError::Unknown),
            }
        }
        Ok(parameters)
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(' ').filter(|word| !word.is_empty())
}

/// esmtp-param = esmtp-keyword ["=" esmtp-value]
fn split(word: &str) -> Result<(&str, Option<&str>), ParameterError> {
    let (keyword, value) = match word.split_once('=') {
        Some((keyword, value)) => (keyword, Some(value)),
        None => (word, None),
    };
    let named = keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && keyword.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if !named || value.is_some_and(str::is_empty) {
        return Err(ParameterError::Syntax);
    }
    Ok((keyword, value))
}

fn once<T>(place: &mut Option<T>, value: Option<T>, keyword: &'static str) -> Result<(), ParameterError> {
    if place.is_some() || value.is_none() {
        return Err(ParameterError::Bad(keyword));
    }
    *place = value;
    Ok(())
}

fn flag(place: &mut bool, valid: bool, keyword: &'static str) -> Result<(), ParameterError> {
    if *place || !valid {
        return Err(ParameterError::Bad(keyword));
    }
    *place = true;
    Ok(())
}

/// A number too large for 64 bits is a size that nobody takes, not a syntax error.
fn parse_size(value: &str) -> Option<u64> {
    let digits = value.len() <= SIZE_DIGITS_MAX && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().unwrap_or(u64::MAX))
}

fn parse_body(value: &str) -> Option<BodyType> {
    match value {
        v if v.eq_ignore_ascii_case("7BIT") => Some(BodyType::SevenBit),
        v if v.eq_ignore_ascii_case("8BITMIME") => Some(BodyType::EightBitMime),
        v if v.eq_ignore_ascii_case("BINARYMIME") => Some(BodyType::BinaryMime),
        _ => None,
    }
}

fn parse_return(value: &str) -> Option<Return> {
    match value {
        v if v.eq_ignore_ascii_case("FULL") => Some(Return::Full),
        v if v.eq_ignore_ascii_case("HDRS") => Some(Return::Headers),
        _ => None,
    }
}

fn parse_envid(value: &str) -> Option<String> {
    (value.len() <= ENVID_BYTES_MAX).then(|| xtext::decode(value)).flatten()
}

fn parse_orcpt(value: &str, utf8: bool) -> Option<String> {
    (value.len() <= ORCPT_BYTES_MAX).then(|| xtext::decode_orcpt(value, utf8)).flatten()
}

/// `NEVER` stands alone (RFC 3461 §4.1).
fn parse_notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::NEVER);
    }
    let mut notify = Notify::NEVER;
    for word in value.split(',') {
        let place = match word {
            w if w.eq_ignore_ascii_case("SUCCESS") => &mut notify.success,
            w if w.eq_ignore_ascii_case("FAILURE") => &mut notify.failure,
            w if w.eq_ignore_ascii_case("DELAY") => &mut notify.delay,
            _ => return None,
        };
        *place = true;
    }
    Some(notify)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_parameters_are_read() {
        let text = "size=10 BODY=8bitmime RET=HDRS ENVID=a+2Bb SMTPUTF8 REQUIRETLS AUTH=<>";
        let read = MailParameters::parse(text).unwrap();
        assert_eq!((read.size, read.body, read.ret), (Some(10), Some(BodyType::EightBitMime), Some(Return::Headers)));
        assert_eq!(read.envid.as_deref(), Some("a+b"));
        assert!(read.smtputf8 && read.require_tls && read.auth);
        assert_eq!(MailParameters::parse("SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
    }

    #[test]
    fn bad_mail_parameters_are_refused() {
        for bad in
            ["SIZE=x", "SIZE=-1", "SIZE=+1", "SIZE=1 SIZE=1", "SIZE=999999999999999999999", "BODY=9BIT", "RET=ALL"]
        {
            assert!(matches!(MailParameters::parse(bad), Err(ParameterError::Bad(_))), "{bad}");
        }
        for bad in ["ENVID=+0A", "SMTPUTF8=1", "SMTPUTF8 SMTPUTF8", "AUTH=+0"] {
            assert!(matches!(MailParameters::parse(bad), Err(ParameterError::Bad(_))), "{bad}");
        }
        for unknown in ["XYZ", "SIZE", "BY=1;R", "MT-PRIORITY=1", "NOTIFY=NEVER"] {
            assert_eq!(MailParameters::parse(unknown), Err(ParameterError::Unknown), "{unknown}");
        }
        for syntax in ["=1", "-A=1", "SIZE=", "A_B"] {
            assert_eq!(MailParameters::parse(syntax), Err(ParameterError::Syntax), "{syntax}");
        }
    }

    #[test]
    fn rcpt_parameters_are_read_or_refused() {
        let read = RcptParameters::parse("NOTIFY=success,DELAY ORCPT=rfc822;a@b.c", false).unwrap();
        assert_eq!(read.notify, Some(Notify { success: true, failure: false, delay: true }));
        assert_eq!(read.orcpt.as_deref(), Some("rfc822;a@b.c"));
        for bad in ["NOTIFY=NEVER,SUCCESS", "NOTIFY=X", "NOTIFY=,", "ORCPT=rfc822", "ORCPT=rfc822;+0D+0AX"] {
            assert!(matches!(RcptParameters::parse(bad, false), Err(ParameterError::Bad(_))), "{bad}");
        }
        assert_eq!(RcptParameters::parse("SIZE=1", false), Err(ParameterError::Unknown));
    }
}
