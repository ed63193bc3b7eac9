//! Sender Rewriting Scheme: a reverse-path of ours that leads a bounce back to the original sender. Pure.
//!
//! `SRS0=HHHHHHHH=TT=domain=local@us`, and `SRS1=…` for addresses that were rewritten before, as libsrs2 and postsrsd write them.
//! The first secret signs, all of them verify, so that secrets rotate without losing bounces. Addresses older than 21 days,
//! or with a wrong hash, are refused: without that we would relay for everybody.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};

use crate::base::secret::Secret;
use crate::wire::address::{Mailbox, check_domain};

/// Days that a rewritten address leads back unless another number is set; bounces come within a sender's queue lifetime of five days.
const VALID_DAYS: u64 = 21;
/// Timestamps are days modulo 1024: two characters of base 32.
const DAYS_MODULUS: u64 = 1024;
/// Characters of the hash: 40 bits.
const HASH_CHARS: usize = 8;
const DAY_SECS: u64 = 86_400;
/// What may stand behind the tag.
const SEPARATORS: [char; 3] = ['=', '+', '-'];
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Why an address does not lead back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrsError {
    /// Not made by us, or changed.
    Forged,
    /// No SRS address at all.
    NotSrs,
    /// Older than 21 days.
    TooOld,
    /// The result would be longer than an address may be.
    TooLong,
}

/// Rewrites with one domain of ours.
#[derive(Clone, Debug)]
pub struct Srs {
    secrets: Vec<Secret>,
    domain: String,
    valid_days: u64,
}

impl Srs {
    /// `secrets`: newest first, at least one; nothing without.
    pub fn new(secrets: Vec<Secret>, domain: &str) -> Option<Self> {
        (!secrets.is_empty()).then(|| Srs { secrets, domain: domain.to_ascii_lowercase(), valid_days: VALID_DAYS })
    }

    /// The same with addresses that lead back for `age`, in whole days.
    pub fn valid_for(self, age: Duration) -> Self {
        Srs { valid_days: (age.as_secs() / DAY_SECS).min(DAYS_MODULUS / 2), ..self }
    }

    /// True for an address of our domain that is, or pretends to be, a rewritten one.
    pub fn claims(&self, recipient: &Mailbox) -> bool {
        let local = recipient.local_part();
        let marked = prefix_of(local, "SRS0").or_else(|| prefix_of(local, "SRS1")).is_some();
        marked && recipient.domain().eq_ignore_ascii_case(&self.domain)
    }

    /// The reverse-path to forward with. `now` in seconds since 1970.
    /// # Errors
    /// [`SrsError::TooLong`]: local parts end at 64 bytes.
    pub fn forward(&self, reverse_path: &Mailbox, now: u64) -> Result<Mailbox, SrsError> {
        let (local, domain) = (reverse_path.local_part(), reverse_path.domain());
        let again = first_rewriter(local, domain).and_then(|(first, opaque)| self.ours(&self.srs1(first, opaque)).ok());
        // What a stranger made need not lead back to an address; then it is a local part like any other.
        match again.filter(|address| self.reverse(address, now).is_ok()) {
            Some(address) => Ok(address),
            None => self.ours(&self.srs0(local, domain, now)),
        }
    }

    fn ours(&self, local: &str) -> Result<Mailbox, SrsError> {
        Mailbox::parse(&format!("{local}@{}", self.domain), !local.is_ascii()).map_err(|_| SrsError::TooLong)
    }

    /// Where a bounce to one of our addresses goes.
    /// # Errors
    /// See [`SrsError`].
    pub fn reverse(&self, recipient: &Mailbox, now: u64) -> Result<Mailbox, SrsError> {
        let local = recipient.local_part();
        let text = if let Some(rest) = prefix_of(local, "SRS0") {
            let [hash, day, domain, user] = rest.splitn(4, '=').collect::<Vec<_>>()[..] else {
                return Err(SrsError::NotSrs);
            };
            self.check(hash, &[day, domain, user])?;
            self.check_age(day, now)?;
            format!("{user}@{domain}")
        } else if let Some(rest) = prefix_of(local, "SRS1") {
            let [hash, domain, opaque] = rest.splitn(3, '=').collect::<Vec<_>>()[..] else {
                return Err(SrsError::NotSrs);
            };
            self.check(hash, &[domain, opaque])?;
            let separator = if opaque.starts_with(SEPARATORS) { "" } else { "=" };
            format!("SRS0{separator}{opaque}@{domain}")
        } else {
            return Err(SrsError::NotSrs);
        };
        Mailbox::parse(&text, true).map_err(|_| SrsError::Forged)
    }

    fn srs0(&self, local: &str, domain: &str, now: u64) -> String {
        let day = day_text(now / DAY_SECS % DAYS_MODULUS);
        let hash = hash(&self.secrets[0], &[&day, domain, local]);
        format!("SRS0={hash}={day}={domain}={local}")
    }

    fn srs1(&self, domain: &str, opaque: &str) -> String {
        let hash = hash(&self.secrets[0], &[domain, opaque]);
        format!("SRS1={hash}={domain}={opaque}")
    }

    fn check_age(&self, day: &str, now: u64) -> Result<(), SrsError> {
        let digit = |byte: u8| BASE32.iter().position(|known| *known == byte.to_ascii_uppercase()).map(|at| at as u64);
        let [Some(high), Some(low)] = day.bytes().map(digit).collect::<Vec<_>>()[..] else {
            return Err(SrsError::Forged);
        };
        let today = now / DAY_SECS % DAYS_MODULUS;
        let age = (today + DAYS_MODULUS - (high * 32 + low)) % DAYS_MODULUS;
        if age <= self.valid_days { Ok(()) } else { Err(SrsError::TooOld) }
    }

    /// Hashes are compared without regard to case, for some relays change it.
    fn check(&self, given: &str, parts: &[&str]) -> Result<(), SrsError> {
        let given = given.to_ascii_uppercase();
        let fits = |secret: &Secret| verify_slices_are_equal(hash(secret, parts).as_bytes(), given.as_bytes()).is_ok();
        if self.secrets.iter().any(fits) { Ok(()) } else { Err(SrsError::Forged) }
    }
}

/// The first rewriter of an address that was rewritten before, and what stands behind its `SRS0`, separator included:
/// `SRS1` keeps these two and drops the rewriters between.
fn first_rewriter<'a>(local: &'a str, domain: &'a str) -> Option<(&'a str, &'a str)> {
    if prefix_of(local, "SRS0").is_some() {
        return Some((domain, &local["SRS0".len()..]));
    }
    let mut parts = prefix_of(local, "SRS1")?.splitn(3, '=').skip(1);
    let (first, opaque) = (parts.next()?, parts.next()?);
    check_domain(first).is_ok().then_some((first, opaque))
}

/// What stands behind `SRS0=`; the separator may be `+` or `-` too.
fn prefix_of<'a>(local: &'a str, tag: &str) -> Option<&'a str> {
    let head = local.get(..tag.len())?;
    let rest = &local[tag.len()..];
    head.eq_ignore_ascii_case(tag).then(|| rest.strip_prefix(SEPARATORS)).flatten()
}

fn hash(secret: &Secret, parts: &[&str]) -> String {
    let key = Key::new(HMAC_SHA256, secret.expose().as_bytes());
    let tag = sign(&key, parts.join("=").to_lowercase().as_bytes());
    tag.as_ref().iter().take(HASH_CHARS).map(|byte| char::from(BASE32[usize::from(byte % 32)])).collect()
}

fn day_text(day: u64) -> String {
    [day / 32, day % 32].map(|digit| char::from(BASE32[digit as usize % 32])).iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;

    fn srs(secrets: &[&str]) -> Srs {
        Srs::new(secrets.iter().map(|secret| Secret::new(*secret)).collect(), "us.example").unwrap()
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text, false).unwrap()
    }

    #[test]
    fn bounces_come_back_for_three_weeks_and_across_a_rotation() {
        let forward = srs(&["old"]).forward(&mailbox("Ann@a.example"), NOW).unwrap();
        let rotated = srs(&["new", "old"]);
        assert_eq!(rotated.reverse(&forward, NOW + 21 * DAY_SECS), Ok(mailbox("Ann@a.example")));
        assert_eq!(rotated.reverse(&forward, NOW + 22 * DAY_SECS), Err(SrsError::TooOld));
        assert_eq!(srs(&["new"]).reverse(&forward, NOW), Err(SrsError::Forged));
        let changed = mailbox(&forward.as_str().replace("a.example", "b.example"));
        assert_eq!(rotated.reverse(&changed, NOW), Err(SrsError::Forged));
    }

    #[test]
    fn a_second_rewriting_leads_back_to_the_first_rewriter() {
        let first = mailbox("SRS0=ABCDEFGH=AB=a.example=ann@fwd.example");
        let second = srs(&["s"]).forward(&first, NOW).unwrap();
        assert!(second.as_str().starts_with("SRS1="));
        assert_eq!(srs(&["s"]).reverse(&second, NOW), Ok(first));
    }

    #[test]
    fn what_others_wrote_keeps_its_separator() {
        for (rewritten, first) in [
            ("SRS0+ABCD=AB=a.example=ann@fwd.example", "SRS0+ABCD=AB=a.example=ann@fwd.example"),
            ("SRS1=WXYZ=first.example==ABCD=AB=a.example=a@b.example", "SRS0=ABCD=AB=a.example=a@first.example"),
            ("SRS1=WXYZ=first.example=-ABCD=AB=a.example=a@b.example", "SRS0-ABCD=AB=a.example=a@first.example"),
        ] {
            let forward = srs(&["s"]).forward(&mailbox(rewritten), NOW).unwrap();
            assert_eq!(srs(&["s"]).reverse(&forward, NOW), Ok(mailbox(first)), "{forward}");
        }
    }

    #[test]
    fn a_malformed_srs1_is_a_local_part_like_any_other() {
        for local in ["SRS1=AAAA\u{FFFD}AAA=%{x.=b", "SRS1=AAAA=-x.example=b", "SRS1=A==b", "SRS1=A=a.example"] {
            let stranger = Mailbox::parse(&format!("{local}@b.example"), true);
            let Ok(stranger) = stranger else { panic!("{local} is a local part") };
            let forward = srs(&["s"]).forward(&stranger, NOW).unwrap();
            assert_eq!(srs(&["s"]).reverse(&forward, NOW), Ok(stranger), "{forward}");
        }
    }

    proptest! {
        #[test]
        fn any_recipient_leads_back_or_is_refused(local in "(SRS[01][=+-])?[A-Za-z0-9=+-]{1,40}") {
            if let Ok(recipient) = Mailbox::parse(&format!("{local}@us.example"), false) {
                prop_assert!(srs(&["s"]).reverse(&recipient, NOW).is_err());
            }
        }
    }
}
