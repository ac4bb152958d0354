//! Purging on somebody's behalf: appending to the log, counting, and what the caller is told.

use std::{fmt::Write as _, sync::Arc};

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

/// What purges are handed to, wherever they come from.
pub(crate) struct Purger {
    log: Arc<PurgeLog>,
    metrics: Arc<Metrics>,
    resolver: SelectorResolver,
}

impl Purger {
    /// A purger for this log. `resolver` says what URLs and users mean in selectors.
    pub(crate) fn new(
        log: Arc<PurgeLog>,
        metrics: Arc<Metrics>,
        resolver: SelectorResolver,
    ) -> Self {
        Self { log, metrics, resolver }
    }

    /// Appends a purge, waits for the other nodes, and counts it. Nothing that it selects is used any more
    /// once the receipt says that it is acknowledged.
    pub(crate) async fn purge(&self, purge: Purge) -> Result<PurgeReceipt, LogUnavailable> {
        let (source, mode) = (purge.source.clone(), purge.mode);
        let result = self.log.append(purge, PurgeReceipt::DEFAULT_ACK_TIMEOUT).await;
        self.count(&source, mode, result.as_ref().map_or("unavailable", result_label));
        result
    }

    /// The same, unless a purge was appended under this key in the last 24 hours by whichever node.
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

    /// The same for a purge that its sender may ask for again, and calls `id` then: that is purged once.
    /// Without an id each is.
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

    /// Purges, and answers whoever asked for it; once, where it has an id.
    pub(crate) async fn purge_and_respond(
        &self,
        purge: Purge,
        id: Option<&str>,
    ) -> Response<Bytes> {
        let result = self.purge_with_id(purge, id).await;
        result.map_or_else(|LogUnavailable| unavailable_response(), receipt_response)
    }

    /// The selector of a URL as people write it.
    pub(crate) fn url(&self, text: &str) -> Result<Selector, SelectorError> {
        selector::url(text, self.normalizer())
    }

    /// The purges that this node applied last, the latest first.
    pub(crate) fn recent(&self) -> Vec<Arc<PurgeRecord>> {
        self.log.recent_records()
    }

    /// The normal form of URLs.
    pub(crate) fn normalizer(&self) -> &UrlNormalizer {
        &*self.resolver.normalize
    }

    /// The owners that users come to.
    pub(crate) fn owners(&self) -> &OwnerLookup {
        &*self.resolver.owners
    }

    /// What selectors mean.
    pub(crate) fn resolver(&self) -> &SelectorResolver {
        &self.resolver
    }

    /// The purge log.
    pub(crate) fn log(&self) -> &PurgeLog {
        &self.log
    }

    /// The counters.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn count(&self, source: &PurgeSource, mode: PurgeMode, result: &str) {
        let labels = [source.as_str(), mode.as_str(), result];
        self.metrics.purging.purges.with_label_values(&labels).inc();
    }
}

/// What tells one purge from every other: a digest of the id that its sender gave it, and of all that it
/// purges. Another purge under the same id is another.
fn dedup_key(id: &str, purge: &Purge) -> String {
    let text = format!("{} {id} {}", id.len(), purge.to_json());
    let mut key = String::with_capacity(32);
    for byte in digest(&SHA256, text.as_bytes()).as_ref().iter().take(16) {
        let _infallible = write!(key, "{byte:02x}");
    }
    key
}

/// What came of a purge that is in the log, as the metrics spell it.
fn result_label(receipt: &PurgeReceipt) -> &'static str {
    if receipt.is_acknowledged() { "appended" } else { "pending" }
}

/// What a caller gets for a purge.
#[derive(Serialize)]
struct ReceiptDocument {
    seq: u64,
    nodes: NodeCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    /// Nodes that may still use what was purged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

#[derive(Serialize)]
struct NodeCounts {
    applied: u32,
    total: u32,
}

/// The receipt of a purge as a response: 202 where it is not acknowledged. That of an earlier one is a
/// success, too: who sends again does so until it is told of one.
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

/// `200` once no node uses any more what was purged, `202` where some still may.
pub(crate) fn receipt_status(receipt: &PurgeReceipt) -> StatusCode {
    if receipt.is_acknowledged() { StatusCode::OK } else { StatusCode::ACCEPTED }
}

/// A document as a response that nobody stores.
pub(crate) fn json_response(status: StatusCode, document: &impl Serialize) -> Response<Bytes> {
    let Ok(body) = serde_json::to_vec(document) else {
        let detail = "The answer could not be written.";
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

/// What is said where the log cannot be reached.
pub(crate) fn log_unavailable() -> Problem {
    let detail = "The purge is not confirmed: the purge log in Redis cannot be reached, or did not answer. \
                  Send it again: to purge twice does no harm. `/readyz` and the metrics tell about Redis.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Purge log unavailable", detail)
}

/// The answer where the log cannot be reached: senders that retry do so.
pub(crate) fn unavailable_response() -> Response<Bytes> {
    with_retry_after(log_unavailable().into_response())
}

/// Says in a response that it is worth asking again.
pub(crate) fn with_retry_after(mut response: Response<Bytes>) -> Response<Bytes> {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::{Acknowledgement, NodeId};

    /// A receipt of three nodes, without those that are missing.
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
    fn a_receipt_names_who_is_missing() {
        let response = receipt_response(DedupOutcome::Appended(receipt(&[10])));
        assert_eq!(response.status(), 202);
        let body = r#"{"seq":1234,"nodes":{"applied":2,"total":3},"missing":["000000000000000a"]}"#;
        assert_eq!(response.body(), &body);
    }

    #[test]
    fn answers_are_documents_that_nobody_stores() {
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
