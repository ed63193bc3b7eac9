//! A DNS server in the test's own process: a function from name and type to an answer.

use std::net::SocketAddr;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, MX};
use hickory_resolver::proto::rr::{Name, RData, Record};
use tokio::net::UdpSocket;

/// What the zone says.
pub enum Answer {
    Code(ResponseCode),
    Records(Vec<RData>),
}

pub const NODATA: Answer = Answer::Code(ResponseCode::NoError);
pub const NXDOMAIN: Answer = Answer::Code(ResponseCode::NXDomain);
pub const SERVFAIL: Answer = Answer::Code(ResponseCode::ServFail);

pub fn a(address: &str) -> Answer {
    Answer::Records(vec![RData::A(A(address.parse().unwrap()))])
}

pub fn aaaa(address: &str) -> Answer {
    Answer::Records(vec![RData::AAAA(AAAA(address.parse().unwrap()))])
}

pub fn mx(list: &[(u16, &str)]) -> Answer {
    let record = |(preference, host): &(u16, &str)| RData::MX(MX::new(*preference, Name::from_ascii(host).unwrap()));
    Answer::Records(list.iter().map(record).collect())
}

/// Answers over UDP until the runtime ends.
pub async fn serve(zone: impl Fn(&str, &str) -> Answer + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 4096];
        while let Ok((count, peer)) = socket.recv_from(&mut bytes).await {
            let Ok(query) = Message::from_vec(&bytes[..count]) else { continue };
            let question = query.queries[0].clone();
            let name = question.name().to_ascii().to_lowercase();
            let mut reply = query.clone();
            reply.metadata.message_type = MessageType::Response;
            reply.metadata.recursion_available = true;
            reply.edns = None;
            match zone(name.trim_end_matches('.'), &question.query_type().to_string()) {
                Answer::Code(code) => reply.metadata.response_code = code,
                Answer::Records(records) => {
                    for data in records {
                        reply.add_answer(Record::from_rdata(question.name().clone(), 60, data));
                    }
                }
            }
            let _ = socket.send_to(&reply.to_vec().unwrap(), peer).await;
        }
    });
    address
}
