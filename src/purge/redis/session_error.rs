//! The reasons why a session ended, and timeouts of replies.

use std::time::Duration;

use tokio::time::timeout;

/// The reason why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Redis(#[from] fred::error::Error),
    #[error("no reply after {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("unexpected reply format")]
    InvalidReply,
    /// Each new log had disappeared by the next view of the stream.
    #[error("each new log disappeared again")]
    LogNotStable,
}

/// Awaits a reply with a deadline, since the Redis client's own timeouts do not cover everything.
pub(super) async fn with_deadline<T>(
    deadline: Duration,
    reply: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    timeout(deadline, reply).await.unwrap_or(Err(SessionError::TimedOut(deadline)))
}
