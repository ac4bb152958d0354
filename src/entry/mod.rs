//! Stored responses, indexes of variants, and their encoding.

pub(crate) mod codec;
mod fields;
mod forms;
mod sections;
mod stored;
mod variants;

pub(crate) use fields::PackedFields;
pub(crate) use forms::{BodyForms, CodedBody, ContentId};
pub use stored::Entry;
pub(crate) use variants::{LanguageVariant, VARY_TTL, VariantIndex, VarySelection};
pub(crate) use {
    stored::CompleteBody, stored::ResponseDraft, stored::ResponseId, stored::StoredResponse,
};
