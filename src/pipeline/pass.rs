//! Passing: the origin answers, and Larder only carries.

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use super::{
    Context, body::Body, deliver::Told, fetch, invalidate, receive::Approach, request_head,
};
use crate::{
    origin::{RequestBody, upgrade},
    policy::{CacheResult, Forward, Reason},
    store::Store,
};

impl<S: Store> Context<S> {
    /// Carries a request to the origin and its response back, bodies streamed both ways.
    pub(super) async fn pass(mut self, body: Incoming, mut told: Told) -> Response<Body> {
        let upgrade = self.upgrade.take();
        let mut forwarded = Request::new(RequestBody::client(body, self.connection.body));
        *forwarded.method_mut() = self.request.method.clone();
        *forwarded.uri_mut() = self.request.uri.clone();
        *forwarded.headers_mut() = self.forwarded_headers();
        let interim = Some(&self.connection.interim);
        let answer = fetch::send(&self.pipeline, &self.site, forwarded, interim).await;
        let mut response = match answer {
            Ok(response) => response,
            Err(error) => return self.answer_failure(&error, told),
        };
        told.origin_status = Some(response.status());
        self.invalidate(&response).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client) = upgrade
        {
            upgrade::tunnel(client, hyper::upgrade::on(&mut response));
        }
        self.answer_passing(response, told)
    }

    async fn invalidate<B>(&self, response: &Response<B>) {
        let answer = (response.status(), response.headers());
        let request = request_head(&self.request);
        let approach = Approach::of(&self.site, &self.request.headers, &self.connection);
        invalidate::after(&self.pipeline, &self.site, &approach, request, answer).await;
    }
}

/// What a client is told whose request passes.
pub fn told(reason: Reason) -> Told {
    let forward = match reason {
        Reason::MethodNotCacheable => Forward::Method,
        _ => Forward::Bypass,
    };
    Told::forwarded(CacheResult::Bypass, forward, Some(reason))
}
