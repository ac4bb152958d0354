//! RFC 9111 as pure functions: headers, rule and time in; verdict and reason out.
//!
//! No clock, no I/O, no log, no metric. There is one file for each section of the RFC, and one
//! closed list of reasons for not storing or not reusing a response.

pub(crate) mod cache_status;
pub(crate) mod cors;
pub(crate) mod credentials;
pub(crate) mod directive;
pub(crate) mod downstream;
pub(crate) mod failure;
pub(crate) mod freshness;
pub(crate) mod head;
pub(crate) mod invalidation;
pub(crate) mod partition;
pub(crate) mod reason;
pub mod reuse;
pub(crate) mod rule;
mod sharing;
pub(crate) mod stale;
pub mod storable;
pub mod stored_fields;
pub(crate) mod surrogate;
pub(crate) mod tag;
pub(crate) mod validation;

pub(crate) use cache_status::{CacheResult, CacheStatus, ForwardReason};
pub(crate) use credentials::CredentialRules;
pub use credentials::Credentials;
pub use directive::{RequestDirectives, ResponseDirectives};
pub(crate) use freshness::Freshness;
pub use head::{RequestHead, ResponseHead};
pub use partition::Partition;
pub(crate) use reason::Reason;
pub(crate) use reuse::Reuse;
pub use reuse::reuse;
pub use rule::CacheRule;
pub use storable::storable;
pub use stored_fields::stored_fields;
pub(crate) use {rule::ClientCacheControl, rule::Ttl, rule::TtlFrom};
