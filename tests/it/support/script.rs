//! A scripted HTTP/1.1 origin that records requests.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use super::{
    gate::Gate,
    wire::{RawOrigin, Wire, header},
};

/// A request as received by the origin.
#[derive(Debug, Clone)]
pub(crate) struct OriginRequest {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: String,
    pub(crate) body: String,
    /// The number of earlier requests with this method and target.
    pub(crate) before: usize,
}

impl OriginRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// A response of the origin.
#[derive(Clone)]
pub(crate) struct OriginResponse {
    status: u16,
    fields: String,
    before: Option<Gate>,
    body: Vec<Part>,
    framing: Framing,
}

#[derive(Clone)]
enum Part {
    Bytes(String),
    Wait(Gate),
    Cut,
}

#[derive(Clone, Copy, PartialEq)]
enum Framing {
    Length,
    Chunked,
}

impl OriginResponse {
    pub(crate) fn status(status: u16, body: impl Into<String>) -> Self {
        let body = vec![Part::Bytes(body.into())];
        Self { status, fields: String::new(), before: None, body, framing: Framing::Length }
    }

    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self::status(200, body)
    }

    /// Changes the status.
    pub(crate) fn status_of(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Creates a response that is fresh for a minute.
    pub(crate) fn fresh(body: impl Into<String>) -> Self {
        Self::ok(body).with("cache-control", "max-age=60")
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        writeln!(self.fields, "{name}: {value}\r").unwrap();
        self
    }

    /// Delays the response until the gate opens.
    pub(crate) fn after(mut self, gate: &Gate) -> Self {
        self.before = Some(gate.clone());
        self
    }

    /// Appends a part of a chunked body, sent after the gate opens.
    pub(crate) fn then(mut self, gate: &Gate, part: impl Into<String>) -> Self {
        self.framing = Framing::Chunked;
        self.body.extend([Part::Wait(gate.clone()), Part::Bytes(part.into())]);
        self
    }

    /// Closes the connection here, in a chunked body or before the announced length is reached.
    pub(crate) fn cut(mut self, gate: &Gate) -> Self {
        if !self.fields.to_ascii_lowercase().contains("content-length:") {
            self.framing = Framing::Chunked;
        }
        self.body.extend([Part::Wait(gate.clone()), Part::Cut]);
        self
    }

    /// Writes the response. Returns true if the connection can be reused.
    async fn write(&self, wire: &mut Wire, method: &str) -> bool {
        if let Some(gate) = &self.before {
            gate.passed().await;
        }
        if !wire.try_write(self.head()).await {
            return false;
        }
        if method == "HEAD" {
            return true;
        }
        for part in &self.body {
            match part {
                Part::Bytes(text) if text.is_empty() => {}
                Part::Bytes(text) if self.framing == Framing::Chunked => {
                    wire.try_write(format!("{:x}\r\n{text}\r\n", text.len())).await;
                }
                Part::Bytes(text) => drop(wire.try_write(text).await),
                Part::Wait(gate) => gate.passed().await,
                Part::Cut => return false,
            }
        }
        self.framing == Framing::Length || wire.try_write("0\r\n\r\n").await
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n{}", self.status, self.fields);
        let has_body = !matches!(self.status, 100..=199 | 204 | 304);
        let announced = self.fields.to_ascii_lowercase().contains("content-length:");
        match self.framing {
            Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
            Framing::Length if has_body && !announced => {
                let length: usize = self.body.iter().map(Part::len).sum();
                write!(head, "content-length: {length}\r\n").unwrap();
            }
            Framing::Length => {}
        }
        head + "\r\n"
    }
}

impl Part {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(text) => text.len(),
            Self::Wait(_) | Self::Cut => 0,
        }
    }
}

/// An origin that responds by a script until dropped.
pub(crate) struct ScriptedOrigin {
    origin: RawOrigin,
    record: Arc<Record>,
}

#[derive(Default)]
struct Record {
    received: Mutex<Vec<OriginRequest>>,
    counts: Mutex<HashMap<(String, String), usize>>,
    total: watch::Sender<usize>,
}

impl ScriptedOrigin {
    pub(crate) async fn start(
        script: impl Fn(&OriginRequest) -> OriginResponse + Send + Sync + 'static,
    ) -> Self {
        let record = Arc::new(Record::default());
        let script = Arc::new(script);
        let origin = RawOrigin::start({
            let record = Arc::clone(&record);
            move |wire, _| converse(wire, Arc::clone(&record), Arc::clone(&script))
        })
        .await;
        Self { origin, record }
    }

    /// Starts an origin that always sends the same response.
    pub(crate) async fn always(response: OriginResponse) -> Self {
        Self::start(move |_| response.clone()).await
    }

    /// Starts an origin that sends these responses in turn for each target. The last one repeats.
    pub(crate) async fn in_turn(response: impl Into<Vec<OriginResponse>>) -> Self {
        let response = response.into();
        Self::start(move |request| response[request.before.min(response.len() - 1)].clone()).await
    }

    pub(crate) fn url(&self) -> String {
        self.origin.url()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.origin.address
    }

    /// Returns the number of connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.origin.connections()
    }

    /// Returns the number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        *self.record.total.borrow()
    }

    /// Returns all requests so far.
    pub(crate) fn received(&self) -> Vec<OriginRequest> {
        self.record.received.lock().unwrap().clone()
    }

    /// Returns the last request.
    pub(crate) fn last(&self) -> OriginRequest {
        self.received().pop().expect("no request came")
    }

    /// Waits until this many requests have arrived.
    pub(crate) async fn wait_for_requests(&self, requests: usize) {
        let mut total = self.record.total.subscribe();
        total.wait_for(|total| *total >= requests).await.unwrap();
    }
}

impl Record {
    fn note(&self, request: &mut OriginRequest) {
        let key = (request.method.clone(), request.target.clone());
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry(key).or_default();
        request.before = *count;
        *count += 1;
        self.received.lock().unwrap().push(request.clone());
        self.total.send_modify(|total| *total += 1);
    }
}

async fn converse(
    mut wire: Wire,
    record: Arc<Record>,
    script: Arc<impl Fn(&OriginRequest) -> OriginResponse + Send + Sync>,
) {
    while let Some(head) = wire.try_read_head().await {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (method, target) = (method.to_owned(), target.to_owned());
        let Some(body) = wire.try_read_body(&head).await else { return };
        let mut request = OriginRequest { method, target, head, body, before: 0 };
        record.note(&mut request);
        if !script(&request).write(&mut wire, &request.method).await {
            return;
        }
    }
}
