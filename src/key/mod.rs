//! Cache keys: the request to the origin, the partition, and the selecting header fields.

mod cache_key;
mod content;
pub(crate) mod digest;
mod origin_target;
pub(crate) mod partition;
pub(crate) mod uri;
pub(crate) mod vary;

pub use cache_key::CacheKey;
pub(crate) use cache_key::StoragePlacement;
pub(crate) use content::{ContentDigest, describes_content};
pub use digest::DigestKey;
pub use origin_target::OriginTarget;
pub(crate) use origin_target::{is_selected_by_cookies, requested_url};
