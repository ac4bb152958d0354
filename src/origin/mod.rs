//! The origin: connections, balancing, health checks and retries.

mod attempt;
mod balance;
mod capacity;
mod connect;
mod connections;
mod content_length;
pub(crate) mod document;
pub(crate) mod document_url;
mod error;
mod health;
mod http1;
mod http2;
mod origin_request;
mod outlier;
mod pool;
mod reactor;
mod request_body;
mod resolve;
mod response_body;
mod response_guard;
mod server;
pub(crate) mod settings;
mod tls;
pub(crate) mod upgrade;
mod waiters;

pub use balance::Origin;
pub(crate) use balance::SetupError;
pub(crate) use capacity::ConnectionStats;
pub use error::{OriginError, UploadFailure};
pub(crate) use error::{RequestDelivery, SendFailure};
#[cfg(fuzzing)]
pub use http1::fuzzed;
pub use origin_request::OriginRequest;
pub use request_body::RequestBody;
pub(crate) use request_body::UploadProgress;
pub use response_body::ResponseBody;
pub(crate) use response_body::{CompletionProof, ReadAheadOutcome, ResponseBodyError};
pub(crate) use settings::HostHeader;
pub use settings::{ConnectionLimits, ServerUrl, Settings};
