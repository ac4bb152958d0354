//! The leak detector: watches shared routes, and asks the origin for two requesters if their
//! responses may differ.
//!
//! It costs the origin nothing as long as fetches for different requesters bring the same response.
//! If two of them differ, or if a sampled hit is followed by one of another requester, the two
//! requests are repeated alternately
//! ([`RequesterComparison`](crate::leak::RequesterComparison)). Requests with credentials are kept
//! in memory only, and for seconds.

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
