//! The configuration from outside: what loads, what it means, and what each wrong file is told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use weir::config::Config;
use weir::config::settings::*;

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
