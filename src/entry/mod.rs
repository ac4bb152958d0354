//! A stored response and its compact form.

pub mod codec;
mod fields;
mod stored;
mod variants;

pub use fields::PackedFields;
pub use stored::{CompleteBody, Entry, ResponseDraft, ResponseId, StoredResponse};
pub use variants::{LanguageVariant, VARY_TTL, VariantIndex, VarySelection};
