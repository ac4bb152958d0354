//! Classification: whether a GraphQL request reads or writes, and which parts of a read enter its
//! key.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _, sync::Arc};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, value::RawValue};

use super::{
    document::{Document, Operation, OperationKind},
    documents::{DocumentCache, RegisteredDocuments},
    members::{Parameters, RequestMembers, agrees_with_url, may_name_mutation, parsed},
    search::MutationSearch,
    unpersisted::UnpersistedRequest,
};

/// The class of a request, which determines how the cache handles it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestClass {
    /// A query, whose response may be stored and reused.
    Query(CanonicalRequest),
    /// A request that bypasses the cache and changes nothing.
    Read(Uncached),
    /// A request that bypasses the cache and changes something, or may do so.
    Write(Uncached, Vec<WrittenOperation>),
    /// A request by an unknown hash. The client is asked for the document.
    Unpersisted(UnpersistedRequest),
}

/// Why a request bypasses the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uncached {
    Mutation,
    Subscription,
    /// The request asks for the schema.
    Introspection,
    /// Several requests are sent as one.
    Batch,
    /// The request names a document that Larder does not know.
    UnknownDocument,
    /// The request is not sent as JSON.
    NotJson,
    /// Servers may read the request differently, or reject it.
    Unclear,
}

/// A mutation, or an operation that may be one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct WrittenOperation {
    /// Name of the operation; `None` if there is no name, or if the name is uncertain.
    pub(crate) name: Option<Box<str>>,
    /// Variables of the operation, as JSON.
    pub(crate) variables: Option<Arc<str>>,
    /// Position of the operation in a batch; `None` without a batch.
    pub(crate) position: Option<usize>,
}

/// A query in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CanonicalRequest {
    document: Arc<Document>,
    /// The name of the operation.
    operation: Option<Box<str>>,
    /// How the document is sent.
    form: DocumentForm,
    /// The extensions, as a JSON object with at least one member.
    extensions: Option<String>,
    variables: Option<String>,
    /// Whether the request persists its document.
    persists: bool,
    /// The URL parameters that are not part of the GraphQL request, as sent.
    others: String,
}

/// How a document is sent to the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum DocumentForm {
    /// The request contains the document as text.
    Text,
    /// The request names a document in the origin's registry. The first value is the member's name.
    Id(&'static str, Box<str>),
    /// The request's extensions contain the document's hash in the origin's registry.
    Hash,
}

impl RequestClass {
    /// Returns the class of a request that cannot be read: a write that may be any mutation.
    pub(crate) fn unclear() -> Self {
        unknown_write(Uncached::Unclear)
    }

    /// Returns the class of JSON that servers interpret differently or reject: a read if it is
    /// certainly no mutation, otherwise a write that may be any mutation.
    pub(crate) fn doubtful(json: &[u8]) -> Self {
        if MutationSearch::is_query(json) { Self::Read(Uncached::Unclear) } else { Self::unclear() }
    }

    /// Returns the class of the same request if it is not sent as JSON, and therefore not keyed.
    fn of_other_type(self) -> Self {
        match self {
            Self::Query(_) => Self::Read(Uncached::NotJson),
            other => other,
        }
    }

    /// Returns whether the request changes nothing.
    pub(crate) fn is_read(&self) -> bool {
        !matches!(self, Self::Write(..))
    }

    /// Returns the operations that are or may be mutations.
    pub(crate) fn written(&self) -> &[WrittenOperation] {
        match self {
            Self::Write(_, operations) => operations,
            Self::Query(_) | Self::Read(_) | Self::Unpersisted(_) => &[],
        }
    }
}

/// Maximum length in bytes of a batch with added documents. Many short hashes may stand for one
/// long document.
const MAX_BATCH: usize = 256 << 10;

/// Classifies requests, using the known documents of a route.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Classifier<'a> {
    /// The documents that were parsed, or persisted by clients.
    pub(crate) documents: &'a DocumentCache,
    /// The documents registered by the operator; `None` if none are configured.
    pub(crate) registered: Option<&'a RegisteredDocuments>,
}

/// Why a request has no known document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoDocument {
    /// The request has no document, or a document that is not understood.
    Unclear,
    /// The document is not understood, but is certainly no mutation.
    UnclearQuery,
    /// The request names a registered document that is unknown here.
    Unregistered,
    /// A client must first persist the document.
    Unpersisted,
}

impl NoDocument {
    fn class(self) -> RequestClass {
        match self {
            Self::Unclear => RequestClass::unclear(),
            Self::UnclearQuery => RequestClass::Read(Uncached::Unclear),
            Self::Unregistered => unknown_write(Uncached::UnknownDocument),
            Self::Unpersisted => RequestClass::Unpersisted(UnpersistedRequest::Single),
        }
    }
}

impl Classifier<'_> {
    /// Classifies a `POST` by its body, which is canonical JSON, and the query of its URL.
    pub(crate) fn of_body(&self, json: &str, url_query: Option<&str>) -> RequestClass {
        if json.starts_with('[') {
            return self.of_batch(json, url_query);
        }
        let Ok(members) = RequestMembers::of_json(json) else {
            return RequestClass::doubtful(json.as_bytes());
        };
        let class = self.of_members(&members, "");
        if agrees_with_url(url_query, executed(&class, &members)) {
            return match class {
                // Some servers read another member as the document.
                RequestClass::Read(Uncached::Unclear) => RequestClass::doubtful(json.as_bytes()),
                class => class,
            };
        }
        // Servers that prefer the URL execute its request.
        if may_name_mutation(url_query) {
            RequestClass::unclear()
        } else {
            RequestClass::doubtful(json.as_bytes())
        }
    }

    /// Classifies a `POST` whose body is a document (`application/graphql`).
    pub(crate) fn of_document(&self, document: &str, url_query: Option<&str>) -> RequestClass {
        let query = Some(Cow::Borrowed(document));
        let members = RequestMembers { query, ..RequestMembers::default() };
        let class = self.of_members(&members, "");
        let agrees = agrees_with_url(url_query, executed(&class, &members));
        if agrees { class.of_other_type() } else { RequestClass::unclear() }
    }

    /// Classifies a `POST` whose body is a form, like the query of a URL.
    pub(crate) fn of_form(&self, form: &str, url_query: Option<&str>) -> RequestClass {
        let parameters = Parameters::of_query(form);
        let Ok(parameters) = parameters else { return RequestClass::unclear() };
        let members = RequestMembers::of_json(&parameters.json);
        let Ok(members) = members else { return RequestClass::unclear() };
        let class = self.of_members(&members, "");
        let agrees = agrees_with_url(url_query, executed(&class, &members));
        if agrees { class.of_other_type() } else { RequestClass::unclear() }
    }

    /// Adds known documents to requests that contain only a hash. Returns `None` if there are none
    /// to add, or if the batch would be longer than 256 KiB.
    ///
    /// Origins without persisted queries also accept the completed requests.
    pub(crate) fn with_documents(&self, json: &str) -> Option<String> {
        if !json.starts_with('[') {
            return self.with_document(json);
        }
        let (mut batch, mut has_any) = (String::from("["), false);
        for request in parsed::<Vec<&RawValue>>(json).ok()? {
            let whole = self.with_document(request.get());
            has_any |= whole.is_some();
            batch.push_str(whole.as_deref().unwrap_or(request.get()));
            batch.push(',');
            if batch.len() > MAX_BATCH {
                return None;
            }
        }
        batch.pop();
        batch.push(']');
        has_any.then_some(batch)
    }

    fn with_document(&self, json: &str) -> Option<String> {
        let members = RequestMembers::of_json(json).ok().filter(|it| !it.has_unknown)?;
        let (document, form) = self.document(&members).ok()?;
        let form = form.filter(|form| *form == DocumentForm::Text && members.is_by_hash())?;
        let operation = members.operation_name.as_deref().map(Into::into);
        Some(CanonicalRequest::of(&members, (document, form), operation, "").to_json())
    }

    /// Classifies a `GET` by the query of its URL.
    ///
    /// A `GET` is a write if it asks for a mutation, which servers should reject.
    pub(crate) fn of_query(&self, query: &str) -> RequestClass {
        let unclear = RequestClass::Read(Uncached::Unclear);
        let Ok(parameters) = Parameters::of_query(query) else { return unclear };
        let Ok(members) = RequestMembers::of_json(&parameters.json) else { return unclear };
        match self.of_members(&members, &parameters.others.join("&")) {
            RequestClass::Write(cause, _) if cause != Uncached::Mutation => {
                RequestClass::Read(cause)
            }
            class => class,
        }
    }

    /// Returns the class of a batch: never a query, and a write if one of its requests may write.
    ///
    /// The client is asked for documents only if the batch contains none: clients do not expect to
    /// be asked for a document that they sent.
    fn of_batch(&self, json: &str, url_query: Option<&str>) -> RequestClass {
        let Ok(requests) = parsed::<Vec<&RawValue>>(json) else {
            return RequestClass::unclear();
        };
        let (mut written, count) = (Vec::new(), requests.len());
        let (mut by_hash, mut has_unpersisted) = (0, false);
        for (position, request) in requests.into_iter().enumerate() {
            let members = RequestMembers::of_json(request.get());
            by_hash += usize::from(members.is_ok_and(|members| members.is_by_hash()));
            let operations = match self.of_body(request.get(), url_query) {
                RequestClass::Write(_, operations) => operations,
                RequestClass::Unpersisted(_) => {
                    has_unpersisted = true;
                    vec![WrittenOperation::default()]
                }
                RequestClass::Query(_) | RequestClass::Read(_) => Vec::new(),
            };
            let position = Some(position);
            let in_batch = |operation| WrittenOperation { position, ..operation };
            written.extend(operations.into_iter().map(in_batch));
        }
        if has_unpersisted && by_hash == count {
            return RequestClass::Unpersisted(UnpersistedRequest::Batch(count));
        }
        if written.is_empty() {
            return RequestClass::Read(Uncached::Batch);
        }
        RequestClass::Write(Uncached::Batch, written)
    }

    fn of_members(&self, members: &RequestMembers<'_>, others: &str) -> RequestClass {
        let (document, form) = match self.document(members) {
            Ok(found) => found,
            Err(cause) => return cause.class(),
        };
        let is_odd = members.has_unknown
            || (members.query.is_some() && members.document_id.is_some())
            || form.is_none();
        let selected = document.operation(members.operation_name.as_deref());
        let (Some(operation), Some(form), false) = (selected, form, is_odd) else {
            return in_doubt(&document, members);
        };
        let Operation { kind, name, has_effect } = operation;
        match kind {
            OperationKind::Mutation if !has_effect => RequestClass::Read(Uncached::Mutation),
            OperationKind::Mutation => {
                let written = written(name.as_deref(), members);
                RequestClass::Write(Uncached::Mutation, vec![written])
            }
            OperationKind::Subscription => RequestClass::Read(Uncached::Subscription),
            OperationKind::Query if document.is_introspection() => {
                RequestClass::Read(Uncached::Introspection)
            }
            OperationKind::Query => {
                let name = name.clone();
                RequestClass::Query(CanonicalRequest::of(members, (document, form), name, others))
            }
        }
    }

    /// Returns the document of a request, and the form in which it is sent. The form is `None` if
    /// the request also contains a hash that is not that of the document.
    fn document(
        &self,
        members: &RequestMembers<'_>,
    ) -> Result<(Arc<Document>, Option<DocumentForm>), NoDocument> {
        if let Some(query) = &members.query {
            let is_query = !query.contains("mutation");
            let unclear = if is_query { NoDocument::UnclearQuery } else { NoDocument::Unclear };
            let document = self.documents.parsed(query).map_err(|_| unclear)?;
            let is_right = members
                .hash
                .as_deref()
                .is_none_or(|hash| self.documents.persist(hash, query, &document));
            return Ok((document, is_right.then_some(DocumentForm::Text)));
        }
        if let Some((member, id)) = &members.document_id {
            let registered = self.registered.and_then(|it| it.find(id));
            let registered = registered.ok_or(NoDocument::Unregistered)?;
            return Ok((registered, Some(DocumentForm::Id(member, id.as_ref().into()))));
        }
        let hash = members.hash.as_deref().ok_or(NoDocument::Unclear)?;
        if let Some(registered) = self.registered.and_then(|it| it.find(hash)) {
            return Ok((registered, Some(DocumentForm::Hash)));
        }
        let is_registered = self.registered.is_some();
        let missing =
            if is_registered { NoDocument::Unregistered } else { NoDocument::Unpersisted };
        let persisted = self.documents.persisted(hash).ok_or(missing)?;
        Ok((persisted, Some(DocumentForm::Text)))
    }
}

/// Returns the class of a request that may hold any mutation.
fn unknown_write(cause: Uncached) -> RequestClass {
    RequestClass::Write(cause, vec![WrittenOperation::default()])
}

/// Returns the name of the operation that a request executes.
fn executed<'a>(class: &'a RequestClass, members: &'a RequestMembers<'_>) -> Option<&'a str> {
    match class {
        RequestClass::Query(request) => request.operation(),
        _ => members.operation_name.as_deref(),
    }
}

/// Returns the class of a request that servers interpret differently or reject.
fn in_doubt(document: &Document, members: &RequestMembers<'_>) -> RequestClass {
    let operations = document.operations().iter();
    // Shared, since a document may hold thousands of mutations.
    let variables: Option<Arc<str>> = members.variables.map(Into::into);
    let mutations: Vec<_> = operations
        .filter(|operation| operation.kind == OperationKind::Mutation)
        .map(|operation| WrittenOperation {
            name: operation.name.clone(),
            variables: variables.clone(),
            position: None,
        })
        .collect();
    if mutations.is_empty() {
        return RequestClass::Read(Uncached::Unclear);
    }
    RequestClass::Write(Uncached::Unclear, mutations)
}

fn written(name: Option<&str>, members: &RequestMembers<'_>) -> WrittenOperation {
    let variables = members.variables.map(Into::into);
    WrittenOperation { name: name.map(Into::into), variables, position: None }
}

/// Returns the extensions that are sent, as a JSON object with at least one member.
fn extensions(members: &RequestMembers<'_>, form: &DocumentForm) -> Option<String> {
    let mut kept: BTreeMap<&str, Cow<'_, str>> =
        members.extensions.iter().map(|(name, value)| (&**name, value.get().into())).collect();
    if let (DocumentForm::Hash, Some(hash)) = (form, &members.hash) {
        let hash = Value::from(&**hash);
        kept.insert("persistedQuery", format!("{{\"sha256Hash\":{hash},\"version\":1}}").into());
    }
    (!kept.is_empty()).then(|| object(kept))
}

/// Returns a JSON object with these names and JSON values.
fn object<'a>(members: impl IntoIterator<Item = (&'a str, Cow<'a, str>)>) -> String {
    let members: Vec<String> =
        members.into_iter().map(|(name, json)| format!("{}:{json}", Value::from(name))).collect();
    format!("{{{}}}", members.join(","))
}

/// The characters of a query parameter's value that are sent unencoded (RFC 3986 §2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl CanonicalRequest {
    fn of(
        members: &RequestMembers<'_>,
        (document, form): (Arc<Document>, DocumentForm),
        operation: Option<Box<str>>,
        others: &str,
    ) -> Self {
        Self {
            operation,
            extensions: extensions(members, &form),
            document,
            form,
            variables: members.variables.map(str::to_owned),
            persists: members.query.is_some() && members.hash.is_some(),
            others: others.to_owned(),
        }
    }

    /// Returns whether equal requests may reuse this classification, as they persist no document.
    pub(crate) fn is_repeatable(&self) -> bool {
        !self.persists
    }

    /// Returns the name of the operation.
    pub(crate) fn operation(&self) -> Option<&str> {
        self.operation.as_deref()
    }

    /// Returns the canonical body: JSON without white space, members sorted by name.
    pub(crate) fn to_json(&self) -> String {
        object(self.members().into_iter().map(|(name, value)| match value {
            MemberValue::Json(json) => (name, json.into()),
            MemberValue::Text(text) => (name, Value::from(text).to_string().into()),
        }))
    }

    /// Returns the canonical query of a URL: other parameters as sent, then the request.
    pub(crate) fn to_query(&self) -> String {
        let mut query = self.others.clone();
        for (name, MemberValue::Json(text) | MemberValue::Text(text)) in self.members() {
            let separator = if query.is_empty() { "" } else { "&" };
            let value = utf8_percent_encode(text, UNRESERVED);
            let _infallible = write!(query, "{separator}{name}={value}");
        }
        query
    }

    /// Returns the members, sorted by name.
    fn members(&self) -> Vec<(&'static str, MemberValue<'_>)> {
        let document = match &self.form {
            DocumentForm::Text => Some(("query", MemberValue::Text(self.document.text()))),
            DocumentForm::Id(member, id) => Some((*member, MemberValue::Text(id))),
            DocumentForm::Hash => None,
        };
        let text = |name, text| Some((name, MemberValue::Text(text?)));
        let json = |name, json| Some((name, MemberValue::Json(json?)));
        let others = [
            json("extensions", self.extensions.as_deref()),
            text("operationName", self.operation.as_deref()),
            json("variables", self.variables.as_deref()),
        ];
        let mut members: Vec<_> =
            document.into_iter().chain(others.into_iter().flatten()).collect();
        members.sort_unstable_by_key(|(name, _)| *name);
        members
    }
}

/// The value of a member.
enum MemberValue<'a> {
    Json(&'a str),
    Text(&'a str),
}
