//! The decision on one signature: what RFC 8601 word it earns, and why. Pure; the cryptography is aws-lc's.
//!
//! Policy of RFC 8301: SHA-1 and RSA under 1024 bits never pass; above 4096 bits nothing is computed. A signature
//! that leaves part of the body unsigned (`l=`) is distrusted: anybody can append to such a message.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};

use super::super::lookup::Answer;
use super::super::outcome::Outcome;
use super::DkimResult;
use super::canonical::BodyHash;
use super::key::{KeyError, KeyRecord, PublicKey};
use super::signature::{Algorithm, Malformed, Signature};

/// RFC 8301 §3.2.
const RSA_BITS_MIN: usize = 1024;
/// RFC 8301 §3.2: verifiers take up to 4096; more is an attack on our time.
const RSA_BITS_MAX: usize = 4096;
/// Clocks differ; a `t=` further ahead than this is refused.
const CLOCK_SKEW_SECS: u64 = 24 * 3600;

/// A key as DNS gave it.
pub type KeyAnswer = Answer<Result<KeyRecord, KeyError>>;

/// A result before its signature was looked into.
pub fn malformed(found: &Malformed) -> DkimResult {
    DkimResult {
        outcome: Outcome::Neutral,
        domain: found.domain.clone(),
        selector: found.selector.clone(),
        identity: String::new(),
        algorithm: String::new(),
        signature_start: String::new(),
        reason: found.reason.to_owned(),
        testing: false,
        unsigned_bytes: None,
    }
}

/// Faults that show without a key: nothing if the key is worth asking for.
pub fn refused_early(signature: &Signature, now: u64) -> Option<(Outcome, String)> {
    if signature.algorithm == Algorithm::RsaSha1 {
        return Some((Outcome::Policy, "rsa-sha1 is not accepted (RFC 8301)".to_owned()));
    }
    if signature.expires.is_some_and(|expires| expires < now) {
        return Some((Outcome::Policy, "signature has expired".to_owned()));
    }
    if signature.signed_at.is_some_and(|at| at > now.saturating_add(CLOCK_SKEW_SECS)) {
        return Some((Outcome::Policy, "signature is from the future".to_owned()));
    }
    None
}

/// Decides. `header` are the canonical header bytes with the signature's own field last.
pub fn evaluate(signature: &Signature, key: &KeyAnswer, body: &BodyHash, header: &[u8]) -> DkimResult {
    let unsigned =
        signature.length.map(|length| body.canonical_bytes.saturating_sub(length)).filter(|bytes| *bytes > 0);
    let testing = matches!(key, Answer::Found(Ok(record)) if record.testing);
    let (outcome, reason) = judge(signature, key, body, header, unsigned);
    // RFC 6376 §3.6.1: while the owner is testing, a failure is as if unsigned.
    let outcome = if testing && outcome == Outcome::Fail { Outcome::Neutral } else { outcome };
    DkimResult { outcome, reason, testing, unsigned_bytes: unsigned, ..about(signature) }
}

/// A result with what the signature says of itself.
pub fn about(signature: &Signature) -> DkimResult {
    DkimResult {
        outcome: Outcome::Neutral,
        domain: signature.domain.clone(),
        selector: signature.selector.clone(),
        identity: signature.identity.clone(),
        algorithm: signature.algorithm.as_str().to_owned(),
        signature_start: signature.start.clone(),
        reason: String::new(),
        testing: false,
        unsigned_bytes: None,
    }
}

fn judge(
    signature: &Signature,
    key: &KeyAnswer,
    body: &BodyHash,
    header: &[u8],
    unsigned: Option<u64>,
) -> (Outcome, String) {
    let record = match usable_key(signature, key) {
        Ok(record) => record,
        Err(result) => return result,
    };
    if body.digest != signature.body_hash {
        return (Outcome::Fail, "body hash does not match".to_owned());
    }
    if !verify(signature.algorithm, &record.key, header, &signature.bytes) {
        return (Outcome::Fail, "signature does not match".to_owned());
    }
    match unsigned {
        Some(bytes) => (Outcome::Policy, format!("l= leaves {bytes} bytes of the body unsigned")),
        None => (Outcome::Pass, "good signature".to_owned()),
    }
}

/// The key, if it fits this signature and our policy.
pub fn usable_key<'a>(signature: &Signature, key: &'a KeyAnswer) -> Result<&'a KeyRecord, (Outcome, String)> {
    let name = signature.key_name();
    let record = match key {
        Answer::Found(Ok(record)) => record,
        Answer::Found(Err(error)) => return Err((Outcome::PermError, format!("{name}: {}", error.as_str()))),
        Answer::NoData | Answer::NxDomain => return Err((Outcome::PermError, format!("{name}: no key"))),
        Answer::Temporary => return Err((Outcome::TempError, format!("DNS has no answer for {name}"))),
    };
    match (&record.key, signature.algorithm) {
        (PublicKey::Rsa { bits, .. }, Algorithm::RsaSha256) if *bits < RSA_BITS_MIN => {
            return Err((Outcome::Policy, format!("RSA key of {bits} bits is too short (RFC 8301)")));
        }
        (PublicKey::Rsa { bits, .. }, Algorithm::RsaSha256) if *bits > RSA_BITS_MAX => {
            return Err((Outcome::Policy, format!("RSA key of {bits} bits is too long")));
        }
        (PublicKey::Rsa { .. }, Algorithm::RsaSha256) | (PublicKey::Ed25519(_), Algorithm::Ed25519Sha256) => {}
        _ => return Err((Outcome::PermError, format!("{name}: key is not for {}", signature.algorithm.as_str()))),
    }
    if record.strict && !signature.identity_is_domain() {
        return Err((Outcome::PermError, "i= names a subdomain, which the key forbids (t=s)".to_owned()));
    }
    Ok(record)
}

/// The bare signature check.
pub fn verify(algorithm: Algorithm, key: &PublicKey, data: &[u8], signature: &[u8]) -> bool {
    match (algorithm, key) {
        (Algorithm::RsaSha256, PublicKey::Rsa { der, .. }) => {
            UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, der).verify(data, signature).is_ok()
        }
        // RFC 8463 §3: the hash is what is signed.
        (Algorithm::Ed25519Sha256, PublicKey::Ed25519(key)) => {
            UnparsedPublicKey::new(&ED25519, key).verify(digest(&SHA256, data).as_ref(), signature).is_ok()
        }
        _ => false,
    }
}
