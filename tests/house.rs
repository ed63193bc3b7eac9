//! The house keeps its plan: who may import whom, what a module says of itself, and that pure files have no clock, sleep or socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Rooms that each room may name. `flow`, `cli` and `admin`'s callers stand last and may name all.
fn plan() -> BTreeMap<&'static str, Vec<&'static str>> {
    let words = ["base", "wire", "config"];
    let stage = |more: &[&'static str]| words.iter().chain(more).copied().collect::<Vec<_>>();
    BTreeMap::from([
        ("base", vec![]),
        ("wire", vec!["base"]),
        ("config", vec!["base", "wire"]),
        ("observe", stage(&[])),
        ("dns", stage(&[])),
        ("front", stage(&[])),
        ("smtp", stage(&[])),
        ("policy", stage(&[])),
        ("verify", stage(&["dns"])),
        ("filter", stage(&[])),
        ("services", stage(&[])),
        ("spool", stage(&[])),
        ("store", stage(&[])),
        // It drives the client half of smtp, leases from the spool, and resolves.
        ("deliver", stage(&["smtp", "spool", "dns"])),
        ("admin", stage(&["observe"])),
    ])
}

/// What a file that calls itself pure may not say outside its tests.
const IMPURE: [&str; 10] = [
    "SystemTime::now",
    "Instant::now",
    "now_secs",
    "thread::sleep",
    "time::sleep",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::fs::",
    "tokio::net",
];

fn files(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under).expect("a source folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The file without its comments and without its tests, which may say what they like.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn header(text: &str) -> String {
    text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_stage_never_imports_another() {
    let plan = plan();
    let mut broken = Vec::new();
    for file in files(&source()) {
        let relative = file.strip_prefix(source()).expect("below src").to_owned();
        let room = relative.components().next().expect("a file").as_os_str().to_string_lossy().into_owned();
        let Some(allowed) = plan.get(room.as_str()) else { continue };
        let text = code(&std::fs::read_to_string(&file).expect("source is UTF-8"));
        for (at, _) in text.match_indices("crate::") {
            let word: String = text[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let is_room = plan.contains_key(word.as_str()) || word == "flow" || word == "cli";
            if is_room && word != room && !allowed.contains(&word.as_str()) {
                broken.push(format!("{} imports {word}", relative.display()));
            }
        }
    }
    assert!(broken.is_empty(), "the plan in tests/house.rs does not allow:\n{}", broken.join("\n"));
}

#[test]
fn every_module_says_what_it_is_and_whether_it_waits() {
    let mut silent = Vec::new();
    for file in files(&source()) {
        let text = std::fs::read_to_string(&file).expect("source is UTF-8");
        let header = header(&text);
        let name = file.strip_prefix(source()).expect("below src").to_owned();
        let is_map = name == Path::new("lib.rs") || name == Path::new("main.rs");
        if header.is_empty() || !(is_map || header.contains("Pure") || header.contains("I/O")) {
            silent.push(name.display().to_string());
        }
    }
    assert!(silent.is_empty(), "no header with `Pure` or `I/O: …` in:\n{}", silent.join("\n"));
}

#[test]
fn pure_files_have_no_clock_no_sleep_and_no_socket() {
    let mut broken = Vec::new();
    for file in files(&source()) {
        let text = std::fs::read_to_string(&file).expect("source is UTF-8");
        let header = header(&text);
        if !header.contains("Pure") || header.contains("I/O:") {
            continue;
        }
        let code = code(&text);
        for word in IMPURE.iter().filter(|word| code.contains(**word)) {
            broken.push(format!("{} says {word}", file.strip_prefix(source()).expect("below src").display()));
        }
    }
    assert!(broken.is_empty(), "these files call themselves pure:\n{}", broken.join("\n"));
}

#[test]
fn only_one_module_may_be_unsafe_and_no_process_is_started() {
    let mut broken = Vec::new();
    for file in files(&source()) {
        let name = file.strip_prefix(source()).expect("below src").display().to_string();
        let code = code(&std::fs::read_to_string(&file).expect("source is UTF-8"));
        if name != "base/sys.rs" && (code.contains("unsafe {") || code.contains("allow(unsafe_code)")) {
            broken.push(format!("{name} is unsafe"));
        }
        if ["process::Command", "Command::new(", "CommandExt", "execve(", "fork("]
            .iter()
            .any(|word| code.contains(word))
        {
            broken.push(format!("{name} starts a process"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

// opendkim-tools was only recommended by opendkim, so tests/run failed on a fresh machine.
#[test]
fn tests_run_installs_every_package_that_a_peer_needs() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let text = |path: &Path| std::fs::read_to_string(path).expect("a script is UTF-8");
    let run = text(&tests.join("run"));
    let list = run.split_once("PACKAGES=(").and_then(|(_, rest)| rest.split_once(')')).expect("a list").0;
    let installed: Vec<&str> = list.split_whitespace().collect();
    let mut missing = Vec::new();
    let scripts =
        std::fs::read_dir(tests.join("peers")).expect("a folder").map(|entry| entry.expect("an entry").path());
    for script in scripts.filter(|path| path.extension().is_some_and(|e| e == "sh")) {
        for command in text(&script).split([';', '\n']) {
            let words: Vec<&str> = command.split_whitespace().collect();
            if let ["need", _, package] = words[..]
                && !installed.contains(&package)
            {
                missing.push(format!("{}: {package}", script.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
