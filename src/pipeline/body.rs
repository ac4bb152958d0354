//! The body of a response to a client. When the body ends, the request is accounted for.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;

use super::{
    finish::RequestAccounting,
    observed_body::ObservedBody,
    range_body::RangeBody,
    tee::{TeeReader, TruncatedBody},
};
use crate::origin::ResponseBody;

type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// A response body. Its request is counted and logged exactly once, when the body ends or the
/// client disconnects.
pub(crate) struct DeliveredBody {
    content: BodyContent,
    accounting: Option<Box<RequestAccounting>>,
}

/// The source of a body.
///
/// Large variants are boxed, because every response is moved through several functions.
pub(crate) enum BodyContent {
    Empty,
    /// A complete body.
    Full(Bytes),
    /// A complete body followed by trailers.
    FullWithTrailers(Box<(Bytes, HeaderMap)>),
    /// A body that is also being stored.
    Tee(TeeReader),
    /// One range of a body that is also being stored.
    Range(RangeBody),
    /// A body passed through from the origin.
    Origin(ResponseBody),
    /// A body passed through from the origin, and observed until its end.
    Observed(Box<ObservedBody>),
    /// A body that Larder generates, possibly without an end.
    Generated(UnsyncBoxBody<Bytes, Infallible>),
    /// No body. The head announces this length (HEAD).
    HeadOnly(u64),
}

impl DeliveredBody {
    /// Creates a body whose request is already accounted for.
    pub(crate) fn already_accounted(content: BodyContent) -> Self {
        Self { content, accounting: None }
    }

    /// Creates a body that accounts for its request when it ends.
    pub(crate) fn new(content: BodyContent, accounting: Box<RequestAccounting>) -> Self {
        Self { content, accounting: Some(accounting) }
    }

    fn poll_content(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match &mut self.content {
            BodyContent::Empty | BodyContent::HeadOnly(_) => Poll::Ready(None),
            BodyContent::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = BodyContent::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            BodyContent::FullWithTrailers(both) => {
                let (bytes, trailers) = &mut **both;
                if !bytes.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))));
                }
                let trailers = std::mem::take(trailers);
                self.content = BodyContent::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            BodyContent::Tee(reader) => {
                Pin::new(reader).poll_frame(context).map(|frame| Some(frame?.map_err(Into::into)))
            }
            BodyContent::Range(part) => {
                Pin::new(part).poll_frame(context).map(|frame| Some(frame?.map_err(Into::into)))
            }
            // Drops the error's cause. Otherwise hyper would reset the client's stream with the
            // code of the origin's reset, and some codes say that the request was not processed
            // (RFC 9113 §8.7).
            BodyContent::Origin(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|_| TruncatedBody.into())))
            }
            BodyContent::Observed(body) => {
                let frame = ready!(Pin::new(&mut **body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|_| TruncatedBody.into())))
            }
            BodyContent::Generated(body) => {
                Pin::new(body).poll_frame(context).map(|frame| Some(frame?.map_err(Into::into)))
            }
        }
    }
}

impl HttpBody for DeliveredBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_content(context));
        if let (Some(accounting), Some(Ok(frame))) = (&mut this.accounting, &frame)
            && let Some(data) = frame.data_ref()
        {
            accounting.record_bytes(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            BodyContent::Empty | BodyContent::HeadOnly(_) => true,
            BodyContent::Full(bytes) => bytes.is_empty(),
            BodyContent::Tee(_) | BodyContent::FullWithTrailers(..) => false,
            BodyContent::Range(part) => part.is_end_stream(),
            BodyContent::Origin(body) => body.is_end_stream(),
            BodyContent::Observed(body) => body.is_end_stream(),
            BodyContent::Generated(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            BodyContent::Empty => SizeHint::with_exact(0),
            BodyContent::HeadOnly(length) => SizeHint::with_exact(*length),
            BodyContent::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // HTTP/1.1 allows trailers only after chunks.
            BodyContent::FullWithTrailers(..) => SizeHint::default(),
            BodyContent::Tee(reader) => reader.size_hint(),
            BodyContent::Range(part) => part.size_hint(),
            BodyContent::Origin(body) => body.size_hint(),
            BodyContent::Observed(body) => body.size_hint(),
            BodyContent::Generated(body) => body.size_hint(),
        }
    }
}

impl From<Bytes> for DeliveredBody {
    /// Creates a body for a request that never reached the pipeline.
    fn from(bytes: Bytes) -> Self {
        Self::already_accounted(BodyContent::Full(bytes))
    }
}

impl From<UnsyncBoxBody<Bytes, Infallible>> for DeliveredBody {
    /// Creates a generated body for a request that never reached the pipeline.
    fn from(body: UnsyncBoxBody<Bytes, Infallible>) -> Self {
        Self::already_accounted(BodyContent::Generated(body))
    }
}
