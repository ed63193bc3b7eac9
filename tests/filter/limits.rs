//! Each limit of the filter's table: what is over it gets its symbol and is counted, and README tells it.

use std::fs;
use std::io::Write;
use std::process::Command;

use base64::Engine as _;
use prometheus::Registry;
use weir::config::Config;
use weir::filter::budget::LIMITS;
use weir::filter::meters::Meters;
use weir::filter::{Engine, Facts};

use super::{engine, root};

pub fn attached(name: &str, content: &[u8]) -> Vec<u8> {
    let text = base64::engine::general_purpose::STANDARD.encode(content);
    let head = format!(
        "From: a@b.example\nMIME-Version: 1.0\nContent-Type: application/octet-stream; name=\"{name}\"\nContent-Transfer-Encoding: base64\n\n"
    );
    let lines: Vec<&[u8]> = text.as_bytes().chunks(76).collect();
    [head.as_bytes(), &lines.join(&b'\n'), b"\n"].concat()
}

pub fn zipped(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(name.as_str(), zip::write::SimpleFileOptions::default()).expect("in memory");
        writer.write_all(content).expect("in memory");
    }
    writer.finish().expect("in memory").into_inner()
}

/// Bytes that deflate shrinks a little only.
fn noise(bytes: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(7);
    (0..bytes).map(|_| rng.alphanumeric() as u8).collect()
}

/// A message over the limit of this symbol; nothing for those that need a slow machine, or DNS (tests/identity/hostile.rs).
fn over(symbol: &str) -> Option<Vec<u8>> {
    let html =
        |body: &str| format!("From: a@b.example\nMIME-Version: 1.0\nContent-Type: text/html\n\n{body}").into_bytes();
    let plain = |body: &str| format!("From: a@b.example\n\n{body}\n").into_bytes();
    let mixed = |parts: String| {
        format!("From: a@b.example\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n")
            .into_bytes()
    };
    Some(match symbol {
        "LIMIT_ARCHIVE_BYTES" => {
            let files: Vec<_> = (0..5).map(|number| (format!("{number}.txt"), noise(2 << 20))).collect();
            return Some(attached("a.zip", &zipped(&files)));
        }
        "LIMIT_ARCHIVE_DEPTH" => {
            let mut inner = zipped(&[("a.txt".to_owned(), b"x".to_vec())]);
            for depth in 0..5 {
                inner = zipped(&[(format!("{depth}.zip"), inner)]);
            }
            attached("a.zip", &inner)
        }
        "LIMIT_ARCHIVE_ENTRIES" => {
            let files: Vec<_> = (0..1_100).map(|number| (format!("{number}.txt"), Vec::new())).collect();
            attached("a.zip", &zipped(&files))
        }
        "LIMIT_ARCHIVE_RATIO" => attached("a.zip", &zipped(&[("zeros".to_owned(), vec![0; 4 << 20])])),
        "LIMIT_HEADER_BYTES" => format!("From: a@b.example\nX-Long: {}\n\nx\n", "y".repeat(300 << 10)).into_bytes(),
        "LIMIT_HEADER_FIELDS" => format!("From: a@b.example\n{}\nx\n", "X-A: b\n".repeat(1_100)).into_bytes(),
        "LIMIT_NESTING" => "Content-Type: message/rfc822\n\n".repeat(1_000).into_bytes(),
        "LIMIT_PARTS" => mixed("--b\nContent-Type: text/plain\n\nx\n".repeat(1_200)),
        "LIMIT_REGEX_STEPS" => plain(&"a".repeat(60_000)),
        "LIMIT_SCAN_BYTES" => plain(&"word and word\n".repeat(700 << 10)),
        "LIMIT_TEXT_BYTES" => plain(&"word and word\n".repeat(30 << 10)),
        "LIMIT_URLS" => {
            let links: String = (0..600).map(|number| format!("<a href='http://h{number}.example/'>x</a> ")).collect();
            html(&links)
        }
        "LIMIT_PARSER_FAULTS" => {
            fs::read(root().join("tests/vectors/mime").join(PARSER_FAULT)).expect("the vector is there")
        }
        "LIMIT_DNS_QUERIES" | "LIMIT_TIME" => return None,
        other => panic!("{other} is a limit without a test"),
    })
}

/// The message of the vectors that mail-parser panics on.
const PARSER_FAULT: &str = "made/boundary-empty.eml";
/// A pattern that backtracks without end on a long word.
const SLOW_RULE: &str = "body SLOW /(?=(a+)+$)(?:a|aa)+(?!a)b\\1/\nscore SLOW 1\n";

#[test]
fn what_is_over_a_limit_gets_its_symbol_and_is_counted() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let slow = folder.path().join("slow.cf");
    fs::write(&slow, SLOW_RULE).expect("own folder");
    for row in &LIMITS {
        let Some(raw) = over(row.symbol) else { continue };
        let file = folder.path().join(format!("{}.eml", row.symbol));
        fs::write(&file, &raw).expect("own folder");
        let mut scan = Command::new(env!("CARGO_BIN_EXE_weir"));
        scan.args(["scan", "--json"]).arg(&file).current_dir(folder.path());
        if row.symbol == "LIMIT_REGEX_STEPS" {
            scan.arg("--rules").arg(&slow);
        }
        let out = scan.output().expect("weir runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(text.contains(row.symbol), "{}: {text} {}", row.symbol, String::from_utf8_lossy(&out.stderr));
        assert!(!String::from_utf8_lossy(&out.stderr).contains("panicked"), "no trace of a parser's panic");
    }
    let registry = Registry::new();
    let meters = Meters::register(&registry).expect("names are free");
    let verdict = engine().judge(&over("LIMIT_URLS").expect("there is one"), &Facts::default());
    meters.count(&verdict, 0.1);
    assert_eq!(meters.over_limit.with_label_values(&["LIMIT_URLS"]).get(), 1);
}

#[test]
fn every_limit_is_in_the_published_table() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README is there");
    for row in &LIMITS {
        let line = format!("| `{}` | {} |", row.symbol, row.default);
        assert!(readme.contains(&line), "README's table lacks: {line}");
    }
}

/// Rules of the test below: more than are worked out between two looks at the clock.
const WORDS: usize = 160;

/// Looks at the clocks below so far.
fn looks() -> u64 {
    use std::cell::Cell;
    thread_local!(static LOOKS: Cell<u64> = const { Cell::new(0) });
    LOOKS.with(|looks| looks.replace(looks.get() + 1))
}

/// A clock on which a minute passes between two looks.
fn a_minute_each() -> u64 {
    looks() * 60_000
}

/// One on which less passes: short messages are judged in a few looks, within their time.
fn a_moment_each() -> u64 {
    looks() * 400
}

/// One that stands still for three looks, and then is far ahead.
fn late_at_the_fourth_look() -> u64 {
    use std::cell::Cell;
    thread_local!(static LOOKS: Cell<u64> = const { Cell::new(0) });
    if LOOKS.with(|looks| looks.replace(looks.get() + 1)) > 3 { 60_000 } else { 0 }
}

/// When the time is up, no further rule is worked out: neither what would be seen nor what would be missed counts, no archive is opened,
/// and the message is marked for it.
#[test]
fn time_that_is_up_stops_all_further_work() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let many: String =
        (0..WORDS).map(|number| format!("body W_{number} /word{number} and/\nscore W_{number} 1\n")).collect();
    let nice = "body N_GOOD /word/\nscore N_GOOD -50\ntflags N_GOOD nice\nbody __SEEN /word3 and/\nmeta M_MISSED !__SEEN\nscore M_MISSED 3\n";
    fs::write(folder.path().join("a.cf"), many + nice).expect("own folder");
    let mut filter = Config::default_for(std::path::Path::new("/nonexistent")).filter;
    filter.rules = vec![folder.path().to_owned()];
    let engine = Engine::open(&filter, None).expect("no model is read");
    let text: String = (0..WORDS).map(|number| format!("word{number} and\n")).collect();
    let zip = zipped(&[("run.exe".to_owned(), b"MZ".to_vec())]);
    let attached = String::from_utf8(attached("a.zip", &zip)).expect("ASCII");
    let (_, part) = attached.split_once("MIME-Version: 1.0\n").expect("a part");
    let mail = format!(
        "From: a@b.example\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n{text}\n--b\n{part}\n--b--\n"
    );
    let counted = |clock: weir::filter::budget::Clock| {
        let verdict = engine.judge_timed(mail.as_bytes(), &Facts::default(), clock);
        let hits = verdict.symbols.iter().filter(|symbol| symbol.name.starts_with("W_")).count();
        (hits, verdict)
    };
    let (hits, verdict) = counted(|| 0);
    assert_eq!(hits, WORDS);
    assert!(verdict.has("N_GOOD") && verdict.has("ARCHIVE_EXECUTABLE") && !verdict.has("LIMIT_TIME"));
    let (hits, verdict) = counted(a_minute_each);
    assert_eq!(hits, 0, "{:?}", verdict.symbols);
    for unseen in ["N_GOOD", "M_MISSED", "ARCHIVE_EXECUTABLE"] {
        assert!(!verdict.has(unseen), "{unseen}");
    }
    assert!(verdict.has("LIMIT_TIME") && verdict.is_spam(), "no free pass: {}", verdict.summary());
    let (hits, partly) = counted(late_at_the_fourth_look);
    assert!((1..WORDS).contains(&hits) && partly.has("LIMIT_TIME"), "what was worked out by then counts: {hits}");
    // All of them together come over the limit; alone, only the one with many words does.
    let (short, facts) = (b"Subject: short\n\nshort\n".as_slice(), Facts::default());
    let cases = [short, mail.as_bytes(), short, short, short].map(|content| (content, &facts));
    let together = engine.judge_together_timed(&cases, a_moment_each);
    let late: Vec<bool> = together.iter().map(|verdict| verdict.has("LIMIT_TIME")).collect();
    assert_eq!(late, [false, true, false, false, false], "each has its own time");
    let registry = Registry::new();
    let meters = Meters::register(&registry).expect("names are free");
    meters.count(&verdict, 0.1);
    assert_eq!(meters.over_limit.with_label_values(&["LIMIT_TIME"]).get(), 1);
}
