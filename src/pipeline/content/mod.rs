//! The content of requests, if it is part of the key: `QUERY`, and the `POST` requests that a route
//! names.
//!
//! Such a request is planned twice. The first plan says that its content has to be read; the second
//! one makes the key from it. What is keyed is what the origin receives.

mod budget;
mod interned;
mod read;
mod request_content;
mod rewrite;

pub(super) use budget::{ContentBudget, ContentShare};
pub(super) use interned::InternedContent;
pub(super) use read::{MAX_BYTES, ReadOutcome, read};
pub(super) use request_content::RequestContent;
