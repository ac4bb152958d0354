//! Passing: the origin answers, and Larder only carries.

use http::{Request, Response, StatusCode};

use super::{
    Context, body::Body, deliver::Told, fetch, inquiry::Inquiry, invalidate, receive::Approach,
    request_head, write_through::Write,
};
use crate::{
    fence::Selector,
    origin::{RequestBody, ResponseBody, upgrade},
    policy::{CacheResult, Forward, Reason},
    server::Incoming,
    store::Store,
    warm,
};

impl<S: Store> Context<S> {
    /// Carries a request to the origin and its response back, bodies streamed both ways.
    pub(super) async fn pass(mut self, body: Incoming, mut told: Told) -> Response<Body> {
        let upgrade = self.upgrade.take();
        let mut forwarded = Request::new(RequestBody::client(body, self.inquiry.connection.body));
        *forwarded.method_mut() = self.inquiry.request.method.clone();
        *forwarded.uri_mut() = self.inquiry.request.uri.clone();
        *forwarded.headers_mut() = self.inquiry.forwarded_headers();
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
        let approach = Approach::of(site, &request.headers, connection);
        invalidate::selectors(site, &approach, site.route(*route), &request_head(request), answer)
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
