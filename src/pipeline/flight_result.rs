//! The result of a flight, as its followers receive it.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};

use super::{lookup::StoredMatch, problems, selecting_fields, tee::TeeBody};
use crate::{
    entry::StoredResponse,
    key::{
        CacheKey,
        vary::{self, VarySet},
    },
    origin::OriginError,
    policy::{
        CacheResult, Freshness, Reason,
        cache_status::{Collapsed, StoredStatus as Stores},
        stale::Outage,
    },
    route::AddedVary,
    store::OriginFailure,
};

/// The result of a flight, which its followers receive.
#[derive(Clone)]
pub(super) enum FlightResult {
    /// A response that is being stored. Its body may still be arriving.
    Streaming(Arc<StreamingResponse>),
    /// A stored response that may be used for the request.
    Reused(ReusedResponse),
    /// The response is only for its requester. Followers fetch for themselves.
    NotShared,
    /// The origin failed.
    Failed(FetchFailure),
}

/// A failed fetch, as followers receive it.
#[derive(Clone)]
pub(super) struct FetchFailure {
    pub cause: FailureCause,
    /// How the origin failed, which decides whether a stale response may be served.
    pub outage: Outage,
    /// The error response, if it may be shared.
    pub response: Option<Arc<StreamingResponse>>,
    /// Whether one follower retries for all.
    pub retry: Retry,
}

/// Why there is nothing to store after a fetch.
#[derive(Clone)]
pub(super) enum FailureCause {
    /// The origin gave no response.
    Error(Arc<OriginError>),
    Response {
        status: StatusCode,
        /// The response's `Retry-After`, in seconds.
        retry_after: Option<u32>,
        /// Why the response is not stored or not shared.
        reason: Reason,
    },
}

/// Whether a failed fetch is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// One follower retries.
    Once,
    /// No follower retries.
    No,
}

impl FetchFailure {
    /// Creates the failure of another node's fetch.
    pub(super) fn of_other_node(failure: OriginFailure) -> Self {
        let OriginFailure { status, retry_after, is_disconnected } = failure;
        let reason = Reason::OriginError;
        let outage = if is_disconnected { Outage::Disconnected } else { Outage::Error };
        let cause = FailureCause::Response { status, retry_after, reason };
        Self { cause, outage, response: None, retry: Retry::No }
    }

    /// Creates the failure that caused another request to be served this stale response.
    pub(super) fn behind_stale(reused: &ReusedResponse) -> Self {
        let status = reused.origin_status.unwrap_or(StatusCode::BAD_GATEWAY);
        let is_disconnected = reused.reason == Some(Reason::StaleIfDisconnected);
        let retry_after = None;
        Self::of_other_node(OriginFailure { status, retry_after, is_disconnected })
    }

    /// Returns the failure as other nodes receive it.
    pub(super) fn for_other_nodes(&self) -> OriginFailure {
        let is_disconnected = self.outage == Outage::Disconnected;
        let (status, retry_after) = match &self.cause {
            // Other nodes may have free connections.
            FailureCause::Error(error) => (problems::origin_error(error).status, None),
            FailureCause::Response { status, retry_after, .. } => (*status, *retry_after),
        };
        OriginFailure { status, retry_after, is_disconnected }
    }

    /// Returns the status that the origin sent; `None` if it gave no response.
    pub(super) fn origin_status(&self) -> Option<StatusCode> {
        match self.cause {
            FailureCause::Error(_) => None,
            FailureCause::Response { status, .. } => Some(status),
        }
    }
}

/// A response that is sent to the store and to all requests that share it.
pub(super) struct StreamingResponse {
    pub status: StatusCode,
    /// The header section as stored, without fields for one client only.
    pub headers: HeaderMap,
    pub freshness: Freshness,
    /// Whether the response is stored, as far as its head shows.
    pub stored: Stores,
    /// The purge tags; `None` until all of them have been read from the body.
    pub tags: Option<Box<[String]>>,
    pub tee: Arc<TeeBody>,
    /// The selecting fields and the request's values for them; `None` if the response is not a
    /// variant.
    pub variant: Option<Variant>,
    /// Whether cookies selected the response and its freshness comes from the route alone.
    pub by_cookies: bool,
    /// The value of `X-API-Cache` for readers of the response.
    pub result: CacheResult,
    /// Why the response is only shared and not stored; `None` if it is stored.
    pub refusal: Option<Reason>,
}

/// Selecting fields, and the canonical text of a request's values for them.
pub(super) type Variant = (VarySet, Vec<u8>);

/// A stored response that a fetch revalidated, or that is served stale.
#[derive(Clone)]
pub(super) struct ReusedResponse {
    pub response: Arc<StoredResponse>,
    /// `Revalidated` or `Stale`.
    pub result: CacheResult,
    /// Why the response is served although it is stale; `None` if it is fresh.
    pub reason: Option<Reason>,
    /// The origin's status, if it responded.
    pub origin_status: Option<StatusCode>,
    /// Whether another node fetched the response.
    pub collapsed: Collapsed,
}

impl StreamingResponse {
    /// Returns whether this response answers a request with these fields (RFC 9111 §4.1).
    pub(super) fn answers(&self, rule: &AddedVary, headers: &HeaderMap) -> bool {
        let language = self.headers.get(header::CONTENT_LANGUAGE);
        let same = |(set, values): &Variant| {
            selecting_fields::selecting_values(set, rule, headers) == *values
                && !language
                    .is_some_and(|language| is_in_other_language(set, headers, language.as_bytes()))
        };
        self.variant.as_ref().is_none_or(same)
    }
}

/// Returns whether the request accepts a language listed before this one with the same weight.
fn is_in_other_language(set: &VarySet, headers: &HeaderMap, language: &[u8]) -> bool {
    set.contains(&header::ACCEPT_LANGUAGE) && vary::ties_with_earlier_language(headers, language)
}

impl ReusedResponse {
    /// Creates the result for a response that was stored in the meantime.
    pub(super) fn found(stored: &StoredMatch) -> Self {
        let response = Arc::clone(&stored.response);
        let (result, collapsed) = (CacheResult::Hit, Collapsed::No);
        Self { response, result, reason: None, origin_status: None, collapsed }
    }

    /// Creates the result for a stale response that is served while the origin fails.
    /// `origin_status` is the origin's status.
    pub(super) fn stale_on_error(
        response: &Arc<StoredResponse>,
        reason: Reason,
        origin_status: Option<StatusCode>,
    ) -> Self {
        let (result, reason) = (CacheResult::Stale, Some(reason));
        let (response, collapsed) = (Arc::clone(response), Collapsed::No);
        Self { response, result, reason, origin_status, collapsed }
    }

    /// Returns whether the response is stored under exactly this key, and not under the key of a
    /// variant.
    pub(super) fn is_stored_at(&self, key: &CacheKey) -> bool {
        self.response.key_text() == key.text()
    }

    /// Returns whether a request with these fields may get a response in another language.
    pub(super) fn ties_with_earlier_language(&self, headers: &HeaderMap) -> bool {
        let language = self.response.fields();
        language
            .first("content-language")
            .is_some_and(|it| vary::ties_with_earlier_language(headers, it))
    }

    /// Returns whether the fleet's store has the response for which the fetch was made.
    pub(super) fn is_stored(&self) -> bool {
        self.result == CacheResult::Revalidated || self.collapsed == Collapsed::Yes
    }

    /// Creates the result for a response that another node fetched and stored while this node
    /// waited.
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
