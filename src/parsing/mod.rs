//! Parses JSON from clients and origins within a memory limit.
//!
//! While a document is parsed, it takes up to a hundred times its size. Long documents are
//! therefore parsed one at a time, on a separate thread.

mod canonical;
mod vocabulary;

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;

pub use canonical::{NotCanonical, canonical};
pub(crate) use vocabulary::is_common_name;

/// Maximum estimated size of a parsed document in memory. Larger documents are rejected.
const MAX_MEMORY_BYTES: usize = 40 << 20;

/// A queue for long documents: one is parsed at a time in the process.
#[derive(Debug, Clone)]
pub(crate) struct ParseQueue(Arc<Semaphore>);

/// Why a document was not parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// The document is not JSON, or nested too deeply.
    Malformed,
    TooLarge,
}

impl Default for ParseQueue {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl ParseQueue {
    /// Waits for the documents ahead in the queue, and runs `read` on a separate thread. Returns
    /// `None` if `read` panics.
    ///
    /// Other documents wait until `read` has returned, even if the future is dropped.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        read: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let reading = move || {
            let read = read();
            drop(turn);
            read
        };
        tokio::task::spawn_blocking(reading).await.ok()
    }
}

pub(crate) fn parse(json: &[u8]) -> Result<Value, ParseError> {
    if estimated_memory(json) > MAX_MEMORY_BYTES {
        return Err(ParseError::TooLarge);
    }
    serde_json::from_slice(json).map_err(|_| ParseError::Malformed)
}

/// Parses two documents that are needed together, within the limit for one.
pub(crate) fn parse_pair(one: &[u8], other: &[u8]) -> Result<(Value, Value), ParseError> {
    if estimated_memory(one) + estimated_memory(other) > MAX_MEMORY_BYTES {
        return Err(ParseError::TooLarge);
    }
    Ok((parse(one)?, parse(other)?))
}

/// Returns an upper bound of the memory that a parsed document takes, in bytes. The smallest
/// allocation of an object is a node of eleven entries; that of an array has room for four values.
fn estimated_memory(json: &[u8]) -> usize {
    let of = |byte: &u8| match byte {
        b'{' => 720,
        b'[' => 144,
        b',' => 64,
        b'"' => 16,
        _ => 1,
    };
    json.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_tiny_parts_is_too_heavy_and_an_ordinary_one_is_not() {
        let array =
            |part: &str| format!("[{}]", vec![part; (1 << 20) / (part.len() + 1)].join(","));
        for ordinary in [r#"{"id":12345,"name":"Smith"}"#, "1234", r#""text""#, "[1,2,3,4,5,6,7]"] {
            assert!(parse(array(ordinary).as_bytes()).is_ok(), "{ordinary}");
        }
        assert_eq!(parse(array(r#"{"a":0}"#).as_bytes()), Err(ParseError::TooLarge));
        assert_eq!(parse(b"{"), Err(ParseError::Malformed));
        assert_eq!(parse(b"[1]"), Ok(serde_json::json!([1])));
        let half = array(r#"{"a":0}"#)[..200 << 10].to_owned();
        assert_ne!(parse(half.as_bytes()), Err(ParseError::TooLarge));
        assert_eq!(parse_pair(half.as_bytes(), half.as_bytes()), Err(ParseError::TooLarge));
        assert_eq!(parse_pair(b"1", b"{"), Err(ParseError::Malformed));
    }

    #[tokio::test]
    async fn one_document_is_read_at_a_time_even_if_nobody_waits_for_it() {
        let queue = ParseQueue::default();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let first = queue.clone();
        let first = tokio::spawn(async move {
            let read = move || {
                let _ = begun.send(());
                released.recv()
            };
            first.run(read).await
        });
        has_begun.await.unwrap();
        first.abort();
        let mut second = Box::pin(queue.run(|| 2));
        assert!(futures_util::FutureExt::now_or_never(&mut second).is_none());
        release.send(()).unwrap();
        assert_eq!(second.await, Some(2));
        assert_eq!(queue.run(|| panic!("a reader's bug")).await, None::<()>);
        assert_eq!(queue.run(|| 3).await, Some(3), "a panic gives the turn back");
    }
}
