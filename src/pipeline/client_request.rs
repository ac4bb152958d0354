//! A client's request during the asynchronous steps of the pipeline.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;

use super::{
    config_snapshot::ConfigSnapshot, finish::RequestAccounting, lookup::MemoryState,
    receive::RequestAction, request_context::RequestContext,
};

/// The first plan of a request, for which memory has no response.
pub(super) struct FirstPlan {
    pub(super) config: Arc<ConfigSnapshot>,
    pub(super) route: usize,
    pub(super) action: RequestAction,
    /// What the lookup in memory found.
    pub(super) memory: MemoryState,
}

/// A request for which there is no fresh stored response in memory.
pub(super) struct ClientRequest<S> {
    pub(super) context: RequestContext<S>,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) accounting: Box<RequestAccounting>,
}
