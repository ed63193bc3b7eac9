//! Outlook's winmail.dat opened: the files that it carries, in memory. Pure. [MS-OXTNEF].
//!
//! A TNEF stream is a signature, a key, and attributes: level, id, length, data, checksum. A file's data and its short name are attributes
//! of their own; its long name is one of the MAPI properties of its last attribute. What is cut off is given up to where it broke.

/// `TNEF_SIGNATURE`, little endian; then a key of two octets.
const SIGNATURE: [u8; 4] = [0x78, 0x9f, 0x3e, 0x22];
/// Begins a new file ([MS-OXTNEF] §2.1.3.3).
const ATTACH_RENDER_DATA: u32 = 0x0006_9002;
const ATTACH_TITLE: u32 = 0x0001_8010;
const ATTACH_DATA: u32 = 0x0006_800f;
/// The MAPI properties of a file.
const ATTACH_PROPERTIES: u32 = 0x0006_9005;
const LEVEL_MESSAGE: u8 = 1;
const LEVEL_FILE: u8 = 2;
/// PidTagAttachLongFilename, as 8-bit and as UTF-16 text.
const LONG_NAME: [[u8; 4]; 2] = [[0x1e, 0x00, 0x07, 0x37], [0x1f, 0x00, 0x07, 0x37]];
/// Longest name that is read.
const NAME_BYTES_MAX: usize = 512;

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File<'a> {
    /// Its long name where there is one, else the short one.
    pub name: String,
    /// Its bytes.
    pub data: &'a [u8],
}

/// The files of a TNEF stream, at most `most`, and whether the stream was whole.
pub fn files(bytes: &[u8], most: usize) -> (Vec<File<'_>>, bool) {
    let mut found: Vec<File<'_>> = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(&SIGNATURE).and_then(|rest| rest.get(2..)) else { return (found, false) };
    while !rest.is_empty() {
        let Some((level, id, data, after)) = attribute(rest) else { return (found, false) };
        rest = after;
        if level != LEVEL_FILE {
            continue;
        }
        if id == ATTACH_RENDER_DATA || found.is_empty() {
            if found.len() == most {
                return (found, false);
            }
            found.push(File::default());
        }
        let file = found.last_mut().expect("one was pushed");
        match id {
            ATTACH_TITLE if file.name.is_empty() => file.name = narrow(data),
            ATTACH_DATA => file.data = data,
            ATTACH_PROPERTIES => file.name = long_name(data).unwrap_or(std::mem::take(&mut file.name)),
            _ => {}
        }
    }
    (found, true)
}

/// Level, id, data, and what follows behind the checksum.
fn attribute(bytes: &[u8]) -> Option<(u8, u32, &[u8], &[u8])> {
    let (level, rest) = bytes.split_first()?;
    if !matches!(*level, LEVEL_MESSAGE | LEVEL_FILE) {
        return None;
    }
    let (id, rest) = rest.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let data = rest.get(..length)?;
    Some((*level, u32::from_le_bytes(*id), data, rest[length..].get(2..)?))
}

fn narrow(text: &[u8]) -> String {
    let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    String::from_utf8_lossy(&text[..end.min(NAME_BYTES_MAX)]).into_owned()
}

/// The long name, found by its tag: the properties before it need not be understood.
fn long_name(properties: &[u8]) -> Option<String> {
    for (wide, tag) in [(false, LONG_NAME[0]), (true, LONG_NAME[1])] {
        let Some(at) = memchr::memmem::find(properties, &tag) else { continue };
        // A count of values (one), a length, then the text.
        let rest = properties.get(at + 4..)?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let text = rest.get(..(u32::from_le_bytes(*length) as usize).min(NAME_BYTES_MAX * 2))?;
        let name = if wide {
            let units = text.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            String::from_utf16_lossy(&units.take_while(|unit| *unit != 0).collect::<Vec<_>>())
        } else {
            narrow(text)
        };
        if !name.is_empty() {
            return Some(name);
        }
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put(out: &mut Vec<u8>, level: u8, id: u32, data: &[u8]) {
        out.push(level);
        out.extend(id.to_le_bytes());
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(data);
        let checksum = data.iter().fold(0u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
        out.extend(checksum.to_le_bytes());
    }

    /// A stream with these files; the long name is UTF-16.
    pub fn stream(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = [&SIGNATURE[..], &[1, 0]].concat();
        put(&mut out, LEVEL_MESSAGE, 0x0008_9006, &[0, 0, 1, 0]);
        for (name, data) in files {
            put(&mut out, LEVEL_FILE, ATTACH_RENDER_DATA, &[0; 14]);
            put(&mut out, LEVEL_FILE, ATTACH_TITLE, b"SHORT.DAT\0");
            put(&mut out, LEVEL_FILE, ATTACH_DATA, data);
            let text: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            let length = (text.len() as u32).to_le_bytes();
            let properties = [&1u32.to_le_bytes()[..], &LONG_NAME[1], &1u32.to_le_bytes(), &length, &text].concat();
            put(&mut out, LEVEL_FILE, ATTACH_PROPERTIES, &properties);
        }
        out
    }

    #[test]
    fn files_come_out_with_their_long_names() {
        let bytes = stream(&[("invoice 2026.pdf.exe", b"MZ"), ("", b"x")]);
        let (found, whole) = files(&bytes, 10);
        let names: Vec<&str> = found.iter().map(|file| file.name.as_str()).collect();
        assert_eq!((names.as_slice(), whole), (["invoice 2026.pdf.exe", "SHORT.DAT"].as_slice(), true));
        assert_eq!(found[0].data, b"MZ");
        assert_eq!(files(&bytes, 1).0.len(), 1);
        assert!(!files(&bytes[..bytes.len() - 1], 10).1, "cut off");
    }

    proptest! {
        #[test]
        fn damaged_streams_never_panic(place in 0usize..400, byte: u8, cut in 0usize..400) {
            let mut bytes = stream(&[("a.exe", b"MZ"), ("b", b"y")]);
            let length = bytes.len();
            bytes[place % length] = byte;
            bytes.truncate(length - cut % length);
            let _ = files(&bytes, 5);
        }
    }
}
