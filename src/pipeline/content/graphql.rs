//! GraphQL requests: their class, and the form in which they are keyed and forwarded.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, header};

use super::{
    budget::ContentShare,
    read::MAX_BYTES,
    recent_requests::{RecentRequests, RequestParts},
    request_content::RequestContent,
    rewrite::{ContentFields, KeyedForm, WhyAsSent, describe, has_charset, is_coded, is_utf8},
};
use crate::{
    field::list,
    graphql::{RequestClass, Uncached},
    parsing::canonical,
    pipeline::gzip::{is_gzip, unzipped_within},
    route::{GraphqlMedia, GraphqlRule},
};

/// A GraphQL route: its index, and how it reads requests.
pub(in crate::pipeline) type GraphqlRoute<'a> = (usize, &'a GraphqlRule);

/// Returns the content of a GraphQL request as keyed and forwarded. Adapts the header fields that
/// describe the content. Rewrites only queries.
///
/// A query that was recently read with the same bytes costs only a lookup.
pub(in crate::pipeline) fn interpret_graphql(
    (route, rule): GraphqlRoute<'_>,
    recent: Option<&RecentRequests>,
    (method, query, headers): (&Method, Option<&str>, &mut HeaderMap),
    fields: &ContentFields,
    (sent, share): (Bytes, Option<ContentShare>),
) -> Arc<RequestContent> {
    let why = fields.why_as_sent;
    let content_type = fields.only_type.as_ref().filter(|_| why.is_none());
    let parts = content_type.map(|content_type| RequestParts {
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
    let class = class_of(rule, (query, headers), &sent);
    let (bytes, form, class) = graphql_form(rule, class, why, sent.clone());
    describe(headers, bytes.len());
    let is_repeatable = matches!(&class, RequestClass::Query(query) if query.is_repeatable());
    let content = RequestContent::of((method, headers), (bytes, form), share);
    let content = Arc::new(content.with_class(class));
    if let Some((parts, recent)) = parts.filter(|_| is_repeatable) {
        recent.insert(&parts, content.without_share());
    }
    content
}

/// Returns the content as it is forwarded, its form, and the resulting class.
fn graphql_form(
    rule: &GraphqlRule,
    class: RequestClass,
    why: Option<WhyAsSent>,
    sent: Bytes,
) -> (Bytes, KeyedForm, RequestClass) {
    match (class, why) {
        (RequestClass::Query(query), None) => {
            let text = query.to_json();
            (text.into(), KeyedForm::Graphql, RequestClass::Query(query))
        }
        (RequestClass::Query(_), Some(why)) => {
            (sent, KeyedForm::NotCanonical(why), RequestClass::Read(Uncached::Unclear))
        }
        // Larder itself responds to a request whose client has to send the document.
        (class, None) if !matches!(class, RequestClass::Unpersisted(_)) => {
            (with_documents(rule, &sent).unwrap_or(sent), KeyedForm::Bytes, class)
        }
        (class, _) => (sent, KeyedForm::Bytes, class),
    }
}

/// Adds the document to a request that refers to it by hash. Returns `None` if the request has no
/// hash, or if this node lacks the document.
fn with_documents(rule: &GraphqlRule, sent: &[u8]) -> Option<Bytes> {
    let is_by_hash = sent.windows(PERSISTED.len()).any(|part| part == PERSISTED);
    let text = canonical(sent).ok().filter(|_| is_by_hash)?;
    let text = String::from_utf8(text).ok()?;
    rule.classifier().with_documents(&text).map(Bytes::from)
}

/// The extension that holds the hash of a document.
const PERSISTED: &[u8] = b"persistedQuery";

/// Returns the class of a GraphQL request with this content. Content that servers may read
/// differently counts as a write, unless it certainly contains no mutation.
pub(in crate::pipeline) fn class_of(
    rule: &GraphqlRule,
    (query, headers): (Option<&str>, &HeaderMap),
    sent: &[u8],
) -> RequestClass {
    let Some(content) = readable(headers, sent) else { return RequestClass::unclear() };
    let (classifier, url_query) = (rule.classifier(), query);
    let media = GraphqlMedia::of(headers);
    let as_text = || std::str::from_utf8(&content);
    match (media, as_text()) {
        (Some(GraphqlMedia::Document), Ok(document)) => classifier.of_document(document, url_query),
        (Some(GraphqlMedia::Form), Ok(form)) => classifier.of_form(form, url_query),
        (Some(GraphqlMedia::Document | GraphqlMedia::Form), Err(_)) => RequestClass::unclear(),
        _ => {
            let text = canonical(&content).ok().and_then(|text| String::from_utf8(text).ok());
            let of_text = |text: String| classifier.of_body(&text, url_query);
            text.map_or_else(|| RequestClass::doubtful(&content), of_text)
        }
    }
}

/// Returns content as all servers read it; `None` if its content coding or its character encoding
/// is unknown.
fn readable<'a>(headers: &HeaderMap, sent: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let plain =
        if is_coded(headers) { unzipped(headers, sent)?.into() } else { Cow::Borrowed(sent) };
    let extends_ascii = |parameter: &[u8]| {
        is_utf8(parameter) || ASCII_CHARSETS.iter().any(|name| parameter.starts_with(name))
    };
    let is_known =
        has_charset(headers, is_utf8) || (plain.is_ascii() && has_charset(headers, extends_ascii));
    is_known.then_some(plain)
}

/// The character encodings, other than UTF-8, that encode ASCII characters as in ASCII.
const ASCII_CHARSETS: [&[u8]; 3] =
    [b"charset=us-ascii", b"charset=iso-8859-", b"charset=windows-125"];

fn unzipped(headers: &HeaderMap, sent: &[u8]) -> Option<Vec<u8>> {
    let mut codings = list::members(headers, header::CONTENT_ENCODING);
    let is_zipped = codings.next().is_some_and(is_gzip) && codings.next().is_none();
    if is_zipped { unzipped_within(sent, MAX_BYTES).ok() } else { None }
}
