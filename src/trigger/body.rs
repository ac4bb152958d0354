//! Reading what is sent to Larder itself: whole, within a limit, and within a budget for all at once.

use std::{
    ops::Deref,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt;

use crate::{
    problem::Problem,
    server::{BodyError, BodyLimits, Limited},
};

/// The largest body that Larder reads for itself, in bytes.
pub const LARGEST: usize = 1 << 20;

/// How long a body may take altogether.
const PATIENCE: Duration = Duration::from_secs(10);

/// A budget in bytes for all bodies that are held at the same time, so that nobody fills the memory
/// with what he need not sign to send.
#[derive(Debug)]
pub struct Intake {
    left: AtomicUsize,
}

/// A body that was read, and the part of the budget that it takes.
#[derive(Debug)]
pub struct Held<'a> {
    bytes: Vec<u8>,
    intake: &'a Intake,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is larger than [`LARGEST`]: 413.
    TooLarge,
    /// It did not come in time: 408.
    Slow,
    /// It ended early: 400.
    Incomplete,
    /// The budget is used up: 503.
    Busy,
}

impl Default for Intake {
    /// Room for 16 of the largest bodies.
    fn default() -> Self {
        Self { left: AtomicUsize::new(16 * LARGEST) }
    }
}

impl Intake {
    /// Reads a body to its end. `silence` is how long it may pause.
    pub async fn read<B>(&self, body: B, silence: Duration) -> Result<Held<'_>, Unread>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if body.size_hint().lower() > LARGEST as u64 {
            return Err(Unread::TooLarge);
        }
        let reading =
            self.read_all(Limited::new(body, BodyLimits { bytes: LARGEST as u64, silence }));
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or(Err(Unread::Slow))
    }

    async fn read_all<B>(&self, mut body: Limited<B>) -> Result<Held<'_>, Unread>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut held = Held { bytes: Vec::new(), intake: self };
        while let Some(frame) = body.frame().await {
            if let Ok(chunk) = frame.map_err(Unread::from)?.into_data() {
                held.push(&chunk)?;
            }
        }
        Ok(held)
    }
}

impl Held<'_> {
    fn push(&mut self, chunk: &[u8]) -> Result<(), Unread> {
        let take = |left: usize| left.checked_sub(chunk.len());
        let left = &self.intake.left;
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).map_err(|_| Unread::Busy)?;
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.intake.left.fetch_add(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Deref for Held<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<BodyError> for Unread {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge,
            BodyError::Silent => Self::Slow,
            BodyError::Client(_) => Self::Incomplete,
        }
    }
}

impl Unread {
    /// What the sender is told.
    pub fn problem(self) -> Problem {
        let (status, title, detail) = match self {
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "Body too large", "At most 1 MiB is read.")
            }
            Self::Slow => (
                StatusCode::REQUEST_TIMEOUT,
                "Body too slow",
                "The body did not arrive in time; send it again.",
            ),
            Self::Incomplete => (
                StatusCode::BAD_REQUEST,
                "Body incomplete",
                "The body ended before it was complete; send it again.",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too busy",
                "Too much is being sent at the same time; send it again in a moment.",
            ),
        };
        Problem::new(status, title, detail)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    const SILENCE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_body_is_read_whole_and_gives_its_room_back() {
        let intake = Intake { left: AtomicUsize::new(8) };
        let held = intake.read(Full::from("12345"), SILENCE).await.unwrap();
        assert_eq!(&*held, b"12345");
        assert_eq!(intake.read(Full::from("1234"), SILENCE).await.unwrap_err(), Unread::Busy);
        drop(held);
        assert_eq!(&*intake.read(Full::from("12345678"), SILENCE).await.unwrap(), b"12345678");
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused_announced_or_not() {
        let intake = Intake::default();
        let announced = Full::from(vec![0; LARGEST + 1]);
        assert_eq!(intake.read(announced, SILENCE).await.unwrap_err(), Unread::TooLarge);
        let half = || Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; LARGEST / 2 + 1])));
        let streamed = StreamBody::new(stream::iter([half(), half()]));
        assert_eq!(intake.read(streamed, SILENCE).await.unwrap_err(), Unread::TooLarge);
        let broken = StreamBody::new(stream::iter([half(), Err(std::io::Error::other("gone"))]));
        assert_eq!(intake.read(broken, SILENCE).await.unwrap_err(), Unread::Incomplete);
        assert_eq!(intake.left.load(Ordering::Relaxed), 16 * LARGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let drip = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let endless = StreamBody::new(Box::pin(drip));
        assert_eq!(Intake::default().read(endless, SILENCE).await.unwrap_err(), Unread::Slow);
    }
}
