//! The decision for one template: whether, for whom and for how long its responses are cached.

use super::{
    changes::PairSurvey,
    interval::ChangeRate,
    segment,
    simulation::{ExpectedOutcome, LIFETIMES, Simulation},
    survey::TemplateSurvey,
    templates::PathTemplate,
};

/// Minimum number of reads for a decision.
const MIN_READS: u64 = 20;

/// Minimum number of pairs of responses for a lifetime longer than [`CAUTIOUS`].
const MIN_PAIRS: u64 = 10;

/// The longest lifetime if fewer than [`MIN_PAIRS`] pairs of responses were compared, in seconds.
const CAUTIOUS: u32 = 60;

/// Maximum lifetime of a user's data, in seconds. A longer lifetime brings hits only to users who
/// return later, and costs memory for all users.
const MAX_OF_USER: f64 = 3600.0;

/// Minimum lifetime that is proposed, in seconds.
const MIN_LIFETIME: u32 = 10;

/// The factor by which the estimate of an interval may be too low.
const TOLERANCE: f64 = 1.25;

/// Minimum hit ratio for which a route is proposed.
const MIN_HIT_RATIO: f64 = 0.05;

/// Minimum increase of the hit ratio for which a longer lifetime is proposed.
const MIN_GAIN: f64 = 0.005;

/// Origin response time from which `stale_while_revalidate` is proposed, in milliseconds.
const SLOW: f64 = 100.0;

/// How to serve the reads of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    Cache(CacheAdvice),
    /// A route with `cache = false`.
    Never(NeverReason),
    /// No route: the origin's own headers decide.
    Leave(LeaveReason),
}

/// The settings of a route that stores responses.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CacheAdvice {
    pub(super) partition: Option<PartitionAdvice>,
    /// The proposed lifetime, as a position in [`LIFETIMES`].
    pub(super) lifetime: usize,
    /// The longest lifetime that the log supports, as a position in [`LIFETIMES`].
    pub(super) limit: usize,
    pub(super) reason: LifetimeReason,
    pub(super) rate: ChangeRate,
    pub(super) expected: ExpectedOutcome,
    /// `stale_while_revalidate` in seconds, and the origin's response time in milliseconds. `None`
    /// if the origin is fast.
    pub(super) renewal: Option<(u32, f64)>,
}

/// The reason for a lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LifetimeReason {
    /// Responses change about once in this lifetime.
    Changes,
    /// No response changed. A longer lifetime would need a longer log.
    NoChanges,
    /// A longer lifetime would add few hits.
    Enough,
    /// Too few responses were compared.
    FewPairs,
    /// A user's data is stored for at most [`MAX_OF_USER`] seconds.
    OfUser,
    /// With a longer lifetime, too many hits would be outdated.
    MaxOutdated,
}

/// Which requesters share responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PartitionAdvice {
    User(UserReason),
    Authenticated,
}

/// The reason for storing responses separately for each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UserReason {
    /// Two clients get different responses.
    Differs,
    /// The origin says `private`.
    Private,
    /// Requests have credentials, and the log does not show whether responses differ.
    Unknown,
}

/// The reason for never caching a route's responses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum NeverReason {
    /// The path names a login, a payment or the like.
    Sensitive,
    /// Responses change within seconds.
    Live(ChangeRate),
    /// Nearly every read follows a write.
    Written,
}

/// The reason why a template gets no route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum LeaveReason {
    Few,
    Stream,
    Partial,
    NoStore,
    Failing,
    Seldom,
    /// The path has no literal name, so a route for it would match nearly everything.
    Unnamed,
}

/// What the log shows about a template.
#[derive(Debug, Clone, Copy)]
pub(super) struct TemplateEvidence<'a> {
    pub(super) template: &'a PathTemplate,
    pub(super) survey: &'a TemplateSurvey,
    pub(super) pairs: &'a PairSurvey,
    pub(super) simulation: &'a Simulation,
    /// Number of writes that concern the reads.
    pub(super) writes: u64,
    /// The time that the log covers, in seconds.
    pub(super) span: f64,
    /// The maximum share of hits that may be outdated.
    pub(super) max_outdated: f64,
}

/// Returns which requesters share responses; `None` if all clients do.
pub(super) fn partition(survey: &TemplateSurvey, pairs: &PairSurvey) -> Option<PartitionAdvice> {
    let is_private = survey.private * 100 > survey.reads;
    let has_identities = survey.has_credentials() || survey.is_behind_login();
    if pairs.depends_on_client() {
        Some(PartitionAdvice::User(UserReason::Differs))
    } else if is_private {
        Some(PartitionAdvice::User(UserReason::Private))
    } else if has_identities && pairs.is_same_for_clients() {
        Some(PartitionAdvice::Authenticated)
    } else {
        has_identities.then_some(PartitionAdvice::User(UserReason::Unknown))
    }
}

/// Returns how to serve the reads of a template.
pub(super) fn decide(evidence: &TemplateEvidence<'_>) -> Decision {
    let survey = evidence.survey;
    let is_most = |count: u64| count * 2 > survey.reads;
    if survey.reads < MIN_READS {
        return Decision::Leave(LeaveReason::Few);
    }
    if evidence.template.literals().all(|name| !name.is_empty() && segment::is_generic(name)) {
        return Decision::Leave(LeaveReason::Unnamed);
    }
    if is_most(survey.streams) {
        return Decision::Leave(LeaveReason::Stream);
    }
    if is_most(survey.partial) {
        return Decision::Leave(LeaveReason::Partial);
    }
    if evidence.template.literals().any(segment::is_sensitive) {
        return Decision::Never(NeverReason::Sensitive);
    }
    if is_most(survey.no_store) {
        return Decision::Leave(LeaveReason::NoStore);
    }
    if !is_most(survey.usable) {
        return Decision::Leave(LeaveReason::Failing);
    }
    cached(evidence)
}

fn cached(evidence: &TemplateEvidence<'_>) -> Decision {
    let rate = evidence.simulation.changes.rate();
    let is_certain = rate.pairs >= MIN_READS && rate.changes > 0;
    if is_certain && rate.interval * TOLERANCE < f64::from(MIN_LIFETIME) {
        return Decision::Never(NeverReason::Live(rate));
    }
    let (limit, reason) = limit(evidence, rate);
    let Some(limit) = limit else {
        return if is_certain {
            Decision::Never(NeverReason::Live(rate))
        } else {
            Decision::Leave(LeaveReason::Few)
        };
    };
    let (lifetime, reason) = enough(evidence.simulation, limit, reason);
    let expected = evidence.simulation.expected(lifetime);
    let is_repeated = evidence.simulation.responses() * 4 < evidence.survey.reads;
    if is_repeated && expected.hit_ratio < 0.3 && evidence.writes * 2 > evidence.survey.reads {
        return Decision::Never(NeverReason::Written);
    }
    if expected.hit_ratio < MIN_HIT_RATIO {
        return Decision::Leave(LeaveReason::Seldom);
    }
    Decision::Cache(CacheAdvice {
        partition: partition(evidence.survey, evidence.pairs),
        lifetime,
        limit,
        reason,
        rate,
        expected,
        renewal: renewal(evidence.survey, lifetime),
    })
}

/// Returns the longest lifetime that the log supports, and the reason. `None` if no lifetime is
/// supported.
fn limit(evidence: &TemplateEvidence<'_>, rate: ChangeRate) -> (Option<usize>, LifetimeReason) {
    let longest = |seconds: f64| {
        LIFETIMES.iter().rposition(|it| *it >= MIN_LIFETIME && f64::from(*it) <= seconds)
    };
    let (seconds, reason) = if rate.pairs < MIN_PAIRS {
        (f64::from(CAUTIOUS), LifetimeReason::FewPairs)
    } else if rate.changes == 0 {
        // A log of about a day supports a lifetime of a day.
        (rate.interval.min(evidence.span * 1.1), LifetimeReason::NoChanges)
    } else {
        ((rate.interval * TOLERANCE).min(evidence.span * 1.1), LifetimeReason::Changes)
    };
    let is_of_user =
        matches!(partition(evidence.survey, evidence.pairs), Some(PartitionAdvice::User(_)));
    let (seconds, reason) = if is_of_user && seconds > MAX_OF_USER {
        (MAX_OF_USER, LifetimeReason::OfUser)
    } else {
        (seconds, reason)
    };
    let limit = longest(seconds);
    let is_allowed =
        |it: usize| evidence.simulation.expected(it).outdated_ratio <= evidence.max_outdated;
    let allowed = limit.and_then(|limit| {
        (0..=limit).rfind(|it| is_allowed(*it) && LIFETIMES.get(*it) >= Some(&MIN_LIFETIME))
    });
    if allowed == limit { (limit, reason) } else { (allowed, LifetimeReason::MaxOutdated) }
}

/// Returns the shortest lifetime with nearly as many hits as the longest, and the reason.
fn enough(
    simulation: &Simulation,
    limit: usize,
    reason: LifetimeReason,
) -> (usize, LifetimeReason) {
    let best = simulation.expected(limit).hit_ratio;
    let first = (0..limit).find(|it| {
        LIFETIMES.get(*it) >= Some(&MIN_LIFETIME)
            && simulation.expected(*it).hit_ratio >= best - MIN_GAIN
    });
    first.map_or((limit, reason), |it| (it, LifetimeReason::Enough))
}

/// Returns the window of `stale_while_revalidate`, a fifth of the lifetime, and the origin's
/// response time. `None` if the origin is fast.
fn renewal(survey: &TemplateSurvey, lifetime: usize) -> Option<(u32, f64)> {
    let took = survey.durations.median().filter(|took| *took >= SLOW)?;
    let fifth = LIFETIMES.get(lifetime)? / 5;
    let window = LIFETIMES.iter().rev().find(|it| **it <= fifth.min(3600))?;
    Some((*window, took))
}
