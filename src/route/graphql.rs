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
    /// The documents seen lately.
    pub(crate) documents: DocumentCache,
    /// The documents that the origin has registered; `None` if clients persist them.
    pub(crate) registered: Option<RegisteredDocuments>,
    /// The lifetimes of responses by operation; `None` if all have that of the route.
    pub operations: Option<BTreeMap<Box<str>, Ttl>>,
    /// What the response to a mutation purges.
    pub purge_by_response: PurgeByResponse,
    /// The tags that a mutation purges instead, by its name. Their JSON has the members
    /// `variables` of the request and `data` of the response.
    pub(crate) purge_by_operation: BTreeMap<Box<str>, Box<[AnyTagTemplate]>>,
}

/// What the response to a mutation purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PurgeByResponse {
    /// All responses with objects of its types. A new object belongs to lists that do not have it
    /// yet.
    #[default]
    Types,
    /// The responses with its objects.
    Objects,
    /// Nothing.
    Nothing,
}

impl GraphqlRule {
    /// The name that stands for all operations that are not listed.
    pub const OTHERS: &str = "*";

    /// Returns the classifier of requests.
    pub(crate) fn classifier(&self) -> Classifier<'_> {
        Classifier { documents: &self.documents, registered: self.registered.as_ref() }
    }
}
