//! Limits on request bodies, enforced while they stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// Limits on a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Maximum length of the body in bytes.
    pub bytes: u64,
    /// Maximum time to wait for the next bytes.
    pub idle_timeout: Duration,
}

impl Default for BodyLimits {
    /// Returns limits without a maximum length, with an idle timeout of one minute.
    fn default() -> Self {
        Self { bytes: u64::MAX, idle_timeout: Duration::from_mins(1) }
    }
}

/// The reason why a request body ended early.
#[derive(Debug, thiserror::Error)]
pub enum ClientBodyError {
    /// The body is larger than allowed: status 413.
    #[error("the request body exceeds the limit")]
    TooLarge,
    /// The client stopped sending: status 408.
    #[error("the client stopped sending the request body")]
    TimedOut,
    /// Reading from the client failed.
    #[error("the client's connection failed")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A body that fails if it exceeds its limits.
///
/// The server refuses requests with a `Content-Length` above the limit. Bodies without
/// `Content-Length` are limited only here.
pub struct LimitedBody<B> {
    body: B,
    left: u64,
    idle_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> LimitedBody<B> {
    /// Applies limits to a body.
    pub fn new(body: B, limits: BodyLimits) -> Self {
        Self { body, left: limits.bytes, idle_timeout: limits.idle_timeout, timer: None }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle_timeout = self.idle_timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_timeout)));
        timer.as_mut().poll(cx)
    }
}

impl<B> Body for LimitedBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            ready!(self.poll_idle(cx));
            return Poll::Ready(Some(Err(ClientBodyError::TimedOut)));
        };
        let idle_timeout = self.idle_timeout;
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + idle_timeout);
        }
        let Some(frame) = frame else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(|error| ClientBodyError::Client(error.into()))?;
        let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Some(Err(ClientBodyError::TooLarge))),
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_and_silent_bodies_are_cut_off() {
        let limits = BodyLimits { bytes: 4, idle_timeout: Duration::from_secs(5) };
        let four = LimitedBody::new(Full::new(Bytes::from_static(b"four")), limits);
        assert_eq!(four.collect().await.unwrap().to_bytes(), "four");
        let five = LimitedBody::new(Full::new(Bytes::from_static(b"fives")), limits);
        assert!(matches!(five.collect().await, Err(ClientBodyError::TooLarge)));
        let never = StreamBody::new(futures_util::stream::pending::<std::io::Result<_>>());
        assert!(matches!(
            LimitedBody::new(never, limits).collect().await,
            Err(ClientBodyError::TimedOut)
        ));
    }
}
