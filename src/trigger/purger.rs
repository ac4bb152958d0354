//! Purging on somebody's behalf: appending to the log, counting, and what the caller is told.

use std::{fmt::Write as _, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use super::selector::{self, Normal, Owners, Resolver, SelectorError};
use crate::{
    fence::{Mode, Purge, Record, Selector, Source},
    problem::Problem,
    purge::{Log, Once, Receipt, Unavailable},
    telemetry::Metrics,
};

/// What purges are handed to, wherever they come from.
pub struct Purger {
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    resolver: Resolver,
}

impl Purger {
    /// A purger for this log. `resolver` says what URLs and users mean in selectors.
    pub fn new(log: Arc<Log>, metrics: Arc<Metrics>, resolver: Resolver) -> Self {
        Self { log, metrics, resolver }
    }

    /// Appends a purge, waits for the other nodes, and counts it. Nothing that it selects is used any more
    /// once the receipt says that it is acknowledged.
    pub async fn purge(&self, purge: Purge) -> Result<Receipt, Unavailable> {
        let (source, mode) = (purge.source.clone(), purge.mode);
        let result = self.log.append(purge, Receipt::PATIENCE).await;
        self.count(&source, mode, result.as_ref().map_or("unavailable", word));
        result
    }

    /// The same, unless a purge was appended under this key in the last 24 hours by whichever node.
    pub async fn purge_once(&self, purge: Purge, key: &str) -> Result<Once, Unavailable> {
        let (source, mode) = (purge.source.clone(), purge.mode);
        let result = self.log.append_once(purge, key, Receipt::PATIENCE).await;
        let word = match &result {
            Ok(Once::First(receipt)) => word(receipt),
            Ok(Once::Again(_)) => "duplicate",
            Err(Unavailable) => "unavailable",
        };
        self.count(&source, mode, word);
        result
    }

    /// The same for a purge that its sender may ask for again, and calls `id` then: that is purged once.
    /// Without an id each is.
    pub async fn purge_for_sender(
        &self,
        purge: Purge,
        id: Option<&str>,
    ) -> Result<Once, Unavailable> {
        match id {
            Some(id) => {
                let key = key(id, &purge);
                self.purge_once(purge, &key).await
            }
            None => self.purge(purge).await.map(Once::First),
        }
    }

    /// Purges, and answers whoever asked for it; once, where it has an id.
    pub async fn answer(&self, purge: Purge, id: Option<&str>) -> Response<Bytes> {
        let result = self.purge_for_sender(purge, id).await;
        result.map_or_else(|Unavailable| unavailable(), receipted)
    }

    /// The selector of a URL as people write it.
    pub fn url(&self, text: &str) -> Result<Selector, SelectorError> {
        selector::url(text, self.normal())
    }

    /// The purges that this node applied last, the latest first.
    pub fn recent(&self) -> Vec<Arc<Record>> {
        self.log.recent()
    }

    /// The normal form of URLs.
    pub fn normal(&self) -> &Normal {
        &*self.resolver.normal
    }

    /// The owners that users come to.
    pub fn owners(&self) -> &Owners {
        &*self.resolver.owners
    }

    /// What selectors mean.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The purge log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn count(&self, source: &Source, mode: Mode, result: &str) {
        let labels = [source.as_str(), mode.as_str(), result];
        self.metrics.purging.purges.with_label_values(&labels).inc();
    }
}

/// What tells one purge from every other: a digest of the id that its sender gave it, and of all that it
/// purges. Another purge under the same id is another.
fn key(id: &str, purge: &Purge) -> String {
    let text = format!("{} {id} {}", id.len(), purge.write());
    let mut key = String::with_capacity(32);
    for byte in digest(&SHA256, text.as_bytes()).as_ref().iter().take(16) {
        let _infallible = write!(key, "{byte:02x}");
    }
    key
}

/// What came of a purge that is in the log, as the metrics spell it.
fn word(receipt: &Receipt) -> &'static str {
    if receipt.is_acknowledged() { "appended" } else { "pending" }
}

/// What a caller gets for a purge.
#[derive(Serialize)]
struct ReceiptDocument {
    seq: u64,
    nodes: Nodes,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    /// Nodes that may still use what was purged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
}

#[derive(Serialize)]
struct Nodes {
    applied: u32,
    total: u32,
}

/// The receipt of a purge as a response: 202 where it is not acknowledged. That of an earlier one is a
/// success, too: who sends again does so until it is told of one.
pub fn receipted(once: Once) -> Response<Bytes> {
    let (receipt, duplicate) = match once {
        Once::First(receipt) => (receipt, None),
        Once::Again(receipt) => (receipt, Some(true)),
    };
    let status = status(&receipt);
    let Receipt { seq, applied, total, missing, .. } = receipt;
    let missing = missing.iter().map(ToString::to_string).collect();
    let nodes = Nodes { applied, total };
    json(status, &ReceiptDocument { seq, nodes, duplicate, missing })
}

/// `200` once no node uses any more what was purged, `202` where some still may.
pub fn status(receipt: &Receipt) -> StatusCode {
    if receipt.is_acknowledged() { StatusCode::OK } else { StatusCode::ACCEPTED }
}

/// A document as a response that nobody stores.
pub fn json(status: StatusCode, document: &impl Serialize) -> Response<Bytes> {
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
pub fn log_out_of_reach() -> Problem {
    let detail = "The purge is not confirmed: the purge log in Redis cannot be reached, or did not answer. \
                  Send it again: to purge twice does no harm. `/readyz` and the metrics tell about Redis.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Purge log unavailable", detail)
}

/// The answer where the log cannot be reached: senders that retry do so.
pub fn unavailable() -> Response<Bytes> {
    retry(log_out_of_reach().into_response())
}

/// Says in a response that it is worth asking again.
pub fn retry(mut response: Response<Bytes>) -> Response<Bytes> {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::purge::{Acknowledgement, NodeId};

    /// A receipt of three nodes, without those that are missing.
    fn receipt(missing: &[u64]) -> Receipt {
        let verdict = match missing {
            [] => Acknowledgement::Given,
            _ => Acknowledgement::Pending,
        };
        let missing: Vec<_> = missing.iter().map(|node| NodeId(*node)).collect();
        let applied = 3 - u32::try_from(missing.len()).unwrap();
        Receipt { seq: 1234, applied, total: 3, missing, verdict }
    }

    #[test]
    fn a_receipt_names_who_is_missing() {
        let answer = receipted(Once::First(receipt(&[10])));
        assert_eq!(answer.status(), 202);
        let body = r#"{"seq":1234,"nodes":{"applied":2,"total":3},"missing":["000000000000000a"]}"#;
        assert_eq!(answer.body(), &body);
    }

    #[test]
    fn answers_are_documents_that_nobody_stores() {
        let answer = receipted(Once::First(receipt(&[])));
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.body(), &r#"{"seq":1234,"nodes":{"applied":3,"total":3}}"#);
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        let answer = unavailable();
        assert_eq!(answer.status(), 503);
        assert_eq!(answer.headers()["retry-after"], "1");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
}
