//! How a request gets a connection to a server: an open one, a new one, or its turn.

use std::{pin::pin, sync::Arc};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use super::{
    capacity::Permit,
    connect::{self, Offer},
    error::OriginError,
    http1, http2,
    pool::{Opened, Opening, Sender, Want},
    server::{ATTEMPTS, Protocols, Server},
    waiting::Waiting,
};
use crate::server::stream::Protocol;

/// Whether a connection was opened for the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Used,
    New,
    /// New, and no other request was sent on it before.
    Own,
}

/// Opens a connection for all requests of a shard that need one. Its end, also by a panic, lets the next begin.
struct Opener {
    server: Arc<Server>,
    shard: usize,
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.server.pool.end_opening(self.shard);
    }
}

impl Server {
    /// A connection for a request, of this age or a newer one.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        want: Want,
        age: Age,
    ) -> Result<(Sender, Age), OriginError> {
        if age == Age::Used
            && let Some(sender) = self.pool.take(want, Instant::now().into_std())
        {
            return Ok((sender, Age::Used));
        }
        // Boxed, since every request in flight would carry what only a few need.
        let sender = match age {
            Age::Used | Age::New => Box::pin(self.open(want)).await?,
            Age::Own => Box::pin(self.open_own(want)).await?,
        };
        Ok((sender, Age::New))
    }

    async fn open_own(self: &Arc<Self>, want: Want) -> Result<Sender, OriginError> {
        match self.permit() {
            Some(permit) => self.connect(want, permit).await,
            None => self.wait(want).await,
        }
    }

    /// A new connection, alone or together with all that need one; its turn, if there may be no more.
    async fn open(self: &Arc<Self>, want: Want) -> Result<Sender, OriginError> {
        // Bounded: an origin that is about to end may send GOAWAY on each new connection.
        for _ in 0..ATTEMPTS {
            if want.http1 || self.protocols() == Protocols::Http1 {
                break;
            }
            let Some(opening) = self.opening() else { break };
            if opening.await? == Opened::Full {
                return self.wait(want).await;
            }
            if let Some(sender) = self.pool.take_in_turn(want, Instant::now().into_std()) {
                return Ok(sender);
            }
        }
        self.open_own(want).await
    }

    /// The one connection that is being opened for this thread. A task of its own opens it: no request that
    /// gives up takes it from the others.
    fn opening(self: &Arc<Self>) -> Option<Opening> {
        self.pool.opening(|shard| {
            let server = Arc::clone(self);
            let task = tokio::spawn(async move {
                let opener = Opener { server, shard };
                opener.server.open_for_all().await
            });
            let name = self.name();
            let opened = async move {
                task.await.unwrap_or_else(|error| {
                    Err(OriginError::Closed { server: name, source: Arc::new(error) })
                })
            };
            opened.boxed().shared()
        })
    }

    async fn open_for_all(self: &Arc<Self>) -> Result<Opened, OriginError> {
        let Some(permit) = self.permit() else { return Ok(Opened::Full) };
        let want = Want { http1: false, is_repeatable: true };
        match self.connect(want, permit).await? {
            Sender::Http1(connection) => self.put(connection),
            Sender::Http2(stream) => drop(stream),
        }
        Ok(Opened::Connection)
    }

    /// The right to open a connection. An idle one is closed for it, if need be: another thread may have it.
    fn permit(&self) -> Option<Permit> {
        let permit = self.capacity.try_acquire();
        permit.or_else(|| self.pool.evict_idle().then(|| self.capacity.try_acquire())?)
    }

    /// Waits until a connection or the right to open one becomes free.
    async fn wait(self: &Arc<Self>, want: Want) -> Result<Sender, OriginError> {
        let Some(place) = self.capacity.enter_queue() else { return Err(self.overloaded()) };
        // An upgrade needs a connection of its own, for which it waits with the requests of other threads.
        let waiting = if want.http1 { None } else { self.pool.wait() };
        // What became free before the request was in the queue was not offered to it.
        if let Some(sender) = self.pool.take_stream(want) {
            return Ok(sender);
        }
        if let Some(permit) = self.permit() {
            return self.connect(want, permit).await;
        }
        let mut permit = pin!(self.capacity.acquire());
        let mut patience = pin!(sleep(self.capacity.patience()));
        loop {
            tokio::select! {
                biased;
                () = freed(waiting.as_ref()) => {
                    if let Some(sender) = self.pool.take_from_any(want, Instant::now().into_std()) {
                        return Ok(sender);
                    }
                }
                permit = &mut permit => {
                    drop((waiting, place));
                    return self.connect(want, permit).await;
                }
                () = &mut patience => return Err(self.overloaded()),
            }
        }
    }

    fn overloaded(&self) -> OriginError {
        self.capacity.note_rejected();
        OriginError::Overloaded { server: self.name(), limit: self.capacity.limit() }
    }

    /// Opens a connection. One that can be shared is in the pool afterwards.
    async fn connect(self: &Arc<Self>, want: Want, permit: Permit) -> Result<Sender, OriginError> {
        let offer = if want.http1 { Offer::Http1 } else { Offer::Any };
        let connecting = async {
            let (stream, protocol) = self.connector.connect(offer).await?;
            if offer == Offer::Any {
                self.note_protocol(protocol);
            }
            if protocol == Protocol::Http1 {
                return Ok(Sender::Http1(Box::new(http1::Connection::new(stream, permit))));
            }
            let opened =
                http2::Connection::open(stream, self.header_bytes, permit, self.pool.waiters());
            let opened = opened.await;
            let connection = opened.map_err(|error| self.closed(error))?;
            self.share(connection)
        };
        connect::within(self.connector.timeout(), &self.name(), connecting).await
    }

    /// Shares a connection; returns the right to its first stream.
    fn share(&self, connection: http2::Connection) -> Result<Sender, OriginError> {
        let stream = self.pool.share(connection);
        stream
            .map(Sender::Http2)
            .ok_or_else(|| self.closed(h2::Error::from(h2::Reason::REFUSED_STREAM)))
    }
}

/// Ready when a connection or a stream may have become free for the request.
async fn freed(waiting: Option<&Waiting<'_>>) {
    match waiting {
        Some(waiting) => waiting.freed().await,
        None => std::future::pending().await,
    }
}
