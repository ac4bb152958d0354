//! Plans GraphQL requests by their class.

use std::borrow::Cow;

use http::Method;

use super::{content, received_request::ReceivedRequest};
use crate::{
    graphql::{RequestClass, Uncached, UnpersistedRequest},
    policy::Reason,
    route::{Route, RouteTable, Verification},
};

/// Maximum length of a rewritten URL query, in bytes, unless the client's own query is as long.
/// Many servers do not accept longer queries.
const MAX_QUERY: usize = 8 << 10;

/// The plan for a GraphQL request that the cache may answer: its route and its query.
pub(super) struct GraphqlPlan<'a> {
    /// The index of the route that sets the operation's lifetime.
    pub index: usize,
    pub route: &'a Route,
    /// The URL's query in the key of a `GET`; `None` for other methods.
    pub query: Option<String>,
}

/// Why the cache may not answer a GraphQL request.
pub(super) enum NoGraphqlPlan {
    /// The request passes to the origin, for this reason.
    Pass(Reason),
    /// The client is asked for the document.
    Unpersisted(UnpersistedRequest),
}

/// Returns the request if its client has to send the document; always `None` in shadow mode.
pub(super) fn unpersisted(route: &Route, class: &RequestClass) -> Option<UnpersistedRequest> {
    match class {
        RequestClass::Unpersisted(request) if route.verification != Verification::Shadow => {
            Some(*request)
        }
        _ => None,
    }
}

/// Returns the class of a request on a GraphQL route, by its content or, if it has not been read,
/// by its URL. `None` on other routes.
pub(super) fn class_of<'a>(
    route: &Route,
    request: &ReceivedRequest<'a>,
) -> Option<Cow<'a, RequestClass>> {
    let rule = route.graphql.as_deref()?;
    match request.content.read() {
        Some(content) => {
            let read = || content::class_of(rule, (request.query, request.headers), &content.bytes);
            let class = content.graphql.as_ref().map(Cow::Borrowed);
            Some(class.unwrap_or_else(|| Cow::Owned(read())))
        }
        None if matches!(*request.method, Method::GET | Method::HEAD) => {
            let query = request.query.unwrap_or_default();
            Some(Cow::Owned(rule.classifier().of_query(query)))
        }
        None => None,
    }
}

/// Returns the plan for a request of this class, or why the cache may not answer it. `index` is the
/// route that the request's head selects.
pub(super) fn plan<'a>(
    routes: &'a RouteTable,
    (index, class): (usize, &RequestClass),
    request: &ReceivedRequest<'_>,
) -> Result<GraphqlPlan<'a>, NoGraphqlPlan> {
    let query = match class {
        RequestClass::Query(query) => query,
        RequestClass::Read(cause) | RequestClass::Write(cause, _) => {
            return Err(NoGraphqlPlan::Pass(reason(*cause)));
        }
        RequestClass::Unpersisted(_) => {
            let asked = unpersisted(routes.route(index), class).map(NoGraphqlPlan::Unpersisted);
            return Err(asked.unwrap_or(NoGraphqlPlan::Pass(Reason::GraphqlUnknownDocument)));
        }
    };
    let listed = routes.for_operation(index, query.operation());
    let index = listed.ok_or(NoGraphqlPlan::Pass(Reason::GraphqlOperation))?;
    let by_url = request.content.read().is_none().then(|| query.to_query());
    let sent = request.query.unwrap_or_default();
    if by_url.as_ref().is_some_and(|it| it.len() > MAX_QUERY && it.len() > sent.len()) {
        return Err(NoGraphqlPlan::Pass(Reason::GraphqlUnclear));
    }
    Ok(GraphqlPlan { index, route: routes.route(index), query: by_url })
}

/// Returns the reason to report for a request that passes to the origin because of `cause`.
const fn reason(cause: Uncached) -> Reason {
    match cause {
        Uncached::Mutation => Reason::GraphqlMutation,
        Uncached::Subscription => Reason::GraphqlSubscription,
        Uncached::Introspection => Reason::GraphqlIntrospection,
        Uncached::Batch => Reason::GraphqlBatch,
        Uncached::UnknownDocument => Reason::GraphqlUnknownDocument,
        Uncached::NotJson => Reason::BodyNotJson,
        Uncached::Unclear => Reason::GraphqlUnclear,
    }
}
