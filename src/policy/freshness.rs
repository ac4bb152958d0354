//! Age and freshness lifetime of responses (RFC 9111 §4.2).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::field::{Timestamp, list};

use super::{
    CacheRule, ResponseDirectives, ResponseHead, TtlFrom,
    directive::{DirectiveSource, MAX_DELTA_SECONDS, delta_seconds},
};

/// The freshness of a stored response, computed on receipt. Do not change the fields: the format of
/// stored entries contains them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// Time of receipt.
    pub received_at: Timestamp,
    /// Corrected initial age (§4.2.3): the age at receipt.
    pub initial_age: Duration,
    /// Age at which the response becomes stale.
    pub lifetime: Duration,
    /// The origin's `stale-while-revalidate`, in seconds.
    pub stale_while_revalidate: Option<u32>,
    /// The origin's `stale-if-error`, in seconds.
    pub stale_if_error: Option<u32>,
    /// Time after receipt during which the response may be used, fresh or stale. `None` means no
    /// limit. The time counts from `received_at`, so that all nodes agree.
    pub usable_for: Option<Duration>,
    /// Limits and permissions from the response's directives.
    pub constraints: Constraints,
}

/// A set of properties that govern reuse; stored as one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Constraints(u8);

impl Constraints {
    /// `no-cache`: validate before each use.
    pub const NO_CACHE: Self = Self(1);
    /// `must-revalidate`: never served stale; may be shared despite `Authorization` (§3.5).
    pub const MUST_REVALIDATE: Self = Self(1 << 1);
    /// `proxy-revalidate`: never served stale.
    pub const PROXY_REVALIDATE: Self = Self(1 << 2);
    /// `s-maxage` set the lifetime: served stale only if the origin gives a window (§5.2.2.10).
    pub const S_MAXAGE: Self = Self(1 << 3);
    /// `immutable`: a reload does not revalidate the response while it is fresh (RFC 8246).
    pub const IMMUTABLE: Self = Self(1 << 4);
    /// The origin gave an explicit lifetime, possibly zero.
    pub const EXPLICIT: Self = Self(1 << 5);
    /// `public` or `s-maxage`: may be shared whatever the credentials.
    pub const SHAREABLE: Self = Self(1 << 6);
    /// The origin gave an explicit lifetime that is not zero.
    pub const FRESH_BY_ORIGIN: Self = Self(1 << 7);

    /// Encodes the set as the byte in stored entries.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Decodes the byte in stored entries. Never fails: all eight bits are assigned.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns whether the set contains at least one of `these`.
    pub const fn has_any(self, these: Self) -> bool {
        self.0 & these.0 != 0
    }

    /// Returns the union of both sets.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    fn with_if(self, condition: bool, others: Self) -> Self {
        if condition { self.with(others) } else { self }
    }
}

/// Maximum difference by which a time of receipt may be ahead of this node's clock.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(1);

/// The source of a lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeBasis {
    /// `s-maxage`, `max-age` or `Expires`.
    Origin,
    /// The rule's `ttl`.
    Rule,
    /// A tenth of the time since `Last-Modified` (§4.2.2).
    Heuristic,
    /// No source: the lifetime is zero.
    Unspecified,
}

impl Freshness {
    /// Computes the freshness of a response at the time of receipt.
    ///
    /// `ttl_from` chooses between the origin's lifetime and the rule's. The rule's lifetime counts
    /// from receipt, whatever the age of the response. It applies only to the statuses that the
    /// rule names: a `ttl` on a route does not make errors fresh.
    pub fn on_receipt(
        response: &ResponseHead<'_>,
        directives: &ResponseDirectives,
        rule: &CacheRule,
    ) -> (Self, LifetimeBasis) {
        let initial_age = initial_age(response);
        let by_origin = origin_lifetime(response, directives);
        let by_rule =
            rule.ttl.for_status(response.status).map(|ttl| initial_age.saturating_add(ttl));
        let refuses_reuse = directives.no_cache;
        let explicit = by_origin.or(refuses_reuse.then_some(Duration::ZERO));
        let (lifetime, basis) =
            choose_lifetime(explicit, by_rule, rule.ttl_from).unwrap_or_else(|| {
                heuristic_lifetime(response, directives)
                    .map_or((Duration::ZERO, LifetimeBasis::Unspecified), |lifetime| {
                        (lifetime, LifetimeBasis::Heuristic)
                    })
            });
        let freshness = Self {
            received_at: response.received_at,
            initial_age,
            lifetime,
            stale_while_revalidate: directives.stale_while_revalidate,
            stale_if_error: directives.stale_if_error,
            usable_for: None,
            constraints: constraints(directives, by_origin, basis, rule.ttl_from),
        };
        (freshness, basis)
    }

    /// Limits all use of the response to this time after receipt.
    ///
    /// An earlier limit stays. Used for responses that must not outlive the credentials that gave
    /// access to them. After the limit, only the validator is used: a `304` gives the response new
    /// freshness and a new limit.
    #[must_use]
    pub fn ending_in(self, remaining: Duration) -> Self {
        let usable_for = self.usable_for.map_or(remaining, |known| known.min(remaining));
        Self { usable_for: Some(usable_for), ..self }
    }

    /// Returns whether the time limit for all use has passed. A limited response with a time of
    /// receipt in the future counts as ended, since its limit would be too late.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.usable_for.is_some_and(|usable_for| {
            self.is_from_future(now) || now.saturating_since(self.received_at) >= usable_for
        })
    }

    /// Returns the current age (§4.2.3).
    pub fn current_age(&self, now: Timestamp) -> Duration {
        self.initial_age.saturating_add(now.saturating_since(self.received_at))
    }

    /// Returns the current value of `Age`: whole seconds, at most 2^31.
    pub fn age_seconds(&self, now: Timestamp) -> u32 {
        let seconds = self.current_age(now).as_secs();
        u32::try_from(seconds).unwrap_or(MAX_DELTA_SECONDS).min(MAX_DELTA_SECONDS)
    }

    /// Returns the seconds until the response is stale or unusable, rounded down; negative
    /// afterwards.
    pub fn ttl(&self, now: Timestamp) -> i64 {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let left = millis(self.lifetime).saturating_sub(millis(self.current_age(now)));
        let usable = self.usable_for.map_or(i64::MAX, |usable_for| {
            millis(usable_for).saturating_sub(millis(now.saturating_since(self.received_at)))
        });
        left.min(usable).div_euclid(1000)
    }

    /// Returns whether the response may answer other requests without validation. If not, collapsed
    /// requests do not share it.
    pub fn is_reusable_unvalidated(&self, now: Timestamp) -> bool {
        self.is_fresh(now) && !self.constraints.has_any(Constraints::NO_CACHE)
    }

    /// Returns whether the response is fresh: younger than its lifetime, and still usable.
    ///
    /// A response whose time of receipt is in the future is not fresh: the clock of the node that
    /// received it was ahead, and the response would stay fresh too long.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.lifetime > self.current_age(now) && !self.is_from_future(now) && !self.has_ended(now)
    }

    fn is_from_future(&self, now: Timestamp) -> bool {
        self.received_at > now.saturating_add(MAX_CLOCK_SKEW)
    }

    /// Returns how long the response has been stale; zero while it is fresh.
    pub fn staleness(&self, now: Timestamp) -> Duration {
        self.current_age(now).saturating_sub(self.lifetime)
    }
}

/// Chooses between the origin's lifetime and the rule's. Returns `None` if neither exists.
fn choose_lifetime(
    origin: Option<Duration>,
    rule: Option<Duration>,
    from: TtlFrom,
) -> Option<(Duration, LifetimeBasis)> {
    let (origin, rule) = match (origin, rule) {
        (Some(origin), Some(rule)) => (origin, rule),
        (Some(origin), None) => return Some((origin, LifetimeBasis::Origin)),
        (None, Some(rule)) => return Some((rule, LifetimeBasis::Rule)),
        (None, None) => return None,
    };
    let rule_wins = match from {
        TtlFrom::Origin => false,
        TtlFrom::Rule => true,
        TtlFrom::Min => rule < origin,
        TtlFrom::Max => rule > origin,
    };
    Some(if rule_wins { (rule, LifetimeBasis::Rule) } else { (origin, LifetimeBasis::Origin) })
}

fn constraints(
    directives: &ResponseDirectives,
    by_origin: Option<Duration>,
    basis: LifetimeBasis,
    from: TtlFrom,
) -> Constraints {
    let longer_by_rule =
        basis == LifetimeBasis::Rule && matches!(from, TtlFrom::Rule | TtlFrom::Max);
    Constraints::default()
        .with_if(directives.no_cache && !longer_by_rule, Constraints::NO_CACHE)
        .with_if(directives.must_revalidate, Constraints::MUST_REVALIDATE)
        .with_if(directives.proxy_revalidate, Constraints::PROXY_REVALIDATE)
        .with_if(directives.s_maxage.is_some() && !longer_by_rule, Constraints::S_MAXAGE)
        .with_if(directives.immutable, Constraints::IMMUTABLE)
        .with_if(by_origin.is_some(), Constraints::EXPLICIT)
        .with_if(
            by_origin.is_some_and(|lifetime| !lifetime.is_zero()),
            Constraints::FRESH_BY_ORIGIN,
        )
        .with_if(directives.shareable, Constraints::SHAREABLE)
}

/// Returns the explicit lifetime from the origin (§4.2.1); `None` if the origin gives none.
///
/// `Expires` counts from `Date`, or from receipt if `Date` is missing or invalid. An invalid
/// `Expires` counts as past. If there is a targeted field, `Expires` is ignored.
pub(crate) fn origin_lifetime(
    response: &ResponseHead<'_>,
    directives: &ResponseDirectives,
) -> Option<Duration> {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return Some(Duration::from_secs(seconds.into()));
    }
    if directives.source != DirectiveSource::CacheControl {
        return None;
    }
    let expires = response.headers.get(header::EXPIRES)?;
    let sent = date(response.headers, header::DATE).unwrap_or(response.received_at);
    let lifetime = parse_date(expires).map(|at| at.saturating_since(sent)).unwrap_or_default();
    Some(lifetime.min(Duration::from_secs(MAX_DELTA_SECONDS.into())))
}

/// Maximum heuristic lifetime.
const MAX_HEURISTIC_LIFETIME: Duration = Duration::from_hours(24);

/// Returns a tenth of the time between `Last-Modified` and `Date` (§4.2.2), in whole seconds and at
/// most a day. `None` if `Last-Modified` is missing, or neither the status nor `public` allows it.
fn heuristic_lifetime(
    response: &ResponseHead<'_>,
    directives: &ResponseDirectives,
) -> Option<Duration> {
    if !directives.public && !is_heuristically_cacheable(response.status) {
        return None;
    }
    let modified = date(response.headers, header::LAST_MODIFIED)?;
    let sent = date(response.headers, header::DATE).unwrap_or(response.received_at);
    let tenth = sent.saturating_since(modified).as_secs() / 10;
    Some(Duration::from_secs(tenth).min(MAX_HEURISTIC_LIFETIME))
}

/// Returns whether a status is heuristically cacheable (RFC 9110 §15.1).
pub(crate) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Returns the corrected initial age (§4.2.3).
fn initial_age(response: &ResponseHead<'_>) -> Duration {
    let delay = response.received_at.saturating_since(response.requested_at);
    let corrected = age_value(response.headers).saturating_add(delay);
    let apparent = date(response.headers, header::DATE)
        .map(|sent| response.received_at.saturating_since(sent).as_secs())
        .map_or(Duration::ZERO, Duration::from_secs);
    corrected.max(apparent)
}

/// Returns the value of `Age`, or zero if the field is absent or invalid. Only the first value
/// counts, also across several field lines. If it is invalid, the whole field is ignored (§5.1).
fn age_value(headers: &HeaderMap) -> Duration {
    let first = list::members(headers, header::AGE).next();
    let seconds = first.and_then(delta_seconds).unwrap_or_default();
    Duration::from_secs(seconds.into())
}

fn date(headers: &HeaderMap, name: header::HeaderName) -> Option<Timestamp> {
    parse_date(headers.get(name)?)
}

fn parse_date(value: &HeaderValue) -> Option<Timestamp> {
    Timestamp::parse_http_date(value.as_bytes())
}

#[cfg(test)]
mod tests;
