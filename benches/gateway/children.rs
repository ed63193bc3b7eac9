//! The bench's own parts as processes of their own: load, sink, limit.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::options::Options;

/// What such a process does.
pub fn main(command: &str, words: &[String]) {
    let options = Options::parse(words.iter().cloned());
    let result = match command {
        "front" => crate::front::run(&options),
        "generate" => crate::generate::run(&options),
        "idle" => crate::idle::run(&options),
        "limit" => crate::limit::run(&options),
        "sink" => crate::sink::run(&options),
        other => panic!("no part is called {other}"),
    };
    println!("{}", result.unwrap());
}

/// A part that runs; ended when dropped.
pub struct Part {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Part {
    pub fn start(command: &str, options: &[(&str, String)]) -> Self {
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.arg(command);
        for (name, value) in options {
            program.arg(format!("--{name}")).arg(value);
        }
        let mut child = program.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Part { child, output }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "a part of the bench ended without a word");
        line.trim_end().to_owned()
    }

    /// Where it listens; its first line.
    pub fn address(&mut self) -> SocketAddr {
        self.line().strip_prefix("listening ").unwrap().parse().unwrap()
    }

    /// What it found out, once it is through.
    pub fn result(&mut self) -> serde_json::Value {
        loop {
            let line = self.line();
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
