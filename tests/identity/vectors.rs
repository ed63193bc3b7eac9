//! Signed messages that others published, through the running gateway. Where our answer is another one than was asked for,
//! tests/vectors/IDENTITY.md says why.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dkim_of_dkimpys_messages_is_in_the_delivered_mail() {
    let others = [
        // Not signed, so nothing is claimed; two have an author that can't be told.
        ("rfc6376.msg", "test.txt", &["none"][..]),
        ("rfc6376.w1258.msg", "test.txt", &["none"]),
        ("test.message", "test.txt", &["none"]),
        // Signed by a key that its domain has withdrawn since.
        ("test2.message", "test.txt", &["permerror"]),
        ("message.mbox", "test.txt", &["permerror"]),
        ("ed25519test2.msg", "test.txt", &["pass"]),
        ("ed25519test.msg", "test.txt", &["none"]),
        ("test_extra.message", "test.txt", &["none"]),
        ("test_nofrom.message", "test.txt", &["none"]),
        // d= is no domain name: a comment stands where none may.
        ("test.message.baddomain", "test.txt", &["neutral"]),
    ];
    for (file, key, expected) in DKIMPY_SIGNED.into_iter().chain(others) {
        let dns = Dns::start(&dkimpy_keys(key)).await;
        let weir = gateway(dns.address, "");
        let reply =
            Smtp::connect(&weir.address("tag")).send(&Mail::new("dkimpy", "joe@football.example.com", &dkimpy(file)));
        assert!(reply.starts_with("250"), "{file}: {reply}");
        let mail = delivered(&weir, "dkimpy");
        assert_eq!(words(&results(&mail), "dkim"), expected, "{file}, {key}: {mail}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dkim_of_real_messages_is_in_the_delivered_mail() {
    for path in ["dkim/mail-auth/001.txt", "dkim/mail-auth/002.txt", "dkim/mail-auth/003.txt", "dkim/mail-auth/006.txt"]
    {
        let (zone, body) = with_zone(path);
        let dns = Dns::start(&zone).await;
        let weir = gateway(dns.address, "");
        let reply = Smtp::connect(&weir.address("tag")).send(&Mail::new("real", "x@list.test", &body));
        assert!(reply.starts_with("250"), "{path}: {reply}");
        let mail = delivered(&weir, "real");
        let words = words(&results(&mail), "dkim");
        assert!(!words.is_empty() && words.iter().all(|word| word == "pass"), "{path}: {mail}");
    }
}

/// Each value of the Authentication-Results suite comes in from outside under our own name and under another: what bears
/// ours, or can't be read, is gone; what is another's passes as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authentication_results_of_others_pass_and_ours_are_cut() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/authres/authres.json");
    let vectors: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let dns = Dns::start(&Zone::new()).await;
    let weir = gateway(dns.address, "");
    let mut tag = Smtp::connect(&weir.address("tag"));
    for (nth, case) in vectors["cases"].as_array().unwrap().iter().enumerate() {
        let value = text(&case["value"]).replace("\r\n ", "\r\n\t");
        let Some(id) = case["id"].as_str() else { continue };
        // The suite names ids in lower case; the values may not.
        let at = value.to_ascii_lowercase().find(id).unwrap();
        let ours = format!("{}mx.Judge.example{}", &value[..at], &value[at + id.len()..]);
        for (user, value, stays) in [(format!("o{nth}"), value.clone(), true), (format!("m{nth}"), ours, false)] {
            let field = format!("Authentication-Results: {value}\r\n");
            let reply = tag.send(&Mail::new(&user, "x@plain.test", &format!("{field}{MAIL}")));
            assert!(reply.starts_with("250"), "{user}: {reply}");
            let mail = delivered(&weir, &user).replace("\r\n ", "\r\n\t");
            assert_eq!(mail.contains(&field), stays, "{value}: {mail}");
            let ours = mail.matches("Authentication-Results: mx.judge.example;").count();
            assert_eq!(ours, 1, "{value}: {mail}");
        }
    }
}
