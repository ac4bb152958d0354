//! How old a response is and how long it is fresh (RFC 9111 §4.2).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::field::{Timestamp, list};

use super::{
    CacheRule, ResponseDirectives, ResponseHead, TtlFrom,
    directive::{DirectiveSource, MAX_DELTA_SECONDS, delta_seconds},
};

/// All that reading a stored response needs to know about its age, fixed when it was received.
///
/// It is kept with each stored response, and written by hand into its record: the fields are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// When the response was received.
    pub received_at: Timestamp,
    /// The corrected initial age (§4.2.3): how old the response already was then.
    pub initial_age: Duration,
    /// The age at which it becomes stale.
    pub lifetime: Duration,
    /// The origin's `stale-while-revalidate`, in seconds.
    pub stale_while_revalidate: Option<u32>,
    /// The origin's `stale-if-error`, in seconds.
    pub stale_if_error: Option<u32>,
    /// How long after receipt it may be used at all: fresh, stale, or in place of an error. `None` sets
    /// no end. It counts from `received_at`, so that it is the same by every node's clock.
    pub usable_for: Option<Duration>,
    /// What else limits or allows its reuse.
    pub constraints: Constraints,
}

/// A set of properties that decide about reuse; stored as one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Constraints(u8);

impl Constraints {
    /// `no-cache`: validated before every use.
    pub const NO_CACHE: Self = Self(1);
    /// `must-revalidate`: never served stale; may be shared despite `Authorization` (§3.5).
    pub const MUST_REVALIDATE: Self = Self(1 << 1);
    /// `proxy-revalidate`: never served stale.
    pub const PROXY_REVALIDATE: Self = Self(1 << 2);
    /// `s-maxage` set the lifetime: not served stale unless the origin says how long (§5.2.2.10).
    pub const S_MAXAGE: Self = Self(1 << 3);
    /// `immutable`: a reload does not ask for it while it is fresh (RFC 8246).
    pub const IMMUTABLE: Self = Self(1 << 4);
    /// The origin gave the freshness itself, if only to say that there is none.
    pub const EXPLICIT: Self = Self(1 << 5);
    /// `public` or `s-maxage`: may be shared whatever credentials the request has.
    pub const SHAREABLE: Self = Self(1 << 6);
    /// The origin itself said that the response is fresh for a while: it is no guess, and no rule's doing.
    pub const FRESH_BY_ORIGIN: Self = Self(1 << 7);

    /// The set as stored.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set from its stored form; every bit has a meaning.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Whether one of `these` is in the set.
    pub const fn has_any(self, these: Self) -> bool {
        self.0 & these.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    fn with_if(self, condition: bool, others: Self) -> Self {
        if condition { self.with(others) } else { self }
    }
}

/// By how much the clock that a response was stored by may be ahead.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(1);

/// Where a lifetime comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifetimeBasis {
    /// `s-maxage`, `max-age` or `Expires`.
    Origin,
    /// The rule's `ttl`.
    Rule,
    /// A tenth of the time since `Last-Modified` (§4.2.2).
    Heuristic,
    /// Nothing says anything: the lifetime is zero.
    Unspecified,
}

impl Freshness {
    /// Computes the freshness of a response at the moment it was received.
    ///
    /// `ttl_from` decides between the origin's lifetime and the rule's. The rule's counts from receipt,
    /// whatever age the response arrived with, and only for the statuses that it names: errors are not
    /// kept because a route has a `ttl`.
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

    /// Ends every use of the response this long after its receipt, or earlier if it ends earlier already.
    ///
    /// For responses that must not outlive what gave access to them. After the end only its validator
    /// is of use: a 304 brings a freshness with an end of its own.
    #[must_use]
    pub fn ending_in(self, remaining: Duration) -> Self {
        let usable_for = self.usable_for.map_or(remaining, |known| known.min(remaining));
        Self { usable_for: Some(usable_for), ..self }
    }

    /// Whether the end of every use has come. A response with an end that is received in the future by
    /// this clock counts as over: its end would come too late.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.usable_for.is_some_and(|usable_for| {
            self.is_from_future(now) || now.saturating_since(self.received_at) >= usable_for
        })
    }

    /// How old the response is now (§4.2.3).
    pub fn current_age(&self, now: Timestamp) -> Duration {
        self.initial_age.saturating_add(now.saturating_since(self.received_at))
    }

    /// The value of `Age` now: whole seconds, at most 2^31.
    pub fn age_seconds(&self, now: Timestamp) -> u32 {
        let seconds = self.current_age(now).as_secs();
        u32::try_from(seconds).unwrap_or(MAX_DELTA_SECONDS).min(MAX_DELTA_SECONDS)
    }

    /// Seconds until the response becomes stale or unusable, rounded down; negative once it is.
    pub fn ttl(&self, now: Timestamp) -> i64 {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let left = millis(self.lifetime).saturating_sub(millis(self.current_age(now)));
        let usable = self.usable_for.map_or(i64::MAX, |usable_for| {
            millis(usable_for).saturating_sub(millis(now.saturating_since(self.received_at)))
        });
        left.min(usable).div_euclid(1000)
    }

    /// Whether it may answer others than the one who asked for it without asking the origin again:
    /// even collapsed requests share nothing that is not fresh.
    pub fn is_reusable_unvalidated(&self, now: Timestamp) -> bool {
        self.is_fresh(now) && !self.constraints.has_any(Constraints::NO_CACHE)
    }

    /// Whether the response is fresh now: by its age, and not over.
    ///
    /// What will have been received has no age: it was stored by a clock that was ahead, and would stay
    /// fresh for as long as that was.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        self.lifetime > self.current_age(now) && !self.is_from_future(now) && !self.has_ended(now)
    }

    fn is_from_future(&self, now: Timestamp) -> bool {
        self.received_at > now.saturating_add(MAX_CLOCK_SKEW)
    }

    /// How long the response has been stale; zero while it is fresh.
    pub fn staleness(&self, now: Timestamp) -> Duration {
        self.current_age(now).saturating_sub(self.lifetime)
    }
}

/// Decides between the origin's lifetime and the rule's; nothing if neither says anything.
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

/// The lifetime that the origin gives explicitly (§4.2.1).
///
/// `Expires` counts from `Date`, or from receipt where that is missing or broken; a broken `Expires`
/// lies in the past, and is not read at all beside a targeted field.
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

/// The longest lifetime that is guessed.
const MAX_HEURISTIC_LIFETIME: Duration = Duration::from_hours(24);

/// A tenth of the time between `Last-Modified` and `Date` (§4.2.2), whole seconds, at most a day.
///
/// Only for statuses that may be cached without the origin saying so, or with `public`.
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

/// Whether responses with this status may be cached without explicit freshness (RFC 9110 §15.1).
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

/// Returns the value of `Age`, zero if the field is absent or invalid.
///
/// The first member of all lines counts; an invalid one makes the whole field count for nothing (§5.1).
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
