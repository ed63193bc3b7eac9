//! Passwords at rest: argon2id for checks of a clear password, SCRAM-SHA-256 keys as text. Pure, but for random salts.
//!
//! A check costs about 20 ms and 19 MiB (OWASP's parameters, argon2's default): callers bound how many run at once
//! and keep them off reactor and tokio threads.

use std::fmt;
use std::sync::OnceLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::base::secret::Secret;
use crate::wire::sasl::{SCRAM_ITERATIONS_MIN, ScramKeys};

/// PBKDF2 iterations of the keys we make. RFC 7677 §4 asks for at least 4096.
pub const SCRAM_ITERATIONS: u32 = 2 * SCRAM_ITERATIONS_MIN;
/// Salt of SCRAM keys.
const SALT_BYTES: usize = 16;
/// 18 random bytes are 24 characters and 144 bits.
const GENERATED_PASSWORD_BYTES: usize = 18;
const SCRAM_PREFIX: &str = "SCRAM-SHA-256$";

/// What is wrong with a stored secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHash(pub &'static str);

impl fmt::Display for BadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Random bytes from the system.
pub(in crate::store) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random source never fails once the system is up");
    bytes
}

/// A fresh password for a user who brought none.
pub fn generate() -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(random::<GENERATED_PASSWORD_BYTES>()))
}

/// The PHC string to store for `password`.
pub fn hash(password: &Secret) -> String {
    Argon2::default()
        .hash_password(password.expose().as_bytes())
        .expect("argon2's default parameters and a salt from the system are valid")
        .to_string()
}

/// Checks that `text` is an argon2 hash.
/// # Errors
/// [`BadHash`] if not.
pub fn check_hash(text: &str) -> Result<(), BadHash> {
    let hash = PasswordHash::new(text).map_err(|_| BadHash("is no PHC string ($argon2id$v=19$…)"))?;
    if !hash.algorithm.as_str().starts_with("argon2") || hash.salt.is_none() || hash.hash.is_none() {
        return Err(BadHash("is no argon2 hash"));
    }
    argon2::Params::try_from(&hash).map(|_| ()).map_err(|_| BadHash("has parameters that argon2 does not take"))
}

/// True if `password` belongs to `stored`; without one the same work is done and the answer is no.
pub fn verify(stored: Option<&str>, password: &Secret) -> bool {
    static NOBODY: OnceLock<String> = OnceLock::new();
    let text = stored.unwrap_or_else(|| NOBODY.get_or_init(|| hash(&generate())));
    let matches = Argon2::default().verify_password(password.expose().as_bytes(), text).is_ok();
    matches && stored.is_some()
}

/// SCRAM keys for `password` with a fresh salt.
pub fn scram_keys(login: &str, password: &Secret) -> ScramKeys {
    ScramKeys::derive(login, password, &random::<SALT_BYTES>(), SCRAM_ITERATIONS)
}

/// Keys for a login that has none: stable for one `secret`, and no password fits them.
pub fn made_up_keys(secret: &[u8], login: &str) -> ScramKeys {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let part = |label: &str| -> [u8; 32] {
        let tag = hmac::sign(&key, format!("{label}\0{login}").as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
    };
    ScramKeys {
        login: login.into(),
        salt: part("salt")[..SALT_BYTES].to_vec(),
        iterations: SCRAM_ITERATIONS,
        stored_key: part("stored key"),
        server_key: part("server key"),
    }
}

/// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, as PostgreSQL writes it.
pub fn scram_text(keys: &ScramKeys) -> String {
    format!(
        "{SCRAM_PREFIX}{}:{}${}:{}",
        keys.iterations,
        STANDARD.encode(&keys.salt),
        STANDARD.encode(keys.stored_key),
        STANDARD.encode(keys.server_key)
    )
}

/// Reads [`scram_text`].
/// # Errors
/// [`BadHash`] if it is something else, or has fewer iterations than RFC 7677 allows.
pub fn parse_scram(login: &str, text: &str) -> Result<ScramKeys, BadHash> {
    const SHAPE: BadHash = BadHash("is not SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey");
    let (parameters, keys) = text.strip_prefix(SCRAM_PREFIX).and_then(|t| t.split_once('$')).ok_or(SHAPE)?;
    let (iterations, salt) = parameters.split_once(':').ok_or(SHAPE)?;
    let (stored, server) = keys.split_once(':').ok_or(SHAPE)?;
    let key = |text: &str| -> Result<[u8; 32], BadHash> {
        STANDARD.decode(text).ok().and_then(|k| k.try_into().ok()).ok_or(SHAPE)
    };
    let iterations: u32 = iterations.parse().map_err(|_| SHAPE)?;
    if iterations < SCRAM_ITERATIONS_MIN {
        return Err(BadHash("has fewer than 4096 iterations"));
    }
    Ok(ScramKeys {
        login: login.into(),
        salt: STANDARD.decode(salt).map_err(|_| SHAPE)?,
        iterations,
        stored_key: key(stored)?,
        server_key: key(server)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_fits_its_password_only() {
        let stored = hash(&Secret::new("correct horse"));
        assert!(stored.starts_with("$argon2id$"));
        check_hash(&stored).unwrap();
        assert!(verify(Some(&stored), &Secret::new("correct horse")));
        assert!(!verify(Some(&stored), &Secret::new("wrong horse")));
        assert!(!verify(None, &Secret::new("correct horse")));
        assert!(check_hash("$6$salt$hash").is_err());
        assert!(check_hash("plain").is_err());
    }

    #[test]
    fn scram_keys_read_back_as_themselves() {
        let keys = scram_keys("alice", &Secret::new("pencil"));
        assert_eq!(parse_scram("alice", &scram_text(&keys)), Ok(keys));
        assert!(parse_scram("a", "SCRAM-SHA-256$100:AAAA$AAAA:AAAA").is_err());
        assert!(parse_scram("a", "SCRAM-SHA-1$4096").is_err());
    }

    #[test]
    fn made_up_keys_are_stable_and_look_like_real_ones() {
        let keys = made_up_keys(b"secret", "nobody");
        assert_eq!(keys, made_up_keys(b"secret", "nobody"));
        assert_ne!(keys, made_up_keys(b"other", "nobody"));
        let real = scram_keys("alice", &Secret::new("pencil"));
        assert_eq!((keys.salt.len(), keys.iterations), (real.salt.len(), real.iterations));
    }
}
