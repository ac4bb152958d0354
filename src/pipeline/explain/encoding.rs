//! Explains the content coding in which a client receives a stored response.

use http::{HeaderMap, StatusCode};

use super::{explanation::ExplainedEncoding, request::PlannedRequest};
use crate::{
    coding::{self, ContentCoding},
    entry::StoredResponse,
    pipeline::representation::{self, FormRefusal, FormRequest},
};

impl PlannedRequest<'_> {
    /// Returns the content coding in which this request gets a stored response; `None` if the route
    /// does not encode.
    pub(super) fn encoding_of_stored(&self, stored: &StoredResponse) -> Option<ExplainedEncoding> {
        let route = self.matched_route();
        let form = representation::coding_for(route, self.form_request(), stored);
        route.encodes().then(|| explained(form))
    }

    /// Returns the content coding in which this request gets the given response once it is stored.
    /// `length` is the length of the response's body, if known. `None` if the route does not
    /// encode.
    pub(super) fn encoding_of_given(
        &self,
        (status, headers): (StatusCode, &HeaderMap),
        length: Option<u64>,
    ) -> Option<ExplainedEncoding> {
        let route = self.matched_route();
        let fields =
            headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        let form = match coding::refusal(status, fields, length) {
            Some(refusal) => Err(FormRefusal::Response(refusal)),
            None => representation::negotiated(route, self.form_request()),
        };
        route.encodes().then(|| explained(form))
    }

    fn form_request(&self) -> FormRequest<'_> {
        FormRequest::of(self.matched_route(), self.request.headers(), self.presence)
    }
}

fn explained(form: Result<ContentCoding, FormRefusal>) -> ExplainedEncoding {
    match form {
        Ok(coding) => ExplainedEncoding {
            coding: Some(coding.as_str()),
            means: "Hits are sent in this content coding.",
        },
        Err(refusal) => ExplainedEncoding { coding: None, means: refusal.description() },
    }
}
