//! Many literals sought at once, without regard to case. Pure.
//!
//! Each literal is known by its rarest four bytes in a row (three, if it has no more). The text is walked once; tables of bits, small enough for
//! the first cache, say of nearly all places that nothing known stands there, and only the others are compared. Adding
//! literals fills the table, and adds no walk.

use super::literal::bits_of_byte;

/// Literals by number.
#[derive(Default)]
pub struct Grams {
    /// Of the literals with more bytes than [`HEAD`], those behind them.
    tails: Vec<u8>,
    /// The first three bytes of all of them, so that most places are done with after one look.
    heads: Bits,
    long: Table,
    short: Table,
}

/// What is known of three or four bytes in a row: a bit for each value of a hash.
#[derive(Clone, Default)]
pub struct Bits {
    bits: Vec<u64>,
    shift: u32,
}

impl Bits {
    /// These, in a table of a size that lets few others pass.
    pub fn of(grams: impl ExactSizeIterator<Item = u32>) -> Self {
        let bits = (grams.len() * BITS_PER_GRAM).next_power_of_two().clamp(BITS_MIN, BITS_MAX);
        let mut all = Bits { bits: vec![0; bits / 64], shift: 32 - bits.trailing_zeros() };
        grams.for_each(|gram| all.insert(gram));
        all
    }

    fn insert(&mut self, gram: u32) {
        let place = (hash(gram) >> self.shift) as usize;
        self.bits[place / 64] |= 1 << (place % 64);
    }

    /// False for what was certainly not added.
    #[inline]
    pub fn has(&self, gram: u32) -> bool {
        let place = (hash(gram) >> self.shift) as usize;
        self.bits[place / 64] & (1 << (place % 64)) != 0
    }
}

/// Literals by four bytes, or three.
#[derive(Default)]
struct Table {
    bits: Bits,
    /// By the hash's first bits: where its entries begin.
    starts: Vec<u32>,
    starts_shift: u32,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    gram: u32,
    literal: u32,
    /// The literal's first bytes, the first the lowest.
    head: u64,
    /// Where its others begin.
    tail: u32,
    /// Its bytes.
    length: u16,
    /// Bytes from its begin to its gram.
    before: u16,
}

/// Bytes of a literal that are compared at once.
const HEAD: usize = size_of::<u64>();

/// Bits of the table for each literal, so that few other places pass.
const BITS_PER_GRAM: usize = 32;
/// Bits of a table at least and at most; the latter is half of a first cache.
const BITS_MIN: usize = 64;
const BITS_MAX: usize = 1 << 17;
/// Odd, and its bits look random (Knuth, The Art of Computer Programming 3, 6.4).
const HASH_FACTOR: u32 = 0x9E37_79B1;
const LONG: usize = 4;
const SHORT: usize = 3;
const SHORT_MASK: u32 = 0x00FF_FFFF;

fn hash(gram: u32) -> u32 {
    gram.wrapping_mul(HASH_FACTOR)
}

impl Grams {
    /// Literals in lower case, of three bytes or more, without doubles.
    pub fn new(literals: Vec<Vec<u8>>) -> Self {
        let (mut long, mut short, mut tails) = (Vec::new(), Vec::new(), Vec::new());
        for (number, literal) in literals.iter().enumerate() {
            let length = literal.len().min(LONG);
            let rarity = |gram: &[u8]| gram.iter().map(|&byte| bits_of_byte(byte)).sum::<f32>();
            let grams = literal.windows(length).enumerate();
            let rarest = grams.max_by(|(_, a), (_, b)| rarity(a).total_cmp(&rarity(b)));
            let (at, gram) = rarest.expect("a literal is not empty");
            let (head, tail) = literal.split_at(literal.len().min(HEAD));
            let entry = Entry {
                gram: gram.iter().rev().fold(0, |gram, &byte| gram << 8 | u32::from(byte)),
                literal: number as u32,
                head: word(head),
                tail: tails.len() as u32,
                length: literal.len() as u16,
                before: at as u16,
            };
            tails.extend_from_slice(tail);
            if length == LONG { long.push(entry) } else { short.push(entry) }
        }
        let heads: Vec<u32> = long.iter().chain(&short).map(|entry| entry.gram & SHORT_MASK).collect();
        Grams { tails, heads: Bits::of(heads.into_iter()), long: Table::new(long), short: Table::new(short) }
    }

    /// Calls `visit` with the number of each literal that stands in `text`, which is in lower case, and where it ends.
    pub fn scan(&self, text: &[u8], mut visit: impl FnMut(u32, usize)) {
        if self.long.entries.is_empty() && self.short.entries.is_empty() {
            return;
        }
        for (at, gram) in text.array_windows::<LONG>().enumerate() {
            let gram = u32::from_le_bytes(*gram);
            if !self.heads.has(gram & SHORT_MASK) {
                continue;
            }
            if self.long.bits.has(gram) {
                self.compare(&self.long, gram, text, at, &mut visit);
            }
            if self.short.bits.has(gram & SHORT_MASK) {
                self.compare(&self.short, gram & SHORT_MASK, text, at, &mut visit);
            }
        }
        // The last place has three bytes only.
        if let Some(&[one, two, three]) = text.last_chunk::<SHORT>() {
            let gram = u32::from_le_bytes([one, two, three, 0]);
            if self.short.bits.has(gram) {
                self.compare(&self.short, gram, text, text.len() - SHORT, &mut visit);
            }
        }
    }

    /// Looks which literals stand in `text` with their gram at `at`. Kept apart, so that the walk's loop stays small.
    #[inline(never)]
    fn compare(&self, table: &Table, gram: u32, text: &[u8], at: usize, visit: &mut impl FnMut(u32, usize)) {
        for entry in table.entries_of(gram).iter().filter(|entry| entry.gram == gram) {
            let Some(start) = at.checked_sub(usize::from(entry.before)) else { continue };
            let length = usize::from(entry.length);
            let known = u64::MAX >> (u64::BITS as usize - 8 * length.min(HEAD));
            let rest = &text[start..];
            let begin = rest.first_chunk().map_or_else(|| word(rest), |begin| u64::from_le_bytes(*begin));
            if begin & known == entry.head && length <= rest.len() && self.has_tail(entry, rest) {
                visit(entry.literal, start + length);
            }
        }
    }

    fn has_tail(&self, entry: &Entry, text: &[u8]) -> bool {
        let more = usize::from(entry.length).saturating_sub(HEAD);
        more == 0 || self.tails[entry.tail as usize..][..more] == text[HEAD..][..more]
    }
}

/// A few bytes, the first the lowest.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().take(HEAD).rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

impl Table {
    fn new(mut entries: Vec<Entry>) -> Self {
        let starts = entries.len().next_power_of_two().max(2);
        let starts_shift = 32 - starts.trailing_zeros();
        entries.sort_by_key(|entry| hash(entry.gram) >> starts_shift);
        let bits = Bits::of(entries.iter().map(|entry| entry.gram));
        let mut table = Table { bits, starts: Vec::new(), starts_shift, entries };
        let first = |bucket| table.entries.partition_point(|entry| hash(entry.gram) >> starts_shift < bucket) as u32;
        table.starts = (0..=starts as u32).map(first).collect();
        table
    }

    fn entries_of(&self, gram: u32) -> &[Entry] {
        let bucket = (hash(gram) >> self.starts_shift) as usize;
        &self.entries[self.starts[bucket] as usize..self.starts[bucket + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_found_whatever_its_case() {
        let words = ["foo", "oba", "foobar", "abcd", "bcdefghi", "bcdefghi foo bf", "o b", "zzzz", "zz\0zz"];
        let grams = Grams::new(words.iter().map(|word| word.as_bytes().to_vec()).collect());
        for text in ["FooBar", "foobarabcdefghi foo bfoo", "", "fo", "zzzzz\0zzz", "xBCDEFGHI"] {
            let mut expected = Vec::new();
            for (number, word) in words.iter().enumerate() {
                let lower = text.to_lowercase();
                let ends = (0..text.len()).filter(|&at| lower[at..].starts_with(word)).map(|at| at + word.len());
                expected.extend(ends.map(|end| (number as u32, end)));
            }
            let mut seen = Vec::new();
            grams.scan(text.to_lowercase().as_bytes(), |number, end| seen.push((number, end)));
            seen.sort_unstable();
            assert_eq!(seen, expected, "{text}");
        }
    }
}
