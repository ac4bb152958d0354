//! The connections to one server. A request gets an idle connection, a new one, or a place in the
//! queue.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use super::{
    capacity::{ConnectionLimiter, ConnectionPermit},
    connect::{self, AlpnOffer, ServerConnector},
    error::OriginError,
    http1::Http1Connection,
    http2::Http2Connection,
    pool::{ConnectionRequirements, OpenOutcome, OriginPool, PendingOpen, PooledConnection},
    settings::{OriginScheme, ServerUrl, Settings},
    tls::{ClientConfigs, OriginTlsError},
    waiters::PoolWaiter,
};
use crate::server::stream::Protocol;

/// Maximum number of times that a request is tried on one server, or waits for a shared connection.
///
/// A server that closes each connection after a number of requests can reject the same request
/// several times in a row.
pub(super) const MAX_ATTEMPTS: usize = 10;

/// The connections to one server.
pub(super) struct ServerConnections {
    pub(super) pool: OriginPool,
    pub(super) capacity: ConnectionLimiter,
    connector: ServerConnector,
    /// Maximum size of a response head, in bytes.
    pub(super) header_bytes: u32,
    /// Whether connections are known to use HTTP/1.1, so that requests cannot share them.
    is_http1: AtomicBool,
    in_flight: AtomicUsize,
}

/// The kind of a request's connection: reused or new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionAge {
    Reused,
    New,
    /// The connection is new, and no other request has used it.
    Exclusive,
}

/// Counts one request as in flight until this guard is dropped.
pub(super) struct InFlightGuard(Arc<ServerConnections>);

impl InFlightGuard {
    /// Returns a connection to the pool.
    pub(super) fn put(&self, connection: Box<Http1Connection>) {
        self.0.put(connection);
    }
}

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Guards the connection attempt that the requests of a pool shard share. Dropping the guard, even
/// in a panic, lets the next attempt begin.
struct Opener {
    connections: Arc<ServerConnections>,
    shard: usize,
}

impl Drop for Opener {
    fn drop(&mut self) {
        self.connections.pool.end_opening(self.shard);
    }
}

impl ServerConnections {
    pub(super) fn new(
        endpoint: &ServerUrl,
        settings: &Settings,
        tls: Option<&ClientConfigs>,
    ) -> Result<Self, OriginTlsError> {
        let is_http1 = match endpoint.scheme {
            OriginScheme::H2c => false,
            OriginScheme::Https => !settings.http2,
            OriginScheme::Http => true,
        };
        Ok(Self {
            pool: OriginPool::new(settings.keep_alive),
            capacity: ConnectionLimiter::new(settings.limits),
            connector: ServerConnector::new(endpoint, settings, tls)?,
            header_bytes: settings.max_header_bytes,
            is_http1: AtomicBool::new(is_http1),
            in_flight: AtomicUsize::new(0),
        })
    }

    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.connector.name)
    }

    /// Returns the error for a connection that was closed early.
    pub(super) fn closed(
        &self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> OriginError {
        OriginError::Closed { server: self.name(), source: Arc::new(source) }
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> InFlightGuard {
        self.in_flight.fetch_add(1, Relaxed);
        InFlightGuard(Arc::clone(self))
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Returns a connection for a request that begins at `now`. `age` is the oldest kind of
    /// connection that the request accepts.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        needs: ConnectionRequirements,
        age: ConnectionAge,
        now: Instant,
    ) -> Result<(PooledConnection, ConnectionAge), OriginError> {
        if age == ConnectionAge::Reused
            && let Some(connection) = self.pool.take(needs, now.into_std())
        {
            return Ok((connection, ConnectionAge::Reused));
        }
        // Boxed, since only a few requests need this state.
        let connection = match age {
            ConnectionAge::Reused | ConnectionAge::New => Box::pin(self.open(needs)).await?,
            ConnectionAge::Exclusive => Box::pin(self.open_exclusive(needs)).await?,
        };
        Ok((connection, ConnectionAge::New))
    }

    async fn open_exclusive(
        self: &Arc<Self>,
        needs: ConnectionRequirements,
    ) -> Result<PooledConnection, OriginError> {
        match self.permit() {
            Some(permit) => self.connect(needs, permit).await,
            None => self.wait(needs).await,
        }
    }

    /// Opens a connection, for this request alone or for all requests that need one. Queues the
    /// request if the connection limit is reached.
    async fn open(
        self: &Arc<Self>,
        needs: ConnectionRequirements,
    ) -> Result<PooledConnection, OriginError> {
        // The loop is bounded: an origin that shuts down may send GOAWAY on each new connection.
        for _ in 0..MAX_ATTEMPTS {
            if needs.http1_only || self.is_http1.load(Relaxed) {
                break;
            }
            let Some(opening) = self.opening() else { break };
            if opening.await? == OpenOutcome::Full {
                return self.wait(needs).await;
            }
            if let Some(connection) = self.pool.take_unqueued(needs, Instant::now().into_std()) {
                return Ok(connection);
            }
        }
        self.open_exclusive(needs).await
    }

    /// Returns the connection attempt that all requests of this thread share; starts one if needed.
    /// The attempt runs in its own task, so that it survives the request that started it.
    fn opening(self: &Arc<Self>) -> Option<PendingOpen> {
        self.pool.opening(|shard| {
            let connections = Arc::clone(self);
            let task = tokio::spawn(async move {
                let opener = Opener { connections, shard };
                opener.connections.open_shared().await
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

    async fn open_shared(self: &Arc<Self>) -> Result<OpenOutcome, OriginError> {
        let Some(permit) = self.permit() else { return Ok(OpenOutcome::Full) };
        let needs = ConnectionRequirements { http1_only: false, is_repeatable: true };
        match self.connect(needs, permit).await? {
            PooledConnection::Http1(connection) => self.put(connection),
            PooledConnection::Http2(stream) => drop(stream),
        }
        Ok(OpenOutcome::Connection)
    }

    /// Returns a permit to open a connection. Closes an idle connection, possibly of another
    /// thread, if there is no free permit.
    fn permit(&self) -> Option<ConnectionPermit> {
        let permit = self.capacity.try_acquire();
        permit.or_else(|| self.pool.evict_idle().then(|| self.capacity.try_acquire())?)
    }

    /// Queues the request until a connection, or a permit to open a connection, becomes free.
    async fn wait(
        self: &Arc<Self>,
        needs: ConnectionRequirements,
    ) -> Result<PooledConnection, OriginError> {
        let Some(queue_slot) = self.capacity.enter_queue() else { return Err(self.overloaded()) };
        // An upgrade needs a new connection, so it waits for a permit only.
        let waiter = if needs.http1_only { None } else { self.pool.wait() };
        // A connection that became free before the request was queued has not been offered to it.
        if let Some(connection) = self.pool.take_stream(needs) {
            return Ok(connection);
        }
        if let Some(permit) = self.permit() {
            return self.connect(needs, permit).await;
        }
        let mut permit = pin!(self.capacity.acquire());
        let mut deadline = pin!(sleep(self.capacity.limits.pending_timeout));
        loop {
            tokio::select! {
                biased;
                () = freed(waiter.as_ref()) => {
                    if let Some(connection) = self.pool.take_from_any(needs, Instant::now().into_std()) {
                        return Ok(connection);
                    }
                }
                permit = &mut permit => {
                    drop((waiter, queue_slot));
                    return self.connect(needs, permit).await;
                }
                () = &mut deadline => return Err(self.overloaded()),
            }
        }
    }

    fn overloaded(&self) -> OriginError {
        self.capacity.count_rejected();
        OriginError::Overloaded { server: self.name(), limit: self.capacity.limits.connections }
    }

    /// Opens a connection. Puts it into the pool if several requests can share it.
    async fn connect(
        self: &Arc<Self>,
        needs: ConnectionRequirements,
        permit: ConnectionPermit,
    ) -> Result<PooledConnection, OriginError> {
        let offer = if needs.http1_only { AlpnOffer::Http1 } else { AlpnOffer::Any };
        let connecting = async {
            let (stream, protocol) = self.connector.connect(offer).await?;
            if offer == AlpnOffer::Any {
                self.is_http1.store(protocol == Protocol::Http1, Relaxed);
            }
            if protocol == Protocol::Http1 {
                return Ok(PooledConnection::Http1(Box::new(Http1Connection::new(stream, permit))));
            }
            let opened =
                Http2Connection::open(stream, self.header_bytes, permit, self.pool.waiters());
            let opened = opened.await;
            let connection = opened.map_err(|error| self.closed(error))?;
            self.share(connection)
        };
        connect::with_timeout(self.connector.timeout, &self.name(), connecting).await
    }

    fn put(&self, connection: Box<Http1Connection>) {
        self.pool.put(connection, &self.capacity);
    }

    /// Puts a shared connection into the pool and returns its first stream.
    fn share(&self, connection: Http2Connection) -> Result<PooledConnection, OriginError> {
        let stream = self.pool.share(connection);
        stream
            .map(PooledConnection::Http2)
            .ok_or_else(|| self.closed(h2::Error::from(h2::Reason::REFUSED_STREAM)))
    }
}

/// Completes when a connection or a stream may have become free for `waiter`.
async fn freed(waiter: Option<&PoolWaiter<'_>>) {
    match waiter {
        Some(waiter) => waiter.freed().await,
        None => std::future::pending().await,
    }
}
