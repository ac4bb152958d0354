//! RFC 9111 as pure functions: headers, rule and time in; verdict and reason out.
//!
//! No clock, no I/O, no log, no metric. One file for each section of the RFC, and one closed list of
//! reasons that says why a response was not stored or not reused.

pub mod cache_status;
pub mod cors;
pub mod credentials;
pub mod directive;
pub mod downstream;
pub mod failure;
pub mod freshness;
pub mod head;
pub mod invalidation;
pub mod partition;
pub mod reason;
pub mod reuse;
pub mod rule;
pub mod stale;
pub mod storable;
pub mod stored_fields;
pub mod surrogate;
pub mod tag;
pub mod validation;

pub use cache_status::{CacheResult, CacheStatus, ForwardReason};
pub use credentials::{CredentialRules, Credentials};
pub use directive::{RequestDirectives, ResponseDirectives};
pub use freshness::Freshness;
pub use head::{RequestHead, ResponseHead};
pub use partition::Partition;
pub use reason::Reason;
pub use reuse::{Reuse, reuse};
pub use rule::{CacheRule, ClientCacheControl, Ttl, TtlFrom};
pub use storable::storable;
pub use stored_fields::stored_fields;
