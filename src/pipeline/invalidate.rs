//! Invalidation: a successful unsafe method makes what is stored of its targets unusable
//! (RFC 9111 §4.4).

use http::{HeaderMap, Method, StatusCode};

use super::{Pipeline, receive::Approach, site::Site};
use crate::{
    key::target::normal_path,
    policy::{RequestHead, invalidation},
    store::Store,
};

/// Invalidates what a response to an unsafe method says has changed: its own target, `Location` and
/// `Content-Location`, as far as they are on this host.
pub async fn after<S: Store>(
    pipeline: &Pipeline<S>,
    site: &Site,
    approach: &Approach<'_>,
    request: RequestHead<'_>,
    (status, response): (StatusCode, &HeaderMap),
) {
    let host = request.authority;
    for target in invalidation::invalidated_targets(&request, status, response) {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*target, None),
        };
        let normal = normal_path(path);
        let selection = site.routes.select(&Method::GET, host, &normal);
        let key = approach.key(host, (path, query), &selection.route.query);
        pipeline.flights.invalidate(key.digest());
        pipeline.store.remove(key.digest()).await;
    }
}
