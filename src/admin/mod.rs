//! The admin listener, which serves health checks, metrics and operators' calls.

mod call;
mod cloudflare;
mod dialect;
mod endpoints;
mod explain;
mod fastly;
mod host;
mod monitoring;
mod purge;
mod purges;
mod quarantine;
mod services;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;

pub(crate) use self::services::{
    AdminServices, ExplainFn, QuarantineService, Readiness, ReadinessReport, RenderedExplanation,
};
use self::{
    call::AdminCall,
    endpoints::{EndpointHandler, MatchedEndpoint},
};
use crate::{
    problem::Problem,
    server::{Connection, Handler, Incoming},
    trigger::{
        Authorization, RequiredPermission, Tokens,
        body::{BodyBudget, BodyReadError, BufferedBody, EndpointCaller},
        purge_method,
    },
};

/// The request handler of the admin listener.
pub(crate) struct Admin {
    settings: ArcSwap<Settings>,
    services: AdminServices,
    body_budget: BodyBudget,
}

/// The configurable settings of the admin listener, replaced as a whole on reload.
#[derive(Default)]
pub(crate) struct Settings {
    /// The tokens and their permissions.
    pub tokens: Tokens,
    /// The accepted host names in canonical form: `larder.example`, `*.example`.
    pub hosts: Vec<Box<str>>,
}

impl Admin {
    pub(crate) fn new(settings: Settings, services: AdminServices) -> Self {
        let (settings, body_budget) = (ArcSwap::from_pointee(settings), BodyBudget::default());
        Self { settings, services, body_budget }
    }

    /// Replaces the settings for subsequent requests.
    pub(crate) fn replace(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    async fn respond<B>(&self, request: Request<B>, connection: &Connection) -> Response<Bytes>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let MatchedEndpoint { endpoint, parameters } =
            match endpoints::find(&head.method, head.uri.path()) {
                Ok(found) => found,
                Err(response) => return *response,
            };
        let settings = self.settings.load_full();
        let authorization = settings.tokens.authorize(endpoint.access, &head.headers);
        let host_check = host::HostCheck { headers: &head.headers, peer: connection.peer };
        let refused = refusal(authorization).or_else(|| {
            // A web page cannot send a token, so calls that require one skip the host check.
            let is_proven =
                endpoint.access == RequiredPermission::Open || !settings.tokens.is_empty();
            (!is_proven && !host_check.is_allowed(&settings.hosts)).then(host::unknown_host)
        });
        if let Some(problem) = refused {
            return endpoint.dialect.refuse(problem);
        }
        let call =
            AdminCall { parameters, query: head.uri.query(), headers: &head.headers, body: &[] };
        match endpoint.handler {
            EndpointHandler::Immediate(handle) => handle(&self.services, &call),
            EndpointHandler::WithBody(handle) => match self.read(body, connection).await {
                Ok(body) => handle(&self.services, AdminCall { body: &body, ..call }).await,
                Err(error) => endpoint.dialect.refuse(error.problem()),
            },
        }
    }

    /// Reads the body of an authorized call.
    async fn read<B>(&self, body: B, connection: &Connection) -> Result<BufferedBody, BodyReadError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.body_budget
            .read(body, connection.body.idle_timeout, EndpointCaller::Authenticated)
            .await
    }
}

impl Handler for Admin {
    type Body = Full<Bytes>;

    async fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        connection: &Arc<Connection>,
    ) -> Response<Full<Bytes>> {
        self.respond(request, connection).await.map(Full::new)
    }
}

/// Returns the response to a caller that lacks the permission; `None` if the call is allowed.
fn refusal(authorization: Authorization) -> Option<Problem> {
    let forbidden = |detail| Problem::new(StatusCode::FORBIDDEN, "Not allowed", detail);
    match authorization {
        Authorization::Granted => None,
        Authorization::Unauthenticated => Some(purge_method::token_required()),
        Authorization::Forbidden => {
            Some(forbidden("This token does not have the permission for this call."))
        }
        Authorization::Unconfigured => {
            let detail =
                "No token is configured for this call: set `admin.token` in the configuration.";
            Some(forbidden(detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http::Method;

    use super::{
        dialect::Dialect,
        endpoints::{AdminEndpoint, ENDPOINTS},
        *,
    };
    use crate::{
        purge::{PurgeLog, PurgeReceipt},
        trigger::{Purger, SelectorResolver, Token},
    };

    fn admin(tokens: Tokens) -> Admin {
        let metrics = crate::telemetry::Metrics::new();
        let log = Arc::new(PurgeLog::in_memory());
        let resolver = SelectorResolver {
            normalize: Box::new(|target: &crate::key::uri::TargetUri<'_>| {
                vec![crate::fence::Selector::Url(target.path.into())]
            }),
            owners: Box::new(|_, _| Vec::new()),
        };
        let services = AdminServices {
            purger: Arc::new(Purger::new(log, metrics, resolver)),
            readiness: Box::new(|| ReadinessReport {
                readiness: Readiness::Ready,
                details: Vec::new(),
            }),
            refresh: Box::new(|| ()),
            explain: Box::new(|_| {
                let explained = RenderedExplanation { json: b"{}".to_vec(), text: String::new() };
                std::future::ready(Ok(explained)).boxed()
            }),
            quarantine: QuarantineService {
                list: Box::new(Vec::new),
                clear: Box::new(|_| std::future::ready(Ok(PurgeReceipt::standalone(1))).boxed()),
            },
            verification: Box::new(|| b"{}".to_vec()),
        };
        let settings = Settings { tokens, hosts: Vec::new() };
        Admin::new(settings, services)
    }

    async fn ask(
        admin: &Admin,
        (method, path): (Method, &str),
        token: Option<&str>,
        body: &'static str,
    ) -> Response<Bytes> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::from(body)).unwrap();
        admin.respond(request, &Connection::default()).await
    }

    /// Returns a path that matches a pattern, and a valid body.
    fn example(endpoint: &AdminEndpoint, pattern: &str) -> (String, &'static str) {
        let path = pattern.replace("{seq}", "1").replace("{url..}", "h/a").replace(['{', '}'], "");
        let body = match endpoint.dialect {
            Dialect::Fastly => r#"{"surrogate_keys":["a"]}"#,
            Dialect::Larder | Dialect::Cloudflare => r#"{"tags":["a"]}"#,
        };
        (path, body)
    }

    #[tokio::test]
    async fn with_a_token_every_call_but_health_requires_it() {
        let admin = admin(Tokens::new(vec![Token::full_access("secret")]));
        for endpoint in ENDPOINTS {
            for pattern in endpoint.paths {
                let (path, body) = example(endpoint, pattern);
                let status = async |token| {
                    ask(&admin, (endpoint.method.clone(), &path), token, body).await.status()
                };
                let without = match endpoint.access {
                    RequiredPermission::Open => StatusCode::OK,
                    RequiredPermission::Read | RequiredPermission::Purge => {
                        StatusCode::UNAUTHORIZED
                    }
                };
                assert_eq!(status(None).await, without, "{path}");
                assert_eq!(status(Some("wrong")).await, without, "{path}");
                assert_eq!(status(Some("secret")).await, StatusCode::OK, "{path}");
            }
        }
    }

    #[tokio::test]
    async fn rejections_have_the_error_format_of_the_call() {
        let admin = admin(Tokens::new(vec![Token::full_access("secret")]));
        for (path, expected) in [
            ("/v1/purge", r#""title":"Token required""#),
            ("/service/x/purge_all", r#""msg":"Token required""#),
            ("/zones/x/purge_cache", r#""success":false"#),
        ] {
            let refused = ask(&admin, (Method::POST, path), None, "").await;
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(refused.headers()["www-authenticate"], "Bearer");
            let body = String::from_utf8_lossy(refused.body());
            assert!(body.contains(expected), "{body}");
        }
    }

    #[tokio::test]
    async fn purging_requires_a_token_with_the_permission() {
        let purge = async |tokens, token| {
            let call = (Method::POST, "/v1/purge");
            ask(&admin(tokens), call, token, r#"{"everything":true}"#).await.status()
        };
        assert_eq!(purge(Tokens::default(), None).await, StatusCode::FORBIDDEN);
        let reader = Token::new("reader", vec![RequiredPermission::Read]);
        let both = Tokens::new(vec![reader.clone(), Token::full_access("all")]);
        assert_eq!(purge(both, Some("reader")).await, StatusCode::FORBIDDEN);
        let none = Tokens::new(vec![reader]);
        assert_eq!(purge(none, Some("reader")).await, StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_get_problem_documents() {
        let admin = admin(Tokens::new(Vec::new()));
        let nothing = ask(&admin, (Method::GET, "/nothing"), None, "").await;
        assert_eq!(nothing.status(), StatusCode::NOT_FOUND);
        let text = String::from_utf8_lossy(nothing.body()).into_owned();
        assert!(
            text.contains("GET /livez, GET /readyz, GET /metrics, POST /v1/purge, GET /v1/purges"),
            "{text}"
        );
        let wrong = ask(&admin, (Method::POST, "/metrics"), None, "").await;
        assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(wrong.headers()["content-type"], "application/problem+json");
        assert_eq!(wrong.headers()["allow"], "GET, HEAD");
        let wrong = ask(&admin, (Method::GET, "/v1/purge"), None, "").await;
        assert_eq!(wrong.headers()["allow"], "POST");
    }
}
