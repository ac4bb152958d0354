//! The body of a response to a client, whichever way it comes, and the end of the request with it.

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
    range_body::RangeBody,
    tee::{TeeReader, TruncatedBody},
};
use crate::origin::ResponseBody;

type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// A response body. Whatever happens to it, its request is counted and logged exactly once: at its
/// end, or when the client goes away before.
pub(crate) struct Body {
    content: BodyContent,
    accounting: Option<Box<RequestAccounting>>,
}

/// Where a body comes from.
///
/// Small, since every response carries one from hand to hand: what is large is boxed.
pub(crate) enum BodyContent {
    /// Nothing follows the head.
    Empty,
    /// All of it is at hand.
    Full(Bytes),
    /// All of it is at hand, and trailers behind it.
    FullWithTrailers(Box<(Bytes, HeaderMap)>),
    /// It is on its way to the store as well.
    Tee(TeeReader),
    /// The same, of which one range is given out.
    Range(RangeBody),
    /// It passes through.
    Origin(Box<ResponseBody>),
    /// It is made by Larder itself as it goes, and may have no end.
    Generated(UnsyncBoxBody<Bytes, Infallible>),
    /// Nothing follows the head, which tells of a body this long all the same (HEAD).
    HeadOnly(u64),
}

impl Body {
    /// A body without an end to report: the request is accounted for already.
    pub(crate) fn already_accounted(content: BodyContent) -> Self {
        Self { content, accounting: None }
    }

    /// A body at whose end the request is accounted for.
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
            // Without its cause: hyper would reset the client's stream with the code that the origin's was
            // reset with, and a code may say that the request was not processed (RFC 9113 §8.7).
            BodyContent::Origin(body) => {
                let frame = ready!(Pin::new(&mut **body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|_| TruncatedBody.into())))
            }
            BodyContent::Generated(body) => {
                Pin::new(body).poll_frame(context).map(|frame| Some(frame?.map_err(Into::into)))
            }
        }
    }
}

impl HttpBody for Body {
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
            BodyContent::Generated(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            BodyContent::Empty => SizeHint::with_exact(0),
            BodyContent::HeadOnly(length) => SizeHint::with_exact(*length),
            BodyContent::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // HTTP/1.1 has trailers behind chunks only.
            BodyContent::FullWithTrailers(..) => SizeHint::default(),
            BodyContent::Tee(reader) => reader.size_hint(),
            BodyContent::Range(part) => part.size_hint(),
            BodyContent::Origin(body) => body.size_hint(),
            BodyContent::Generated(body) => body.size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    /// A body of Larder's own, for a request that never reached the pipeline.
    fn from(bytes: Bytes) -> Self {
        Self::already_accounted(BodyContent::Full(bytes))
    }
}

impl From<UnsyncBoxBody<Bytes, Infallible>> for Body {
    /// The same, made as it goes.
    fn from(body: UnsyncBoxBody<Bytes, Infallible>) -> Self {
        Self::already_accounted(BodyContent::Generated(body))
    }
}
