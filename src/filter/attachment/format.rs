//! What a file is, by its first bytes and never by its name. Pure. The signatures are those of file(1).

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// bzip2.
    Bzip2,
    /// A cabinet of Microsoft's.
    Cabinet,
    /// A program, or a shortcut that starts one.
    Executable,
    /// gzip.
    Gzip,
    /// A web page.
    Html,
    /// An image of a disc, or a notebook that carries files: opened by a click, and the programs in it run.
    Image,
    /// An OLE compound document: Office before 2007, MSI.
    Ole,
    /// Anything else.
    Other,
    /// RAR, 4 or 5.
    Rar,
    /// 7z.
    SevenZip,
    /// tar.
    Tar,
    /// Outlook's winmail.dat.
    Tnef,
    /// xz.
    Xz,
    /// ZIP, and all that is built on it: Office since 2007, JAR, APK.
    Zip,
    /// Zstandard, whose files may begin with a frame that is passed over.
    Zstd,
}

/// Where a tar's mark stands (POSIX ustar).
const TAR_MARK: std::ops::Range<usize> = 257..262;
/// Where a disc image's mark stands: its seventeenth sector (ECMA-119 §8).
const ISO_MARK: std::ops::Range<usize> = 0x8001..0x8006;
/// Bytes at the front that may hold the first tag of a web page.
const HTML_BYTES: usize = 256;

const MAGICS: [(&[u8], Format); 20] = [
    (b"MZ", Format::Executable),
    (b"\x7fELF", Format::Executable),
    (b"\xcf\xfa\xed\xfe", Format::Executable),
    (b"\xca\xfe\xba\xbe", Format::Executable),
    // A Windows shortcut: its header's size and class ([MS-SHLLINK] §2.1).
    (b"\x4c\x00\x00\x00\x01\x14\x02\x00", Format::Executable),
    (b"ITSF", Format::Executable),
    (b"\x1f\x8b", Format::Gzip),
    (b"BZh", Format::Bzip2),
    (b"\xfd7zXZ\x00", Format::Xz),
    (b"MSCF", Format::Cabinet),
    (b"\x28\xb5\x2f\xfd", Format::Zstd),
    (b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d", Format::Image),
    (b"vhdxfile", Format::Image),
    (b"conectix", Format::Image),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Format::Ole),
    (b"Rar!\x1a\x07", Format::Rar),
    (b"7z\xbc\xaf\x27\x1c", Format::SevenZip),
    (b"\x78\x9f\x3e\x22", Format::Tnef),
    (b"PK\x03\x04", Format::Zip),
    (b"PK\x05\x06", Format::Zip),
];

/// What `bytes` are.
pub fn format(bytes: &[u8]) -> Format {
    if bytes.get(TAR_MARK) == Some(b"ustar") {
        return Format::Tar;
    }
    if bytes.get(ISO_MARK) == Some(b"CD001") {
        return Format::Image;
    }
    if is_passed_over(bytes) {
        return Format::Zstd;
    }
    let known = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, format)| *format);
    known.unwrap_or_else(|| if is_html(bytes) { Format::Html } else { Format::Other })
}

/// True for a frame of Zstandard that is none of the content (RFC 8878 §3.1.2).
pub fn is_passed_over(bytes: &[u8]) -> bool {
    matches!(bytes, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

fn is_html(bytes: &[u8]) -> bool {
    let front = &bytes[..bytes.len().min(HTML_BYTES)];
    let front = front.strip_prefix(b"\xef\xbb\xbf").unwrap_or(front).trim_ascii_start().to_ascii_lowercase();
    [b"<!doctype html".as_slice(), b"<html", b"<script"].iter().any(|tag| front.starts_with(tag))
}

impl Format {
    /// True for what is archived files to a reader.
    pub fn is_archive(self) -> bool {
        matches!(
            self,
            Format::Bzip2
                | Format::Cabinet
                | Format::Gzip
                | Format::Rar
                | Format::SevenZip
                | Format::Tar
                | Format::Xz
                | Format::Zip
                | Format::Zstd
        )
    }

    /// True if something of this kind under the name or type of a picture, a sound, a PDF or a plain text is a lie.
    pub fn belies(self, name: &str, declared: &str) -> bool {
        const PASSIVE: [&str; 12] =
            ["avi", "bmp", "csv", "gif", "jpeg", "jpg", "mp3", "mp4", "pdf", "png", "tiff", "txt"];
        let extension = name.rsplit_once('.').map(|(_, last)| last.to_ascii_lowercase()).unwrap_or_default();
        let is_passive_type = ["image/", "audio/", "video/"].iter().any(|kind| declared.starts_with(kind))
            || matches!(declared, "application/pdf" | "text/plain" | "text/csv");
        let can_lie =
            self.is_archive() || matches!(self, Format::Executable | Format::Html | Format::Image | Format::Ole);
        can_lie && (PASSIVE.contains(&extension.as_str()) || is_passive_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_tell_and_names_do_not() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let mut iso = vec![0; 0x9000];
        iso[0x8001..0x8006].copy_from_slice(b"CD001");
        assert_eq!((format(&tar), format(&iso)), (Format::Tar, Format::Image));
        assert_eq!(format(b"\xef\xbb\xbf\r\n<HTML><body>"), Format::Html);
        assert_eq!(format(b"%PDF-1.4"), Format::Other);
        assert!(Format::Html.belies("invoice.pdf", "application/octet-stream"));
        assert!(Format::Zip.belies("", "image/png"));
        assert!(!Format::Zip.belies("a.docx", "application/vnd.openxmlformats"));
        assert!(!Format::Other.belies("a.png", "image/png"));
    }
}
