//! Sends requests to the origin.

use std::time::Instant;

use http::{Request, Response, Version};

use super::{config_snapshot::ConfigSnapshot, recent_failures::outage_of, state::Pipeline};
use crate::{
    field::Timestamp,
    forward::response,
    origin::{RequestBody, ResponseBody, SendFailure},
    server::InterimSender,
};

/// A response, and the time when its head arrived.
pub(super) type SentResponse = (Response<ResponseBody>, Timestamp);

/// Sends a request to the origin and records metrics. Removes the fields about the origin's
/// connection from the response.
pub(super) async fn send<S>(
    pipeline: &Pipeline<S>,
    config: &ConfigSnapshot,
    request: Request<RequestBody>,
    interim: Option<&InterimSender>,
) -> Result<SentResponse, SendFailure> {
    let started = Instant::now();
    let metrics = &pipeline.metrics;
    match config.origin.send(request, interim).await {
        Ok(mut response) => {
            let (status, version, now) =
                (response.status(), response.version(), pipeline.clock.now());
            let headers = response.headers_mut();
            response::headers(status, headers, version, &config.identity, now);
            // The version that clients see is Larder's own (RFC 9110 §2.5).
            *response.version_mut() = Version::HTTP_11;
            metrics.record_origin_response(response.status(), started.elapsed());
            pipeline.recent_failures.note_response();
            Ok((response, now))
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
