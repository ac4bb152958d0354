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
    fill::{BrokenOff, FillReader},
    finish::Finish,
    part::Part,
};
use crate::origin::ResponseBody;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response body. Whatever happens to it, its request is counted and logged exactly once: at its
/// end, or when the client goes away before.
pub struct Body {
    content: Content,
    finish: Option<Box<Finish>>,
}

/// Where a body comes from.
///
/// Small, since every response carries one from hand to hand: what is large is boxed.
pub enum Content {
    /// Nothing follows the head.
    Empty,
    /// All of it is at hand.
    Whole(Bytes),
    /// All of it is at hand, and trailers behind it.
    Trailed(Box<(Bytes, HeaderMap)>),
    /// It is on its way to the store as well.
    Filling(FillReader),
    /// The same, of which one range is given out.
    Part(Part),
    /// It passes through.
    Passing(Box<ResponseBody>),
    /// It is made by Larder itself as it goes, and may have no end.
    Made(UnsyncBoxBody<Bytes, Infallible>),
    /// Nothing follows the head, which tells of a body this long all the same (HEAD).
    Described(u64),
}

impl Body {
    /// A body without an end to report: the request is accounted for already.
    pub fn accounted(content: Content) -> Self {
        Self { content, finish: None }
    }

    /// A body at whose end the request is accounted for.
    pub fn new(content: Content, finish: Box<Finish>) -> Self {
        Self { content, finish: Some(finish) }
    }

    fn poll_content(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.content {
            Content::Empty | Content::Described(_) => Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.content = Content::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Trailed(both) => {
                let (bytes, trailers) = &mut **both;
                if !bytes.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))));
                }
                let trailers = std::mem::take(trailers);
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Content::Filling(reader) => {
                Pin::new(reader).poll_frame(context).map(|frame| Some(frame?.map_err(Into::into)))
            }
            Content::Part(part) => {
                Pin::new(part).poll_frame(context).map(|frame| Some(frame?.map_err(Into::into)))
            }
            // Without its cause: hyper would reset the client's stream with the code that the origin's was
            // reset with, and a code may say that the request was not processed (RFC 9113 §8.7).
            Content::Passing(body) => {
                let frame = ready!(Pin::new(&mut **body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|_| BrokenOff.into())))
            }
            Content::Made(body) => {
                Pin::new(body).poll_frame(context).map(|frame| Some(frame?.map_err(Into::into)))
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_content(context));
        if let (Some(finish), Some(Ok(frame))) = (&mut this.finish, &frame)
            && let Some(data) = frame.data_ref()
        {
            finish.sent(data.len());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty | Content::Described(_) => true,
            Content::Whole(bytes) => bytes.is_empty(),
            Content::Filling(_) | Content::Trailed(..) => false,
            Content::Part(part) => part.is_end_stream(),
            Content::Passing(body) => body.is_end_stream(),
            Content::Made(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Described(length) => SizeHint::with_exact(*length),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // HTTP/1.1 has trailers behind chunks only.
            Content::Trailed(..) => SizeHint::default(),
            Content::Filling(reader) => reader.size_hint(),
            Content::Part(part) => part.size_hint(),
            Content::Passing(body) => body.size_hint(),
            Content::Made(body) => body.size_hint(),
        }
    }
}

impl From<Bytes> for Body {
    /// A body of Larder's own, for a request that never reached the pipeline.
    fn from(bytes: Bytes) -> Self {
        Self::accounted(Content::Whole(bytes))
    }
}

impl From<UnsyncBoxBody<Bytes, Infallible>> for Body {
    /// The same, made as it goes.
    fn from(body: UnsyncBoxBody<Bytes, Infallible>) -> Self {
        Self::accounted(Content::Made(body))
    }
}
