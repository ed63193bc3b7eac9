//! What is attached: types by content, telling names, archives looked into without unpacking to disk. Pure.
//!
//! Names lie, so the first bytes decide what a file is. Archives are listed in memory within the message's [`Budget`];
//! an archive that can't be read or is encrypted says so by a symbol, and is never taken for harmless.

mod archive;

use super::budget::Budget;
use super::message::{Body, View};
use super::verdict::{Judge, Points, Symbol};

/// Symbols of this room: name, points, description.
const SYMBOLS: [(&str, f64, &str); 11] = [
    ("ARCHIVE_ENCRYPTED", 2.0, "An archive that can't be looked into without its password"),
    ("ARCHIVE_EXECUTABLE", 6.0, "A program within an archive"),
    ("ARCHIVE_NESTED", 1.5, "An archive within an archive"),
    ("ARCHIVE_UNREADABLE", 1.0, "An archive that is damaged or of an unknown kind"),
    ("ATTACHED_DOUBLE_EXTENSION", 4.0, "A harmless extension hides a program's, as in `invoice.pdf.exe`"),
    ("ATTACHED_EXECUTABLE", 6.0, "A program or script is attached"),
    ("ATTACHED_HTML", 1.0, "A web page is attached"),
    ("ATTACHED_MACRO", 3.5, "An Office document with macros"),
    ("ATTACHED_TNEF", 0.1, "A container of Outlook's (TNEF)"),
    ("ATTACHED_TYPE_LIE", 2.0, "A program that calls itself something else"),
    ("VIRUS_EICAR", 100.0, "The anti-virus test file of EICAR"),
];

/// Extensions that Windows runs when clicked (the list that Outlook and Gmail refuse, shortened to what is seen in mail).
const DANGEROUS: [&str; 37] = [
    "ade", "adp", "apk", "appx", "bat", "chm", "cmd", "com", "cpl", "dll", "exe", "hta", "img", "ins", "iso", "isp",
    "jar", "jnlp", "js", "jse", "lib", "lnk", "mde", "msc", "msi", "msp", "mst", "one", "pif", "ps1", "scr", "sct",
    "vbe", "vbs", "vhd", "wsf", "wsh",
];
/// Extensions that look harmless in front of a dangerous one.
const HARMLESS: [&str; 14] =
    ["avi", "csv", "doc", "docx", "gif", "htm", "html", "jpeg", "jpg", "pdf", "png", "rtf", "txt", "xls"];
/// Bytes at the front of a file that are searched for a signature.
const SIGNATURE_BYTES_MAX: usize = 4096;

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Executable,
    Gzip,
    Ole,
    Other,
    Rar,
    SevenZip,
    Tar,
    Tnef,
    Zip,
}

fn format(bytes: &[u8]) -> Format {
    const MAGICS: [(&[u8], Format); 9] = [
        (b"MZ", Format::Executable),
        (b"\x7fELF", Format::Executable),
        (b"\x1f\x8b", Format::Gzip),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Format::Ole),
        (b"Rar!\x1a\x07", Format::Rar),
        (b"7z\xbc\xaf\x27\x1c", Format::SevenZip),
        (b"\x78\x9f\x3e\x22", Format::Tnef),
        (b"PK\x03\x04", Format::Zip),
        (b"PK\x05\x06", Format::Zip),
    ];
    if bytes.get(257..262) == Some(b"ustar") {
        return Format::Tar;
    }
    MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map_or(Format::Other, |(_, format)| *format)
}

/// Collects symbols, each once, with the file that was its reason.
#[derive(Default)]
struct Findings {
    found: Vec<(&'static str, String)>,
}

impl Findings {
    fn add(&mut self, name: &'static str, file: &str) {
        if !self.found.iter().any(|(known, _)| *known == name) {
            self.found.push((name, file.chars().filter(|c| !c.is_control()).take(100).collect()));
        }
    }

    fn name(&mut self, name: &str, in_archive: bool) {
        let lower = name.trim_end_matches(['.', ' ']).to_lowercase();
        let mut extensions = lower.rsplit('.');
        let (Some(last), Some(before)) = (extensions.next(), extensions.next()) else { return };
        if DANGEROUS.contains(&last) {
            self.add(if in_archive { "ARCHIVE_EXECUTABLE" } else { "ATTACHED_EXECUTABLE" }, name);
            if extensions.next().is_some() && HARMLESS.contains(&before.trim()) {
                self.add("ATTACHED_DOUBLE_EXTENSION", name);
            }
        }
    }
}

/// The symbols of all attachments.
pub fn inspect(view: &View<'_>, budget: &mut Budget) -> Vec<Symbol> {
    let mut findings = Findings::default();
    for part in &view.parts {
        let name = part.name.as_deref().unwrap_or_default();
        let bytes = part.bytes();
        findings.name(name, false);
        if memchr::memmem::find(&bytes[..bytes.len().min(SIGNATURE_BYTES_MAX)], &eicar()).is_some() {
            findings.add("VIRUS_EICAR", name);
        }
        match &part.body {
            Body::Binary(bytes) => file(&mut findings, name, bytes, &part.content_type, budget),
            Body::Html(_) if part.attachment && !name.is_empty() => findings.add("ATTACHED_HTML", name),
            Body::Html(_) | Body::Text(_) => {}
        }
    }
    findings.found.into_iter().map(|(name, file)| symbol(name, &file)).collect()
}

fn symbol(name: &'static str, file: &str) -> Symbol {
    let row = SYMBOLS.iter().find(|(known, ..)| *known == name).expect("every finding is in the table");
    Symbol::new(Judge::Attachment, name, Points::new(row.1), row.2).because(format!("`{file}`"))
}

fn file(findings: &mut Findings, name: &str, bytes: &[u8], declared: &str, budget: &mut Budget) {
    match format(bytes) {
        Format::Executable => {
            findings.add("ATTACHED_EXECUTABLE", name);
            if declared.starts_with("image/") || declared.starts_with("audio/") || declared == "application/pdf" {
                findings.add("ATTACHED_TYPE_LIE", name);
            }
        }
        Format::Ole if has_ole_macro(bytes) => findings.add("ATTACHED_MACRO", name),
        Format::Tnef => findings.add("ATTACHED_TNEF", name),
        Format::Rar => findings.add("ARCHIVE_UNREADABLE", name),
        Format::Gzip | Format::SevenZip | Format::Tar | Format::Zip => archive::look(findings, name, bytes, 0, budget),
        Format::Ole | Format::Other => {}
    }
}

/// A compound document whose directory names a VBA project; names are UTF-16 there.
fn has_ole_macro(bytes: &[u8]) -> bool {
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    ["_VBA_PROJECT", "VBA"].iter().any(|name| memchr::memmem::find(bytes, &wide(&format!("{name}\0"))).is_some())
}

/// The 68 bytes of the EICAR test file, put together here so that no scanner takes this program for it.
fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS", "-TEST-FILE!$H+H*"].concat().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(raw: &[u8]) -> Vec<String> {
        inspect(&View::read(raw), &mut Budget::default()).into_iter().map(|symbol| symbol.name).collect()
    }

    #[test]
    fn names_and_first_bytes_tell() {
        let mail = |name: &str, body: &str| {
            format!(
                "MIME-Version: 1.0\nContent-Type: image/png; name=\"{name}\"\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\n{body}\n"
            )
        };
        assert_eq!(names(mail("a.exe", "AAAA").as_bytes()), ["ATTACHED_EXECUTABLE"]);
        assert_eq!(
            names(mail("my.a.pdf.exe", "AAAA").as_bytes()),
            ["ATTACHED_EXECUTABLE", "ATTACHED_DOUBLE_EXTENSION"]
        );
        assert_eq!(names(mail("a.png", "TVqQAA==").as_bytes()), ["ATTACHED_EXECUTABLE", "ATTACHED_TYPE_LIE"]);
        assert!(names(mail("a.png", "iVBORw0KGgo=").as_bytes()).is_empty());
    }
}
