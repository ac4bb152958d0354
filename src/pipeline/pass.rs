//! Passing: the origin answers, and Larder only carries.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{
    Context, body::Body, deliver::Told, failure, fetch, invalidate,
};
use crate::{
    origin::{RequestBody, upgrade},
    policy::{
        cache_status::{CacheResult, Forward},
        reason::Reason,
    },
    store::Store,
};

impl<S: Store> Context<S> {
    /// Carries a request to the origin and its response back, bodies streamed both ways.
    pub(super) async fn pass(
        self,
        request: Request<Incoming>,
        mut told: Told,
    ) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let mut forwarded = Request::new(RequestBody::of_client(body));
        *forwarded.method_mut() = parts.method;
        *forwarded.uri_mut() = parts.uri;
        *forwarded.headers_mut() = self.forwarded_headers();
        let interim = Some(&self.connection.interim);
        let answer = fetch::send(&self.pipeline, &self.site, forwarded, interim).await;
        self.connection.interim.flushed().await;
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => return self.answer_problem(failure::of_origin(&error), told),
        };
        told.origin_status = Some(response.status());
        self.invalidate(&response).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client) = upgrade
        {
            upgrade::tunnel(client, hyper::upgrade::on(&mut response));
        }
        let Self { site, route, received, request, finish, .. } = self;
        super::asker(&site, route, received, &request).passing(response, told, finish)
    }

    async fn invalidate<B>(&self, response: &Response<B>) {
        let host = super::finish::host_of(&self.request);
        let answer = (response.status(), response.headers());
        let request = (host, &self.request);
        invalidate::after(&self.pipeline, &self.site, self.scheme(), request, answer).await;
    }
}

/// What a client is told whose request passes.
pub fn told(reason: Reason) -> Told {
    let forward = match reason {
        Reason::MethodNotCacheable => Forward::Method,
        Reason::Range | Reason::RequestNoStore => Forward::Request,
        _ => Forward::Bypass,
    };
    Told::forwarded(CacheResult::Bypass, forward, Some(reason))
}
