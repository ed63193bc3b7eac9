//! Messages that are hard to read: each is read the same way every time, in time, and as the snapshot says.

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use weir::filter::Facts;
use weir::filter::message::{Body, View};

use super::{engine, root, vectors};

/// Longest that one may take; a debug build on a shared machine takes ten times as long as a release.
const TIME_MAX: Duration = if cfg!(debug_assertions) { Duration::from_secs(20) } else { Duration::from_secs(2) };

/// Structure, URLs, and the symbols that no rule gives: rules change, these should not.
fn picture(raw: &[u8]) -> String {
    let view = View::read(raw);
    let mut text = format!("fields {} text {} hidden {}", view.header.fields.len(), view.text.len(), view.hidden.len());
    for part in &view.parts {
        let kind = match part.body {
            Body::Binary(_) => "binary",
            Body::Html(_) => "html",
            Body::Text(_) => "text",
        };
        let name = part.name.as_deref().unwrap_or("-").escape_debug().to_string();
        let name: String = name.chars().take(60).collect();
        let (content_type, bytes, depth) = (part.content_type.escape_debug(), part.bytes().len(), part.depth);
        write!(text, " | {content_type} {kind} {bytes} depth {depth} {name}").expect("a String takes any write");
    }
    let mut hosts: Vec<String> = view.urls.iter().map(|url| url.host.escape_debug().to_string()).collect();
    hosts.sort();
    hosts.dedup();
    hosts.truncate(8);
    write!(text, " | urls {} {}", view.urls.len(), hosts.join(" ")).expect("a String takes any write");
    text.chars().take(2_000).collect()
}

#[test]
fn hard_messages_are_read_as_the_snapshot_says() {
    let mut messages = vectors();
    messages.retain(|(path, _)| {
        path.extension().is_none_or(|extension| extension != "md" && path.file_name() != Some("SNAPSHOT.txt".as_ref()))
    });
    messages.sort();
    assert!(messages.len() > 400, "{} messages", messages.len());
    let engine = engine();
    let mut lines = String::new();
    let mut slowest = (Duration::ZERO, String::new());
    for (path, raw) in &messages {
        let name = path.strip_prefix(root().join("tests/vectors/mime")).expect("below").display().to_string();
        let began = Instant::now();
        let verdict = engine.judge(raw, &Facts::default());
        let took = began.elapsed();
        assert!(took < TIME_MAX, "{name} took {took:?}");
        slowest = slowest.max((took, name.clone()));
        let symbols = |verdict: &weir::filter::Verdict| -> Vec<String> {
            let names = verdict.symbols.iter().map(|symbol| symbol.name.clone());
            names.filter(|name| name != "LIMIT_TIME").collect()
        };
        assert_eq!(symbols(&verdict), symbols(&engine.judge(raw, &Facts::default())), "{name}: the same again");
        let kept = ["LIMIT_", "ATTACHED_", "ARCHIVE_", "VIRUS_"];
        let mut found = symbols(&verdict);
        found.retain(|name| kept.iter().any(|start| name.starts_with(start)));
        found.sort();
        writeln!(lines, "{name}: {} | {}", picture(raw), found.join(" ")).expect("a String takes any write");
    }
    println!("{} messages, the slowest {} in {:?}", messages.len(), slowest.1, slowest.0);
    let file = root().join("tests/vectors/mime/SNAPSHOT.txt");
    if std::env::var_os("WEIR_SNAPSHOT").is_some() {
        fs::write(&file, &lines).expect("the tree can be written");
    }
    let known = fs::read_to_string(&file).expect("the snapshot is there");
    for (ours, theirs) in lines.lines().zip(known.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(lines.lines().count(), known.lines().count());
}
