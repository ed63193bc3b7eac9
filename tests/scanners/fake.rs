//! Scanners that behave as a test tells them.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use weir::wire::milter::{Edit, Options, Response, action, command, split, step, strings};
use weir::wire::reply::{Enhanced, Reply};

/// Takes connections and says nothing.
pub struct Silent {
    pub port: u16,
    count: Arc<AtomicUsize>,
}

impl Silent {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::Relaxed);
                held.push(stream);
            }
        });
        Silent { port, count }
    }

    pub fn connections(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// A server that answers anything with bytes that mean nothing; gives its port.
pub fn garbage() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(b"\x07\xff\xfe no protocol \0 of yours\r\n\r\n");
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut rest = [0; 4096];
            while stream.read(&mut rest).is_ok_and(|read| read > 0) {}
        }
    });
    port
}

/// What a milter answers.
#[derive(Clone, Debug)]
pub enum Act {
    Accept,
    Add(&'static str, &'static str),
    AddRecipient(&'static str),
    Body(&'static str),
    Change(u32, &'static str, &'static str),
    Continue,
    Discard,
    Insert(u32, &'static str, &'static str),
    Quarantine(&'static str),
    RemoveRecipient(&'static str),
    Reply(&'static str),
    Sender(&'static str),
    Tempfail,
}

fn response(act: Act) -> Response {
    match act {
        Act::Accept => Response::Accept,
        Act::Add(name, value) => Response::Edit(Edit::AddHeader { name: name.into(), value: value.into() }),
        Act::AddRecipient(path) => Response::Edit(Edit::AddRecipient(path.into())),
        Act::Body(text) => Response::Edit(Edit::ReplaceBody(text.into())),
        Act::Change(index, name, value) => {
            Response::Edit(Edit::ChangeHeader { index, name: name.into(), value: value.into() })
        }
        Act::Continue => Response::Continue,
        Act::Discard => Response::Discard,
        Act::Insert(index, name, value) => {
            Response::Edit(Edit::InsertHeader { index, name: name.into(), value: value.into() })
        }
        Act::Quarantine(reason) => Response::Quarantine(reason.into()),
        Act::RemoveRecipient(path) => Response::Edit(Edit::RemoveRecipient(path.into())),
        Act::Reply(_) => unreachable!("written as it stands"),
        Act::Sender(path) => Response::Edit(Edit::ChangeSender(path.into())),
        Act::Tempfail => Response::Tempfail,
    }
}

/// A milter; stages are told as `rcpt <x@y>`, `header Name: value`, `eom` …
pub struct FakeMilter {
    pub port: u16,
    seen: Arc<Mutex<String>>,
}

impl FakeMilter {
    pub fn start(steps: u32, answer: impl Fn(&str) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(String::new()));
        let (noted, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, answer) = (noted.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, steps, &*answer, &noted));
            }
        });
        FakeMilter { port, seen }
    }

    pub fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, steps: u32, answer: &dyn Fn(&str) -> Vec<Act>, seen: &Mutex<String>) -> Option<()> {
    let (mut input, mut piece) = (Vec::new(), [0; 65536]);
    loop {
        while let Some((packet, length)) = split(&input).unwrap() {
            let data = String::from_utf8_lossy(packet.data).into_owned();
            let texts: Vec<String> =
                strings(packet.data).iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
            let mut out = Vec::new();
            let stage = match packet.command {
                command::OPTIONS => {
                    let offered = Options::parse(packet.data).unwrap();
                    assert_eq!(offered.actions, action::ALL);
                    let steps = steps | step::HEADER_LEADING_SPACE;
                    Options { version: 6, actions: action::ALL, steps }.put(&mut out);
                    String::new()
                }
                command::MACROS => {
                    let words = data[1..].split('\0').collect::<Vec<_>>();
                    for pair in words.chunks(2).filter(|pair| pair.len() == 2) {
                        seen.lock().unwrap().push_str(&format!("{}={}\n", pair[0], pair[1]));
                    }
                    String::new()
                }
                command::QUIT => return Some(()),
                command::CONNECT => "connect".to_owned(),
                command::HELO => format!("helo {}", texts[0]),
                command::MAIL => format!("mail {}", texts[0]),
                command::RCPT => format!("rcpt {}", texts[0]),
                command::DATA => "data".to_owned(),
                command::HEADER => format!("header {}:{}", texts[0], texts[1]),
                command::END_OF_HEADERS => "eoh".to_owned(),
                command::BODY => "body".to_owned(),
                command::END_OF_BODY => "eom".to_owned(),
                other => panic!("packet {other}"),
            };
            if !stage.is_empty() {
                seen.lock().unwrap().push_str(&format!("{stage}\n"));
                for act in answer(&stage) {
                    match act {
                        Act::Reply(text) => {
                            let packet = [b"y", text.as_bytes(), b"\0"].concat();
                            out.extend((packet.len() as u32).to_be_bytes());
                            out.extend(packet);
                        }
                        act => response(act).put(&mut out),
                    }
                }
            }
            input.drain(..length);
            stream.write_all(&out).ok()?;
        }
        let read = stream.read(&mut piece).ok().filter(|read| *read > 0)?;
        input.extend_from_slice(&piece[..read]);
    }
}

/// A refusal as text.
pub fn refusal(code: u16, text: &str) -> Reply {
    Reply::new(code, Enhanced((code / 100) as u8, 7, 1), text)
}
