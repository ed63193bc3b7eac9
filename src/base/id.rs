//! Queue ids: 64 bits that sort by time of acceptance and read as 13 characters. Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::unix;

/// Low bits of an id that number the messages of one millisecond.
const SEQUENCE_BITS: u32 = 20;
/// Crockford's base 32 in lower case: no `i`, `l`, `o`, `u`, so that an id can be read out on the telephone.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Characters of a printed id: 13 x 5 bits hold 64.
const TEXT_CHARS: usize = 13;

/// Names one accepted message for all its life: in the reply, the log, `Received`, the queue and the audit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

impl QueueId {
    /// When the id was given out, to the millisecond.
    pub fn time(self) -> SystemTime {
        unix::from_millis(self.0 >> SEQUENCE_BITS)
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; TEXT_CHARS];
        for (place, byte) in text.iter_mut().rev().enumerate() {
            *byte = ALPHABET[(self.0 >> (5 * place)) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What [`QueueId::from_str`] says of a text that is no id.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnId;

impl fmt::Display for NotAnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a queue id has {TEXT_CHARS} characters of 0-9 and a-z without i, l, o and u")
    }
}

impl std::error::Error for NotAnId {}

impl FromStr for QueueId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if text.len() != TEXT_CHARS {
            return Err(NotAnId);
        }
        let mut value = 0u64;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|a| *a == byte.to_ascii_lowercase()).ok_or(NotAnId)?;
            if value >> 59 != 0 {
                return Err(NotAnId);
            }
            value = value << 5 | digit as u64;
        }
        Ok(QueueId(value))
    }
}

/// Gives out ids that are unique within one spool and never go backwards, whatever the clock does.
#[derive(Default)]
pub struct IdSource {
    last: AtomicU64,
}

impl IdSource {
    /// A source whose next id is above `last`, the highest id that the spool knows.
    pub fn after(last: QueueId) -> Self {
        IdSource { last: AtomicU64::new(last.0) }
    }

    /// The next id, at `now` or just above the one before.
    pub fn next(&self, now: SystemTime) -> QueueId {
        let millis = unix::millis(now);
        let wanted = millis << SEQUENCE_BITS;
        let before = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(wanted.max(last + 1)))
            .expect("the update always returns a value");
        QueueId(wanted.max(before + 1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn an_id_reads_back_as_itself() {
        for value in [0, 1, u64::MAX, 0x0123_4567_89ab_cdef] {
            assert_eq!(QueueId(value).to_string().parse(), Ok(QueueId(value)));
        }
        assert_eq!("zzzzzzzzzzzzz".parse::<QueueId>(), Err(NotAnId));
        assert_eq!("short".parse::<QueueId>(), Err(NotAnId));
    }

    #[test]
    fn ids_grow_even_if_the_clock_goes_back() {
        let source = IdSource::default();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let first = source.next(now);
        let second = source.next(now - Duration::from_secs(500));
        assert!(second > first);
        assert_eq!(first.time(), now);
    }
}
