//! DKIM key records. Pure. RFC 6376 §3.6.1, RFC 8463 §4.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::super::tags::{Tags, without_blanks};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes of an Ed25519 public key.
const ED25519_BYTES: usize = 32;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// 32 bytes.
    Ed25519(Vec<u8>),
    /// DER, RFC 5280 SubjectPublicKeyInfo or RFC 8017 RSAPublicKey.
    Rsa {
        /// The DER.
        der: Vec<u8>,
        /// Bits of the modulus.
        bits: usize,
    },
}

/// A key record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    /// `p=`
    pub key: PublicKey,
    /// `t=y`
    pub testing: bool,
    /// `t=s`: `i=` must not name a subdomain.
    pub strict: bool,
}

/// Why a key record can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The record is no DKIM key.
    Malformed(&'static str),
    /// `p=` is empty.
    Revoked,
}

impl KeyError {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyError::Malformed(reason) => reason,
            KeyError::Revoked => "key is revoked",
        }
    }
}

impl KeyRecord {
    /// Parses a TXT record.
    /// # Errors
    /// See [`KeyError`].
    pub fn parse(record: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(record).map_err(|_| KeyError::Malformed("key record is not text"))?;
        let tags = Tags::parse(text).map_err(|_| KeyError::Malformed("key record is not a tag list"))?;
        if let Some(version) = tags.get("v")
            && (version != "DKIM1" || tags.first() != Some(("v", "DKIM1")))
        {
            return Err(KeyError::Malformed("key record's v= is not DKIM1, or not first"));
        }
        if !list_has(tags.get("h"), &["sha256"]) {
            return Err(KeyError::Malformed("key's h= lacks sha256"));
        }
        if !list_has(tags.get("s"), &["*", "email"]) {
            return Err(KeyError::Malformed("key's s= is not for email"));
        }
        let base64 = without_blanks(tags.get("p").ok_or(KeyError::Malformed("key record has no p="))?);
        if base64.is_empty() {
            return Err(KeyError::Revoked);
        }
        let bytes = BASE64.decode(&base64).map_err(|_| KeyError::Malformed("key's p= is not base64"))?;
        let key = public_key(tags.get("k").unwrap_or("rsa"), bytes)?;
        let flag = |wanted: &str| tags.get("t").is_some_and(|flags| flags.split(':').any(|flag| flag.trim() == wanted));
        Ok(KeyRecord { key, testing: flag("y"), strict: flag("s") })
    }
}

fn list_has(list: Option<&str>, wanted: &[&str]) -> bool {
    list.is_none_or(|list| list.split(':').any(|item| wanted.iter().any(|word| item.trim().eq_ignore_ascii_case(word))))
}

fn public_key(kind: &str, bytes: Vec<u8>) -> Result<PublicKey, KeyError> {
    match kind.to_ascii_lowercase().as_str() {
        "rsa" => {
            let bits = modulus_bits(&bytes).ok_or(KeyError::Malformed("key is not an RSA key"))?;
            Ok(PublicKey::Rsa { der: bytes, bits })
        }
        "ed25519" if bytes.len() == ED25519_BYTES => Ok(PublicKey::Ed25519(bytes)),
        "ed25519" => Err(KeyError::Malformed("key is not 32 bytes long")),
        _ => Err(KeyError::Malformed("key's k= is unknown")),
    }
}

const DER_INTEGER: u8 = 0x02;
const DER_BIT_STRING: u8 = 0x03;
const DER_SEQUENCE: u8 = 0x30;

/// Size of an RSA modulus, read before any arithmetic so that a key of 16,384 bits costs nothing.
fn modulus_bits(der: &[u8]) -> Option<usize> {
    let mut outer = expect(&mut &der[..], DER_SEQUENCE)?;
    let modulus = if outer.first() == Some(&DER_INTEGER) {
        expect(&mut outer, DER_INTEGER)?
    } else {
        expect(&mut outer, DER_SEQUENCE)?;
        let bits = expect(&mut outer, DER_BIT_STRING)?;
        let mut key = expect(&mut bits.strip_prefix(&[0])?, DER_SEQUENCE)?;
        expect(&mut key, DER_INTEGER)?
    };
    let first = modulus.iter().position(|byte| *byte != 0)?;
    Some((modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize)
}

/// One DER value of this tag; moves `input` behind it.
fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let (found, rest) = input.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = if *first < 0x80 {
        (usize::from(*first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        let bytes = rest.get(..count).filter(|_| (1..=3).contains(&count))?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), &rest[count..])
    };
    let value = rest.get(..length).filter(|_| *found == tag)?;
    *input = &rest[length..];
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_are_read_or_named_wrong() {
        let ed = "v=DKIM1; k=ed25519; t=y:s; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let record = KeyRecord::parse(ed.as_bytes()).unwrap();
        assert!(record.testing && record.strict);
        assert_eq!(KeyRecord::parse(b"v=DKIM1; p="), Err(KeyError::Revoked));
        for bad in ["p=AAAA", "v=DKIM2; p=AAAA", "k=x; p=AAAA", "h=sha1; p=AAAA", "s=tls; p=AAAA", "k=ed25519; p=AAAA"]
        {
            assert!(matches!(KeyRecord::parse(bad.as_bytes()), Err(KeyError::Malformed(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = modulus_bits(&bytes);
            let _ = KeyRecord::parse(&bytes);
        }
    }
}
