//! Error formats, one for each kind of client.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;

use crate::{
    problem::Problem,
    trigger::{json_response, purge_method, with_retry_after},
};

/// The API that a call belongs to, which determines the error format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Larder's own API, with problem documents.
    Larder,
    Fastly,
    Cloudflare,
}

impl Dialect {
    /// Returns the error response for a problem, in the format of this API.
    pub(super) fn refuse(self, problem: Problem) -> Response<Bytes> {
        let status = problem.status;
        let response = match self {
            Self::Larder => problem.into_response(),
            Self::Fastly => {
                json_response(status, &json!({ "msg": problem.title, "detail": problem.detail }))
            }
            Self::Cloudflare => {
                let error = json!({ "code": code(status), "message": problem.detail });
                let document = json!({
                    "success": false, "errors": [error], "messages": [], "result": null,
                });
                json_response(status, &document)
            }
        };
        match status {
            StatusCode::UNAUTHORIZED => purge_method::with_bearer_challenge(response),
            StatusCode::SERVICE_UNAVAILABLE => with_retry_after(response),
            _ => response,
        }
    }
}

/// Returns Cloudflare's error code for a status, or the status itself if it has no code.
fn code(status: StatusCode) -> u16 {
    match status {
        StatusCode::BAD_REQUEST => 1012,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => 10_000,
        status => status.as_u16(),
    }
}
