//! A stored response and its compact form.

pub mod codec;
mod fields;
mod stored;
mod variants;

pub use fields::Fields;
pub use stored::{CompleteBody, Draft, Entry, ResponseId, StoredResponse};
pub use variants::{LEARNED, LanguageVariant, Selection, Variants};
