//! What a proxy changes in the heads that it forwards (RFC 9110 §7.6), as pure functions.
//!
//! A request's method, target, `Host` and fields about the target are those of one
//! [`OriginTarget`](crate::key::OriginTarget), of which its key is made, too.

mod forwarded;
pub mod forwarded_fields;
pub mod max_forwards;
pub mod request;
pub mod request_id;
pub mod response;
mod via;

pub use request::RequestSource;
pub use via::{ViaIdentity, is_loop};
