//! HTTP/2 frames as bytes (RFC 9113), for sequences that no library sends.

use std::net::SocketAddr;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    gate::Gate,
    wire::{RawOrigin, Wire},
};

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;

/// The setting for the limit on open streams.
pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
/// The setting for the initial window of a stream, in bytes.
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// A step of a script on a stream.
#[derive(Clone)]
pub(crate) enum Step {
    /// A header or trailer section, and whether it ends the stream.
    Fields(&'static [(&'static str, &'static str)], End),
    Data(&'static str, End),
    /// `RST_STREAM`.
    Reset(u32),
    /// `GOAWAY` that excludes this stream.
    GoAway(u32),
    /// `GOAWAY(NO_ERROR)` with this last stream.
    LastStream(u32),
    Wait(Gate),
    /// Close the connection.
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Stream,
    No,
}

/// The received half of a stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) data: String,
    /// True if `END_STREAM` was received.
    pub(crate) is_ended: bool,
    /// The code of a `RST_STREAM`.
    pub(crate) reset: Option<u32>,
}

/// A connection on which tests read and write frames.
pub(crate) struct Http2Wire {
    wire: Wire,
}

impl Http2Wire {
    /// Connects as a client.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut frames = Self { wire: Wire::connect(address).await };
        frames.wire.write(PREFACE).await;
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Connects as a client with an initial window of 0, so that no body arrives.
    pub(crate) async fn connect_without_window(address: SocketAddr) -> Self {
        Self::connect_with_window(address, 0).await
    }

    /// Connects as a client with this initial window for each stream, never enlarged.
    pub(crate) async fn connect_with_window(address: SocketAddr, bytes: u32) -> Self {
        let mut frames = Self { wire: Wire::connect(address).await };
        frames.wire.write(PREFACE).await;
        let [name, window] = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &bytes.to_be_bytes()];
        frames.send(SETTINGS, 0, 0, &[name, window].concat()).await;
        frames
    }

    /// Waits until this many streams are reset with this code. `None` if the connection ends first.
    pub(crate) async fn resets(&mut self, streams: usize, code: u32) -> Option<()> {
        let mut seen = 0;
        while seen < streams {
            let frame = self.next().await?;
            seen += usize::from(frame.kind == RST_STREAM && frame.payload == code.to_be_bytes());
        }
        Some(())
    }

    /// Sends a GET request.
    pub(crate) async fn get(&mut self, stream: u32, path: &str) {
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "api.test")];
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields)).await;
    }

    /// Waits for the heads of this many responses.
    pub(crate) async fn heads(&mut self, count: usize) {
        let mut seen = 0;
        while seen < count {
            seen += usize::from(self.next().await.unwrap().kind == HEADERS);
        }
    }

    /// Accepts a connection as a server.
    async fn accept(wire: Wire) -> Option<Self> {
        Self::accept_with(wire, &[]).await
    }

    /// Accepts a connection as a server with these settings.
    pub(crate) async fn accept_with(mut wire: Wire, settings: &[(u16, u32)]) -> Option<Self> {
        wire.try_read_exact_bytes(PREFACE.len()).await?;
        let mut frames = Self { wire };
        let pairs = settings.iter();
        let payload: Vec<u8> = pairs
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.send(SETTINGS, 0, 0, &payload).await;
        Some(frames)
    }

    /// Accepts a connection as a server that sends `GOAWAY` right after `SETTINGS`.
    pub(crate) async fn accept_and_leave(mut wire: Wire) -> Option<Self> {
        wire.try_read_exact_bytes(PREFACE.len()).await?;
        let settings = frame(SETTINGS, 0, 0, &[]);
        let last_stream_and_code = [0_u32.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
        let leaving = frame(GOAWAY, 0, 0, &last_stream_and_code);
        wire.try_write([settings, leaving].concat()).await;
        Some(Self { wire })
    }

    /// Enlarges the connection's receive window by this many bytes.
    pub(crate) async fn widen(&mut self, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, 0, &bytes.to_be_bytes()).await;
    }

    /// Sends the head of a request.
    pub(crate) async fn request(&mut self, stream: u32, method: &'static str, end: End) {
        let fields =
            [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "api.test")];
        self.send(HEADERS, END_HEADERS | flag(end), stream, &block(&fields)).await;
    }

    /// Runs a script. Returns true if the connection stays open.
    pub(crate) async fn play(&mut self, stream: u32, steps: &[Step]) -> bool {
        for step in steps {
            match step {
                Step::Fields(fields, end) => {
                    self.send(HEADERS, END_HEADERS | flag(*end), stream, &block(fields)).await;
                }
                Step::Data(text, end) => {
                    self.send(DATA, flag(*end), stream, text.as_bytes()).await;
                }
                Step::Reset(code) => {
                    self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
                }
                Step::GoAway(code) => {
                    let payload = [0_u32.to_be_bytes(), code.to_be_bytes()].concat();
                    self.send(GOAWAY, 0, 0, &payload).await;
                }
                Step::LastStream(last) => {
                    let payload = [last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
                    self.send(GOAWAY, 0, 0, &payload).await;
                }
                Step::Wait(gate) => gate.passed().await,
                Step::Close => return false,
            }
        }
        true
    }

    /// Reads the peer's half of a stream to its end. `None` if the connection ends first.
    pub(crate) async fn receive(&mut self, stream: u32) -> Option<Received> {
        let mut received = Received::default();
        while !received.is_over() {
            self.receive_more(stream, &mut received).await?;
        }
        Some(received)
    }

    /// Waits for this many streams that end properly, and returns their sorted numbers. `None` if
    /// the connection ends first.
    pub(crate) async fn ended(&mut self, streams: usize) -> Option<Vec<u32>> {
        let mut ended = Vec::new();
        while ended.len() < streams {
            let frame = self.next().await?;
            if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
                ended.push(frame.stream);
            }
        }
        ended.sort_unstable();
        Some(ended)
    }

    async fn receive_more(&mut self, stream: u32, received: &mut Received) -> Option<()> {
        loop {
            let frame = self.next().await?;
            if frame.stream == stream {
                received.take(&frame);
                return Some(());
            }
        }
    }

    /// Returns the last stream and the code of the next `GOAWAY`. Skips stream frames before it.
    pub(crate) async fn next_go_away(&mut self) -> Option<(u32, u32)> {
        loop {
            let frame = self.next().await?;
            if frame.kind == GOAWAY {
                let number = |at| u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap());
                return Some((number(0), number(4)));
            }
        }
    }

    /// Returns the stream of the next request head, and whether it ends the request.
    pub(crate) async fn next_request(&mut self) -> Option<(u32, End)> {
        loop {
            let frame = self.next().await?;
            if frame.kind == HEADERS {
                let is_ended = frame.flags & END_STREAM != 0;
                return Some((frame.stream, if is_ended { End::Stream } else { End::No }));
            }
        }
    }

    /// Returns the next stream frame or the connection's end, and responds to all other frames.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            let head = self.wire.try_read_exact_bytes(9).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = self.wire.try_read_exact_bytes(length as usize).await?;
            let frame = Frame { kind: head[3], flags: head[4], stream, payload };
            match frame.kind {
                SETTINGS | PING if frame.flags & ACK == 0 => {
                    let payload = if frame.kind == PING { frame.payload } else { Vec::new() };
                    self.send(frame.kind, ACK, 0, &payload).await;
                }
                DATA | HEADERS | RST_STREAM | GOAWAY => return Some(frame),
                _ => {}
            }
        }
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.wire.try_write(frame(kind, flags, stream, payload)).await;
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

impl Received {
    fn is_over(&self) -> bool {
        self.is_ended || self.reset.is_some()
    }

    fn take(&mut self, frame: &Frame) {
        match frame.kind {
            RST_STREAM => {
                let code = frame.payload.as_slice().try_into().unwrap();
                self.reset = Some(u32::from_be_bytes(code));
            }
            DATA => self.data.push_str(std::str::from_utf8(&frame.payload).unwrap()),
            _ => {}
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            self.is_ended = true;
        }
    }
}

/// Starts an HTTP/2 origin that responds to every request head with the same steps.
pub(crate) async fn origin(steps: &[Step]) -> RawOrigin {
    let steps = steps.to_vec();
    RawOrigin::start(move |wire, _| {
        let steps = steps.clone();
        async move {
            let Some(mut frames) = Http2Wire::accept(wire).await else { return };
            while let Some((stream, _)) = frames.next_request().await {
                if !frames.play(stream, &steps).await {
                    return;
                }
            }
        }
    })
    .await
}

/// Starts an HTTP/2 origin that never responds and reports the received request body after each
/// frame.
pub(crate) async fn reading() -> (RawOrigin, UnboundedReceiver<Received>) {
    let (report, reports) = unbounded_channel();
    let origin = RawOrigin::start(move |wire, _| {
        let report = report.clone();
        async move {
            let Some(mut frames) = Http2Wire::accept(wire).await else { return };
            while let Some((stream, _)) = frames.next_request().await {
                let mut received = Received::default();
                while !received.is_over() {
                    let Some(()) = frames.receive_more(stream, &mut received).await else { return };
                    report.send(received.clone()).unwrap();
                }
            }
        }
    })
    .await;
    (origin, reports)
}

fn flag(end: End) -> u8 {
    if end == End::Stream { END_STREAM } else { 0 }
}

/// Encodes a field section as literals without indexing (RFC 7541 §6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let length = u8::try_from(text.len()).unwrap();
            assert!(length < 127, "one byte holds the length");
            block.push(length);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
