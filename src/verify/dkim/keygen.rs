//! Makes DKIM keys. I/O: random numbers from the system; CPU.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyKind {
    /// Small, fast; not every receiver checks it yet, so publish an RSA key beside it.
    Ed25519,
    /// 2048 bits: what every receiver checks (RFC 8301 §3.2).
    Rsa,
}

/// A new private key as PEM (PKCS#8).
/// # Errors
/// In words, if the system gives no random numbers.
pub fn generate(kind: KeyKind) -> Result<String, &'static str> {
    const FAILED: &str = "no key could be made";
    let der = match kind {
        KeyKind::Ed25519 => {
            let random = aws_lc_rs::rand::SystemRandom::new();
            Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| FAILED)?.as_ref().to_vec()
        }
        KeyKind::Rsa => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| FAILED)?;
            AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| FAILED)?.as_ref().to_vec()
        }
    };
    let base64 = STANDARD.encode(der);
    // RFC 7468 §2: lines of 64 characters.
    let lines: Vec<&str> =
        base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("base64")).collect();
    Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
}
