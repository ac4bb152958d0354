//! A load of HTTP/1.1 requests over a fixed number of connections, on one thread.
//!
//! - `load open ADDRESS PATH RATE SECONDS CONNECTIONS`: an open loop. Requests are due at a constant
//!   rate, whatever the server does, and wait for a free connection if there is none. A time counts
//!   from when the request was due, so that a server that stalls is charged for every request that
//!   it delays ("coordinated omission", Tene 2013).
//! - `load closed ADDRESS SECONDS CONNECTIONS FILE`: each connection sends its next request as soon
//!   as it has its response. `FILE` has the heads of the requests, which are sent in turn.
//! - `load fresh ADDRESS PATH FIRST SECONDS CONNECTIONS`: a closed loop that requests `PATHfirst` and
//!   the numbers after it, each once.
//! - `load fill ADDRESS PATH COUNT CONNECTIONS`: a closed loop that requests `PATH1` to `PATHcount`,
//!   each once.
//!
//! It prints one line of JSON; times are in microseconds. `lag` is the 99.9th percentile of how late
//! the program itself was in an open loop. Any response but a complete 200 or 304 ends it with an
//! error.
//!
//! An open loop spins between requests, because a timer is exact to a millisecond only: it needs a
//! core of its own. A closed loop has to be faster than the server: it reads all responses into one
//! buffer, and looks at nothing but status and length.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bare::Histogram;
use memchr::memmem;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

type Failure = Box<dyn Error + Send + Sync>;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

// As many bytes as curl reads at once.
thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 16 * 1024]);
}

/// What decides when a connection sends its next request.
enum Schedule {
    /// Requests that are due, and whether more will be.
    Open {
        due: Mutex<(VecDeque<Instant>, bool)>,
        news: Notify,
    },
    Until {
        end: Instant,
        sent: AtomicU64,
    },
    Count {
        count: u64,
        sent: AtomicU64,
    },
}

/// The requests of a load.
enum Requests {
    /// Heads that are sent in turn.
    InTurn(Vec<Vec<u8>>),
    /// A target for each request, with a number at its end.
    Numbered { before: String, first: u64, after: String },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["open", address, path, rate, seconds, connections] => {
            let (rate, seconds) = (rate.parse()?, seconds.parse()?);
            let requests = Requests::InTurn(vec![head(address, path).into_bytes()]);
            let length = Duration::from_secs_f64(seconds);
            open((address, requests), rate, length, connections.parse()?).await
        }
        ["closed", address, seconds, connections, file] => {
            let requests = Requests::read(file)?;
            closed((address, requests), until(seconds)?, connections.parse()?).await
        }
        ["fresh", address, path, first, seconds, connections] => {
            let requests = Requests::numbered(address, path, first.parse()?);
            closed((address, requests), until(seconds)?, connections.parse()?).await
        }
        ["fill", address, path, count, connections] => {
            let requests = Requests::numbered(address, path, 1);
            let schedule = Schedule::Count { count: count.parse()?, sent: AtomicU64::new(0) };
            closed((address, requests), schedule, connections.parse()?).await
        }
        _ => Err("usage: load open ADDRESS PATH RATE SECONDS CONNECTIONS | \
                  load closed ADDRESS SECONDS CONNECTIONS FILE | \
                  load fresh ADDRESS PATH FIRST SECONDS CONNECTIONS | \
                  load fill ADDRESS PATH COUNT CONNECTIONS"
            .into()),
    }
}

fn until(seconds: &str) -> Result<Schedule, Failure> {
    let end = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
    Ok(Schedule::Until { end, sent: AtomicU64::new(0) })
}

/// What a load has measured.
#[derive(Default)]
struct Figures {
    times: Histogram,
    bytes: usize,
}

struct Measured {
    figures: Figures,
    length: Duration,
}

impl Measured {
    fn print(&self, lag: Option<&Histogram>) {
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        let quantile = |share| micros(self.figures.times.quantile(share));
        let buckets: Vec<String> = self
            .figures
            .times
            .buckets()
            .map(|(end, count)| format!("[{},{count}]", micros(end)))
            .collect();
        println!(
            "{{\"requests\":{},\"seconds\":{},\"bytes\":{},\"p50\":{},\"p90\":{},\"p99\":{},\"p999\":{},\"longest\":{},\
             \"lag\":{},\"histogram\":[{}]}}",
            self.figures.times.total(),
            self.length.as_secs_f64(),
            self.figures.bytes,
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            micros(self.figures.times.longest()),
            lag.map_or(0.0, |lag| micros(lag.quantile(0.999))),
            buckets.join(","),
        );
    }
}

async fn open(
    (address, requests): (&str, Requests),
    rate: f64,
    length: Duration,
    connections: usize,
) -> Result<(), Failure> {
    let schedule = Schedule::Open { due: Mutex::default(), news: Notify::new() };
    let load = Load::start((address, requests), schedule, connections).await?;
    let begun = Instant::now();
    let mut lag = Histogram::default();
    let mut number = 0_u32;
    loop {
        let due = begun + Duration::from_secs_f64(f64::from(number) / rate);
        let now = Instant::now();
        if due >= begun + length || load.has_failed() {
            break;
        }
        if due > now {
            tokio::task::yield_now().await;
            continue;
        }
        lag.add(now - due);
        load.schedule.announce(due);
        number += 1;
    }
    load.schedule.finish();
    load.end(begun).await?.print(Some(&lag));
    Ok(())
}

async fn closed(
    (address, requests): (&str, Requests),
    schedule: Schedule,
    connections: usize,
) -> Result<(), Failure> {
    let load = Load::start((address, requests), schedule, connections).await?;
    load.end(Instant::now()).await?.print(None);
    Ok(())
}

/// A load that runs.
struct Load {
    schedule: Arc<Schedule>,
    figures: Arc<Mutex<Figures>>,
    connections: Vec<tokio::task::JoinHandle<Result<(), Failure>>>,
}

impl Load {
    /// Opens all connections, and has each of them follow the schedule.
    async fn start(
        (address, requests): (&str, Requests),
        schedule: Schedule,
        connections: usize,
    ) -> Result<Self, Failure> {
        let (schedule, requests) = (Arc::new(schedule), Arc::new(requests));
        let figures = Arc::default();
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let run = |stream| {
            let connection = Connection {
                stream,
                schedule: Arc::clone(&schedule),
                requests: Arc::clone(&requests),
                figures: Arc::clone(&figures),
            };
            tokio::spawn(connection.run())
        };
        let connections = streams.into_iter().map(run).collect();
        Ok(Self { schedule, figures, connections })
    }

    /// Whether a connection has ended before the schedule.
    fn has_failed(&self) -> bool {
        self.connections.iter().any(tokio::task::JoinHandle::is_finished)
    }

    /// Waits for the last response.
    async fn end(self, begun: Instant) -> Result<Measured, Failure> {
        for connection in self.connections {
            connection.await??;
        }
        let length = begun.elapsed();
        Ok(Measured { figures: std::mem::take(&mut *locked(&self.figures)), length })
    }
}

impl Schedule {
    /// Adds a request that is due.
    fn announce(&self, time: Instant) {
        if let Self::Open { due, news } = self {
            locked(due).0.push_back(time);
            news.notify_one();
        }
    }

    /// Says that no request will be added.
    fn finish(&self) {
        if let Self::Open { due, news } = self {
            locked(due).1 = true;
            news.notify_waiters();
        }
    }

    /// Waits for the next request: when it was due, and its number.
    async fn next(&self) -> Option<(Instant, u64)> {
        match self {
            Self::Until { end, sent } => {
                let now = Instant::now();
                (now < *end).then(|| (now, sent.fetch_add(1, Relaxed)))
            }
            Self::Count { count, sent } => {
                let number = sent.fetch_add(1, Relaxed);
                (number < *count).then(|| (Instant::now(), number))
            }
            Self::Open { due, news } => loop {
                let notified = news.notified();
                {
                    let mut due = locked(due);
                    if let Some(time) = due.0.pop_front() {
                        return Some((time, 0));
                    }
                    if due.1 {
                        return None;
                    }
                }
                notified.await;
            },
        }
    }
}

impl Requests {
    /// Reads the heads of requests that a file has one after the other.
    fn read(file: &str) -> Result<Self, Failure> {
        let bytes = std::fs::read(file)?;
        let mut heads = Vec::new();
        let mut start = 0;
        for end in memmem::find_iter(&bytes, END_OF_HEAD) {
            let end = end + END_OF_HEAD.len();
            heads.push(bytes[start..end].to_vec());
            start = end;
        }
        if heads.is_empty() || start != bytes.len() {
            return Err(format!("{file} does not end with the end of a head").into());
        }
        Ok(Self::InTurn(heads))
    }

    fn numbered(address: &str, path: &str, first: u64) -> Self {
        let (before, after) = (format!("GET {path}"), after_target(address));
        Self::Numbered { before, first, after }
    }

    /// The head of the request with this number; `buffer` is for a new one.
    fn head<'a>(&'a self, number: u64, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        match self {
            Self::InTurn(heads) => Ok(&heads[number as usize % heads.len()]),
            Self::Numbered { before, first, after } => {
                buffer.clear();
                write!(buffer, "{before}{}{after}", first + number)?;
                Ok(buffer)
            }
        }
    }
}

fn head(address: &str, target: &str) -> String {
    format!("GET {target}{}", after_target(address))
}

fn after_target(address: &str) -> String {
    format!(" HTTP/1.1\r\nHost: {address}\r\n\r\n")
}

struct Connection {
    stream: TcpStream,
    schedule: Arc<Schedule>,
    requests: Arc<Requests>,
    figures: Arc<Mutex<Figures>>,
}

impl Connection {
    async fn run(mut self) -> Result<(), Failure> {
        let mut buffer = Vec::new();
        while let Some((due, number)) = self.schedule.next().await {
            self.stream.write_all(self.requests.head(number, &mut buffer)?).await?;
            let bytes = self.receive().await?;
            let mut figures = locked(&self.figures);
            figures.times.add(due.elapsed());
            figures.bytes += bytes;
        }
        Ok(())
    }

    /// Reads one response, and returns its length.
    async fn receive(&mut self) -> Result<usize, Failure> {
        let stream = &mut self.stream;
        let mut response = Response::default();
        std::future::poll_fn(|cx| {
            BUFFER.with_borrow_mut(|buffer| {
                loop {
                    let mut read = ReadBuf::new(buffer);
                    ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
                    if let Some(length) = response.take(read.filled())? {
                        return Poll::Ready(Ok(length));
                    }
                }
            })
        })
        .await
    }
}

/// A response that arrives.
#[derive(Default)]
struct Response {
    /// The received part of the head, while the head is incomplete.
    head: Vec<u8>,
    /// Its length, once the head is complete.
    length: Option<usize>,
    received: usize,
}

impl Response {
    /// Takes its next bytes. Returns its length if they are the last ones.
    fn take(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        if bytes.is_empty() {
            return Err("the server closed a connection".into());
        }
        self.received += bytes.len();
        if self.length.is_none() {
            self.length = if self.head.is_empty() {
                length(bytes)?
            } else {
                self.head.extend_from_slice(bytes);
                length(&self.head)?
            };
            if self.length.is_none() && self.head.is_empty() {
                self.head = bytes.to_vec();
            }
        }
        match self.length {
            Some(length) if self.received > length => {
                Err(format!("{} bytes of a response of {length}", self.received).into())
            }
            length => Ok(length.filter(|length| *length == self.received)),
        }
    }
}

/// The length of a response, once its head is complete.
fn length(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    const NAME: &[u8] = b"content-length:";
    let Some(end) = memmem::find(bytes, END_OF_HEAD) else { return Ok(None) };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let status = lines.next().unwrap_or_default();
    let end = end + END_OF_HEAD.len();
    if status.starts_with(b"HTTP/1.1 304") {
        return Ok(Some(end));
    }
    if !status.starts_with(b"HTTP/1.1 200") {
        return Err(format!("a response is {}", String::from_utf8_lossy(status)).into());
    }
    let value = lines.find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        name.eq_ignore_ascii_case(NAME).then_some(value.trim_ascii())
    });
    let value = std::str::from_utf8(value.ok_or("a response has no Content-Length")?)?;
    Ok(Some(end + value.parse::<usize>()?))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
