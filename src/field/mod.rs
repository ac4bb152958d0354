//! HTTP field grammar without caching meaning.

pub mod date;

pub use date::Timestamp;
