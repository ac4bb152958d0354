//! `GET /v1/purges`: recent purges, with source and reason.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

use super::call::AdminCall;
use crate::{
    fence::{Purge, PurgeRecord},
    field::{Rfc3339, Timestamp},
    problem::Problem,
    purge::{NodeId, PurgeLog},
    trigger::{Purger, json_response},
};

/// The default number of records in a response.
const DEFAULT_LIMIT: usize = 100;

/// A purge record in a response.
#[derive(Serialize)]
struct PurgeDocument<'a> {
    seq: u64,
    at: String,
    #[serde(flatten)]
    purge: &'a Purge,
    /// The nodes that have applied the record. Present only if a single record is requested.
    #[serde(flatten)]
    propagation: Option<AppliedNodes>,
}

/// The nodes that have applied a record, as known to this node.
#[derive(Serialize)]
struct AppliedNodes {
    applied: Vec<NodeApplied>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_at: Option<String>,
}

#[derive(Serialize)]
struct NodeApplied {
    /// Name of the node; absent if there is only one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    at: String,
}

#[derive(Serialize)]
struct PurgeList<'a> {
    purges: Vec<PurgeDocument<'a>>,
}

/// The parameters `?limit=` and `?before=`.
struct PageQuery {
    limit: usize,
    before: u64,
}

/// Returns the latest applied records, newest first.
pub(super) fn list(purger: &Purger, call: &AdminCall<'_>) -> Response<Bytes> {
    let Some(page) = PageQuery::read(call.query.unwrap_or_default()) else {
        let detail = "The parameters are `limit` and `before` (the `seq` of a record). Both are whole numbers.";
        return Problem::new(StatusCode::BAD_REQUEST, "No such page", detail).into_response();
    };
    let records = purger.recent();
    let earlier = records.iter().filter(|record| record.seq < page.before).take(page.limit);
    json_response(
        StatusCode::OK,
        &PurgeList { purges: earlier.map(|record| PurgeDocument::of(record)).collect() },
    )
}

/// Returns the record with this `seq`.
pub(super) fn show(purger: &Purger, call: &AdminCall<'_>) -> Response<Bytes> {
    let seq = call.parameters.first().and_then(|seq| seq.parse::<u64>().ok());
    let records = purger.recent();
    if let Some(record) = records.iter().find(|record| Some(record.seq) == seq) {
        let propagation = AppliedNodes::of(purger.log(), record.seq);
        return json_response(
            StatusCode::OK,
            &PurgeDocument { propagation, ..PurgeDocument::of(record) },
        );
    }
    let detail = "This node has not applied this record, or no longer remembers it.";
    Problem::new(StatusCode::NOT_FOUND, "No such purge", detail).into_response()
}

impl<'a> PurgeDocument<'a> {
    fn of(record: &'a PurgeRecord) -> Self {
        let (at, purge) = (Rfc3339(record.at).to_string(), &record.purge);
        Self { seq: record.seq, at, purge, propagation: None }
    }
}

impl AppliedNodes {
    fn of(log: &PurgeLog, seq: u64) -> Option<Self> {
        let propagation = log.propagation(seq)?;
        let time = |at| Rfc3339(at).to_string();
        let own = NodeApplied {
            node: log.node().map(|node| node.to_string()),
            at: time(propagation.applied),
        };
        let other = |(node, at): (NodeId, Timestamp)| NodeApplied {
            node: Some(node.to_string()),
            at: time(at),
        };
        let applied =
            std::iter::once(own).chain(propagation.others.into_iter().map(other)).collect();
        Some(Self { applied, acknowledged_at: propagation.acknowledged.map(time) })
    }
}

impl PageQuery {
    fn read(query: &str) -> Option<Self> {
        let mut page = Self { limit: DEFAULT_LIMIT, before: u64::MAX };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=')? {
                ("limit", number) => page.limit = number.parse().ok()?,
                ("before", number) => page.before = number.parse().ok()?,
                _ => return None,
            }
        }
        Some(page)
    }
}
