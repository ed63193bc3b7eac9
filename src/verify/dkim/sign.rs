//! Signs a message with the keys of its author's domain. Pure; CPU. RFC 6376 §5, RFC 8463.
//!
//! Always relaxed/relaxed and without `l=`. The fields that a reader sees are signed once more than they occur
//! (oversigned), so that none can be added without breaking the signature (RFC 6376 §8.15).

use std::fmt::Write;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::message::Message;
use super::canonical::{hash_body, write_signature_field, write_signed_fields};
use super::signature::{Algorithm, Canonicalization};

/// Signed if present, and oversigned: what readers show and what tells them how to show it.
const OVERSIGNED: [&str; 7] = ["from", "to", "cc", "subject", "date", "content-type", "message-id"];
/// Signed as often as present.
const SIGNED: [&str; 11] = [
    "reply-to",
    "sender",
    "mime-version",
    "content-transfer-encoding",
    "in-reply-to",
    "references",
    "list-id",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-post",
    "auto-submitted",
];
/// Characters of a folded line of base64.
const FOLD: usize = 72;

/// A private key with its place in DNS.
pub struct SigningKey {
    /// `d=`, lower case.
    pub domain: String,
    /// `s=`
    pub selector: String,
    key: PrivateKey,
}

enum PrivateKey {
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({}, {}, {})", self.domain, self.selector, self.algorithm().as_str())
    }
}

/// Why a key can't sign, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadKey(pub &'static str);

impl std::fmt::Display for BadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadKey {}

impl SigningKey {
    /// From a PEM file's text: PKCS#8 (RSA or Ed25519) or PKCS#1 (`RSA PRIVATE KEY`).
    /// # Errors
    /// [`BadKey`].
    pub fn from_pem(domain: &str, selector: &str, pem: &str) -> Result<Self, BadKey> {
        let (label, der) = read_pem(pem).ok_or(BadKey("not a PEM file"))?;
        let rsa = |pair: Result<RsaKeyPair, _>| pair.map(|pair| PrivateKey::Rsa(Box::new(pair)));
        let key = match label {
            "RSA PRIVATE KEY" => rsa(RsaKeyPair::from_der(&der)).map_err(|_| BadKey("not an RSA key"))?,
            "PRIVATE KEY" => match Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
                Ok(pair) => PrivateKey::Ed25519(pair),
                Err(_) => rsa(RsaKeyPair::from_pkcs8(&der)).map_err(|_| BadKey("neither an RSA nor an Ed25519 key"))?,
            },
            _ => return Err(BadKey("not a private key")),
        };
        Ok(SigningKey { domain: domain.to_ascii_lowercase(), selector: selector.to_ascii_lowercase(), key })
    }

    /// `a=`
    pub fn algorithm(&self) -> Algorithm {
        match self.key {
            PrivateKey::Ed25519(_) => Algorithm::Ed25519Sha256,
            PrivateKey::Rsa(_) => Algorithm::RsaSha256,
        }
    }

    /// The TXT record to publish at `selector._domainkey.domain`.
    pub fn record(&self) -> String {
        let (kind, public) = match &self.key {
            PrivateKey::Ed25519(pair) => ("ed25519", STANDARD.encode(pair.public_key().as_ref())),
            PrivateKey::Rsa(pair) => ("rsa", STANDARD.encode(spki(pair.public_key().as_ref()))),
        };
        format!("v=DKIM1; k={kind}; p={public}")
    }

    /// The signature over `data`.
    pub fn sign_bytes(&self, data: &[u8]) -> Vec<u8> {
        match &self.key {
            PrivateKey::Ed25519(pair) => {
                let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, data);
                pair.sign(hash.as_ref()).as_ref().to_vec()
            }
            PrivateKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature)
                    .expect("the buffer has the modulus' length");
                signature
            }
        }
    }
}

/// DER of a SubjectPublicKeyInfo around an RSAPublicKey, which is what verifiers in the field read (RFC 6376 §3.6.1, erratum 3017).
fn spki(rsa_public_key: &[u8]) -> Vec<u8> {
    const RSA_ENCRYPTION: [u8; 15] = [0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 1, 1, 1, 5, 0];
    let bits = der_value(0x03, &[&[0], rsa_public_key].concat());
    der_value(0x30, &[&RSA_ENCRYPTION[..], &bits].concat())
}

fn der_value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..0x80 => out.push(length as u8),
        0x80..0x100 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

fn read_pem(pem: &str) -> Option<(&str, Vec<u8>)> {
    let (_, rest) = pem.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (base64, _) = rest.split_once("-----END")?;
    let base64: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    Some((label, STANDARD.decode(base64).ok()?))
}

/// One `DKIM-Signature` field with its CR LF, to stand before the message. `now` in seconds since 1970.
pub fn sign(message: &Message, key: &SigningKey, now: u64) -> String {
    let names = names_to_sign(message);
    let body_hash = STANDARD.encode(hash_body(Canonicalization::Relaxed, message.body(), None).digest);
    let mut value = format!(
        " v=1; a={}; c=relaxed/relaxed;\r\n\td={}; s={}; t={now};\r\n\th={};\r\n\tbh={body_hash};\r\n\tb=",
        key.algorithm().as_str(),
        key.domain,
        key.selector,
        fold_names(&names),
    );
    append_signature(&mut value, b"DKIM-Signature", message, &names, key);
    format!("DKIM-Signature:{value}\r\n")
}

/// Signs the fields of `names` and the field `field` itself, whose `value` ends in an empty `b=`, which is filled (RFC 6376 §3.7).
pub fn append_signature(value: &mut String, field: &[u8], message: &Message, names: &[String], key: &SigningKey) {
    let mut data = Vec::new();
    write_signed_fields(Canonicalization::Relaxed, message, names, &mut data);
    write_signature_field(Canonicalization::Relaxed, field, value.as_bytes(), b"", &mut data);
    fold_base64(value, &key.sign_bytes(&data));
}

/// Appends base64 in lines that no relay needs to fold again.
pub fn fold_base64(out: &mut String, bytes: &[u8]) {
    let base64 = STANDARD.encode(bytes);
    let mut rest = base64.as_str();
    while rest.len() > FOLD {
        let (line, behind) = rest.split_at(FOLD);
        let _ = write!(out, "{line}\r\n\t ");
        rest = behind;
    }
    out.push_str(rest);
}

/// What `h=` names for this message.
pub fn names_to_sign(message: &Message) -> Vec<String> {
    let count = |name: &str| message.named(name).count();
    let over = OVERSIGNED.iter().flat_map(|name| std::iter::repeat_n(*name, count(name) + 1));
    let plain = SIGNED.iter().flat_map(|name| std::iter::repeat_n(*name, count(name)));
    over.chain(plain).map(str::to_owned).collect()
}

/// The list for `h=`, folded.
pub fn fold_names(names: &[String]) -> String {
    let mut out = String::new();
    let mut line = 0;
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            out.push(':');
            line += 1;
        }
        if line + name.len() > FOLD {
            out.push_str("\r\n\t ");
            line = 0;
        }
        out.push_str(name);
        line += name.len();
    }
    out
}
