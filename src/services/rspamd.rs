//! We as Rspamd: `/checkv2` for rspamc, Exim, Haraka and Rspamd's own proxy. I/O: its socket, HTTP/1.1 by hyper.
//!
//! The envelope comes as fields of the request (From, Rcpt, IP, Helo, Hostname, User, Queue-Id), the message as its body. `/ping`
//! answers, `/learnspam` and `/learnham` teach where `[service] learn` allows it; encryption and compression are not spoken.

use std::convert::Infallible;
use std::io;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Case;
use super::listen::Desk;
use crate::base::content::Content;

/// Of request line and fields together; a thousand recipients fit.
const HEADER_BYTES_MAX: usize = 128 * 1024;

/// Serves one connection, request after request.
pub async fn serve(stream: TcpStream, desk: Desk) -> io::Result<()> {
    let patience = desk.settings.timeout;
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(respond(&desk, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    connection.await.map_err(io::Error::other)
}

async fn respond(desk: &Desk, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/ping" => Response::new(Full::new(Bytes::from_static(b"pong\r\n"))),
        "/checkv2" | "/symbols" | "/check" => checked(desk, request).await,
        "/learnspam" | "/learnham" if desk.settings.learn => learned(desk, request, path == "/learnspam").await,
        "/learnspam" | "/learnham" => trouble(StatusCode::FORBIDDEN, "learning is not enabled; set [service] learn"),
        _ => trouble(StatusCode::NOT_FOUND, "there is /checkv2, /ping, /learnspam and /learnham"),
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    response
}

fn trouble(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    answer(status, &json!({ "error": why, "error_domain": "weir" }))
}

async fn checked(desk: &Desk, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let content = match content_of(desk, &parts.headers, body).await {
        Ok(content) => content,
        Err(response) => return response,
    };
    match desk.judge(case_of(&parts.headers, content)).await {
        Some(judgement) => answer(StatusCode::OK, &judgement.to_checkv2().to_json()),
        None => trouble(StatusCode::SERVICE_UNAVAILABLE, "busy, try again later"),
    }
}

async fn learned(desk: &Desk, request: Request<Incoming>, spam: bool) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    match content_of(desk, &parts.headers, body).await {
        Ok(content) => match desk.judge.learn(content, spam).await {
            true => answer(StatusCode::OK, &json!({ "success": true })),
            false => trouble(StatusCode::SERVICE_UNAVAILABLE, "nothing here learns"),
        },
        Err(response) => response,
    }
}

async fn content_of(desk: &Desk, headers: &HeaderMap, body: Incoming) -> Result<Content, Response<Full<Bytes>>> {
    if headers.contains_key("compression") || headers.contains_key("key") {
        let why = "neither compression nor encryption is spoken here";
        return Err(trouble(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let most = usize::try_from(desk.settings.size).unwrap_or(usize::MAX);
    let collected = timeout(desk.settings.timeout, Limited::new(body, most).collect()).await;
    let bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(_)) => return Err(trouble(StatusCode::PAYLOAD_TOO_LARGE, "the message is too large, or broke off")),
        Err(_) => return Err(trouble(StatusCode::REQUEST_TIMEOUT, "the message did not come in time")),
    };
    let mut builder = desk.judge.content().builder();
    let content = builder.append(&bytes).and_then(|()| builder.finish());
    content.map_err(|error| {
        tracing::error!(%error, "content of a message to be judged can't grow");
        trouble(StatusCode::INSUFFICIENT_STORAGE, "no room")
    })
}

fn case_of(headers: &HeaderMap, content: Content) -> Case {
    let clean = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).trim().to_owned();
    let one = |name: &str| headers.get(name).map(clean).filter(|text| !text.is_empty() && text != "unknown");
    let bare = |text: String| text.trim_start_matches('<').trim_end_matches('>').to_owned();
    let recipients = headers.get_all("rcpt").iter().map(clean).flat_map(|list| {
        // Some clients send one field with commas.
        list.split(',').map(|one| bare(one.trim().to_owned())).collect::<Vec<_>>()
    });
    Case {
        ip: one("ip").and_then(|text| text.trim_matches(['[', ']']).parse().ok()),
        host: one("hostname"),
        helo: one("helo").unwrap_or_default(),
        login: one("user"),
        sender: one("from").map(bare).unwrap_or_default(),
        recipients: recipients.filter(|text| !text.is_empty()).collect(),
        ..Case::of("checkv2", content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_comes_as_fields() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ip", "192.0.2.1"),
            ("from", "<a@b.c>"),
            ("rcpt", "x@y.z, <v@y.z>"),
            ("rcpt", "w@y.z"),
            ("helo", "h"),
            ("user", ""),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let case = case_of(&headers, Content::from_bytes(Vec::new()));
        assert_eq!((case.ip, case.sender.as_str(), case.login), ("192.0.2.1".parse().ok(), "a@b.c", None));
        assert_eq!(case.recipients, ["x@y.z", "v@y.z", "w@y.z"]);
    }
}
