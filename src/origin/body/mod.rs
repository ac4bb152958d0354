//! Request bodies: empty, in memory, or streamed from the client.

mod client;
mod request;
mod response;
mod trailers;
mod upload;

pub use request::RequestBody;
pub(crate) use request::RequestBodyError;
pub(super) use response::BodySource;
pub use response::ResponseBody;
pub(super) use trailers::announced_trailers;
pub(super) use upload::BodyStart;
pub use upload::UploadProgress;
pub(crate) use {response::CompletionProof, response::ResponseBodyError};
