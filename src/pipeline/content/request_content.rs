//! The content of one request, as it is keyed and forwarded.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, request::Parts};

use super::{
    budget::ContentShare,
    rewrite::{KeyedForm, describe, keyed_form},
};
use crate::{
    key::ContentDigest, purge::planted::PlantedBug, route::ContentForm, warm::WarmContent,
};

/// The content of a request, as the key says and the origin receives.
///
/// It is kept as long as the response may have to be fetched with it, also in the background.
#[derive(Debug)]
pub(in crate::pipeline) struct RequestContent {
    /// `POST` or `QUERY`.
    pub method: Method,
    /// What the origin receives.
    pub bytes: Bytes,
    /// What the key has of it.
    pub digest: ContentDigest,
    /// Whether it was rewritten.
    pub form: KeyedForm,
    /// The memory that it counts against.
    _share: Option<ContentShare>,
}

impl RequestContent {
    /// Creates the content of a request whose fields are as forwarded.
    pub(in crate::pipeline) fn new(
        (method, headers): (&Method, &HeaderMap),
        (bytes, form): (Bytes, KeyedForm),
        share: Option<ContentShare>,
    ) -> Arc<Self> {
        let digest = ContentDigest::of(headers, &bytes);
        Arc::new(Self { method: method.clone(), bytes, digest, form, _share: share })
    }

    /// Returns whether the origin receives the same bytes by the same method, under the same digest.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.method == other.method && self.bytes == other.bytes
    }

    /// Returns the content for a request that Larder repeats itself.
    pub(in crate::pipeline) fn to_warm(&self) -> WarmContent {
        WarmContent { method: self.method.clone(), bytes: self.bytes.clone() }
    }

    /// Creates the content of a request that Larder repeats, and completes the request's head.
    pub(in crate::pipeline) fn of_warm(content: WarmContent, request: &mut Parts) -> Arc<Self> {
        let WarmContent { method, bytes } = content;
        describe(&mut request.headers, bytes.len());
        request.method = method;
        Self::new((&request.method, &request.headers), (bytes, KeyedForm::Bytes), None)
    }

    /// Reads content as the route says. Changes the fields that describe it.
    pub(in crate::pipeline) fn interpret(
        form: ContentForm,
        (method, headers): (&Method, &mut HeaderMap),
        (sent, share): (Bytes, Option<ContentShare>),
    ) -> Arc<Self> {
        if PlantedBug::ContentAsSent.is_planted() {
            return Self::as_sent(form, (method, headers), (sent, share));
        }
        let (bytes, form) = keyed_form(form, headers, sent);
        describe(headers, bytes.len());
        Self::new((method, headers), (bytes, form), share)
    }

    /// Keys the canonical form, and forwards what was sent (a planted bug).
    #[cold]
    fn as_sent(
        form: ContentForm,
        (method, headers): (&Method, &mut HeaderMap),
        (sent, share): (Bytes, Option<ContentShare>),
    ) -> Arc<Self> {
        let (canonical, form) = keyed_form(form, headers, sent.clone());
        describe(headers, sent.len());
        let digest = ContentDigest::of(headers, &canonical);
        Arc::new(Self { method: method.clone(), bytes: sent, digest, form, _share: share })
    }
}
