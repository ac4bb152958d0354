//! Passing: the origin answers, and Larder only carries.

use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::{
    Context, body::Body, deliver::Told, fetch, inquiry::Inquiry, invalidate, receive::Ingress,
    request_head, write_through::Write,
};
use crate::{
    fence::Selector,
    key::CacheKey,
    origin::{RequestBody, ResponseBody, upgrade},
    policy::{CacheResult, Forward, Reason},
    store::Store,
    warm,
};

impl<S: Store> Context<S> {
    /// Carries a request to the origin and its response back, bodies streamed both ways.
    ///
    /// With a key, the origin is asked for what that says; without, for what the client sent.
    pub(super) async fn pass(
        mut self,
        body: Incoming,
        mut told: Told,
        key: Option<&CacheKey>,
    ) -> Response<Body> {
        let upgrade = self.upgrade.take();
        let mut forwarded = self.inquiry.onward(key);
        *forwarded.method_mut() = self.inquiry.request.method.clone();
        *forwarded.body_mut() = RequestBody::client(body, self.inquiry.connection.body);
        let interim = Some(&self.inquiry.connection.interim);
        let write = self.inquiry.begin_write();
        let answer =
            fetch::send(&self.inquiry.pipeline, &self.inquiry.site, forwarded, interim).await;
        let mut response = match answer {
            Ok((response, _)) => response,
            Err(error) => return self.answer_failure(&error, told),
        };
        told.origin_status = Some(response.status());
        if let Some(origin) = response.body_mut().take_upgraded()
            && let Some(client) = upgrade
        {
            upgrade::tunnel(client, origin);
        }
        if let Some(write) = write {
            return Box::pin(self.answer_write(&write, response, told)).await;
        }
        self.warm(response.status());
        self.answer_passing(response, told)
    }

    /// Answers a write, once what it has changed is purged.
    async fn answer_write(
        self,
        write: &Write,
        mut response: Response<ResponseBody>,
        told: Told,
    ) -> Response<Body> {
        let candidate = self.inquiry.candidate(write, &mut response);
        let selectors = self.invalidated_by(&response);
        let purged = invalidate::purge(&self.inquiry.pipeline, selectors).await;
        // Not before: what is fetched ahead would be selected, too.
        self.warm(response.status());
        match candidate.and_then(|candidate| candidate.after(&purged)) {
            Some(candidate) => self.answer_through(candidate, response, told).await,
            None => self.answer_passing(response, told),
        }
    }

    /// Has fetched what its route says is asked for next.
    fn warm(&self, status: StatusCode) {
        let Inquiry { pipeline, site, route, request, connection, .. } = &self.inquiry;
        for wanted in warm::after_success(site.route(*route), request, status, connection) {
            let _dropped_and_counted = pipeline.warm.push(wanted);
        }
    }

    fn invalidated_by<B>(&self, response: &Response<B>) -> Vec<Selector> {
        let Inquiry { site, route, request, connection, .. } = &self.inquiry;
        let answer = (response.status(), response.headers());
        let ingress = Ingress::of(site, &request.headers, connection);
        invalidate::selectors(site, &ingress, site.route(*route), &request_head(request), answer)
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
