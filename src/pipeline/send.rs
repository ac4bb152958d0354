//! Sends requests to the origin.

use std::time::Instant;

use http::{Response, Version};

use super::{
    clock::ReceivedAt, config_snapshot::ConfigSnapshot, fetch_times::FetchTimes,
    recent_failures::outage_of, state::Pipeline,
};
use crate::{
    forward::response,
    origin::{OriginRequest, ResponseBody, SendFailure},
    server::InterimSender,
};

/// A response, and the times when it was requested and received.
pub(super) type SentResponse = (Response<ResponseBody>, FetchTimes);

/// Sends a request to the origin and records metrics. Removes the hop-by-hop fields from the
/// response.
pub(super) async fn send<S>(
    pipeline: &Pipeline<S>,
    config: &ConfigSnapshot,
    request: &mut OriginRequest,
    interim: Option<&InterimSender>,
) -> Result<SentResponse, SendFailure> {
    let started = Instant::now();
    let requested_at = pipeline.clock.now_at(started);
    let metrics = &pipeline.metrics;
    match config.origin.exchange(request, interim, started.into()).await {
        Ok(mut response) => {
            let received = ReceivedAt::now(&pipeline.clock);
            let (status, version) = (response.status(), response.version());
            let headers = response.headers_mut();
            response::headers(status, headers, version, &config.identity, received.at);
            // The version that clients see is Larder's own (RFC 9110 §2.5).
            *response.version_mut() = Version::HTTP_11;
            metrics.record_origin_response(response.status(), received.started - started);
            pipeline.recent_failures.note_response();
            let (received_at, received_steady) = (received.at, received.steady);
            Ok((response, FetchTimes { requested_at, received_at, received_steady }))
        }
        Err(failure) => {
            let error = &failure.error;
            tracing::warn!(error = error as &dyn std::error::Error, "no response from the origin");
            metrics.origin_errors.with_label_values(&[error.kind()]).inc();
            if error.is_unreachable() {
                let failure = (outage_of(&failure), started.elapsed());
                pipeline.recent_failures.note_origin(failure, pipeline.clock.steady());
            }
            Err(failure)
        }
    }
}
