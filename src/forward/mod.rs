//! Changes to the heads of forwarded messages (RFC 9110 §7.6), as pure functions.
//!
//! A request's method, target, `Host` and fields that describe the target come from one
//! [`OriginTarget`](crate::key::OriginTarget), which also determines its cache key.

mod forwarded;
pub(crate) mod forwarded_fields;
pub(crate) mod max_forwards;
pub(crate) mod request;
pub(crate) mod request_id;
pub(crate) mod response;
mod source;
mod via;

pub use source::RequestSource;
pub use via::ViaIdentity;
pub(crate) use via::is_loop;
