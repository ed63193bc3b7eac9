//! Makes the local parts of addresses unreadable and still comparable. Pure. RFC 6590.
//!
//! The same local part gives the same text for as long as the secret lives, so that whoever gets reports sees that two are about one mailbox, and
//! not about whose.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::wire::address::is_atext;

/// Bytes of the digest that are shown: 2^96 local parts without a likely collision.
const SHOWN_BYTES: usize = 12;

/// The secret; a new one for each run.
pub struct Redactor(hmac::Key);

impl Redactor {
    /// With a random secret.
    /// # Errors
    /// If the system gives no random bytes.
    pub fn new() -> Result<Self, String> {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random);
        key.map(Redactor).map_err(|_| "the system gives no random bytes".to_owned())
    }

    /// `text` with the local part of everything that looks like an address made unreadable.
    pub fn redact(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('@') {
            let (before, after) = (&rest[..at], &rest[at + 1..]);
            let start = local_part_start(before);
            let is_address = start < at && after.starts_with(|c: char| c.is_alphanumeric() || c == '[');
            if is_address {
                out.push_str(&before[..start]);
                out.push_str(&self.digest(&before[start..]));
            } else {
                out.push_str(before);
            }
            out.push('@');
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn digest(&self, local_part: &str) -> String {
        let tag = hmac::sign(&self.0, local_part.as_bytes());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..SHOWN_BYTES])
    }
}

/// Where the local part that ends `before` begins; a quoted one begins at its first quote.
fn local_part_start(before: &str) -> usize {
    if let Some(inner) = before.strip_suffix('"') {
        return inner.rfind('"').unwrap_or(inner.len());
    }
    let local = |c: char| is_atext(c) || c == '.';
    before.rfind(|c| !local(c)).map_or(0, |last| last + before[last..].chars().next().map_or(1, char::len_utf8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn local_parts_go_and_all_else_stays() {
        let redactor = Redactor::new().unwrap();
        let text = redactor.redact("To: Ann <ann.b@x.example>, \"c d\"@y.example, ann.b@z.example; 3 @ 4, @here");
        assert!(!text.contains("ann.b") && !text.contains("c d"), "{text}");
        assert!(text.starts_with("To: Ann <") && text.ends_with("@z.example; 3 @ 4, @here"), "{text}");
        let digest = redactor.digest("ann.b");
        assert_eq!(text.matches(&digest).count(), 2, "{text}");
    }

    proptest! {
        #[test]
        fn any_text_keeps_its_at_signs(text in "[a-zé\"@ .<>]{0,40}") {
            let redacted = Redactor::new().unwrap().redact(&text);
            prop_assert_eq!(redacted.matches('@').count(), text.matches('@').count());
        }
    }
}
