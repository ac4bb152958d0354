//! `GET /v1/purges`: what was purged lately, by whom and why.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

use super::calls::Said;
use crate::{
    fence::{Purge, Record},
    field::{Rfc3339, Timestamp},
    problem::Problem,
    purge::{Log, NodeId},
    trigger::{Purger, json},
};

/// How many records are told of where nothing is said.
const USUAL: usize = 100;

/// A record as it is told.
#[derive(Serialize)]
struct Document<'a> {
    seq: u64,
    at: String,
    #[serde(flatten)]
    purge: &'a Purge,
    /// Which nodes have applied it; only where one record is asked for.
    #[serde(flatten)]
    passage: Option<Applied>,
}

/// Which nodes have applied a record, as far as this one knows.
#[derive(Serialize)]
struct Applied {
    applied: Vec<AppliedBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged_at: Option<String>,
}

#[derive(Serialize)]
struct AppliedBy {
    /// Missing where there is but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    at: String,
}

#[derive(Serialize)]
struct List<'a> {
    purges: Vec<Document<'a>>,
}

/// What is asked for by `?limit=` and `?before=`.
struct Page {
    limit: usize,
    before: u64,
}

/// The records applied last, the latest first.
pub(super) fn list(purger: &Purger, said: &Said<'_>) -> Response<Bytes> {
    let Some(page) = Page::read(said.query.unwrap_or_default()) else {
        let detail = "The parameters are `limit` and `before`, a record's `seq`: whole numbers.";
        return Problem::new(StatusCode::BAD_REQUEST, "No such page", detail).into_response();
    };
    let records = purger.recent();
    let earlier = records.iter().filter(|record| record.seq < page.before).take(page.limit);
    json(StatusCode::OK, &List { purges: earlier.map(|record| Document::of(record)).collect() })
}

/// The record of this `seq`.
pub(super) fn one(purger: &Purger, said: &Said<'_>) -> Response<Bytes> {
    let seq = said.places.first().and_then(|seq| seq.parse::<u64>().ok());
    let records = purger.recent();
    if let Some(record) = records.iter().find(|record| Some(record.seq) == seq) {
        let passage = Applied::of(purger.log(), record.seq);
        return json(StatusCode::OK, &Document { passage, ..Document::of(record) });
    }
    let detail = "This node has applied no such record, or too many since then.";
    Problem::new(StatusCode::NOT_FOUND, "No such purge", detail).into_response()
}

impl<'a> Document<'a> {
    fn of(record: &'a Record) -> Self {
        let (at, purge) = (Rfc3339(record.at).to_string(), &record.purge);
        Self { seq: record.seq, at, purge, passage: None }
    }
}

impl Applied {
    fn of(log: &Log, seq: u64) -> Option<Self> {
        let passage = log.passage(seq)?;
        let time = |at| Rfc3339(at).to_string();
        let own =
            AppliedBy { node: log.node().map(|node| node.to_string()), at: time(passage.applied) };
        let other = |(node, at): (NodeId, Timestamp)| AppliedBy {
            node: Some(node.to_string()),
            at: time(at),
        };
        let applied = std::iter::once(own).chain(passage.others.into_iter().map(other)).collect();
        Some(Self { applied, acknowledged_at: passage.acknowledged.map(time) })
    }
}

impl Page {
    fn read(query: &str) -> Option<Self> {
        let mut page = Self { limit: USUAL, before: u64::MAX };
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
