//! A stored response and its compact form.

mod fields;
mod stored;

pub use fields::Fields;
pub use stored::{Content, Draft, Entry, ResponseId, StoredResponse, Variants};
