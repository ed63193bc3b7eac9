//! Archives listed in memory: names, encryption, what is nested, macros. Pure. ZIP, 7z, tar, gzip.
//!
//! Entry counts, depth, bytes taken out and their ratio to what was packed are bounded by the message's budget.

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Findings, Format, format};
use crate::filter::budget::{Budget, Limit};

/// Bytes taken out of one entry: the front is enough to know what it is, a nested archive needs all of itself.
const ENTRY_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Smaller entries may be packed as tightly as they like.
const RATIO_BYTES_MIN: u64 = 1024 * 1024;

/// Looks into an archive.
pub fn look(findings: &mut Findings, name: &str, bytes: &[u8], depth: u64, budget: &mut Budget) {
    if depth >= budget.left(Limit::ArchiveDepth) {
        budget.exceed(Limit::ArchiveDepth);
        return;
    }
    // The readers are not ours; one that trips costs this archive its listing and nobody else anything.
    let read = catch_unwind(AssertUnwindSafe(|| match format(bytes) {
        Format::Zip => zip(findings, bytes, depth, budget),
        Format::SevenZip => seven_zip(findings, bytes, budget),
        Format::Tar => tar(findings, bytes, depth, budget),
        Format::Gzip => gzip(findings, name, bytes, depth, budget),
        _ => Some(()),
    }));
    if !matches!(read, Ok(Some(()))) {
        findings.add("ARCHIVE_UNREADABLE", name);
    }
}

/// What stands in an archive: its name counts, and its content if it is an archive or program itself.
fn entry(findings: &mut Findings, name: &str, content: &[u8], depth: u64, budget: &mut Budget) {
    match format(content) {
        Format::Executable => findings.add("ARCHIVE_EXECUTABLE", name),
        Format::Gzip | Format::SevenZip | Format::Tar | Format::Zip => {
            findings.add("ARCHIVE_NESTED", name);
            look(findings, name, content, depth + 1, budget);
        }
        Format::Rar => findings.add("ARCHIVE_NESTED", name),
        Format::Ole | Format::Other | Format::Tnef => {}
    }
}

fn take_out(reader: impl Read, packed: u64, budget: &mut Budget) -> Option<Vec<u8>> {
    let most = ENTRY_BYTES_MAX.min(budget.left(Limit::ArchiveBytes));
    let mut content = Vec::new();
    let read = reader.take(most).read_to_end(&mut content);
    budget.take(Limit::ArchiveBytes, content.len() as u64);
    if content.len() as u64 >= RATIO_BYTES_MIN
        && content.len() as u64 / packed.max(1) > budget.left(Limit::ArchiveRatio)
    {
        budget.exceed(Limit::ArchiveRatio);
    }
    read.ok().map(|_| content)
}

fn zip(findings: &mut Findings, bytes: &[u8], depth: u64, budget: &mut Budget) -> Option<()> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).ok()?;
    for place in 0..archive.len() {
        if !budget.take(Limit::ArchiveEntries, 1) {
            return Some(());
        }
        let (name, encrypted, packed, size) = {
            let file = archive.by_index_raw(place).ok()?;
            (file.name().to_owned(), file.encrypted(), file.compressed_size(), file.size())
        };
        findings.name(&name, true);
        if encrypted {
            findings.add("ARCHIVE_ENCRYPTED", &name);
            continue;
        }
        if name.ends_with("vbaProject.bin") {
            findings.add("ATTACHED_MACRO", &name);
        }
        if size > RATIO_BYTES_MIN && size / packed.max(1) > budget.left(Limit::ArchiveRatio) {
            budget.exceed(Limit::ArchiveRatio);
            continue;
        }
        if budget.left(Limit::ArchiveBytes) == 0 {
            budget.exceed(Limit::ArchiveBytes);
            continue;
        }
        let content = archive.by_index(place).ok().and_then(|file| take_out(file, packed, budget));
        entry(findings, &name, &content?, depth, budget);
    }
    Some(())
}

/// Names only: unpacking solid blocks costs more than a name is worth.
fn seven_zip(findings: &mut Findings, bytes: &[u8], budget: &mut Budget) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    let archive = match sevenz_rust2::Archive::read(&mut cursor, &sevenz_rust2::Password::empty()) {
        Ok(archive) => archive,
        Err(sevenz_rust2::Error::PasswordRequired | sevenz_rust2::Error::MaybeBadPassword(_)) => {
            findings.add("ARCHIVE_ENCRYPTED", "7z");
            return Some(());
        }
        Err(_) => return None,
    };
    for file in &archive.files {
        if !budget.take(Limit::ArchiveEntries, 1) {
            break;
        }
        findings.name(&file.name, true);
    }
    Some(())
}

fn tar(findings: &mut Findings, bytes: &[u8], depth: u64, budget: &mut Budget) -> Option<()> {
    let mut archive = tar::Archive::new(bytes);
    for file in archive.entries().ok()? {
        if !budget.take(Limit::ArchiveEntries, 1) {
            break;
        }
        let file = file.ok()?;
        let name = String::from_utf8_lossy(&file.path_bytes()).into_owned();
        findings.name(&name, true);
        let packed = file.size();
        let content = take_out(file, packed, budget)?;
        entry(findings, &name, &content, depth, budget);
    }
    Some(())
}

fn gzip(findings: &mut Findings, name: &str, bytes: &[u8], depth: u64, budget: &mut Budget) -> Option<()> {
    let inner = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".tgz")).unwrap_or(name);
    findings.name(inner, true);
    budget.take(Limit::ArchiveEntries, 1);
    let content = take_out(flate2::read::MultiGzDecoder::new(bytes), bytes.len() as u64, budget)?;
    match format(&content) {
        // A compressed tar is one archive to people.
        Format::Tar => look(findings, name, &content, depth + 1, budget),
        _ => entry(findings, inner, &content, depth, budget),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn zipped(name: &str, content: &[u8]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap().into_inner()
    }

    fn found(bytes: &[u8]) -> (Vec<&'static str>, Budget) {
        let mut findings = Findings::default();
        let mut budget = Budget::default();
        look(&mut findings, "a.zip", bytes, 0, &mut budget);
        (findings.found.into_iter().map(|(name, _)| name).collect(), budget)
    }

    #[test]
    fn programs_nesting_and_bombs_are_found() {
        let inner = zipped("x.exe", b"MZ");
        assert_eq!(found(&inner).0, ["ARCHIVE_EXECUTABLE"]);
        assert_eq!(found(&zipped("i.zip", &inner)).0, ["ARCHIVE_NESTED", "ARCHIVE_EXECUTABLE"]);
        assert_eq!(found(&zipped("word/vbaProject.bin", b"x")).0, ["ATTACHED_MACRO"]);
        let (_, budget) = found(&zipped("zeros", &vec![0; 4 * 1024 * 1024]));
        assert!(budget.exceeded().any(|row| row.limit == Limit::ArchiveRatio || row.limit == Limit::ArchiveBytes));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn damaged_archives_never_panic(cut in 0usize..200, flips in prop::collection::vec((0usize..200, any::<u8>()), 0..8)) {
            let mut bytes = zipped("a/b.txt", b"hello hello hello");
            for (place, byte) in flips {
                let place = place % bytes.len();
                bytes[place] = byte;
            }
            bytes.truncate(bytes.len().saturating_sub(cut % 40));
            let _ = found(&bytes);
        }
    }
}
