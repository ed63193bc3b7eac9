//! Answers one request: guard, route, ask the gateway, write JSON. I/O: none of its own; awaits the gateway.

use std::fmt::Display;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::StatusCode;
use hyper::{Method, Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::backend::AdminFault;
use super::model::{RateReset, Refusal, Selection};
use super::route::{NoRoute, Route, route};
use super::server::Api;

/// A selection of ten thousand ids fits.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Lessons are whole messages, in base64; the largest that an mx takes by default fits.
const LESSONS_BYTES_MAX: usize = 72 << 20;

pub(super) type Answer = Response<Full<Bytes>>;

/// What went wrong, as status and text.
struct Fault(StatusCode, String);

impl From<AdminFault> for Fault {
    fn from(fault: AdminFault) -> Self {
        match fault {
            AdminFault::NotFound(text) => Fault(StatusCode::NOT_FOUND, text),
            AdminFault::Conflict(text) => Fault(StatusCode::CONFLICT, text),
            AdminFault::Unavailable(text) => Fault(StatusCode::SERVICE_UNAVAILABLE, text),
        }
    }
}

pub(super) async fn respond(api: &Api, request: Request<Incoming>) -> Answer {
    let answer = answer(api, request).await.unwrap_or_else(|Fault(status, error)| {
        let mut answer = json(status, &Refusal { error });
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        answer
    });
    with_headers(answer)
}

fn with_headers(mut answer: Answer) -> Answer {
    let fixed = [("x-content-type-options", "nosniff"), ("content-security-policy", "default-src 'none'")];
    for (name, value) in fixed {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

async fn answer(api: &Api, request: Request<Incoming>) -> Result<Answer, Fault> {
    let is_post = match *request.method() {
        Method::GET => false,
        Method::POST => true,
        _ => return Err(Fault(StatusCode::METHOD_NOT_ALLOWED, "only GET and POST are known".to_owned())),
    };
    let found = route(is_post, request.uri().path(), request.uri().query().unwrap_or_default());
    let open = found.as_ref().is_ok_and(Route::is_open);
    // Who has no token does not learn which paths there are.
    api.guard.check(request.headers(), open, is_post).map_err(|(status, text)| Fault(status, text.to_owned()))?;
    let route = found.map_err(|no| match no {
        NoRoute::Bad(text) => Fault(StatusCode::BAD_REQUEST, text),
        NoRoute::NotFound => Fault(StatusCode::NOT_FOUND, "there is nothing at this path".to_owned()),
        NoRoute::WrongMethod => {
            Fault(StatusCode::METHOD_NOT_ALLOWED, "the path is there for the other method".to_owned())
        }
    })?;
    let most = if route == Route::Learn { LESSONS_BYTES_MAX } else { BODY_BYTES_MAX };
    let body = if is_post { body_of(request, most).await? } else { Bytes::new() };
    ask(api, route, &body).await
}

async fn body_of(request: Request<Incoming>, most: usize) -> Result<Bytes, Fault> {
    let limited = Limited::new(request.into_body(), most);
    let wrong = |error: &dyn Display| Fault(StatusCode::PAYLOAD_TOO_LARGE, format!("the body can't be taken: {error}"));
    limited.collect().await.map(|body| body.to_bytes()).map_err(|error| wrong(&error))
}

async fn ask(api: &Api, route: Route, body: &[u8]) -> Result<Answer, Fault> {
    let gateway = &api.backend;
    Ok(match route {
        Route::Metrics => text("text/plain; version=0.0.4; charset=utf-8", api.metrics.text()),
        Route::Health => text("text/plain; charset=utf-8", "ok\n".to_owned()),
        Route::Ready => match gateway.not_ready() {
            None => text("text/plain; charset=utf-8", "ready\n".to_owned()),
            Some(why) => return Err(Fault(StatusCode::SERVICE_UNAVAILABLE, why)),
        },
        Route::QueueList(filter, most) => ok(&gateway.queue_list(filter, most).await?),
        Route::QueueShow(id) => ok(&gateway.queue_show(id).await?),
        Route::QueueContent(id) => bytes("message/rfc822", gateway.queue_content(id).await?),
        Route::QueueWhy(id) => ok(&gateway.queue_why(id).await?),
        Route::QueueAct(action, quarantine_only) => {
            let selection: Selection = parse(body)?;
            if selection.ids.is_empty() && selection.filter.is_none() {
                return Err(Fault(StatusCode::BAD_REQUEST, "name ids or a filter".to_owned()));
            }
            ok(&gateway.queue_act(action, selection, quarantine_only).await?)
        }
        Route::QueueVerify => ok(&gateway.queue_verify().await?),
        Route::Audit(from, to) => ok(&gateway.audit(from, to).await?),
        Route::Stats => ok(&gateway.stats().await?),
        Route::Config => ok(&gateway.config_summary().await?),
        Route::RateList(key, most) => ok(&gateway.rate_list(key, most).await?),
        Route::RateReset => ok(&gateway.rate_reset(parse::<RateReset>(body)?.key).await?),
        Route::RuleCosts => ok(&gateway.rule_costs().await?),
        Route::Learn => ok(&gateway.learn(parse(body)?).await?),
        Route::ReportsWaiting(most) => ok(&gateway.reports_waiting(most).await?),
        Route::ReportsSend => ok(&gateway.reports_send(parse(body)?).await?),
        Route::ReportsReceived(filter, most) => ok(&gateway.reports_received(filter, most).await?),
        Route::Reload => ok(&gateway.reload().await?),
        Route::PauseDelivery(paused) => ok(&gateway.pause_delivery(paused).await?),
    })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(|error| Fault(StatusCode::BAD_REQUEST, format!("the body is wrong: {error}")))
}

fn ok(value: &impl Serialize) -> Answer {
    json(StatusCode::OK, value)
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let mut bytes = serde_json::to_vec(value).expect("our values have only string keys");
    bytes.push(b'\n');
    let mut answer = Response::new(Full::new(bytes.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn text(content_type: &'static str, text: String) -> Answer {
    bytes(content_type, text.into_bytes())
}

fn bytes(content_type: &'static str, text: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
