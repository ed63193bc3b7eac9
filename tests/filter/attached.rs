//! What is attached, from outside: each kind of file is seen by `weir scan`, and nothing is unpacked to disk.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use serde_json::Value;

use super::limits::{attached, zipped};

fn from_base64(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).expect("it is base64")
}

/// A ZIP whose entries are marked as encrypted in both of their headers (APPNOTE 4.4.4, bit 0).
fn locked(name: &str) -> Vec<u8> {
    let mut bytes = zipped(&[(name.to_owned(), b"secret".to_vec())]);
    for (mark, flags) in [(&b"PK\x03\x04"[..], 6), (b"PK\x01\x02", 8)] {
        let at = bytes.windows(4).position(|window| window == mark).expect("it is a ZIP");
        bytes[at + flags] |= 1;
    }
    bytes
}

fn tarred(name: &str, content: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_cksum();
    builder.append_data(&mut header, name, content).expect("in memory");
    builder.into_inner().expect("in memory")
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(content).expect("in memory");
    packer.finish().expect("in memory")
}

/// An OLE compound document's magic with the name of a stream in its directory.
fn ole(stream: &str) -> Vec<u8> {
    let name = stream.encode_utf16().flat_map(u16::to_le_bytes).chain([0, 0]);
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".iter().copied().chain(name).collect()
}

/// winmail.dat with one file ([MS-OXTNEF]: signature, key, then attributes of level, id, length, data, checksum).
fn tnef(name: &str, content: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x9f, 0x3e, 0x22, 1, 0];
    for (id, data) in [
        (0x0006_9002_u32, vec![0; 14]),
        (0x0001_8010, [name.as_bytes(), b"\0"].concat()),
        (0x0006_800f, content.to_vec()),
    ] {
        out.push(2);
        out.extend(id.to_le_bytes());
        out.extend((data.len() as u32).to_le_bytes());
        out.extend(&data);
        out.extend(data.iter().fold(0u16, |sum, byte| sum.wrapping_add(u16::from(*byte))).to_le_bytes());
    }
    out
}

/// RAR 5: signature, main header, one file whose header may say that it is encrypted, end.
fn rar(name: &str, encrypted: bool) -> Vec<u8> {
    let mut out = b"Rar!\x1a\x07\x01\x00".to_vec();
    let extra: &[u8] = if encrypted { &[2, 1, 0] } else { &[] };
    let file = [&[2, 3, extra.len() as u8, 3, 0, 3, 0, 0, 1, name.len() as u8], name.as_bytes(), extra].concat();
    for (head, data) in [(&[1, 0, 0][..], &b""[..]), (&file, b"xyz"), (&[5, 0, 0], b"")] {
        out.extend([0; 4]);
        out.push(head.len() as u8);
        out.extend(head);
        out.extend(data);
    }
    out
}

/// RAR 4: signature, archive header, one file, end.
fn rar_4(name: &str) -> Vec<u8> {
    let mut out = b"Rar!\x1a\x07\x00\x00\x00\x73\x00\x00\x0d\x00\x00\x00\x00\x00\x00\x00".to_vec();
    out.extend([0, 0, 0x74, 0, 0x80]);
    out.extend((32 + name.len() as u16).to_le_bytes());
    out.extend(3u32.to_le_bytes());
    out.extend([0; 15]);
    out.extend((name.len() as u16).to_le_bytes());
    out.extend([0; 4]);
    out.extend(name.as_bytes());
    out.extend(b"xyz\x00\x00\x7b\x00\x40\x07\x00");
    out
}

/// A cabinet with one file ([MS-CAB] 2.1).
fn cabinet(name: &str) -> Vec<u8> {
    let mut out = b"MSCF".to_vec();
    out.extend([0; 12]);
    out.extend(36u32.to_le_bytes());
    out.extend([0, 0, 0, 0, 3, 1, 1, 0, 1, 0]);
    out.extend([0; 6 + 16]);
    out.extend(name.as_bytes());
    out.push(0);
    out
}

/// Made by 7z: one file behind a password; its header encrypted too; `x.exe` and `in.zip` in the clear.
const SEVEN_ZIPS: [&str; 3] = [
    "N3q8ryccAASIQPi5IAAAAAAAAABiAAAAAAAAACZ2dUM0q4b/sUL/CFMd9cJFonW5Hd+QI9pnMTiAwbfn3YDHmQEEBgABCSAABwsBAAIkBvEHARJTD5Kr1YMPlHav+0wLCoVjggQhIQEAAQAMGhYACAoBgs5UVAAABQEZAQARDQBtAC4AZQBtAGwAAAAUCgEAXy73Azh63QEVBgEAIICkgQAA",
    "N3q8ryccAAQjvvJ5kAAAAAAAAAAuAAAAAAAAAC2rKoy7wv/OZXOCfKjAFmnG/gVHFuNcRAm1oTUMLpKf6E6T4opjWZEP2hj/kvMCU06Pc1Ebnd68sWkPK9KttlGBxrDxnX+iZL9Saj2LPAqeO2UIj/Dn4JfElJylTgoRzFHZj/+hTnGSBfwrmPFep4BgUD6Ghf+1ERYK2G+zDYIGP2lIB+K1VY+miZW7mCVytf3Ud4kXBiABCXAABwsBAAEkBvEHARJTD/HIpCM1sESWQQi069RBIWkMYgoBlX+0EAAA",
    "N3q8ryccAARpuuNEZgAAAAAAAAAgAAAAAAAAAMDqAW0BAANQS01aAAAAgTMHrg/OP8PniCoxHVtcPWSisXIv6jnfrYhA7ynb21Pyl8Kce837JNyGBU3dw+vcngwPStWmsn73kGmcEqkIgUEFqFSQABlaHaAE1Am6+8D64N5Mm6gmxS4AAAAXBggBCV4ABwsBAAEjAwEBBV0AEAAADG4KAanJTeIAAA==",
];

/// `MZ` and a line of text, packed by bzip2, xz and zstd.
const PACKED: [&str; 3] = [
    "QlpoOTFBWSZTWXsdegwAAAHXgAAQQAAAAgAQLihEgCAAIgBoAgGgAOGjLoXnLpd4u5IpwoSD2OvQYA==",
    "/Td6WFoAAATm1rRGAgAhARYAAAB0L+WjAQAPTVogcGFja2VkIHR3aWNlCgCgUSrfeUyH7AABKBDlC2xgH7bzfQEAAAAABFla",
    "KLUv/QRYgQAATVogcGFja2VkIHR3aWNlCvlOWdo=",
];

/// Each kind: the name that it has, what it is, the symbols that are due.
fn kinds() -> Vec<(&'static str, Vec<u8>, &'static [&'static str])> {
    let exe = |archive: Vec<u8>| archive;
    let zip = |name: &str, content: &[u8]| zipped(&[(name.to_owned(), content.to_vec())]);
    vec![
        ("photo.png", b"MZ\x90\0\x03\0\0\0".to_vec(), &["ATTACHED_EXECUTABLE", "ATTACHED_TYPE_LIE"]),
        ("report.pdf", zip("a.txt", b"x"), &["ATTACHED_TYPE_LIE"]),
        ("invoice.scr", b"x".to_vec(), &["ATTACHED_EXECUTABLE", "WEIR_FILE_RUNS"]),
        ("my.invoice.pdf   .exe", b"x".to_vec(), &["ATTACHED_EXECUTABLE", "ATTACHED_DOUBLE_EXTENSION"]),
        ("locked.zip", locked("a.txt"), &["ARCHIVE_ENCRYPTED"]),
        ("outer.zip", zip("inner.zip", &zip("run.exe", b"MZ")), &["ARCHIVE_NESTED", "ARCHIVE_EXECUTABLE"]),
        ("plain.tar", exe(tarred("folder/run.exe", b"MZ")), &["ARCHIVE_EXECUTABLE"]),
        ("packed.tar.gz", gzipped(&tarred("in.zip", &zip("run.js", b"x"))), &["ARCHIVE_NESTED", "ARCHIVE_EXECUTABLE"]),
        ("one.gz", gzipped(b"MZ\x90\0"), &["ARCHIVE_EXECUTABLE"]),
        ("one.bz2", from_base64(PACKED[0]), &["ARCHIVE_EXECUTABLE"]),
        ("photo.png", from_base64(PACKED[1]), &["ARCHIVE_EXECUTABLE", "ATTACHED_TYPE_LIE"]),
        ("one.zst", from_base64(PACKED[2]), &["ARCHIVE_EXECUTABLE"]),
        ("RUN.JS.XZ", from_base64(PACKED[1])[..40].to_vec(), &["ARCHIVE_EXECUTABLE", "ARCHIVE_UNREADABLE"]),
        ("locked.7z", from_base64(SEVEN_ZIPS[0]), &["ARCHIVE_ENCRYPTED"]),
        ("hidden.7z", from_base64(SEVEN_ZIPS[1]), &["ARCHIVE_ENCRYPTED"]),
        ("open.7z", from_base64(SEVEN_ZIPS[2]), &["ARCHIVE_NESTED", "ARCHIVE_EXECUTABLE"]),
        ("five.rar", rar("invoice.pdf.exe", false), &["ARCHIVE_EXECUTABLE"]),
        ("five-locked.rar", rar("letter.txt", true), &["ARCHIVE_ENCRYPTED"]),
        ("four.rar", rar_4("a/my.letter.doc.scr"), &["ARCHIVE_EXECUTABLE", "ATTACHED_DOUBLE_EXTENSION"]),
        ("cut.rar", rar("letter.txt", false)[..20].to_vec(), &["ARCHIVE_UNREADABLE"]),
        ("setup.cab", cabinet("inner.zip"), &["ARCHIVE_NESTED"]),
        ("packed.xz", b"\xfd7zXZ\0rest".to_vec(), &["ARCHIVE_UNREADABLE"]),
        ("old.doc", ole("_VBA_PROJECT"), &["ATTACHED_MACRO"]),
        ("new.docm", zip("word/vbaProject.bin", b"x"), &["ATTACHED_MACRO"]),
        ("sheet.xlsm", zip("xl/macrosheets/sheet1.xml", b"x"), &["ATTACHED_MACRO"]),
        ("locked.docx", ole("EncryptedPackage"), &["ATTACHED_ENCRYPTED"]),
        ("winmail.dat", tnef("invoice.js", b"x"), &["ATTACHED_TNEF", "ATTACHED_EXECUTABLE"]),
        ("winmail.dat", tnef("a.zip", &zip("run.exe", b"MZ")), &["ATTACHED_TNEF", "ARCHIVE_EXECUTABLE"]),
    ]
}

/// What `weir scan` says of a message: names of symbols.
fn scanned(folder: &Path, message: &[u8], more: &[&str]) -> Vec<String> {
    let file = folder.join("message.eml");
    fs::write(&file, message).expect("own folder");
    let mut scan = Command::new(env!("CARGO_BIN_EXE_weir"));
    scan.args(["scan", "--json"]).arg(&file).args(more).current_dir(folder).env("TMPDIR", folder.join("tmp"));
    let out = scan.output().expect("weir runs");
    let said: Value = serde_json::from_slice(&out.stdout).expect("one line of JSON");
    let symbols = said["symbols"].as_array().expect("a list");
    symbols.iter().map(|symbol| symbol["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn each_kind_of_file_is_seen_and_nothing_is_unpacked_to_disk() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    fs::create_dir(folder.path().join("tmp")).expect("own folder");
    for (name, content, due) in kinds() {
        let found = scanned(folder.path(), &attached(name, &content), &[]);
        for symbol in due {
            assert!(found.iter().any(|found| found == symbol), "{name}: {symbol} is not among {found:?}");
        }
    }
    let harmless = scanned(folder.path(), &attached("notes.zip", &zipped(&[("a.txt".to_owned(), b"x".to_vec())])), &[]);
    assert!(!harmless.iter().any(|name| name.starts_with("A") && !name.starts_with("ARC_")), "{harmless:?}");
    let left: Vec<_> =
        fs::read_dir(folder.path()).expect("own folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "the message and an empty folder for temporary files: {left:?}");
    assert_eq!(fs::read_dir(folder.path().join("tmp")).expect("own folder").count(), 0);
}

/// Mail programs decode what a strict reader gives up on, so a stray character or an old way to write a file hides nothing.
#[test]
fn programs_are_seen_however_they_are_encoded() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    fs::create_dir(folder.path().join("tmp")).expect("own folder");
    let head = "From: a@b.example\nTo: c@d.example\nSubject: x\n";
    let base64 = "Content-Type: multipart/mixed; boundary=q\n\n--q\nContent-Type: application/octet-stream\n\
                  Content-Disposition: attachment; filename=data\nContent-Transfer-Encoding: base64\n\nTVqQ-AAMAAAAE!AAAA//8AALgA\n";
    for (text, due) in [
        (base64.to_owned(), "ATTACHED_EXECUTABLE"),
        (format!("{base64}--q--\n"), "ATTACHED_EXECUTABLE"),
        ("\nhello\n\nbegin 644 setup.exe\n\"35H`\n`\nend\n".to_owned(), "ATTACHED_EXECUTABLE"),
        ("\nhello\n\nbegin 644 invoice.pdf.js\n!>```\n`\nend\n".to_owned(), "ATTACHED_DOUBLE_EXTENSION"),
    ] {
        let found = scanned(folder.path(), format!("{head}{text}").as_bytes(), &[]);
        assert!(found.iter().any(|name| name == due), "{text}: {found:?}");
    }
}

/// A user's own lines add to the lists that are built in, take out of them, and come from files of their own.
#[test]
fn lists_are_extended_by_lines_and_files() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    fs::create_dir(folder.path().join("tmp")).expect("own folder");
    fs::write(folder.path().join("extensions.list"), "# ours\nfoo bar\n\nbaz # and this\n").expect("own folder");
    fs::write(folder.path().join("brands.list"), "our_bank ourbank.example\n").expect("own folder");
    let own = "list_file dangerous_extensions extensions.list\nlist_file brand brands.list\nbrand our_bank ourbank.test\n\
               delist dangerous_extensions scr\nenlist_uri_host (SHORTENER) sh.example\ndelist enlist_uri_host (SHORTENER) bit.ly\ndelist brand dropbox\n";
    let rules = folder.path().join("own.cf");
    fs::write(&rules, own).expect("own folder");
    let rules = ["--rules", "built-in", "--rules", rules.to_str().expect("UTF-8")];
    let scanned = |message: &[u8], with: &[&str], name: &str| {
        scanned(folder.path(), message, with).iter().any(|found| found == name)
    };
    for (name, before, after) in
        [("a.foo", false, true), ("a.BAZ", false, true), ("a.scr", true, false), ("a.exe", true, true)]
    {
        let message = attached(name, b"x");
        assert_eq!(scanned(&message, &[], "ATTACHED_EXECUTABLE"), before, "{name}");
        assert_eq!(scanned(&message, &rules, "ATTACHED_EXECUTABLE"), after, "{name}");
        assert_eq!(scanned(&message, &rules, "WEIR_FILE_RUNS"), after, "{name}");
    }
    let from = |name: &str, host: &str| format!("From: {name} <a@{host}>\nSubject: x\n\nhello\n").into_bytes();
    for (name, host, before, after) in [
        ("Our Bank", "evil.example", false, true),
        ("Our-Bank", "ourbank.example", false, false),
        ("OurBank", "mail.ourbank.test", false, false),
        ("PayPal", "evil.example", true, true),
        ("Dropbox", "evil.example", true, false),
    ] {
        let message = from(name, host);
        assert_eq!(scanned(&message, &[], "WEIR_BRAND_FORGED"), before, "{name} {host}");
        assert_eq!(scanned(&message, &rules, "WEIR_BRAND_FORGED"), after, "{name} {host}");
    }
    let page = |host: &str| format!("Content-Type: text/html\n\n<a href='https://{host}/x'>x</a>\n").into_bytes();
    for (host, before, after) in [("bit.ly", true, false), ("sh.example", false, true), ("t.co", true, true)] {
        assert_eq!(scanned(&page(host), &[], "WEIR_SHORT_PAGE"), before, "{host}");
        assert_eq!(scanned(&page(host), &rules, "WEIR_SHORT_PAGE"), after, "{host}");
    }
}

#[test]
fn a_list_file_that_is_missing_or_no_list_is_a_problem_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let rules = folder.path().join("own.cf");
    fs::write(&rules, "# a\nlist_file freemail_domains none.list\nlist_file score a.list\ndelist body x\n")
        .expect("own folder");
    let out =
        Command::new(env!("CARGO_BIN_EXE_weir")).args(["rules", "check"]).arg(&rules).output().expect("weir runs");
    let said = [out.stdout, out.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    for wanted in
        ["own.cf:2: error: list_file: ", "own.cf:3: error: list_file: `score` is no list", "own.cf:4: error: delist: "]
    {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    assert!(!out.status.success());
}
