//! The byte stream below hyper's HTTP/1: validates framing, responds to plain requests, writes
//! interim responses, lingers at the close.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    activity::ConnectionActivity,
    deferred::{NeedsHyper, PollDeferred},
    drain::{DrainGuard, DrainPhase},
    fast_path::FastPath,
    framing::FramingValidator,
    immediate::ResponseBatch,
    interim::InterimChannel,
    linger::Linger,
    parse_error,
    slow_reader::Http1Reader,
    stream::Stream,
};
use crate::body_file::BodyFile;

/// Maximum total length of slices that are joined before they are written. Copying a small response
/// is cheaper than a vectored write.
const COALESCE_BYTES: usize = 8 * 1024;

/// Maximum number of reads, and of deferred responses, that the fast path serves before other
/// connections get their turn.
const MAX_BATCHES: usize = 8;

thread_local! {
    static COALESCE_BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(COALESCE_BYTES));
    static BATCH: RefCell<ResponseBatch> = RefCell::new(ResponseBatch::default());
}

/// The byte stream of a client that hyper's HTTP/1 reads and writes.
pub(super) struct Http1Io(Arc<Mutex<Http1Stream>>);

/// Responds to plain requests on an [`Http1Io`] without polling hyper.
pub(super) struct PlainRequests(Arc<Mutex<Http1Stream>>);

#[repr(C)] // What each request reads comes first, in few cache lines.
struct Http1Stream {
    activity: Arc<ConnectionActivity>,
    channel: Arc<InterimChannel>,
    /// Counts the connection as open, even if it becomes a tunnel.
    drain_guard: DrainGuard,
    /// The number of requests whose responses have been written completely.
    answered: u32,
    /// Whether hyper waits for bytes to read. Between requests, it then has nothing else to do.
    hyper_waits: bool,
    /// Whether `deferred` has the response to the last request.
    is_deferred: bool,
    /// Whether bytes of responses wait for the client: in the stream, as with TLS until a flush, or
    /// in hyper.
    is_unflushed: bool,
    /// The number of requests when hyper last had to wait for the end of the client's stream; `None`
    /// before the end.
    end_held_at: Option<u32>,
    /// Bytes that Larder itself is writing. No bytes from hyper may come between them.
    outgoing: OutgoingBytes,
    close: CloseState,
    fast_path: FastPath,
    framing: FramingValidator,
    stream: Stream,
    reader: Http1Reader,
    deferred: Arc<dyn PollDeferred>,
    /// What hyper reads next. Empty bytes are the end of the stream.
    for_hyper: Option<io::Result<Bytes>>,
}

/// Bytes to write, and a body to write after them.
#[derive(Default)]
struct OutgoingBytes(Option<Box<UnsentBytes>>);

/// At least one byte that is not sent yet.
struct UnsentBytes {
    bytes: Bytes,
    /// The rest of the body.
    body: Bytes,
    /// A file that ends with the rest of the body, if there is one.
    file: Option<Arc<BodyFile>>,
}

impl OutgoingBytes {
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the rest of a batch after its first `written` bytes.
    fn of_rest(batch: &ResponseBatch, mut written: usize) -> Self {
        let rest = batch.bytes.get(written..).unwrap_or_default();
        written = written.saturating_sub(batch.bytes.len());
        let mut body = batch.body.clone();
        body.advance(written.min(body.len()));
        Self::new(Bytes::copy_from_slice(rest), body, batch.file.clone())
    }

    fn new(bytes: Bytes, body: Bytes, file: Option<Arc<BodyFile>>) -> Self {
        let is_empty = bytes.is_empty() && body.is_empty();
        Self((!is_empty).then(|| Box::new(UnsentBytes { bytes, body, file })))
    }

    fn advance(&mut self, written: usize) {
        let Some(unsent) = &mut self.0 else { return };
        let first = written.min(unsent.bytes.len());
        unsent.bytes.advance(first);
        unsent.body.advance((written - first).min(unsent.body.len()));
        if unsent.bytes.is_empty() && unsent.body.is_empty() {
            self.0 = None;
        }
    }
}

impl From<Vec<u8>> for OutgoingBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(bytes.into(), Bytes::new(), None)
    }
}

enum CloseState {
    Open,
    /// hyper has begun to close the stream.
    Closing,
    Lingering(Box<Linger>),
    Closed,
}

impl Http1Io {
    pub(super) fn new(
        stream: Stream,
        (framing, fast_path): (FramingValidator, FastPath),
        (activity, channel): (Arc<ConnectionActivity>, Arc<InterimChannel>),
        (reader, deferred): (Http1Reader, Arc<dyn PollDeferred>),
        drain_guard: DrainGuard,
    ) -> (Self, PlainRequests) {
        let stream = Http1Stream {
            activity,
            channel,
            drain_guard,
            answered: 0,
            hyper_waits: false,
            is_deferred: false,
            is_unflushed: false,
            end_held_at: None,
            outgoing: OutgoingBytes::default(),
            close: CloseState::Open,
            fast_path,
            framing,
            stream,
            reader,
            deferred,
            for_hyper: None,
        };
        let shared = Arc::new(Mutex::new(stream));
        (Self(Arc::clone(&shared)), PlainRequests(shared))
    }
}

impl PlainRequests {
    /// Responds to plain requests as they arrive. Completes if hyper has to be polled. Otherwise
    /// hyper waits for a request, and so has nothing to do.
    pub(super) fn poll_until_other(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().poll_until_other(cx)
    }

    /// Returns whether the response to a request that hyper has not read is deferred.
    pub(super) fn is_deferred(&self) -> bool {
        self.0.lock().is_deferred
    }
}

/// Validates the next bytes of a connection.
#[inline]
fn observe(framing: &mut FramingValidator, activity: &ConnectionActivity, fresh: &[u8]) {
    if activity.is_tunnel() {
        framing.stop();
        return;
    }
    let was_inside_head = framing.is_inside_head();
    framing.feed(fresh);
    let heads = framing.head_count();
    activity.set_heads(heads, framing.refused());
    let is_inside_head = framing.is_inside_head();
    if was_inside_head || is_inside_head {
        let number = if is_inside_head { heads.wrapping_add(1) } else { 0 };
        activity.set_unfinished_head(number);
    }
}

impl Http1Stream {
    fn poll_until_other(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..MAX_BATCHES {
            if self.is_deferred {
                match ready!(self.poll_deferred(cx)) {
                    Ok(Ok(())) => {}
                    Ok(Err(NeedsHyper)) => {
                        let head = Bytes::from_static(self.deferred.head_for_hyper());
                        return self.hand_to_hyper(Ok(head));
                    }
                    Err(error) => return self.hand_to_hyper(Err(error)),
                }
            }
            if !self.hyper_waits || !self.is_between_requests() {
                return Poll::Ready(());
            }
            let mut rest = Bytes::new();
            let take = |bytes: &[u8]| rest = Bytes::copy_from_slice(bytes);
            let read = ready!(self.poll_read_between(cx, (usize::MAX, true), take));
            if !self.is_deferred {
                return self.hand_to_hyper(read.map(|()| rest));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sets what hyper reads next. Completes, since hyper then has to be polled.
    fn hand_to_hyper(&mut self, read: io::Result<Bytes>) -> Poll<()> {
        (self.hyper_waits, self.is_deferred) = (false, false);
        self.for_hyper = Some(read);
        Poll::Ready(())
    }

    /// Sends the deferred response once it is ready. Hands over to hyper if hyper has to send it, or
    /// if the client meanwhile sends or closes.
    fn poll_deferred(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Result<(), NeedsHyper>>> {
        BATCH.with_borrow_mut(|batch| {
            batch.clear();
            match self.deferred.poll_append(cx, batch) {
                Poll::Ready(Ok(())) => {
                    self.is_deferred = false;
                    self.answered = self.answered.wrapping_add(1);
                    let sent = self.send_batch(cx, batch);
                    batch.clear();
                    Poll::Ready(sent.map(Ok))
                }
                Poll::Ready(Err(NeedsHyper)) => Poll::Ready(Ok(Err(NeedsHyper))),
                Poll::Pending => {
                    ready!(self.stream.poll_readable(cx));
                    Poll::Ready(Ok(Err(NeedsHyper)))
                }
            }
        })
    }

    /// Records the result of a write to the client. Fails if the client does not read.
    fn judge_write(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
        length: usize,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending if !self.activity.is_tunnel() => self.poll_unread(cx, length).map(Err),
            Poll::Ready(Ok(bytes)) => {
                self.reader.note_taken(bytes);
                written
            }
            _ => written,
        }
    }

    /// Waits for a client to read a response with `left` bytes to write. Completes with an error if
    /// the client does not read. Meanwhile the connection is not idle, although hyper may have ended
    /// the request; it flushes when the client has read enough.
    fn poll_unread(&mut self, cx: &mut Context<'_>, left: usize) -> Poll<io::Error> {
        self.is_unflushed = true;
        self.activity.set_sending(true);
        ready!(self.reader.poll_blocked(cx, (left, self.stream.sent_below_tls())));
        self.activity.reset_at_close();
        self.outgoing = OutgoingBytes::default();
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    /// Returns the replacement for hyper's own error response, or `None` if `bytes` are something
    /// else, such as a body with the same bytes. hyper writes its error response only outside a
    /// tunnel and after all earlier responses.
    fn parse_error_response(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let response = parse_error::replacement_for(bytes)?;
        let is_hyper_response = self.activity.requests_answered() == Some(self.answered);
        (is_hyper_response && !self.activity.is_tunnel()).then_some(response)
    }

    fn poll_outgoing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.drain_guard.has_reached(DrainPhase::Draining) {
            // A client that is still receiving may send further requests, also after the close. They
            // would cause a reset.
            self.activity.linger_at_close();
        }
        while let Some(unsent) = &self.outgoing.0 {
            let UnsentBytes { bytes, body, file } = &**unsent;
            let left = bytes.len() + body.len();
            let written = if bytes.is_empty() {
                self.stream.poll_write_body(cx, body, file.as_deref())
            } else {
                Pin::new(&mut self.stream).poll_write(cx, bytes)
            };
            let written = ready!(self.judge_write(cx, written, left))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.advance(written);
        }
        self.reader.rest();
        self.activity.set_sending(false);
        self.channel.mark_written();
        self.release_end(cx);
        Poll::Ready(Ok(()))
    }

    /// Returns whether hyper waits for a head, all earlier requests were read, and their responses
    /// were written. The fast path may then respond to the next request.
    fn is_between_requests(&self) -> bool {
        self.fast_path.is_on(&self.framing)
            && self.activity.requests_answered() == Some(self.answered)
            && self.framing.head_count() == self.answered
            && matches!(self.close, CloseState::Open)
            && !self.activity.is_tunnel()
            && !self.activity.should_reset()
            && !self.channel.is_queued()
            && !self.drain_guard.has_reached(DrainPhase::Leaving)
    }

    /// Responds to plain requests as they arrive, until a request needs hyper, the stream ends, or,
    /// if `waits`, a response is deferred. Passes the bytes for hyper to `take`, if there are any.
    ///
    /// Reads nothing while the client does not read its responses.
    fn poll_read_between(
        &mut self,
        cx: &mut Context<'_>,
        (room, waits): (usize, bool),
        mut take: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        for _ in 0..MAX_BATCHES {
            if !self.outgoing.is_empty() || self.is_unflushed {
                ready!(self.poll_responses(cx))?;
            }
            let is_over = BATCH.with_borrow_mut(|batch| {
                batch.clear();
                batch.waits = waits;
                self.poll_read_batch(cx, room, batch, &mut take)
            });
            if ready!(is_over)? {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, and sends responses to the first requests if the fast path takes them. Passes
    /// the remaining bytes to `take`. Returns whether hyper has to read them, or the end of the
    /// stream, or whether a response is deferred.
    fn poll_read_batch(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        batch: &mut ResponseBatch,
        take: &mut impl FnMut(&[u8]),
    ) -> Poll<io::Result<bool>> {
        batch.sends_files = self.stream.sends_files();
        let Self { stream, framing, fast_path, activity, .. } = self;
        let (mut answered, mut has_rest) = (0, false);
        let read = ready!(stream.poll_read_head(cx, room, |bytes| {
            let heads = framing.head_count();
            let rest = fast_path.respond(framing, bytes, batch);
            answered = framing.head_count().wrapping_sub(heads);
            observe(framing, activity, rest);
            if !rest.is_empty() {
                has_rest = true;
                take(rest);
            }
        }))?;
        if !batch.is_empty() {
            self.activity.count_answered(answered);
            self.answered = self.answered.wrapping_add(answered);
            let sent = self.send_batch(cx, batch);
            // Frees the body now, not at this thread's next batch.
            batch.clear();
            sent?;
        } else if answered > 0 {
            self.is_deferred = true;
        }
        Poll::Ready(Ok(has_rest || read == 0 || self.is_deferred))
    }

    /// Sends as much of a batch as the stream accepts. Keeps the rest in `outgoing`.
    fn send_batch(&mut self, cx: &mut Context<'_>, batch: &ResponseBatch) -> io::Result<()> {
        let mut stream = Pin::new(&mut self.stream);
        let written = if let Some(file) = &batch.file {
            stream.poll_write_with_file(cx, &batch.bytes, (&batch.body, file))
        } else if batch.body.is_empty() {
            stream.as_mut().poll_write(cx, &batch.bytes)
        } else {
            let slices = [IoSlice::new(&batch.bytes), IoSlice::new(&batch.body)];
            stream.as_mut().poll_write_vectored(cx, &slices)
        };
        let written = match written {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        self.reader.note_taken(written);
        if written < batch.bytes.len() + batch.body.len() {
            self.outgoing = OutgoingBytes::of_rest(batch, written);
            self.activity.set_sending(true);
        }
        let _may_wait = self.poll_responses(cx)?;
        Ok(())
    }

    /// Sends the outgoing bytes, and flushes the stream: under TLS, a record may still be buffered.
    fn poll_responses(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.outgoing.is_empty() {
            ready!(self.poll_outgoing(cx))?;
        }
        self.poll_flush_stream(cx)
    }

    /// Flushes the stream. Fails if the client does not read.
    fn poll_flush_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() && !self.activity.is_tunnel() {
            return self.poll_unread(cx, 0).map(Err);
        }
        if self.is_unflushed {
            self.is_unflushed = false;
            self.reader.rest();
            self.activity.set_sending(false);
            self.release_end(cx);
        }
        flushed
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.hyper_waits = false;
        if let Some(read) = self.for_hyper.take() {
            let mut bytes = read?;
            buf.put_slice(&bytes.split_to(bytes.len().min(buf.remaining())));
            self.for_hyper = (!bytes.is_empty()).then_some(Ok(bytes));
            return Poll::Ready(Ok(()));
        }
        let read = if self.is_between_requests() {
            let room = (buf.remaining(), false);
            self.poll_read_between(cx, room, |bytes| buf.put_slice(bytes))
        } else {
            self.poll_read_within(cx, buf)
        };
        // hyper does not read again while it waits, not even after a response.
        self.hyper_waits = read.is_pending();
        read
    }

    /// Reads what belongs to a request that hyper has begun to read, or follows it.
    fn poll_read_within(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // If the client has sent its last request, hyper closes the connection after this read.
        if !self.outgoing.is_empty() {
            ready!(self.poll_responses(cx))?;
        }
        let before = buf.filled().len();
        let read = if self.framing.expects_head() {
            let room = buf.remaining();
            let read = self.stream.poll_read_head(cx, room, |bytes| buf.put_slice(bytes));
            ready!(read).map(drop)
        } else {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))
        };
        match read {
            // The end of TCP without that of TLS: a request that it cuts off is incomplete anyway.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            read => read?,
        }
        let fresh = buf.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() && self.holds_end(cx) {
            return Poll::Pending;
        }
        observe(&mut self.framing, &self.activity, fresh);
        Poll::Ready(Ok(()))
    }

    /// Returns whether hyper must not see the end of the client's stream yet. hyper takes it for a
    /// disconnect and drops the response, but a client may also end its stream after its last
    /// request. So a response is sent if it is known by the time of the end.
    fn holds_end(&mut self, cx: &mut Context<'_>) -> bool {
        let requests = self.activity.requests_begun();
        if self.end_held_at != Some(requests) {
            self.end_held_at = Some(requests);
            // hyper writes the response to the last request, if there is one already.
            cx.waker().wake_by_ref();
            return true;
        }
        !self.outgoing.is_empty() || self.is_unflushed
    }

    /// Has hyper read again if it has not seen the end of the client's stream for what was to be
    /// written.
    fn release_end(&self, cx: &mut Context<'_>) {
        if self.end_held_at.is_some() {
            cx.waker().wake_by_ref();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.outgoing.is_empty() {
            ready!(self.poll_outgoing(cx))?;
        }
        if let Some(response) = self.parse_error_response(bytes) {
            self.outgoing = response.into();
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge_write(cx, written, bytes.len())
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if !self.outgoing.is_empty() {
            ready!(self.poll_outgoing(cx))?;
        }
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if let Some(first) = slices.first().filter(|first| first.len() == length)
            && let Some(response) = self.parse_error_response(first)
        {
            self.outgoing = response.into();
            return Poll::Ready(Ok(length));
        }
        let stream = Pin::new(&mut self.stream);
        let written = if length <= COALESCE_BYTES {
            COALESCE_BUFFER.with_borrow_mut(|coalesced| {
                coalesced.clear();
                for slice in slices {
                    coalesced.extend_from_slice(slice);
                }
                stream.poll_write(cx, coalesced)
            })
        } else {
            stream.poll_write_vectored(cx, slices)
        };
        self.judge_write(cx, written, length)
    }

    /// Flushes the stream, and writes queued interim responses first. hyper calls this when its own
    /// buffer is empty: between two responses, or before a final response. Only then may interim
    /// responses be written.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.is_empty() && !self.is_unflushed {
            self.reader.rest();
        }
        loop {
            if self.channel.is_queued() && self.outgoing.is_empty() {
                self.outgoing = self.channel.take().into();
                if self.outgoing.is_empty() {
                    self.channel.mark_written();
                }
            }
            if self.outgoing.is_empty() {
                break;
            }
            ready!(self.poll_outgoing(cx))?;
        }
        ready!(self.poll_flush_stream(cx))?;
        // hyper ends the message only after this flush, and may then close the connection.
        if let Some(answered) = self.activity.requests_answered() {
            self.answered = answered;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.should_reset() {
            return Poll::Ready(Ok(()));
        }
        if matches!(self.close, CloseState::Open | CloseState::Closing) {
            self.close = CloseState::Closing;
            if !self.outgoing.is_empty() {
                ready!(self.poll_responses(cx))?;
            }
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.close = CloseState::Closed;
            if self.activity.should_linger() || self.stream.has_unread() {
                self.close = CloseState::Lingering(Box::new(Linger::new()));
            }
        }
        if let CloseState::Lingering(linger) = &mut self.close {
            ready!(linger.poll(cx, &mut self.stream));
        }
        self.close = CloseState::Closed;
        Poll::Ready(Ok(()))
    }
}

impl Drop for Http1Stream {
    fn drop(&mut self) {
        if self.activity.should_reset() {
            self.stream.reset_at_close();
        }
        self.channel.abandon();
    }
}

impl AsyncRead for Http1Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.lock().poll_read(cx, buf)
    }
}

impl AsyncWrite for Http1Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        net::{IpAddr, Ipv4Addr},
        sync::LazyLock,
        task::Waker,
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::{
        super::{
            Drain, ListenerCounters, Settings,
            fast_path::FastPathMode,
            framing::HeadLimits,
            immediate::{Declined, ImmediateResponder, PlainRequest},
            stream::{Protocol, Transport},
        },
        *,
    };

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

    /// More than all buffers between server and client take.
    static BODY: LazyLock<Bytes> = LazyLock::new(|| vec![b'x'; 32 << 20].into());

    struct Huge;

    impl ImmediateResponder for Huge {
        fn respond(
            &mut self,
            _: &PlainRequest<'_>,
            batch: &mut ResponseBatch,
        ) -> Result<(), Declined> {
            batch.head().extend_from_slice(HEAD);
            batch.push_body(&BODY, || BODY.clone());
            Ok(())
        }
    }

    struct NothingDeferred;

    impl PollDeferred for NothingDeferred {
        fn poll_append(
            &self,
            _: &mut Context<'_>,
            _: &mut ResponseBatch,
        ) -> Poll<Result<(), NeedsHyper>> {
            Poll::Ready(Ok(()))
        }

        fn head_for_hyper(&self) -> &'static [u8] {
            b""
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_was_read_slowly_does_not_count_as_unread_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut client, server) = (client.unwrap(), accepted.unwrap().0);
        let peer = Some(IpAddr::from(Ipv4Addr::LOCALHOST));
        let counters = Arc::<ListenerCounters>::default();
        let unread = counters.unread.of(peer);
        let limits = HeadLimits { header_bytes: 1000, header_count: 8, target_bytes: 100 };
        let fast_path = FastPath::new(FastPathMode::On, Box::new(|_| Some(Box::new(Huge))));
        let (mut io, plain_requests) = Http1Io::new(
            Transport::Tcp(server).into(),
            (FramingValidator::new(limits), fast_path),
            (Arc::new(ConnectionActivity::new(Protocol::Http1)), Arc::default()),
            (
                Http1Reader::new(Arc::new(Settings::default()), Arc::clone(&counters), peer),
                Arc::new(NothingDeferred),
            ),
            Drain::new().register(Waker::noop()),
        );
        let mut bytes = [0; 100];
        let hyper = poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut bytes);
            Poll::Ready(Pin::new(&mut io).poll_read(cx, &mut buf))
        });
        assert!(hyper.await.is_pending(), "no request yet");
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::spawn(async move {
            poll_fn(|cx| plain_requests.poll_until_other(cx)).await;
            drop(io);
        });
        while !unread.is_over_limit() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut response = vec![0; HEAD.len() + BODY.len()];
        client.read_exact(&mut response).await.unwrap();
        assert!(response.ends_with(&BODY));
        assert!(!unread.is_over_limit());
    }
}
