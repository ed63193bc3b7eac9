//! Adds our own set to a chain. Pure; CPU. RFC 8617 §5.1.

use super::super::dkim::canonical::{hash_body, write_relaxed_field, write_signature_field};
use super::super::dkim::sign::{SigningKey, append_signature, fold_base64, fold_names, names_to_sign};
use super::super::dkim::signature::Canonicalization;
use super::super::message::Message;
use super::super::outcome::Outcome;
use super::chain::collect;
use super::{ArcResult, SETS_MAX};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The three fields to put on top of `message`, or nothing if the chain can't go on (it ended, is full, or has no order).
///
/// `findings` is what [`super::super::authres::write_value`] gives; `chain` is what was found on arrival; `now` is in seconds since 1970.
pub fn seal(message: &Message, chain: &ArcResult, findings: &str, key: &SigningKey, now: u64) -> Option<String> {
    let sets = collect(message).ok()?;
    let instance = sets.len() + 1;
    if chain.ended || instance > SETS_MAX || chain.outcome == Outcome::TempError {
        return None;
    }
    let validation = match chain.outcome {
        Outcome::None => "none",
        Outcome::Pass => "pass",
        _ => "fail",
    };
    let results = format!(" i={instance}; {findings}");
    let signature = message_signature(message, instance, key, now);
    let mut seal = format!(
        " i={instance}; a={}; t={now}; cv={validation};\r\n\td={}; s={};\r\n\tb=",
        key.algorithm().as_str(),
        key.domain,
        key.selector
    );
    let mut data = Vec::new();
    // A broken chain's older sets prove nothing: only the new one is sealed (RFC 8617 §5.1.2).
    if validation == "pass" {
        for field in sets.iter().flat_map(|set| set.fields()) {
            write_relaxed_field(message.name(field), message.value(field), &mut data);
        }
    }
    write_relaxed_field(b"arc-authentication-results", results.as_bytes(), &mut data);
    write_relaxed_field(b"arc-message-signature", signature.as_bytes(), &mut data);
    write_signature_field(Canonicalization::Relaxed, b"arc-seal", seal.as_bytes(), b"", &mut data);
    fold_base64(&mut seal, &key.sign_bytes(&data));
    Some(format!("ARC-Seal:{seal}\r\nARC-Message-Signature:{signature}\r\nARC-Authentication-Results:{results}\r\n"))
}

fn message_signature(message: &Message, instance: usize, key: &SigningKey, now: u64) -> String {
    let mut names = names_to_sign(message);
    names.extend(message.named("DKIM-Signature").map(|_| "dkim-signature".to_owned()));
    let body_hash = STANDARD.encode(hash_body(Canonicalization::Relaxed, message.body(), None).digest);
    let mut value = format!(
        " i={instance}; a={}; c=relaxed/relaxed; t={now};\r\n\td={}; s={};\r\n\th={};\r\n\tbh={body_hash};\r\n\tb=",
        key.algorithm().as_str(),
        key.domain,
        key.selector,
        fold_names(&names),
    );
    append_signature(&mut value, b"arc-message-signature", message, &names, key);
    value
}
