//! Who may ask: host, origin, token, content type. Pure.
//!
//! A web page that the operator looks at must not be able to empty the queue: a name that it made point to loopback is not ours
//! (`Host`), another site's script is not ours (`Origin`), a form can't send JSON, and none of them knows the token.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::StatusCode;

use crate::base::secret::Secret;
use crate::config::Config;

/// What is needed to decide.
pub struct Guard {
    /// The token.
    pub token: Secret,
    /// Names, in lower case and without port, under which the API may be called.
    pub hosts: Vec<String>,
}

/// The refusal: status and what is wrong.
pub type Refused = (StatusCode, &'static str);

impl Guard {
    /// Takes `localhost`, the host's own name and `[admin] hosts`.
    pub fn new(token: Secret, config: &Config) -> Self {
        let names = ["localhost", &config.hostname].map(str::to_owned).into_iter();
        Guard { token, hosts: names.chain(config.admin.hosts.iter().cloned()).collect() }
    }

    /// An address is always ours: a page that tricks a browser needs a name to do it.
    fn knows_host(&self, host: &str) -> bool {
        let name = without_port(host).to_lowercase();
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
        bare.parse::<IpAddr>().is_ok() || self.hosts.contains(&name)
    }

    /// Checks a request; `open` ones need no token, those with a body must be JSON.
    /// # Errors
    /// 400, 401, 403 or 415.
    pub fn check(&self, headers: &HeaderMap, open: bool, has_body: bool) -> Result<(), Refused> {
        let host = single(headers, HOST)?.ok_or((StatusCode::BAD_REQUEST, "a Host is needed"))?;
        if !self.knows_host(host) {
            return Err((StatusCode::FORBIDDEN, "this Host is not ours"));
        }
        if let Some(origin) = single(headers, ORIGIN)?
            && origin.split_once("://").is_none_or(|(_, from)| !from.eq_ignore_ascii_case(host))
        {
            return Err((StatusCode::FORBIDDEN, "this Origin is not ours"));
        }
        if !open && !self.knows_token(single(headers, AUTHORIZATION)?.unwrap_or_default()) {
            return Err((StatusCode::UNAUTHORIZED, "a bearer token is needed; see admin.token in data_dir"));
        }
        let content_type = single(headers, CONTENT_TYPE)?.unwrap_or_default();
        let is_json = content_type.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case("application/json"));
        if has_body && !is_json {
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json"));
        }
        Ok(())
    }

    fn knows_token(&self, authorization: &str) -> bool {
        let Some((scheme, token)) = authorization.split_once(' ') else { return false };
        let same =
            aws_lc_rs::constant_time::verify_slices_are_equal(token.trim().as_bytes(), self.token.expose().as_bytes());
        scheme.eq_ignore_ascii_case("bearer") && same.is_ok()
    }
}

/// A header's value, if it is there once; twice is a trick.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refused> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| (StatusCode::BAD_REQUEST, "a header is not ASCII")),
        (Some(_), Some(_)) => Err((StatusCode::BAD_REQUEST, "a header is there twice")),
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(HeaderName, &str)], open: bool, has_body: bool) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        let text = "hostname = 'mx1.example.org'\n[admin]\nhosts = ['weir']\n";
        let config = Config::parse(std::path::Path::new("weir.toml"), text).unwrap();
        let guard = Guard::new(Secret::new("0123456789abcdef"), &config);
        guard.check(&map, open, has_body).err().map_or(200, |(status, _)| status.as_u16())
    }

    #[test]
    fn strangers_pages_and_names_are_refused() {
        let token = (AUTHORIZATION, "Bearer 0123456789abcdef");
        let host = (HOST, "127.0.0.1:8025");
        let json = (CONTENT_TYPE, "application/json; charset=utf-8");
        assert_eq!(check(std::slice::from_ref(&host), true, false), 200);
        assert_eq!(check(&[(HOST, "[::1]:8025"), token.clone()], false, false), 200);
        assert_eq!(check(&[(HOST, "MX1.example.org"), token.clone(), json.clone()], false, true), 200);
        assert_eq!(check(&[(HOST, "weir:8025")], true, false), 200);
        assert_eq!(check(&[(HOST, "10.0.0.9")], true, false), 200);
        assert_eq!(check(&[], true, false), 400);
        assert_eq!(check(&[host.clone(), host.clone()], true, false), 400);
        assert_eq!(check(&[(HOST, "evil.example:8025"), token.clone()], false, false), 403);
        assert_eq!(check(&[host.clone(), token.clone(), (ORIGIN, "http://evil.example")], false, false), 403);
        assert_eq!(check(&[host.clone(), token.clone(), (ORIGIN, "null")], false, false), 403);
        assert_eq!(check(&[host.clone(), token.clone(), (ORIGIN, "http://127.0.0.1:8025")], false, false), 200);
        assert_eq!(check(std::slice::from_ref(&host), false, false), 401);
        assert_eq!(check(&[host.clone(), (AUTHORIZATION, "Bearer 0123456789abcdeX")], false, false), 401);
        assert_eq!(check(&[host.clone(), (AUTHORIZATION, "Basic 0123456789abcdef")], false, false), 401);
        assert_eq!(check(&[host.clone(), token.clone()], false, true), 415);
        assert_eq!(check(&[host, token, (CONTENT_TYPE, "text/plain")], false, true), 415);
    }
}
