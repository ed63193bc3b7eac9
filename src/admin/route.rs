//! Method and path to a question. Pure.

use super::model::{Filter, QueueAction, ReportFilter, State};
use super::query;

/// Entries of a list when `limit` is not given, and at most.
const LIST_DEFAULT: usize = 100;
const LIST_MAX: usize = 100_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /metrics`
    Metrics,
    /// `GET /healthz`: the process answers.
    Health,
    /// `GET /readyz`: mail is accepted.
    Ready,
    /// `GET /v1/queue`, `GET /v1/quarantine`
    QueueList(Filter, usize),
    /// `GET /v1/queue/ID`
    QueueShow(String),
    /// `GET /v1/queue/ID/content`
    QueueContent(String),
    /// `GET /v1/queue/ID/why`
    QueueWhy(String),
    /// `POST /v1/queue/ACTION`, `POST /v1/quarantine/ACTION` (then only what is in quarantine)
    QueueAct(QueueAction, bool),
    /// `GET /v1/queue/verify`
    QueueVerify,
    /// `GET /v1/audit`, with `from` and `to` in seconds since 1970
    Audit(Option<u64>, Option<u64>),
    /// `GET /v1/stats`
    Stats,
    /// `GET /v1/config`
    Config,
    /// `GET /v1/rates`
    RateList(Option<String>, usize),
    /// `POST /v1/rates/reset`
    RateReset,
    /// `GET /v1/rules`
    RuleCosts,
    /// `POST /v1/learn`
    Learn,
    /// `GET /v1/reports/waiting`
    ReportsWaiting(usize),
    /// `POST /v1/reports/send`
    ReportsSend,
    /// `GET /v1/reports/received`, with `domain` and `since`
    ReportsReceived(ReportFilter, usize),
    /// `POST /v1/reload`
    Reload,
    /// `POST /v1/delivery/pause`, `POST /v1/delivery/resume`
    PauseDelivery(bool),
}

/// Why there is no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// 400, with what is wrong.
    Bad(String),
    /// 404
    NotFound,
    /// 405: the path is there for the other method.
    WrongMethod,
}

impl Route {
    /// True if the token is not asked for.
    pub fn is_open(&self) -> bool {
        matches!(self, Route::Metrics | Route::Health | Route::Ready)
    }
}

/// Finds what is asked; `is_post` is false for GET.
/// # Errors
/// See [`NoRoute`].
pub fn route(is_post: bool, path: &str, query: &str) -> Result<Route, NoRoute> {
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let found = if is_post { post(&segments) } else { get(&segments, query)? };
    if let Some(route) = found {
        return Ok(route);
    }
    let other = if is_post { get(&segments, "").ok().flatten() } else { post(&segments) };
    Err(if other.is_some() { NoRoute::WrongMethod } else { NoRoute::NotFound })
}

fn get(segments: &[&str], query: &str) -> Result<Option<Route>, NoRoute> {
    Ok(Some(match segments {
        ["metrics"] => Route::Metrics,
        ["healthz"] => Route::Health,
        ["readyz"] => Route::Ready,
        ["v1", "queue"] => {
            let (filter, most) = list_of(query)?;
            Route::QueueList(filter, most)
        }
        ["v1", "quarantine"] => {
            let (filter, most) = list_of(query)?;
            Route::QueueList(Filter { state: Some(State::Quarantined), ..filter }, most)
        }
        // The words of actions are no ids: they have fewer characters.
        ["v1", "queue", word] if action_of(word).is_some() => return Ok(None),
        ["v1", "queue", "verify"] => Route::QueueVerify,
        ["v1", "queue", id] => Route::QueueShow((*id).to_owned()),
        ["v1", "queue", id, "content"] => Route::QueueContent((*id).to_owned()),
        ["v1", "queue", id, "why"] => Route::QueueWhy((*id).to_owned()),
        ["v1", "audit"] => {
            let (mut from, mut to) = (None, None);
            read_query(query, |name, value| {
                let end = match name {
                    "from" => &mut from,
                    "to" => &mut to,
                    _ => return false,
                };
                *end = value.parse().ok();
                end.is_some()
            })?;
            Route::Audit(from, to)
        }
        ["v1", "stats"] => Route::Stats,
        ["v1", "config"] => Route::Config,
        ["v1", "rates"] => {
            let mut key = None;
            let most = read_query(query, |name, value| {
                key = (name == "key").then(|| value.to_owned());
                key.is_some()
            })?;
            Route::RateList(key, most)
        }
        ["v1", "rules"] => Route::RuleCosts,
        ["v1", "reports", "waiting"] => Route::ReportsWaiting(read_query(query, |_, _| false)?),
        ["v1", "reports", "received"] => {
            let mut filter = ReportFilter::default();
            let most = read_query(query, |name, value| match name {
                "domain" => {
                    filter.domain = Some(value.to_ascii_lowercase());
                    true
                }
                "since" => value.parse().map(|since| filter.since = since).is_ok(),
                _ => false,
            })?;
            Route::ReportsReceived(filter, most)
        }
        _ => return Ok(None),
    }))
}

fn post(segments: &[&str]) -> Option<Route> {
    match segments {
        ["v1", "queue", word] => action_of(word).map(|action| Route::QueueAct(action, false)),
        ["v1", "quarantine", word @ ("release" | "drop")] => {
            action_of(word).map(|action| Route::QueueAct(action, true))
        }
        ["v1", "rates", "reset"] => Some(Route::RateReset),
        ["v1", "learn"] => Some(Route::Learn),
        ["v1", "reports", "send"] => Some(Route::ReportsSend),
        ["v1", "reload"] => Some(Route::Reload),
        ["v1", "delivery", "pause"] => Some(Route::PauseDelivery(true)),
        ["v1", "delivery", "resume"] => Some(Route::PauseDelivery(false)),
        _ => None,
    }
}

fn action_of(word: &str) -> Option<QueueAction> {
    QueueAction::WORDS.iter().find(|(own, _)| *own == word).map(|(_, action)| *action)
}

fn list_of(query: &str) -> Result<(Filter, usize), NoRoute> {
    let mut filter = Filter::default();
    let most = read_query(query, |name, value| {
        let text = || Some(value.to_owned());
        match name {
            "state" => filter.state = State::WORDS.iter().find(|(word, _)| *word == value).map(|(_, state)| *state),
            "destination" => filter.destination = text(),
            "sender" => filter.sender = text(),
            "recipient" => filter.recipient = text(),
            "older_secs" => filter.older_secs = value.parse().ok(),
            _ => return false,
        }
        !(name == "state" && filter.state.is_none() || name == "older_secs" && filter.older_secs.is_none())
    })?;
    Ok((filter, most))
}

/// Reads `limit` itself and hands the rest to `take`, which answers false for what it does not know.
fn read_query(query: &str, mut take: impl FnMut(&str, &str) -> bool) -> Result<usize, NoRoute> {
    let mut most = LIST_DEFAULT;
    let pairs = query::pairs(query).ok_or_else(|| NoRoute::Bad("the query is not percent-encoded UTF-8".to_owned()))?;
    for (name, value) in pairs {
        let known = match (name.as_str(), value.parse::<usize>()) {
            ("limit", Ok(limit)) => {
                most = limit.min(LIST_MAX);
                true
            }
            (name, _) => name != "limit" && take(name, &value),
        };
        if !known {
            return Err(NoRoute::Bad(format!("`{name}={value}` is not understood")));
        }
    }
    Ok(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_state_by_get() {
        for path in [
            "/v1/learn",
            "/v1/queue/drop",
            "/v1/reload",
            "/v1/delivery/pause",
            "/v1/rates/reset",
            "/v1/quarantine/release",
        ] {
            assert_eq!(route(false, path, ""), Err(NoRoute::WrongMethod), "{path}");
            assert!(route(true, path, "").is_ok(), "{path}");
        }
        assert_eq!(route(true, "/v1/queue", ""), Err(NoRoute::WrongMethod));
        assert_eq!(route(true, "/v1/quarantine/hold", ""), Err(NoRoute::NotFound));
        assert_eq!(route(false, "/", ""), Err(NoRoute::NotFound));
    }

    #[test]
    fn filters_are_read_and_unknown_ones_refused() {
        let Ok(Route::QueueList(filter, 5)) = route(false, "/v1/queue", "sender=%40example.org&limit=5&older_secs=60")
        else {
            panic!()
        };
        assert_eq!((filter.sender.as_deref(), filter.older_secs), (Some("@example.org"), Some(60)));
        assert_eq!(route(false, "/v1/audit", "from=5"), Ok(Route::Audit(Some(5), None)));
        assert_eq!(route(false, "/v1/queue/verify", ""), Ok(Route::QueueVerify));
        for query in ["sendr=x", "state=lost", "limit=all", "older_secs=1h", "sender=%zz"] {
            assert!(matches!(route(false, "/v1/queue", query), Err(NoRoute::Bad(_))), "{query}");
        }
    }
}
