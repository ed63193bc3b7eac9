//! Messages that prove that they arrived whole: number, time of sending and CRC-32C of the body in one header field.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FIELD: &[u8] = b"X-Load: ";
/// 16 digits number, 16 microseconds since 1970, 8 checksum, with spaces between.
const FIELD_VALUE_BYTES: usize = 16 + 1 + 16 + 1 + 8;
const LINE_BYTES: usize = 76;
const NUMBER_BYTES: usize = 16;

/// Makes messages of one size.
pub struct Maker {
    text: Vec<u8>,
    value_at: usize,
    body_at: usize,
    next: u64,
}

impl Maker {
    /// `size` bytes each, CR LF included, the final dot not; at least what header and number need.
    pub fn new(size: usize, sender: &str, recipient: &str) -> Self {
        let head =
            format!("From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: load\r\nMessage-ID: <load@localhost>\r\n");
        let mut text = head.into_bytes();
        text.extend_from_slice(FIELD);
        let value_at = text.len();
        text.resize(value_at + FIELD_VALUE_BYTES, b'0');
        text.extend_from_slice(b"\r\n\r\n");
        let body_at = text.len();
        text.resize(body_at + NUMBER_BYTES, b'0');
        text.extend_from_slice(b"\r\n");
        let random = fastrand::Rng::with_seed(7);
        fill_lines(&mut text, size, random);
        Maker { text, value_at, body_at, next: 0 }
    }

    /// The next message with its final dot, appended to `out`.
    pub fn write_next(&mut self, out: &mut Vec<u8>) {
        let number = format!("{:016x}", self.next);
        self.next += 1;
        // The number is in the body too, so each has its own checksum.
        self.text[self.body_at..self.body_at + NUMBER_BYTES].copy_from_slice(number.as_bytes());
        let check = crc32c::crc32c(&self.text[self.body_at..]);
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        let value = format!("{number} {micros:016x} {check:08x}");
        self.text[self.value_at..self.value_at + FIELD_VALUE_BYTES].copy_from_slice(value.as_bytes());
        out.extend_from_slice(&self.text);
        out.extend_from_slice(b".\r\n");
    }
}

/// Lines of letters, none beginning with a dot, up to exactly `size` bytes in all where that is possible.
fn fill_lines(text: &mut Vec<u8>, size: usize, mut random: fastrand::Rng) {
    while text.len() + 2 < size {
        let letters = (size - text.len() - 2).min(LINE_BYTES);
        text.extend((0..letters).map(|_| random.lowercase() as u8));
        text.extend_from_slice(b"\r\n");
    }
}

/// What the field of an arrived message says.
pub struct Arrived {
    pub number: u64,
    pub under_way: Duration,
    pub whole: bool,
}

/// Checks a message; nothing if it is none of ours.
pub fn check(text: &[u8]) -> Option<Arrived> {
    let header_end = memchr::memmem::find(text, b"\r\n\r\n")?;
    let value_at = memchr::memmem::find(&text[..header_end], FIELD)? + FIELD.len();
    let value = std::str::from_utf8(text.get(value_at..value_at + FIELD_VALUE_BYTES)?).ok()?;
    let mut words = value.split(' ').map(|word| u64::from_str_radix(word, 16).ok());
    let (number, micros, sum) = (words.next()??, words.next()??, words.next()??);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Some(Arrived {
        number,
        under_way: now.saturating_sub(Duration::from_micros(micros)),
        whole: u64::from(crc32c::crc32c(&text[header_end + 4..])) == sum,
    })
}
