//! The table of calls: what an operator can ask for, and who may.

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use super::{Admin, cloudflare, dialect::Dialect, explain, fastly, live, purge, purges};
use crate::{problem::Problem, trigger::Access};

/// One thing an operator can call.
pub(super) struct Call {
    pub(super) method: Method,
    /// Where it is called; `{name}` stands for one segment, `{name..}` for all that are left.
    pub(super) paths: &'static [&'static str],
    pub(super) access: Access,
    pub(super) dialect: Dialect,
    pub(super) answer: Answer,
}

/// What answers a call.
pub(super) enum Answer {
    /// At once, without looking at the body.
    Now(fn(&Admin, &Said<'_>) -> Response<Bytes>),
    /// To a body, too, which is no larger than [`crate::trigger::body::LARGEST`].
    ToBody(for<'a> fn(&'a Admin, Said<'a>) -> BoxFuture<'a, Response<Bytes>>),
}

/// What a request says.
pub(super) struct Said<'a> {
    /// What stands in the places of the path, as it is encoded.
    pub(super) places: Vec<&'a str>,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

/// A call, and what stands in the places of its path.
pub(super) struct Found<'a> {
    pub(super) call: &'static Call,
    pub(super) places: Vec<&'a str>,
}

/// Every call there is. `HEAD` is answered wherever `GET` is.
pub(super) const CALLS: &[Call] = &[
    Call {
        method: Method::GET,
        paths: &["/livez"],
        access: Access::Open,
        dialect: Dialect::Larder,
        answer: Answer::Now(|_, _| live()),
    },
    Call {
        method: Method::GET,
        paths: &["/readyz", "/healthz", "/health"],
        access: Access::Open,
        dialect: Dialect::Larder,
        answer: Answer::Now(|admin, _| admin.ready()),
    },
    Call {
        method: Method::GET,
        paths: &["/metrics"],
        access: Access::Read,
        dialect: Dialect::Larder,
        answer: Answer::Now(|admin, _| admin.expose()),
    },
    Call {
        method: Method::POST,
        paths: &["/v1/purge"],
        access: Access::Purge,
        dialect: Dialect::Larder,
        answer: Answer::ToBody(|admin, said| purge::answer(&admin.purger, said).boxed()),
    },
    Call {
        method: Method::GET,
        paths: &["/v1/purges"],
        access: Access::Read,
        dialect: Dialect::Larder,
        answer: Answer::Now(|admin, said| purges::list(&admin.purger, said)),
    },
    Call {
        method: Method::GET,
        paths: &["/v1/purges/{seq}"],
        access: Access::Read,
        dialect: Dialect::Larder,
        answer: Answer::Now(|admin, said| purges::one(&admin.purger, said)),
    },
    Call {
        method: Method::POST,
        paths: &["/v1/explain"],
        access: Access::Read,
        dialect: Dialect::Larder,
        answer: Answer::ToBody(|admin, said| explain::answer(admin, said).boxed()),
    },
    Call {
        method: Method::POST,
        paths: &["/service/{service}/purge"],
        access: Access::Purge,
        dialect: Dialect::Fastly,
        answer: Answer::ToBody(|admin, said| fastly::keys(&admin.purger, said).boxed()),
    },
    Call {
        method: Method::POST,
        paths: &["/service/{service}/purge/{key}"],
        access: Access::Purge,
        dialect: Dialect::Fastly,
        answer: Answer::ToBody(|admin, said| fastly::key(&admin.purger, said).boxed()),
    },
    Call {
        method: Method::POST,
        paths: &["/service/{service}/purge_all"],
        access: Access::Purge,
        dialect: Dialect::Fastly,
        answer: Answer::ToBody(|admin, _| fastly::all(&admin.purger).boxed()),
    },
    Call {
        method: Method::POST,
        paths: &["/purge/{url..}"],
        access: Access::Purge,
        dialect: Dialect::Fastly,
        answer: Answer::ToBody(|admin, said| fastly::url(&admin.purger, said).boxed()),
    },
    Call {
        method: Method::POST,
        paths: &["/zones/{zone}/purge_cache", "/client/v4/zones/{zone}/purge_cache"],
        access: Access::Purge,
        dialect: Dialect::Cloudflare,
        answer: Answer::ToBody(|admin, said| cloudflare::purge(&admin.purger, said).boxed()),
    },
];

/// The call that a request makes, or the answer that there is none.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<Found<'a>, Box<Response<Bytes>>> {
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    let mut allowed = Vec::new();
    for call in CALLS {
        let Some(places) = call.paths.iter().find_map(|pattern| places(pattern, path)) else {
            continue;
        };
        if call.method == *wanted {
            return Ok(Found { call, places });
        }
        allowed.push(call.method.as_str());
    }
    Err(Box::new(if allowed.is_empty() { no_such_call() } else { wrong_method(&allowed) }))
}

/// What stands in the places of a pattern, if the path fits it.
fn places<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let (mut places, mut rest) = (Vec::new(), path);
    for segment in pattern.split('/').skip(1) {
        rest = rest.strip_prefix('/')?;
        let end = if segment.ends_with("..}") { None } else { rest.find('/') };
        let (here, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        if segment.starts_with('{') && !here.is_empty() {
            places.push(here);
        } else if here != segment {
            return None;
        }
    }
    rest.is_empty().then_some(places)
}

fn no_such_call() -> Response<Bytes> {
    let known: Vec<String> = CALLS.iter().map(Call::name).collect();
    let detail = format!("The calls are {}.", known.join(", "));
    Problem::new(StatusCode::NOT_FOUND, "No such call", detail).into_response()
}

fn wrong_method(allowed: &[&str]) -> Response<Bytes> {
    let allowed = allowed.join(", ");
    let detail = format!("This call takes {allowed}.");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
    let mut response = problem.into_response();
    if let Ok(allow) = HeaderValue::from_str(&allowed.replace("GET", "GET, HEAD")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

impl Call {
    /// How operators know it.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.paths.first().unwrap_or(&""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_a_path_are_found_where_all_of_it_fits() {
        let found = |pattern, path| places(pattern, path).map(|places| places.join(" "));
        assert_eq!(found("/a/{b}/c", "/a/x%2Fy/c").as_deref(), Some("x%2Fy"));
        assert_eq!(found("/a/{b}/{c}", "/a/x/y").as_deref(), Some("x y"));
        assert_eq!(found("/a/{b..}", "/a/https://h//x/").as_deref(), Some("https://h//x/"));
        assert_eq!(found("/a", "/a").as_deref(), Some(""));
        for (pattern, path) in [
            ("/a/{b}", "/a/"),
            ("/a/{b}", "/a"),
            ("/a/{b}", "/a/x/"),
            ("/a/{b}/c", "/a//c"),
            ("/a/{b..}", "/a/"),
            ("/a", "/a/"),
            ("/a", "/ab"),
            ("/a", ""),
        ] {
            assert_eq!(found(pattern, path), None, "{pattern} {path}");
        }
    }

    #[test]
    fn no_two_calls_answer_the_same_request() {
        for call in CALLS {
            for pattern in call.paths {
                let path = pattern.replace("..", "");
                let fits = |other: &&Call| {
                    other.method == call.method
                        && other.paths.iter().any(|pattern| places(pattern, &path).is_some())
                };
                assert_eq!(CALLS.iter().filter(fits).count(), 1, "{path}");
            }
        }
    }
}
