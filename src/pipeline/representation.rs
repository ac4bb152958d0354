//! Representation: the form in which a stored response is sent, as stored or in a content coding.

use std::iter;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::{
    coding::{self, CodingRefusal, ContentCoding, coded_tag, negotiation::AcceptedCodings},
    entry::{CodedBody, StoredResponse},
    field::{coding::accepts, presence::FieldPresence, range::IfRange},
    key::vary,
    route::Route,
};

/// A stored response in the form that a client receives.
#[derive(Clone, Copy)]
pub(super) struct Representation<'a> {
    pub stored: &'a StoredResponse,
    /// The body in a content coding; `None` if it is sent as stored.
    pub coded: Option<&'a CodedBody>,
}

/// The form that was chosen for a response.
pub(super) enum FormChoice<'a> {
    /// The form exists.
    Ready(Representation<'a>),
    /// The body has to be encoded in this coding.
    Missing(ContentCoding),
}

/// Why a request gets a response as stored, not in a content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormRefusal {
    /// The route does not encode responses.
    Off,
    /// The request does not accept a coding of the route, or prefers an unencoded body.
    NotAccepted,
    /// The request forbids encoding.
    NoTransform,
    /// The request is for a range of the response as stored.
    Range,
    /// The response cannot be encoded.
    Response(CodingRefusal),
    /// The encoded body was not smaller, or would not fit into memory.
    Excluded,
}

impl FormRefusal {
    /// Returns the reason as a sentence for operators.
    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Off => "The route does not encode.",
            Self::NotAccepted => {
                "`Accept-Encoding` lists no coding of the route, or prefers `identity`."
            }
            Self::NoTransform => "The request says `Cache-Control: no-transform`.",
            Self::Range => "The request is for a range of the body as stored.",
            Self::Response(refusal) => refusal.description(),
            Self::Excluded => {
                "The coded body was less than a tenth smaller, or did not fit into memory."
            }
        }
    }
}

/// The parts of a request that select a form.
#[derive(Clone, Copy)]
pub(super) struct FormRequest<'a> {
    pub headers: &'a HeaderMap,
    pub presence: FieldPresence,
    /// The codings that the request accepts. Not read on a route that does not encode.
    pub accepted: AcceptedCodings,
}

impl<'a> FormRequest<'a> {
    /// Returns the parts of a request to this route.
    #[inline]
    pub(super) fn of(route: &Route, headers: &'a HeaderMap, presence: FieldPresence) -> Self {
        let is_encoded = route.encodes() && presence.has(FieldPresence::ACCEPT_ENCODING);
        let accepted =
            if is_encoded { AcceptedCodings::of(headers) } else { AcceptedCodings::default() };
        Self { headers, presence, accepted }
    }
}

/// Chooses the form of a stored response for a request.
///
/// Costs one test on a route that does not encode.
#[inline]
pub(super) fn choose<'a>(
    route: &Route,
    request: FormRequest<'_>,
    stored: &'a StoredResponse,
) -> FormChoice<'a> {
    let as_stored = FormChoice::Ready(Representation { stored, coded: None });
    if !route.encodes() {
        return as_stored;
    }
    let Ok(coding) = coding_for(route, request, stored) else { return as_stored };
    match stored.forms.get(coding) {
        Some(coded) => FormChoice::Ready(Representation { stored, coded: Some(coded) }),
        None => FormChoice::Missing(coding),
    }
}

/// Returns the coding in which a request gets a stored response, or why it gets the response as
/// stored.
#[inline]
pub(super) fn coding_for(
    route: &Route,
    request: FormRequest<'_>,
    stored: &StoredResponse,
) -> Result<ContentCoding, FormRefusal> {
    let coding = negotiated(route, request)?;
    if !may_be_encoded(stored) {
        let refusal = stored.coding_refusal();
        return Err(refusal.map_or(FormRefusal::Excluded, FormRefusal::Response));
    }
    let coding = if request.presence.has(FieldPresence::RANGE) {
        coding_of_range(request.headers, stored, coding)?
    } else {
        coding
    };
    if stored.forms.is_excluded(coding) { Err(FormRefusal::Excluded) } else { Ok(coding) }
}

/// Returns the coding that a request prefers among those of its route. Fails if the response is to
/// be sent as stored.
#[inline]
pub(super) fn negotiated(
    route: &Route,
    FormRequest { headers, presence, accepted }: FormRequest<'_>,
) -> Result<ContentCoding, FormRefusal> {
    if !route.encodes() {
        return Err(FormRefusal::Off);
    }
    let coding = accepted.preferred(&route.encode).ok_or(FormRefusal::NotAccepted)?;
    let forbids =
        |value: &HeaderValue| coding::forbids_transforming(b"cache-control", value.as_bytes());
    if presence.has(FieldPresence::DIRECTIVES)
        && headers.get_all(header::CACHE_CONTROL).into_iter().any(forbids)
    {
        return Err(FormRefusal::NoTransform);
    }
    Ok(coding)
}

/// Returns the coding for a request with `Range`. Fails if the response is to be sent as stored.
///
/// A range is a part of the response as stored, unless `If-Range` names a form that this node has.
/// A request whose `If-Range` fails gets the complete response in the coding that it prefers.
fn coding_of_range(
    request: &HeaderMap,
    stored: &StoredResponse,
    preferred: ContentCoding,
) -> Result<ContentCoding, FormRefusal> {
    let Some(named) = request.get(header::IF_RANGE) else { return Err(FormRefusal::Range) };
    let mut fields = stored.fields().unpack(0);
    let is_of = |coding: ContentCoding| {
        let form = stored.forms.get(coding)?;
        let tag = coded_tag::suffixed(fields.get(header::ETAG), &form.tag_suffix)?;
        (tag == *named && accepts(request, Some(coding.as_str().as_bytes()))).then_some(coding)
    };
    if let Some(coding) = coded_tag::coding_of(named.as_bytes()).and_then(is_of) {
        return Ok(coding);
    }
    vary_by_coding(&mut fields);
    match IfRange::evaluate(request, &fields) {
        IfRange::Fails => Ok(preferred),
        IfRange::Holds => Err(FormRefusal::Range),
    }
}

/// Returns whether some requests may get a stored response in a content coding.
fn may_be_encoded(stored: &StoredResponse) -> bool {
    stored.forms.may_be_made(|| stored.coding_refusal().is_none())
}

impl<'a> Representation<'a> {
    /// Returns the body in this coding (`None`: as stored), if it was made.
    pub(super) fn of(stored: &'a StoredResponse, coding: Option<ContentCoding>) -> Option<Self> {
        let coded = match coding {
            None => None,
            Some(coding) => Some(&**stored.forms.get(coding)?),
        };
        Some(Self { stored, coded })
    }
}

impl Representation<'_> {
    /// Returns the coding of the body; `None` if it is sent as stored.
    pub(super) fn coding(&self) -> Option<ContentCoding> {
        self.coded.map(|coded| coded.coding)
    }

    /// Returns the body, without a copy.
    pub(super) fn body(&self) -> Bytes {
        self.coded.map_or_else(|| self.stored.body(), |coded| coded.bytes.clone())
    }

    /// Returns the body as borrowed bytes.
    pub(super) fn body_bytes(&self) -> &[u8] {
        self.coded.map_or_else(|| self.stored.body_bytes(), |coded| &coded.bytes)
    }

    pub(super) fn body_length(&self) -> u64 {
        self.coded.map_or_else(|| self.stored.body_length(), |coded| coded.bytes.len() as u64)
    }

    /// Changes the stored header section to that of this form.
    ///
    /// Adds `Vary`, since other requests get other forms.
    pub(super) fn describe(&self, route: &Route, headers: &mut HeaderMap) {
        if !route.encodes() {
            return;
        }
        if let Some(coded) = self.coded {
            if let Some(length) = headers.get_mut(header::CONTENT_LENGTH) {
                *length = HeaderValue::from(coded.bytes.len());
            }
            headers.insert(header::CONTENT_ENCODING, coded.coding.header_value());
            if let Some(tag) = coded_tag::suffixed(headers.get(header::ETAG), &coded.tag_suffix) {
                headers.insert(header::ETAG, tag);
            }
        }
        if may_be_encoded(self.stored) {
            vary_by_coding(headers);
        }
    }
}

/// Adds `Vary: Accept-Encoding` to a response that is to be stored with this header section, if
/// later requests may get it in a content coding. `length` is the length of its body, if known.
pub(super) fn announce_codings(
    route: &Route,
    (status, headers): (StatusCode, &mut HeaderMap),
    length: Option<u64>,
) {
    if !route.encodes() {
        return;
    }
    let fields = headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
    if coding::refusal(status, fields, length).is_none() {
        vary_by_coding(headers);
    }
}

fn vary_by_coding(headers: &mut HeaderMap) {
    vary::add_to_vary(headers, iter::once("Accept-Encoding"));
}
