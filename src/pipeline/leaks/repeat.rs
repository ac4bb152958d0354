//! Sends requests to the origin again, without the cache.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;

use super::probe::ProbeRequest;
use crate::{
    key::vary::Vary,
    leak::MAX_BODY,
    origin::ResponseBody,
    pipeline::{
        payload,
        selecting_fields::{selecting_set, selecting_values},
        send::send,
        state::Pipeline,
    },
    store::Store,
};

/// The response to a repeated request.
pub(super) struct ProbeResponse {
    pub(super) status: StatusCode,
    /// The decoded body.
    pub(super) body: Bytes,
    /// Whether the cache could have stored the response.
    pub(super) is_storable: bool,
    headers: HeaderMap,
}

/// The error if two requests cannot be compared: a request failed, or its response cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotComparable;

impl ProbeRequest {
    /// Sends the request again. Takes the fields that do not identify the requester from `pattern`.
    /// Fails if a logout has ended the credentials.
    pub(super) async fn repeat<S: Store>(
        &self,
        pipeline: &Pipeline<S>,
        pattern: &Self,
    ) -> Result<ProbeResponse, NotComparable> {
        if !self.may_be_repeated(pipeline.log.applied_purges()) {
            return Err(NotComparable);
        }
        let sent = send(pipeline, &self.config, &mut self.to_send(pattern), None).await;
        let (response, times) = sent.map_err(|_| NotComparable)?;
        let (head, body) = response.into_parts();
        let is_storable = self.is_storable(&head, times);
        let chunks = read(body).await?;
        let body = payload::plain(&head.headers, &chunks).ok_or(NotComparable)?;
        if body.len() > MAX_BODY {
            return Err(NotComparable);
        }
        let body = Bytes::copy_from_slice(&body);
        Ok(ProbeResponse { body, status: head.status, is_storable, headers: head.headers })
    }
}

impl ProbeResponse {
    /// Returns whether this response, by its `Vary`, is the same variant for both requests.
    pub(super) fn is_shared_by(&self, [one, other]: [&ProbeRequest; 2]) -> bool {
        let route = one.matched_route();
        if matches!(Vary::parse(&self.headers), Vary::Star) {
            return false;
        }
        let set = selecting_set(&one.config, route, &self.headers);
        let values =
            |request: &ProbeRequest| selecting_values(&set, &route.vary, &request.request.headers);
        values(one) == values(other)
    }
}

/// Reads a body of at most [`MAX_BODY`] bytes to its end.
async fn read(mut body: ResponseBody) -> Result<Vec<Bytes>, NotComparable> {
    let (mut chunks, mut length) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Ok(chunk) = frame.map_err(|_| NotComparable)?.into_data() {
            length += chunk.len();
            chunks.push(chunk);
        }
        if length > MAX_BODY {
            return Err(NotComparable);
        }
    }
    body.completion().map(|_| chunks).ok_or(NotComparable)
}
