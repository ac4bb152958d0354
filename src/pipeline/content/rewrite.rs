//! The form in which content is keyed and forwarded.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

use crate::{
    field::list,
    key::describes_content,
    parsing::{NotCanonical, canonical},
    route::ContentForm,
};

/// The form in which content is keyed and forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) enum KeyedForm {
    /// The content as sent, because the route does not ask for JSON.
    Bytes,
    /// The content as canonical JSON.
    Canonical,
    /// The content as a canonical GraphQL request.
    Graphql,
    /// The content as sent, because it has no canonical form.
    NotCanonical(WhyAsSent),
}

/// Why JSON is keyed as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) enum WhyAsSent {
    /// The content has a content coding.
    Coded,
    /// The request's `Content-Type` names a character encoding other than UTF-8.
    Charset,
    /// A header field may hold a digest or a signature of the content.
    Signed,
    /// JSON parsers reject the content, or may read it differently.
    Json(NotCanonical),
}

/// The properties of a request's content, read from its header fields.
#[derive(Debug)]
pub(in crate::pipeline) struct ContentFields {
    /// Why the fields forbid changes to the content; `None` if they allow changes.
    pub(super) why_as_sent: Option<WhyAsSent>,
    /// `Content-Type`, if it is the only field that describes the content.
    pub(super) only_type: Option<HeaderValue>,
}

impl ContentFields {
    pub(in crate::pipeline) fn of(headers: &HeaderMap) -> Self {
        Self { why_as_sent: why_as_sent(headers), only_type: only_content_type(headers) }
    }
}

impl KeyedForm {
    /// Describes the form for operators.
    pub(in crate::pipeline) fn describe(self) -> &'static str {
        match self {
            Self::Bytes => "as sent",
            Self::Canonical => "as canonical JSON",
            Self::Graphql => "as a canonical GraphQL request",
            Self::NotCanonical(why) => why.describe(),
        }
    }
}

impl WhyAsSent {
    fn describe(self) -> &'static str {
        match self {
            Self::Coded => "as sent, because it has a content coding",
            Self::Charset => "as sent, because it is not UTF-8",
            Self::Signed => "as sent, because a header may hold its digest or signature",
            Self::Json(NotCanonical::Malformed) => "as sent, because it is not JSON in UTF-8",
            Self::Json(NotCanonical::DuplicateName) => "as sent, because an object repeats a name",
            Self::Json(NotCanonical::LoneSurrogate) => {
                "as sent, because a string holds half of a surrogate pair"
            }
            Self::Json(NotCanonical::TooDeep) => "as sent, because it is nested too deeply",
        }
    }
}

/// Returns content in the form in which it is keyed and forwarded, and the name of that form.
pub(in crate::pipeline) fn keyed_form(
    form: ContentForm,
    fields: &ContentFields,
    sent: Bytes,
) -> (Bytes, KeyedForm) {
    if form != ContentForm::Json {
        return (sent, KeyedForm::Bytes);
    }
    match fields.why_as_sent {
        Some(why) => (sent, KeyedForm::NotCanonical(why)),
        None => match canonical(&sent) {
            Ok(text) => (text.into(), KeyedForm::Canonical),
            Err(why) => (sent, KeyedForm::NotCanonical(WhyAsSent::Json(why))),
        },
    }
}

/// Returns `Content-Type` if it is the only field that describes the content, else `None`.
fn only_content_type(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let describing = headers.keys().filter(|name| describes_content(name)).count();
    (describing == 1).then(|| line.clone())
}

/// Returns why the header fields of a request forbid changes to its content; `None` if they do not.
fn why_as_sent(headers: &HeaderMap) -> Option<WhyAsSent> {
    if is_coded(headers) {
        return Some(WhyAsSent::Coded);
    }
    if !has_charset(headers, is_utf8) {
        return Some(WhyAsSent::Charset);
    }
    is_signed(headers).then_some(WhyAsSent::Signed)
}

/// Returns whether the content has a content coding.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    let is_identity = |coding: &[u8]| coding.eq_ignore_ascii_case(b"identity");
    headers.contains_key(header::CONTENT_ENCODING)
        && !list::members(headers, header::CONTENT_ENCODING).all(is_identity)
}

/// Returns whether `is_such` accepts each character encoding that `Content-Type` names.
pub(super) fn has_charset(headers: &HeaderMap, is_such: impl Fn(&[u8]) -> bool) -> bool {
    let Some(line) = headers.get(header::CONTENT_TYPE) else { return true };
    let parameters = line.as_bytes().split(|byte| *byte == b';').skip(1);
    let mut pairs = parameters.map(|pair| list::trim(pair).to_ascii_lowercase());
    pairs.all(|pair| !pair.starts_with(b"charset") || is_such(&pair))
}

/// Returns whether a `Content-Type` parameter, in lower case, names UTF-8.
pub(super) fn is_utf8(parameter: &[u8]) -> bool {
    matches!(parameter, b"charset=utf-8" | b"charset=\"utf-8\"" | b"charset=utf8")
}

/// Returns whether a header field may hold a digest or a signature of the content (RFC 9530, RFC
/// 9421, AWS signatures and the like).
fn is_signed(headers: &HeaderMap) -> bool {
    const PARTS: [&str; 5] = ["digest", "signature", "hmac", "content-md5", "content-sha"];
    let may_sign =
        |name: &str| !name.starts_with("want-") && PARTS.iter().any(|part| name.contains(part));
    let scheme_signs = |value: &HeaderValue| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        !scheme.eq_ignore_ascii_case(b"bearer") && !scheme.eq_ignore_ascii_case(b"basic")
    };
    headers.keys().any(|name| may_sign(name.as_str()))
        || headers.get_all(header::AUTHORIZATION).iter().any(scheme_signs)
}

/// Replaces the fields that frame the content with its `Content-Length`.
pub(in crate::pipeline) fn describe(headers: &mut HeaderMap, length: usize) {
    for name in [header::TRANSFER_ENCODING, header::TRAILER, header::EXPECT] {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    const JSON: (&str, &str) = ("content-type", "application/json");

    fn form(fields: &[(&'static str, &'static str)], content: &'static str) -> (Bytes, KeyedForm) {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers = ContentFields::of(&fields.iter().map(field).collect());
        keyed_form(ContentForm::Json, &headers, Bytes::from_static(content.as_bytes()))
    }

    #[test]
    fn json_is_rewritten_where_nothing_depends_on_its_bytes() {
        for fields in [
            &[JSON][..],
            &[("content-type", "application/json; charset=UTF-8")],
            &[JSON, ("content-encoding", "identity")],
            &[JSON, ("authorization", "Bearer x"), ("want-content-digest", "sha-256=1")],
        ] {
            let canonical = (Bytes::from_static(b"{\"a\":1}"), KeyedForm::Canonical);
            assert_eq!(form(fields, "{ \"a\": 1 }"), canonical, "{fields:?}");
        }
    }

    #[test]
    fn what_depends_on_the_bytes_keeps_them() {
        use WhyAsSent::{Charset, Coded, Json, Signed};
        let duplicate = "{ \"a\": 1, \"a\": 1 }";
        for (fields, content, why) in [
            (&[JSON, ("content-encoding", "gzip")][..], "{ }", Coded),
            (&[JSON, ("content-encoding", "identity, br")], "{ }", Coded),
            (&[("content-type", "application/json;charset=latin1")], "{ }", Charset),
            (&[("content-type", "application/json; charset*=utf-8''x")], "{ }", Charset),
            (&[JSON, ("content-digest", "sha-256=:AA==:")], "{ }", Signed),
            (&[JSON, ("x-amz-content-sha256", "ab")], "{ }", Signed),
            (&[JSON, ("x-hub-signature-256", "sha256=ab")], "{ }", Signed),
            (&[JSON, ("authorization", "AWS4-HMAC-SHA256 Credential=x")], "{ }", Signed),
            (&[JSON], duplicate, Json(NotCanonical::DuplicateName)),
            (&[JSON], " not json ", Json(NotCanonical::Malformed)),
        ] {
            let as_sent = (Bytes::from(content), KeyedForm::NotCanonical(why));
            assert_eq!(form(fields, content), as_sent, "{fields:?}");
        }
        let sent = Bytes::from_static(b"{ }");
        let fields = ContentFields::of(&HeaderMap::new());
        let as_said = keyed_form(ContentForm::Bytes, &fields, sent.clone());
        assert_eq!(as_said, (sent, KeyedForm::Bytes));
    }

    #[test]
    fn the_length_replaces_all_other_framing() {
        let mut headers = HeaderMap::new();
        for name in ["transfer-encoding", "trailer", "expect", "content-length", "accept"] {
            headers.insert(name, HeaderValue::from_static("x"));
        }
        describe(&mut headers, 7);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["content-length"], "7");
    }
}
