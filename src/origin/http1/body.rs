//! Response bodies over HTTP/1.1.

use std::{
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncReadExt, ReadHalf, WriteHalf},
    sync::oneshot,
};

use super::{
    chunked::{ChunkedDecoder, DecodedPart},
    connection::Http1Connection,
    outgoing::RequestWriter,
    response::ResponseLength,
};
use crate::{
    origin::{capacity::ConnectionPermit, request_body::UPLOAD_GRACE, upgrade::UpgradedConnection},
    server::stream::Stream,
};

/// Maximum buffer space reserved for one read, in bytes.
const MAX_READ_BYTES: usize = 64 * 1024;
/// Buffer space reserved for one read if the remaining length is unknown, in bytes.
const DEFAULT_READ_BYTES: usize = 16 * 1024;
/// Minimum free buffer space before a read, in bytes. If less is free, the buffer grows.
const MIN_READ_BYTES: usize = 2 * 1024;

/// The content of a response, which follows its head.
pub(in crate::origin) enum ResponseContent {
    /// The whole body, and the connection if it can be reused.
    Whole(Bytes, Option<Box<Http1Connection>>),
    /// A body that is still being received.
    Streaming(Http1Body),
    /// A connection that has switched protocols.
    Upgraded(UpgradedConnection),
}

/// A response body that has not been received completely.
pub(in crate::origin) struct Http1Body {
    source: ReadSource,
    received: BytesMut,
    framing: BodyFraming,
    persists: bool,
}

/// The connection from which the remaining bytes are read, or its read half.
enum ReadSource {
    /// A connection whose request has been sent completely.
    Connection(Box<Http1Connection>),
    /// The read half of a connection that is still sending the request. The connection is not
    /// reused. `ended` stops the sender when the response has ended.
    ReadHalf {
        read: ReadHalf<Stream>,
        ended: Option<oneshot::Sender<()>>,
        _permit: ConnectionPermit,
    },
}

#[derive(Debug)]
enum BodyFraming {
    Known(u64),
    Chunked(Box<ChunkedDecoder>),
    UntilClose,
    Done,
}

/// The reason why a response body failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::origin) enum Http1BodyError {
    /// The connection failed, or ended before the body did.
    #[error("the connection closed early")]
    Io(#[source] io::Error),
    #[error("invalid HTTP: {0}")]
    Invalid(&'static str),
}

impl Http1Body {
    /// Returns the content that follows a head. `rest` holds the bytes received with the head;
    /// `unsent` is the unsent part of the request.
    pub(super) fn begin(
        connection: Box<Http1Connection>,
        (length, persists): (ResponseLength, bool),
        mut rest: Bytes,
        unsent: Option<RequestWriter>,
    ) -> ResponseContent {
        if let (ResponseLength::Known(length), None) = (length, &unsent)
            && let Ok(length) = usize::try_from(length)
            && length <= rest.len()
        {
            let whole = rest.split_to(length);
            let is_clean = persists && rest.is_empty();
            return ResponseContent::Whole(whole, is_clean.then_some(connection));
        }
        let framing = match length {
            ResponseLength::Known(0) => BodyFraming::Done,
            ResponseLength::Known(length) => BodyFraming::Known(length),
            ResponseLength::Chunked => BodyFraming::Chunked(Box::default()),
            ResponseLength::UntilClose => BodyFraming::UntilClose,
        };
        let source = match unsent {
            None => ReadSource::Connection(connection),
            Some(outgoing) => split_sending(*connection, outgoing),
        };
        ResponseContent::Streaming(Self {
            source,
            received: BytesMut::from(rest),
            framing,
            persists,
        })
    }

    /// Returns whether the body has ended properly.
    pub(in crate::origin) fn is_end_stream(&self) -> bool {
        matches!(self.framing, BodyFraming::Done)
    }

    pub(in crate::origin) fn size_hint(&self) -> SizeHint {
        match self.framing {
            BodyFraming::Known(left) => SizeHint::with_exact(left),
            BodyFraming::Done => SizeHint::with_exact(0),
            BodyFraming::Chunked(_) | BodyFraming::UntilClose => SizeHint::default(),
        }
    }

    /// Returns the connection if the body was read to its end and the connection can be reused,
    /// else `None`.
    pub(in crate::origin) fn into_connection(self) -> Option<Box<Http1Connection>> {
        let is_clean = self.persists && self.is_end_stream() && self.received.is_empty();
        match self.source {
            ReadSource::Connection(connection) => is_clean.then_some(connection),
            ReadSource::ReadHalf { ended, .. } => {
                ended.and_then(|ended| ended.send(()).ok());
                None
            }
        }
    }

    pub(in crate::origin) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Http1BodyError>>> {
        loop {
            match self.take() {
                Ok(Some(DecodedPart::Data(data))) => {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Some(DecodedPart::Trailers(fields))) => {
                    self.framing = BodyFraming::Done;
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Some(DecodedPart::End)) => {
                    self.framing = BodyFraming::Done;
                    return Poll::Ready(None);
                }
                Ok(None) => {}
                Err(reason) => return Poll::Ready(Some(Err(Http1BodyError::Invalid(reason)))),
            }
            match ready!(self.poll_receive(cx)) {
                Ok(0) if matches!(self.framing, BodyFraming::UntilClose) => {
                    self.framing = BodyFraming::Done;
                }
                Ok(0) => {
                    let end = Http1BodyError::Io(io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Some(Err(end)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(Http1BodyError::Io(error)))),
            }
        }
    }

    /// Returns the next part of the body from the received bytes; `None` if more bytes are needed.
    fn take(&mut self) -> Result<Option<DecodedPart>, &'static str> {
        match &mut self.framing {
            BodyFraming::Done => Ok(Some(DecodedPart::End)),
            BodyFraming::Chunked(chunked) => chunked.next(&mut self.received),
            _ if self.received.is_empty() => Ok(None),
            BodyFraming::UntilClose => Ok(Some(DecodedPart::Data(self.received.split().freeze()))),
            BodyFraming::Known(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.received.len());
                *left = left.saturating_sub(here as u64);
                if *left == 0 {
                    self.framing = BodyFraming::Done;
                }
                Ok(Some(DecodedPart::Data(self.received.split_to(here).freeze())))
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = match self.framing {
            BodyFraming::Known(left) => {
                usize::try_from(left).unwrap_or(usize::MAX).min(MAX_READ_BYTES)
            }
            _ => DEFAULT_READ_BYTES,
        };
        let room = self.received.capacity() - self.received.len();
        if room < wanted.min(MIN_READ_BYTES) {
            self.received.reserve(wanted);
        }
        match &mut self.source {
            ReadSource::Connection(connection) => {
                pin!(connection.stream.read_buf(&mut self.received)).poll(cx)
            }
            ReadSource::ReadHalf { read, .. } => pin!(read.read_buf(&mut self.received)).poll(cx),
        }
    }
}

/// Splits a connection so that the request can be sent while its response is read.
fn split_sending(connection: Http1Connection, outgoing: RequestWriter) -> ReadSource {
    let Http1Connection { stream, permit, .. } = connection;
    let (read, write) = tokio::io::split(stream);
    let (ended, end) = oneshot::channel();
    tokio::spawn(send_rest(outgoing, write, end));
    ReadSource::ReadHalf { read, ended: Some(ended), _permit: permit }
}

async fn send_rest(
    mut outgoing: RequestWriter,
    mut wire: WriteHalf<Stream>,
    end: oneshot::Receiver<()>,
) {
    let mut sending = pin!(std::future::poll_fn(|cx| outgoing.poll(&mut wire, cx)));
    let is_over = tokio::select! {
        _ = &mut sending => return,
        // The channel closes without a message if the response is dropped early.
        end = end => end.is_ok(),
    };
    if is_over {
        drop(tokio::time::timeout(UPLOAD_GRACE, sending).await);
    }
}
