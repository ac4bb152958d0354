//! What the programs of the bench have in common: the fields of a hit, and a histogram.

mod histogram;

pub use histogram::Histogram;

/// The fields of a hit from Larder: the origin's, then the cache's own.
pub const FIELDS: [(&str, &str); 12] = [
    ("server", "nginx/1.22.1"),
    ("date", "Sat, 01 Nov 2025 00:00:00 GMT"),
    ("content-type", "application/octet-stream"),
    ("last-modified", "Sat, 01 Nov 2025 00:00:00 GMT"),
    ("etag", "\"69055000-400\""),
    ("cache-control", "max-age=3600"),
    ("accept-ranges", "bytes"),
    ("age", "12"),
    ("via", "1.1 larder"),
    ("x-api-cache", "HIT"),
    ("cache-status", "larder; hit; ttl=3588"),
    ("x-request-id", "01jbw8d2v8z3k5m7n9p1q3r5t7"),
];
