//! Stored responses, indexes of variants, and their encoding.

pub(crate) mod codec;
mod coded;
mod fields;
mod sections;
mod stored;
mod variants;

pub(crate) use coded::{CodedBody, CodedForms, ContentId};
pub(crate) use fields::PackedFields;
pub use stored::Entry;
pub(crate) use variants::{LanguageVariant, VARY_TTL, VariantIndex, VarySelection};
pub(crate) use {
    stored::CompleteBody, stored::ResponseDraft, stored::ResponseId, stored::StoredResponse,
};
