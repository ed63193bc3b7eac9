//! What is attached: types by content, telling names, archives looked into without unpacking to disk. Pure.
//!
//! Names lie, so the first bytes decide what a file is. Archives are listed in memory within the message's [`Budget`];
//! an archive that can't be read or is encrypted says so by a symbol, and is never taken for harmless.

mod archive;
mod format;
pub mod listing;
mod packed;
mod tnef;

use std::collections::HashSet;

use super::budget::{Budget, Limit};
use super::message::{Body, View};
use super::verdict::{Judge, Points, Symbol};
use format::{Format, format};

/// Symbols of this room: name, points, description.
const SYMBOLS: [(&str, f64, &str); 14] = [
    ("ARCHIVE_ENCRYPTED", 2.0, "An archive that can't be looked into without its password"),
    ("ARCHIVE_EXECUTABLE", 6.0, "A program within an archive"),
    ("ARCHIVE_NESTED", 1.5, "An archive within an archive"),
    ("ARCHIVE_UNREADABLE", 1.0, "An archive that is damaged or of an unknown kind"),
    ("ATTACHED_DOUBLE_EXTENSION", 4.0, "A harmless extension hides a program's, as in `invoice.pdf.exe`"),
    ("ATTACHED_ENCRYPTED", 1.5, "An Office document that can't be read without its password"),
    ("ATTACHED_EXECUTABLE", 6.0, "A program or script is attached"),
    ("ATTACHED_HTML", 1.0, "A web page is attached"),
    ("ATTACHED_IMAGE", 4.0, "A disc image or notebook that carries files past the warnings of Windows"),
    ("ATTACHED_MACRO", 3.5, "An Office document with macros"),
    ("ATTACHED_REVERSED_NAME", 4.0, "A file name that is read backwards in part"),
    ("ATTACHED_TNEF", 0.1, "A container of Outlook's (TNEF)"),
    ("ATTACHED_TYPE_LIE", 2.0, "A program, page or archive that calls itself a picture, a PDF or a text"),
    ("VIRUS_EICAR", 100.0, "The anti-virus test file of EICAR"),
];

/// The last extension of a file's name, in lower case; dots and blanks at the end are not seen by who opens it. Empty if there is none.
pub fn extension(name: &str) -> String {
    split_extension(name).map(|(_, last)| last.to_lowercase()).unwrap_or_default()
}

fn split_extension(name: &str) -> Option<(&str, &str)> {
    name.trim_end_matches(['.', ' ']).rsplit_once('.')
}

/// Names of files that tell, as the rule files list them.
#[derive(Default)]
pub struct Extensions {
    /// `dangerous_extensions`: what runs when it is opened.
    pub dangerous: HashSet<String>,
    /// `harmless_extensions`: what such a file hides behind.
    pub harmless: HashSet<String>,
}

/// Bytes at the front of a file that are searched for a signature.
const SIGNATURE_BYTES_MAX: usize = 4096;

/// Collects symbols, each once, with the file that was its reason.
struct Findings<'e> {
    found: Vec<(&'static str, String)>,
    extensions: &'e Extensions,
}

impl<'e> Findings<'e> {
    fn new(extensions: &'e Extensions) -> Self {
        Findings { found: Vec::new(), extensions }
    }

    fn add(&mut self, name: &'static str, file: &str) {
        if !self.found.iter().any(|(known, _)| *known == name) {
            self.found.push((name, file.chars().filter(|c| !c.is_control()).take(100).collect()));
        }
    }

    fn name(&mut self, name: &str, in_archive: bool) {
        if name.contains(['\u{202e}', '\u{2067}']) {
            self.add("ATTACHED_REVERSED_NAME", name);
        }
        let last = extension(name);
        if self.extensions.dangerous.contains(&last) {
            self.add(if in_archive { "ARCHIVE_EXECUTABLE" } else { "ATTACHED_EXECUTABLE" }, name);
            // `a.pdf     .exe`: blanks push the last one out of sight.
            if split_extension(name)
                .is_some_and(|(front, _)| self.extensions.harmless.contains(extension(front).trim()))
            {
                self.add("ATTACHED_DOUBLE_EXTENSION", name);
            }
        }
    }
}

/// The symbols of all attachments.
pub fn inspect(view: &View<'_>, extensions: &Extensions, budget: &mut Budget) -> Vec<Symbol> {
    let mut findings = Findings::new(extensions);
    for part in &view.parts {
        if budget.is_late() {
            break;
        }
        let name = part.name.as_deref().unwrap_or_default();
        let bytes = part.bytes();
        findings.name(name, false);
        if memchr::memmem::find(&bytes[..bytes.len().min(SIGNATURE_BYTES_MAX)], &eicar()).is_some() {
            findings.add("VIRUS_EICAR", name);
        }
        match &part.body {
            Body::Binary(bytes) => file(&mut findings, name, bytes, &part.content_type, budget),
            Body::Html(_) if part.attachment && !name.is_empty() => findings.add("ATTACHED_HTML", name),
            // Decoding as text leaves the first bytes of a program as they were.
            Body::Text(text) if part.attachment || part.base64 => {
                disguised(&mut findings, name, text, &part.content_type)
            }
            Body::Html(_) | Body::Text(_) => {}
        }
    }
    findings.found.into_iter().map(|(name, file)| symbol(name, &file)).collect()
}

fn symbol(name: &'static str, file: &str) -> Symbol {
    let row = SYMBOLS.iter().find(|(known, ..)| *known == name).expect("every finding is in the table");
    Symbol::new(Judge::Attachment, name, Points::new(row.1), row.2).because(format!("`{file}`"))
}

fn file(findings: &mut Findings<'_>, name: &str, bytes: &[u8], declared: &str, budget: &mut Budget) {
    let format = format(bytes);
    if format.belies(name, declared) {
        findings.add("ATTACHED_TYPE_LIE", name);
    }
    match format {
        Format::Executable => findings.add("ATTACHED_EXECUTABLE", name),
        Format::Html => findings.add("ATTACHED_HTML", name),
        Format::Image => findings.add("ATTACHED_IMAGE", name),
        Format::Ole => compound(findings, name, bytes),
        Format::Tnef => open_tnef(findings, name, bytes, 0, budget),
        _ if format.is_archive() => archive::look(findings, name, bytes, 0, budget),
        _ => {}
    }
}

/// A text that is none.
fn disguised(findings: &mut Findings<'_>, name: &str, text: &str, declared: &str) {
    let format = format(text.as_bytes());
    let is_program = format == Format::Executable && text.bytes().take(SIGNATURE_BYTES_MAX).any(|byte| byte == 0);
    if is_program {
        findings.add("ATTACHED_EXECUTABLE", name);
    }
    if (is_program || format == Format::Zip) && format.belies(name, declared) {
        findings.add("ATTACHED_TYPE_LIE", name);
    }
}

/// Each file of an Outlook container counts as if it were attached itself.
fn open_tnef(findings: &mut Findings<'_>, name: &str, bytes: &[u8], depth: u64, budget: &mut Budget) {
    findings.add("ATTACHED_TNEF", name);
    if depth >= budget.left(Limit::ArchiveDepth) {
        budget.exceed(Limit::ArchiveDepth);
        return;
    }
    let (files, whole) = tnef::files(bytes, budget.left(Limit::ArchiveEntries) as usize);
    if !whole {
        findings.add("ARCHIVE_UNREADABLE", name);
    }
    budget.take(Limit::ArchiveEntries, files.len() as u64);
    for inner in files {
        findings.name(&inner.name, false);
        match format(inner.data) {
            Format::Tnef => open_tnef(findings, &inner.name, inner.data, depth + 1, budget),
            _ => file(findings, &inner.name, inner.data, "", budget),
        }
    }
}

/// Macros and encryption of a compound document, by the names in its directory; they are UTF-16 there.
fn compound(findings: &mut Findings<'_>, name: &str, bytes: &[u8]) {
    if has_stream(bytes, "_VBA_PROJECT") || has_stream(bytes, "VBA") {
        findings.add("ATTACHED_MACRO", name);
    }
    if has_stream(bytes, "EncryptedPackage") {
        findings.add("ATTACHED_ENCRYPTED", name);
    }
}

fn has_stream(bytes: &[u8], stream: &str) -> bool {
    let wide: Vec<u8> = stream.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    memchr::memmem::find(bytes, &wide).is_some()
}

/// The 68 bytes of the EICAR test file, put together here so that no scanner takes this program for it.
fn eicar() -> Vec<u8> {
    [r"X5O!P%@AP[4\PZX54(P^)7CC)7}$", "EICAR-STANDARD-ANTIVIRUS", "-TEST-FILE!$H+H*"].concat().into_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Some of those that are listed in rules/05_data.cf.
    pub fn extensions() -> Extensions {
        let of = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Extensions { dangerous: of(&["exe", "js", "scr"]), harmless: of(&["doc", "pdf"]) }
    }

    fn names(raw: &[u8]) -> Vec<String> {
        inspect(&View::read(raw), &extensions(), &mut Budget::default()).into_iter().map(|symbol| symbol.name).collect()
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
        assert_eq!(names(mail("a.png", "TVqQAA==").as_bytes()), ["ATTACHED_TYPE_LIE", "ATTACHED_EXECUTABLE"]);
        assert!(names(mail("a.png", "iVBORw0KGgo=").as_bytes()).is_empty());
        assert_eq!(names(mail("a\u{202e}fdp.png", "AAAA").as_bytes()), ["ATTACHED_REVERSED_NAME"]);
        // "<html>" and a shortcut's header under a picture's name.
        assert_eq!(names(mail("a.png", "PGh0bWw+").as_bytes()), ["ATTACHED_TYPE_LIE", "ATTACHED_HTML"]);
        assert_eq!(names(mail("a.png", "TAAAAAEUAgA=").as_bytes()), ["ATTACHED_TYPE_LIE", "ATTACHED_EXECUTABLE"]);
    }

    fn found(bytes: &[u8]) -> Vec<&'static str> {
        let extensions = extensions();
        let mut findings = Findings::new(&extensions);
        file(&mut findings, "a.dat", bytes, "application/octet-stream", &mut Budget::default());
        findings.found.into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_outlook_wraps_is_seen() {
        let inner = tnef::tests::stream(&[("report.doc.js", b"x")]);
        assert_eq!(found(&inner), ["ATTACHED_TNEF", "ATTACHED_EXECUTABLE", "ATTACHED_DOUBLE_EXTENSION"]);
        let zip = archive::tests::zipped("x.exe", b"MZ");
        let nested = tnef::tests::stream(&[("a.zip", &zip), ("winmail.dat", &inner)]);
        assert_eq!(
            found(&nested),
            ["ATTACHED_TNEF", "ARCHIVE_EXECUTABLE", "ATTACHED_EXECUTABLE", "ATTACHED_DOUBLE_EXTENSION"]
        );
    }

    #[test]
    fn macros_are_found_in_old_documents_and_in_archives() {
        let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).chain([0, 0]).collect::<Vec<u8>>();
        let ole = [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec(), wide("_VBA_PROJECT")].concat();
        assert_eq!(found(&ole), ["ATTACHED_MACRO"]);
        // The part's name says nothing, its content does.
        assert_eq!(found(&archive::tests::zipped("word/harmless.bin", &ole)), ["ATTACHED_MACRO"]);
        let locked = [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec(), wide("EncryptedPackage")].concat();
        assert_eq!(found(&locked), ["ATTACHED_ENCRYPTED"]);
    }
}
