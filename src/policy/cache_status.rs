//! The cache fields of responses to clients: `X-API-Cache` and `Cache-Status` (RFC 9211).

use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use super::Reason;

/// Field name of `X-API-Cache`, the cache result in one word.
pub(crate) const X_API_CACHE: HeaderName = HeaderName::from_static("x-api-cache");

/// Field name of `Cache-Status` (RFC 9211).
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The cache result of a request in one word: the value of `X-API-Cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheResult {
    /// Served from the store while fresh, without a request to the origin.
    Hit,
    /// Nothing usable was stored.
    Miss,
    /// The stored response was stale, and the origin sent a new one.
    Expired,
    /// The stored response was stale, and the origin confirmed it.
    Revalidated,
    /// Served stale as configured.
    Stale,
    /// The cache was not consulted.
    Bypass,
}

impl CacheResult {
    /// All cache results.
    pub const ALL: &'static [Self] =
        &[Self::Hit, Self::Miss, Self::Expired, Self::Revalidated, Self::Stale, Self::Bypass];

    /// Returns the value of `X-API-Cache`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Expired => "EXPIRED",
            Self::Revalidated => "REVALIDATED",
            Self::Stale => "STALE",
            Self::Bypass => "BYPASS",
        }
    }

    /// Returns the value of `X-API-Cache` as a [`HeaderValue`], without allocating.
    pub const fn header_value(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

/// The reason for a request to the origin (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ForwardReason {
    /// The cache is configured not to handle the request.
    Bypass,
    /// The method of the request requires forwarding it to the origin.
    Method,
    /// No response is stored for the target.
    UriMiss,
    /// Responses are stored for the target, but this request selects none of them.
    VaryMiss,
    /// Cache directives in the request require forwarding it to the origin.
    Request,
    /// The stored response is stale.
    Stale,
}

impl ForwardReason {
    /// Returns the value of the `fwd` parameter (RFC 9211 §2.2).
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

/// Whether the response was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredStatus {
    /// The response was stored, or is being stored.
    Yes,
    /// The response will be stored unless its body, of unknown length, exceeds the limit.
    UnlessTooLong,
    /// Whether the response is stored depends on its body, which has not been read yet.
    Undecided,
    /// The response was not stored.
    No,
}

/// Whether a request shared the fetch of another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Collapsed {
    /// The request shared the fetch of another request.
    Yes,
    /// The request had a fetch of its own.
    No,
}

/// The source of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseSource {
    /// From the store.
    Hit,
    /// From the origin.
    Forwarded {
        /// The reason for the request to the origin.
        forward: ForwardReason,
        /// The status of the origin's response, if there was one.
        status: Option<StatusCode>,
        /// Whether the origin's response was stored.
        stored: StoredStatus,
        /// Whether the fetch was shared by several requests.
        collapsed: Collapsed,
    },
}

/// One member of `Cache-Status`: how Larder handled a request (RFC 9211 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheStatus {
    /// The source of the response.
    pub handling: ResponseSource,
    /// Remaining freshness in seconds, negative if stale; `None` if the response is not stored.
    pub ttl: Option<i64>,
    /// The reason why the result is not a plain hit; `None` for a plain hit.
    pub detail: Option<Reason>,
}

impl CacheStatus {
    /// Formats the member as a field line of its own, with one allocation.
    pub(crate) fn header_value(&self) -> HeaderValue {
        let mut text = MemberBuffer::new();
        text.extend_from_slice(b"larder");
        match self.handling {
            ResponseSource::Hit => text.extend_from_slice(b"; hit"),
            ResponseSource::Forwarded { forward, status, stored, collapsed } => {
                text.extend_from_slice(b"; fwd=");
                text.extend_from_slice(forward.as_str().as_bytes());
                if let Some(status) = status {
                    text.extend_from_slice(b"; fwd-status=");
                    text.extend_from_slice(status.as_str().as_bytes());
                }
                if stored == StoredStatus::Yes {
                    text.extend_from_slice(b"; stored");
                }
                if collapsed == Collapsed::Yes {
                    text.extend_from_slice(b"; collapsed");
                }
            }
        }
        if let Some(ttl) = self.ttl {
            text.extend_from_slice(b"; ttl=");
            push_integer(&mut text, ttl);
        }
        if let Some(detail) = self.detail {
            text.extend_from_slice(b"; detail=");
            text.extend_from_slice(detail.as_str().as_bytes());
        }
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("larder"))
    }
}

/// A buffer on the stack, large enough for a `Cache-Status` member.
type MemberBuffer = SmallVec<[u8; 128]>;

/// The largest integer that a structured field can contain (RFC 9651 §3.3.1).
const MAX_INTEGER: u64 = 999_999_999_999_999;

fn push_integer(text: &mut MemberBuffer, number: i64) {
    if number < 0 {
        text.push(b'-');
    }
    let mut rest = number.unsigned_abs().min(MAX_INTEGER);
    let mut reversed = SmallVec::<[u8; 20]>::new();
    loop {
        let digit = u8::try_from(rest % 10).unwrap_or_default();
        reversed.push(b'0' + digit);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.extend(reversed.into_iter().rev());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forwarded(forward: ForwardReason) -> ResponseSource {
        ResponseSource::Forwarded {
            forward,
            status: Some(StatusCode::OK),
            stored: StoredStatus::Yes,
            collapsed: Collapsed::No,
        }
    }

    #[test]
    fn a_hit_says_how_long_it_stays_fresh() {
        let hit = |ttl| CacheStatus { handling: ResponseSource::Hit, ttl: Some(ttl), detail: None };
        assert_eq!(hit(41).header_value(), "larder; hit; ttl=41");
        let stale = CacheStatus { detail: Some(Reason::StaleWhileRevalidate), ..hit(-12) };
        assert_eq!(stale.header_value(), "larder; hit; ttl=-12; detail=stale-while-revalidate");
    }

    #[test]
    fn a_forwarded_request_says_why() {
        let status = CacheStatus {
            handling: forwarded(ForwardReason::UriMiss),
            ttl: Some(60),
            detail: Some(Reason::Cold),
        };
        let expected = "larder; fwd=uri-miss; fwd-status=200; stored; ttl=60; detail=cold";
        assert_eq!(status.header_value(), expected);
        let bypassed = CacheStatus {
            handling: ResponseSource::Forwarded {
                forward: ForwardReason::Bypass,
                status: None,
                stored: StoredStatus::No,
                collapsed: Collapsed::Yes,
            },
            ttl: None,
            detail: None,
        };
        assert_eq!(bypassed.header_value(), "larder; fwd=bypass; collapsed");
    }

    #[test]
    fn results_are_the_words_of_the_contract() {
        let words: Vec<_> = CacheResult::ALL.iter().map(|result| result.as_str()).collect();
        assert_eq!(words, ["HIT", "MISS", "EXPIRED", "REVALIDATED", "STALE", "BYPASS"]);
        assert_eq!(CacheResult::Hit.header_value(), "HIT");
    }

    proptest! {
        #[test]
        fn every_member_is_a_structured_list(ttl in any::<i64>(), reason in 0..Reason::ALL.len()) {
            let status = CacheStatus {
                handling: forwarded(ForwardReason::VaryMiss),
                ttl: Some(ttl),
                detail: Some(Reason::ALL[reason]),
            };
            let value = status.header_value();
            let parsed: sfv::List = sfv::Parser::new(value.as_bytes()).parse().unwrap();
            prop_assert_eq!(parsed.len(), 1);
        }
    }
}
