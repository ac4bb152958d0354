//! GraphQL on a route: what its operations are, and what its mutations purge.

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
    /// The tags that a mutation purges instead, by operation name. Their JSON paths select from
    /// `variables` of the request and `data` of the response.
    pub(crate) purge_by_operation: BTreeMap<Box<str>, Box<[AnyTagTemplate]>>,
}

/// What the response to a mutation purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PurgeByResponse {
    /// All responses with objects of the types in the mutation's response. A new object belongs to
    /// lists that do not have it yet.
    #[default]
    Types,
    /// All responses with the objects in the mutation's response.
    Objects,
    /// Nothing.
    Nothing,
}

impl GraphqlRule {
    /// The name that stands for all other operations.
    pub const OTHERS: &str = "*";

    /// Returns the classifier of requests.
    pub(crate) fn classifier(&self) -> Classifier<'_> {
        Classifier { documents: &self.documents, registered: self.registered.as_ref() }
    }
}
