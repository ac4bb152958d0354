//! Cloudflare's form of the purge call. Any zone id is accepted, as there is only one zone.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;

use super::{
    call::AdminCall,
    dialect::Dialect,
    purge::{add_selectors, add_urls},
};
use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    problem::Problem,
    purge::LogUnavailable,
    trigger::{
        Purger, SelectorError, json_response, log_unavailable, receipt_status,
        selector::{self, UrlNormalizer},
    },
};

const FORM: &str =
    "Send JSON with one of \"purge_everything\", \"files\", \"tags\", \"hosts\" or \"prefixes\".";

/// The request body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CloudflarePurge {
    files: Vec<File>,
    tags: Vec<String>,
    hosts: Vec<String>,
    prefixes: Vec<String>,
    purge_everything: bool,
}

/// A URL, optionally with a variant's headers, which are ignored because all variants are purged.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum File {
    Url(String),
    Variant {
        url: String,
        #[serde(rename = "headers", default)]
        _headers: IgnoredAny,
    },
}

/// Purges the responses that the body selects, in hard mode.
pub(super) async fn purge(purger: &Purger, call: AdminCall<'_>) -> Response<Bytes> {
    let refuse = |problem| Dialect::Cloudflare.refuse(problem);
    let selectors = match read(call.body, purger.normalizer()) {
        Ok(selectors) => selectors,
        Err(detail) => return refuse(Problem::new(StatusCode::BAD_REQUEST, "No purge", detail)),
    };
    let purge = Purge {
        mode: PurgeMode::Hard,
        selectors,
        source: PurgeSource::Api,
        reason: None,
        warm: false,
    };
    let Ok(receipt) = purger.purge(purge).await.map_err(|LogUnavailable| ()) else {
        return refuse(log_unavailable());
    };
    let document = json!({
        "success": true, "errors": [], "messages": [], "result": { "id": receipt.seq.to_string() },
    });
    json_response(receipt_status(&receipt), &document)
}

fn read(body: &[u8], normalize: &UrlNormalizer) -> Result<Vec<Selector>, String> {
    let request: CloudflarePurge =
        serde_json::from_slice(body).map_err(|_| format!("The body is invalid. {FORM}"))?;
    let files: Vec<String> = request.files.into_iter().map(File::into_url).collect();
    let mut selectors = Vec::new();
    add_urls(&mut selectors, "files", (&files, normalize))?;
    add_selectors(&mut selectors, "tags", &request.tags, selector::tag)?;
    add_selectors(&mut selectors, "hosts", &request.hosts, host)?;
    add_selectors(&mut selectors, "prefixes", &request.prefixes, selector::prefix)?;
    if request.purge_everything {
        selectors.push(Selector::Everything);
    }
    if selectors.is_empty() {
        Err(format!("The body selects nothing. {FORM}"))
    } else {
        Ok(selectors)
    }
}

/// Returns the selector for all URLs on a host.
fn host(text: &str) -> Result<Selector, SelectorError> {
    if text.contains(['/', '?', '#']) {
        return Err(SelectorError::Url);
    }
    if text.trim().is_empty() {
        return Err(SelectorError::Empty);
    }
    selector::prefix(&format!("{text}/"))
}

impl File {
    fn into_url(self) -> String {
        match self {
            Self::Url(url) | Self::Variant { url, .. } => url,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::uri::TargetUri;

    fn selected(body: &str) -> Result<Vec<Selector>, String> {
        let normal = |target: &TargetUri<'_>| {
            vec![Selector::Url(format!("{}{}", target.host, target.path).into())]
        };
        read(body.as_bytes(), &normal)
    }

    #[test]
    fn everything_that_is_named_is_selected() {
        let body = r#"{"files":["https://h/a",{"url":"https://h/b","headers":{"Origin":"https://o"}},
            {"url":"h/c"}],"tags":["t"],"hosts":["WWW.example.com"],"prefixes":["h/d"],
            "purge_everything":true}"#;
        let expected = [
            Selector::Url("h/a".into()),
            Selector::Url("h/b".into()),
            Selector::Url("h/c".into()),
            Selector::Tag("t".into()),
            Selector::Prefix("www.example.com/".into()),
            Selector::Prefix("h/d".into()),
            Selector::Everything,
        ];
        assert_eq!(selected(body).unwrap(), expected);
    }

    #[test]
    fn invalid_selectors_are_rejected() {
        for body in [
            "",
            "{}",
            "[]",
            r#"{"purge_everything":false}"#,
            r#"{"tags":[]}"#,
            r#"{"tags":[""]}"#,
            r#"{"tags":["t"],"more":[]}"#,
            r#"{"files":[{"headers":{}}]}"#,
            r#"{"files":["h h/a"]}"#,
            r#"{"hosts":["h/a"]}"#,
            r#"{"hosts":[""]}"#,
            r#"{"hosts":["*.h"]}"#,
            r#"{"prefixes":["h/*"]}"#,
        ] {
            assert!(selected(body).is_err(), "{body}");
        }
    }
}
