//! The content of one request, as it is keyed and forwarded.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, request::Parts};

use super::{
    budget::ContentShare,
    rewrite::{ContentFields, KeyedForm, describe, keyed_form},
};
use crate::{
    graphql::RequestClass, key::ContentDigest, purge::planted::PlantedBug, route::ContentForm,
    warm::WarmContent,
};

/// The content of a request, as it is keyed and as the origin receives it.
///
/// It is kept as long as a fetch may need it, including a fetch in the background.
#[derive(Debug)]
pub(in crate::pipeline) struct RequestContent {
    /// `POST` or `QUERY`.
    pub method: Method,
    /// The bytes that the origin receives.
    pub bytes: Bytes,
    /// The digest of the content, which is part of the key.
    pub digest: ContentDigest,
    /// The form of the content: as sent, or rewritten.
    pub form: KeyedForm,
    /// The class of the GraphQL request; `None` if it was not read as GraphQL.
    pub graphql: Option<RequestClass>,
    /// The share of the memory budget that the content takes.
    _share: Option<ContentShare>,
}

impl RequestContent {
    /// Creates the content of a request. Its header fields must be those that are forwarded.
    pub(in crate::pipeline) fn new(
        (method, headers): (&Method, &HeaderMap),
        (bytes, form): (Bytes, KeyedForm),
        share: Option<ContentShare>,
    ) -> Arc<Self> {
        Arc::new(Self::of((method, headers), (bytes, form), share))
    }

    pub(super) fn of(
        (method, headers): (&Method, &HeaderMap),
        (bytes, form): (Bytes, KeyedForm),
        share: Option<ContentShare>,
    ) -> Self {
        let digest = ContentDigest::of(headers, &bytes);
        Self { method: method.clone(), bytes, digest, form, graphql: None, _share: share }
    }

    /// Returns whether both contents have the same digest, method and bytes.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.method == other.method && self.bytes == other.bytes
    }

    /// Returns the content as stored for requests that Larder itself repeats.
    pub(in crate::pipeline) fn to_warm(&self) -> WarmContent {
        WarmContent { method: self.method.clone(), bytes: self.bytes.clone() }
    }

    /// Creates the content of a request that Larder itself repeats, and completes the request's
    /// head.
    pub(in crate::pipeline) fn of_warm(content: WarmContent, request: &mut Parts) -> Arc<Self> {
        let WarmContent { method, bytes } = content;
        describe(&mut request.headers, bytes.len());
        request.method = method;
        Self::new((&request.method, &request.headers), (bytes, KeyedForm::Bytes), None)
    }

    /// Returns content as the route keys and forwards it. Adapts the fields that describe it.
    pub(in crate::pipeline) fn interpret(
        form: ContentForm,
        (method, headers): (&Method, &mut HeaderMap),
        fields: &ContentFields,
        (sent, share): (Bytes, Option<ContentShare>),
    ) -> Arc<Self> {
        if PlantedBug::ContentAsSent.is_planted() {
            return Self::as_sent(form, (method, headers), fields, (sent, share));
        }
        let (bytes, form) = keyed_form(form, fields, sent);
        describe(headers, bytes.len());
        Self::new((method, headers), (bytes, form), share)
    }

    /// Returns the same content with this class of GraphQL request.
    pub(super) fn with_class(self, class: RequestClass) -> Self {
        Self { graphql: Some(class), ..self }
    }

    /// Returns the same content without a share of the memory budget.
    pub(super) fn without_share(&self) -> Arc<Self> {
        let Self { method, bytes, digest, form, graphql, .. } = self;
        let (method, bytes, graphql) = (method.clone(), bytes.clone(), graphql.clone());
        Arc::new(Self { method, bytes, digest: *digest, form: *form, graphql, _share: None })
    }

    /// Keys the canonical form, but forwards the content as sent ([`PlantedBug::ContentAsSent`]).
    #[cold]
    fn as_sent(
        form: ContentForm,
        (method, headers): (&Method, &mut HeaderMap),
        fields: &ContentFields,
        (sent, share): (Bytes, Option<ContentShare>),
    ) -> Arc<Self> {
        let (canonical, form) = keyed_form(form, fields, sent.clone());
        describe(headers, sent.len());
        let digest = ContentDigest::of(headers, &canonical);
        let method = method.clone();
        Arc::new(Self { method, bytes: sent, digest, form, graphql: None, _share: share })
    }
}
