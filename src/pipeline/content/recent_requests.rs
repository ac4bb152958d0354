//! A cache of recently read GraphQL requests, so that repeated requests with the same bytes are not
//! read again.

use std::{hash::Hash, sync::Arc};

use quick_cache::{Equivalent, Weighter, sync::Cache};

use super::request_content::RequestContent;

/// Maximum number of bytes that the cached requests take.
const MAX_BYTES: u64 = 8 << 20;

/// Approximate size of a cached request, in bytes, without its query, `Content-Type` and content.
const REQUEST_BYTES: usize = 512;

/// Number of copies of the content that the cache holds, which are the forwarded bytes, and the
/// variables and extensions in the request's class.
const CONTENT_COPIES: usize = 2;

/// The contents of GraphQL requests, by the request parts that they were read from. Bounded in
/// bytes.
#[derive(Debug)]
pub(crate) struct RecentRequests(Cache<SentRequest, Arc<RequestContent>, RequestWeighter>);

/// The parts of a request that its content is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RequestParts<'a> {
    pub(super) route: usize,
    pub(super) method: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) content_type: &'a [u8],
    pub(super) body: &'a [u8],
}

/// The parts of a request, owned as a key of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SentRequest {
    route: usize,
    method: Box<str>,
    query: Option<Box<str>>,
    content_type: Box<[u8]>,
    body: Box<[u8]>,
}

impl SentRequest {
    fn parts(&self) -> RequestParts<'_> {
        RequestParts {
            route: self.route,
            method: &self.method,
            query: self.query.as_deref(),
            content_type: &self.content_type,
            body: &self.body,
        }
    }
}

impl Hash for SentRequest {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.parts().hash(hasher);
    }
}

impl Equivalent<SentRequest> for RequestParts<'_> {
    fn equivalent(&self, key: &SentRequest) -> bool {
        *self == key.parts()
    }
}

#[derive(Debug, Clone)]
struct RequestWeighter;

impl Weighter<SentRequest, Arc<RequestContent>> for RequestWeighter {
    fn weight(&self, sent: &SentRequest, content: &Arc<RequestContent>) -> u64 {
        let head = sent.query.as_deref().map_or(0, str::len) + sent.content_type.len();
        let content = CONTENT_COPIES * content.bytes.len();
        (head + sent.body.len() + content + REQUEST_BYTES) as u64
    }
}

impl Default for RecentRequests {
    fn default() -> Self {
        let items = usize::try_from(MAX_BYTES / 2048).unwrap_or_default();
        Self(Cache::with_weighter(items, MAX_BYTES, RequestWeighter))
    }
}

impl RecentRequests {
    pub(super) fn get(&self, parts: &RequestParts<'_>) -> Option<Arc<RequestContent>> {
        self.0.get(parts)
    }

    pub(super) fn insert(&self, parts: &RequestParts<'_>, content: Arc<RequestContent>) {
        let sent = SentRequest {
            route: parts.route,
            method: parts.method.into(),
            query: parts.query.map(Into::into),
            content_type: parts.content_type.into(),
            body: parts.body.into(),
        };
        self.0.insert(sent, content);
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::pipeline::content::rewrite::KeyedForm;

    #[test]
    fn long_queries_of_urls_are_within_the_bound_too() {
        let (recent, headers) = (RecentRequests::default(), HeaderMap::new());
        let form = (bytes::Bytes::from_static(b"{}"), KeyedForm::Bytes);
        let content = RequestContent::new((&Method::POST, &headers), form, None);
        for number in 0..4000 {
            let query = format!("{number:04}{}", "x".repeat(8 << 10));
            let (method, query) = ("POST", Some(&*query));
            let content_type = b"application/json".as_slice();
            let parts = RequestParts { route: 0, method, query, content_type, body: b"{}" };
            recent.insert(&parts, Arc::clone(&content));
        }
        assert!(recent.0.weight() <= MAX_BYTES);
        assert!((8 << 10) * recent.0.len() as u64 <= MAX_BYTES, "{}", recent.0.len());
    }
}
