//! HTTP field grammar without caching meaning.

pub(crate) mod coding;
pub(crate) mod common;
pub(crate) mod cookie;
pub(crate) mod date;
pub(crate) mod entity_tag;
pub(crate) mod form;
pub(crate) mod forwarded;
pub(crate) mod forwarding;
pub(crate) mod hop;
pub(crate) mod identity;
pub(crate) mod list;
pub(crate) mod name;
pub(crate) mod preference;
pub(crate) mod presence;
pub(crate) mod range;
pub(crate) mod request_fields;
pub(crate) mod retry_after;
pub(crate) mod structured;

pub(crate) use date::Rfc3339;
pub use date::Timestamp;
pub(crate) use entity_tag::EntityTag;
pub(crate) use request_fields::RequestFields;
