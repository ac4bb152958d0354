//! What an operator sees: the metric catalogue and the access log.

mod access_log;
mod metrics;
mod process;

pub use access_log::{AccessLog, Format, Line};
pub use metrics::{Metrics, Observation, Reload, RouteMetrics};
