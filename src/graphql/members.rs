//! The members of a GraphQL request: those of its JSON, or its query parameters.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    field::form::{decoded, pairs},
    parsing::canonical,
};

/// The members that name a registered document: those of Relay, of the GraphQL over HTTP draft, and
/// of older registries.
const DOCUMENT_IDS: [&str; 3] = ["doc_id", "documentId", "id"];

/// The members of one request. `null` counts as absent.
#[derive(Debug, Default)]
pub(super) struct RequestMembers<'a> {
    pub(super) query: Option<Cow<'a, str>>,
    pub(super) operation_name: Option<Cow<'a, str>>,
    /// The variables, as a JSON object with at least one member.
    pub(super) variables: Option<&'a str>,
    /// The extensions as JSON, except `persistedQuery`.
    pub(super) extensions: BTreeMap<Cow<'a, str>, &'a RawValue>,
    /// The SHA-256 of an automatically persisted query, in hexadecimal digits.
    pub(super) hash: Option<Cow<'a, str>>,
    /// The member that names a registered document, and the name.
    pub(super) document_id: Option<(&'static str, Cow<'a, str>)>,
    /// Whether a member is unknown to Larder but may have a meaning for servers.
    pub(super) has_unknown: bool,
}

/// The error for a request with malformed members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MalformedMembers;

/// The value of `extensions.persistedQuery`. Clients add members of their own, which are left out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PersistedQuery<'a> {
    version: u32,
    #[serde(borrow)]
    sha256_hash: Cow<'a, str>,
}

impl<'a> RequestMembers<'a> {
    /// Reads a request from canonical JSON, in which names are distinct.
    pub(super) fn of_json(json: &'a str) -> Result<Self, MalformedMembers> {
        let members: BTreeMap<Cow<'a, str>, &'a RawValue> = parsed(json)?;
        let mut request = Self::default();
        for (name, value) in members {
            request.add(&name, value.get())?;
        }
        Ok(request)
    }

    /// Returns whether the request has the hash of a document instead of the document.
    pub(super) fn is_by_hash(&self) -> bool {
        self.query.is_none() && self.hash.is_some()
    }

    fn add(&mut self, name: &str, json: &'a str) -> Result<(), MalformedMembers> {
        if json == "null" && is_member(name) {
            return Ok(());
        }
        match name {
            "query" => self.query = Some(string(json)?),
            "operationName" => self.operation_name = Some(string(json)?),
            "variables" if json == "{}" => {}
            "variables" if json.starts_with('{') => self.variables = Some(json),
            "variables" => return Err(MalformedMembers),
            "extensions" => self.add_extensions(parsed(json)?)?,
            _ => match DOCUMENT_IDS.into_iter().find(|known| *known == name) {
                Some(known) if self.document_id.is_none() => {
                    self.document_id = Some((known, string(json)?));
                }
                _ => self.has_unknown = true,
            },
        }
        Ok(())
    }

    fn add_extensions(
        &mut self,
        mut extensions: BTreeMap<Cow<'a, str>, &'a RawValue>,
    ) -> Result<(), MalformedMembers> {
        if let Some(persisted) = extensions.remove("persistedQuery") {
            let PersistedQuery { version, sha256_hash } = parsed(persisted.get())?;
            if version != 1 {
                return Err(MalformedMembers);
            }
            self.hash = Some(sha256_hash);
        }
        self.extensions = extensions;
        Ok(())
    }
}

/// Returns whether this is the name of a member of GraphQL requests.
fn is_member(name: &str) -> bool {
    matches!(name, "query" | "operationName" | "variables" | "extensions")
        || DOCUMENT_IDS.contains(&name)
}

/// Returns whether some servers read a parameter as a member of a GraphQL request: they ignore
/// case, blanks, or the text after a bracket.
fn resembles_member(name: &str) -> bool {
    let name = name.split('[').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(
        &*name,
        "query" | "operationname" | "variables" | "extensions" | "documentid" | "doc_id"
    )
}

/// Returns whether the URL of a `POST` does not contradict its body, which executes `operation`.
/// Some servers prefer the URL.
pub(super) fn agrees_with_url(url_query: Option<&str>, operation: Option<&str>) -> bool {
    pairs(url_query.unwrap_or_default()).all(|(name, value)| {
        let name = decoded(name);
        !resembles_member(&name)
            || (name == "operationName"
                && value.is_some_and(|value| Some(&*decoded(value)) == operation))
    })
}

/// Returns whether the URL of a `POST` contains a mutation, or names a document that may be one.
pub(super) fn may_name_mutation(url_query: Option<&str>) -> bool {
    pairs(url_query.unwrap_or_default()).any(|(name, value)| {
        let name = decoded(name).to_ascii_lowercase();
        let names_document =
            ["extensions", "documentid", "doc_id"].iter().any(|it| name.contains(it));
        names_document || value.is_some_and(|value| decoded(value).contains("mutation"))
    })
}

/// Returns the value of a JSON string.
fn string(json: &str) -> Result<Cow<'_, str>, MalformedMembers> {
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => parsed::<String>(json).map(Cow::Owned),
    }
}

pub(super) fn parsed<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, MalformedMembers> {
    serde_json::from_str(json).map_err(|_| MalformedMembers)
}

/// The query of a URL: a GraphQL request, and parameters that do not belong to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parameters<'a> {
    /// The request as JSON.
    pub(super) json: String,
    /// The other parameters, as sent.
    pub(super) others: Vec<&'a str>,
}

impl<'a> Parameters<'a> {
    /// Reads the query of a URL. The values that are JSON are made canonical.
    pub(super) fn of_query(query: &'a str) -> Result<Self, MalformedMembers> {
        let (mut members, mut others) = (BTreeMap::new(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name), decoded(value));
            let is_member = is_member(&name);
            if pair.contains(';') || (!is_member && resembles_member(&name)) {
                return Err(MalformedMembers);
            }
            if !is_member {
                others.push(pair);
                continue;
            }
            let json = match &*name {
                "variables" | "extensions" if value.is_empty() => Some("null".to_owned()),
                "variables" | "extensions" => {
                    canonical(value.as_bytes()).ok().and_then(|json| String::from_utf8(json).ok())
                }
                _ => serde_json::to_string(&value).ok(),
            };
            if members.insert(name.into_owned(), json.ok_or(MalformedMembers)?).is_some() {
                return Err(MalformedMembers);
            }
        }
        let members: Vec<_> =
            members.iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
        Ok(Self { json: format!("{{{}}}", members.join(",")), others })
    }
}
