//! What a route contributes to the caching decisions about its responses.

use std::{collections::BTreeMap, time::Duration};

use http::StatusCode;

use super::Partition;

/// A route's caching rule, with `[defaults]` and its tier already merged in.
///
/// The default rule is "a correct RFC 9111 shared cache, no more".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRule {
    /// Whether anything is looked up or stored at all.
    pub cache: bool,
    /// Who shares what is stored.
    pub partition: Partition,
    /// Whether its responses and URLs stay in the memory of nodes.
    pub sensitive: bool,
    /// How long responses are fresh, as far as `ttl_from` lets this speak.
    pub ttl: Ttl,
    /// Who decides between `ttl` and the origin's own freshness.
    pub ttl_from: TtlFrom,
    /// Overrides the origin's `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Option<Duration>,
    /// Used where the origin sends no `stale-if-error` (RFC 5861 §4). Zero: an origin that fails is never
    /// bridged, whatever it says itself.
    pub stale_if_error: Option<Duration>,
    /// How long after it became stale a response bridges an origin that cannot be reached (RFC 9111
    /// §4.2.4).
    pub stale_if_disconnected: Duration,
    /// Whether clients may force revalidation with their own `Cache-Control`.
    pub client_cache_control: ClientCacheControl,
}

impl CacheRule {
    /// What `stale_if_disconnected` is if no one says otherwise.
    pub const STALE_IF_DISCONNECTED: Duration = Duration::from_mins(10);

    /// Whether it may make a response fresh that the origin says nothing about.
    pub fn has_ttl(&self) -> bool {
        !self.ttl.is_empty()
    }

    /// Returns the longest that a response is used under this rule, stale or not, as far as the rule
    /// says. An origin may say more.
    pub fn max_use(&self) -> Duration {
        let fresh = self.ttl.iter().map(|(_, time)| time).max().unwrap_or_default();
        fresh.saturating_add(self.max_stale_window())
    }

    /// Returns the longest that a response is used after it became stale, as far as the rule says.
    pub fn max_stale_window(&self) -> Duration {
        let windows = [self.stale_while_revalidate, self.stale_if_error];
        windows
            .into_iter()
            .flatten()
            .max()
            .unwrap_or_default()
            .max(self.effective_stale_if_disconnected())
    }

    /// Returns how long after it became stale a response bridges an origin that cannot be reached, unless its
    /// own headers forbid it.
    pub fn effective_stale_if_disconnected(&self) -> Duration {
        if self.disables_stale_on_error() { Duration::ZERO } else { self.stale_if_disconnected }
    }

    /// Whether `stale_if_error = "0"` turns off every bridging of an origin that fails.
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

/// How long a rule keeps responses fresh, by their status; nothing for a status that is not named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ttl(BTreeMap<StatusCode, Duration>);

impl Ttl {
    /// The statuses that a time without statuses is for: successful answers to `GET`.
    pub const SUCCESSES: [StatusCode; 3] =
        [StatusCode::OK, StatusCode::NON_AUTHORITATIVE_INFORMATION, StatusCode::NO_CONTENT];

    /// This time for [`SUCCESSES`](Self::SUCCESSES).
    pub fn for_successes(time: Duration) -> Self {
        Self::SUCCESSES.map(|status| (status, time)).into_iter().collect()
    }

    /// How long a response with this status is fresh.
    pub fn for_status(&self, status: StatusCode) -> Option<Duration> {
        self.0.get(&status).copied()
    }

    /// Whether no status is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The time for [`SUCCESSES`](Self::SUCCESSES), where it is for them and no other status.
    pub fn successes_only(&self) -> Option<Duration> {
        let time = self.for_status(StatusCode::OK)?;
        (*self == Self::for_successes(time)).then_some(time)
    }

    /// All statuses in order, with their times.
    pub fn iter(&self) -> impl Iterator<Item = (StatusCode, Duration)> {
        self.0.iter().map(|(status, time)| (*status, *time))
    }

    /// This, and what `lower` says about statuses that this does not name.
    #[must_use]
    pub fn over(&self, lower: &Self) -> Self {
        lower.iter().chain(self.iter()).collect()
    }
}

impl FromIterator<(StatusCode, Duration)> for Ttl {
    /// Of a status that comes twice the last counts.
    fn from_iter<I: IntoIterator<Item = (StatusCode, Duration)>>(statuses: I) -> Self {
        Self(statuses.into_iter().collect())
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
