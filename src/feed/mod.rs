//! The feed: clients of the public listener hear what was purged, as far as they are shown.
//!
//! ```text
//! purge log ─► LogSource ─► Hub ─┬─► GET /_larder/events     each event as it comes
//!                                ├─► GET /_larder/sync       what came since some position
//! polls ─────────────────────────┴─► GET /_larder/version    how far it is
//! ```
//!
//! Nothing but tags that `[events]` shows leaves the house: no URL, no reason, no source. Tags with `{user}`
//! are shown to that user alone.

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
pub(crate) use source::LogSource;
pub use source::LogUpdate;
pub use {settings::CorsOrigins, settings::Settings, settings::TagPattern};
pub(crate) use {settings::InvalidCorsOrigin, settings::InvalidTagPattern};

use crate::{
    field::Timestamp,
    policy::Reason,
    telemetry::Metrics,
    user::{IdentifyFn, PartitionMember},
};

/// The body of what the feed answers; an event stream has no end.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What clients hear, and who listens.
pub struct Feed {
    hub: Arc<Hub>,
    versions: Box<dyn Fn() -> Vec<DataVersion> + Send + Sync>,
    now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    identify: Box<IdentifyFn>,
}

/// A data version that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataVersion {
    /// The name of its poll.
    pub name: Box<str>,
    /// The version; none where none has been seen yet.
    pub version: Option<Box<str>>,
    /// When it was first seen.
    pub changed_at: Option<Timestamp>,
}

impl Feed {
    /// A feed that has heard of no purge yet. Without settings nobody may listen. `versions` are the
    /// data versions now, and `now` is the clock that clients' times are held against.
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

    /// Shows users tags of their own: those whom a request proves to be from, by `identify`.
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

    /// Puts other settings in force. Listeners stay, unless there are none; where other tags are shown,
    /// those who come back later are told to begin anew.
    pub fn replace(&self, settings: Option<Settings>) {
        self.hub.replace(settings, (self.now)());
    }

    /// Tells what is heard of the purge log until that ends.
    pub async fn follow(&self, mut records: impl LogSource) {
        while let Some(update) = records.next().await {
            self.hub.publish(&update);
        }
    }

    /// Ends every event stream now and later, so that the node can end. Browsers come back to another.
    pub fn close(&self) {
        self.hub.close();
    }
}
