//! Accepts connections, each in a task of its own, until the drain begins.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    runtime::Handle,
    time::{Instant, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::{
    Drain, Handler, Settings,
    drain::{DrainGuard, DrainPhase, ListenerGuard},
    encode,
    file_reserve::FileReserve,
    listener::{BoundSocket, Listener, OpenConnection},
    placement::PlacementMember,
    protocol::{ListenerContext, NewConnection, task_waker},
    refusal::RequestRefusal,
    stream::{Stream, Transport},
    tls_socket::TlsSocket,
};

/// Delay after a failure to accept. The delay doubles with each further failure, up to the maximum.
const MIN_BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Maximum time for a rejected client to read its response, and for a new connection to stay silent
/// once the drain has begun.
const GRACE_PERIOD: Duration = Duration::from_secs(1);
/// Maximum number of rejected connections that still read their response. Further connections are
/// closed immediately.
const MAX_REJECTIONS: usize = 64;

/// Accepts clients on the current runtime until the drain begins. `handler` responds to their
/// requests.
///
/// Open connections then continue in their own tasks: [`Drain::finished`] waits for them.
///
/// # Errors
/// Fails if the socket cannot be used on this runtime. Failures to accept are logged and retried.
pub async fn serve<H: Handler>(
    listener: Listener,
    handler: Arc<H>,
    settings: Arc<Settings>,
    drain: Drain,
) -> io::Result<()> {
    // Dropped after `listener`: the socket is then closed and its file removed.
    let _listener_guard = drain.register_listener();
    let listener = listener;
    let socket = AsyncListener::new(&listener.socket)?;
    let tls = match &listener.socket {
        BoundSocket::Tcp(_) => settings.tls.clone().map(TlsAcceptor::from),
        // Unix sockets need no TLS, since their data does not leave the machine.
        BoundSocket::Unix(..) => None,
    };
    let acceptor = Arc::new(Acceptor {
        tls,
        context: ListenerContext {
            handler,
            settings,
            drain: drain.clone(),
            counters: Arc::clone(&listener.counters),
        },
    });
    let member = listener.placement.join();
    let mut reserve = FileReserve::new(acceptor.context.settings.reserved_files);
    let mut backoff = MIN_BACKOFF;
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.started() => {
                acceptor.accept_queued(&listener.socket, &member);
                return Ok(());
            }
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((transport, peer)) => {
                backoff = MIN_BACKOFF;
                acceptor.accept((transport, peer), &member);
                reserve.refill();
            }
            Err(error) if is_connection_error(&error) => {}
            Err(error) if is_out_of_descriptors(&error) && reserve.release_one() => {}
            Err(error) => {
                acceptor.context.counters.accept_errors.fetch_add(1, Relaxed);
                tracing::warn!(%error, "cannot accept connections; retrying");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(MAX_BACKOFF);
            }
        }
    }
}

/// The address of an accepted client, and what counts its connection.
type Accepted = (Option<SocketAddr>, OpenConnection, ListenerGuard);

/// A client's stream and address; on Unix sockets, the address is `None`.
type AcceptedStream = (Transport, Option<SocketAddr>);

/// Accepts a client from the socket's queue. Fails with `WouldBlock` if the queue is empty.
fn try_accept(socket: &BoundSocket) -> io::Result<AcceptedStream> {
    match socket {
        BoundSocket::Tcp(socket) => {
            let (stream, peer) = socket.accept()?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Ok((Transport::Tcp(TcpStream::from_std(stream)?), Some(peer)))
        }
        BoundSocket::Unix(socket, _) => {
            let (stream, _) = socket.accept()?;
            stream.set_nonblocking(true)?;
            Ok((Transport::Unix(UnixStream::from_std(stream)?), None))
        }
    }
}

enum AsyncListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AsyncListener {
    fn new(socket: &BoundSocket) -> io::Result<Self> {
        match socket {
            BoundSocket::Tcp(socket) => Ok(Self::Tcp(TcpListener::from_std(socket.try_clone()?)?)),
            BoundSocket::Unix(socket, _) => {
                Ok(Self::Unix(UnixListener::from_std(socket.try_clone()?)?))
            }
        }
    }

    async fn accept(&self) -> io::Result<AcceptedStream> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                let _ = stream.set_nodelay(true);
                Ok((Transport::Tcp(stream), Some(peer)))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept().await?;
                Ok((Transport::Unix(stream), None))
            }
        }
    }
}

/// Returns whether accepting failed only because the client has disconnected.
fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Returns whether the process, or the system, has no file descriptor left.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let error = rustix::io::Errno::from_io_error(error);
    matches!(error, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

struct Acceptor<H> {
    tls: Option<TlsAcceptor>,
    context: ListenerContext<H>,
}

impl<H: Handler> Acceptor<H> {
    /// Accepts the clients in the socket's queue, because closing the socket would reset their
    /// connections.
    fn accept_queued(self: &Arc<Self>, socket: &BoundSocket, member: &PlacementMember) {
        loop {
            match try_accept(socket) {
                Ok(accepted) => self.accept(accepted, member),
                Err(error) if is_connection_error(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn accept(self: &Arc<Self>, (transport, peer): AcceptedStream, member: &PlacementMember) {
        let limit = self.context.settings.connections;
        let placed = member.place();
        let other = member.other_runtime(&placed).cloned();
        let Some(open_connection) = self.context.counters.acquire(limit, Some(placed)) else {
            if self.tls.is_none() {
                self.reject(transport, limit);
            }
            return;
        };
        // A drain waits for the connection, too, before its task has begun.
        let accepted = (peer, open_connection, self.context.drain.register_listener());
        match other {
            None => drop(tokio::spawn(Arc::clone(self).run(transport, accepted))),
            Some(runtime) => self.hand_over(&runtime, transport, accepted),
        }
    }

    /// Serves a connection on the runtime of another thread.
    fn hand_over(self: &Arc<Self>, runtime: &Handle, transport: Transport, accepted: Accepted) {
        let acceptor = Arc::clone(self);
        // Fails only if the process has no memory for it. The client then sees a closed connection.
        if let Ok(detached) = transport.detach() {
            runtime.spawn(async move {
                if let Ok(transport) = detached.attach() {
                    acceptor.run(transport, accepted).await;
                }
            });
        }
    }

    /// Responds with 503, unless too many clients are being rejected.
    fn reject(self: &Arc<Self>, transport: Transport, limit: usize) {
        if let Some(open_connection) =
            self.context.counters.acquire_for_rejection(limit.saturating_add(MAX_REJECTIONS))
        {
            self.context.counters.count_refusal(RequestRefusal::Overloaded);
            self.context.settings.report_unread_refusal(RequestRefusal::Overloaded);
            tokio::spawn(async move {
                let _ = timeout(GRACE_PERIOD, send_overloaded(transport)).await;
                drop(open_connection);
            });
        }
    }

    /// Waits for the first bytes of HTTP, and determines the protocol from the TLS handshake or from
    /// them. `None` if the client does not send them in time.
    async fn negotiate(&self, transport: Transport) -> Option<NewConnection> {
        let settings = &self.context.settings;
        let mut stream = match &self.tls {
            Some(acceptor) => {
                let accepted = timeout(settings.handshake_timeout, handshake(acceptor, transport));
                let Ok(Ok(stream)) = accepted.await else {
                    self.context.counters.handshakes_failed.fetch_add(1, Relaxed);
                    return None;
                };
                stream
            }
            None => transport.into(),
        };
        let since = Instant::now();
        let first_bytes = timeout(settings.header_timeout, stream.sniff()).await.ok()?.ok()?;
        // Over TLS, a client has to negotiate HTTP/2 (RFC 9113 §3.2).
        let is_tls = self.tls.is_some();
        let protocol = if is_tls { stream.agreed_protocol() } else { first_bytes };
        Some(NewConnection { stream, protocol, since })
    }

    async fn run(
        self: Arc<Self>,
        transport: Transport,
        (peer, open_connection, accepted): Accepted,
    ) {
        let open_connection = Arc::new(open_connection);
        let waker = task_waker().await;
        // From here on, a drain waits for the first bytes of the new connection.
        let drain_guard = self.context.drain.register(&waker);
        drop(accepted);
        let negotiated = tokio::select! {
            negotiated = self.negotiate(transport) => negotiated,
            () = grace_after_drain(&drain_guard) => return,
        };
        if let Some(connection) = negotiated {
            let client = (peer, self.tls.is_some());
            let guards = (drain_guard, &open_connection);
            self.context.drive(connection, client, guards, &waker).await;
        }
    }
}

/// Completes when the grace period after the beginning of the drain has passed.
async fn grace_after_drain(drain_guard: &DrainGuard) {
    poll_fn(|_| {
        if drain_guard.has_reached(DrainPhase::Draining) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    tokio::time::sleep(GRACE_PERIOD).await;
}

async fn handshake(acceptor: &TlsAcceptor, transport: Transport) -> io::Result<Stream> {
    let Transport::Tcp(stream) = transport else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS requires TCP"));
    };
    let stream = acceptor.accept(TlsSocket::new(stream)).await?;
    Ok(Transport::Tls(Box::new(TlsStream::Server(stream))).into())
}

async fn send_overloaded(mut transport: Transport) -> io::Result<()> {
    transport.write_all(&encode::closing_response(&RequestRefusal::Overloaded.response())).await?;
    transport.shutdown().await?;
    let mut unread = [0; 1024];
    while transport.read(&mut unread).await? > 0 {}
    Ok(())
}
