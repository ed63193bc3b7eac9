//! Checks the DKIM signatures of a message. I/O: DNS for the keys; CPU: hashes, on the rayon pool for large bodies.
//!
//! Keys are asked for at once while the body is hashed. One body hash serves all signatures of the same canonicalisation.

use std::collections::HashMap;

use super::super::lookup::{Answer, Lookup, join_all};
use super::super::message::{Field, Message};
use super::super::offload::{Cost, offload};
use super::canonical::{BodyHash, hash_body, write_signature_field, write_signed_fields};
use super::evaluate::{KeyAnswer, about, evaluate, malformed, refused_early};
use super::key::{KeyError, KeyRecord};
use super::signature::{Canonicalization, Kind, Malformed, Signature};
use super::{DkimResult, SIGNATURES_MAX};

/// What tells one body hash from another.
pub type HashKey = (Canonicalization, Option<u64>);
/// Body hashes by that.
pub type BodyHashes = HashMap<HashKey, BodyHash>;

/// Results for the first [`SIGNATURES_MAX`] signatures, in order; nothing if there is none. `now` in seconds since 1970.
pub async fn check<L: Lookup>(dns: &L, message: &Message, now: u64) -> Vec<DkimResult> {
    let fields: Vec<Field> = message.named("DKIM-Signature").take(SIGNATURES_MAX).cloned().collect();
    if fields.is_empty() {
        return Vec::new();
    }
    let signatures: Vec<_> = fields.iter().map(|field| Signature::parse(&message.text(field), Kind::Dkim)).collect();
    let live: Vec<&Signature> = signatures.iter().flatten().filter(|s| refused_early(s, now).is_none()).collect();
    let cost = Cost::signatures(live.len());
    let (keys, hashes) = tokio::join!(ask_keys(dns, &live), hash_bodies(message, &live));
    let message = message.clone();
    let judge = move |(field, signature): (&Field, &Result<Signature, Malformed>)| match signature {
        Err(bad) => malformed(bad),
        Ok(signature) => match refused_early(signature, now) {
            Some((outcome, reason)) => DkimResult { outcome, reason, ..about(signature) },
            None => {
                let body = &hashes[&(signature.body, signature.length)];
                evaluate(signature, &keys[&signature.key_name()], body, &signed_header(&message, field, signature))
            }
        },
    };
    offload(cost, move || fields.iter().zip(&signatures).map(judge).collect()).await
}

/// Keys by name; each name is asked for once.
pub async fn ask_keys<L: Lookup>(dns: &L, signatures: &[&Signature]) -> HashMap<String, KeyAnswer> {
    let mut names: Vec<String> = signatures.iter().map(|signature| signature.key_name()).collect();
    names.sort();
    names.dedup();
    let questions = names.iter().map(|name| Box::pin(key(dns, name)) as _).collect();
    let answers = join_all(questions).await;
    names.into_iter().zip(answers).collect()
}

/// The key at `name`; of several records the first good one.
async fn key<L: Lookup>(dns: &L, name: &str) -> KeyAnswer {
    dns.txt(name).await.map(|records| {
        let mut first_error = KeyError::Malformed("no key record");
        for (index, record) in records.iter().enumerate() {
            match KeyRecord::parse(record) {
                Ok(record) => return Ok(record),
                Err(error) if index == 0 => first_error = error,
                Err(_) => {}
            }
        }
        Err(first_error)
    })
}

/// Every body hash that the signatures need.
async fn hash_bodies(message: &Message, signatures: &[&Signature]) -> BodyHashes {
    let kinds = hash_kinds(signatures);
    let (cost, work) = (Cost::hashing(message.body().len(), kinds.len()), message.clone());
    offload(cost, move || hash_all(&work, kinds)).await
}

/// Every way in which the signatures want the body hashed, once.
pub fn hash_kinds(signatures: &[&Signature]) -> Vec<HashKey> {
    let mut kinds: Vec<HashKey> = Vec::new();
    for signature in signatures {
        let kind = (signature.body, signature.length);
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// The body hashed in each of these ways.
pub fn hash_all(message: &Message, kinds: Vec<HashKey>) -> BodyHashes {
    kinds.into_iter().map(|(how, length)| ((how, length), hash_body(how, message.body(), length))).collect()
}

/// The bytes under a signature: the chosen fields, then its own.
pub fn signed_header(message: &Message, field: &Field, signature: &Signature) -> Vec<u8> {
    let mut out = Vec::new();
    write_signed_fields(signature.header, message, &signature.signed_names, &mut out);
    let raw = message.raw(field);
    let raw_name = &raw[..raw.len() - message.value(field).len()];
    write_signature_field(signature.header, message.name(field), message.value(field), raw_name, &mut out);
    out
}

/// True if DNS could not say for a signature of this domain: a later try may find a pass.
pub fn is_undecided(results: &[DkimResult]) -> bool {
    results.iter().any(|result| result.outcome == super::super::outcome::Outcome::TempError)
}

/// Whether a key is there and usable: what `dkim check` of the tools prints.
pub async fn published_key<L: Lookup>(dns: &L, domain: &str, selector: &str) -> Answer<Result<KeyRecord, KeyError>> {
    key(dns, &format!("{selector}._domainkey.{domain}")).await
}
