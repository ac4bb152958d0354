//! The services of a node that the admin API exposes.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::{
    leak::{ClearError, QuarantinedRoute},
    purge::PurgeReceipt,
    trigger::Purger,
};

/// The services of a node that the admin API calls.
pub(crate) struct AdminServices {
    pub purger: Arc<Purger>,
    pub readiness: Box<dyn Fn() -> ReadinessReport + Send + Sync>,
    /// Updates sampled metrics before they are read.
    pub refresh: Box<dyn Fn() + Send + Sync>,
    pub explain: ExplainFn,
    pub quarantine: QuarantineService,
    /// Returns the results of shadow mode and audits, as JSON.
    pub verification: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
}

/// The functions that list quarantined routes and end their quarantine.
pub(crate) struct QuarantineService {
    /// Returns the quarantined routes.
    pub list: Box<dyn Fn() -> Vec<QuarantinedRoute> + Send + Sync>,
    /// Ends the quarantine of a route.
    pub clear: ClearFn,
}

/// Purges a route's stored responses, and ends its quarantine. Returns the receipt of the purge.
pub(crate) type ClearFn =
    Box<dyn Fn(String) -> BoxFuture<'static, Result<PurgeReceipt, ClearError>> + Send + Sync>;

/// The state of a node for `/readyz`.
pub(crate) struct ReadinessReport {
    pub readiness: Readiness,
    /// The state of optional dependencies, one line each, such as `redis: up`. They do not affect
    /// readiness.
    pub details: Vec<String>,
}

/// Whether load balancers should send requests to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The node accepts requests.
    Ready,
    /// The node finishes current requests and accepts no new requests.
    Draining,
}

/// Explains the request in a JSON body. Fails with a message if the body is invalid.
pub(crate) type ExplainFn =
    Box<dyn Fn(&[u8]) -> BoxFuture<'static, Result<RenderedExplanation, String>> + Send + Sync>;

/// An explanation in all response formats.
pub(crate) struct RenderedExplanation {
    pub json: Vec<u8>,
    /// Plain text.
    pub text: String,
}
