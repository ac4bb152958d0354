//! The body of a response, read by whoever wants it.

use std::{
    io,
    pin::pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncReadExt, ReadHalf, WriteHalf},
    sync::oneshot,
};

use super::{
    Connection, Content,
    chunked::{Chunked, Piece},
    outgoing::Outgoing,
    response::Length,
};
use crate::{origin::capacity::Permit, server::stream::Stream};

/// Room for one read at most.
const READ_BYTES: usize = 64 * 1024;
/// Room for one read where nothing tells how much will come.
const USUAL_BYTES: usize = 16 * 1024;
/// Less room than this is not worth a read.
const LEAST_BYTES: usize = 2 * 1024;

/// After the end of its response, a request that is still being sent may take this long.
const SETTLING: Duration = Duration::from_secs(5);

/// A body that is not there yet, or not all of it.
pub(crate) struct Body {
    source: Source,
    received: BytesMut,
    reading: Reading,
    persists: bool,
}

/// Where the bytes come from.
enum Source {
    /// A connection that has sent its request.
    Settled(Box<Connection>),
    /// One that still sends; not used again. The channel tells the sender when the response is over.
    Busy { read: ReadHalf<Stream>, ended: Option<oneshot::Sender<()>>, _permit: Permit },
}

#[derive(Debug)]
enum Reading {
    Known(u64),
    Chunked(Box<Chunked>),
    UntilClose,
    Done,
}

/// Why a body breaks off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection failed, or ended before the body did.
    #[error("the connection ended")]
    Io(#[source] io::Error),
    /// What came is not HTTP.
    #[error("it is not HTTP: {0}")]
    Invalid(&'static str),
}

impl Body {
    /// What follows a head, of which `rest` has come already; `unsent` is what is left of the request.
    pub(super) fn begin(
        connection: Box<Connection>,
        (length, persists): (Length, bool),
        mut rest: Bytes,
        unsent: Option<Outgoing>,
    ) -> Content {
        if let (Length::Known(length), None) = (length, &unsent)
            && let Ok(length) = usize::try_from(length)
            && length <= rest.len()
        {
            let whole = rest.split_to(length);
            let is_clean = persists && rest.is_empty();
            return Content::Whole(whole, is_clean.then_some(connection));
        }
        let reading = match length {
            Length::Known(0) => Reading::Done,
            Length::Known(length) => Reading::Known(length),
            Length::Chunked => Reading::Chunked(Box::default()),
            Length::UntilClose => Reading::UntilClose,
        };
        let source = match unsent {
            None => Source::Settled(connection),
            Some(outgoing) => busy(*connection, outgoing),
        };
        Content::Coming(Self { source, received: BytesMut::from(rest), reading, persists })
    }

    /// Whether it has ended as it should.
    pub(crate) fn is_end_stream(&self) -> bool {
        matches!(self.reading, Reading::Done)
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.reading {
            Reading::Known(left) => SizeHint::with_exact(left),
            Reading::Done => SizeHint::with_exact(0),
            Reading::Chunked(_) | Reading::UntilClose => SizeHint::default(),
        }
    }

    /// The connection of a body that has been read to its end, where it can be used again.
    pub(crate) fn into_connection(self) -> Option<Box<Connection>> {
        let is_clean = self.persists && self.is_end_stream() && self.received.is_empty();
        match self.source {
            Source::Settled(connection) => is_clean.then_some(connection),
            Source::Busy { ended, .. } => {
                ended.and_then(|ended| ended.send(()).ok());
                None
            }
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.take() {
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::Trailers(fields))) => {
                    self.reading = Reading::Done;
                    return Poll::Ready(Some(Ok(Frame::trailers(fields))));
                }
                Ok(Some(Piece::End)) => {
                    self.reading = Reading::Done;
                    return Poll::Ready(None);
                }
                Ok(None) => {}
                Err(reason) => return Poll::Ready(Some(Err(BodyError::Invalid(reason)))),
            }
            match ready!(self.poll_receive(cx)) {
                Ok(0) if matches!(self.reading, Reading::UntilClose) => {
                    self.reading = Reading::Done;
                }
                Ok(0) => {
                    let end = BodyError::Io(io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Some(Err(end)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Io(error)))),
            }
        }
    }

    /// The next piece of what has been received.
    fn take(&mut self) -> Result<Option<Piece>, &'static str> {
        match &mut self.reading {
            Reading::Done => Ok(Some(Piece::End)),
            Reading::Chunked(chunked) => chunked.next(&mut self.received),
            _ if self.received.is_empty() => Ok(None),
            Reading::UntilClose => Ok(Some(Piece::Data(self.received.split().freeze()))),
            Reading::Known(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.received.len());
                *left = left.saturating_sub(here as u64);
                if *left == 0 {
                    self.reading = Reading::Done;
                }
                Ok(Some(Piece::Data(self.received.split_to(here).freeze())))
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wanted = match self.reading {
            Reading::Known(left) => usize::try_from(left).unwrap_or(usize::MAX).min(READ_BYTES),
            _ => USUAL_BYTES,
        };
        let room = self.received.capacity() - self.received.len();
        if room < wanted.min(LEAST_BYTES) {
            self.received.reserve(wanted);
        }
        match &mut self.source {
            Source::Settled(connection) => {
                pin!(connection.stream.read_buf(&mut self.received)).poll(cx)
            }
            Source::Busy { read, .. } => pin!(read.read_buf(&mut self.received)).poll(cx),
        }
    }
}

/// Lets what is left of a request be sent while its response is being read.
fn busy(connection: Connection, outgoing: Outgoing) -> Source {
    let Connection { stream, permit, .. } = connection;
    let (read, write) = tokio::io::split(stream);
    let (ended, end) = oneshot::channel();
    tokio::spawn(send_rest(outgoing, write, end));
    Source::Busy { read, ended: Some(ended), _permit: permit }
}

async fn send_rest(
    mut outgoing: Outgoing,
    mut wire: WriteHalf<Stream>,
    end: oneshot::Receiver<()>,
) {
    let mut sending = pin!(std::future::poll_fn(|cx| outgoing.poll(&mut wire, cx)));
    let is_over = tokio::select! {
        _ = &mut sending => return,
        // Without a word where the response is given up.
        end = end => end.is_ok(),
    };
    if is_over {
        drop(tokio::time::timeout(SETTLING, sending).await);
    }
}
