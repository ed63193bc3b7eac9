//! SASL exchanges as values: PLAIN (RFC 4616) and SCRAM-SHA-256 (RFC 5802, RFC 7677), server and client side. Pure.
//!
//! Base64 and the framing of SMTP and POP3 are the caller's; these functions see decoded messages. Nonces come from the
//! caller, so that exchanges can be replayed in tests. Comparisons of secrets take constant time.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::base::secret::Secret;

/// Longest SASL message that is looked at (RFC 4954 §4 limits the line to 12,288 octets).
pub const SASL_MESSAGE_BYTES_MAX: usize = 9 * 1024;
/// Fewest PBKDF2 iterations that RFC 7677 §4 allows.
pub const SCRAM_ITERATIONS_MIN: u32 = 4096;
/// Most that a client computes for a server, which could otherwise make it work for ever.
const SCRAM_ITERATIONS_MAX: u32 = 1_000_000;

/// Why an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslError {
    /// The message breaks its mechanism's grammar.
    Malformed,
    /// Something that we don't do: channel binding, an authorization identity of somebody else.
    Unsupported,
    /// The proof does not match.
    Mismatch,
}

impl fmt::Display for SaslError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SaslError::Malformed => "malformed SASL message",
            SaslError::Unsupported => "unsupported SASL option",
            SaslError::Mismatch => "authentication failed",
        })
    }
}

impl std::error::Error for SaslError {}

/// PLAIN's message, `authzid NUL authcid NUL passwd`, as login and password.
/// # Errors
/// [`SaslError::Malformed`]; [`SaslError::Unsupported`] when the authorization identity is another's.
pub fn parse_plain(message: &[u8]) -> Result<(String, Secret), SaslError> {
    let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed)?;
    let mut parts = text.split('\0');
    let (Some(authzid), Some(authcid), Some(password), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::Malformed);
    };
    if authcid.is_empty() || password.is_empty() || authcid.chars().any(char::is_control) {
        return Err(SaslError::Malformed);
    }
    if !authzid.is_empty() && authzid != authcid {
        return Err(SaslError::Unsupported);
    }
    Ok((authcid.to_owned(), Secret::new(password)))
}

/// PLAIN's message for a client.
pub fn plain_message(login: &str, password: &Secret) -> Vec<u8> {
    format!("\0{login}\0{}", password.expose()).into_bytes()
}

/// Stored SCRAM-SHA-256 secrets (RFC 5802 §3).
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// Canonical login.
    pub login: Arc<str>,
    /// Salt.
    pub salt: Vec<u8>,
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// `H(ClientKey)`.
    pub stored_key: [u8; 32],
    /// `HMAC(SaltedPassword, "Server Key")`.
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramKeys({})", self.login)
    }
}

impl ScramKeys {
    /// What to store for `password`.
    pub fn derive(login: &str, password: &Secret, salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations);
        ScramKeys {
            login: login.into(),
            salt: salt.to_vec(),
            iterations,
            stored_key: sha256(&hmac_sha256(&salted, b"Client Key")),
            server_key: hmac_sha256(&salted, b"Server Key"),
        }
    }
}

/// A client's first message, parsed: whose keys are wanted.
#[derive(Debug)]
pub struct ScramFirst {
    /// The login.
    pub login: String,
    gs2_header: String,
    bare: String,
    client_nonce: String,
}

impl ScramFirst {
    /// Parses `n,,n=user,r=nonce`.
    /// # Errors
    /// [`SaslError::Malformed`]; [`SaslError::Unsupported`] for channel binding or extensions.
    pub fn parse(message: &[u8]) -> Result<Self, SaslError> {
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed)?;
        let mut parts = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SaslError::Malformed);
        };
        if flag != "n" && flag != "y" {
            return Err(SaslError::Unsupported);
        }
        let mut fields = bare.split(',');
        let user = fields.next().and_then(|f| f.strip_prefix("n=")).ok_or(SaslError::Malformed)?;
        let nonce = fields.next().and_then(|f| f.strip_prefix("r=")).ok_or(SaslError::Malformed)?;
        let login = unescape(user)?;
        if nonce.is_empty() || !nonce.bytes().all(|b| b.is_ascii_graphic()) || login.is_empty() {
            return Err(SaslError::Malformed);
        }
        if !authzid.is_empty() && authzid.strip_prefix("a=") != Some(user) {
            return Err(SaslError::Unsupported);
        }
        Ok(ScramFirst {
            login,
            gs2_header: format!("{flag},{authzid},"),
            bare: bare.to_owned(),
            client_nonce: nonce.to_owned(),
        })
    }

    /// The server's first message, and the exchange that waits for the client's last. `nonce` is ours: fresh and random, base64 text.
    pub fn challenge(self, keys: ScramKeys, nonce: &str) -> (Vec<u8>, ScramExchange) {
        let whole_nonce = format!("{}{nonce}", self.client_nonce);
        let first = format!("r={whole_nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        let exchange = ScramExchange {
            auth_message_start: format!("{},{first},", self.bare),
            channel: STANDARD.encode(self.gs2_header),
            nonce: whole_nonce,
            keys,
        };
        (first.into_bytes(), exchange)
    }
}

/// An exchange that waits for the client's proof.
#[derive(Debug)]
pub struct ScramExchange {
    auth_message_start: String,
    channel: String,
    nonce: String,
    keys: ScramKeys,
}

impl ScramExchange {
    /// Checks the client's proof; gives the canonical login and the server's last message, `v=…`.
    /// # Errors
    /// [`SaslError::Mismatch`] for a wrong password, [`SaslError::Malformed`] otherwise.
    pub fn finish(self, message: &[u8]) -> Result<(Arc<str>, Vec<u8>), SaslError> {
        let text = std::str::from_utf8(message).map_err(|_| SaslError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(SaslError::Malformed)?;
        let mut fields = without_proof.split(',');
        let channel = fields.next().and_then(|f| f.strip_prefix("c=")).ok_or(SaslError::Malformed)?;
        let nonce = fields.next().and_then(|f| f.strip_prefix("r=")).ok_or(SaslError::Malformed)?;
        if channel != self.channel || nonce != self.nonce {
            return Err(SaslError::Mismatch);
        }
        let proof: [u8; 32] =
            STANDARD.decode(proof).ok().and_then(|p| p.try_into().ok()).ok_or(SaslError::Malformed)?;
        let auth_message = format!("{}{without_proof}", self.auth_message_start);
        let signature = hmac_sha256(&self.keys.stored_key, auth_message.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        if constant_time::verify_slices_are_equal(&sha256(&client_key), &self.keys.stored_key).is_err() {
            return Err(SaslError::Mismatch);
        }
        let verifier = hmac_sha256(&self.keys.server_key, auth_message.as_bytes());
        Ok((self.keys.login, format!("v={}", STANDARD.encode(verifier)).into_bytes()))
    }
}

/// The client's side of SCRAM-SHA-256.
#[derive(Debug)]
pub struct ScramClient {
    bare: String,
    nonce: String,
    password: Secret,
}

impl ScramClient {
    /// The first message, and the state that waits for the server's. `nonce` is fresh, random, base64 text.
    pub fn start(login: &str, password: &Secret, nonce: &str) -> (Vec<u8>, Self) {
        let bare = format!("n={},r={nonce}", login.replace('=', "=3D").replace(',', "=2C"));
        (format!("n,,{bare}").into_bytes(), ScramClient { bare, nonce: nonce.to_owned(), password: password.clone() })
    }

    /// The last message, and what the server must answer to prove that it knows us.
    /// # Errors
    /// [`SaslError::Malformed`] when the server's message is, or asks for an unreasonable number of iterations.
    pub fn respond(self, server_first: &[u8]) -> Result<(Vec<u8>, Vec<u8>), SaslError> {
        let text = std::str::from_utf8(server_first).map_err(|_| SaslError::Malformed)?;
        let mut fields = text.split(',');
        let nonce = fields.next().and_then(|f| f.strip_prefix("r=")).ok_or(SaslError::Malformed)?;
        let salt = fields.next().and_then(|f| f.strip_prefix("s=")).ok_or(SaslError::Malformed)?;
        let iterations = fields.next().and_then(|f| f.strip_prefix("i=")).ok_or(SaslError::Malformed)?;
        let salt = STANDARD.decode(salt).map_err(|_| SaslError::Malformed)?;
        let iterations: u32 = iterations.parse().map_err(|_| SaslError::Malformed)?;
        if !nonce.starts_with(&self.nonce) || !(1..=SCRAM_ITERATIONS_MAX).contains(&iterations) {
            return Err(SaslError::Malformed);
        }
        let salted = salted_password(&self.password, &salt, iterations);
        let client_key = hmac_sha256(&salted, b"Client Key");
        let without_proof = format!("c={},r={nonce}", STANDARD.encode("n,,"));
        let auth_message = format!("{},{text},{without_proof}", self.bare);
        let signature = hmac_sha256(&sha256(&client_key), auth_message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let verifier = hmac_sha256(&hmac_sha256(&salted, b"Server Key"), auth_message.as_bytes());
        let last = format!("{without_proof},p={}", STANDARD.encode(proof));
        Ok((last.into_bytes(), format!("v={}", STANDARD.encode(verifier)).into_bytes()))
    }
}

fn unescape(text: &str) -> Result<String, SaslError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        out.push_str(before);
        out.push(match after.get(..2) {
            Some("2C") => ',',
            Some("3D") => '=',
            _ => return Err(SaslError::Malformed),
        });
        rest = &after[2..];
    }
    out.push_str(rest);
    if out.chars().any(char::is_control) {
        return Err(SaslError::Malformed);
    }
    Ok(out)
}

fn salted_password(password: &Secret, salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut salted = [0u8; 32];
    let rounds = iterations.max(1).try_into().expect("at least 1");
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.expose().as_bytes(), &mut salted);
    salted
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    tag.as_ref().try_into().expect("HMAC-SHA-256 gives 32 bytes")
}

fn sha256(data: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, data).as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7677 §3.
    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_LAST: &str =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn keys() -> ScramKeys {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        ScramKeys::derive("user", &Secret::new("pencil"), &salt, 4096)
    }

    #[test]
    fn the_example_of_rfc_7677_passes_on_both_sides() {
        let (first, client) = ScramClient::start("user", &Secret::new("pencil"), CLIENT_NONCE);
        assert_eq!(first, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let parsed = ScramFirst::parse(&first).unwrap();
        assert_eq!(parsed.login, "user");
        let (challenge, exchange) = parsed.challenge(keys(), SERVER_NONCE);
        let (last, verifier) = client.respond(&challenge).unwrap();
        assert_eq!(last, CLIENT_LAST.as_bytes());
        let (login, answer) = exchange.finish(&last).unwrap();
        assert_eq!((&*login, answer.as_slice()), ("user", SERVER_LAST.as_bytes()));
        assert_eq!(verifier, answer);
    }

    #[test]
    fn a_wrong_password_does_not_match() {
        let (first, client) = ScramClient::start("user", &Secret::new("pen"), CLIENT_NONCE);
        let (challenge, exchange) = ScramFirst::parse(&first).unwrap().challenge(keys(), SERVER_NONCE);
        let (last, _) = client.respond(&challenge).unwrap();
        assert_eq!(exchange.finish(&last), Err(SaslError::Mismatch));
    }

    #[test]
    fn nonsense_is_refused() {
        for message in
            [&b""[..], b"n", b"n,,", b"n,,n=user", b"n,,n=,r=x", b"n,,n=a=b,r=x", b"\xff,,n=u,r=x", b"n,,n=u\n,r=x"]
        {
            assert!(ScramFirst::parse(message).is_err(), "{message:?}");
        }
        assert_eq!(ScramFirst::parse(b"p=tls-unique,,n=u,r=x").unwrap_err(), SaslError::Unsupported);
        for message in [&b""[..], b"a\0b", b"\0\0pw", b"\0user\0", b"\0a\0b\0c", b"\xff\0a\0b"] {
            assert_eq!(parse_plain(message).unwrap_err(), SaslError::Malformed, "{message:?}");
        }
        assert_eq!(parse_plain(b"other\0user\0pw").unwrap_err(), SaslError::Unsupported);
        assert_eq!(parse_plain(b"\0user\0pw").unwrap(), ("user".into(), Secret::new("pw")));
    }
}
