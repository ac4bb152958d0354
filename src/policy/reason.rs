//! The closed list of reasons for not using the cache, not storing, or serving stale.

use std::fmt;

/// Declares the enum, its spellings and the list of its values in one place.
macro_rules! reasons {
    ($($(#[doc = $prose:literal])+ $name:ident = $text:literal,)+) => {
        /// The reason why a request was not served from the store, or its response not stored.
        ///
        /// The same spelling appears in `Cache-Status` (`detail=`), the access log, metric labels
        /// and `explain`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $prose])+ $name,)+
        }

        impl Reason {
            /// All reasons in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Returns the reason as users see it: lower-case words joined by hyphens.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// Returns the description that `explain` shows, in a sentence or two.
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
    /// The route is quarantined: its responses depend on the requester, although the route shares
    /// them.
    Quarantined = "quarantined",
    /// The route is in shadow mode: the origin responds, and the cache is only measured.
    Shadow = "shadow",
    /// Responses to this method are not cached.
    MethodNotCacheable = "method-not-cacheable",
    /// The route caches `POST` requests with JSON, and this one has another `Content-Type`: it
    /// counts as a write, unless it is known to be a GraphQL query.
    BodyNotJson = "body-not-json",
    /// The request's body is too large to be part of a key.
    BodyKeyTooLarge = "body-key-too-large",
    /// The memory for request bodies that are part of a key is exhausted.
    BodyKeyBudget = "body-key-budget",
    /// The GraphQL request is a mutation, or a batch with one.
    GraphqlMutation = "graphql-mutation",
    /// The GraphQL request is a subscription.
    GraphqlSubscription = "graphql-subscription",
    /// The GraphQL request asks for the schema, which no purge covers.
    GraphqlIntrospection = "graphql-introspection",
    /// Several GraphQL queries are sent as one request.
    GraphqlBatch = "graphql-batch",
    /// The GraphQL request names a document that is neither registered here nor persisted by a
    /// client yet.
    GraphqlUnknownDocument = "graphql-unknown-document",
    /// Servers would reject the GraphQL request, or could interpret it differently: a syntax error,
    /// an unknown member, several operations without a name, or a body that is not JSON.
    GraphqlUnclear = "graphql-unclear",
    /// The route's `operation` does not list the GraphQL operation.
    GraphqlOperation = "graphql-operation",
    /// The request upgrades the connection to another protocol.
    Upgrade = "upgrade",
    /// The request has passed through this node before.
    Loop = "loop",
    /// The request's host is not served here.
    Misdirected = "misdirected",
    /// The request says `no-store`.
    RequestNoStore = "request-no-store",
    /// The request says `no-cache`.
    RequestNoCache = "request-no-cache",
    /// The stored response is older than the request's `max-age`.
    RequestMaxAge = "request-max-age",
    /// The stored response is fresh for less time than the request's `min-fresh`.
    RequestMinFresh = "request-min-fresh",
    /// The stored response is stale, but within the request's `max-stale`.
    RequestMaxStale = "request-max-stale",
    /// The request says `only-if-cached` and no stored response can be used.
    OnlyIfCached = "only-if-cached",
    /// Servers may route the request differently than its target says. Either a field overrides the
    /// method or the target (`X-HTTP-Method-Override`, `X-Original-URL`), or servers parse the path
    /// differently and the results match different routes.
    AmbiguousTarget = "ambiguous-target",
    /// The request has a precondition that only the origin can evaluate (`If-Match`).
    Precondition = "precondition",
    /// The request asks for a range that cannot be served from the store, or the response is partial.
    Range = "range",
    /// The request carries `Authorization` and the response does not allow sharing it.
    Authorization = "authorization",
    /// The request carries a session cookie and the response does not allow sharing it.
    CookieRequest = "cookie-request",
    /// The request carries another credential, such as `X-Api-Key`, and the response does not allow
    /// sharing it.
    CredentialField = "credential-field",
    /// The request carries a cookie of unknown purpose, and the origin does not give the response a
    /// lifetime.
    UnknownCookie = "unknown-cookie",
    /// Servers may parse the request's cookies differently: a cookie is repeated or malformed.
    AmbiguousCookie = "ambiguous-cookie",
    /// The query is signed, and the origin does not give the response a lifetime: the signature may
    /// expire earlier.
    SignedTarget = "signed-target",
    /// The route is partitioned by identity, and the request has no verified identity or lacks a
    /// required claim.
    NoIdentity = "no-identity",
    /// The request's token could not be verified: expired, forged, from another issuer, or bound to
    /// a key.
    UnverifiedToken = "unverified-token",
    /// The request carries a credential besides the one that proves its identity.
    SecondCredential = "second-credential",
    /// The origin has not accepted the request's credentials recently and is asked first.
    Recheck = "recheck",
    /// The origin requires credentials, which the route's `partition = "everyone"` removes.
    /// `"authenticated"` keeps them.
    CredentialsNeeded = "credentials-needed",
    /// The response varies by the field that identifies the partition.
    VaryCredential = "vary-credential",
    /// The response sets a cookie, or clears cookies (`Clear-Site-Data`), without explicit
    /// freshness.
    SetCookie = "set-cookie",
    /// The response is `private`.
    Private = "private",
    /// The response says `no-store`.
    NoStore = "no-store",
    /// The response says `no-cache`: it is validated before each use, or not stored if it has no
    /// validator.
    NoCache = "no-cache",
    /// The response says `must-understand` and has a status that Larder does not understand.
    MustUnderstand = "must-understand",
    /// The response varies by more than request headers (`Vary: *`), by the client's address
    /// (`X-Forwarded-For`, `Forwarded`), or by the request's ID (`X-Request-ID`).
    VaryStar = "vary-star",
    /// Responses with this status are not stored.
    StatusNotCacheable = "status-not-cacheable",
    /// The response has neither a lifetime nor a validator.
    NoFreshness = "no-freshness",
    /// The response is stale on arrival and has no validator.
    ZeroTtl = "zero-ttl",
    /// The response has too many tags, or an invalid or overlong one: purging that tag would miss
    /// the response.
    TagLimit = "tag-limit",
    /// The tags in the response's JSON could not be read: purging one of them would miss the
    /// response.
    TagsUnreadable = "tags-unreadable",
    /// The GraphQL response has errors.
    GraphqlErrors = "graphql-errors",
    /// The response to a GraphQL query is not JSON that can be read: a page, several parts, more
    /// than 1 MiB, or in a content coding other than gzip.
    GraphqlResponse = "graphql-response",
    /// The response's JSON matches the route's `store_unless`, contains GraphQL errors, or could
    /// not be read.
    StoreUnless = "store-unless",
    /// The response is a redirect that repeats the value of a query parameter that is not part of
    /// the key.
    IgnoredParameter = "ignored-parameter",
    /// The response is larger than the maximum size of stored responses.
    TooLarge = "too-large",
    /// The memory for responses that are being stored is exhausted.
    FillBudget = "fill-budget",
    /// The response is an endless stream of events.
    Streaming = "streaming",
    /// No response is stored for this target.
    Cold = "cold",
    /// Responses are stored for this target, but for other request headers.
    VaryMismatch = "vary-mismatch",
    /// The stored response is stale.
    Expired = "expired",
    /// The stored response has been purged.
    Purged = "purged",
    /// The stored response has been softly purged: it is stale and is fetched again.
    SoftPurged = "soft-purged",
    /// The stored response belongs to the previous version of the namespace and may be served while
    /// it is fetched again.
    PreviousVersion = "previous-version",
    /// This node does not follow the purge log, so a stored response may have been purged, or its
    /// route quarantined.
    Unsynced = "unsynced",
    /// The stored response is stale, and served while it is revalidated in the background.
    StaleWhileRevalidate = "stale-while-revalidate",
    /// The stored response is stale, and served because the origin failed.
    StaleIfError = "stale-if-error",
    /// The stored response is stale, and served because the origin is unreachable.
    StaleIfDisconnected = "stale-if-disconnected",
    /// The origin was unreachable or did not respond in time.
    OriginError = "origin-error",
}

impl Reason {
    /// Returns whether the reason concerns one request only, not others for the same target.
    pub const fn is_request_specific(self) -> bool {
        matches!(
            self,
            Self::Authorization
                | Self::CookieRequest
                | Self::CredentialField
                | Self::UnknownCookie
                | Self::IgnoredParameter
                | Self::GraphqlErrors
                | Self::GraphqlResponse
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
