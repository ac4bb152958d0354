//! The end of a connection: reads what the client still sends, so that no response is lost.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// Maximum time to wait for the client to close, or to send more.
const MAX_SILENCE: Duration = Duration::from_secs(2);
/// Maximum time for which a closing connection is read.
const MAX_TIME: Duration = Duration::from_secs(30);
/// Maximum number of bytes that are read from a closing connection.
const MAX_BYTES: usize = 1024 * 1024;

/// Reads and discards what a client sends after the server has sent its last byte.
///
/// A socket that is closed while data is unread, or that receives data later, sends a reset. The
/// client then loses the part of the last response that has not arrived (RFC 9112 §9.6).
pub(super) struct Linger {
    silence: Pin<Box<Sleep>>,
    end: Instant,
    left: usize,
}

impl Linger {
    pub(super) fn new() -> Self {
        let silence = Box::pin(sleep(MAX_SILENCE));
        Self { silence, end: Instant::now() + MAX_TIME, left: MAX_BYTES }
    }

    /// Completes when the client closes, or when a limit is reached.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<()> {
        let mut scratch = [0; 4096];
        while self.left > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Pending => return self.silence.as_mut().poll(cx),
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buf.filled().len());
                    let until = self.end.min(Instant::now() + MAX_SILENCE);
                    self.silence.as_mut().reset(until);
                }
                Poll::Ready(_) => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Returns for how long a connection is read.
    async fn lingered(mut stream: DuplexStream) -> Duration {
        let (begun, mut linger) = (Instant::now(), Linger::new());
        poll_fn(|cx| linger.poll(cx, &mut stream)).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_waited_for_briefly_and_one_that_closes_not_at_all() {
        let (near, _silent) = duplex(100);
        assert_eq!(lingered(near).await.as_secs(), MAX_SILENCE.as_secs());
        let (near, far) = duplex(100);
        drop(far);
        assert_eq!(lingered(near).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_is_read_within_limits() {
        for (pause, length, expected) in [(1000, 1, 30), (10, 100_000, 0)] {
            let (near, mut far) = duplex(100_000);
            let sending = tokio::spawn(async move {
                loop {
                    sleep(Duration::from_millis(pause)).await;
                    if far.write_all(&vec![0; length]).await.is_err() {
                        return;
                    }
                }
            });
            assert_eq!(lingered(near).await.as_secs(), expected);
            sending.await.unwrap();
        }
    }
}
