//! HTTP field grammar without caching meaning.

pub mod coding;
pub mod common;
pub mod cookie;
pub mod date;
pub mod entity_tag;
pub mod forwarded;
pub mod forwarding;
pub mod hop;
pub mod identity;
pub mod list;
pub mod name;
pub mod preference;
pub mod presence;
pub mod range;
pub mod retry_after;
pub mod structured;

pub use date::{Rfc3339, Timestamp};
pub use entity_tag::EntityTag;
