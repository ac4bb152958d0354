//! Plans GraphQL requests by their class.

use std::borrow::Cow;

use http::Method;

use super::{content, received_request::ReceivedRequest};
use crate::{
    graphql::{RequestClass, Uncached},
    policy::Reason,
    route::{Route, RouteTable},
};

/// Maximum length of a URL query that is sent in another form than the client's, in bytes. Many
/// servers do not accept longer ones.
const MAX_QUERY: usize = 8 << 10;

/// The route and the query of a request that the cache may answer.
pub(super) struct GraphqlPlan<'a> {
    /// The index of the route with the operation's lifetime.
    pub index: usize,
    pub route: &'a Route,
    /// The URL's query in the key of a `GET`; `None` for other methods.
    pub query: Option<String>,
}

/// Returns the class of a request on a GraphQL route, by its content or, if it has not been read,
/// by its URL. `None` on other routes.
pub(super) fn class_of<'a>(
    route: &Route,
    request: &ReceivedRequest<'a>,
) -> Option<Cow<'a, RequestClass>> {
    let rule = route.graphql.as_deref()?;
    match request.content.read() {
        Some(content) => Some(match &content.graphql {
            Some(class) => Cow::Borrowed(class),
            None => Cow::Owned(content::class_of(rule, request.query, &content.bytes)),
        }),
        None if matches!(*request.method, Method::GET | Method::HEAD) => {
            let query = request.query.unwrap_or_default();
            Some(Cow::Owned(rule.classifier().of_query(query)))
        }
        None => None,
    }
}

/// Returns the plan for a request of this class, or why it passes. `index` is the route that the
/// head of the request selects.
pub(super) fn plan<'a>(
    routes: &'a RouteTable,
    (index, class): (usize, &RequestClass),
    request: &ReceivedRequest<'_>,
) -> Result<GraphqlPlan<'a>, Reason> {
    let query = match class {
        RequestClass::Query(query) => query,
        RequestClass::Read(cause) | RequestClass::Write(cause, _) => return Err(reason(*cause)),
    };
    let listed = routes.for_operation(index, query.operation());
    let index = listed.ok_or(Reason::GraphqlOperation)?;
    let by_url = request.content.read().is_none().then(|| query.to_query());
    let sent = request.query.unwrap_or_default();
    if by_url.as_ref().is_some_and(|it| it.len() > MAX_QUERY && it.len() > sent.len()) {
        return Err(Reason::GraphqlUnclear);
    }
    Ok(GraphqlPlan { index, route: routes.route(index), query: by_url })
}

/// Returns the reason for a request that passes.
const fn reason(cause: Uncached) -> Reason {
    match cause {
        Uncached::Mutation => Reason::GraphqlMutation,
        Uncached::Subscription => Reason::GraphqlSubscription,
        Uncached::Introspection => Reason::GraphqlIntrospection,
        Uncached::Batch => Reason::GraphqlBatch,
        Uncached::UnknownDocument => Reason::GraphqlUnknownDocument,
        Uncached::Unclear => Reason::GraphqlUnclear,
    }
}
