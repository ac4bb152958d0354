//! Reading what is sent to Larder itself: whole, within a limit, and within a budget for all at once.

use std::{collections::HashMap, iter, net::IpAddr, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::{
    problem::Problem,
    server::{BodyError, BodyLimits, Limited},
};

/// The largest body that Larder reads for itself, in bytes.
pub const LARGEST: usize = 1 << 20;

/// How long a body may take altogether.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of all bodies that are held at the same time.
const ALL: usize = 16 * LARGEST;

/// The part of them that callers may use who have proven nothing yet.
const UNPROVEN: usize = 12 * LARGEST;

/// The part that unproven callers of one webhook may use.
const ONE_WEBHOOK: usize = 4 * LARGEST;

/// The part that one unproven client may use.
const ONE_CLIENT: usize = 2 * LARGEST;

/// A budget in bytes for all bodies that are held at the same time.
///
/// Callers whose body is the proof, as with signatures, have a part of it, and in that each webhook and each
/// client another one: bodies that never end stop nobody else's.
#[derive(Debug, Clone, Default)]
pub struct Intake {
    held: Arc<Mutex<HeldBytes>>,
}

#[derive(Debug, Default)]
struct HeldBytes {
    all: usize,
    unproven: usize,
    by: HashMap<Part, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Webhook(Box<str>),
    Client(IpAddr),
}

/// Whose body is read.
#[derive(Debug, Clone)]
pub enum Sender<'a> {
    /// Someone who has proven to be allowed to send it.
    Proven,
    /// Someone who delivers to this webhook, from this address, and has proven nothing yet.
    Unproven(&'a str, Option<IpAddr>),
}

/// A body that was read, and the part of the budget that it takes.
#[derive(Debug)]
pub struct Held {
    bytes: Vec<u8>,
    parts: Option<Vec<Part>>,
    intake: Intake,
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

impl Intake {
    /// Reads a body to its end. `silence` is how long it may pause.
    pub async fn read<B>(
        &self,
        body: B,
        silence: Duration,
        sender: Sender<'_>,
    ) -> Result<Held, Unread>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if body.size_hint().lower() > LARGEST as u64 {
            return Err(Unread::TooLarge);
        }
        let held = Held { bytes: Vec::new(), parts: sender.parts(), intake: self.clone() };
        let limited = Limited::new(body, BodyLimits { bytes: LARGEST as u64, silence });
        tokio::time::timeout(PATIENCE, held.read(limited)).await.unwrap_or(Err(Unread::Slow))
    }
}

impl Sender<'_> {
    /// The parts of the budget that the body is counted in as well; `None` for none.
    fn parts(&self) -> Option<Vec<Part>> {
        match self {
            Self::Proven => None,
            Self::Unproven(webhook, client) => {
                let client = client.iter().copied().map(Part::Client);
                Some(iter::once(Part::Webhook((*webhook).into())).chain(client).collect())
            }
        }
    }
}

impl Part {
    const fn limit(&self) -> usize {
        match self {
            Self::Webhook(_) => ONE_WEBHOOK,
            Self::Client(_) => ONE_CLIENT,
        }
    }
}

impl HeldBytes {
    fn take(&mut self, bytes: usize, parts: Option<&[Part]>) -> Result<(), Unread> {
        let is_unproven = parts.is_some();
        let parts = parts.unwrap_or_default();
        let has_room = |part: &Part| self.by.get(part).unwrap_or(&0) + bytes <= part.limit();
        let has_room = self.all + bytes <= ALL
            && (!is_unproven || self.unproven + bytes <= UNPROVEN)
            && parts.iter().all(has_room);
        if !has_room {
            return Err(Unread::Busy);
        }
        self.all += bytes;
        self.unproven += if is_unproven { bytes } else { 0 };
        for part in parts {
            *self.by.entry(part.clone()).or_default() += bytes;
        }
        Ok(())
    }

    fn give_back(&mut self, bytes: usize, parts: Option<&[Part]>) {
        self.all -= bytes;
        self.unproven -= if parts.is_some() { bytes } else { 0 };
        for part in parts.unwrap_or_default() {
            if let Some(held) = self.by.get_mut(part) {
                *held -= bytes;
                if *held == 0 {
                    self.by.remove(part);
                }
            }
        }
    }
}

impl Held {
    async fn read<B>(mut self, mut body: Limited<B>) -> Result<Self, Unread>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        while let Some(frame) = body.frame().await {
            if let Ok(chunk) = frame.map_err(Unread::from)?.into_data() {
                self.push(&chunk)?;
            }
        }
        Ok(self)
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), Unread> {
        self.intake.held.lock().take(chunk.len(), self.parts.as_deref())?;
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.intake.held.lock().give_back(self.bytes.len(), self.parts.as_deref());
    }
}

impl Deref for Held {
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

    const SENDER: Sender<'_> = Sender::Unproven("shop", None);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn held(intake: &Intake, bytes: usize, sender: Sender<'_>) -> Result<Held, Unread> {
        intake.read(Full::from(vec![0; bytes]), SILENCE, sender).await
    }

    #[tokio::test]
    async fn a_body_is_read_whole_and_gives_its_room_back() {
        let intake = Intake::default();
        let body = intake.read(Full::from("12345"), SILENCE, SENDER).await.unwrap();
        assert_eq!(&*body, b"12345");
        assert_eq!(intake.held.lock().all, 5);
        drop(body);
        let held = intake.held.lock();
        assert_eq!((held.all, held.unproven, held.by.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn neither_one_client_nor_one_webhook_stops_others() {
        let intake = Intake::default();
        let from = |last| Sender::Unproven("shop", Some(address(last)));
        let mut all = Vec::new();
        for client in [1, 1, 2, 2] {
            all.push(held(&intake, LARGEST, from(client)).await.unwrap());
        }
        assert_eq!(held(&intake, 1, from(3)).await.unwrap_err(), Unread::Busy, "one webhook");
        let other = |last| Sender::Unproven("crm", Some(address(last)));
        assert_eq!(held(&intake, 1, other(1)).await.unwrap_err(), Unread::Busy, "one client");
        assert!(held(&intake, LARGEST, other(3)).await.is_ok());
        for (n, name) in [(4, "a"), (5, "a"), (6, "b"), (7, "b")] {
            for _ in 0..2 {
                let sender = Sender::Unproven(name, Some(address(n)));
                all.push(held(&intake, LARGEST, sender).await.unwrap());
            }
        }
        assert_eq!(held(&intake, 1, other(8)).await.unwrap_err(), Unread::Busy, "the unproven");
        assert!(held(&intake, LARGEST, Sender::Proven).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused_announced_or_not() {
        let intake = Intake::default();
        let announced = Full::from(vec![0; LARGEST + 1]);
        assert_eq!(intake.read(announced, SILENCE, SENDER).await.unwrap_err(), Unread::TooLarge);
        let half = || Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; LARGEST / 2 + 1])));
        let streamed = StreamBody::new(stream::iter([half(), half()]));
        assert_eq!(intake.read(streamed, SILENCE, SENDER).await.unwrap_err(), Unread::TooLarge);
        let broken = StreamBody::new(stream::iter([half(), Err(std::io::Error::other("gone"))]));
        assert_eq!(intake.read(broken, SILENCE, SENDER).await.unwrap_err(), Unread::Incomplete);
        assert_eq!(intake.held.lock().all, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let drip = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let endless = StreamBody::new(Box::pin(drip));
        assert_eq!(
            Intake::default().read(endless, SILENCE, SENDER).await.unwrap_err(),
            Unread::Slow
        );
    }
}
