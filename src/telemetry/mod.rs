//! Observability: the metric catalogue, the access log, and log output.

mod access_log;
mod catalogue;
mod encoding;
mod feed;
mod leaks;
pub(crate) mod log;
mod metrics;
mod process;
mod purging;
mod requests;
mod store;
mod trigger;
mod user;
mod verification;

pub(crate) use access_log::{AccessLog, AccessLogEncoding, AccessLogEntry};
pub(crate) use encoding::EncodingResult;
pub use metrics::Metrics;
pub(crate) use metrics::{ReloadResult, RequestObservation, RouteMetrics};
pub(crate) use store::{DropCause, StoreMetrics, StoreOperation, StoreOperationOutcome};
pub(crate) use user::JwksMetrics;
