//! GraphQL: which requests are reads, what they are keyed by, and what responses hold.
//!
//! A cache must determine three things about a request that contains a program: whether it changes
//! anything, which other requests ask for the same data, and which changes outdate its response.
//! [`class`] answers the first two, [`response`] the third. A request that servers may read
//! differently is never a query: it bypasses the cache, and counts as a write if it may be one.
//!
//! The module is stateless, except for [`documents`], which caches parsed documents.

mod class;
mod document;
mod documents;
#[cfg(fuzzing)]
pub mod fuzzed;
mod members;
mod response;
mod search;
mod token;
mod unpersisted;

pub(crate) use class::{Classifier, RequestClass, Uncached, WrittenOperation};
pub(crate) use documents::{DocumentCache, RegisteredDocuments, RegistryError};
pub(crate) use response::{CacheHints, Entities, has_errors, has_no_effect};
pub(crate) use search::MutationSearch;
pub(crate) use unpersisted::UnpersistedRequest;

#[cfg(test)]
mod tests;
