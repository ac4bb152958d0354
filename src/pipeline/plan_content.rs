//! Plans a request again once its content has been read.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    clock::ReceivedAt,
    content::{self, ContentShare, RequestContent},
    credentials,
    receive::{self, RequestAction},
    received_request::ReceivedRequest,
    request_context::{RequestContext, RequestSafety},
};
use crate::route::ContentForm;

impl<S> RequestContext<S> {
    /// Returns an empty share of the memory budget for request content.
    ///
    /// The limit for one client does not apply to a trusted proxy, since it forwards the requests
    /// of many clients.
    pub(super) fn content_share(&self) -> ContentShare {
        let peer = self.connection.peer.map(|peer| peer.ip().to_canonical());
        let client = peer.filter(|_| !self.config.trusts(&self.connection));
        self.pipeline.content_budget.share(client)
    }

    /// Plans the request with its content, and returns the action and the content to forward.
    ///
    /// From here on, the request has the header fields of that content. It counts as received now,
    /// because purges and time have passed while its content arrived.
    pub(super) fn plan_with_content(
        &mut self,
        form: ContentForm,
        (sent, share): (Bytes, ContentShare),
    ) -> (RequestAction, Arc<RequestContent>) {
        self.received = ReceivedAt::now(&self.pipeline.clock);
        let request = Arc::make_mut(&mut self.request);
        let content = (sent, Some(share));
        let content = if let Some(route) = self.config.graphql_route(self.route) {
            let head = (&request.method, &request.uri, &mut request.headers);
            let recent = self.config.recent_requests.as_deref();
            content::interpret_graphql(route, recent, head, content)
        } else {
            let head = (&request.method, &mut request.headers);
            RequestContent::interpret(form, head, content)
        };
        if let Some(class) = &content.graphql {
            self.safety = RequestSafety::of_class(class);
            self.written = class.written().to_vec();
        }
        let arrival = (&*self.connection, self.received.at);
        let head = ReceivedRequest::of_parts(&self.request, Some(&content));
        let (route, action) = receive::plan(&self.config, &head, self.presence, arrival);
        if let RequestAction::Lookup(_) | RequestAction::Refresh(_) = action {
            let headers = &mut Arc::make_mut(&mut self.request).headers;
            let route = self.config.route(route);
            credentials::make_anonymous(&self.config, route, headers, self.presence);
        }
        self.route = route;
        (action, content)
    }
}
