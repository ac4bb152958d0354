//! Warming after a successful response: `on_success = { warm = […] }`.

use http::{HeaderMap, HeaderName, StatusCode, header, request::Parts};

use super::request::{ClientProfile, WarmClients, WarmRequest};
use crate::{
    field::{forwarding::OVERRIDES, hop},
    route::Route,
    server::Connection,
};

/// Fields about the original request rather than its client, which are not sent with warm-up
/// requests. The same applies to fields that begin with `content-` or `if-`, and to [override
/// fields](OVERRIDES).
const REQUEST_FIELDS: [HeaderName; 8] = [
    hop::LARDER_WARM,
    header::HOST,
    header::EXPECT,
    header::RANGE,
    header::CACHE_CONTROL,
    header::PRAGMA,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-request-id"),
];

/// Returns the warm-up requests to send after a response. There are none unless `status` is a
/// success.
///
/// The requests have the client's connection, host, credentials and other fields, so that they
/// fetch only responses that the client may see.
pub(crate) fn requests_on_success(
    route: &Route,
    request: &Parts,
    status: StatusCode,
    connection: &Connection,
) -> Vec<WarmRequest> {
    if route.warm_on_success.is_empty() || !status.is_success() {
        return Vec::new();
    }
    let Some(host) = request.headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return Vec::new();
    };
    let targets = route.targets_to_warm(request.uri.path(), request.uri.query());
    let peer = (connection.peer, connection.secure);
    let client = ClientProfile::new(peer, host, callers_fields(&request.headers));
    let request = |target: String| WarmRequest {
        client: WarmClients::One(client.clone()),
        target: target.into(),
        content: None,
        report: None,
    };
    targets.into_iter().map(request).collect()
}

fn callers_fields(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    hop::remove(&mut headers);
    let own: Vec<HeaderName> =
        headers.keys().filter(|name| is_requests_own(name)).cloned().collect();
    for name in own {
        headers.remove(name);
    }
    headers
}

fn is_requests_own(name: &HeaderName) -> bool {
    let text = name.as_str();
    text.starts_with("content-")
        || text.starts_with("if-")
        || REQUEST_FIELDS.contains(name)
        || OVERRIDES.contains(&text)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        policy::CacheRule,
        route::{Pattern, TargetTemplate},
    };

    fn login(warm: &[&str]) -> Route {
        let pattern = Pattern::parse("POST /users/{user}/login").unwrap();
        let templates = warm.iter().map(|text| TargetTemplate::parse(text, &pattern).unwrap());
        Route {
            warm_on_success: templates.collect(),
            pattern: Some(pattern),
            ..Route::unmatched(CacheRule::default())
        }
    }

    fn request() -> Parts {
        let fields = [
            ("host", "api.test"),
            ("authorization", "Bearer secret"),
            ("x-tenant", "t1"),
            ("accept-language", "de"),
            ("content-length", "2"),
            ("content-type", "application/json"),
            ("if-none-match", "\"1\""),
            ("x-request-id", "r1"),
            ("x-original-uri", "/b"),
            ("connection", "x-once"),
            ("x-once", "1"),
            ("x-larder-warm", "wait"),
        ];
        let request = Request::post("/users/7/login?range=7d");
        let request =
            fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_success_has_the_callers_own_requests_sent_ahead() {
        let connection = Connection { secure: true, ..Connection::default() };
        let route = login(&["/stocks", "/users/{user}/notes?range={?range}"]);
        let requests = requests_on_success(&route, &request(), StatusCode::CREATED, &connection);
        let targets: Vec<&str> = requests.iter().map(|request| &*request.target).collect();
        assert_eq!(targets, ["/stocks", "/users/7/notes?range=7d"]);
        for request in &requests {
            let WarmClients::One(client) = &request.client else { panic!("{request:?}") };
            assert_eq!(&*client.host, "api.test");
            assert!(client.connection.secure);
            let names: Vec<&str> = client.headers.keys().map(HeaderName::as_str).collect();
            assert_eq!(names.len(), 3, "{names:?}");
            assert_eq!(client.headers["authorization"], "Bearer secret");
            assert_eq!(client.headers["x-tenant"], "t1");
            assert!(!format!("{request:?}").contains("secret"));
        }
    }

    #[test]
    fn nothing_is_sent_ahead_after_a_failure_or_where_nothing_is_configured() {
        let connection = Connection::default();
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FOUND, StatusCode::BAD_GATEWAY] {
            assert!(
                requests_on_success(&login(&["/a"]), &request(), status, &connection).is_empty()
            );
        }
        assert!(
            requests_on_success(&login(&[]), &request(), StatusCode::OK, &connection).is_empty()
        );
    }
}
