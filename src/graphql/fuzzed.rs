//! Functions that a fuzz target calls with GraphQL requests.

use super::{Classifier, DocumentCache, RegisteredDocuments, RequestClass, document::Document};

/// Returns the canonical text of a document, if it is understood.
pub fn canonical_document(text: &str) -> Option<String> {
    Document::parse(text).ok().map(|document| document.text().to_owned())
}

/// Returns the canonical body of a request, and the query of a URL with the same request; `None` if
/// the request is not a query.
pub fn canonical_request(json: &str) -> Option<(String, String)> {
    let (documents, registered) = (DocumentCache::default(), RegisteredDocuments::default());
    let classifier = Classifier { documents: &documents, registered: &registered };
    match classifier.of_body(json, None) {
        RequestClass::Query(request) => Some((request.to_json(), request.to_query())),
        _ => None,
    }
}

/// Returns the canonical body of the request in the query of a URL; `None` if it is not a query.
pub fn canonical_query(query: &str) -> Option<String> {
    let (documents, registered) = (DocumentCache::default(), RegisteredDocuments::default());
    let classifier = Classifier { documents: &documents, registered: &registered };
    match classifier.of_query(query) {
        RequestClass::Query(request) => Some(request.to_json()),
        _ => None,
    }
}
