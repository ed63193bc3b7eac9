//! How one record stands in a segment: framing and checks. Pure. The whole format is in the room's own documentation.
//!
//! Invariant: what [`Header::read`] believes was written by us into this use of this segment: the seal is random per
//! use, so neither a stale record of a recycled file nor a record forged inside a message's content passes.

/// Every record starts at a multiple of this many bytes from the start of its segment.
pub(super) const ALIGNMENT: usize = 8;
/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 48;
/// First bytes of a header: "WJ" and the version of the format.
const MAGIC: [u8; 4] = *b"WJ01";
/// In [`Header::flags`]: this record and the next stand or fall together.
pub(super) const FLAG_MORE: u8 = 1;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// First of each segment: generation, poisoned segments, the ledger.
    Segment = 1,
    /// A message: index part, envelope, prefix, verdict; content.
    Accepted = 2,
    /// What an attempt came to, per recipient.
    Attempt = 3,
    /// The whole open state of one message; replaces what was said before.
    State = 4,
    /// A message copied forward; as `Accepted`, but not counted.
    Moved = 5,
    /// An operator's act on a set of items.
    Admin = 6,
    /// Messages that are finished, said again because the first record's segment goes.
    Dead = 7,
    /// A message taken and thrown away on purpose.
    Discarded = 8,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Kind::Segment,
            2 => Kind::Accepted,
            3 => Kind::Attempt,
            4 => Kind::State,
            5 => Kind::Moved,
            6 => Kind::Admin,
            7 => Kind::Dead,
            8 => Kind::Discarded,
            _ => return None,
        })
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) seal: u64,
    pub(super) batch: u32,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) meta_bytes: u32,
    pub(super) content_bytes: u64,
    pub(super) meta_crc: u32,
    pub(super) content_crc: u32,
}

impl Header {
    /// The 48 bytes.
    pub(super) fn write(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0u8; HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.seal.to_le_bytes());
        out[16..20].copy_from_slice(&self.batch.to_le_bytes());
        out[20] = self.kind as u8;
        out[21] = self.flags;
        out[24..32].copy_from_slice(&self.content_bytes.to_le_bytes());
        out[32..36].copy_from_slice(&self.meta_bytes.to_le_bytes());
        out[36..40].copy_from_slice(&self.meta_crc.to_le_bytes());
        out[40..44].copy_from_slice(&self.content_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, if it is one of the segment with this `seal`.
    pub(super) fn read(bytes: &[u8], seal: u64) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if bytes[..4] != MAGIC || bytes[8..16] != seal.to_le_bytes() {
            return None;
        }
        if crc32c::crc32c(&bytes[8..]) != u32_at(bytes, 4) {
            return None;
        }
        let content_bytes = u32_at(bytes, 24) as u64 | (u32_at(bytes, 28) as u64) << 32;
        Some(Header {
            seal,
            batch: u32_at(bytes, 16),
            kind: Kind::from_byte(bytes[20])?,
            flags: bytes[21],
            meta_bytes: u32_at(bytes, 32),
            content_bytes,
            meta_crc: u32_at(bytes, 36),
            content_crc: u32_at(bytes, 40),
        })
    }

    /// Bytes of the whole record with its padding.
    pub(super) fn record_bytes(&self) -> u64 {
        record_bytes(self.meta_bytes as usize, self.content_bytes)
    }
}

/// Bytes of a record with padding.
pub(super) fn record_bytes(meta_bytes: usize, content_bytes: u64) -> u64 {
    ((HEADER_BYTES + meta_bytes) as u64 + content_bytes).next_multiple_of(ALIGNMENT as u64)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            seal: 7,
            batch: 4096,
            kind: Kind::Accepted,
            flags: FLAG_MORE,
            meta_bytes: 100,
            content_bytes: 1 << 33,
            meta_crc: 1,
            content_crc: 2,
        }
    }

    #[test]
    fn a_header_reads_back_as_itself() {
        assert_eq!(Header::read(&sample().write(), 7), Some(sample()));
    }

    #[test]
    fn a_header_of_another_use_of_the_file_is_not_believed() {
        assert_eq!(Header::read(&sample().write(), 8), None);
    }

    #[test]
    fn no_single_flipped_bit_is_believed() {
        let good = sample().write();
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::read(&bad, 7), None, "bit {bit}");
        }
    }
}
