//! The subcommands that judge without a gateway, from outside: `weir scan` and `weir eval`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn weir(folder: &Path, arguments: &[&str], input: Option<&str>) -> Output {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(arguments).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = weir.spawn().expect("weir runs");
    child.stdin.take().expect("a pipe").write_all(input.unwrap_or_default().as_bytes()).expect("it reads");
    child.wait_with_output().expect("weir ends")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const HAM: &str = "From: a@b.example\nTo: c@d.example\nDate: Mon, 1 Aug 2022 12:00:00 +0000\nMessage-ID: <1@b.example>\n\
    Subject: minutes\n\nThe minutes of the meeting\n";

#[test]
fn files_folders_mbox_and_standard_input_are_scanned() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path();
    let gtube = ["XJS*C4JDBQADN1.NSBN3", "*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"].concat();
    let spam = format!("Subject: offer\n\n{gtube}\n");
    fs::create_dir_all(path.join("box/cur")).expect("own folder");
    fs::write(path.join("box/cur/1"), HAM).expect("own folder");
    fs::write(path.join("box/cur/2"), &spam).expect("own folder");
    fs::write(path.join("mbox"), format!("From a Mon\n{HAM}\nFrom b Mon\n{spam}\nFrom c Mon\n{HAM}"))
        .expect("own folder");
    let scan = |paths: &[&str], input| weir(path, &[&["scan", "--json"], paths].concat(), input);
    let found = scan(&["box", "mbox", "-"], Some(&spam));
    let lines: Vec<Value> = out(&found).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<(&str, bool)> = lines
        .iter()
        .map(|line| (line["file"].as_str().expect("a path"), line["score"].as_f64().expect("a number") >= 1000.0))
        .collect();
    let due = [
        ("box/cur/1", false),
        ("box/cur/2", true),
        ("mbox#1", false),
        ("mbox#2", true),
        ("mbox#3", false),
        ("-", true),
    ];
    assert_eq!(told, due);
    for line in &lines {
        let symbols = line["symbols"].as_array().expect("a list").iter().filter(|symbol| symbol["shadow"] == false);
        let sum: f64 = symbols.map(|symbol| symbol["points"].as_f64().expect("points")).sum();
        assert!((sum - line["score"].as_f64().expect("a score")).abs() < 0.0005, "{line}");
    }
    assert_eq!(found.status.code(), Some(1), "something is spam");
    assert_eq!(scan(&["box/cur/1"], None).status.code(), Some(0));
    assert_eq!(fs::read_dir(path).expect("own folder").count(), 2, "no side effects");
    let words = weir(path, &["scan", "box/cur/2"], None);
    assert!(out(&words).contains("GTUBE") && out(&words).contains("rules/20_text.cf:"), "{}", out(&words));
}

/// Nothing that stands in a rule file is dropped silently.
#[test]
fn check_names_what_cannot_be_loaded_with_file_line_and_reason() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path();
    let bad = "body A /(/\nbody B eval:unknown()\nscore C x\nfrob 1\nbody GOOD /good/\n";
    fs::write(path.join("bad.cf"), bad).expect("own folder");
    let config = |rules: &str| {
        let listener = "[[listener]]\nname = \"a\"\nrole = \"mx\"\naddress = \"127.0.0.1:0\"\n";
        let text = format!("hostname = \"mx.test\"\ndata_dir = \"data\"\n{listener}[filter]\nrules = [{rules}]\n");
        fs::write(path.join("weir.toml"), text).expect("own folder");
    };
    let check = |more: &[&str]| weir(path, &[&["check", "--config", "weir.toml"], more].concat(), None);
    config("\"bad.cf\"");
    let said = check(&[]);
    assert!(said.status.success(), "the gateway would run: {said:?}");
    for wanted in [
        "bad.cf:1: error: A: unclosed group",
        "bad.cf:2: error: B: the function unknown is not known here",
        "bad.cf:3: error: score: `x` is no number",
        "bad.cf:4: note: `frob` is not a setting of this filter",
        "loaded, 3 errors, 1 notes",
    ] {
        assert!(out(&said).contains(wanted), "{wanted}: {}", out(&said));
    }
    assert_eq!(out(&check(&["--quiet"])).lines().count(), 3, "errors only");
    config("\"built-in\"");
    assert!(out(&check(&["--quiet"])).is_empty(), "all is well");
}

/// An index of `number` messages, a third of them spam, and the messages.
fn index(folder: &Path, name: &str, number: usize) {
    let mut lines = String::new();
    for nth in 0..number {
        let spam = nth % 3 == 0;
        let text = if spam { "cheap pills online, order now" } else { "the minutes of the meeting, with the patch" };
        let file = format!("{name}{nth}.eml");
        fs::write(folder.join(&file), format!("From: u{nth}@h{nth}.example\nSubject: {nth}\n\n{text} {nth}\n"))
            .expect("own folder");
        lines.push_str(&format!("{} {file}\n", if spam { "spam" } else { "ham" }));
    }
    fs::write(folder.join(name), lines).expect("own folder");
}

#[test]
fn eval_judges_then_learns_in_order_and_measures() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path();
    index(path, "index", 300);
    index(path, "later", 30);
    let eval = |more: &[&str]| {
        let output = weir(path, &[&["eval", "index"], more].concat(), None);
        assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
        (out(&output), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (lines, measures) = eval(&[]);
    assert_eq!(lines.lines().count(), 300);
    let first: Vec<&str> = lines.lines().next().expect("a line").split(' ').collect();
    assert_eq!(first, ["spam", "0.000000", "ham"], "an empty model knows nothing and had not learned it yet");
    let last: Vec<&str> = lines.lines().last().expect("a line").split(' ').collect();
    assert!(last[0] == "ham" && last[1].parse::<f64>().expect("a number") < -1.0 && last[2] == "ham", "{last:?}");
    for name in ["(1-ROCA)%", "LAM%", "caught at 0.1 % ham loss %", "caught at no ham loss %", "calibration error"] {
        assert!(measures.contains(name), "{name}: {measures}");
    }
    let line = measures.lines().next().expect("a measure");
    assert!(line.contains(" to ") && line.ends_with(')'), "with an interval: {line}");
    assert_eq!(eval(&["--feedback", "immediate"]).0, lines, "the same twice");
    let (none, _) = eval(&["--feedback", "none"]);
    assert!(none.lines().all(|line| line.split(' ').nth(1) == Some("0.000000")), "nothing is learned");
    let (late, _) = eval(&["--feedback", "delay=250"]);
    let silent = late.lines().take_while(|line| line.split(' ').nth(1) == Some("0.000000")).count();
    assert_eq!(silent, 251, "the first lesson comes 250 messages later");
    let (frozen, measures) = eval(&["--train", "240", "--then", "later"]);
    assert_eq!(frozen.lines().count(), 60 + 30, "those behind the lessons, and the later ones");
    assert!(measures.contains("later, against the ham above"), "{measures}");
    eval(&["--quiet", "--write-seed", "seed.model"]);
    let before = fs::read(path.join("seed.model")).expect("it was written");
    let (known, _) = eval(&["--feedback", "none", "--model", "seed.model"]);
    assert!(known.lines().filter(|line| line.ends_with(" spam")).count() > 90, "what was learned is known");
    assert_eq!(fs::read(path.join("seed.model")).expect("still there"), before, "a model is not written back");
    assert!(!weir(path, &["eval", "index", "--feedback", "soon"], None).status.success());
    fs::write(path.join("wrong"), "spam\n").expect("own folder");
    let wrong = weir(path, &["eval", "wrong"], None);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("line 1 of the index"), "{wrong:?}");
}
