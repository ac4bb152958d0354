//! `POST /v1/purge`: parses the body, purges, and responds.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use serde::Deserialize;

use super::call::AdminCall;
use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    problem::Problem,
    trigger::{
        Purger, SelectorError, SelectorResolver,
        selector::{self, UrlNormalizer},
    },
};

/// Maximum length of the reason for a purge, in bytes.
const MAX_REASON_BYTES: usize = 1000;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Maximum length of an idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// Maximum number of selectors in one call, after all combinations are expanded.
const MAX_SELECTORS: usize = 10_000;

const FORM: &str = r#"Send JSON: {"tags": [], "urls": [], "prefixes": [], "patterns": [], "everything": false, "user": "whose", "users": [], "iss": "https://issuer", "routes": [], "version": "v1", "mode": "hard" or "soft", "reason": "why", "warm": false}, with at least one selector."#;

/// The request body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PurgeRequest {
    tags: Vec<String>,
    urls: Vec<String>,
    prefixes: Vec<String>,
    patterns: Vec<String>,
    everything: bool,
    user: Option<String>,
    users: Vec<String>,
    iss: Option<String>,
    routes: Vec<String>,
    version: Option<String>,
    mode: PurgeMode,
    reason: Option<String>,
    warm: bool,
}

/// Purges the responses that a body selects, at most once for each `Idempotency-Key`.
pub(super) async fn respond(purger: &Purger, call: AdminCall<'_>) -> Response<Bytes> {
    let read = read(call.body, purger.resolver());
    match read.and_then(|purge| Ok((purge, key(call.headers)?))) {
        Ok((purge, key)) => purger.purge_and_respond(purge, key).await,
        Err(detail) => Problem::new(StatusCode::BAD_REQUEST, "No purge", detail).into_response(),
    }
}

/// Returns the `Idempotency-Key`, which identifies repeated calls.
fn key(headers: &HeaderMap) -> Result<Option<&str>, String> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=MAX_KEY_BYTES).contains(&text.len()));
    text.map(Some).ok_or_else(|| {
        format!("`Idempotency-Key` has to be 1 to {MAX_KEY_BYTES} visible ASCII characters.")
    })
}

/// Parses the body into a purge. Fails with a message for the caller.
fn read(body: &[u8], resolver: &SelectorResolver) -> Result<Purge, String> {
    let request: PurgeRequest =
        serde_json::from_slice(body).map_err(|error| describe_error(&error))?;
    let selectors = restrict(selected(&request, resolver)?, &bounds(&request, resolver)?)?;
    let reason = request.reason.filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON_BYTES) {
        return Err(format!("`reason` has more than {MAX_REASON_BYTES} bytes."));
    }
    Ok(Purge {
        mode: request.mode,
        selectors,
        source: PurgeSource::Api,
        reason,
        warm: request.warm,
    })
}

/// Returns the selectors in the body. A response is purged if any of them selects it.
fn selected(request: &PurgeRequest, resolver: &SelectorResolver) -> Result<Vec<Selector>, String> {
    let mut selectors = Vec::new();
    add_selectors(&mut selectors, "tags", &request.tags, selector::tag)?;
    add_urls(&mut selectors, "urls", (&request.urls, &*resolver.normalize))?;
    add_selectors(&mut selectors, "prefixes", &request.prefixes, selector::prefix)?;
    add_selectors(&mut selectors, "patterns", &request.patterns, selector::pattern)?;
    if request.everything {
        selectors.push(Selector::Everything);
    }
    Ok(selectors)
}

/// Returns the restrictions on the purge. A response must match at least one selector of each.
fn bounds(
    request: &PurgeRequest,
    resolver: &SelectorResolver,
) -> Result<Vec<Vec<Selector>>, String> {
    let (mut routes, mut versions) = (Vec::new(), Vec::new());
    let users = users(request, resolver)?;
    add_selectors(&mut routes, "routes", &request.routes, selector::route)?;
    add_selector(&mut versions, "version", request.version.as_deref(), selector::version)?;
    let bounds = [users, routes, versions].into_iter();
    Ok(bounds.filter(|bound| !bound.is_empty()).collect())
}

/// Returns selectors for the responses that belong to the users in the body.
fn users(request: &PurgeRequest, resolver: &SelectorResolver) -> Result<Vec<Selector>, String> {
    let (mut users, issuer) = (Vec::new(), request.iss.as_deref());
    let list = request.users.iter().enumerate();
    let list = list.map(|(index, text)| (format!("users[{index}]"), text));
    let one = request.user.iter().map(|text| ("user".to_owned(), text));
    for (key, text) in one.chain(list) {
        let owners = selector::user(text, issuer, &*resolver.owners);
        users.extend(owners.map_err(|error| format!("`{key}` is invalid: {error}."))?);
    }
    if issuer.is_some() && users.is_empty() {
        return Err(
            "`iss` is the issuer of a user's tokens: send `user` or `users` with it.".into()
        );
    }
    Ok(users)
}

/// Returns selectors for the responses that match any of `selected` and all `bounds`. If `selected`
/// is empty, everything within the bounds is selected.
fn restrict(selected: Vec<Selector>, bounds: &[Vec<Selector>]) -> Result<Vec<Selector>, String> {
    if selected.is_empty() && bounds.is_empty() {
        return Err(format!("The body selects nothing. {FORM}"));
    }
    if bounds.is_empty() {
        return Ok(selected);
    }
    let mut all: Vec<Vec<Selector>> = match selected.len() {
        0 => vec![Vec::new()],
        _ => selected.into_iter().map(|selector| vec![selector]).collect(),
    };
    for bound in bounds {
        if all.len().saturating_mul(bound.len()) > MAX_SELECTORS {
            return Err(format!(
                "This call expands to more than {MAX_SELECTORS} selectors: split it into several calls."
            ));
        }
        let each = |terms: &Vec<Selector>| -> Vec<Vec<Selector>> {
            bound
                .iter()
                .map(|term| [terms.as_slice(), std::slice::from_ref(term)].concat())
                .collect()
        };
        all = all.iter().flat_map(each).collect();
    }
    Ok(all.into_iter().map(conjunction).collect())
}

/// Returns a selector for the responses that every term selects.
fn conjunction(mut terms: Vec<Selector>) -> Selector {
    match (terms.pop(), terms.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            terms.extend(last);
            Selector::All(terms.into())
        }
    }
}

/// Describes a parse error without quoting the body.
fn describe_error(error: &serde_json::Error) -> String {
    let what = if error.is_data() { "is not a valid purge" } else { "is not JSON" };
    format!("The body {what} (line {}, column {}). {FORM}", error.line(), error.column())
}

/// Parses texts and appends their selectors. Fails with a message about the first invalid text.
pub(super) fn add_selectors(
    selectors: &mut Vec<Selector>,
    key: &str,
    texts: &[String],
    read: impl Fn(&str) -> Result<Selector, SelectorError>,
) -> Result<(), String> {
    for (index, text) in texts.iter().enumerate() {
        let fail = |error| format!("`{key}[{index}]` is invalid: {error}.");
        selectors.push(read(text).map_err(fail)?);
    }
    Ok(())
}

/// Parses URLs and appends their selectors. Fails with a message about the first invalid URL.
pub(super) fn add_urls(
    selectors: &mut Vec<Selector>,
    key: &str,
    (urls, normalize): (&[String], &UrlNormalizer),
) -> Result<(), String> {
    for (index, url) in urls.iter().enumerate() {
        let fail = |error| format!("`{key}[{index}]` is invalid: {error}.");
        selectors.extend(selector::url(url, normalize).map_err(fail)?);
    }
    Ok(())
}

fn add_selector(
    selectors: &mut Vec<Selector>,
    key: &str,
    text: Option<&str>,
    read: impl Fn(&str) -> Result<Selector, SelectorError>,
) -> Result<(), String> {
    let Some(text) = text else { return Ok(()) };
    selectors.push(read(text).map_err(|error| format!("`{key}` is invalid: {error}."))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::uri::TargetUri;

    fn parse(body: &str) -> Result<Purge, String> {
        let owners = |issuer: Option<&str>, claim: &str| -> Vec<std::sync::Arc<str>> {
            let issuers = issuer.map_or(vec!["a", "b"], |issuer| vec![issuer]);
            issuers.iter().map(|issuer| format!("{issuer}/{}", claim.len()).into()).collect()
        };
        let normal = |target: &TargetUri<'_>| {
            vec![Selector::Url(format!("{}{}", target.host, target.path).into())]
        };
        let resolver = SelectorResolver { normalize: Box::new(normal), owners: Box::new(owners) };
        read(body.as_bytes(), &resolver)
    }

    #[test]
    fn all_kinds_of_selectors_are_accepted() {
        let purge = parse(
            r#"{"tags":["a","b"],"urls":["https://h/x"],"prefixes":["/api"],"everything":true,
                "mode":"soft","reason":"moved","warm":true}"#,
        )
        .unwrap();
        let expected = [
            Selector::Tag("a".into()),
            Selector::Tag("b".into()),
            Selector::Url("h/x".into()),
            Selector::Prefix("/api".into()),
            Selector::Everything,
        ];
        assert_eq!(purge.selectors, expected);
        assert_eq!((purge.mode, purge.source), (PurgeMode::Soft, PurgeSource::Api));
        assert_eq!(purge.reason.as_deref(), Some("moved"));
        assert!(purge.warm);
        let plain = parse(r#"{"tags":["a"]}"#).unwrap();
        assert_eq!((plain.mode, plain.warm), (PurgeMode::Hard, false));
    }

    #[test]
    fn users_routes_and_versions_restrict_the_other_selectors() {
        let selectors = |body: &str| {
            let purge = parse(body).unwrap();
            serde_json::to_string(&purge.selectors).unwrap()
        };
        for (body, expected) in [
            (r#"{"user":"secret","iss":"c"}"#, r#"[{"user":"c/6"}]"#),
            (r#"{"user":"u"}"#, r#"[{"user":"a/1"},{"user":"b/1"}]"#),
            (r#"{"users":["u","vv"],"iss":""}"#, r#"[{"user":"/1"},{"user":"/2"}]"#),
            (r#"{"routes":["r"]}"#, r#"[{"route":"r"}]"#),
            (r#"{"version":"v1"}"#, r#"[{"version":"v1"}]"#),
            (r#"{"patterns":["/a/*"]}"#, r#"[{"pattern":"/a/*"}]"#),
            (
                r#"{"tags":["a","b"],"user":"u","iss":"c"}"#,
                r#"[{"all":[{"tag":"a"},{"user":"c/1"}]},{"all":[{"tag":"b"},{"user":"c/1"}]}]"#,
            ),
            (
                r#"{"users":["u"],"routes":["r"]}"#,
                r#"[{"all":[{"user":"a/1"},{"route":"r"}]},{"all":[{"user":"b/1"},{"route":"r"}]}]"#,
            ),
            (
                r#"{"everything":true,"version":"v1"}"#,
                r#"[{"all":["everything",{"version":"v1"}]}]"#,
            ),
        ] {
            assert_eq!(selectors(body), expected, "{body}");
        }
        let many = |key: &str| format!(r#""{key}":["{}"]"#, vec!["x"; 101].join(r#"",""#));
        let body = format!("{{{},{}}}", many("tags"), many("users"));
        assert!(parse(&body).unwrap_err().contains("10000"));
    }

    #[test]
    fn errors_do_not_quote_the_body() {
        for (body, expected) in [
            ("", "is not JSON (line 1, column 0)"),
            (r#"{"tags":["secret""#, "is not JSON"),
            (r#"["secret"]"#, "is not a valid purge"),
            (r#"{"secret":[]}"#, "is not a valid purge (line 1, column 9)"),
            (r#"{"tags":"secret"}"#, "is not a valid purge"),
            (r#"{"tags":[],"tags":["secret"]}"#, "is not a valid purge"),
            (r#"{"tags":["secret"],"mode":"weak"}"#, "is not a valid purge"),
            ("{}", "The body selects nothing. Send JSON"),
            (r#"{"tags":[],"everything":false}"#, "The body selects nothing"),
            (r#"{"tags":["a",""]}"#, "`tags[1]` is invalid: it is empty."),
            (r#"{"tags":["a"],"iss":"secret"}"#, "send `user` or `users` with it"),
            (r#"{"tags":["a"],"user":""}"#, "`user` is invalid: it is empty."),
            (r#"{"patterns":["/secret"]}"#, "`patterns[0]` is invalid: a pattern needs a `*`"),
            (r#"{"urls":["secret@h/"]}"#, "`urls[0]` is invalid: expected `https://host/path`"),
            (r#"{"prefixes":["/secret*"]}"#, "`prefixes[0]` is invalid: a prefix takes no `*`"),
        ] {
            let detail = parse(body).unwrap_err();
            assert!(detail.contains(expected), "{body} gives {detail}");
            assert!(!detail.contains("secret"), "{detail}");
        }
        let long = format!(r#"{{"everything":true,"reason":"{}"}}"#, "x".repeat(1001));
        assert!(parse(&long).unwrap_err().contains("`reason`"));
    }
}
