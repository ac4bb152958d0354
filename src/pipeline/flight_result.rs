//! What a fetch brings to those who wait for it.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};

use super::{
    lookup::{self, StoredMatch},
    problems,
    tee::TeeBody,
};
use crate::{
    entry::StoredResponse,
    key::{
        CacheKey,
        vary::{self, VarySet},
    },
    origin::OriginError,
    policy::{
        CacheResult, Freshness, Reason,
        cache_status::{Collapsed, StoreDecision as Stores},
        stale::Outage,
    },
    route::VaryRule,
    store::OriginFailure,
};

/// How a fetch ended, for those who wait for it.
#[derive(Clone)]
pub(super) enum FlightResult {
    /// A response that is being stored; its body may still be on its way.
    Streaming(Arc<StreamingResponse>),
    /// What is stored may be used after all.
    Reused(ReusedResponse),
    /// The response belongs to the one who asked. The others ask for themselves.
    NotShared,
    /// The origin failed.
    Failed(FetchFailure),
}

/// How a fetch failed, for all who wait for it.
#[derive(Clone)]
pub(super) struct FetchFailure {
    /// What happened.
    pub cause: FailureCause,
    /// How the origin failed, as far as it decides about stale responses.
    pub outage: Outage,
    /// The error response, if others than its client may have it.
    pub response: Option<Arc<StreamingResponse>>,
    /// Whether one of those who wait tries once more, for all others.
    pub retry: Retry,
}

/// Why a fetch brought nothing to store.
#[derive(Clone)]
pub(super) enum FailureCause {
    /// There was no response.
    Error(Arc<OriginError>),
    /// The response was an error.
    Response {
        /// Its status.
        status: StatusCode,
        /// Its `Retry-After`, in seconds.
        retry_after: Option<u32>,
        /// Why it is not stored, or not shared.
        reason: Reason,
    },
}

/// Whether a failed fetch is tried once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// By one of those who wait.
    Once,
    /// By none of them.
    No,
}

impl FetchFailure {
    /// The failure of another node's fetch.
    pub(super) fn of_other_node(failure: OriginFailure) -> Self {
        let OriginFailure { status, retry_after, is_disconnected } = failure;
        let reason = Reason::OriginError;
        let outage = if is_disconnected { Outage::Disconnected } else { Outage::Error };
        let cause = FailureCause::Response { status, retry_after, reason };
        Self { cause, outage, response: None, retry: Retry::No }
    }

    /// The failure for which a stale response was served to another request.
    pub(super) fn behind_stale(reused: &ReusedResponse) -> Self {
        let status = reused.origin_status.unwrap_or(StatusCode::BAD_GATEWAY);
        let is_disconnected = reused.reason == Some(Reason::StaleIfDisconnected);
        let retry_after = None;
        Self::of_other_node(OriginFailure { status, retry_after, is_disconnected })
    }

    /// The same for other nodes.
    pub(super) fn for_other_nodes(&self) -> OriginFailure {
        let is_disconnected = self.outage == Outage::Disconnected;
        let (status, retry_after) = match &self.cause {
            // They may have connections to spare.
            FailureCause::Error(error) => (problems::origin_error(error).status, None),
            FailureCause::Response { status, retry_after, .. } => (*status, *retry_after),
        };
        OriginFailure { status, retry_after, is_disconnected }
    }

    /// The status that the origin sent.
    pub(super) fn origin_status(&self) -> Option<StatusCode> {
        match self.cause {
            FailureCause::Error(_) => None,
            FailureCause::Response { status, .. } => Some(status),
        }
    }
}

/// A response on its way to the store and to all who wait for it.
pub(super) struct StreamingResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its header section as stored: nothing in it belongs to one client alone.
    pub headers: HeaderMap,
    /// How long it stays fresh.
    pub freshness: Freshness,
    /// Whether it is stored: that may be for its body to say.
    pub stored: Stores,
    /// Names by which it can be purged; none as long as some are still to be read out of its body.
    pub tags: Option<Box<[String]>>,
    /// Its body.
    pub tee: Arc<TeeBody>,
    /// Whom it answers, where it is one variant of several: the selecting fields and the canonical
    /// text of those in the request it was fetched with.
    pub variant: Option<Variant>,
    /// Whether cookies chose it, and only the route's `ttl` makes it fresh.
    pub by_cookies: bool,
    /// What its readers find in `X-API-Cache`.
    pub result: CacheResult,
    /// Why it is not stored, if it is only shared among those who wait.
    pub refusal: Option<Reason>,
}

/// A set of selecting fields, and the canonical text of a request's values for them.
pub(super) type Variant = (VarySet, Vec<u8>);

/// A stored response that a fetch allowed to use.
#[derive(Clone)]
pub(super) struct ReusedResponse {
    /// The stored response.
    pub response: Arc<StoredResponse>,
    /// `Revalidated` or `Stale`.
    pub result: CacheResult,
    /// Why it is used although it is stale.
    pub reason: Option<Reason>,
    /// What the origin answered, if it did.
    pub origin_status: Option<StatusCode>,
    /// Whether another node has fetched it.
    pub collapsed: Collapsed,
}

impl StreamingResponse {
    /// Whether this response answers a request with these fields (RFC 9111 §4.1).
    pub(super) fn answers(&self, rule: &VaryRule, headers: &HeaderMap) -> bool {
        let language = self.headers.get(header::CONTENT_LANGUAGE);
        let same = |(set, values): &Variant| {
            lookup::selecting_values(set, rule, headers) == *values
                && !language
                    .is_some_and(|language| is_in_other_language(set, headers, language.as_bytes()))
        };
        self.variant.as_ref().is_none_or(same)
    }
}

/// Whether the language is another one than a request with these fields would be answered in.
fn is_in_other_language(set: &VarySet, headers: &HeaderMap, language: &[u8]) -> bool {
    set.contains(&header::ACCEPT_LANGUAGE) && vary::ties_with_earlier_language(headers, language)
}

impl ReusedResponse {
    /// A response that somebody else has stored in the meantime.
    pub(super) fn found(stored: &StoredMatch) -> Self {
        let response = Arc::clone(&stored.response);
        let (result, collapsed) = (CacheResult::Hit, Collapsed::No);
        Self { response, result, reason: None, origin_status: None, collapsed }
    }

    /// A stale response in the place of an origin that fails; `origin_status` is what it answered.
    pub(super) fn stale_on_error(
        response: &Arc<StoredResponse>,
        reason: Reason,
        origin_status: Option<StatusCode>,
    ) -> Self {
        let (result, reason) = (CacheResult::Stale, Some(reason));
        let (response, collapsed) = (Arc::clone(response), Collapsed::No);
        Self { response, result, reason, origin_status, collapsed }
    }

    /// Whether this is what stands under a key: not a variant, where the key is that of all.
    pub(super) fn is_stored_at(&self, key: &CacheKey) -> bool {
        self.response.key_text() == key.text()
    }

    /// Whether it is in another language than a request with these fields would be answered in.
    pub(super) fn ties_with_earlier_language(&self, headers: &HeaderMap) -> bool {
        let language = self.response.fields();
        language
            .first("content-language")
            .is_some_and(|it| vary::ties_with_earlier_language(headers, it))
    }

    /// Whether the fleet's store has what the fetch was to bring.
    pub(super) fn is_stored(&self) -> bool {
        self.result == CacheResult::Revalidated || self.collapsed == Collapsed::Yes
    }

    /// A response that another node has fetched and stored while this one waited.
    pub(super) fn fetched_by_other_node(stored: &StoredMatch, result: CacheResult) -> Self {
        Self { result, collapsed: Collapsed::Yes, ..Self::found(stored) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_nodes_learn_the_status_that_clients_of_this_one_get() {
        let server = || "a".into();
        for (error, status) in [
            (OriginError::Overloaded { server: server(), limit: 1 }, 503),
            (OriginError::FirstByteTimeout { server: server() }, 504),
            (OriginError::NoHealthyServer, 502),
        ] {
            let cause = FailureCause::Error(Arc::new(error));
            let (outage, retry) = (Outage::Error, Retry::No);
            let failed = FetchFailure { cause, outage, response: None, retry };
            let reported = failed.for_other_nodes();
            assert_eq!((reported.status.as_u16(), reported.retry_after), (status, None));
        }
    }
}
