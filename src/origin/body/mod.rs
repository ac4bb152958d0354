//! Bodies towards the origin and back.

mod client;
mod request;
mod response;
mod trailers;
mod upload;

pub use request::{RequestBody, RequestBodyError};
pub(super) use response::BodySource;
pub use response::{CompletionProof, ResponseBody, ResponseBodyError};
pub(super) use trailers::announced_trailers;
pub(super) use upload::BodyStart;
pub use upload::UploadProgress;
