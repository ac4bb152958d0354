//! Which stored response a request asks for: target normalisation, selecting headers, the cache key.

pub mod vary;
