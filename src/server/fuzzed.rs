//! Entry points for fuzz targets: the request boundaries that the validator finds, and a connection.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::{net::UnixStream, time::Instant};

use super::{
    Drain, Handler, ListenerCounters, Settings,
    fast_path::{FastPath, FastPathMode},
    framing::{FramingValidator, HeadLimits},
    immediate::{Declined, ImmediateResponder, PlainRequest, ResponseBatch},
    protocol::{ListenerContext, NewConnection, task_waker},
    stream::{Protocol, Stream, Transport},
};

/// Serves one HTTP/1.1 connection until it ends.
pub async fn serve_connection<H: Handler>(
    handler: Arc<H>,
    settings: Settings,
    drain: Drain,
    stream: UnixStream,
) {
    let counters = Arc::<ListenerCounters>::default();
    let open_connection = counters.acquire(1, None).map(Arc::new);
    let context = ListenerContext { handler, settings: Arc::new(settings), drain, counters };
    if let Some(open_connection) = open_connection {
        let waker = task_waker().await;
        let drain_guard = context.drain.register(&waker);
        let (stream, protocol) = (Stream::from(Transport::Unix(stream)), Protocol::Http1);
        let connection = NewConnection { stream, protocol, since: Instant::now() };
        context.drive(connection, (None, false), (drain_guard, &open_connection), &waker).await;
    }
}

/// The heads found in a connection's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// The range of each complete head, including the refused one.
    pub ranges: Vec<Range<usize>>,
    /// The number of the first refused head, counted from 1. Everything after it is refused too.
    pub refused: Option<usize>,
}

/// Feeds the bytes of one connection to the validator one by one, and returns the heads found.
pub fn heads(bytes: &[u8]) -> Heads {
    let mut framing = validator();
    let (mut heads, mut begin) = (Heads::default(), None);
    for (at, byte) in bytes.iter().enumerate() {
        let before = framing.head_count();
        framing.feed(std::slice::from_ref(byte));
        if framing.head_count() != before {
            heads.ranges.push(begin.take().unwrap_or(at)..at + 1);
        } else if framing.is_inside_head() {
            begin.get_or_insert(at);
        } else {
            begin = None;
        }
    }
    heads.refused = refused(&framing);
    heads
}

/// Feeds the bytes to the validator in pieces of this size. Returns the number of heads, and the
/// number of the refused head.
pub fn count(bytes: &[u8], piece: usize) -> (usize, Option<usize>) {
    let mut framing = validator();
    for piece in bytes.chunks(piece.max(1)) {
        framing.feed(piece);
    }
    (framing.head_count() as usize, refused(&framing))
}

/// The requests that the fast path takes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct FastRequests {
    /// The requests, each with its number among all heads, from 0.
    pub taken: Vec<(usize, FastRequest)>,
    /// The number of heads, and the number of the refused head.
    pub count: (usize, Option<usize>),
}

/// A request that the fast path takes.
#[derive(Debug, PartialEq, Eq)]
pub struct FastRequest {
    /// `METHOD path?query`.
    pub line: String,
    /// The fields, as the responder knows them. `Content-Length` may be that of an earlier request.
    pub fields: HeaderMap,
    pub content: Vec<u8>,
}

/// Feeds the bytes of one connection to the fast path in pieces of this size, and returns the
/// requests that it takes. Every third request is declined. The validator gets the remaining bytes,
/// as if hyper had read them.
pub fn fast_requests(bytes: &[u8], piece: usize, is_eager: bool) -> FastRequests {
    let seen = Arc::<Mutex<Vec<FastRequest>>>::default();
    let mode = if is_eager { FastPathMode::Eager } else { FastPathMode::On };
    let recorded = Arc::clone(&seen);
    let make = move |fields| {
        let recorder = Recorder { seen: Arc::clone(&recorded), fields, count: 0 };
        Some(Box::new(recorder) as Box<dyn ImmediateResponder>)
    };
    let (mut framing, mut fast_path) = (validator(), FastPath::new(mode, Box::new(make)));
    let mut taken = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        let mut rest = piece;
        if fast_path.is_on(&framing) {
            let before = framing.head_count() as usize;
            rest = fast_path.respond(&mut framing, piece, &mut ResponseBatch::default());
            let requests =
                seen.lock().map(|mut seen| std::mem::take(&mut *seen)).unwrap_or_default();
            taken.extend((before..).zip(requests));
        }
        framing.feed(rest);
    }
    FastRequests { taken, count: (framing.head_count() as usize, refused(&framing)) }
}

struct Recorder {
    seen: Arc<Mutex<Vec<FastRequest>>>,
    fields: HeaderMap,
    count: usize,
}

impl ImmediateResponder for Recorder {
    fn respond(
        &mut self,
        request: &PlainRequest<'_>,
        batch: &mut ResponseBatch,
    ) -> Result<(), Declined> {
        self.count += 1;
        if self.count.is_multiple_of(3) {
            return Err(Declined::Request);
        }
        let PlainRequest { method, path, query, content } = request;
        let query = query.map_or(String::new(), |query| format!("?{query}"));
        let line = format!("{method} {path}{query}");
        let content = content.unwrap_or_default().to_vec();
        if let Ok(mut seen) = self.seen.lock() {
            seen.push(FastRequest { line, fields: self.fields.clone(), content });
        }
        batch.head().push(b'x');
        Ok(())
    }

    fn replace_value(&mut self, name: &HeaderName, value: HeaderValue) -> bool {
        let is_single = self.fields.get_all(name).iter().count() == 1;
        is_single && self.fields.insert(name, value).is_some()
    }
}

fn validator() -> FramingValidator {
    FramingValidator::new(HeadLimits { header_bytes: 4096, header_count: 32, target_bytes: 1024 })
}

fn refused(framing: &FramingValidator) -> Option<usize> {
    framing.refused().map(|(number, _)| number as usize)
}
