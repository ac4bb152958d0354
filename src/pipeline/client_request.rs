//! A request on its way through the asynchronous steps.

use hyper::upgrade::OnUpgrade;

use super::{finish::RequestAccounting, request_context::RequestContext};

/// A request that a fresh stored response in memory does not answer.
pub(super) struct ClientRequest<S> {
    pub(super) context: RequestContext<S>,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) accounting: Box<RequestAccounting>,
}
