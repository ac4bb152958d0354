//! Reads request bodies for Larder's own endpoints, with a limit for each body and a total budget.

use std::{collections::HashMap, iter, net::IpAddr, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::{
    problem::Problem,
    server::{BodyLimits, ClientBodyError, LimitedBody},
};

/// The size limit of a body, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;

/// The time limit for reading a whole body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The byte budget of all bodies held at the same time.
const TOTAL_BYTES: usize = 16 * MAX_BODY_BYTES;

/// The part of the budget for unauthenticated callers.
const UNAUTHENTICATED_BYTES: usize = 12 * MAX_BODY_BYTES;

/// The part of the budget for unauthenticated callers of one webhook.
const BYTES_PER_WEBHOOK: usize = 4 * MAX_BODY_BYTES;

/// The part of the budget for one unauthenticated client.
const BYTES_PER_CLIENT: usize = 2 * MAX_BODY_BYTES;

/// A byte budget for all bodies held at the same time.
///
/// Callers that are authenticated only by the body, such as senders that sign it, share a part of
/// the budget. Within this part, each webhook and each client has a quota, so that endless bodies
/// cannot block other senders.
#[derive(Debug, Clone, Default)]
pub(crate) struct BodyBudget {
    usage: Arc<Mutex<BudgetUsage>>,
}

#[derive(Debug, Default)]
struct BudgetUsage {
    total: usize,
    unauthenticated: usize,
    by_quota: HashMap<Quota, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Quota {
    Webhook(Box<str>),
    Client(IpAddr),
}

/// The sender of a body: authenticated or not.
#[derive(Debug, Clone)]
pub(crate) enum EndpointCaller<'a> {
    /// A caller that is authenticated by the request's fields.
    Authenticated,
    /// A caller of this webhook, from this address, that is not authenticated yet.
    Unauthenticated(&'a str, Option<IpAddr>),
}

/// A complete body and its share of the budget.
#[derive(Debug)]
pub(crate) struct BufferedBody {
    bytes: Vec<u8>,
    quotas: Option<Vec<Quota>>,
    budget: BodyBudget,
}

/// The reasons why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyReadError {
    /// The body is larger than [`MAX_BODY_BYTES`]: 413.
    TooLarge,
    /// The body did not arrive in time: 408.
    TimedOut,
    /// The body ended early: 400.
    Incomplete,
    /// The budget is exhausted: 503.
    OverBudget,
}

impl BodyBudget {
    /// Reads a body to its end. `idle_timeout` is the longest allowed pause between two chunks.
    pub(crate) async fn read<B>(
        &self,
        body: B,
        idle_timeout: Duration,
        sender: EndpointCaller<'_>,
    ) -> Result<BufferedBody, BodyReadError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
            return Err(BodyReadError::TooLarge);
        }
        let buffered =
            BufferedBody { bytes: Vec::new(), quotas: sender.quotas(), budget: self.clone() };
        let limited =
            LimitedBody::new(body, BodyLimits { bytes: MAX_BODY_BYTES as u64, idle_timeout });
        tokio::time::timeout(READ_TIMEOUT, buffered.read(limited))
            .await
            .unwrap_or(Err(BodyReadError::TimedOut))
    }
}

impl EndpointCaller<'_> {
    /// Returns the quotas that the body counts against, or `None` for an authenticated caller.
    fn quotas(&self) -> Option<Vec<Quota>> {
        match self {
            Self::Authenticated => None,
            Self::Unauthenticated(webhook, client) => {
                let client = client.iter().copied().map(Quota::Client);
                Some(iter::once(Quota::Webhook((*webhook).into())).chain(client).collect())
            }
        }
    }
}

impl Quota {
    const fn limit(&self) -> usize {
        match self {
            Self::Webhook(_) => BYTES_PER_WEBHOOK,
            Self::Client(_) => BYTES_PER_CLIENT,
        }
    }
}

impl BudgetUsage {
    fn reserve(&mut self, bytes: usize, quotas: Option<&[Quota]>) -> Result<(), BodyReadError> {
        let is_unauthenticated = quotas.is_some();
        let quotas = quotas.unwrap_or_default();
        let has_room =
            |quota: &Quota| self.by_quota.get(quota).unwrap_or(&0) + bytes <= quota.limit();
        let has_room = self.total + bytes <= TOTAL_BYTES
            && (!is_unauthenticated || self.unauthenticated + bytes <= UNAUTHENTICATED_BYTES)
            && quotas.iter().all(has_room);
        if !has_room {
            return Err(BodyReadError::OverBudget);
        }
        self.total += bytes;
        self.unauthenticated += if is_unauthenticated { bytes } else { 0 };
        for quota in quotas {
            *self.by_quota.entry(quota.clone()).or_default() += bytes;
        }
        Ok(())
    }

    fn release(&mut self, bytes: usize, quotas: Option<&[Quota]>) {
        self.total -= bytes;
        self.unauthenticated -= if quotas.is_some() { bytes } else { 0 };
        for quota in quotas.unwrap_or_default() {
            if let Some(used) = self.by_quota.get_mut(quota) {
                *used -= bytes;
                if *used == 0 {
                    self.by_quota.remove(quota);
                }
            }
        }
    }
}

impl BufferedBody {
    async fn read<B>(mut self, mut body: LimitedBody<B>) -> Result<Self, BodyReadError>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        while let Some(frame) = body.frame().await {
            if let Ok(chunk) = frame.map_err(BodyReadError::from)?.into_data() {
                self.push(&chunk)?;
            }
        }
        Ok(self)
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), BodyReadError> {
        self.budget.usage.lock().reserve(chunk.len(), self.quotas.as_deref())?;
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }
}

impl Drop for BufferedBody {
    fn drop(&mut self) {
        self.budget.usage.lock().release(self.bytes.len(), self.quotas.as_deref());
    }
}

impl Deref for BufferedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<ClientBodyError> for BodyReadError {
    fn from(error: ClientBodyError) -> Self {
        match error {
            ClientBodyError::TooLarge => Self::TooLarge,
            ClientBodyError::TimedOut => Self::TimedOut,
            ClientBodyError::Client(_) => Self::Incomplete,
        }
    }
}

impl BodyReadError {
    /// Returns the response to the sender.
    pub(crate) fn problem(self) -> Problem {
        let (status, title, detail) = match self {
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "Body too large", "The limit is 1 MiB.")
            }
            Self::TimedOut => (
                StatusCode::REQUEST_TIMEOUT,
                "Body too slow",
                "The body did not arrive in time; send it again.",
            ),
            Self::Incomplete => (
                StatusCode::BAD_REQUEST,
                "Body incomplete",
                "The body ended before it was complete; send it again.",
            ),
            Self::OverBudget => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too busy",
                "Too many bodies are being received; send it again in a moment.",
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

    const IDLE_TIMEOUT: Duration = Duration::from_mins(1);

    const SENDER: EndpointCaller<'_> = EndpointCaller::Unauthenticated("shop", None);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    async fn buffer(
        budget: &BodyBudget,
        bytes: usize,
        sender: EndpointCaller<'_>,
    ) -> Result<BufferedBody, BodyReadError> {
        budget.read(Full::from(vec![0; bytes]), IDLE_TIMEOUT, sender).await
    }

    #[tokio::test]
    async fn a_body_is_read_whole_and_gives_its_room_back() {
        let budget = BodyBudget::default();
        let body = budget.read(Full::from("12345"), IDLE_TIMEOUT, SENDER).await.unwrap();
        assert_eq!(&*body, b"12345");
        assert_eq!(budget.usage.lock().total, 5);
        drop(body);
        let usage = budget.usage.lock();
        assert_eq!((usage.total, usage.unauthenticated, usage.by_quota.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn neither_one_client_nor_one_webhook_stops_others() {
        let budget = BodyBudget::default();
        let from = |last| EndpointCaller::Unauthenticated("shop", Some(address(last)));
        let mut all = Vec::new();
        for client in [1, 1, 2, 2] {
            all.push(buffer(&budget, MAX_BODY_BYTES, from(client)).await.unwrap());
        }
        assert_eq!(
            buffer(&budget, 1, from(3)).await.unwrap_err(),
            BodyReadError::OverBudget,
            "one webhook"
        );
        let other = |last| EndpointCaller::Unauthenticated("crm", Some(address(last)));
        assert_eq!(
            buffer(&budget, 1, other(1)).await.unwrap_err(),
            BodyReadError::OverBudget,
            "one client"
        );
        assert!(buffer(&budget, MAX_BODY_BYTES, other(3)).await.is_ok());
        for (n, name) in [(4, "a"), (5, "a"), (6, "b"), (7, "b")] {
            for _ in 0..2 {
                let sender = EndpointCaller::Unauthenticated(name, Some(address(n)));
                all.push(buffer(&budget, MAX_BODY_BYTES, sender).await.unwrap());
            }
        }
        assert_eq!(
            buffer(&budget, 1, other(8)).await.unwrap_err(),
            BodyReadError::OverBudget,
            "the unauthenticated"
        );
        assert!(buffer(&budget, MAX_BODY_BYTES, EndpointCaller::Authenticated).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused_announced_or_not() {
        let budget = BodyBudget::default();
        let announced = Full::from(vec![0; MAX_BODY_BYTES + 1]);
        assert_eq!(
            budget.read(announced, IDLE_TIMEOUT, SENDER).await.unwrap_err(),
            BodyReadError::TooLarge
        );
        let half =
            || Ok::<_, std::io::Error>(Frame::data(Bytes::from(vec![0; MAX_BODY_BYTES / 2 + 1])));
        let streamed = StreamBody::new(stream::iter([half(), half()]));
        assert_eq!(
            budget.read(streamed, IDLE_TIMEOUT, SENDER).await.unwrap_err(),
            BodyReadError::TooLarge
        );
        let broken = StreamBody::new(stream::iter([half(), Err(std::io::Error::other("gone"))]));
        assert_eq!(
            budget.read(broken, IDLE_TIMEOUT, SENDER).await.unwrap_err(),
            BodyReadError::Incomplete
        );
        assert_eq!(budget.usage.lock().total, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let drip = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let endless = StreamBody::new(Box::pin(drip));
        assert_eq!(
            BodyBudget::default().read(endless, IDLE_TIMEOUT, SENDER).await.unwrap_err(),
            BodyReadError::TimedOut
        );
    }
}
