//! Names in archives whose packing is not undone here: RAR 4 and 5 by their headers, cabinets by their directory. Pure.
//!
//! Sources: RAR 5.0 archive format (rarlab.com/technote.htm), the technote that came with RAR 3 for the older one, [MS-CAB]. A header that
//! leads out of the file ends the list, and the list then says that it is not whole. Nothing is unpacked.

/// What a list of headers tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Names of files, as far as they can be read.
    pub names: Vec<String>,
    /// A file, or all headers, can't be read without a password.
    pub encrypted: bool,
    /// The list ended where it should.
    pub whole: bool,
}

const RAR_4: &[u8] = b"Rar!\x1a\x07\x00";
const RAR_5: &[u8] = b"Rar!\x1a\x07\x01\x00";
/// Headers of other kinds than files that are passed over.
const OTHERS_MAX: usize = 10_000;

/// The names in a RAR archive, at most so many.
pub fn rar(bytes: &[u8], names_max: usize) -> Listing {
    let mut listing = Listing::default();
    let done = match (bytes.strip_prefix(RAR_5), bytes.strip_prefix(RAR_4)) {
        (Some(rest), _) => listing.rar_5(rest, names_max),
        (_, Some(rest)) => listing.rar_4(rest, names_max),
        _ => None,
    };
    listing.whole = done.is_some();
    listing
}

/// The names in a cabinet, at most so many.
pub fn cabinet(bytes: &[u8], names_max: usize) -> Listing {
    let mut listing = Listing::default();
    listing.whole = listing.cabinet(bytes, names_max).is_some();
    listing
}

impl Listing {
    fn rar_4(&mut self, mut rest: &[u8], names_max: usize) -> Option<()> {
        const HEADERS_ENCRYPTED: u16 = 0x80;
        const FILE_ENCRYPTED: u16 = 0x04;
        const LARGE: u16 = 0x100;
        const DATA_FOLLOWS: u16 = 0x8000;
        for _ in 0..OTHERS_MAX + names_max {
            if rest.is_empty() {
                return Some(());
            }
            let mut head = Reader(rest);
            head.take(2)?;
            let (kind, flags, size) = (head.byte()?, head.u16()?, usize::from(head.u16()?));
            let mut data = 0;
            match kind {
                // The archive itself.
                0x73 if flags & HEADERS_ENCRYPTED != 0 => {
                    self.encrypted = true;
                    return Some(());
                }
                // A file, or what belongs to the archive and is stored like one.
                0x74 | 0x7a => {
                    data = u64::from(head.u32()?);
                    head.take(4 + 1 + 4 + 4 + 1 + 1)?;
                    let name_bytes = usize::from(head.u16()?);
                    head.take(4)?;
                    if flags & LARGE != 0 {
                        data |= u64::from(head.u32()?) << 32;
                        head.take(4)?;
                    }
                    let name = head.take(name_bytes)?;
                    // What follows the zero is the same in a form of its own, the extension included.
                    let name = name.split(|&byte| byte == 0).next().unwrap_or(name);
                    if kind == 0x74 {
                        self.encrypted |= flags & FILE_ENCRYPTED != 0;
                        self.name(name);
                    }
                }
                0x7b => return Some(()),
                _ if flags & DATA_FOLLOWS != 0 => data = u64::from(head.u32()?),
                _ => {}
            }
            // A header shorter than its fixed part would be read again and again.
            let next = u64::try_from(size.max(7)).ok()?.checked_add(data)?;
            rest = rest.get(usize::try_from(next).ok()?..)?;
            if self.names.len() >= names_max {
                return Some(());
            }
        }
        None
    }

    fn rar_5(&mut self, mut rest: &[u8], names_max: usize) -> Option<()> {
        for _ in 0..OTHERS_MAX + names_max {
            if rest.is_empty() {
                return Some(());
            }
            let mut reader = Reader(rest);
            reader.take(4)?;
            let size = usize::try_from(reader.number()?).ok()?;
            let mut head = Reader(reader.take(size)?);
            let (kind, flags) = (head.number()?, head.number()?);
            let extra = if flags & 1 != 0 { usize::try_from(head.number()?).ok()? } else { 0 };
            let data = if flags & 2 != 0 { head.number()? } else { 0 };
            match kind {
                2 => self.rar_5_file(head, extra)?,
                // Everything behind this one is encrypted.
                4 => {
                    self.encrypted = true;
                    return Some(());
                }
                5 => return Some(()),
                _ => {}
            }
            rest = reader.0.get(usize::try_from(data).ok()?..)?;
            if self.names.len() >= names_max {
                return Some(());
            }
        }
        None
    }

    fn rar_5_file(&mut self, mut head: Reader<'_>, extra: usize) -> Option<()> {
        let has_records = head.0.len().checked_sub(extra)?;
        let mut records = Reader(&head.0[has_records..]);
        let flags = head.number()?;
        // The size and the attributes.
        head.number()?;
        head.number()?;
        head.take(if flags & 2 != 0 { 4 } else { 0 })?;
        head.take(if flags & 4 != 0 { 4 } else { 0 })?;
        // How it is packed, and by which system.
        head.number()?;
        head.number()?;
        let name_bytes = usize::try_from(head.number()?).ok()?;
        self.name(head.take(name_bytes)?);
        while let Some(size) = records.number() {
            let mut record = Reader(records.take(usize::try_from(size).ok()?)?);
            self.encrypted |= record.number()? == 1;
        }
        Some(())
    }

    fn cabinet(&mut self, bytes: &[u8], names_max: usize) -> Option<()> {
        let first = Reader(bytes.get(16..)?).u32()?;
        let count = usize::from(Reader(bytes.get(28..)?).u16()?);
        let mut rest = Reader(bytes.get(usize::try_from(first).ok()?..)?);
        for _ in 0..count.min(names_max) {
            rest.take(16)?;
            let end = memchr::memchr(0, rest.0)?;
            self.name(rest.take(end)?);
            rest.take(1)?;
        }
        Some(())
    }

    fn name(&mut self, bytes: &[u8]) {
        self.names.push(String::from_utf8_lossy(bytes).into_owned());
    }
}

/// Bytes from the front.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    /// RAR 5's own: seven bits a byte, the lowest first, a high bit for more.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for place in 0..9 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A RAR 4 archive with these files; the second of each says whether it is encrypted.
    fn rar_4(files: &[(&str, bool)]) -> Vec<u8> {
        let mut out = RAR_4.to_vec();
        out.extend([0, 0, 0x73, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0]);
        for (name, encrypted) in files {
            let size = 32 + name.len() as u16;
            out.extend([0, 0, 0x74, if *encrypted { 4 } else { 0 }, 0x80]);
            out.extend(size.to_le_bytes());
            out.extend(3u32.to_le_bytes());
            out.extend([0; 4 + 1 + 4 + 4 + 1 + 1]);
            out.extend((name.len() as u16).to_le_bytes());
            out.extend([0; 4]);
            out.extend(name.as_bytes());
            out.extend(b"xyz");
        }
        out.extend([0, 0, 0x7b, 0, 0x40, 7, 0]);
        out
    }

    /// The same as RAR 5.
    fn rar_5(files: &[(&str, bool)]) -> Vec<u8> {
        let mut out = RAR_5.to_vec();
        let block = |out: &mut Vec<u8>, head: &[u8]| {
            out.extend([0; 4]);
            out.push(head.len() as u8);
            out.extend(head);
        };
        block(&mut out, &[1, 0, 0]);
        for (name, encrypted) in files {
            let extra: &[u8] = if *encrypted { &[2, 1, 0] } else { &[] };
            let mut head = vec![2, 3, extra.len() as u8, 3, 0, 3, 0, 0, 1, name.len() as u8];
            head.extend(name.as_bytes());
            head.extend(extra);
            block(&mut out, &head);
            out.extend(b"xyz");
        }
        block(&mut out, &[5, 0, 0]);
        out
    }

    /// A cabinet with these files.
    fn cab(names: &[&str]) -> Vec<u8> {
        let mut out = b"MSCF".to_vec();
        out.extend([0; 12]);
        out.extend(36u32.to_le_bytes());
        out.extend([0, 0, 0, 0, 3, 1, 1, 0]);
        out.extend((names.len() as u16).to_le_bytes());
        out.extend([0; 6]);
        for name in names {
            out.extend([0; 16]);
            out.extend(name.as_bytes());
            out.push(0);
        }
        out
    }

    #[test]
    fn names_are_read_and_encryption_is_seen() {
        let files = [("a/report.pdf.exe", false), ("b.txt", true)];
        for (of, made) in [("4", rar_4(&files)), ("5", rar_5(&files))] {
            let listing = rar(&made, 10);
            assert_eq!(listing.names, ["a/report.pdf.exe", "b.txt"], "{of}");
            assert!(listing.encrypted && listing.whole, "{of}");
            assert_eq!(rar(&made, 1).names.len(), 1, "{of}");
            let cut = rar(&made[..made.len() - 12], 10);
            assert!(!cut.whole, "{of}: {cut:?}");
        }
        assert!(!rar(&rar_4(&files[..1]), 10).encrypted && !rar(&rar_5(&files[..1]), 10).encrypted);
        let listing = cabinet(&cab(&["x.js", "y"]), 10);
        assert_eq!((listing.names, listing.whole), (vec!["x.js".to_owned(), "y".to_owned()], true));
        assert!(!cabinet(b"MSCF", 10).whole);
    }

    #[test]
    fn encrypted_headers_hide_the_names() {
        let mut made = RAR_4.to_vec();
        made.extend([0, 0, 0x73, 0x80, 0, 13, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9]);
        assert_eq!(rar(&made, 10), Listing { names: Vec::new(), encrypted: true, whole: true });
        let mut made = RAR_5.to_vec();
        made.extend([0, 0, 0, 0, 3, 4, 0, 0, 9, 9, 9]);
        assert_eq!(rar(&made, 10), Listing { names: Vec::new(), encrypted: true, whole: true });
    }
}
