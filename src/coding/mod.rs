//! Content codings that Larder applies to stored responses (RFC 9110 §8.4.1).
//!
//! A route lists the codings. [`negotiation`] selects a coding for a request, [`refusal`] decides
//! which responses stay unencoded, [`encoder`] makes the coded body, and [`coded_tag`] derives its
//! entity tag and maps the tags of coded bodies in requests back to the origin's.

pub(crate) mod coded_tag;
mod encoder;
pub(crate) mod negotiation;
mod refusal;

use http::HeaderValue;

pub(crate) use encoder::encode;
pub(crate) use refusal::{CodingRefusal, forbids_transforming, refusal};

/// A content coding that Larder can apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentCoding {
    /// Brotli (RFC 7932).
    Brotli,
    /// Zstandard (RFC 8878), with a window of at most 8 MiB (RFC 9659).
    Zstd,
    /// gzip (RFC 1952).
    Gzip,
}

impl ContentCoding {
    /// All codings.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Returns the name in `Accept-Encoding` and `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// Returns the value of `Content-Encoding`.
    pub const fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }

    /// Returns the position in [`ALL`](Self::ALL).
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}
