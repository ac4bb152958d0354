//! The GraphQL settings of a route: documents, lifetimes by operation, and what mutations purge.

use std::collections::BTreeMap;

use super::AnyTagTemplate;
use crate::{
    graphql::{Classifier, DocumentCache, RegisteredDocuments},
    policy::Ttl,
};

/// How a route reads GraphQL requests and their responses.
#[derive(Debug, Default)]
pub struct GraphqlRule {
    /// A cache of recent documents.
    pub(crate) documents: DocumentCache,
    /// The documents that the origin has registered; `None` if clients persist them.
    pub(crate) registered: Option<RegisteredDocuments>,
    /// The lifetimes of responses by operation; `None` if the route's lifetime applies to all.
    pub operations: Option<BTreeMap<Box<str>, Ttl>>,
    /// What the response to a mutation purges.
    pub purge_by_response: PurgeByResponse,
    /// The tags that a mutation purges in place of those from its response, by operation name. JSON
    /// paths in the tags select from the request's `variables` and the response's `data`.
    pub(crate) purge_by_operation: BTreeMap<Box<str>, Box<[AnyTagTemplate]>>,
}

/// What the response to a mutation purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PurgeByResponse {
    /// All responses with objects of any type in the mutation's response. This covers lists in
    /// which a new object is still missing.
    #[default]
    Types,
    /// All responses with the objects in the mutation's response.
    Objects,
    /// Nothing.
    Nothing,
}

impl GraphqlRule {
    /// The key in `operations` for all operations that are not listed.
    pub const OTHERS: &str = "*";

    /// Returns the classifier for requests on this route.
    pub(crate) fn classifier(&self) -> Classifier<'_> {
        Classifier { documents: &self.documents, registered: self.registered.as_ref() }
    }
}
