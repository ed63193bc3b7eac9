//! Archives listed in memory: names, encryption, what is nested, macros. Pure. ZIP, 7z, tar, RAR, cabinets, and single files that are
//! [packed](super::packed).
//!
//! Entry counts, depth, bytes taken out and their ratio to what was packed are bounded by the message's budget.

use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::format::{Format, format};
use super::listing::{self, Listing};
use super::{Findings, compound, extension, open_tnef, packed};
use crate::filter::budget::{Budget, Limit};

/// Bytes taken out of one entry: the front is enough to know what it is, a nested archive needs all of itself.
const ENTRY_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Smaller entries may be packed as tightly as they like.
const RATIO_BYTES_MIN: u64 = 1024 * 1024;

/// Extensions of archives, for listings without content; those of single files that are packed come to them.
const ARCHIVES: [&str; 6] = ["7z", "ace", "cab", "rar", "tar", "zip"];

/// Looks into an archive.
pub fn look(findings: &mut Findings<'_>, name: &str, bytes: &[u8], depth: u64, budget: &mut Budget) {
    if depth >= budget.left(Limit::ArchiveDepth) {
        budget.exceed(Limit::ArchiveDepth);
        return;
    }
    // The readers are not ours; one that trips costs this archive its listing and nobody else anything.
    let kind = format(bytes);
    let read = catch_unwind(AssertUnwindSafe(|| match kind {
        Format::Zip => zip(findings, bytes, depth, budget),
        Format::SevenZip => seven_zip(findings, bytes, budget),
        Format::Tar => tar(findings, bytes, depth, budget),
        Format::Bzip2 | Format::Gzip | Format::Xz | Format::Zstd => single(findings, name, kind, bytes, depth, budget),
        Format::Rar => listed(findings, "rar", listing::rar(bytes, names_left(budget)), budget),
        Format::Cabinet => listed(findings, "cab", listing::cabinet(bytes, names_left(budget)), budget),
        _ => Some(()),
    }));
    if !matches!(read, Ok(Some(()))) {
        findings.add("ARCHIVE_UNREADABLE", name);
    }
}

/// What stands in an archive: its name counts, and its content if it is an archive or program itself.
fn entry(findings: &mut Findings<'_>, name: &str, content: &[u8], depth: u64, budget: &mut Budget) {
    match format(content) {
        Format::Executable => findings.add("ARCHIVE_EXECUTABLE", name),
        Format::Image => findings.add("ATTACHED_IMAGE", name),
        Format::Ole => compound(findings, name, content),
        Format::Tnef => open_tnef(findings, name, content, depth + 1, budget),
        archive if archive.is_archive() => {
            findings.add("ARCHIVE_NESTED", name);
            look(findings, name, content, depth + 1, budget);
        }
        _ => {}
    }
}

/// True if one more entry may be looked at.
fn next_entry(budget: &mut Budget) -> bool {
    budget.take(Limit::ArchiveEntries, 1) && !budget.is_late()
}

fn take_out(reader: impl Read, packed: u64, budget: &mut Budget) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let read = reader.take(entry_bytes(budget)).read_to_end(&mut content);
    count(content.len() as u64, packed, budget);
    read.ok().map(|_| content)
}

/// Bytes that may be taken out of the next entry.
fn entry_bytes(budget: &Budget) -> u64 {
    ENTRY_BYTES_MAX.min(budget.left(Limit::ArchiveBytes))
}

/// Counts what was taken out of so many packed bytes.
fn count(bytes: u64, packed: u64, budget: &mut Budget) {
    budget.take(Limit::ArchiveBytes, bytes);
    if bytes >= RATIO_BYTES_MIN && bytes / packed.max(1) > budget.left(Limit::ArchiveRatio) {
        budget.exceed(Limit::ArchiveRatio);
    }
}

fn zip(findings: &mut Findings<'_>, bytes: &[u8], depth: u64, budget: &mut Budget) -> Option<()> {
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).ok()?;
    let mut whole = true;
    for place in 0..archive.len() {
        if !next_entry(budget) {
            break;
        }
        let read = archive.by_index_raw(place);
        let facts = read.map(|file| (file.name().to_owned(), file.encrypted(), file.compressed_size(), file.size()));
        // One that is damaged, or packed in a way that is not known, does not hide those behind it.
        let Ok((name, encrypted, packed, size)) = facts else {
            whole = false;
            continue;
        };
        findings.name(&name, true);
        if encrypted {
            findings.add("ARCHIVE_ENCRYPTED", &name);
            continue;
        }
        // Sheets of macros are how Excel had them before Visual Basic.
        if name.ends_with("vbaProject.bin") || name.contains("macrosheets/") {
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
        match archive.by_index(place).ok().and_then(|file| take_out(file, packed, budget)) {
            Some(content) => entry(findings, &name, &content, depth, budget),
            None => whole = false,
        }
    }
    whole.then_some(())
}

/// Names only: unpacking solid blocks costs more than a name is worth.
fn seven_zip(findings: &mut Findings<'_>, bytes: &[u8], budget: &mut Budget) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    let archive = match sevenz_rust2::Archive::read(&mut cursor, &sevenz_rust2::Password::empty()) {
        Ok(archive) => archive,
        Err(sevenz_rust2::Error::PasswordRequired | sevenz_rust2::Error::MaybeBadPassword(_)) => {
            findings.add("ARCHIVE_ENCRYPTED", "7z");
            return Some(());
        }
        // An encrypted header is packed by a method that the reader was built without.
        Err(sevenz_rust2::Error::UnsupportedCompressionMethod(method)) if method.contains("AES") => {
            findings.add("ARCHIVE_ENCRYPTED", "7z");
            return Some(());
        }
        Err(_) => return None,
    };
    let coders = archive.blocks.iter().flat_map(|block| &block.coders);
    let aes = sevenz_rust2::EncoderMethod::ID_AES256_SHA256;
    if coders.into_iter().any(|coder| coder.encoder_method_id() == aes) {
        findings.add("ARCHIVE_ENCRYPTED", "7z");
    }
    for file in &archive.files {
        if !next_entry(budget) {
            break;
        }
        entry_unseen(findings, &file.name);
    }
    Some(())
}

/// What is known of a file by its name alone.
fn entry_unseen(findings: &mut Findings<'_>, name: &str) {
    findings.name(name, true);
    let extension = extension(name);
    if ARCHIVES.contains(&extension.as_str()) || packed::EXTENSIONS.contains(&extension.as_str()) {
        findings.add("ARCHIVE_NESTED", name);
    }
}

/// One more than there may be, so that too many are seen as such.
fn names_left(budget: &Budget) -> usize {
    budget.left(Limit::ArchiveEntries) as usize + 1
}

/// Names only, as of 7z.
fn listed(findings: &mut Findings<'_>, kind: &str, listing: Listing, budget: &mut Budget) -> Option<()> {
    if listing.encrypted {
        findings.add("ARCHIVE_ENCRYPTED", listing.names.first().map_or(kind, String::as_str));
    }
    for name in &listing.names {
        if !next_entry(budget) {
            return Some(());
        }
        entry_unseen(findings, name);
    }
    listing.whole.then_some(())
}

fn tar(findings: &mut Findings<'_>, bytes: &[u8], depth: u64, budget: &mut Budget) -> Option<()> {
    let mut archive = tar::Archive::new(bytes);
    for file in archive.entries().ok()? {
        if !next_entry(budget) {
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

/// A single file that is packed. What can be read of a damaged one counts: some programs open it all the same.
fn single(
    findings: &mut Findings<'_>,
    name: &str,
    kind: Format,
    bytes: &[u8],
    depth: u64,
    budget: &mut Budget,
) -> Option<()> {
    let inner = packed::inner_name(name);
    findings.name(inner, true);
    if !next_entry(budget) {
        return Some(());
    }
    let (content, whole) = packed::unpack(kind, bytes, entry_bytes(budget), budget);
    count(content.len() as u64, bytes.len() as u64, budget);
    match format(&content) {
        // A compressed tar is one archive to people.
        Format::Tar => look(findings, name, &content, depth + 1, budget),
        _ => entry(findings, inner, &content, depth, budget),
    }
    whole.then_some(())
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::tests::extensions;
    use super::*;

    /// A ZIP with one file.
    pub fn zipped(name: &str, content: &[u8]) -> Vec<u8> {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
        writer.finish().unwrap().into_inner()
    }

    fn found(bytes: &[u8]) -> (Vec<&'static str>, Budget) {
        let extensions = extensions();
        let mut findings = Findings::new(&extensions);
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

    #[test]
    fn what_cannot_be_unpacked_hides_nothing_behind_it() {
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in [("a.txt", &b"harmless"[..]), ("b.txt", b"MZ"), ("run.js", b"x")] {
            writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(content).unwrap();
        }
        let mut bytes = writer.finish().unwrap().into_inner();
        // The first is said to be packed as PPMd (APPNOTE.TXT §4.4.5), in its own header and in the directory.
        let directory = memchr::memmem::find(&bytes, b"PK\x01\x02").unwrap();
        for method in [8, directory + 10] {
            bytes[method] = 98;
        }
        assert_eq!(found(&bytes).0, ["ARCHIVE_EXECUTABLE", "ARCHIVE_UNREADABLE"]);
    }

    /// Made by 7z: one file behind a password; the same with its header encrypted; `x.exe` and `in.zip` in the clear.
    const SEVEN_ZIPS: [&str; 3] = [
        "N3q8ryccAASIQPi5IAAAAAAAAABiAAAAAAAAACZ2dUM0q4b/sUL/CFMd9cJFonW5Hd+QI9pnMTiAwbfn3YDHmQEEBgABCSAABwsBAAIkBvEHARJTD5Kr1YMPlHav+0wLCoVjggQhIQEAAQAMGhYACAoBgs5UVAAABQEZAQARDQBtAC4AZQBtAGwAAAAUCgEAXy73Azh63QEVBgEAIICkgQAA",
        "N3q8ryccAAQjvvJ5kAAAAAAAAAAuAAAAAAAAAC2rKoy7wv/OZXOCfKjAFmnG/gVHFuNcRAm1oTUMLpKf6E6T4opjWZEP2hj/kvMCU06Pc1Ebnd68sWkPK9KttlGBxrDxnX+iZL9Saj2LPAqeO2UIj/Dn4JfElJylTgoRzFHZj/+hTnGSBfwrmPFep4BgUD6Ghf+1ERYK2G+zDYIGP2lIB+K1VY+miZW7mCVytf3Ud4kXBiABCXAABwsBAAEkBvEHARJTD/HIpCM1sESWQQi069RBIWkMYgoBlX+0EAAA",
        "N3q8ryccAARpuuNEZgAAAAAAAAAgAAAAAAAAAMDqAW0BAANQS01aAAAAgTMHrg/OP8PniCoxHVtcPWSisXIv6jnfrYhA7ynb21Pyl8Kce837JNyGBU3dw+vcngwPStWmsn73kGmcEqkIgUEFqFSQABlaHaAE1Am6+8D64N5Mm6gmxS4AAAAXBggBCV4ABwsBAAEjAwEBBV0AEAAADG4KAanJTeIAAA==",
    ];

    #[test]
    fn seven_zip_is_listed_and_its_encryption_seen() {
        use base64::prelude::{BASE64_STANDARD, Engine};
        let found = SEVEN_ZIPS.map(|text| found(&BASE64_STANDARD.decode(text).unwrap()).0);
        assert_eq!(found[0], ["ARCHIVE_ENCRYPTED"]);
        assert_eq!(found[1], ["ARCHIVE_ENCRYPTED"]);
        assert_eq!(found[2], ["ARCHIVE_NESTED", "ARCHIVE_EXECUTABLE"]);
    }

    #[test]
    fn tar_and_gzip_are_looked_through() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        header.set_cksum();
        builder.append_data(&mut header, "folder/run.exe", &b"MZ"[..]).unwrap();
        let tar = builder.into_inner().unwrap();
        assert_eq!(found(&tar).0, ["ARCHIVE_EXECUTABLE"]);
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&tar).unwrap();
        assert_eq!(found(&packer.finish().unwrap()).0, ["ARCHIVE_EXECUTABLE"]);
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
