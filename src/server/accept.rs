//! Accepts connections, one task each, until the drain begins.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    time::{error::Elapsed, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::{
    Drain, Handler, Settings,
    drain::{Entered, Phase},
    files::FileReserve,
    listener::{BoundSocket, Counted, Listener},
    protocol::Common,
    refusal::Refusal,
    stream::{Protocol, Stream, Transport},
};

/// Waits after a failure to accept, doubled up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// How long a connection that is turned away may take to read why, and one that has only just connected may
/// be silent once the drain has begun.
const FAREWELL: Duration = Duration::from_secs(1);
/// Connections in their farewell at once; beyond them they are just closed.
const FAREWELLS: usize = 64;

/// Accepts clients on the current runtime until the drain begins, and lets `handler` answer them.
///
/// Connections open at the drain's beginning go on by themselves: [`Drain::finished`] waits for them.
///
/// # Errors
/// Only where the socket cannot be used on this runtime at all; failures to accept are logged and retried.
pub async fn serve<H: Handler>(
    listener: Listener,
    handler: Arc<H>,
    settings: Arc<Settings>,
    drain: Drain,
) -> io::Result<()> {
    // Counted out once the socket is closed, and its file removed: it is dropped before.
    let _listening = drain.listening();
    let listener = listener;
    let socket = AcceptingSocket::new(&listener.socket)?;
    let acceptor = match &listener.socket {
        BoundSocket::Tcp(_) => settings.tls.clone().map(TlsAcceptor::from),
        // What never leaves the machine needs no TLS.
        BoundSocket::Unix(..) => None,
    };
    let server = Arc::new(Server {
        acceptor,
        common: Common {
            handler,
            settings,
            drain: drain.clone(),
            counters: Arc::clone(&listener.counters),
        },
    });
    let mut reserve = FileReserve::new(server.common.settings.reserved_files);
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.started() => {
                server.take_in_waiting(&listener.socket);
                return Ok(());
            }
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((transport, peer)) => {
                pause = FIRST_PAUSE;
                server.take_in(transport, peer);
                reserve.refill();
            }
            Err(error) if is_of_one_client(&error) => {}
            Err(error) if is_out_of_files(&error) && reserve.release_one() => {}
            Err(error) => {
                server.common.counters.accept_errors.fetch_add(1, Relaxed);
                tracing::warn!(%error, "cannot accept connections; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

/// A client's stream, and its address if it has one.
type Accepted = (Transport, Option<SocketAddr>);

/// Accepts a client that waits already; `WouldBlock` if none does.
fn accept_waiting(socket: &BoundSocket) -> io::Result<Accepted> {
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

enum AcceptingSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AcceptingSocket {
    fn new(socket: &BoundSocket) -> io::Result<Self> {
        match socket {
            BoundSocket::Tcp(socket) => Ok(Self::Tcp(TcpListener::from_std(socket.try_clone()?)?)),
            BoundSocket::Unix(socket, _) => {
                Ok(Self::Unix(UnixListener::from_std(socket.try_clone()?)?))
            }
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
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

/// Whether accepting failed only because the client has gone already.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Whether the process, or the system, has no file descriptor left.
fn is_out_of_files(error: &io::Error) -> bool {
    let error = rustix::io::Errno::from_io_error(error);
    matches!(error, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

struct Server<H> {
    acceptor: Option<TlsAcceptor>,
    common: Common<H>,
}

impl<H: Handler> Server<H> {
    /// Takes in the clients that have connected already: closing the socket would reset them.
    fn take_in_waiting(self: &Arc<Self>, socket: &BoundSocket) {
        loop {
            match accept_waiting(socket) {
                Ok((transport, peer)) => self.take_in(transport, peer),
                Err(error) if is_of_one_client(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn take_in(self: &Arc<Self>, transport: Transport, peer: Option<SocketAddr>) {
        let limit = self.common.settings.connections;
        if let Some(counted) = self.common.counters.enter(limit) {
            tokio::spawn(Arc::clone(self).run(transport, peer, counted));
        } else if self.acceptor.is_none() {
            self.turn_away(transport, limit);
        }
    }

    /// Says why, where that takes no handshake and not too many are being told already.
    fn turn_away(self: &Arc<Self>, transport: Transport, limit: usize) {
        if let Some(counted) = self.common.counters.farewell(limit.saturating_add(FAREWELLS)) {
            self.common.counters.refuse(Refusal::Overloaded);
            self.common.settings.refused_unread(Refusal::Overloaded);
            tokio::spawn(async move {
                let _ = timeout(FAREWELL, say_overloaded(transport)).await;
                drop(counted);
            });
        }
    }

    /// Reads from a client what tells its protocol.
    async fn prepare(
        &self,
        transport: Transport,
    ) -> Result<io::Result<(Stream, Protocol)>, Elapsed> {
        let settings = &self.common.settings;
        match &self.acceptor {
            Some(acceptor) => {
                timeout(settings.handshake_timeout, shake_hands(acceptor, transport)).await
            }
            None => timeout(settings.header_timeout, sniff(transport)).await,
        }
    }

    async fn run(
        self: Arc<Self>,
        transport: Transport,
        peer: Option<SocketAddr>,
        counted: Counted,
    ) {
        let counted = Arc::new(counted);
        // Counted from here on: a drain waits for the first bytes of those who have just connected.
        let entered = self.common.enter().await;
        let prepared = tokio::select! {
            prepared = self.prepare(transport) => prepared,
            () = last_call(&entered) => return,
        };
        match prepared {
            Ok(Ok((stream, protocol))) => {
                let client = (peer, self.acceptor.is_some());
                self.common.drive((stream, protocol), client, (entered, &counted)).await;
            }
            _ if self.acceptor.is_some() => {
                self.common.counters.handshakes_failed.fetch_add(1, Relaxed);
            }
            _ => {}
        }
    }
}

/// Waits until a client that has said nothing has been waited for long enough, once the drain has begun.
async fn last_call(entered: &Entered) {
    poll_fn(|_| if entered.has_reached(Phase::Draining) { Poll::Ready(()) } else { Poll::Pending })
        .await;
    tokio::time::sleep(FAREWELL).await;
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    transport: Transport,
) -> io::Result<(Stream, Protocol)> {
    let Transport::Tcp(stream) = transport else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "TLS is for TCP only"));
    };
    let stream = acceptor.accept(stream).await?;
    let stream = Stream::from(Transport::Tls(Box::new(TlsStream::Server(stream))));
    let protocol = stream.agreed_protocol();
    Ok((stream, protocol))
}

async fn sniff(transport: Transport) -> io::Result<(Stream, Protocol)> {
    let mut stream = Stream::from(transport);
    let protocol = stream.sniff().await?;
    Ok((stream, protocol))
}

async fn say_overloaded(mut transport: Transport) -> io::Result<()> {
    transport.write_all(&encode(&Refusal::Overloaded.response())).await?;
    transport.shutdown().await?;
    let mut unread = [0; 1024];
    while transport.read(&mut unread).await? > 0 {}
    Ok(())
}

pub(super) fn encode(response: &Response<Bytes>) -> Vec<u8> {
    let status = response.status();
    let mut bytes = format!(
        "HTTP/1.1 {} {}\r\nconnection: close\r\ncontent-length: {}\r\n",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        response.body().len()
    )
    .into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(response.body());
    bytes
}
