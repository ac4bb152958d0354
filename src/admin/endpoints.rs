//! The table of admin endpoints, with the permission that each requires.

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Method, Response, StatusCode, header};

use super::{
    call::AdminCall, cloudflare, dialect::Dialect, explain, fastly, monitoring, purge, purges,
    quarantine, services::AdminServices,
};
use crate::{problem::Problem, trigger::RequiredPermission};

/// An endpoint of the admin API.
pub(super) struct AdminEndpoint {
    pub(super) method: Method,
    /// The path patterns. `{name}` matches one segment, `{name..}` all remaining segments.
    pub(super) paths: &'static [&'static str],
    pub(super) access: RequiredPermission,
    pub(super) dialect: Dialect,
    pub(super) handler: EndpointHandler,
}

/// The function that responds to a call.
pub(super) enum EndpointHandler {
    /// Responds without reading the body.
    Immediate(ImmediateHandler),
    /// Responds after reading [`MAX_BODY_BYTES`](crate::trigger::body::MAX_BODY_BYTES) at most.
    WithBody(BodyHandler),
}

type ImmediateHandler = fn(&AdminServices, &AdminCall<'_>) -> Response<Bytes>;
type BodyHandler = for<'a> fn(&'a AdminServices, AdminCall<'a>) -> BoxFuture<'a, Response<Bytes>>;

/// An endpoint with the values of its path parameters.
pub(super) struct MatchedEndpoint<'a> {
    pub(super) endpoint: &'static AdminEndpoint,
    pub(super) parameters: Vec<&'a str>,
}

/// All endpoints. Each `GET` endpoint also responds to `HEAD`.
pub(super) const ENDPOINTS: &[AdminEndpoint] = &[
    get(&["/livez"], RequiredPermission::Open, |_, _| monitoring::liveness()),
    get(&["/readyz", "/healthz", "/health"], RequiredPermission::Open, |services, _| {
        monitoring::readiness(services)
    }),
    get(&["/metrics"], RequiredPermission::Read, |services, _| monitoring::metrics(services)),
    post(&["/v1/purge"], RequiredPermission::Purge, Dialect::Larder, |services, call| {
        purge::respond(&services.purger, call).boxed()
    }),
    get(&["/v1/purges"], RequiredPermission::Read, |services, call| {
        purges::list(&services.purger, call)
    }),
    get(&["/v1/purges/{seq}"], RequiredPermission::Read, |services, call| {
        purges::show(&services.purger, call)
    }),
    get(&["/v1/quarantine"], RequiredPermission::Read, |services, _| {
        quarantine::list(&services.quarantine)
    }),
    AdminEndpoint {
        method: Method::DELETE,
        paths: &["/v1/quarantine/{route}"],
        access: RequiredPermission::Purge,
        dialect: Dialect::Larder,
        handler: EndpointHandler::WithBody(|services, call| {
            quarantine::clear(&services.quarantine, call).boxed()
        }),
    },
    get(&["/v1/shadow"], RequiredPermission::Read, |services, _| {
        monitoring::verification(services)
    }),
    post(&["/v1/explain"], RequiredPermission::Read, Dialect::Larder, |services, call| {
        explain::respond(&services.explain, call).boxed()
    }),
    post(
        &["/service/{service}/purge"],
        RequiredPermission::Purge,
        Dialect::Fastly,
        |services, call| fastly::purge_keys(&services.purger, call).boxed(),
    ),
    post(
        &["/service/{service}/purge/{key}"],
        RequiredPermission::Purge,
        Dialect::Fastly,
        |services, call| fastly::purge_key(&services.purger, call).boxed(),
    ),
    post(
        &["/service/{service}/purge_all"],
        RequiredPermission::Purge,
        Dialect::Fastly,
        |services, _| fastly::purge_all(&services.purger).boxed(),
    ),
    post(&["/purge/{url..}"], RequiredPermission::Purge, Dialect::Fastly, |services, call| {
        fastly::purge_url(&services.purger, call).boxed()
    }),
    post(
        &["/zones/{zone}/purge_cache", "/client/v4/zones/{zone}/purge_cache"],
        RequiredPermission::Purge,
        Dialect::Cloudflare,
        |services, call| cloudflare::purge(&services.purger, call).boxed(),
    ),
];

const fn get(
    paths: &'static [&'static str],
    access: RequiredPermission,
    handler: ImmediateHandler,
) -> AdminEndpoint {
    let handler = EndpointHandler::Immediate(handler);
    AdminEndpoint { method: Method::GET, paths, access, dialect: Dialect::Larder, handler }
}

const fn post(
    paths: &'static [&'static str],
    access: RequiredPermission,
    dialect: Dialect,
    handler: BodyHandler,
) -> AdminEndpoint {
    let handler = EndpointHandler::WithBody(handler);
    AdminEndpoint { method: Method::POST, paths, access, dialect, handler }
}

/// Returns the endpoint that matches a request, or else an error response.
pub(super) fn find<'a>(
    method: &Method,
    path: &'a str,
) -> Result<MatchedEndpoint<'a>, Box<Response<Bytes>>> {
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    let mut allowed = Vec::new();
    for endpoint in ENDPOINTS {
        let Some(parameters) = endpoint.paths.iter().find_map(|pattern| match_path(pattern, path))
        else {
            continue;
        };
        if endpoint.method == *wanted {
            return Ok(MatchedEndpoint { endpoint, parameters });
        }
        allowed.push(endpoint.method.as_str());
    }
    Err(Box::new(if allowed.is_empty() { no_such_call() } else { wrong_method(&allowed) }))
}

/// Returns the values of a pattern's parameters in a path; `None` if the path does not match.
fn match_path<'a>(pattern: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let (mut parameters, mut rest) = (Vec::new(), path);
    for segment in pattern.split('/').skip(1) {
        rest = rest.strip_prefix('/')?;
        let end = if segment.ends_with("..}") { None } else { rest.find('/') };
        let (here, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        if segment.starts_with('{') && !here.is_empty() {
            parameters.push(here);
        } else if here != segment {
            return None;
        }
    }
    rest.is_empty().then_some(parameters)
}

fn no_such_call() -> Response<Bytes> {
    let known: Vec<String> = ENDPOINTS.iter().map(AdminEndpoint::name).collect();
    let detail = format!("The calls are {}.", known.join(", "));
    Problem::new(StatusCode::NOT_FOUND, "No such call", detail).into_response()
}

fn wrong_method(allowed: &[&str]) -> Response<Bytes> {
    let allowed = allowed.join(", ");
    let detail = format!("This call accepts {allowed}.");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "Wrong method", detail);
    let mut response = problem.into_response();
    if let Ok(allow) = HeaderValue::from_str(&allowed.replace("GET", "GET, HEAD")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

impl AdminEndpoint {
    /// Returns the endpoint's method and first path, such as `GET /metrics`.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.paths.first().unwrap_or(&""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_parameters_are_found_if_the_whole_path_matches() {
        let found =
            |pattern, path| match_path(pattern, path).map(|parameters| parameters.join(" "));
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
    fn every_request_matches_at_most_one_call() {
        for endpoint in ENDPOINTS {
            for pattern in endpoint.paths {
                let path = pattern.replace("..", "");
                let fits = |other: &&AdminEndpoint| {
                    other.method == endpoint.method
                        && other.paths.iter().any(|pattern| match_path(pattern, &path).is_some())
                };
                assert_eq!(ENDPOINTS.iter().filter(fits).count(), 1, "{path}");
            }
        }
    }
}
