//! The leak detector: watches shared routes. If the responses to two requesters may differ, it
//! sends their requests to the origin again.
//!
//! It sends nothing to the origin as long as fetches for different requesters bring the same
//! response. If two fetches differ, or a sampled hit is followed by a hit of another requester, the
//! two requests are repeated alternately
//! ([`RequesterComparison`](crate::leak::RequesterComparison)). Requests with credentials are kept
//! only in memory, and only for seconds.

mod compare;
mod detector;
mod hits;
mod probe;
mod quarantine;
mod repeat;
mod requester;
mod sightings;
mod watch;

pub(super) use detector::LeakDetector;
pub(super) use probe::ProbeRequest;
pub(crate) use quarantine::follow_quarantine;
pub(super) use requester::may_be_identified;
pub(super) use watch::RouteWatch;
