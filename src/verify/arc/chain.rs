//! Validates a chain. I/O: DNS for the keys; the rest is pure, on the rayon pool for long chains. RFC 8617 §5.2.
//!
//! The structure is checked before any key is asked for, so that 10,000 forged fields cost one pass over the header.

use std::collections::HashMap;

use super::super::authres::AuthenticationResults;
use super::super::dkim::canonical::{write_relaxed_field, write_signature_field};
use super::super::dkim::check::{ask_keys, hash_all, hash_kinds, signed_header};
use super::super::dkim::evaluate::{KeyAnswer, evaluate, usable_key, verify};
use super::super::dkim::signature::{Kind, Signature};
use super::super::lookup::Lookup;
use super::super::message::{Field, Message};
use super::super::offload::{Cost, offload};
use super::super::outcome::Outcome;
use super::super::tags::Tags;
use super::{ArcResult, SETS_MAX};

/// One instance of the chain.
#[derive(Clone, Debug)]
pub struct Set {
    results: Field,
    message_signature: Field,
    seal: Field,
    signature: Signature,
    sealing: Signature,
    validation: Validation,
}

/// `cv=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validation {
    Fail,
    None,
    Pass,
}

impl Set {
    /// The set's three fields in the order in which they are sealed.
    pub fn fields(&self) -> [&Field; 3] {
        [&self.results, &self.message_signature, &self.seal]
    }
}

/// Checks the chain.
pub async fn check<L: Lookup>(dns: &L, message: &Message) -> ArcResult {
    let sets = match collect(message) {
        Ok(sets) if sets.is_empty() => return result(Outcome::None, "", &sets),
        Ok(sets) => sets,
        Err(reason) => return result(Outcome::Fail, reason, &[]),
    };
    if let Err(reason) = check_structure(&sets) {
        return result(Outcome::Fail, reason, &sets);
    }
    let signatures: Vec<&Signature> = sets.iter().flat_map(|set| [&set.signature, &set.sealing]).collect();
    let keys = ask_keys(dns, &signatures).await;
    let kinds = hash_kinds(&signatures);
    let cost = Cost::signatures(signatures.len()).and(Cost::hashing(message.body().len(), kinds.len()));
    let message = message.clone();
    offload(cost, move || validate(&message, &sets, &keys)).await
}

/// All signatures of a chain whose structure holds.
fn validate(message: &Message, sets: &[Set], keys: &HashMap<String, KeyAnswer>) -> ArcResult {
    let newest = &sets[sets.len() - 1];
    if let Err((outcome, reason)) = check_seals(message, sets, keys) {
        return result(outcome, reason, sets);
    }
    let message_signatures: Vec<&Signature> = sets.iter().map(|set| &set.signature).collect();
    let hashes = hash_all(message, hash_kinds(&message_signatures));
    let holds = |set: &Set| {
        let body = &hashes[&(set.signature.body, set.signature.length)];
        let header = signed_header(message, &set.message_signature, &set.signature);
        evaluate(&set.signature, &keys[&set.signature.key_name()], body, &header)
    };
    let verdict = holds(newest);
    match verdict.outcome {
        Outcome::Pass => {}
        Outcome::TempError => return result(Outcome::TempError, verdict.reason, sets),
        _ => return result(Outcome::Fail, format!("message signature {}: {}", sets.len(), verdict.reason), sets),
    }
    let failing = sets.iter().rposition(|set| holds(set).outcome != Outcome::Pass);
    let findings = sets.iter().filter_map(|set| read_results(&message.text(&set.results))).map(|(_, found)| found);
    ArcResult {
        // RFC 8617 §5.2 step 5: 0 if every message signature holds.
        oldest_pass: Some(failing.map_or(0, |index| index + 2)),
        findings: findings.collect(),
        ..result(Outcome::Pass, "", sets)
    }
}

fn result(outcome: Outcome, reason: impl Into<String>, sets: &[Set]) -> ArcResult {
    ArcResult {
        outcome,
        reason: reason.into(),
        sealers: sets.iter().map(|set| set.sealing.domain.clone()).collect(),
        oldest_pass: None,
        findings: Vec::new(),
        ended: sets.last().is_some_and(|set| set.validation == Validation::Fail),
    }
}

/// The sets in order of instance; each complete.
/// # Errors
/// In words.
pub fn collect(message: &Message) -> Result<Vec<Set>, &'static str> {
    let results =
        numbered(message, "ARC-Authentication-Results", |text| read_results(text).map(|(instance, _)| instance))?;
    let signatures = numbered(message, "ARC-Message-Signature", instance)?;
    let seals = numbered(message, "ARC-Seal", instance)?;
    if results.len() != signatures.len() || results.len() != seals.len() {
        return Err("a set is incomplete");
    }
    let triples = results.into_iter().zip(signatures).zip(seals);
    triples.map(|((results, signature), seal)| set(message, results, signature, seal)).collect()
}

fn set(message: &Message, results: Field, message_signature: Field, seal: Field) -> Result<Set, &'static str> {
    let text = message.text(&message_signature);
    let signature = Signature::parse(&text, Kind::ArcMessageSignature).map_err(|bad| bad.reason)?;
    if signature.signed_names.iter().any(|name| name == "arc-seal") {
        return Err("a message signature covers ARC-Seal");
    }
    // Anybody could append to such a message; and fifty lengths would be fifty hashes of the body.
    if signature.length.is_some() {
        return Err("a message signature has l=");
    }
    let text = message.text(&seal);
    let sealing = Signature::parse(&text, Kind::ArcSeal).map_err(|bad| bad.reason)?;
    let tags = Tags::parse(&text).map_err(|error| error.as_str())?;
    let validation = match tags.get("cv").map(str::to_ascii_lowercase).as_deref() {
        Some("none") => Validation::None,
        Some("pass") => Validation::Pass,
        Some("fail") => Validation::Fail,
        _ => return Err("cv= is missing or unknown"),
    };
    if tags.get("h").is_some() {
        return Err("a seal has h=");
    }
    Ok(Set { results, message_signature, seal, signature, sealing, validation })
}

/// Fields of one name, sorted by instance: 1 to n without gaps or doubles.
fn numbered(
    message: &Message,
    name: &str,
    instance: impl Fn(&str) -> Option<usize>,
) -> Result<Vec<Field>, &'static str> {
    let mut found: Vec<(usize, Field)> = Vec::new();
    for field in message.named(name) {
        if found.len() == SETS_MAX {
            return Err("more than 50 sets");
        }
        found.push((instance(&message.text(field)).ok_or("i= is missing or wrong")?, field.clone()));
    }
    found.sort_by_key(|(instance, _)| *instance);
    let in_order = found.iter().enumerate().all(|(index, (instance, _))| *instance == index + 1);
    if in_order { Ok(found.into_iter().map(|(_, field)| field).collect()) } else { Err("instances are not 1 to n") }
}

fn instance(text: &str) -> Option<usize> {
    Tags::parse(text).ok()?.get("i")?.parse().ok().filter(|instance| (1..=SETS_MAX).contains(instance))
}

/// `i=n; authserv-id; results`.
fn read_results(text: &str) -> Option<(usize, AuthenticationResults)> {
    let (number, rest) = text.split_once(';')?;
    let (name, number) = number.split_once('=')?;
    let instance = number.trim().parse().ok().filter(|instance| (1..=SETS_MAX).contains(instance))?;
    // What a sealer found may be in any state; only the number is part of the chain's structure.
    let none = || AuthenticationResults { authserv_id: String::new(), results: Vec::new() };
    (name.trim() == "i").then(|| (instance, AuthenticationResults::parse(rest).unwrap_or_else(none)))
}

fn check_structure(sets: &[Set]) -> Result<(), &'static str> {
    for (index, set) in sets.iter().enumerate() {
        let expected = if index == 0 { Validation::None } else { Validation::Pass };
        if set.validation == Validation::Fail {
            return Err("a seal says cv=fail");
        }
        if set.validation != expected {
            return Err("cv= does not fit its instance");
        }
    }
    Ok(())
}

fn check_seals(message: &Message, sets: &[Set], keys: &HashMap<String, KeyAnswer>) -> Result<(), (Outcome, String)> {
    // Each seal covers the sets before it; the prefix is built once and grows.
    let mut sealed = Vec::new();
    for (index, set) in sets.iter().enumerate() {
        write_unsealed(message, set, &mut sealed);
        let mut data = sealed.clone();
        write_signature_field(set.sealing.header, b"arc-seal", message.value(&set.seal), b"", &mut data);
        let name = set.sealing.key_name();
        let record = usable_key(&set.sealing, &keys[&name]).map_err(|(outcome, reason)| match outcome {
            Outcome::TempError => (outcome, reason),
            _ => (Outcome::Fail, reason),
        })?;
        if !verify(set.sealing.algorithm, &record.key, &data, &set.sealing.bytes) {
            return Err((Outcome::Fail, format!("seal {} does not match", index + 1)));
        }
        write_relaxed_field(b"arc-seal", message.value(&set.seal), &mut sealed);
    }
    Ok(())
}

/// The set's first two fields, canonical.
fn write_unsealed(message: &Message, set: &Set, out: &mut Vec<u8>) {
    for field in [&set.results, &set.message_signature] {
        write_relaxed_field(message.name(field), message.value(field), out);
    }
}
