//! Hand-made binary coding of values inside a record: little-endian, lengths as varints. Pure.
//!
//! Reading never panics: whatever runs out or does not fit is `None`, and the record counts as damaged.

/// Appends values to a buffer.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn fixed(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// LEB128: seven bits a byte, low ones first.
    pub(super) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(super) fn optional(&mut self, value: Option<&str>) {
        self.byte(value.is_some() as u8);
        if let Some(value) = value {
            self.text(value);
        }
    }
}

/// Takes values from the front of a slice.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn fixed(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    /// A count of things that take at least one byte each, so that a wrong one can't ask for much memory.
    pub(super) fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    pub(super) fn optional(&mut self) -> Option<Option<&'a str>> {
        match self.byte()? {
            0 => Some(None),
            1 => Some(Some(self.text()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_as_themselves() {
        let mut out = Vec::new();
        let mut writer = Writer(&mut out);
        for value in [0, 127, 128, u64::MAX] {
            writer.number(value);
            writer.fixed(value);
        }
        writer.text("å");
        writer.optional(None);
        writer.optional(Some("x"));
        let mut reader = Reader(&out);
        for value in [0, 127, 128, u64::MAX] {
            assert_eq!((reader.number(), reader.fixed()), (Some(value), Some(value)));
        }
        assert_eq!(reader.text(), Some("å"));
        assert_eq!((reader.optional(), reader.optional()), (Some(None), Some(Some("x"))));
        assert_eq!(reader.byte(), None);
    }
}
