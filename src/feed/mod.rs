//! The feed: event streams and documents of purges for clients of the public listener.
//!
//! ```text
//! purge log ─► LogSource ─► Hub ─┬─► GET /_larder/events     events as they happen
//!                                ├─► GET /_larder/sync       events since a position
//! polls ─────────────────────────┴─► GET /_larder/version    current position and data versions
//! ```
//!
//! Clients see only the tags allowed by `[events]`. They see no URLs, reasons or sources. Tags with
//! `{user}` are visible to that user only.

mod applied;
mod endpoint;
mod event;
mod hub;
mod listener;
mod position;
mod reader;
mod ring;
mod settings;
mod slots;
mod source;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, net::IpAddr, sync::Arc};

pub(crate) use applied::AppliedRecords;
use bytes::Bytes;
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use hub::Hub;
pub use reader::Caller;
pub(crate) use settings::InvalidTagPattern;
pub use settings::{CorsOrigins, Settings, TagPattern};
pub(crate) use source::LogSource;
pub use source::LogUpdate;

use crate::{
    field::Timestamp,
    policy::Reason,
    telemetry::Metrics,
    user::{IdentifyFn, PartitionMember},
};

/// The body of a response from the feed. The body of an event stream does not end.
pub(crate) type FeedBody = UnsyncBoxBody<Bytes, Infallible>;

/// The feed of a node: visible purge events, and the listeners that receive them.
pub struct Feed {
    hub: Arc<Hub>,
    versions: Box<dyn Fn() -> Vec<DataVersion> + Send + Sync>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    identify: Box<IdentifyFn>,
}

/// A polled data version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataVersion {
    /// The name of the poll.
    pub name: Box<str>,
    /// The version; `None` before the first successful poll.
    pub version: Option<Box<str>>,
    /// When the version was first seen.
    pub changed_at: Option<Timestamp>,
}

impl Feed {
    /// Creates a feed that follows no log yet. Without settings, the feed is disabled.
    ///
    /// `versions` returns the data versions. `now` returns the current time, with which times sent
    /// by clients are compared.
    pub fn new(
        settings: Option<Settings>,
        metrics: Arc<Metrics>,
        versions: impl Fn() -> Vec<DataVersion> + Send + Sync + 'static,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        let hub = Arc::new(Hub::new(settings, metrics));
        let identify = Box::new(|_: &HeaderMap, _| Err(Reason::NoIdentity));
        Self { hub, versions: Box::new(versions), now: Box::new(now), identify }
    }

    /// Makes the feed show users their own tags. `identify` authenticates requests.
    #[must_use]
    pub fn with_users(
        self,
        identify: impl Fn(&HeaderMap, Option<IpAddr>) -> Result<Arc<PartitionMember>, Reason>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self { identify: Box::new(identify), ..self }
    }

    /// Replaces the settings.
    ///
    /// Listeners stay connected unless the feed is disabled. If the visible tags change, clients
    /// that resume later receive a `reset`.
    pub fn replace(&self, settings: Option<Settings>) {
        self.hub.replace(settings, (self.now)());
    }

    /// Publishes the updates of a purge log until it ends.
    pub async fn follow(&self, mut records: impl LogSource) {
        while let Some(update) = records.next().await {
            self.hub.publish(&update);
        }
    }

    /// Ends all event streams and rejects new streams. Browsers reconnect to another node.
    pub fn close(&self) {
        self.hub.close();
    }
}
