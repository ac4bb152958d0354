//! The closed list of reasons: why the cache was not used, not filled, or answered stale.

use std::fmt;

/// Declares the enum, its spellings and the list of all its values in one place.
macro_rules! reasons {
    ($($(#[doc = $prose:literal])+ $name:ident = $text:literal,)+) => {
        /// Why a request was not answered from the store, or its response not stored.
        ///
        /// The same spelling appears in `Cache-Status` (`detail=`), the access log, the metric label
        /// and `explain`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $prose])+ $name,)+
        }

        impl Reason {
            /// Every reason there is, in the order of this file.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The reason as users read it: lower case, words joined by hyphens.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The reason in a sentence or two, as `explain` shows it.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($prose),+).trim_ascii(),)+
                }
            }
        }
    };
}

reasons! {
    /// The route is not cached, or its `bypass` condition holds.
    RuleBypass = "rule-bypass",
    /// Responses to this method are not cached.
    MethodNotCacheable = "method-not-cacheable",
    /// The request asks for another protocol on the same connection.
    Upgrade = "upgrade",
    /// The request has been through this node before.
    Loop = "loop",
    /// The request's host is none of those that are served.
    Misdirected = "misdirected",
    /// The request says `no-store`.
    RequestNoStore = "request-no-store",
    /// The request says `no-cache`.
    RequestNoCache = "request-no-cache",
    /// The stored response is older than the request's `max-age`.
    RequestMaxAge = "request-max-age",
    /// The stored response is fresh for less time than the request's `min-fresh`.
    RequestMinFresh = "request-min-fresh",
    /// Stale, but within the request's `max-stale`.
    RequestMaxStale = "request-max-stale",
    /// The request says `only-if-cached` and nothing stored answers it.
    OnlyIfCached = "only-if-cached",
    /// Some origins take the request for another one than its target says: a field of it replaces the
    /// method or the target (`X-HTTP-Method-Override`, `X-Original-URL`), or servers read its path
    /// differently and their readings fall under different routes.
    AmbiguousTarget = "ambiguous-target",
    /// The request has a precondition that only the origin may judge (`If-Match`).
    Precondition = "precondition",
    /// The request asks for a range that cannot be served from the store, or the response is partial.
    Range = "range",
    /// The request carries `Authorization` and the response does not allow sharing it.
    Authorization = "authorization",
    /// The request carries a session cookie and the response does not allow sharing it.
    CookieRequest = "cookie-request",
    /// The request carries another field that says who asks, such as `X-Api-Key`, and the response does
    /// not allow sharing it.
    CredentialField = "credential-field",
    /// The request carries a cookie of which nothing is known, and the origin does not say itself how long
    /// its response is fresh.
    UnknownCookie = "unknown-cookie",
    /// Servers may read the request's cookies differently: one comes twice, or breaks the grammar.
    AmbiguousCookie = "ambiguous-cookie",
    /// The query is signed, and the origin does not say itself how long its response is fresh: the
    /// signature may expire before.
    SignedTarget = "signed-target",
    /// The route keeps apart who asks, and the request proves no identity, or lacks a claim that counts.
    NoIdentity = "no-identity",
    /// The request's token cannot be verified: expired, forged, of another issuer, or bound to a key.
    UnverifiedToken = "unverified-token",
    /// The request carries a credential beside the one that its identity is made of.
    SecondCredential = "second-credential",
    /// The origin has not accepted the request's credentials lately: it is asked first.
    Recheck = "recheck",
    /// The origin wants credentials, and the route's `partition = "everyone"` takes them off.
    /// `"authenticated"` keeps them.
    CredentialsNeeded = "credentials-needed",
    /// The response varies by the field that the partition is made of.
    VaryCredential = "vary-credential",
    /// The response sets a cookie, or clears them (`Clear-Site-Data`), without explicit freshness.
    SetCookie = "set-cookie",
    /// The response is `private`.
    Private = "private",
    /// The response says `no-store`.
    NoStore = "no-store",
    /// The response says `no-cache`: validated before each use, or not stored for want of a validator.
    NoCache = "no-cache",
    /// The response says `must-understand`, and its status is none that Larder understands.
    MustUnderstand = "must-understand",
    /// The response varies by more than request headers (`Vary: *`), or by the client's address
    /// (`X-Forwarded-For`, `Forwarded`).
    VaryStar = "vary-star",
    /// Responses with this status are not stored.
    StatusNotCacheable = "status-not-cacheable",
    /// Nothing says how long the response is fresh, and it has no validator.
    NoFreshness = "no-freshness",
    /// The response is stale when it arrives, and it has no validator.
    ZeroTtl = "zero-ttl",
    /// The response has more tags than are kept, or one that is too long or no text: a purge of it would
    /// miss this response.
    TagLimit = "tag-limit",
    /// The tags that are in the response's JSON cannot be read: a purge of them would miss this response.
    TagsUnreadable = "tags-unreadable",
    /// The response's JSON has what the route's `store_unless` looks for, or errors of GraphQL; or it
    /// cannot be read.
    StoreUnless = "store-unless",
    /// The response is a redirect that repeats the value of a query parameter which is not in the key.
    IgnoredParameter = "ignored-parameter",
    /// The response is larger than what is stored.
    TooLarge = "too-large",
    /// Responses that are being stored take all the memory that they may: this one is not among them.
    FillBudget = "fill-budget",
    /// The response is a stream of events without an end.
    Streaming = "streaming",
    /// Nothing is stored for this target.
    Cold = "cold",
    /// Something is stored for this target, but for other request headers.
    VaryMismatch = "vary-mismatch",
    /// The stored response is stale.
    Expired = "expired",
    /// What was stored has been purged.
    Purged = "purged",
    /// What was stored has been purged softly: stale, and fetched anew.
    SoftPurged = "soft-purged",
    /// What was stored is of the version of the namespace before: it may be served while it is fetched
    /// anew.
    PreviousVersion = "previous-version",
    /// This node does not hear the purge log, so it cannot tell whether what is stored was purged.
    Unsynced = "unsynced",
    /// Stale, served while it is revalidated in the background.
    StaleWhileRevalidate = "stale-while-revalidate",
    /// Stale, served because the origin failed.
    StaleIfError = "stale-if-error",
    /// Stale, served because the origin cannot be reached.
    StaleIfDisconnected = "stale-if-disconnected",
    /// The origin could not be reached or did not answer in time.
    OriginError = "origin-error",
}

impl Reason {
    /// Whether it lies in one request alone: others for the same target fare better.
    pub const fn is_request_specific(self) -> bool {
        matches!(
            self,
            Self::Authorization
                | Self::CookieRequest
                | Self::CredentialField
                | Self::UnknownCookie
                | Self::IgnoredParameter
                | Self::RequestNoStore
                | Self::NoIdentity
                | Self::UnverifiedToken
                | Self::SecondCredential
                | Self::FillBudget
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_is_a_distinct_lower_case_token() {
        let spellings: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(spellings.len(), Reason::ALL.len());
        for text in spellings {
            assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{text}");
            assert!(text.starts_with(|first: char| first.is_ascii_lowercase()), "{text}");
        }
    }
}
