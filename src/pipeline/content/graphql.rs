//! GraphQL requests: their class, and the form in which they are keyed and forwarded.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::{
    budget::ContentShare,
    recent_requests::{RecentRequests, RequestParts},
    request_content::RequestContent,
    rewrite::{KeyedForm, WhyAsSent, describe, why_as_sent},
};
use crate::{
    graphql::{RequestClass, Uncached},
    key::describes_content,
    parsing::canonical,
    route::GraphqlRule,
};

/// A GraphQL route: its index, and how it reads requests.
pub(in crate::pipeline) type GraphqlRoute<'a> = (usize, &'a GraphqlRule);

/// Returns the content of a GraphQL request as keyed and forwarded. Adapts the fields that describe
/// it. Only queries are rewritten.
///
/// A query that was recently read with the same bytes costs only a lookup.
pub(in crate::pipeline) fn interpret_graphql(
    (route, rule): GraphqlRoute<'_>,
    recent: Option<&RecentRequests>,
    (method, uri, headers): (&Method, &Uri, &mut HeaderMap),
    (sent, share): (Bytes, Option<ContentShare>),
) -> Arc<RequestContent> {
    let why = why_as_sent(headers);
    let content_type = only_content_type(headers).filter(|_| why.is_none());
    let query = uri.query();
    let parts = content_type.as_ref().map(|content_type| RequestParts {
        route,
        method: method.as_str(),
        query,
        content_type: content_type.as_bytes(),
        body: &sent,
    });
    let parts = parts.zip(recent);
    if let Some(known) = parts.as_ref().and_then(|(parts, recent)| recent.get(parts)) {
        describe(headers, known.bytes.len());
        return known;
    }
    let (bytes, form, class) = graphql_form(class_of(rule, query, &sent), why, sent.clone());
    describe(headers, bytes.len());
    let is_repeatable = matches!(&class, RequestClass::Query(query) if query.is_repeatable());
    let content = RequestContent::of((method, headers), (bytes, form), share);
    let content = Arc::new(content.with_class(class));
    if let Some((parts, recent)) = parts.filter(|_| is_repeatable) {
        recent.insert(&parts, content.without_share());
    }
    content
}

/// Returns `Content-Type` if it is the only field that describes the content, else `None`.
fn only_content_type(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let describing = headers.keys().filter(|name| describes_content(name)).count();
    (describing == 1).then(|| line.clone())
}

/// Returns the content as it is forwarded, its form, and the resulting class.
fn graphql_form(
    class: RequestClass,
    why: Option<WhyAsSent>,
    sent: Bytes,
) -> (Bytes, KeyedForm, RequestClass) {
    match (class, why) {
        (RequestClass::Query(query), None) => {
            let text = query.to_json();
            (text.into(), KeyedForm::Graphql, RequestClass::Query(query))
        }
        (RequestClass::Query(_), Some(why @ WhyAsSent::Signed)) => {
            (sent, KeyedForm::NotCanonical(why), RequestClass::Read(Uncached::Unclear))
        }
        (_, Some(why @ (WhyAsSent::Coded | WhyAsSent::Charset))) => {
            (sent, KeyedForm::NotCanonical(why), RequestClass::unclear())
        }
        (class, _) => (sent, KeyedForm::Bytes, class),
    }
}

/// Returns the class of a GraphQL request with this content. Content that JSON parsers may read
/// differently counts as a possible write.
pub(in crate::pipeline) fn class_of(
    rule: &GraphqlRule,
    query: Option<&str>,
    sent: &[u8],
) -> RequestClass {
    let text = canonical(sent).ok().and_then(|text| String::from_utf8(text).ok());
    let classified = |text: String| rule.classifier().of_body(&text, query);
    text.map_or_else(RequestClass::unclear, classified)
}
