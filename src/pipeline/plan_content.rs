//! Plans a request again once its content has been read.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{
    clock::ReceivedAt,
    config_snapshot::ConfigSnapshot,
    content::{self, ContentFields, ContentShare, RequestContent},
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
        let fields = ContentFields::of(&request.headers);
        let head = (&request.method, request.uri.query(), &mut request.headers);
        let sent = (sent, Some(share));
        let content = interpret(&self.config, (self.route, form), head, &fields, sent);
        if let Some(class) = &content.graphql {
            self.safety = RequestSafety::of_class(class);
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

/// Returns the content of a request as the route puts it into the key and forwards it. Updates the
/// header fields that describe the content.
pub(super) fn interpret(
    config: &ConfigSnapshot,
    (route, form): (usize, ContentForm),
    (method, query, headers): (&Method, Option<&str>, &mut HeaderMap),
    fields: &ContentFields,
    sent: (Bytes, Option<ContentShare>),
) -> Arc<RequestContent> {
    match config.graphql_route(route) {
        Some(graphql) => {
            let recent = config.recent_requests.as_deref();
            content::interpret_graphql(graphql, recent, (method, query, headers), fields, sent)
        }
        None => RequestContent::interpret(form, (method, headers), fields, sent),
    }
}
