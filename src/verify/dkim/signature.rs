//! The DKIM-Signature field, and ARC's two fields that are built like it. Pure. RFC 6376 §3.5, RFC 8617 §4.1.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::super::tags::{Tags, without_blanks};

/// Signers leave padding out now and then.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Names in `h=` at most; the largest real lists, with oversigning, have under 100.
const SIGNED_NAMES_MAX: usize = 1000;

/// `a=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 8463
    Ed25519Sha256,
    /// Forbidden by RFC 8301 §3.1; named so that the result can say so.
    RsaSha1,
    /// RFC 6376 §3.3.2
    RsaSha256,
}

impl Algorithm {
    /// The tag's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
            Algorithm::RsaSha1 => "rsa-sha1",
            Algorithm::RsaSha256 => "rsa-sha256",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Algorithm::Ed25519Sha256, Algorithm::RsaSha1, Algorithm::RsaSha256];
        all.into_iter().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(text))
    }
}

/// RFC 6376 §3.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Canonicalization {
    /// White space may change.
    Relaxed,
    /// Nothing may change.
    Simple,
}

/// The fields that share this syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ARC-Message-Signature`: `i=` is the instance.
    ArcMessageSignature,
    /// `ARC-Seal`: no `h=`, no `bh=`, always relaxed.
    ArcSeal,
    /// `DKIM-Signature`
    Dkim,
}

/// A parsed signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// `a=`
    pub algorithm: Algorithm,
    /// `b=`
    pub bytes: Vec<u8>,
    /// First characters of `b=` as written.
    pub start: String,
    /// `bh=`; empty in a seal.
    pub body_hash: Vec<u8>,
    /// `c=` for the header.
    pub header: Canonicalization,
    /// `c=` for the body.
    pub body: Canonicalization,
    /// `d=`, lower case, A-labels.
    pub domain: String,
    /// `i=` of a DKIM signature, or `@` and the domain.
    pub identity: String,
    /// `h=`, lower case; empty in a seal.
    pub signed_names: Vec<String>,
    /// `l=`
    pub length: Option<u64>,
    /// `s=`
    pub selector: String,
    /// `t=`
    pub signed_at: Option<u64>,
    /// `x=`
    pub expires: Option<u64>,
}

/// What could be read of a signature that is no good, for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Why.
    pub reason: &'static str,
    /// `d=`, if there.
    pub domain: String,
    /// `s=`, if there.
    pub selector: String,
}

/// RFC 6008 §4 wants at least eight characters.
const START_CHARS: usize = 8;

impl Signature {
    /// Parses a field's value.
    /// # Errors
    /// [`Malformed`], in words.
    pub fn parse(text: &str, kind: Kind) -> Result<Self, Malformed> {
        let tags = Tags::parse(text).map_err(|error| malformed(error.as_str(), None))?;
        read(&tags, kind).map_err(|reason| malformed(reason, Some(&tags)))
    }

    /// Where its key lies.
    pub fn key_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// `i=` names the domain itself and not one below it.
    pub fn identity_is_domain(&self) -> bool {
        identity_domain(&self.identity).eq_ignore_ascii_case(&self.domain)
    }
}

fn malformed(reason: &'static str, tags: Option<&Tags<'_>>) -> Malformed {
    let tag = |name| tags.and_then(|tags| tags.get(name)).map(|value| value.to_ascii_lowercase()).unwrap_or_default();
    Malformed { reason, domain: tag("d"), selector: tag("s") }
}

fn read(tags: &Tags<'_>, kind: Kind) -> Result<Signature, &'static str> {
    if kind == Kind::Dkim && tags.get("v") != Some("1") {
        return Err("v= is not 1");
    }
    let algorithm = Algorithm::parse(tags.get("a").ok_or("a= is missing")?).ok_or("a= is unknown")?;
    let base64 = without_blanks(tags.get("b").ok_or("b= is missing")?);
    let bytes = BASE64.decode(&base64).ok().filter(|bytes| !bytes.is_empty()).ok_or("b= is not base64")?;
    let domain = domain(tags.get("d").ok_or("d= is missing")?).ok_or("d= is not a domain")?;
    let selector = tags.get("s").filter(|selector| !selector.is_empty()).ok_or("s= is missing")?.to_ascii_lowercase();
    let (header, body) = match kind {
        Kind::ArcSeal => (Canonicalization::Relaxed, Canonicalization::Relaxed),
        _ => canonicalizations(tags.get("c").unwrap_or("simple/simple")).ok_or("c= is unknown")?,
    };
    let mut signature = Signature {
        algorithm,
        bytes,
        start: base64.chars().take(START_CHARS).collect(),
        body_hash: Vec::new(),
        header,
        body,
        identity: format!("@{domain}"),
        domain,
        signed_names: Vec::new(),
        length: number(tags, "l").map_err(|()| "l= is not a number")?,
        selector,
        signed_at: number(tags, "t").map_err(|()| "t= is not a number")?,
        expires: number(tags, "x").map_err(|()| "x= is not a number")?,
    };
    if kind != Kind::ArcSeal {
        read_signed_parts(tags, &mut signature)?;
    }
    if kind == Kind::Dkim {
        read_dkim_parts(tags, &mut signature)?;
    }
    Ok(signature)
}

fn read_signed_parts(tags: &Tags<'_>, signature: &mut Signature) -> Result<(), &'static str> {
    let hash = without_blanks(tags.get("bh").ok_or("bh= is missing")?);
    signature.body_hash = BASE64.decode(&hash).map_err(|_| "bh= is not base64")?;
    let names = tags.get("h").ok_or("h= is missing")?;
    signature.signed_names = names.split(':').map(|name| name.trim().to_ascii_lowercase()).collect();
    if signature.signed_names.len() > SIGNED_NAMES_MAX {
        return Err("h= names too many fields");
    }
    // RFC 6376 §5.4: without From a signature says nothing about the author.
    if !signature.signed_names.iter().any(|name| name == "from") {
        return Err("h= lacks From");
    }
    Ok(())
}

fn read_dkim_parts(tags: &Tags<'_>, signature: &mut Signature) -> Result<(), &'static str> {
    if let Some(methods) = tags.get("q") {
        let dns =
            |method: &str| method.trim().eq_ignore_ascii_case("dns/txt") || method.trim().eq_ignore_ascii_case("dns");
        if !methods.split(':').any(dns) {
            return Err("q= is unknown");
        }
    }
    if let Some(identity) = tags.get("i") {
        let of = identity_domain(identity).to_ascii_lowercase();
        let below =
            of.strip_suffix(signature.domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if !below {
            return Err("i= is not within d=");
        }
        signature.identity = without_blanks(identity);
    }
    match (signature.signed_at, signature.expires) {
        (Some(signed_at), Some(expires)) if expires <= signed_at => Err("x= is before t="),
        _ => Ok(()),
    }
}

fn identity_domain(identity: &str) -> &str {
    identity.rsplit_once('@').map_or(identity, |(_, domain)| domain.trim())
}

/// Lower case and A-labels; nothing if it is no domain name.
fn domain(text: &str) -> Option<String> {
    let ascii = if text.is_ascii() { text.to_ascii_lowercase() } else { idna::domain_to_ascii(text).ok()? };
    let shown = ascii.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    (shown && super::super::lookup::is_askable(&ascii)).then_some(ascii)
}

fn canonicalizations(text: &str) -> Option<(Canonicalization, Canonicalization)> {
    let one = |text: &str| match text.trim().to_ascii_lowercase().as_str() {
        "relaxed" => Some(Canonicalization::Relaxed),
        "simple" => Some(Canonicalization::Simple),
        _ => None,
    };
    match text.split_once('/') {
        Some((header, body)) => Some((one(header)?, one(body)?)),
        // RFC 6376 §3.5: a missing body algorithm is simple.
        None => Some((one(text)?, Canonicalization::Simple)),
    }
}

fn number(tags: &Tags<'_>, name: &str) -> Result<Option<u64>, ()> {
    let Some(text) = tags.get(name) else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // RFC 6376 allows 76 digits of l=; a number beyond u64 means "more than there is".
    if digits { Ok(Some(text.parse().unwrap_or(u64::MAX))) } else { Err(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "v=1; a=rsa-sha256; d=Example.com; s=x; h=From : to; bh=AAAA; b=AA AA";

    #[test]
    fn defaults_are_the_rfcs() {
        let signature = Signature::parse(GOOD, Kind::Dkim).unwrap();
        assert_eq!((signature.header, signature.body), (Canonicalization::Simple, Canonicalization::Simple));
        assert_eq!(signature.domain, "example.com");
        assert_eq!(signature.identity, "@example.com");
        assert_eq!(signature.signed_names, ["from", "to"]);
        assert_eq!(signature.key_name(), "x._domainkey.example.com");
    }

    #[test]
    fn what_the_rfc_forbids_is_malformed() {
        for (change, reason) in [
            ("; i=a@other.example", "i= is not within d="),
            ("; i=a@notexample.com", "i= is not within d="),
            ("; x=1; t=2", "x= is before t="),
            ("; l=-1", "l= is not a number"),
            ("; q=http", "q= is unknown"),
            ("; v=1", "a tag occurs twice"),
        ] {
            assert_eq!(Signature::parse(&format!("{GOOD}{change}"), Kind::Dkim).unwrap_err().reason, reason);
        }
        assert_eq!(Signature::parse(&GOOD.replace("From", "X"), Kind::Dkim).unwrap_err().reason, "h= lacks From");
    }

    proptest! {
        #[test]
        fn any_text_is_a_signature_or_malformed(text in "(v=1;|a=rsa-sha256;|d=[a-z.]{0,9};|s=x;|h=from;|bh=[A-Z=]{0,5};|b=[A-Z=]{0,5};|.{0,9}){0,12}") {
            let _ = Signature::parse(&text, Kind::Dkim);
            let _ = Signature::parse(&text, Kind::ArcSeal);
        }
    }
}
