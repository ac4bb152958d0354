//! Bodies towards the origin and back.

mod request;
mod response;

pub(super) use request::Hold;
pub use request::{RequestBody, RequestBodyError, Upload};
pub(super) use response::Source;
pub use response::{Complete, ResponseBody, ResponseBodyError};
