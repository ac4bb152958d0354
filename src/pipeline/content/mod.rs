//! Request content that is part of the key. This applies to `QUERY` requests, and to the `POST`
//! requests that a route names.
//!
//! Such a request is planned twice. The first plan shows that the content has to be read; the
//! second plan derives the key from it. The origin receives exactly the content that is keyed.

mod budget;
mod graphql;
mod interned;
mod read;
mod recent_requests;
mod request_content;
mod rewrite;
mod search;

pub(super) use budget::{ContentBudget, ContentShare};
pub(super) use graphql::{class_of, interpret_graphql};
pub(super) use interned::InternedContent;
pub(super) use read::{MAX_BYTES, ReadOutcome, read};
pub(crate) use recent_requests::RecentRequests;
pub(super) use request_content::RequestContent;
pub(super) use rewrite::ContentFields;
pub(super) use search::SharedSearch;
