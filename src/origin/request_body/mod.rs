//! Request bodies: empty, in memory, or streamed from the client.

mod body;
mod client;
mod trailers;
mod upload;

pub use body::RequestBody;
pub(super) use client::RequestBodyError;
pub(super) use trailers::announced_trailers;
pub(crate) use upload::UploadProgress;
pub(super) use upload::{BodyStart, UPLOAD_GRACE};
