//! Who is turned away before DATA hears why, with a reference; `weir explain` names the setting and its line.

use super::support::{python, run};
use super::{Gate, gate, reference};

/// The replies to these commands, each in one line, after EHLO.
fn talk(gate: &Gate, listener: &str, commands: &[&str]) -> Vec<String> {
    let program = "import socket, sys\n\
        s = socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=60)\nf = s.makefile('rwb')\n\
        def reply():\n    text = ''\n    while True:\n        line = f.readline().decode()\n        text += line.strip() + ' '\n\
        \x20       if not line or line[3] == ' ': return text.strip()\n\
        print(reply())\n\
        for line in ['EHLO client.test'] + sys.argv[2:]:\n    f.write(line.encode() + b'\\r\\n'); f.flush(); print(reply())";
    let port = gate.weir.port(listener).to_string();
    let said = python(program, &[&[port.as_str()], commands].concat());
    said.lines().map(str::to_owned).collect()
}

fn listed_domain() -> &'static str {
    "[[domain]]\nname = \"listed.test\"\ndeliver_to = \"discard:\"\nrecipients = { list = [\"alice\"] }\n\
     [[domain]]\nname = \"stored.test\"\ndeliver_to = \"store:\"\nrecipients = \"store\"\n"
}

#[test]
fn a_recipient_that_is_refused_has_a_reference_and_a_story() {
    let gate = gate("", "", "", listed_domain());
    let replies = talk(
        &gate,
        "mx",
        &[
            "MAIL FROM:<nora@shop.test>",
            "RCPT TO:<bob@listed.test>",
            "RCPT TO:<x@elsewhere.test>",
            "RCPT TO:<carl@stored.test>",
            "RCPT TO:<a%b@listed.test>",
        ],
    );
    let [unknown, relay, stored, hidden] = &replies[3..] else { panic!("{replies:?}") };
    assert!(unknown.starts_with("550 5.1.1 No such user here; ref "), "{unknown}");
    let story = gate.explain(&reference(unknown));
    for wanted in [
        "decision     rejected: 550 5.1.1 No such user here; ref ",
        "reason       unknown_user",
        "setting      recipients = a list of domain listed.test (weir.toml:",
        "at           RCPT",
        "from         <nora@shop.test>",
        "to           bob@listed.test",
        "HELO client.test, ESMTP on mx",
        "rcpt: unknown_user",
    ] {
        assert!(story.contains(wanted), "{wanted}: {story}");
    }
    let line = story.split("(weir.toml:").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
    let config = std::fs::read_to_string(gate.weir.path().join("weir.toml")).unwrap();
    let named = config.lines().nth(line.parse::<usize>().unwrap() - 1).unwrap();
    assert!(named.starts_with("recipients = { list"), "{named}");
    let story = gate.explain(&reference(relay));
    assert!(story.contains("elsewhere.test is no [[domain]]; role = mx of listener mx (weir.toml:"), "{story}");
    let story = gate.explain(&reference(stored));
    assert!(story.contains("rcpt: unknown_user: a user of the store, who is not there"), "{story}");
    assert!(gate.explain(&reference(hidden)).contains("reason       hidden_route"));
    let listed = gate.weir.ok(&["trace", "--to", "bob@listed.test", "--fate", "rejected"]);
    assert!(listed.contains("unknown_user") && listed.lines().count() == 2, "{listed}");
    assert!(!gate.weir.cli(&["replay", "--since", "1h"]).status.success(), "there is no message to judge again");
}

#[test]
fn a_rate_that_refuses_is_named_with_its_line() {
    let rates = "[[rate]]\nkey = [\"sender\"]\ncount = \"recipients\"\nlimit = \"1/1h\"\n\
        [[rate]]\nkey = [\"helo\"]\ncount = \"messages\"\nlimit = \"2/1h\"\naction = \"reject\"\n\
        [[rate]]\nkey = [\"listener\"]\ncount = \"connections\"\nlimit = \"2/1h\"\n\
        [[rate]]\nkey = [\"listener\"]\ncount = \"bytes\"\nlimit = \"1/1h\"\naction = \"hold\"\n";
    let gate = gate("", "", "", rates);
    let from = "MAIL FROM:<nora@shop.test>";
    let replies =
        talk(&gate, "mx", &[from, "RCPT TO:<a@weir.test>", "RCPT TO:<b@weir.test>", "RSET", from, "RSET", from]);
    assert!(
        replies[4].starts_with("450 4.7.1 Rate limit reached: 1 recipients in 1h, try again later; ref "),
        "{replies:?}"
    );
    let story = gate.explain(&reference(&replies[4]));
    assert!(story.contains("setting      [[rate]] recipients by sender (1/1h) (weir.toml:"), "{story}");
    assert!(story.contains("), sender=nora@shop.test"), "{story}");
    let story = gate.explain(&reference(&replies[8]));
    assert!(story.contains("at           MAIL") && story.contains("[[rate]] messages by helo (2/1h)"), "{story}");
    let (held, said) = gate.send("bob@weir.test", "hello", &["--from", "x@y.test"]);
    assert!(held, "{said}");
    let story = gate.explain(&reference(&said));
    assert!(
        story.contains("decision     held") && story.contains("[[rate]] bytes by listener (1/1h) (weir.toml:"),
        "{story}"
    );
    let turned = python(
        "import socket, sys\nprint(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).makefile().readline())",
        &[&gate.weir.port("mx").to_string()],
    );
    assert!(turned.starts_with("421 4.7.1 Rate limit reached"), "{turned}");
    let story = gate.explain(&reference(&turned));
    assert!(story.contains("at           connect") && story.contains("connections by listener (2/1h)"), "{story}");
}

#[test]
fn who_guesses_addresses_does_not_fill_the_trace() {
    let gate = gate("", "", "", listed_domain());
    let (_, kept) = gate.send("bob@weir.test", "twenty", &[]);
    let guesses: Vec<String> = (0..20).map(|nth| format!("RCPT TO:<guess{nth}@listed.test>")).collect();
    let commands: Vec<&str> = ["MAIL FROM:<>"].into_iter().chain(guesses.iter().map(String::as_str)).collect();
    let mut referred = 0;
    for _ in 0..15 {
        let replies = talk(&gate, "mx", &commands);
        let refused: Vec<&String> =
            replies.iter().filter(|reply| reply.starts_with("550 5.1.1 No such user here")).collect();
        assert!(refused.len() >= 19, "{replies:?}");
        referred += refused.iter().filter(|reply| reply.contains("; ref ")).count();
    }
    assert!((60..=120).contains(&referred), "60 a minute, and perhaps the next minute began: {referred}");
    let (_, metrics) = run("curl", &["-sS", &format!("http://{}/metrics", gate.weir.address("admin"))]);
    let spared = metrics.lines().find_map(|line| line.strip_prefix("weir_trace_spared_total ")).unwrap();
    assert!(spared.parse::<u32>().unwrap() >= 100, "{spared}");
    assert!(gate.explain(&reference(&kept)).contains("Refused as spam"));
    let door = gate.weir.path().join("data/trace/door");
    assert!(std::fs::read_dir(door).unwrap().flatten().next().is_some(), "they stand apart");
}
