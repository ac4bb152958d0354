//! The search for mutations in content that is not read before it is forwarded.

use std::sync::Arc;

use http::{HeaderMap, Uri};
use parking_lot::Mutex;

use super::rewrite::{has_charset, is_coded, is_utf8};
use crate::{graphql::MutationSearch, route::GraphqlMedia};

/// A search in the content of a GraphQL request, which runs as the content is sent.
#[derive(Debug, Clone)]
pub(in crate::pipeline) struct SharedSearch(Arc<Mutex<MutationSearch>>);

impl SharedSearch {
    /// Returns a search in the content of a request; `None` if the search could prove nothing,
    /// because the content is not JSON in UTF-8 or the URL may name a mutation.
    pub(in crate::pipeline) fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let is_json = GraphqlMedia::of(headers) == Some(GraphqlMedia::Json);
        let is_plain = !is_coded(headers) && has_charset(headers, is_utf8);
        let search = MutationSearch::beside(uri.query()).filter(|_| is_json && is_plain)?;
        Some(Self(Arc::new(Mutex::new(search))))
    }

    /// Searches the next part of the content.
    pub(in crate::pipeline) fn add(&self, part: &[u8]) {
        self.0.lock().add(part);
    }

    /// Returns whether the search has read all of the content and proved that it has no mutation.
    pub(in crate::pipeline) fn has_found_query(&self) -> bool {
        self.0.lock().has_found_query()
    }
}
