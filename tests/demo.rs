//! The newcomer's command as it is typed: `weir demo`, and `weir demo --stay` with a client of one's own.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::{run, wait_for};

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.arg("demo").args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn every_sample_comes_to_what_it_must_and_the_sums_add_up() {
    let output = demo(&[]).output().expect("weir runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{said}");
    assert_eq!(said, "", "nothing but the report on the terminal");
    for wanted in [
        "messages     45 sent =  39 delivered + 1 queued + 1 quarantined + 4 refused",
        "recipients   47 sent =  41 delivered + 1 queued + 1 quarantined + 4 refused",
        "spool        43 accepted =  41 delivered + 1 queued + 1 quarantined; the books balance",
        "read back   41 messages by POP3",
        "sessions    45 with TLS and a verified certificate, 5 with AUTH",
        "waits for down.example, last reply: ",
        "rejected by the DMARC policy of bank.example",
        "news.example asks for quarantine",
        "dmarc=fail (p=reject dis=reject) header.from=bank.example; arc=pass",
        "header.a=ed25519-sha256",
        "refused: 550 5.1.1",
        "score 5.5: spam",
        "550 5.7.1 Refused as spam (score ",
        "weir explain ",
        "= score",
        "SPF_PASS SPF of shop.example: pass, shop.example: mx: \"v=spf1 mx -all\" (TXT shop.example)",
        "1 released, 1 learned",
        "quarantine 8 -> reject 8",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" accepted: ")).count(), 41, "{text}");
}

/// Ends the demo whatever happens to the test.
struct Staying(Child);

impl Drop for Staying {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command of the text, as the shell runs it: the line that begins so, and what continues it.
fn command_of(text: &str, begin: &str) -> String {
    let joined = text.replace("\\\n", " ");
    let line = joined.lines().map(str::trim).find(|line| line.starts_with(begin));
    line.unwrap_or_else(|| panic!("no {begin} in {text}")).to_owned()
}

#[test]
fn it_stays_until_interrupted_and_its_commands_work_as_printed() {
    let child = demo(&["--stay"]).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("weir starts");
    let mut staying = Staying(child);
    let mut reader = BufReader::new(staying.0.stdout.take().expect("piped"));
    let mut text = String::new();
    while !text.contains("--config ") {
        assert_ne!(reader.read_line(&mut text).expect("UTF-8"), 0, "{text}");
    }
    let shell = |begin: &str| {
        let (ok, said) = run("sh", &["-c", &command_of(&text, begin)]);
        assert!(ok, "{begin}: {said}");
        said
    };
    shell("printf 'Subject: hello");
    shell("swaks --server 127.0.0.1:");
    let mail = wait_for("the message in bob's mailbox", || {
        let count = shell("curl -sS -k --url pop3s://").lines().count();
        let last = command_of(&text, "curl -sS -k --url pop3s://").replace("/ --user", &format!("/{count} --user"));
        let (_, mail) = run("sh", &["-c", &last]);
        mail.contains("by curl").then_some(mail)
    });
    assert!(mail.contains("with ESMTPSA id "), "{mail}");
    assert!(shell("curl -sS http://").contains("weir_spool_"));
    let settings = text.rsplit("--config ").next().expect("a path").trim();
    let folder = Path::new(settings).parent().expect("a folder");
    assert!(folder.is_dir());
    let (ok, _) = run("kill", &["-INT", &staying.0.id().to_string()]);
    assert!(ok);
    let status = wait_for("the end", || staying.0.try_wait().expect("own child"));
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("UTF-8");
    assert!(status.success(), "{text}{rest}");
    assert!(!folder.exists(), "the folder goes with the demo");
}
