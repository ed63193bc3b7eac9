//! The configuration from outside: what loads, what it means, and what each wrong file is told.

#![allow(clippy::unwrap_used)] // helpers of tests may fail a test

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir::config::Config;
use weir::config::settings::*;
use weir::front::service::Refusal;
use weir::smtp::server::counters::Limit;

fn parse(text: &str) -> Config {
    Config::parse(Path::new("weir.toml"), text).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn no_file_listens_on_loopback_with_the_embedded_store() {
    let config = Config::default_for(Path::new("/data"));
    assert!(!config.listeners.is_empty());
    assert!(config.listeners.iter().all(|listener| listener.address.ip().is_loopback()));
    assert_eq!(config.domains[0].deliver_to, NextHop::Store);
    assert_eq!(config.spool.directory, Path::new("/data/spool"));
    assert_eq!(config.auth.users_file, Path::new("/data/users.toml"));
    assert!(config.admin.address.is_some_and(|address| address.ip().is_loopback()));
}

#[test]
fn every_kind_of_key_is_understood() {
    let config = parse(
        r#"
        hostname = "MX1.example.org"
        data_dir = "data"
        [limits]
        recipients = 500
        [[listener]]
        address = "0.0.0.0:25"
        role = "mx"
        size = "10 MiB"
        proxy_protocol = ["10.0.0.1"]
        verify = "tag"
        [[listener]]
        name = "out"
        address = "[::]:587"
        role = "submission"
        [[domain]]
        name = "Bücher.example"
        deliver_to = "lmtp+unix:/run/lmtp"
        recipients = { list = ["Alice", "bob@xn--bcher-kva.example"] }
        [relay]
        networks = ["10.0.0.0/8", "2001:db8::/32"]
        smarthost = "smtp://user:p%40ss@smart.example.org:587?tls=required"
        [auth]
        users = { file = "users.toml" }
        [[rate]]
        key = ["login", "ip"]
        count = "recipients"
        limit = "200/1h, 1000/1d"
        action = "hold"
        [retry]
        first = "30m"
        factor = 1
        "#,
    );
    assert_eq!((config.hostname.as_str(), config.data_dir.as_path()), ("mx1.example.org", Path::new("./data")));
    let [mx, out] = &config.listeners[..] else { panic!() };
    assert_eq!((mx.limits.size, mx.limits.recipients, mx.verify), (10 << 20, 500, Mode::Tag));
    assert_eq!((&*out.name, out.auth, out.tls), ("out", true, ListenerTls::StartTls));
    let Recipients::List(names) = &config.domains[0].recipients else { panic!() };
    assert!(names.contains("alice") && names.contains("bob"));
    assert_eq!(config.domains[0].name, "xn--bcher-kva.example");
    let Some(NextHop::Smtp { login: Some(login), tls: Some(DeliverTls::Required), port: 587, .. }) =
        &config.relay.smarthost
    else {
        panic!()
    };
    assert_eq!(login.password.expose(), "p@ss");
    assert_eq!(config.rates[0].windows[1], RateWindow { limit: 1000, period: Duration::from_secs(86_400) });
    assert_eq!(config.retry.first, Duration::from_secs(1800));
    assert_eq!(config.auth.users_file, PathBuf::from("./users.toml"));
}

/// Set to write what each wrong file prints now next to it; then read the difference before it is committed.
const BLESS: &str = "WEIR_BLESS";

#[test]
fn each_wrong_file_is_told_what_would_be_right() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir("tests/config_errors").unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    let mut wrong = Vec::new();
    for path in &files {
        let told = match Config::load(path) {
            Ok(_) => "no error\n".to_owned(),
            Err(problems) => format!("{problems}\n"),
        };
        let expected_path = path.with_extension("txt");
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(&expected_path, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if told != expected {
            wrong.push(format!("{}\n--- expected\n{expected}--- told\n{told}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.len() >= 25, "the files are gone");
}

const ANNOTATED: &str = include_str!("../deploy/weir.toml");

#[test]
fn the_annotated_file_is_the_defaults() {
    let annotated = Config::parse(Path::new("deploy/weir.toml"), ANNOTATED).unwrap_or_else(|p| panic!("{p}"));
    let default = Config::default_for(Path::new("/var/lib/weir"));
    assert_eq!(format!("{annotated:#?}"), format!("{default:#?}"));
}

/// The keys that a table knows, as the error for an unknown one lists them.
fn known_keys(table: &str) -> Vec<String> {
    let text = format!("{table}\nqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq = 1\n");
    let problems = Config::parse(Path::new("x.toml"), &text).unwrap_err();
    let help = problems.problems.iter().find_map(|problem| problem.help.as_deref()?.strip_prefix("known here: "));
    help.unwrap_or_else(|| panic!("{problems}")).split(", ").map(str::to_owned).collect()
}

/// Looks for every key of the table `name` (empty: the top), and of the tables in it.
fn names_every_key(name: &str, header: &str) {
    let stands = |text: &str| ANNOTATED.contains(&format!("\n{text}")) || ANNOTATED.contains(&format!("\n# {text}"));
    for key in known_keys(header) {
        let path = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        let headers = [format!("[[{path}]]"), format!("[{path}]")];
        match headers.iter().find(|header| stands(header)) {
            Some(header) => names_every_key(&path, header),
            None => assert!(stands(&format!("{key} = ")), "{path}"),
        }
    }
}

#[test]
fn the_annotated_file_names_every_key() {
    names_every_key("", "");
}

/// The reason under which `weir_front_refused_total` counts a bound of connections.
const COUNTED_AT_THE_DOOR: [(&str, &str); 5] = [
    ("connections", "total"),
    ("connections_per_ip", "per_ip"),
    ("connections_per_net", "per_net"),
    ("connections_reserved", "total"),
    ("handshakes_per_minute", "handshakes"),
];

#[test]
fn every_limit_of_the_front_end_is_counted_when_it_is_hit() {
    let by_session = |key: &str| Limit::ALL.iter().any(|limit| limit.as_str() == key);
    let at_the_door = |key: &str| {
        let reason = COUNTED_AT_THE_DOOR.iter().find(|(name, _)| *name == key).map(|(_, reason)| *reason);
        reason.is_some_and(|reason| Refusal::ALL.iter().any(|refusal| refusal.as_str() == reason))
    };
    for key in known_keys("[limits]") {
        // Only how long the floor of the rate does not hold.
        assert!(key == "data_grace" || by_session(&key) || at_the_door(&key), "nobody counts {key}");
    }
}

#[test]
fn every_commented_example_of_the_annotated_file_is_right() {
    let examples = [
        ("hostname", ""),
        ("size", "[[listener]]\naddress = \"127.0.0.1:1\"\nrole = \"mx\""),
        ("smarthost", "[relay]"),
        ("users", "[auth]"),
        ("authserv_id", "[verify]"),
        ("directory", "[spool]"),
        ("token", "[admin]"),
        ("user", "[security]"),
    ];
    for (key, table) in examples {
        let line =
            ANNOTATED.lines().find_map(|line| line.strip_prefix("# ").filter(|l| l.starts_with(&format!("{key} = "))));
        parse(&format!("{table}\n{}\n", line.unwrap_or_else(|| panic!("{key}"))));
    }
    let rate = ANNOTATED.split_once("# [[rate]]").unwrap().1.split("\n\n").next().unwrap().replace("\n# ", "\n");
    parse(&format!("[[rate]]{rate}\n"));
}

#[test]
fn the_container_has_a_right_configuration() {
    let config = parse(include_str!("../deploy/weir.docker.toml"));
    assert!(config.admin.address.is_some_and(|address| address.ip().is_loopback()));
}

/// With our own binary in the place where a package would put it.
#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["weir.service", "weir.socket"];
    let files = names.map(|name| {
        let text = std::fs::read_to_string(Path::new("deploy").join(name)).unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text.replace("/usr/bin/weir", env!("CARGO_BIN_EXE_weir"))).unwrap();
        file
    });
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&files).output();
    let output = output.expect("systemd-analyze runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !told.contains("weir."), "{told}");
}

/// All text of the sources, where metrics get their names.
fn sources(dir: &Path, text: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else {
            text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        }
    }
}

#[test]
fn alerts_and_dashboard_name_only_metrics_that_exist() {
    let mut code = String::new();
    sources(Path::new("src"), &mut code);
    let dashboard = include_str!("../deploy/grafana.json");
    serde_json::from_str::<serde_json::Value>(dashboard).unwrap();
    let text = format!("{}{dashboard}", include_str!("../deploy/alerts.yaml"));
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics = words.filter(|word| word.starts_with("weir_") || word.starts_with("process_"));
    let mut count = 0;
    for metric in metrics {
        let histogram = metric.strip_suffix("_bucket").unwrap_or(metric);
        assert!(code.contains(&format!("\"{histogram}\"")), "{metric} is not registered anywhere");
        count += 1;
    }
    assert!(count > 40, "the metrics are gone");
}

#[test]
fn every_worked_configuration_of_the_readme_loads() {
    let dir = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["mx1.example.org".to_owned()]).unwrap();
    std::fs::write(dir.path().join("fullchain.pem"), pair.cert.pem()).unwrap();
    std::fs::write(dir.path().join("privkey.pem"), pair.signing_key.serialize_pem()).unwrap();
    std::fs::create_dir(dir.path().join("dkim")).unwrap();
    std::fs::write(dir.path().join("dkim/s1.example.org.pem"), pair.signing_key.serialize_pem()).unwrap();
    let readme = include_str!("../README.md");
    let blocks: Vec<&str> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert!(blocks.len() >= 3, "one for each kind of postmaster");
    for block in blocks {
        let file = dir.path().join("weir.toml");
        std::fs::write(&file, block.replace("/etc/weir/", &format!("{}/", dir.path().display()))).unwrap();
        let config = Config::load(&file).unwrap_or_else(|problems| panic!("{block}\n{problems}"));
        assert!(!config.summary().is_empty());
    }
}
