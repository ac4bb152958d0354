//! What an operator sees: the metric catalogue and the access log.

mod access_log;
mod feed;
pub mod log;
mod metrics;
mod process;
mod purging;
mod store;
mod trigger;
mod user;

pub use access_log::{AccessLog, AccessLogEncoding, AccessLogEntry};
pub use feed::FeedMetrics;
pub use metrics::{Metrics, ReloadResult, RequestObservation, RouteMetrics};
pub use purging::PurgeMetrics;
pub use store::{DropCause, StoreMetrics, StoreOperation, StoreOperationOutcome};
pub use trigger::TriggerMetrics;
pub use user::JwksMetrics;
