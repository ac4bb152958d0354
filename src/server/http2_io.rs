//! The byte stream below hyper's HTTP/2: sends the frames of one turn together.
//!
//! h2 writes each frame with data on its own. A client with several streams gets several responses
//! in a turn, and the system calls would cost more than the responses. So small frames are copied
//! into a buffer, which is sent when the connection's task has no more work.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{activity::ConnectionActivity, linger::Linger, stream::Stream};

/// Maximum number of bytes that wait in the buffer, in addition to h2's queue
/// (`server/send_queue.rs`).
const MAX_BUFFERED: usize = 16 * 1024;

/// Longer writes are not copied if nothing waits in the buffer.
const MAX_COPIED: usize = 4 * 1024;

/// The byte stream of a client that hyper's HTTP/2 reads and writes.
///
/// Whoever polls hyper's connection calls [`FrameSender::poll_send`] afterwards: flushing alone
/// sends nothing.
pub(super) struct Http2Io<T = Stream>(Arc<Mutex<BufferedStream<T>>>);

/// Sends what hyper has written to an [`Http2Io`].
pub(super) struct FrameSender<T = Stream>(Arc<Mutex<BufferedStream<T>>>);

struct BufferedStream<T> {
    stream: T,
    /// Written by hyper, and not sent yet. Takes no memory if empty.
    buffer: BytesMut,
    /// Whether the stream may hold bytes, as TLS does until a flush.
    is_unflushed: bool,
    /// Number of bytes that the stream has taken, modulo 2³².
    taken: u32,
    /// Whether bytes wait for the client.
    is_blocked: bool,
    activity: Arc<ConnectionActivity>,
    /// Reads the window updates that the client sends while it receives the end of the last
    /// response.
    linger: Option<Linger>,
}

/// A stream below HTTP/2.
pub(super) trait SendingStream: AsyncWrite + Unpin {
    /// Returns the number of bytes that the kernel has accepted below TLS; 0 without TLS.
    fn sent_below_tls(&self) -> u64;
}

impl SendingStream for Stream {
    fn sent_below_tls(&self) -> u64 {
        self.sent_below_tls()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Http2Io<T> {
    pub(super) fn new(stream: T, activity: Arc<ConnectionActivity>) -> (Self, FrameSender<T>) {
        let buffered = BufferedStream {
            stream,
            buffer: BytesMut::new(),
            is_unflushed: false,
            taken: 0,
            is_blocked: false,
            activity,
            linger: None,
        };
        let shared = Arc::new(Mutex::new(buffered));
        (Self(Arc::clone(&shared)), FrameSender(shared))
    }
}

impl<T: SendingStream> FrameSender<T> {
    /// Sends all that was written. If the client does not read, wakes the task once it does.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffered = self.0.lock();
        let sent = buffered.poll_send(cx);
        if std::mem::replace(&mut buffered.is_blocked, sent.is_pending()) || sent.is_pending() {
            buffered.note_sent();
        }
        sent
    }
}

impl<T: SendingStream> BufferedStream<T> {
    fn note_sent(&self) {
        #[expect(clippy::cast_possible_truncation, reason = "only its changes matter")]
        let below_tls = self.stream.sent_below_tls() as u32;
        self.activity.set_sent(self.taken.wrapping_add(below_tls));
    }
}

impl<T: AsyncWrite + Unpin> BufferedStream<T> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_empty(cx))?;
        if self.is_unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the buffer to the stream.
    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.buffer.is_empty() {
            self.is_unflushed = true;
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.buffer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.note_taken(written);
            self.buffer.advance(written);
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn note_taken(&mut self, bytes: usize) {
        #[expect(clippy::cast_possible_truncation, reason = "modulo 2³²")]
        let bytes = bytes as u32;
        self.taken = self.taken.wrapping_add(bytes);
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        if self.buffer.len() + length > MAX_BUFFERED {
            ready!(self.poll_empty(cx))?;
        }
        if self.buffer.is_empty() {
            if length > MAX_COPIED {
                self.is_unflushed = true;
                let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
                self.note_taken(written);
                return Poll::Ready(Ok(written));
            }
            self.buffer.reserve(MAX_BUFFERED);
        }
        for slice in slices {
            self.buffer.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Http2Io<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buf)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Http2Io<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Leaves the sending to [`FrameSender`]: h2 flushes behind each frame with data.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffered = self.0.lock();
        if buffered.linger.is_none() {
            ready!(buffered.poll_send(cx))?;
            ready!(Pin::new(&mut buffered.stream).poll_shutdown(cx))?;
        }
        let BufferedStream { stream, linger, .. } = &mut *buffered;
        linger.get_or_insert_with(Linger::new).poll(cx, stream).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::Instant,
    };

    use super::{
        super::{
            Settings,
            activity::{IdleTimer, TimeoutKind},
            stream::Protocol,
        },
        *,
    };

    impl SendingStream for DuplexStream {
        fn sent_below_tls(&self) -> u64 {
            0
        }
    }

    fn pair(room: usize) -> (Http2Io<DuplexStream>, FrameSender<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(room);
        let (io, sender) = Http2Io::new(near, Arc::default());
        (io, sender, far)
    }

    async fn send(sender: &FrameSender<DuplexStream>) {
        poll_fn(|cx| sender.poll_send(cx)).await.unwrap();
    }

    /// Returns what has arrived.
    async fn arrived(far: &mut DuplexStream) -> Vec<u8> {
        let mut bytes = vec![0; 64 * 1024];
        let read = poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *far).poll_read(cx, &mut buf) {
                Poll::Pending => Poll::Ready(0),
                Poll::Ready(read) => Poll::Ready(read.map(|()| buf.filled().len()).unwrap()),
            }
        });
        let read = read.await;
        bytes.truncate(read);
        bytes
    }

    #[tokio::test]
    async fn small_writes_of_a_turn_are_sent_together() {
        let (mut io, sender, mut far) = pair(1 << 20);
        for part in ["a", "b"] {
            io.write_all(part.as_bytes()).await.unwrap();
            io.flush().await.unwrap();
        }
        assert_eq!(arrived(&mut far).await, b"");
        send(&sender).await;
        assert_eq!(arrived(&mut far).await, b"ab");
        assert_eq!(io.0.lock().buffer.capacity(), 0, "an idle connection keeps no buffer");
    }

    #[tokio::test]
    async fn large_writes_are_not_copied_and_nothing_overtakes() {
        let (mut io, sender, mut far) = pair(1 << 20);
        let large = vec![b'l'; MAX_COPIED + 1];
        io.write_all(&large).await.unwrap();
        assert_eq!(arrived(&mut far).await, large, "sent at once");
        io.write_all(b"a").await.unwrap();
        io.write_all(&large).await.unwrap();
        assert_eq!(arrived(&mut far).await, b"", "behind what waits");
        let full = vec![b'f'; MAX_BUFFERED];
        io.write_all(&full).await.unwrap();
        send(&sender).await;
        assert_eq!(arrived(&mut far).await, [b"a", &*large, &full].concat());
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_blocks_the_writer_when_the_buffer_is_full() {
        let (mut io, sender, mut far) = pair(1);
        let part = vec![b'p'; MAX_COPIED];
        let mut written = 0;
        while written < 2 * MAX_BUFFERED {
            let write = poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_write(cx, &part))).await;
            let Poll::Ready(length) = write else { break };
            written += length.unwrap();
        }
        assert_eq!(written, MAX_BUFFERED);
        let reading = tokio::spawn(async move {
            let mut bytes = vec![0; written];
            far.read_exact(&mut bytes).await.unwrap();
            (bytes, far)
        });
        send(&sender).await;
        assert_eq!(reading.await.unwrap().0, part.repeat(MAX_BUFFERED / MAX_COPIED));
    }

    #[tokio::test]
    async fn a_shutdown_sends_what_waits_first() {
        let (mut io, _sender, mut far) = pair(1 << 20);
        io.write_all(b"last").await.unwrap();
        let reading = tokio::spawn(async move {
            let mut bytes = Vec::new();
            far.read_to_end(&mut bytes).await.unwrap();
            bytes
        });
        io.shutdown().await.unwrap();
        assert_eq!(reading.await.unwrap(), b"last");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_what_waits_is_not_idle() {
        let (near, mut far) = duplex(1 << 10);
        let activity = Arc::new(ConnectionActivity::new(Protocol::Http2));
        let (mut io, sender) = Http2Io::new(near, Arc::clone(&activity));
        activity.begin();
        activity.end();
        io.write_all(&[b'a'; MAX_COPIED]).await.unwrap();
        let idle_timeout = Duration::from_secs(4);
        let settings = Settings { idle_timeout, ..Settings::default() };
        let mut timer = IdleTimer::new(Instant::now(), &settings);
        let mut driver = poll_fn(|cx| {
            let _pending_or_sent = sender.poll_send(cx);
            timer.poll(cx, &activity)
        });
        for _ in 1..MAX_COPIED >> 10 {
            assert!(tokio::time::timeout(3 * idle_timeout / 4, &mut driver).await.is_err());
            assert_eq!(far.read_exact(&mut [0; 1 << 10]).await.unwrap(), 1 << 10);
        }
        let started = Instant::now();
        assert_eq!(driver.await, TimeoutKind::Idle);
        assert!((4..=5).contains(&started.elapsed().as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_pings_do_not_keep_a_connection() {
        let (near, _far) = duplex(1 << 20);
        let activity = Arc::new(ConnectionActivity::new(Protocol::Http2));
        let (mut io, sender) = Http2Io::new(near, Arc::clone(&activity));
        activity.begin();
        activity.end();
        let idle_timeout = Duration::from_secs(4);
        let settings = Settings { idle_timeout, ..Settings::default() };
        let started = Instant::now();
        let mut timer = IdleTimer::new(started, &settings);
        let mut driver = poll_fn(|cx| {
            let _sent = sender.poll_send(cx);
            timer.poll(cx, &activity)
        });
        let mut end = None;
        for _ in 0..20 {
            io.write_all(b"pong").await.unwrap();
            end = tokio::time::timeout(idle_timeout / 4, &mut driver).await.ok();
            if end.is_some() {
                break;
            }
        }
        assert_eq!(end, Some(TimeoutKind::Idle));
        assert!((4..=5).contains(&started.elapsed().as_secs()));
    }

    #[tokio::test]
    async fn a_client_that_is_gone_is_an_error() {
        let (mut io, sender, far) = pair(1 << 20);
        drop(far);
        io.write_all(b"a").await.unwrap();
        assert!(poll_fn(|cx| sender.poll_send(cx)).await.is_err());
    }
}
