//! `GET /v1/purges`: what was purged lately, by whom and why.

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;

use super::calls::Said;
use crate::{
    fence::{Purge, Record},
    field::Rfc3339,
    problem::Problem,
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
        return json(StatusCode::OK, &Document::of(record));
    }
    let detail = "This node has applied no such record, or too many since then.";
    Problem::new(StatusCode::NOT_FOUND, "No such purge", detail).into_response()
}

impl<'a> Document<'a> {
    fn of(record: &'a Record) -> Self {
        Self { seq: record.seq, at: Rfc3339(record.at).to_string(), purge: &record.purge }
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
