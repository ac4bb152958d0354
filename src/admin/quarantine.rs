//! `GET /v1/quarantine` and `DELETE /v1/quarantine/{route}`: lists and releases quarantined routes.

use bytes::Bytes;
use http::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::{call::AdminCall, services::QuarantineService};
use crate::{
    leak::{ClearError, QuarantinedRoute},
    problem::Problem,
    purge::DedupOutcome,
    trigger::{json_response, receipt_response, unavailable_response},
};

#[derive(Serialize)]
struct QuarantineList {
    routes: Vec<QuarantinedRoute>,
}

/// Responds with the quarantined routes.
pub(super) fn list(quarantine: &QuarantineService) -> Response<Bytes> {
    json_response(StatusCode::OK, &QuarantineList { routes: (quarantine.list)() })
}

/// Purges the route in the path, and ends its quarantine. Responds with the receipt of the purge.
pub(super) async fn clear(quarantine: &QuarantineService, call: AdminCall<'_>) -> Response<Bytes> {
    let route = call.parameters.first().copied().unwrap_or_default();
    let route = percent_decode_str(route).decode_utf8_lossy().into_owned();
    match (quarantine.clear)(route).await {
        Ok(receipt) => receipt_response(DedupOutcome::Appended(receipt)),
        Err(ClearError::Unavailable) => unavailable_response(),
        Err(ClearError::NotQuarantined) => {
            let detail = "No route with this name is quarantined. `GET /v1/quarantine` lists those that are.";
            Problem::new(StatusCode::NOT_FOUND, "Not quarantined", detail).into_response()
        }
    }
}
