//! A byte stream over any transport. Bytes that were read ahead can be read again.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsStream;

use super::{syscall, tls_socket::TlsSocket};
use crate::body_file::BodyFile;

/// The 24 bytes that start an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Maximum number of bytes to read ahead, usually sufficient for the first request.
const AHEAD_BYTES: usize = 4096;

/// A connection over any transport.
pub(crate) struct Stream {
    transport: Transport,
    ahead: Vec<u8>,
    given_back: usize,
}

pub(crate) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TlsSocket>>),
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    #[default]
    Http1,
    Http2,
}

/// A connection without TLS that belongs to no runtime.
pub(super) enum DetachedTransport {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Transport {
    /// Detaches a connection without TLS from the current runtime. Fails if it has TLS.
    pub(super) fn detach(self) -> io::Result<DetachedTransport> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(DetachedTransport::Tcp),
            Self::Unix(stream) => stream.into_std().map(DetachedTransport::Unix),
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl DetachedTransport {
    /// Attaches the connection to the current runtime.
    pub(super) fn attach(self) -> io::Result<Transport> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Transport::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Transport::Unix),
        }
    }
}

impl From<Transport> for Stream {
    fn from(transport: Transport) -> Self {
        Self { transport, ahead: Vec::new(), given_back: 0 }
    }
}

impl Stream {
    /// Returns the protocol that TLS negotiated; HTTP/1.1 without TLS or ALPN.
    pub(crate) fn agreed_protocol(&self) -> Protocol {
        match &self.transport {
            Transport::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Protocol::Http2
            }
            _ => Protocol::Http1,
        }
    }

    /// Returns the client's protocol according to its first bytes, which can be read again.
    pub(super) async fn sniff(&mut self) -> io::Result<Protocol> {
        loop {
            let known = self.ahead.len().min(PREFACE.len());
            if self.ahead.get(..known) != PREFACE.get(..known) {
                return Ok(Protocol::Http1);
            }
            if known == PREFACE.len() {
                return Ok(Protocol::Http2);
            }
            let mut ahead = std::mem::take(&mut self.ahead);
            ahead.reserve(AHEAD_BYTES);
            let read = self.transport.read_buf(&mut ahead).await?;
            self.ahead = ahead;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads bytes that may contain request heads, with the cheapest system call, and passes them
    /// to `take`. Reads at most `room` bytes, and at most a few kilobytes. Returns their number; 0
    /// at the end of the stream.
    pub(super) fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        take: impl FnOnce(&[u8]),
    ) -> Poll<io::Result<usize>> {
        match &self.transport {
            Transport::Tcp(stream) if self.ahead.is_empty() => {
                syscall::poll_receive(stream, cx, room, take)
            }
            _ => syscall::poll_read_head(Pin::new(self), cx, room, take),
        }
    }

    /// Appends available bytes, usually of a response's head, to `received`. Returns their number;
    /// 0 at the end of the stream.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        received: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        if let (Transport::Tcp(stream), true) = (&self.transport, self.ahead.is_empty()) {
            let take = |bytes: &[u8]| received.extend_from_slice(bytes);
            return syscall::poll_receive(stream, cx, syscall::HEAD_BYTES, take);
        }
        received.reserve(syscall::HEAD_BYTES);
        pin!(self.read_buf(received)).poll(cx)
    }

    /// Completes if the client may have sent data, or has closed the connection. Reads nothing.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ahead.is_empty() {
            return Poll::Ready(());
        }
        let ready = match &self.transport {
            Transport::Tcp(stream) => stream.poll_read_ready(cx),
            Transport::Unix(stream) => stream.poll_read_ready(cx),
            Transport::Tls(stream) => match stream.get_ref() {
                // Data or the end of the stream was read together with earlier data.
                (_, session) if !session.wants_read() => return Poll::Ready(()),
                (socket, _) => socket.tcp().poll_read_ready(cx),
            },
        };
        ready.map(drop)
    }

    /// Returns whether the stream is open and has no data. Makes a system call only after a
    /// readiness event.
    pub(crate) fn is_idle(&mut self) -> bool {
        if let (Transport::Tcp(stream), true) = (&self.transport, self.ahead.is_empty()) {
            return syscall::is_idle(stream);
        }
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(self).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Returns whether the stream is open and has no data. Always makes a system call.
    pub(crate) fn is_open_and_empty(&self) -> bool {
        self.ahead.is_empty()
            && match &self.transport {
                Transport::Tcp(stream) => syscall::is_open_and_empty(stream),
                Transport::Unix(stream) => syscall::is_open_and_empty(stream),
                Transport::Tls(stream) => syscall::is_open_and_empty(stream.get_ref().0.tcp()),
            }
    }

    /// Returns whether the socket has data that was not read. Always makes a system call.
    pub(super) fn has_unread(&self) -> bool {
        match &self.transport {
            Transport::Tcp(stream) => syscall::has_data(stream),
            Transport::Unix(stream) => syscall::has_data(stream),
            Transport::Tls(stream) => syscall::has_data(stream.get_ref().0.tcp()),
        }
    }

    /// Returns the number of bytes that the kernel has accepted below TLS; 0 without TLS.
    pub(super) fn sent_below_tls(&self) -> u64 {
        match &self.transport {
            Transport::Tcp(_) | Transport::Unix(_) => 0,
            Transport::Tls(stream) => stream.get_ref().0.sent(),
        }
    }

    /// Returns whether the kernel sends body files on this connection.
    pub(super) fn sends_files(&self) -> bool {
        matches!(self.transport, Transport::Tcp(_))
    }

    /// Writes the rest of a body: from the file that ends with it, if there is one.
    pub(super) fn poll_write_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &[u8],
        file: Option<&BodyFile>,
    ) -> Poll<io::Result<usize>> {
        match (&self.transport, file) {
            (Transport::Tcp(stream), Some(file)) => syscall::poll_send_file(stream, cx, body, file),
            _ => Pin::new(self).poll_write(cx, body),
        }
    }

    /// Writes a head, and behind it a body that a file also contains. Returns the number of bytes
    /// written of both.
    ///
    /// The head leaves in a packet of its own. With `MSG_MORE` it would not, but under congestion
    /// control that paces (BBR), the timers then cost more than the packet.
    pub(super) fn poll_write_with_file(
        &mut self,
        cx: &mut Context<'_>,
        head: &[u8],
        (body, file): (&[u8], &BodyFile),
    ) -> Poll<io::Result<usize>> {
        let Transport::Tcp(stream) = &self.transport else {
            return Pin::new(self).poll_write(cx, head);
        };
        let written = ready!(syscall::poll_send(stream, cx, head))?;
        if written < head.len() {
            return Poll::Ready(Ok(written));
        }
        match syscall::poll_send_file(stream, cx, body, file) {
            Poll::Ready(sent) => Poll::Ready(Ok(written + sent?)),
            Poll::Pending => Poll::Ready(Ok(written)),
        }
    }

    /// Puts bytes back, so that they are read again.
    pub(crate) fn unread(&mut self, bytes: &[u8]) {
        let left = self.ahead.split_off(self.given_back);
        self.ahead = [bytes, &*left].concat();
        self.given_back = 0;
    }

    /// Makes the connection close with a reset when the stream is dropped. The caller must not send
    /// a FIN or TLS's `close_notify` before the drop.
    pub(super) fn reset_at_close(&self) {
        let tcp = match &self.transport {
            Transport::Tcp(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0.tcp(),
            Transport::Unix(_) => return,
        };
        if let Err(error) = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "cannot reset the connection of a failed response");
        }
    }

    fn give_back(&mut self, buf: &mut ReadBuf<'_>) {
        let ahead = self.ahead.get(self.given_back..).unwrap_or_default();
        let part = ahead.get(..buf.remaining()).unwrap_or(ahead);
        buf.put_slice(part);
        self.given_back += part.len();
        if self.given_back == self.ahead.len() {
            self.ahead = Vec::new();
            self.given_back = 0;
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.transport).poll_read(cx, buf);
        }
        self.give_back(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => syscall::poll_send(stream, cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
