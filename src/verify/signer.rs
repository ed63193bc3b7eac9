//! Our keys, and which of them sign a message. I/O: reads key files once.
//!
//! A message is signed with every key of its author's domain, or of the nearest domain above that has keys: RSA for everybody and
//! Ed25519 for those who can. A domain without keys is not signed for: a signature that is not aligned helps nobody.

use super::author::author;
use super::dkim::sign::{SigningKey, sign};
use super::message::Message;
use crate::config::settings::Dkim;

/// Keys by domain.
#[derive(Debug, Default)]
pub struct Signer {
    keys: Vec<SigningKey>,
}

impl Signer {
    /// Reads the keys of `[[dkim]]`.
    /// # Errors
    /// The first file that can't be read or is no key, in words.
    pub fn load(settings: &[Dkim]) -> Result<Self, String> {
        let load_one = |one: &Dkim| {
            let failed = |error: String| format!("DKIM key {}: {error}", one.key.display());
            let pem = std::fs::read_to_string(&one.key).map_err(|error| failed(error.to_string()))?;
            SigningKey::from_pem(&one.domain, &one.selector, &pem).map_err(|error| failed(error.to_string()))
        };
        Ok(Signer { keys: settings.iter().map(load_one).collect::<Result<_, String>>()? })
    }

    /// A signer over keys that are known already.
    pub fn new(keys: Vec<SigningKey>) -> Self {
        Signer { keys }
    }

    /// The signature fields to put before `message`; empty if no key is for its author. An RSA signature takes about a
    /// millisecond: call it where work may take that long. `now` in seconds since 1970.
    pub fn sign(&self, message: &Message, now: u64) -> String {
        let Ok(author) = author(message) else { return String::new() };
        self.keys_for(&author.domain).map(|key| sign(message, key, now)).collect()
    }

    /// The key that seals as `domain`: its first one.
    pub fn sealing_key(&self, domain: &str) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.domain == domain)
    }

    fn keys_for<'a>(&'a self, author: &'a str) -> impl Iterator<Item = &'a SigningKey> {
        let parents = author.match_indices('.').map(|(dot, _)| &author[dot + 1..]);
        let mut names = std::iter::once(author).chain(parents);
        let signing = names.find(|name| self.keys.iter().any(|key| key.domain == **name));
        self.keys.iter().filter(move |key| Some(key.domain.as_str()) == signing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::content::Content;
    use crate::verify::dkim::keygen::{KeyKind, generate};

    #[test]
    fn the_nearest_domain_with_keys_signs_with_all_of_them() {
        let pem = generate(KeyKind::Ed25519).unwrap();
        let key = |domain: &str, selector: &str| SigningKey::from_pem(domain, selector, &pem).unwrap();
        let signer = Signer::new(vec![key("a.example", "x"), key("a.example", "y"), key("m.a.example", "z")]);
        let signed = |from: &str| {
            let message = Message::parse(Content::from_bytes(format!("From: {from}\r\n\r\nx\r\n").into_bytes()));
            signer.sign(&message, 0).matches("DKIM-Signature:").count()
        };
        assert_eq!(signed("x@a.example"), 2);
        assert_eq!(signed("x@news.a.example"), 2);
        assert_eq!(signed("x@m.a.example"), 1);
        assert_eq!(signed("x@ba.example"), 0);
        assert_eq!(signed("x@a.example, y@b.example"), 0);
    }
}
