//! What a route contributes to the caching decisions about its responses.

use std::time::Duration;

/// A route's caching rule, with `[defaults]` and its tier already merged in.
///
/// The default rule is "a correct RFC 9111 shared cache, no more".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether anything is looked up or stored at all.
    pub cache: bool,
    /// How long a response is fresh, as far as `ttl_from` lets this speak.
    pub ttl: Option<Duration>,
    /// Who decides between `ttl` and the origin's own freshness.
    pub ttl_from: TtlFrom,
    /// Overrides the origin's `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// Used where the origin sends no `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Option<Duration>,
    /// Whether clients may force revalidation with their own `Cache-Control`.
    pub client_cache_control: ClientCacheControl,
}

impl Rule {
    /// Whether it may make a response fresh that the origin says nothing about.
    pub fn has_ttl(&self) -> bool {
        self.ttl.is_some()
    }
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            cache: true,
            ttl: None,
            ttl_from: TtlFrom::Origin,
            stale_while_revalidate: None,
            stale_if_error: None,
            client_cache_control: ClientCacheControl::Honor,
        }
    }
}

/// Who decides how long a response is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TtlFrom {
    /// Explicit freshness from the origin wins; the rule's `ttl` fills silence.
    #[default]
    Origin,
    /// The rule's `ttl` wins.
    Rule,
    /// The shorter of the two.
    Min,
    /// The longer of the two.
    Max,
}

/// What requests' own `Cache-Control` may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCacheControl {
    /// RFC 9111 §5.2.1 is followed.
    #[default]
    Honor,
    /// Request directives are ignored.
    Ignore,
}
