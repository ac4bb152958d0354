//! A client's request during the asynchronous steps of the pipeline.

use hyper::upgrade::OnUpgrade;

use super::{finish::RequestAccounting, request_context::RequestContext};

/// A request for which there is no fresh stored response in memory.
pub(super) struct ClientRequest<S> {
    pub(super) context: RequestContext<S>,
    pub(super) upgrade: Option<OnUpgrade>,
    pub(super) accounting: Box<RequestAccounting>,
}
