//! The part of a route that governs caching.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;

use super::Partition;

/// A route's caching rule, merged with `[defaults]` and its tier. The default rule describes a
/// plain shared cache of RFC 9111.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRule {
    /// Whether responses are looked up and stored.
    pub cache: bool,
    /// The clients that share stored responses.
    pub partition: Partition,
    /// Whether responses and URLs are confined to the memory of nodes.
    pub sensitive: bool,
    /// Lifetime of responses, subject to `ttl_from`.
    pub ttl: Ttl,
    /// Precedence between `ttl` and the origin's own freshness.
    pub ttl_from: TtlFrom,
    /// Overrides the origin's `stale-while-revalidate` (RFC 5861 §3) unless `None`.
    pub stale_while_revalidate: Option<Duration>,
    /// Default for origins that send no `stale-if-error` (RFC 5861 §4). Zero disables stale
    /// responses on failure, even if the origin allows them.
    pub stale_if_error: Option<Duration>,
    /// How long a stale response may be served while the origin is unreachable (RFC 9111 §4.2.4).
    pub stale_if_disconnected: Duration,
    /// Whether clients may force revalidation with their own `Cache-Control`.
    pub client_cache_control: ClientCacheControl,
}

impl CacheRule {
    /// Default of `stale_if_disconnected`.
    pub const STALE_IF_DISCONNECTED: Duration = Duration::from_mins(10);

    /// Returns whether the rule may give a lifetime to responses that have none.
    pub fn has_ttl(&self) -> bool {
        !self.ttl.is_empty()
    }

    /// Returns how long a response may be used under this rule, fresh and stale. The origin may
    /// extend this time.
    pub fn max_use(&self) -> Duration {
        let fresh = self.ttl.iter().map(|(_, time)| time).max().unwrap_or_default();
        fresh.saturating_add(self.max_stale_window())
    }

    /// Returns how long a response may be used under this rule after it became stale.
    pub fn max_stale_window(&self) -> Duration {
        let windows = [self.stale_while_revalidate, self.stale_if_error];
        windows
            .into_iter()
            .flatten()
            .max()
            .unwrap_or_default()
            .max(self.effective_stale_if_disconnected())
    }

    /// Returns how long a stale response may be served while the origin is unreachable. The
    /// response's headers may still forbid stale use.
    pub fn effective_stale_if_disconnected(&self) -> Duration {
        if self.disables_stale_on_error() { Duration::ZERO } else { self.stale_if_disconnected }
    }

    /// Returns whether `stale_if_error = "0"` disables all stale responses on failure.
    pub fn disables_stale_on_error(&self) -> bool {
        self.stale_if_error == Some(Duration::ZERO)
    }
}

impl Default for CacheRule {
    fn default() -> Self {
        Self {
            cache: true,
            partition: Partition::None,
            sensitive: false,
            ttl: Ttl::default(),
            ttl_from: TtlFrom::Origin,
            stale_while_revalidate: None,
            stale_if_error: None,
            stale_if_disconnected: Self::STALE_IF_DISCONNECTED,
            client_cache_control: ClientCacheControl::Honor,
        }
    }
}

/// Lifetimes by status. A status that is not listed has no lifetime.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ttl(BTreeMap<StatusCode, Duration>);

impl Ttl {
    /// The statuses of a plain `ttl`: successful responses to `GET`.
    pub const SUCCESSES: [StatusCode; 3] =
        [StatusCode::OK, StatusCode::NON_AUTHORITATIVE_INFORMATION, StatusCode::NO_CONTENT];

    /// Creates a lifetime for [`SUCCESSES`](Self::SUCCESSES).
    pub fn for_successes(time: Duration) -> Self {
        Self::SUCCESSES.map(|status| (status, time)).into_iter().collect()
    }

    /// Returns the lifetime of responses with a status, if listed.
    pub fn for_status(&self, status: StatusCode) -> Option<Duration> {
        self.0.get(&status).copied()
    }

    /// Returns whether no status is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the lifetime that [`SUCCESSES`](Self::SUCCESSES) share, if no other status has one.
    pub fn successes_only(&self) -> Option<Duration> {
        let time = self.for_status(StatusCode::OK)?;
        (*self == Self::for_successes(time)).then_some(time)
    }

    /// Returns all statuses in order, with their lifetimes.
    pub fn iter(&self) -> impl Iterator<Item = (StatusCode, Duration)> {
        self.0.iter().map(|(status, time)| (*status, *time))
    }

    /// Adds the lifetimes of `lower` for statuses that are not listed here.
    #[must_use]
    pub fn over(&self, lower: &Self) -> Self {
        lower.iter().chain(self.iter()).collect()
    }
}

impl FromIterator<(StatusCode, Duration)> for Ttl {
    /// Collects lifetimes by status. If a status is repeated, its last lifetime counts.
    fn from_iter<I: IntoIterator<Item = (StatusCode, Duration)>>(statuses: I) -> Self {
        Self(statuses.into_iter().collect())
    }
}

/// Precedence between the origin's freshness and the rule's `ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TtlFrom {
    /// Explicit freshness from the origin wins; the rule's `ttl` is the fallback.
    #[default]
    Origin,
    /// The rule's `ttl` wins.
    Rule,
    /// The shorter of the two lifetimes wins.
    Min,
    /// The longer of the two lifetimes wins.
    Max,
}

/// The effect of `Cache-Control` in requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCacheControl {
    /// RFC 9111 §5.2.1 applies.
    #[default]
    Honor,
    /// Request directives are ignored.
    Ignore,
}
