//! Appends purges to the log, counts them, and builds responses to callers.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::selector::{self, OwnerLookup, SelectorError, SelectorResolver, UrlNormalizer};
use crate::{
    fence::{Purge, PurgeMode, PurgeRecord, PurgeSource, Selector},
    problem::Problem,
    purge::{DedupOutcome, LogUnavailable, PurgeLog, PurgeReceipt},
    telemetry::Metrics,
};

/// Submits purges from all sources to the log.
pub(crate) struct Purger {
    log: Arc<PurgeLog>,
    metrics: Arc<Metrics>,
    resolver: SelectorResolver,
}

impl Purger {
    /// Creates a purger for this log. `resolver` resolves URLs and users in selectors.
    pub(crate) fn new(
        log: Arc<PurgeLog>,
        metrics: Arc<Metrics>,
        resolver: SelectorResolver,
    ) -> Self {
        Self { log, metrics, resolver }
    }

    /// Appends a purge, waits until the other nodes apply it, and counts it in the metrics.
    ///
    /// If the receipt is acknowledged, no node can serve a purged response.
    pub(crate) async fn purge(&self, purge: Purge) -> Result<PurgeReceipt, LogUnavailable> {
        let (source, mode) = (purge.source.clone(), purge.mode);
        let result = self.log.append(purge, PurgeReceipt::DEFAULT_ACK_TIMEOUT).await;
        self.count(&source, mode, result.as_ref().map_or("unavailable", result_label));
        result
    }

    /// Appends a purge unless a node appended a purge with this key in the last 24 hours.
    pub(crate) async fn purge_deduplicated(
        &self,
        purge: Purge,
        key: &str,
    ) -> Result<DedupOutcome, LogUnavailable> {
        let (source, mode) = (purge.source.clone(), purge.mode);
        let result =
            self.log.append_deduplicated(purge, key, PurgeReceipt::DEFAULT_ACK_TIMEOUT).await;
        let word = match &result {
            Ok(DedupOutcome::Appended(receipt)) => result_label(receipt),
            Ok(DedupOutcome::Duplicate(_)) => "duplicate",
            Err(LogUnavailable) => "unavailable",
        };
        self.count(&source, mode, word);
        result
    }

    /// Appends a purge, unless the same purge was already sent with this `id`. Without an id,
    /// always appends the purge.
    pub(crate) async fn purge_with_id(
        &self,
        purge: Purge,
        id: Option<&str>,
    ) -> Result<DedupOutcome, LogUnavailable> {
        match id {
            Some(id) => {
                let key = dedup_key(id, &purge);
                self.purge_deduplicated(purge, &key).await
            }
            None => self.purge(purge).await.map(DedupOutcome::Appended),
        }
    }

    /// Runs a purge at most once for each `id`, and returns the response to the caller.
    pub(crate) async fn purge_and_respond(
        &self,
        purge: Purge,
        id: Option<&str>,
    ) -> Response<Bytes> {
        let result = self.purge_with_id(purge, id).await;
        result.map_or_else(|LogUnavailable| unavailable_response(), receipt_response)
    }

    /// Parses a URL, and returns its selectors.
    pub(crate) fn url(&self, text: &str) -> Result<Vec<Selector>, SelectorError> {
        selector::url(text, self.normalizer())
    }

    /// Returns the latest purges that this node applied, newest first.
    pub(crate) fn recent(&self) -> Vec<Arc<PurgeRecord>> {
        self.log.recent_records()
    }

    pub(crate) fn normalizer(&self) -> &UrlNormalizer {
        &*self.resolver.normalize
    }

    pub(crate) fn owners(&self) -> &OwnerLookup {
        &*self.resolver.owners
    }

    pub(crate) fn resolver(&self) -> &SelectorResolver {
        &self.resolver
    }

    pub(crate) fn log(&self) -> &PurgeLog {
        &self.log
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn count(&self, source: &PurgeSource, mode: PurgeMode, result: &str) {
        let labels = [source.as_str(), mode.as_str(), result];
        self.metrics.purging.purges.with_label_values(&labels).inc();
    }
}

/// Returns a digest of the sender's id and of the whole purge.
///
/// Different purges with the same id get different keys.
fn dedup_key(id: &str, purge: &Purge) -> String {
    let text = format!("{} {id} {}", id.len(), purge.to_json());
    let digest = digest(&SHA256, text.as_bytes());
    const_hex::encode(digest.as_ref().get(..16).unwrap_or_default())
}

/// Returns the metric label of an appended purge.
fn result_label(receipt: &PurgeReceipt) -> &'static str {
    if receipt.is_acknowledged() { "appended" } else { "pending" }
}

/// The response document of a purge.
#[derive(Serialize)]
struct ReceiptDocument {
    seq: u64,
    nodes: NodeCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    /// Nodes that may still serve purged responses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

#[derive(Serialize)]
struct NodeCounts {
    applied: u32,
    total: u32,
}

/// Returns the receipt of a purge as a response.
///
/// A duplicate purge gets the receipt of the first, so that senders stop repeating the purge.
pub(crate) fn receipt_response(once: DedupOutcome) -> Response<Bytes> {
    let (receipt, duplicate) = match once {
        DedupOutcome::Appended(receipt) => (receipt, None),
        DedupOutcome::Duplicate(receipt) => (receipt, Some(true)),
    };
    let status = receipt_status(&receipt);
    let PurgeReceipt { seq, applied, total, missing, .. } = receipt;
    let missing = missing.iter().map(ToString::to_string).collect();
    let nodes = NodeCounts { applied, total };
    json_response(status, &ReceiptDocument { seq, nodes, duplicate, missing })
}

/// Returns 200 if all nodes have applied the purge, or else 202.
pub(crate) fn receipt_status(receipt: &PurgeReceipt) -> StatusCode {
    if receipt.is_acknowledged() { StatusCode::OK } else { StatusCode::ACCEPTED }
}

/// Returns a JSON response with `Cache-Control: no-store`.
pub(crate) fn json_response(status: StatusCode, document: &impl Serialize) -> Response<Bytes> {
    let Ok(body) = serde_json::to_vec(document) else {
        let detail = "The response could not be serialized.";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Problem::new(status, "Internal error", detail).into_response();
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The problem document for an unreachable purge log.
pub(crate) fn log_unavailable() -> Problem {
    let detail = "The purge is not confirmed: the purge log in Redis is unreachable or did not respond. Send it again: purging twice is harmless. `/readyz` and the metrics show the state of Redis.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Purge log unavailable", detail)
}

/// Returns a 503 response with `Retry-After`.
pub(crate) fn unavailable_response() -> Response<Bytes> {
    with_retry_after(log_unavailable().into_response())
}

/// Adds `Retry-After` to a response.
pub(crate) fn with_retry_after(mut response: Response<Bytes>) -> Response<Bytes> {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::{Acknowledgement, NodeId};

    /// Returns the receipt of a purge on three nodes, which the nodes `missing` have not applied.
    fn receipt(missing: &[u64]) -> PurgeReceipt {
        let acknowledgement = match missing {
            [] => Acknowledgement::Given,
            _ => Acknowledgement::Pending,
        };
        let missing: Vec<_> = missing.iter().map(|node| NodeId(*node)).collect();
        let applied = 3 - u32::try_from(missing.len()).unwrap();
        PurgeReceipt { seq: 1234, applied, total: 3, missing, acknowledgement }
    }

    #[test]
    fn a_receipt_lists_the_missing_nodes() {
        let response = receipt_response(DedupOutcome::Appended(receipt(&[10])));
        assert_eq!(response.status(), 202);
        let body = r#"{"seq":1234,"nodes":{"applied":2,"total":3},"missing":["000000000000000a"]}"#;
        assert_eq!(response.body(), &body);
    }

    #[test]
    fn responses_are_json_and_forbid_storing() {
        let response = receipt_response(DedupOutcome::Appended(receipt(&[])));
        assert_eq!(response.status(), 200);
        assert_eq!(response.body(), &r#"{"seq":1234,"nodes":{"applied":3,"total":3}}"#);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let response = unavailable_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}
