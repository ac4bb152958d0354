//! The leak detector: watches shared routes. If the responses to two requesters may differ, it
//! sends their requests to the origin again.
//!
//! The detector sends nothing to the origin as long as fetches for different requesters yield the
//! same response. If two fetches differ, or a sampled hit is followed by another requester's hit,
//! it repeats the two requests alternately
//! ([`RequesterComparison`](crate::leak::RequesterComparison)). Requests with credentials are kept
//! only in memory, and only for seconds. They are not repeated after a logout.

mod compare;
mod detector;
mod held_credentials;
mod hits;
mod node_quarantine;
mod probe;
mod quarantine;
mod repeat;
mod requester;
mod sightings;
mod watch;

pub(super) use detector::LeakDetector;
pub(super) use held_credentials::HeldCredentials;
pub(super) use node_quarantine::NodeQuarantine;
pub(super) use probe::ProbeRequest;
pub(crate) use quarantine::follow_quarantine;
pub(super) use watch::RouteSampler;
