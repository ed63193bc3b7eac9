//! Near-duplicates: how many messages like this one came lately. Pure; time is passed in. [`store`] remembers.
//!
//! A message's text becomes a set of shingles (runs of words, digits alike); the smallest hashes of the set under several
//! functions estimate how much two sets share (Broder 1997). Pairs of them are the keys that are counted. Two
//! messages that share nine tenths of their shingles agree in at least half of the keys in 98 of 100 cases, two
//! that share a third in 1 or 2. A short text has no digest, since "Yes, thanks" is not bulk.

pub mod store;

pub use store::Store;

use super::message::View;

/// Keys of one message.
pub const KEYS: usize = 6;
/// Keys that must have been seen for a message to count as seen: half.
pub const KEYS_AGREEING: usize = 3;
/// Smallest hashes of one key.
const ROWS: usize = 2;
/// Words of a shingle.
const SHINGLE_WORDS: usize = 3;
/// Shingles below which a text says too little.
const SHINGLES_MIN: usize = 16;
/// Bytes of text that are read.
const TEXT_BYTES_MAX: usize = 32 * 1024;

/// What is counted of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u64; KEYS]);

impl Digest {
    /// The digest of what a reader sees; nothing if that is too little.
    pub fn of(view: &View<'_>) -> Option<Self> {
        Digest::of_text(view.plain_text())
    }

    fn of_text(text: &str) -> Option<Self> {
        let mut least = [u64::MAX; KEYS * ROWS];
        let mut last = [0u64; SHINGLE_WORDS];
        let mut words = 0;
        for word in text.as_bytes()[..text.len().min(TEXT_BYTES_MAX)].split(|byte| !is_word_byte(*byte)) {
            if word.is_empty() {
                continue;
            }
            last.rotate_left(1);
            last[SHINGLE_WORDS - 1] = hash(word);
            words += 1;
            if words >= SHINGLE_WORDS {
                let shingle = last.iter().fold(0, |state, &word| mix(state, word));
                for (function, least) in least.iter_mut().enumerate() {
                    *least = (*least).min(mix(shingle, function as u64 + 1));
                }
            }
        }
        if words < SHINGLES_MIN + SHINGLE_WORDS - 1 {
            return None;
        }
        let (rows, _) = least.as_chunks::<ROWS>();
        Some(Digest(std::array::from_fn(|key| mix(rows[key][0], rows[key][1]) | 1)))
    }
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Digits are one digit: what bulk varies most are numbers.
fn hash(word: &[u8]) -> u64 {
    let level = |byte: &u8| if byte.is_ascii_digit() { b'0' } else { byte.to_ascii_lowercase() };
    word.iter()
        .fold(0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(level(byte))).wrapping_mul(0x0000_0100_0000_01b3))
}

fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd1b5_4a32_d192_ed03);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The symbol for a message that was seen `times` before, counted with decay; nothing for less than twice.
pub fn symbol(times: f32) -> Option<(&'static str, &'static str)> {
    const STEPS: [(f32, &str, &str); 4] = [
        (1000.0, "BULK_SEEN_1000", "A thousand messages like this came lately"),
        (100.0, "BULK_SEEN_100", "A hundred messages like this came lately"),
        (10.0, "BULK_SEEN_10", "Ten messages like this came lately"),
        (2.0, "BULK_SEEN_2", "Messages like this came lately"),
    ];
    STEPS.iter().find(|step| times >= step.0).map(|step| (step.1, step.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LETTER: &str = "Dear customer 4711, your parcel could not be delivered today because the address is not complete. \
        Please open the page below within two days, confirm the street and the house number, and pay the fee of 1.99 \
        for the second delivery. If we do not hear from you the parcel goes back to the sender. Your delivery team.";

    fn agreeing(a: &str, b: &str) -> usize {
        let (a, b) = (Digest::of_text(a).unwrap(), Digest::of_text(b).unwrap());
        a.0.iter().zip(b.0).filter(|(a, b)| **a == *b).count()
    }

    #[test]
    fn copies_with_small_changes_agree_and_others_do_not() {
        let copy = LETTER.replace("4711", "0815").replace("Dear", "Hello");
        assert!(agreeing(LETTER, &copy) >= KEYS_AGREEING, "{}", agreeing(LETTER, &copy));
        let other = "The minutes of the meeting are attached. We decided to move the release by a week, since the tests of \
            the storage layer are not done yet and two of us are on holiday. Please tell me by Friday if you object.";
        assert_eq!(agreeing(LETTER, other), 0);
    }

    #[test]
    fn little_text_has_no_digest() {
        assert_eq!(Digest::of_text("Yes, thanks, that is fine with me."), None);
        assert_eq!(Digest::of_text(""), None);
    }
}
