//! What a fetch brings to those who wait for it.

use std::sync::Arc;

use http::{HeaderMap, StatusCode, header};

use super::{
    failure,
    fill::Fill,
    lookup::{self, Stored},
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
        cache_status::{Collapsed, Stored as Stores},
        stale::Outage,
    },
    route::VaryRule,
    store::OriginFailure,
};

/// How a fetch ended, for those who wait for it.
#[derive(Clone)]
pub enum Landing {
    /// A response that is being stored; its body may still be on its way.
    Arriving(Arc<Arriving>),
    /// What is stored may be used after all.
    Settled(Settled),
    /// The response belongs to the one who asked. The others ask for themselves.
    Alone,
    /// The origin failed.
    Failed(Failure),
}

/// How a fetch failed, for all who wait for it.
#[derive(Clone)]
pub struct Failure {
    /// What happened.
    pub cause: Cause,
    /// How the origin failed, as far as it decides about stale responses.
    pub outage: Outage,
    /// The error response, if others than its client may have it.
    pub response: Option<Arc<Arriving>>,
    /// Whether one of those who wait tries once more, for all others.
    pub again: Again,
}

/// Why a fetch brought nothing to store.
#[derive(Clone)]
pub enum Cause {
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
pub enum Again {
    /// By one of those who wait.
    Once,
    /// By none of them.
    No,
}

impl Failure {
    /// The failure of another node's fetch.
    pub fn elsewhere(failure: OriginFailure) -> Self {
        let OriginFailure { status, retry_after, is_disconnected } = failure;
        let reason = Reason::OriginError;
        let outage = if is_disconnected { Outage::Disconnected } else { Outage::Error };
        let cause = Cause::Response { status, retry_after, reason };
        Self { cause, outage, response: None, again: Again::No }
    }

    /// The failure for which a stale response was served to another request.
    pub fn bridged(settled: &Settled) -> Self {
        let status = settled.origin_status.unwrap_or(StatusCode::BAD_GATEWAY);
        let is_disconnected = settled.reason == Some(Reason::StaleIfDisconnected);
        let retry_after = None;
        Self::elsewhere(OriginFailure { status, retry_after, is_disconnected })
    }

    /// The same for other nodes.
    pub fn for_others(&self) -> OriginFailure {
        let is_disconnected = self.outage == Outage::Disconnected;
        let (status, retry_after) = match &self.cause {
            // They may have connections to spare.
            Cause::Error(error) => (failure::of_origin(error).status, None),
            Cause::Response { status, retry_after, .. } => (*status, *retry_after),
        };
        OriginFailure { status, retry_after, is_disconnected }
    }

    /// The status that the origin sent.
    pub fn origin_status(&self) -> Option<StatusCode> {
        match self.cause {
            Cause::Error(_) => None,
            Cause::Response { status, .. } => Some(status),
        }
    }
}

/// A response on its way to the store and to all who wait for it.
pub struct Arriving {
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
    pub fill: Arc<Fill>,
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
pub type Variant = (VarySet, Vec<u8>);

/// A stored response that a fetch allowed to use.
#[derive(Clone)]
pub struct Settled {
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

impl Arriving {
    /// Whether this response answers a request with these fields (RFC 9111 §4.1).
    pub fn answers(&self, rule: &VaryRule, headers: &HeaderMap) -> bool {
        let language = self.headers.get(header::CONTENT_LANGUAGE);
        let same = |(set, values): &Variant| {
            lookup::selecting(set, rule, headers) == *values
                && !language.is_some_and(|language| is_second(set, headers, language.as_bytes()))
        };
        self.variant.as_ref().is_none_or(same)
    }
}

/// Whether the language is another one than a request with these fields would be answered in.
fn is_second(set: &VarySet, headers: &HeaderMap, language: &[u8]) -> bool {
    set.contains(&header::ACCEPT_LANGUAGE) && vary::comes_second(headers, language)
}

impl Settled {
    /// A response that somebody else has stored in the meantime.
    pub fn found(stored: &Stored) -> Self {
        let response = Arc::clone(&stored.response);
        let (result, collapsed) = (CacheResult::Hit, Collapsed::No);
        Self { response, result, reason: None, origin_status: None, collapsed }
    }

    /// A stale response in the place of an origin that fails; `origin_status` is what it answered.
    pub fn bridging(
        response: &Arc<StoredResponse>,
        reason: Reason,
        origin_status: Option<StatusCode>,
    ) -> Self {
        let (result, reason) = (CacheResult::Stale, Some(reason));
        let (response, collapsed) = (Arc::clone(response), Collapsed::No);
        Self { response, result, reason, origin_status, collapsed }
    }

    /// Whether this is what stands under a key: not a variant, where the key is that of all.
    pub fn stands_under(&self, key: &CacheKey) -> bool {
        self.response.key_text() == key.text()
    }

    /// Whether it is in another language than a request with these fields would be answered in.
    pub fn comes_second(&self, headers: &HeaderMap) -> bool {
        let language = self.response.fields();
        language.first("content-language").is_some_and(|it| vary::comes_second(headers, it))
    }

    /// Whether the fleet's store has what the fetch was to bring.
    pub fn is_stored(&self) -> bool {
        self.result == CacheResult::Revalidated || self.collapsed == Collapsed::Yes
    }

    /// A response that another node has fetched and stored while this one waited.
    pub fn fetched_elsewhere(stored: &Stored, result: CacheResult) -> Self {
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
            let cause = Cause::Error(Arc::new(error));
            let (outage, again) = (Outage::Error, Again::No);
            let failed = Failure { cause, outage, response: None, again };
            let told = failed.for_others();
            assert_eq!((told.status.as_u16(), told.retry_after), (status, None));
        }
    }
}
