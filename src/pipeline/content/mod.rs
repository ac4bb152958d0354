//! The content of requests, if it is part of the key: `QUERY`, and the `POST` requests that a route
//! names.
//!
//! Such a request is planned twice. The first plan says that its content has to be read; the second
//! one makes the key from it. What is keyed is what the origin receives.

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
pub(super) use search::SharedSearch;
