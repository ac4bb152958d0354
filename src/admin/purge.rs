//! `POST /v1/purge`: what its body says, and the answer.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use serde::Deserialize;

use super::calls::Said;
use crate::{
    fence::{Mode, Purge, Selector, Source},
    problem::Problem,
    trigger::{Purger, Resolver, SelectorError, selector},
};

/// The longest reason that the log keeps, in bytes.
const LONGEST_REASON: usize = 1000;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest name of a call, in bytes.
const LONGEST_KEY: usize = 255;

/// The most selectors that one call makes, each thing within each of several others counted.
const MOST: usize = 10_000;

const FORM: &str = r#"Send JSON: {"tags": [], "urls": [], "prefixes": [], "patterns": [], "everything": false, "user": "whose", "users": [], "iss": "https://issuer", "routes": [], "version": "v1", "mode": "hard" or "soft", "reason": "why", "warm": false}, with at least one selector."#;

/// The body of the call.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
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
    mode: Mode,
    reason: Option<String>,
    warm: bool,
}

/// Purges what a body says; once, where an `Idempotency-Key` names it.
pub(super) async fn answer(purger: &Purger, said: Said<'_>) -> Response<Bytes> {
    let read = read(said.body, purger.resolver());
    match read.and_then(|purge| Ok((purge, key(said.headers)?))) {
        Ok((purge, key)) => purger.answer(purge, key).await,
        Err(detail) => Problem::new(StatusCode::BAD_REQUEST, "No purge", detail).into_response(),
    }
}

/// The call's name for itself, by which it is known when it comes again.
fn key(headers: &HeaderMap) -> Result<Option<&str>, String> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=LONGEST_KEY).contains(&text.len()));
    text.map(Some).ok_or_else(|| {
        format!("`Idempotency-Key` is not 1 to {LONGEST_KEY} visible ASCII characters.")
    })
}

/// The purge that a body asks for, or what is wrong with it.
fn read(body: &[u8], resolver: &Resolver) -> Result<Purge, String> {
    let asked: Asked = serde_json::from_slice(body).map_err(|error| misread(&error))?;
    let selectors = within(wanted(&asked, resolver)?, &bounds(&asked, resolver)?)?;
    let reason = asked.reason.filter(|reason| !reason.is_empty());
    if reason.as_ref().is_some_and(|reason| reason.len() > LONGEST_REASON) {
        return Err(format!("`reason` has more than {LONGEST_REASON} bytes."));
    }
    Ok(Purge { mode: asked.mode, selectors, source: Source::Api, reason, warm: asked.warm })
}

/// What is selected: everything that one of these does.
fn wanted(asked: &Asked, resolver: &Resolver) -> Result<Vec<Selector>, String> {
    let mut selectors = Vec::new();
    add(&mut selectors, "tags", &asked.tags, selector::tag)?;
    add(&mut selectors, "urls", &asked.urls, |text| selector::url(text, &*resolver.normal))?;
    add(&mut selectors, "prefixes", &asked.prefixes, selector::prefix)?;
    add(&mut selectors, "patterns", &asked.patterns, selector::pattern)?;
    if asked.everything {
        selectors.push(Selector::Everything);
    }
    Ok(selectors)
}

/// Among which responses, if not among all: those that one of each of these selects.
fn bounds(asked: &Asked, resolver: &Resolver) -> Result<Vec<Vec<Selector>>, String> {
    let (mut routes, mut versions) = (Vec::new(), Vec::new());
    let users = users(asked, resolver)?;
    add(&mut routes, "routes", &asked.routes, selector::route)?;
    one(&mut versions, "version", asked.version.as_deref(), selector::version)?;
    let bounds = [users, routes, versions].into_iter();
    Ok(bounds.filter(|bound| !bound.is_empty()).collect())
}

/// The owners that the users come to.
fn users(asked: &Asked, resolver: &Resolver) -> Result<Vec<Selector>, String> {
    let (mut users, issuer) = (Vec::new(), asked.iss.as_deref());
    let list = asked.users.iter().enumerate();
    let list = list.map(|(index, text)| (format!("users[{index}]"), text));
    let one = asked.user.iter().map(|text| ("user".to_owned(), text));
    for (key, text) in one.chain(list) {
        let owners = selector::user(text, issuer, &*resolver.owners);
        users.extend(owners.map_err(|error| format!("`{key}` selects nothing: {error}."))?);
    }
    if issuer.is_some() && users.is_empty() {
        return Err("`iss` says whose tokens name a user: send `user` or `users` with it.".into());
    }
    Ok(users)
}

/// What is wanted within the bounds; all that is within them, where nothing else is said.
fn within(wanted: Vec<Selector>, bounds: &[Vec<Selector>]) -> Result<Vec<Selector>, String> {
    if wanted.is_empty() && bounds.is_empty() {
        return Err(format!("Nothing is selected. {FORM}"));
    }
    if bounds.is_empty() {
        return Ok(wanted);
    }
    let mut all: Vec<Vec<Selector>> = match wanted.len() {
        0 => vec![Vec::new()],
        _ => wanted.into_iter().map(|selector| vec![selector]).collect(),
    };
    for bound in bounds {
        if all.len().saturating_mul(bound.len()) > MOST {
            return Err(format!("This makes more than {MOST} selectors: purge in several calls."));
        }
        let each = |terms: &Vec<Selector>| -> Vec<Vec<Selector>> {
            bound
                .iter()
                .map(|term| [terms.as_slice(), std::slice::from_ref(term)].concat())
                .collect()
        };
        all = all.iter().flat_map(each).collect();
    }
    Ok(all.into_iter().map(joined).collect())
}

/// What all of these select.
fn joined(mut terms: Vec<Selector>) -> Selector {
    match (terms.pop(), terms.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            terms.extend(last);
            Selector::All(terms.into())
        }
    }
}

/// What is said about a body that cannot be read; none of the body itself.
fn misread(error: &serde_json::Error) -> String {
    let what = if error.is_data() { "does not have the form of a purge" } else { "is no JSON" };
    format!("The body {what} (line {}, column {}). {FORM}", error.line(), error.column())
}

/// Adds what the texts of a list select, or says which of them selects nothing.
pub(super) fn add(
    selectors: &mut Vec<Selector>,
    key: &str,
    texts: &[String],
    read: impl Fn(&str) -> Result<Selector, SelectorError>,
) -> Result<(), String> {
    for (index, text) in texts.iter().enumerate() {
        let fail = |error| format!("`{key}[{index}]` selects nothing: {error}.");
        selectors.push(read(text).map_err(fail)?);
    }
    Ok(())
}

fn one(
    selectors: &mut Vec<Selector>,
    key: &str,
    text: Option<&str>,
    read: impl Fn(&str) -> Result<Selector, SelectorError>,
) -> Result<(), String> {
    let Some(text) = text else { return Ok(()) };
    selectors.push(read(text).map_err(|error| format!("`{key}` selects nothing: {error}."))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::target::Target;

    fn asked(body: &str) -> Result<Purge, String> {
        let owners = |issuer: Option<&str>, claim: &str| -> Vec<std::sync::Arc<str>> {
            let issuers = issuer.map_or(vec!["a", "b"], |issuer| vec![issuer]);
            issuers.iter().map(|issuer| format!("{issuer}/{}", claim.len()).into()).collect()
        };
        let normal =
            |target: &Target<'_>| Selector::Url(format!("{}{}", target.host, target.path).into());
        let resolver = Resolver { normal: Box::new(normal), owners: Box::new(owners) };
        read(body.as_bytes(), &resolver)
    }

    #[test]
    fn everything_that_is_asked_for_is_selected() {
        let purge = asked(
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
        assert_eq!((purge.mode, purge.source), (Mode::Soft, Source::Api));
        assert_eq!(purge.reason.as_deref(), Some("moved"));
        assert!(purge.warm);
        let plain = asked(r#"{"tags":["a"]}"#).unwrap();
        assert_eq!((plain.mode, plain.warm), (Mode::Hard, false));
    }

    #[test]
    fn users_routes_and_versions_are_the_bounds_of_what_else_is_asked_for() {
        let selectors = |body: &str| {
            let purge = asked(body).unwrap();
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
        assert!(asked(&body).unwrap_err().contains("10000"));
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_it() {
        for (body, expected) in [
            ("", "is no JSON (line 1, column 0)"),
            (r#"{"tags":["secret""#, "is no JSON"),
            (r#"["secret"]"#, "does not have the form"),
            (r#"{"secret":[]}"#, "does not have the form of a purge (line 1, column 9)"),
            (r#"{"tags":"secret"}"#, "does not have the form"),
            (r#"{"tags":[],"tags":["secret"]}"#, "does not have the form"),
            (r#"{"tags":["secret"],"mode":"weak"}"#, "does not have the form"),
            ("{}", "Nothing is selected. Send JSON"),
            (r#"{"tags":[],"everything":false}"#, "Nothing is selected"),
            (r#"{"tags":["a",""]}"#, "`tags[1]` selects nothing: it is empty."),
            (r#"{"tags":["a"],"iss":"secret"}"#, "send `user` or `users` with it"),
            (r#"{"tags":["a"],"user":""}"#, "`user` selects nothing: it is empty."),
            (r#"{"patterns":["/secret"]}"#, "`patterns[0]` selects nothing: a pattern has a `*`"),
            (r#"{"urls":["secret@h/"]}"#, "`urls[0]` selects nothing: write `https://host/path`"),
            (
                r#"{"prefixes":["/secret*"]}"#,
                "`prefixes[0]` selects nothing: a prefix needs no `*`",
            ),
        ] {
            let detail = asked(body).unwrap_err();
            assert!(detail.contains(expected), "{body} gives {detail}");
            assert!(!detail.contains("secret"), "{detail}");
        }
        let long = format!(r#"{{"everything":true,"reason":"{}"}}"#, "x".repeat(1001));
        assert!(asked(&long).unwrap_err().contains("`reason`"));
    }
}
