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

pub use access_log::{AccessLog, Format, Line};
pub use feed::FeedMetrics;
pub use metrics::{Metrics, Observation, Reload, RouteMetrics};
pub use purging::Purging;
pub use store::{Dropped, Operation, Outcome, StoreMetrics};
pub use trigger::TriggerMetrics;
pub use user::JwksMetrics;
