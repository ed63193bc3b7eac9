//! What a milter is shown of a transaction: each stage as packets, its macros in front. Pure. Milter protocol 6.

use std::net::IpAddr;

use super::{Conversation, Stage};
use crate::wire::header::{Field, fields};
use crate::wire::milter::{BODY_CHUNK_BYTES, PACKET_BYTES_MAX, command, put, put_macros, step};

impl Conversation {
    /// Appends a stage, its macros first.
    pub(super) fn show(&self, stage: Stage, out: &mut Vec<u8>) {
        let transaction = &self.transaction;
        let id: &[(&str, &str)] = &[("i", &transaction.id)];
        match stage {
            Stage::Connect => self.show_connect(out),
            Stage::Helo => {
                put_macros(out, command::HELO, &self.tls_macros());
                put(out, command::HELO, &[clean(&transaction.helo).as_bytes(), b"\0"]);
            }
            Stage::Mail => self.show_mail(out),
            Stage::Rcpt(place) => {
                let recipient = &transaction.recipients[place];
                let host = recipient.rsplit_once('@').map_or("", |(_, host)| host);
                let macros = [
                    ("i", &*transaction.id),
                    ("{rcpt_addr}", recipient),
                    ("{rcpt_host}", host),
                    ("{rcpt_mailer}", "smtp"),
                ];
                put_macros(out, command::RCPT, &macros);
                put(out, command::RCPT, &[b"<", clean(recipient).as_bytes(), b">\0"]);
            }
            Stage::Data => {
                put_macros(out, command::DATA, id);
                put(out, command::DATA, &[]);
            }
            Stage::Header(place) => self.show_header(place, out),
            Stage::EndOfHeaders => {
                put_macros(out, command::END_OF_HEADERS, id);
                put(out, command::END_OF_HEADERS, &[]);
            }
            Stage::Body(at) => {
                let content = transaction.content.as_deref().unwrap_or_default();
                let end = content.len().min(at + BODY_CHUNK_BYTES);
                put(out, command::BODY, &[&content[at..end]]);
            }
            Stage::EndOfBody => {
                put_macros(out, command::END_OF_BODY, id);
                put(out, command::END_OF_BODY, &[]);
            }
            Stage::Options | Stage::Over => {}
        }
    }

    fn show_connect(&self, out: &mut Vec<u8>) {
        let transaction = &self.transaction;
        let address = transaction.ip.map_or_else(String::new, |ip| ip.to_canonical().to_string());
        let literal = format!("[{address}]");
        let name = transaction.host.as_deref().map_or(literal.clone(), clean);
        let port = transaction.port.to_string();
        let sender = format!("{name} {literal}");
        let macros = [
            ("j", &*transaction.hostname),
            ("_", &sender),
            ("v", concat!("Weir ", env!("CARGO_PKG_VERSION"))),
            ("{daemon_name}", &transaction.listener),
            ("{client_addr}", &address),
            ("{client_name}", transaction.host.as_deref().unwrap_or("unknown")),
            ("{client_port}", &port),
        ];
        put_macros(out, command::CONNECT, &macros);
        let family: &[u8] = match transaction.ip.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(_)) => b"4",
            Some(IpAddr::V6(_)) => b"6",
            None => b"U",
        };
        match transaction.ip {
            Some(_) => {
                let port = transaction.port.to_be_bytes();
                put(out, command::CONNECT, &[name.as_bytes(), b"\0", family, &port, address.as_bytes(), b"\0"]);
            }
            None => put(out, command::CONNECT, &[b"unknown\0", family]),
        }
    }

    fn tls_macros(&self) -> Vec<(&'static str, &str)> {
        let tls = self.transaction.tls.as_deref().unwrap_or_default();
        let (version, cipher) = tls.split_once(' ').unwrap_or((tls, ""));
        vec![("{tls_version}", version), ("{cipher}", cipher)]
    }

    fn show_mail(&self, out: &mut Vec<u8>) {
        let transaction = &self.transaction;
        let login = transaction.login.as_deref().unwrap_or_default();
        let host = transaction.sender.rsplit_once('@').map_or("", |(_, host)| host);
        let mut macros = vec![
            ("i", &*transaction.id),
            ("{mail_addr}", &transaction.sender),
            ("{mail_host}", host),
            ("{mail_mailer}", "smtp"),
        ];
        if !login.is_empty() {
            macros.extend([("{auth_type}", "PLAIN"), ("{auth_authen}", login), ("{auth_author}", login)]);
        }
        put_macros(out, command::MAIL, &macros);
        put(out, command::MAIL, &[b"<", clean(&transaction.sender).as_bytes(), b">\0"]);
    }

    /// Lines of a value are ended by LF alone, as libmilter has them.
    fn show_header(&self, place: usize, out: &mut Vec<u8>) {
        let content = self.transaction.content.as_deref().unwrap_or_default();
        let Some(Field { name, value, .. }) = fields(&content[self.fields[place].clone()]).next() else { return };
        let mut value: Vec<u8> = value.iter().copied().filter(|byte| !matches!(byte, b'\r' | 0)).collect();
        if value.last() == Some(&b'\n') {
            value.pop();
        }
        let keep = self.options.has(step::HEADER_LEADING_SPACE);
        let value = if keep { &value[..] } else { value.strip_prefix(b" ").unwrap_or(&value) };
        // A field that no packet holds is cut: the milter reads its front, the message keeps it whole.
        let value = &value[..value.len().min(PACKET_BYTES_MAX / 2)];
        put(out, command::HEADER, &[&name[..name.len().min(PACKET_BYTES_MAX / 4)], b"\0", value, b"\0"]);
    }
}

/// What a peer said, without what would end a text early.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Transaction;
    use super::*;
    use crate::base::content::Content;
    use crate::wire::milter::{split, strings};

    #[test]
    fn fields_are_shown_as_libmilter_has_them() {
        let content = Content::from_bytes(b"A:  1\r\n\t2\r\n\r\n".to_vec());
        let mut conversation = Conversation::new(Transaction { content: Some(content), ..Transaction::default() });
        let mut out = Vec::new();
        conversation.options.steps = step::HEADER_LEADING_SPACE;
        conversation.show_header(0, &mut out);
        assert_eq!(strings(split(&out).unwrap().unwrap().0.data), [&b"A"[..], b"  1\n\t2"]);
    }
}
