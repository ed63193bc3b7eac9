//! The filter from outside: hostile messages are judged in bounded time, rules load, and what must be caught is caught.

#[path = "filter/attached.rs"]
mod attached;
#[path = "filter/everyday.rs"]
mod everyday;
#[path = "filter/hard.rs"]
mod hard;
#[path = "filter/limits.rs"]
mod limits;
#[path = "filter/parity.rs"]
mod parity;
#[path = "filter/seen.rs"]
mod seen;
mod support;
#[path = "filter/tools.rs"]
mod tools;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use proptest::prelude::*;
use support::config::{head, listener};
use weir::config::Config;
use weir::filter::budget::Budget;
use weir::filter::message::View;
use weir::filter::rules::{Hit, Rules, Severity, Source};
use weir::filter::verdict::Points;
use weir::filter::{Action, Engine, Facts};

/// Longest that one message may take, here in a debug build on a shared machine.
const JUDGE_TIME_MAX: Duration = Duration::from_secs(60);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn engine() -> Engine {
    let mut filter = Config::default_for(Path::new("/nonexistent")).filter;
    filter.rules = vec![root().join("rules")];
    Engine::open(&filter, None).expect("no model is read")
}

/// All messages of the vectors; those ending in `.b64` are wrapped so that scanners leave the tree alone.
fn vectors() -> Vec<(PathBuf, Vec<u8>)> {
    let mut folders = vec![root().join("tests/vectors/mime")];
    let mut messages = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("vectors are there").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("a vector can be read");
                let bytes =
                    if path.extension().is_some_and(|extension| extension == "b64") { unwrap(&bytes) } else { bytes };
                messages.push((path, bytes));
            }
        }
    }
    messages
}

fn unwrap(bytes: &[u8]) -> Vec<u8> {
    let text: String = String::from_utf8_lossy(bytes).lines().filter(|line| !line.starts_with('#')).collect();
    base64::engine::general_purpose::STANDARD.decode(text).expect("the vector is base64")
}

/// Messages that wait together take turns at the rules; what the others are is no matter to any of them.
#[test]
fn judged_together_is_judged_alone() {
    let (engine, facts) = (engine(), Facts::default());
    let messages: Vec<(PathBuf, Vec<u8>)> =
        vectors().into_iter().filter(|(_, bytes)| bytes.len() < 32 * 1024).step_by(3).collect();
    assert!(messages.len() > 50, "{} messages", messages.len());
    let cases: Vec<(&[u8], &Facts)> = messages.iter().map(|(_, bytes)| (&**bytes, &facts)).collect();
    let together = engine.judge_together(&cases);
    assert_eq!(together.len(), messages.len());
    for ((path, bytes), verdict) in messages.iter().zip(together) {
        let alone = engine.judge(bytes, &facts);
        assert_eq!(verdict.symbols, alone.symbols, "{}", path.display());
        assert_eq!((verdict.score, verdict.probability), (alone.score, alone.probability), "{}", path.display());
    }
}

#[test]
fn hostile_messages_are_judged_in_bounded_time() {
    let engine = engine();
    let vectors = vectors();
    assert!(vectors.len() > 40, "the vectors are there");
    for (path, bytes) in vectors.into_iter().filter(|(path, _)| path.to_string_lossy().contains("/made/")) {
        let start = Instant::now();
        let verdict = engine.judge(&bytes, &Facts::default());
        let took = start.elapsed();
        assert!(took < JUDGE_TIME_MAX, "{} took {took:?}", path.display());
        let sum: f64 = verdict.symbols.iter().filter(|symbol| !symbol.shadow).map(|symbol| symbol.points.value()).sum();
        assert!((sum - verdict.score.value()).abs() < 0.0005, "{}: the score is the sum", path.display());
    }
}

#[test]
fn the_test_messages_of_the_trade_are_refused() {
    let engine = engine();
    let mut seen = 0;
    for (path, bytes) in vectors() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.contains("gtube") || name.contains("eicar") {
            let verdict = engine.judge(&bytes, &Facts::default());
            assert_eq!(verdict.action, Action::Reject, "{name}: {}", verdict.summary());
            seen += 1;
        }
    }
    assert!(seen >= 2, "both are among the vectors");
}

#[test]
fn one_binary_filters_out_of_the_box() {
    let mut filter = Config::default_for(Path::new("/nonexistent")).filter;
    let loaded = |filter: &_| Engine::open(filter, None).expect("no model is read").rules_loaded();
    assert_eq!(loaded(&filter), engine().rules_loaded());
    filter.rules_shipped = false;
    assert_eq!(loaded(&filter), 0, "`rules = []` means none");
}

#[test]
fn copies_of_a_letter_are_seen_and_rules_may_ask() {
    let engine = engine();
    let letter = |number: u32| {
        let text = "Your parcel could not be delivered today because the address is not complete. Please open the page below \
            within two days, confirm the street and the house number, and pay the fee for the second delivery.";
        format!(
            "From: Post <a@b.example>\nTo: c{number}@d.example\nSubject: Parcel {number}\n\nNumber {number}. {text}\n"
        )
    };
    let judge =
        |number: u32, came_secs| engine.judge(letter(number).as_bytes(), &Facts { came_secs, ..Facts::default() });
    let verdicts: Vec<_> = (0..12).map(|number| judge(number, Some(1_700_000_000))).collect();
    assert!(!verdicts[1].has("BULK_SEEN_2") && verdicts[2].has("BULK_SEEN_2"));
    assert!(verdicts[11].has("BULK_SEEN_10") && verdicts[11].has("WEIR_BULK"), "{:?}", verdicts[11].symbols);
    assert!(!judge(12, None).has("BULK_SEEN_10"), "a scan leaves no traces and asks for none");
    let days_later = judge(13, Some(1_700_000_000 + 10 * 86_400));
    assert!(!days_later.has("BULK_SEEN_2"), "counts fade");
}

#[test]
fn moves_into_and_out_of_junk_teach() {
    let config = support::config::head("mx.test")
        + &support::config::listener("mx", "mx", "")
        + "[filter.classifier]\njunk_every = \"1s\"\n";
    let weir = support::Weir::start(&config);
    let place = |path: &str| weir.path().join("data/mail/alice@example.org").join(path);
    let moved = |way: &str| weir.log().lines().any(|line| line.contains("a message was moved") && line.contains(way));
    for folder in ["cur", "new", "tmp", ".Junk/cur", ".Junk/new"] {
        fs::create_dir_all(place(folder)).expect("own folder");
    }
    // What is there at the first look teaches nothing, so one after the other is moved in until one is seen.
    let mut count = 0;
    support::wait_for("a lesson of spam", || {
        count += 1;
        let name = format!("{count}.M1.mx");
        fs::write(place("cur").join(&name), format!("Subject: offer {count}\n\nCheap pills\n")).expect("own folder");
        fs::rename(place("cur").join(&name), place(".Junk/cur").join(&name)).expect("own folder");
        moved("into_junk=true").then_some(())
    });
    for number in 1..=count {
        let name = format!("{number}.M1.mx");
        fs::rename(place(".Junk/cur").join(&name), place("cur").join(&name)).expect("own folder");
    }
    support::wait_for("a lesson of ham", || moved("into_junk=false").then_some(()));
}

#[test]
fn a_running_gateway_learns_what_weir_learn_is_told() {
    let listener = listener("mx", "mx", "filter = \"enforce\"");
    let weir = support::Weir::start(&(head("mx.test") + &listener + "[filter.classifier]\nseed = false\n"));
    let file = weir.path().join("offer.eml");
    fs::write(&file, "Subject: offer\n\nCheap pills\n").expect("own folder");
    let learn = |kind: &str| weir.ok(&["learn", kind, &file.display().to_string()]);
    // The gateway had the model in memory: a file written beside it would be lost with its next lesson.
    assert_eq!(learn("spam").trim(), "learned 1 messages; the model knows 0 ham and 1 spam");
    assert_eq!(learn("ham").trim(), "learned 1 messages; the model knows 1 ham and 1 spam");
    let model = weir.path().join("data/classifier.model");
    let model = weir::filter::classifier::file::load(&model).expect("whole").expect("saved at once");
    assert_eq!((model.learned().ham, model.learned().spam), (1, 1));
}

#[test]
fn our_rules_load_and_their_examples_hold() {
    let rules = Rules::load(Source::read(&[root().join("rules")]));
    let problems: Vec<String> =
        rules.problems.iter().chain(&rules.failing_examples()).map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(rules.example_count() > 50);
}

/// Debian's package is the proof that rules of others load; without it there is nothing to prove.
#[test]
fn rules_of_spamassassin_load() {
    let folder = Path::new("/usr/share/spamassassin");
    if !folder.is_dir() {
        eprintln!("skipped: the package spamassassin is not installed");
        return;
    }
    let rules = Rules::load(Source::read(&[folder.to_owned()]));
    let errors: Vec<_> = rules.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    let patterns = errors.iter().filter(|problem| !problem.text.contains("the function")).count();
    assert_eq!(patterns, 0, "every pattern compiles: {errors:?}");
    assert!(rules.loaded() > 2_300, "{} of {} loaded", rules.loaded(), rules.rules.len());
    // Functions that are not known, and those that are known with other arguments only, are all named.
    assert!(errors.len() <= 40, "{errors:?}");
}

/// Kinds of rules with a pattern, or a function.
const KINDS: [&str; 6] = ["header", "body", "rawbody", "full", "uri", "mimeheader"];
/// Functions that ask the network, whatever else they need.
const OF_THE_NETWORK: [&str; 9] = [
    "check_rbl",
    "check_uridnsbl",
    "check_dns_sender",
    "check_razor2",
    "check_pyzor",
    "check_dcc",
    "check_hashbl",
    "short_url",
    "check_uri",
];

/// The rules of all files of the package, those included that need a plugin: by name, the function that each calls.
fn package_rules(folder: &Path) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let (mut patterns, mut functions) = (BTreeSet::new(), BTreeMap::new());
    for file in fs::read_dir(folder).expect("the package is there").flatten().map(|entry| entry.path()) {
        if file.extension().is_none_or(|extension| extension != "cf") {
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&file).expect("the file can be read")).into_owned();
        for line in text.lines().map(str::trim) {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let [kind, name, test, ..] = words.as_slice() else { continue };
            if !KINDS.contains(kind) {
                continue;
            }
            match test.strip_prefix("eval:") {
                Some(call) => functions
                    .insert(name.to_string(), call.split('(').next().unwrap_or(call).to_owned())
                    .map_or((), drop),
                None if !test.starts_with("exists:") => _ = patterns.insert(name.to_string()),
                None => {}
            }
        }
    }
    (patterns, functions)
}

/// How much of the package is in force; each rest is named with its place.
#[test]
fn nearly_all_rules_of_the_package_load() {
    let folder = Path::new("/usr/share/spamassassin");
    let rules = Rules::load(Source::read(&[folder.to_owned()]));
    let void: BTreeSet<&str> = rules
        .problems
        .iter()
        .filter_map(|problem| {
            let (name, text) = problem.text.split_once(": ")?;
            (problem.severity == Severity::Error || text.starts_with("needs the network")).then_some(name)
        })
        .collect();
    let loads = |name: &str| !void.contains(name) && rules.rules.iter().any(|rule| rule.name == name);
    let (patterns, functions) = package_rules(folder);
    let loaded = patterns.iter().filter(|name| loads(name)).count();
    let local: Vec<_> =
        functions.iter().filter(|(_, call)| !OF_THE_NETWORK.iter().any(|name| call.starts_with(name))).collect();
    let (served, unserved): (Vec<&(&String, &String)>, Vec<_>) = local.iter().partition(|(name, _)| loads(name));
    println!("{loaded} of {} patterns, {} of {} functions without network", patterns.len(), served.len(), local.len());
    println!("not: {:?}", patterns.iter().filter(|name| !loads(name)).collect::<Vec<_>>());
    println!("not: {unserved:?}");
    assert!(loaded as f64 >= 0.99 * patterns.len() as f64);
    assert!(served.len() as f64 >= 0.8 * local.len() as f64);
}

/// What is left out because no verdict needs it must not change one.
#[test]
fn rules_that_are_asked_on_demand_hit_as_if_all_were_asked() {
    let foreign = PathBuf::from("/usr/share/spamassassin");
    let sets = [root().join("rules"), foreign].into_iter().filter(|folder| folder.is_dir());
    let rules = Rules::load(Source::read(&sets.collect::<Vec<_>>()));
    let small = |(path, bytes): &(PathBuf, Vec<u8>)| path.to_string_lossy().contains("ma") && bytes.len() < 16 * 1024;
    for (path, bytes) in vectors().into_iter().filter(small).step_by(3) {
        let view = View::read(&bytes);
        let facts = Facts::default();
        let with_points = |hits: Vec<Hit>| -> Vec<(usize, u16)> {
            let hits = hits.into_iter().map(|hit| (hit.rule, hit.count));
            hits.filter(|(rule, _)| rules.rules[*rule].points != Points::default()).collect()
        };
        let (mut some, mut all) = (Budget::default(), Budget::default());
        let asked = with_points(rules.run(&view, &facts, &mut some));
        let every = with_points(rules.run_all(&view, &facts, &mut all));
        // Who asks all of them may run out of steps before who does not.
        if all.exceeded().count() == 0 {
            assert_eq!(asked, every, "{}", path.display());
        }
    }
}

#[test]
fn a_rule_gives_reason_and_place() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    fs::write(
        folder.path().join("a.cf"),
        "body A /needle\\d+/\nscore A 7\ndescribe A A needle\nbody S /hay/\ntflags S shadow\nscore S 50\nmeta M A && !S\n",
    )
    .expect("the rules are written");
    let mut filter = Config::default_for(Path::new("/nonexistent")).filter;
    filter.rules = vec![folder.path().to_owned()];
    let engine = Engine::open(&filter, None).expect("no model is read");
    let verdict = engine.judge(b"Subject: x\n\na needle42 in the hay\n", &Facts::default());
    assert_eq!(verdict.score.value(), 7.0);
    let hit = verdict.symbols.iter().find(|symbol| symbol.name == "A").expect("it hit");
    let evidence = hit.evidence.as_deref().unwrap_or_default();
    assert!(evidence.contains("`needle42`") && evidence.contains("a.cf:1"), "{evidence}");
    assert!(verdict.symbols.iter().any(|symbol| symbol.name == "S" && symbol.shadow));
    fs::write(folder.path().join("a.cf"), "body B /hay/\nscore B 1\n").expect("the rules are written");
    engine.reload(&filter);
    let verdict = engine.judge(b"Subject: x\n\na needle42 in the hay\n", &Facts::default());
    assert!(verdict.has("B") && !verdict.has("A"));
}

/// What must be seen before a rule is asked is counted, and a text may hold more of it than is counted.
#[test]
fn a_rule_that_asks_for_much_of_the_same_hits() {
    let rules = "rawbody MANY /(?:spam.){120}/\nrawbody THREE /spam./\ntflags THREE multiple maxhits=3\n\
        meta FEW (THREE > 2)\nmeta MORE (THREE + MANY > 3)\nrawbody NAMES /(?:(?:names?|surname|age)[: ]+){3}/\n";
    let rules = Rules::load(Source::from_text("a.cf", rules.as_bytes()));
    let hits = |body: &str| -> Vec<String> {
        let message = format!("Subject: x\n\n{body}\n");
        let hits = rules.run(&View::read(message.as_bytes()), &Facts::default(), &mut Budget::default());
        hits.into_iter().map(|hit| format!("{}{}", rules.rules[hit.rule].name, hit.count)).collect()
    };
    assert_eq!(hits(&"spam ".repeat(130)), ["FEW1", "MANY1", "MORE1", "THREE3"]);
    assert_eq!(hits(&"spam.".repeat(100)), ["FEW1", "THREE3"]);
    assert_eq!(hits("spam, spam!"), ["THREE2"]);
    assert_eq!(hits("names: surname: age: "), ["NAMES1"]);
    assert_eq!(hits("names, surnames and no more: "), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_rule_file_loads_without_panic(
        lines in prop::collection::vec(
            ("(body|header|meta|uri|rawbody|score|tflags|if|else|endif|replace_tag|uri_detail|mimeheader)", "[A-C_]{1,3}", "[ -~]{0,40}"),
            0..12,
        ),
    ) {
        let text: String = lines.iter().map(|(word, name, rest)| format!("{word} {name} {rest}\n")).collect();
        let rules = Rules::load(Source::from_text("random.cf", text.as_bytes()));
        rules.failing_examples();
    }

    #[test]
    fn any_pattern_compiles_or_is_refused(pattern in "[a-c\\[\\](){}?*+|\\\\^$.<>=!#,0-9-]{0,24}") {
        let text = format!("body A /{pattern}/\nbody B /(?=x){pattern}/i\n");
        Rules::load(Source::from_text("random.cf", text.as_bytes()));
    }

    #[test]
    fn any_page_is_read(html in "(<[a-z]{1,8}( style=\"[a-z:;0 ]{0,20}\")?>|</[a-z]{1,8}>|[ -~]{0,10}|<!--|-->|&[a-z#0-9]{0,6};){0,40}") {
        let page = weir::filter::message::html::read(&html);
        prop_assert!(page.text.len() + page.hidden.len() <= 8 * html.len() + 64);
    }

    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        weir::filter::message::View::read(&bytes);
    }
}
