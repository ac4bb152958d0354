//! Known documents: those parsed recently, persisted by clients, or registered by the operator.

use std::{collections::HashMap, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::{Weighter, sync::Cache};
use serde_json::Value;
use thiserror::Error;

use super::document::{Document, UnreadableDocument};

/// Maximum size of each of the two caches, in bytes.
const MAX_BYTES: u64 = 8 << 20;

/// Approximate size of an entry in addition to its texts, in bytes.
const ENTRY_BYTES: usize = 256;

/// Documents, keyed by text and by the hash under which clients have persisted them.
///
/// Bounded in bytes, and scan-resistant: documents that are sent once do not evict others.
#[derive(Debug)]
pub(crate) struct DocumentCache {
    parsed: Cache<Box<str>, Arc<Document>, DocumentWeighter>,
    persisted: Cache<Sha256, Arc<Document>, DocumentWeighter>,
}

type Sha256 = [u8; 32];

#[derive(Debug, Clone)]
struct DocumentWeighter;

impl Weighter<Box<str>, Arc<Document>> for DocumentWeighter {
    fn weight(&self, text: &Box<str>, document: &Arc<Document>) -> u64 {
        (text.len() + document.text().len() + ENTRY_BYTES) as u64
    }
}

impl Weighter<Sha256, Arc<Document>> for DocumentWeighter {
    fn weight(&self, _: &Sha256, document: &Arc<Document>) -> u64 {
        (document.text().len() + ENTRY_BYTES) as u64
    }
}

impl Default for DocumentCache {
    fn default() -> Self {
        let items = usize::try_from(MAX_BYTES / 1024).unwrap_or_default();
        Self {
            parsed: Cache::with_weighter(items, MAX_BYTES, DocumentWeighter),
            persisted: Cache::with_weighter(items, MAX_BYTES, DocumentWeighter),
        }
    }
}

impl DocumentCache {
    /// Returns the document with this text. Parses it only if it is not known.
    pub(crate) fn parsed(&self, text: &str) -> Result<Arc<Document>, UnreadableDocument> {
        if let Some(known) = self.parsed.get(text) {
            return Ok(known);
        }
        let document = Arc::new(Document::parse(text)?);
        self.parsed.insert(text.into(), Arc::clone(&document));
        Ok(document)
    }

    /// Persists a document under `hash`. Returns `false` and does nothing if `text` has another
    /// hash.
    pub(super) fn persist(&self, hash: &str, text: &str, document: &Arc<Document>) -> bool {
        let Some(hash) = sha256(hash) else { return false };
        if digest(&SHA256, text.as_bytes()).as_ref() != hash {
            return false;
        }
        if self.persisted.get(&hash).is_none() {
            self.persisted.insert(hash, Arc::clone(document));
        }
        true
    }

    /// Returns the document that a client has persisted under this hash.
    pub(super) fn persisted(&self, hash: &str) -> Option<Arc<Document>> {
        self.persisted.get(&sha256(hash)?)
    }
}

/// Parses a hash, in hexadecimal digits of either case.
fn sha256(text: &str) -> Option<Sha256> {
    let mut hash = [0; 32];
    const_hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}

/// The documents that the origin has registered, keyed by their names in its registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RegisteredDocuments(HashMap<Box<str>, Arc<Document>>);

/// Why a list of registered documents cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum RegistryError {
    /// The list is not JSON.
    #[error("not JSON")]
    Json,
    /// The list has an unknown form.
    #[error(
        "expected an object of documents by name, or a list `operations` of objects with `id` and \
         `body`"
    )]
    Form,
    /// One of the documents is malformed.
    #[error("document `{0}`: {1}")]
    Document(String, UnreadableDocument),
}

impl RegisteredDocuments {
    /// Reads a list of documents: `{"NAME": "DOCUMENT", …}`, as Relay and code generators write it,
    /// or the manifest of Apollo's tools.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, RegistryError> {
        let list: Value = serde_json::from_slice(json).map_err(|_| RegistryError::Json)?;
        let list = list.as_object().ok_or(RegistryError::Form)?;
        let documents: Option<Vec<(&str, &str)>> = match list.get("operations") {
            Some(Value::Array(operations)) => operations.iter().map(manifest_entry).collect(),
            _ => list.iter().map(|(name, text)| Some((&**name, text.as_str()?))).collect(),
        };
        let parsed = |(name, text): (&str, &str)| match Document::parse(text) {
            Ok(document) => Ok((name.into(), Arc::new(document))),
            Err(error) => Err(RegistryError::Document(name.to_owned(), error)),
        };
        documents
            .ok_or(RegistryError::Form)?
            .into_iter()
            .map(parsed)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Document>> {
        self.0.get(name).cloned()
    }
}

/// Returns name and text of an operation in a manifest.
fn manifest_entry(operation: &Value) -> Option<(&str, &str)> {
    Some((operation.get("id")?.as_str()?, operation.get("body")?.as_str()?))
}
