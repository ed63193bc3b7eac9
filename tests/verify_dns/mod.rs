//! A DNS server for one zone file of a test: real packets over UDP and TCP on loopback. Not a test itself.
//!
//! TIMEOUT entries stay unanswered, SERVFAIL entries fail; answers that do not fit into a UDP packet are truncated, so that
//! the resolver must come back by TCP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

/// The zone's format in the vectors: name to (type, value).
pub type Zone = BTreeMap<String, Vec<(String, Value)>>;

/// Cases of mail-auth's SPF suite where our answer is another one; tests/vectors/IDENTITY.md says why it is the right one.
#[allow(dead_code)] // Each test file uses its part.
pub const MAIL_AUTH_DIFFERS: [&str; 8] = [
    "all-all-test-1",
    "basic-dns-lookup-limits-1",
    "basic-dns-lookup-limits-6",
    "basic-helo-identity-1",
    "exists-exists-2",
    "identities-helo-and-mail-from-identities-4",
    "ip-ipv6-match-4",
    "macro-macro-expansion-2-2",
];

/// Adds a TXT record.
pub fn txt(zone: &mut Zone, name: &str, text: &str) {
    zone.entry(name.to_owned()).or_default().push(("TXT".to_owned(), Value::String(text.to_owned())));
}

/// A file of the vectors with CR LF line ends; what is no UTF-8 is replaced.
fn vector(path: &str) -> String {
    let bytes = std::fs::read(format!("{}/tests/vectors/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\n', "\r\n")
}

/// A file of dkimpy's own material: RFC 6376's and RFC 8463's examples, signed twice, and keys that are wrong on purpose.
#[allow(dead_code)] // Each test file uses its part.
pub fn dkimpy(name: &str) -> String {
    vector(&format!("dkim/dkimpy/{name}"))
}

/// Its signed messages, each with the file of an RSA key and the words that are due.
#[allow(dead_code)] // Each test file uses its part.
pub const DKIMPY_SIGNED: [(&str, &str, &[&str]); 8] = [
    ("rfc6376.signed.msg", "test.txt", &["pass", "pass"]),
    // t= was taken out after signing, so it must not verify; but that x= stands alone is no syntax error.
    ("rfc6376.signed.no_t.msg", "test.txt", &["fail"]),
    ("rfc6376.signed.rsa.msg", "test.txt", &["pass"]),
    ("rfc6376.signed.rsa.msg", "badk.txt", &["permerror"]),
    ("rfc6376.signed.rsa.msg", "badversion.txt", &["permerror"]),
    ("rfc6376.signed.rsa.msg", "test2.txt", &["pass"]),
    ("rfc6376.signed.rsa.msg", "test_bad.txt", &["permerror"]),
    ("rfc6376.signed.rsa.msg", "test_tlsrpt.txt", &["permerror"]),
];

/// Publishes the keys that its messages are signed with; the RSA key is the one in this file.
#[allow(dead_code)] // Each test file uses its part.
pub fn dkimpy_keys(rsa: &str) -> Zone {
    let mut zone = Zone::new();
    let ed25519 = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    txt(&mut zone, "test._domainkey.football.example.com", dkimpy(rsa).trim());
    txt(&mut zone, "brisbane._domainkey.football.example.com", ed25519);
    txt(&mut zone, "sed._domainkey.test.ex", dkimpy("eximtest.dns").trim());
    zone
}

/// `NAME TXT` lines, a blank line, a message.
#[allow(dead_code)] // Each test file uses its part.
pub fn with_zone(path: &str) -> (Zone, String) {
    let text = vector(path);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut zone = Zone::new();
    for line in head.lines() {
        let (name, record) = line.split_once(' ').unwrap();
        zone.entry(name.to_owned()).or_default().push(("TXT".to_owned(), Value::String(record.trim().to_owned())));
    }
    (zone, body.to_owned())
}

const UDP_BYTES_MAX: usize = 1232;
const TTL: u32 = 300;

#[derive(Default)]
struct Data {
    records: BTreeMap<String, Vec<RData>>,
    silent: BTreeSet<(String, String)>,
    failing: BTreeSet<(String, String)>,
    ttl: u32,
    asked: Mutex<Vec<String>>,
}

/// The running server; it ends when dropped.
pub struct Dns {
    pub address: SocketAddr,
    data: Arc<Data>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Dns {
    pub async fn start(zone: &Zone) -> Dns {
        Dns::with_ttl(zone, TTL).await
    }

    /// Every question so far, as `name TYPE`.
    #[allow(dead_code)] // One of the tests that use this module asks.
    pub fn asked(&self) -> Vec<String> {
        self.data.asked.lock().unwrap().clone()
    }

    pub async fn with_ttl(zone: &Zone, ttl: u32) -> Dns {
        let data = Arc::new(Data { ttl, ..Data::from_zone(zone) });
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = tcp.local_addr().unwrap();
        let tasks = vec![tokio::spawn(serve_udp(udp, data.clone())), tokio::spawn(serve_tcp(tcp, data.clone()))];
        Dns { address, data, tasks }
    }
}

async fn serve_udp(socket: UdpSocket, data: Arc<Data>) {
    let mut packet = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut packet).await {
        let Ok(question) = Message::from_vec(&packet[..length]) else { continue };
        let Some(mut answer) = data.answer(&question) else { continue };
        let mut bytes = answer.to_vec().unwrap();
        if bytes.len() > UDP_BYTES_MAX {
            answer.answers.clear();
            answer.metadata.truncation = true;
            bytes = answer.to_vec().unwrap();
        }
        let _ = socket.send_to(&bytes, from).await;
    }
}

async fn serve_tcp(listener: TcpListener, data: Arc<Data>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let data = data.clone();
        tokio::spawn(async move {
            while let Ok(length) = stream.read_u16().await {
                let mut packet = vec![0; length.into()];
                if stream.read_exact(&mut packet).await.is_err() {
                    return;
                }
                let Some(answer) = Message::from_vec(&packet).ok().and_then(|question| data.answer(&question)) else {
                    continue;
                };
                let bytes = answer.to_vec().unwrap();
                let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
                framed.extend(bytes);
                if stream.write_all(&framed).await.is_err() {
                    return;
                }
            }
        });
    }
}

impl Data {
    fn from_zone(zone: &Zone) -> Data {
        let mut data = Data::default();
        for (name, entries) in zone {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            data.records.entry(name.clone()).or_default();
            for (kind, value) in entries {
                match kind.as_str() {
                    "TIMEOUT" => drop(data.silent.insert((name.clone(), text(value)))),
                    "SERVFAIL" => drop(data.failing.insert((name.clone(), text(value)))),
                    _ => {
                        let rdata = rdata(kind, value);
                        data.records.get_mut(&name).unwrap().extend(rdata);
                    }
                }
            }
        }
        data
    }

    fn answer(&self, question: &Message) -> Option<Message> {
        let query = question.queries.first()?;
        let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let mut name = key(query.name());
        let kind = query.query_type();
        self.asked.lock().unwrap().push(format!("{name} {kind}"));
        for _ in 0..8 {
            let marked = |set: &BTreeSet<(String, String)>| {
                [kind.to_string().as_str(), "ANY"].iter().any(|kind| set.contains(&(name.clone(), (*kind).to_owned())))
            };
            if marked(&self.silent) {
                return None;
            }
            if marked(&self.failing) {
                answer.metadata.response_code = ResponseCode::ServFail;
                return Some(answer);
            }
            let Some(records) = self.records.get(&name) else {
                let below = format!(".{name}");
                if answer.answers.is_empty() && !self.records.keys().any(|other| other.ends_with(&below)) {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                return Some(answer);
            };
            let owner = self::name(&name);
            let add = |answer: &mut Message, data: &RData| {
                answer.add_answer(Record::from_rdata(owner.clone(), self.ttl, data.clone()));
            };
            records.iter().filter(|data| data.record_type() == kind).for_each(|data| add(&mut answer, data));
            let alias = records.iter().find(|data| data.record_type() == RecordType::CNAME);
            match alias {
                Some(data @ RData::CNAME(target)) if kind != RecordType::CNAME => {
                    add(&mut answer, data);
                    name = key(&target.0);
                }
                _ => break,
            }
        }
        Some(answer)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Any bytes may stand in a label; the suites use some that no host name has.
fn name(text: &str) -> Name {
    let labels = text.trim_end_matches('.').split('.').filter(|label| !label.is_empty()).map(str::as_bytes);
    let mut name = Name::from_labels(labels).unwrap();
    name.set_fqdn(true);
    name
}

fn key(name: &Name) -> String {
    let labels: Vec<_> = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    labels.join(".")
}

/// Latin-1 in the vectors stands for single bytes.
fn bytes(text: &str) -> Vec<u8> {
    if text.chars().all(|c| (c as u32) < 256) { text.chars().map(|c| c as u8).collect() } else { text.into() }
}

fn rdata(kind: &str, value: &Value) -> Option<RData> {
    Some(match kind {
        "A" => RData::A(A(text(value).parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA(text(value).parse().unwrap())),
        "MX" => RData::MX(MX::new(value[0].as_u64().unwrap() as u16, name(value[1].as_str().unwrap()))),
        "PTR" => RData::PTR(PTR(name(&text(value)))),
        "CNAME" => RData::CNAME(CNAME(name(&text(value)))),
        "TXT" => {
            let parts: Vec<Vec<u8>> = match value {
                Value::Array(parts) => parts.iter().map(|part| bytes(part.as_str().unwrap())).collect(),
                _ => bytes(&text(value)).chunks(255).map(<[u8]>::to_vec).collect(),
            };
            if parts.is_empty() {
                return None;
            }
            RData::TXT(TXT::from_bytes(parts.iter().map(Vec::as_slice).collect()))
        }
        _ => return None,
    })
}
