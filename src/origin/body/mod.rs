//! Bodies towards the origin and back.

mod client;
mod request;
mod response;
mod trailers;
mod upload;

pub use request::{RequestBody, RequestBodyError};
pub(super) use response::Source;
pub use response::{Complete, ResponseBody, ResponseBodyError};
pub(super) use trailers::announced_trailers;
pub(super) use upload::Hold;
pub use upload::Upload;
