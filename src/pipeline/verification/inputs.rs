//! The inputs of a response: digests of the parts of its request on which it may depend.

use std::{
    hash::{BuildHasher, Hash, Hasher, RandomState},
    net::IpAddr,
    sync::{LazyLock, OnceLock},
};

use http::{HeaderName, HeaderValue, header, request::Parts};
use quick_cache::sync::Cache;

use crate::{
    entry::ResponseId,
    policy::{CredentialRules, credentials::CookieKind},
};

/// A part of a request on which the response may depend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestInput {
    /// The credentials that identify the requester.
    Credentials,
    /// All cookies.
    Cookies,
    /// The query as sent.
    Query,
    /// `Accept-Language`.
    Language,
    /// `Accept` and `Accept-Encoding`.
    Accept,
    /// The client's address.
    Address,
    /// All other fields, except those that are new in each request.
    Fields,
}

impl RequestInput {
    /// All inputs, the most specific ones first.
    pub(super) const ALL: [Self; 7] = [
        Self::Credentials,
        Self::Cookies,
        Self::Query,
        Self::Language,
        Self::Accept,
        Self::Address,
        Self::Fields,
    ];

    /// Returns the spelling in reports.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Cookies => "cookies",
            Self::Query => "query",
            Self::Language => "language",
            Self::Accept => "accept",
            Self::Address => "address",
            Self::Fields => "fields",
        }
    }

    /// Returns the input to which a header field belongs; `None` if the field is ignored.
    fn of(name: &HeaderName, rules: &CredentialRules) -> Option<Self> {
        Some(match *name {
            header::AUTHORIZATION | header::PROXY_AUTHORIZATION => Self::Credentials,
            _ if rules.is_credential(name, &[]) => Self::Credentials,
            header::COOKIE => Self::Cookies,
            header::ACCEPT_LANGUAGE => Self::Language,
            header::ACCEPT | header::ACCEPT_ENCODING => Self::Accept,
            header::HOST
            | header::CONNECTION
            | header::CACHE_CONTROL
            | header::PRAGMA
            | header::RANGE
            | header::TE
            | header::VIA
            | header::DATE => return None,
            _ if is_per_request(name.as_str()) => return None,
            _ => Self::Fields,
        })
    }
}

/// Returns whether a header field has a different value in each request.
fn is_per_request(name: &str) -> bool {
    const PREFIXES: [&str; 5] = ["if-", "x-b3-", "sec-", "forwarded", "x-forwarded-"];
    const PARTS: [&str; 5] = ["request-id", "correlation-id", "trace", "span-id", "cf-ray"];
    const NAMES: [&str; 4] = ["referer", "content-length", "priority", "idempotency-key"];
    NAMES.contains(&name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || PARTS.iter().any(|part| name.contains(part))
}

/// The inputs of the request for which each response in shadow mode was stored.
#[derive(Default)]
pub(in crate::pipeline) struct RememberedInputs(OnceLock<Cache<usize, InputDigests>>);

/// Maximum number of stored responses whose inputs are remembered, at 72 bytes each.
const CAPACITY: usize = 16_384;

impl RememberedInputs {
    /// Remembers the inputs of the request for which a response was stored.
    pub(super) fn note(&self, response: ResponseId, inputs: InputDigests) {
        self.0.get_or_init(|| Cache::new(CAPACITY)).insert(response.number(), inputs);
    }

    /// Returns the inputs of the request for which a response was stored, if they are remembered.
    pub(super) fn of(&self, response: ResponseId) -> Option<InputDigests> {
        self.0.get()?.get(&response.number())
    }
}

/// Digests of the inputs of one request. Only digests of one process are comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InputDigests([u64; RequestInput::ALL.len()]);

/// The inputs in which two requests differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DifferingInputs(u8);

static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl InputDigests {
    /// Returns the digests of the inputs of a request.
    pub(super) fn of(request: &Parts, rules: &CredentialRules, peer: Option<IpAddr>) -> Self {
        let mut hashers = RequestInput::ALL.map(|_| STATE.build_hasher());
        let mut add = |input: RequestInput, parts: &[&[u8]]| {
            if let Some(hasher) = hashers.get_mut(input as usize) {
                parts.hash(hasher);
            }
        };
        for (name, value) in &request.headers {
            if let Some(input) = RequestInput::of(name, rules) {
                add(input, &[name.as_str().as_bytes(), value.as_bytes()]);
            }
        }
        let is_session = |kind| kind == Some(CookieKind::Session);
        for cookie in rules.cookies_of_kind(&request.headers, &[], is_session) {
            add(RequestInput::Credentials, &[cookie]);
        }
        add(RequestInput::Query, &[request.uri.query().unwrap_or_default().as_bytes()]);
        let address = peer.map(|peer| peer.to_string()).unwrap_or_default();
        let forwarded = request.headers.get("x-forwarded-for");
        let forwarded = forwarded.map(HeaderValue::as_bytes).unwrap_or_default();
        add(RequestInput::Address, &[address.as_bytes(), forwarded]);
        Self(hashers.map(|hasher| hasher.finish()))
    }

    /// Returns the inputs that differ from those of another request.
    pub(super) fn differing(self, other: Self) -> DifferingInputs {
        let pairs = self.0.iter().zip(other.0).enumerate();
        let bits = pairs.filter(|(_, (one, other))| *one != other).map(|(index, _)| 1 << index);
        DifferingInputs(bits.sum())
    }
}

impl DifferingInputs {
    /// Returns whether an input differs.
    pub(super) fn has(self, input: RequestInput) -> bool {
        self.0 & (1 << input as u8) != 0
    }

    /// Returns whether no input differs.
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the names of the inputs.
    pub(super) fn names(self) -> Vec<&'static str> {
        let differing = RequestInput::ALL.into_iter().filter(|input| self.has(*input));
        differing.map(RequestInput::as_str).collect()
    }
}
