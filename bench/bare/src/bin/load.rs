//! A load of HTTP/1.1 requests over a fixed number of connections, on one thread.
//!
//! - `load open ADDRESS PATH RATE SECONDS CONNECTIONS`: an open loop. Requests are due at a constant
//!   rate, whatever the server does, and wait for a free connection if there is none. A time counts
//!   from when the request was due, so that a server that stalls is charged for every request that
//!   it delays ("coordinated omission", Tene 2013).
//! - `load closed ADDRESS PATH SECONDS CONNECTIONS [FIELD…]`: each connection sends its next request
//!   as soon as it has its response. Requests have the fields, such as `If-None-Match: "1"`.
//! - `load fill ADDRESS PATH COUNT CONNECTIONS`: a closed loop that requests `PATH1` to `PATHcount`,
//!   each once.
//!
//! It prints one line of JSON; times are in microseconds. `lag` is the 99.9th percentile of how late
//! the program itself was in an open loop. Any response but a complete 200 or 304 ends it with an
//! error.
//!
//! It spins between requests, because a timer is exact to a millisecond only: it needs a core of its
//! own.

use std::collections::VecDeque;
use std::error::Error;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bare::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

type Failure = Box<dyn Error + Send + Sync>;

/// What decides when a connection sends its next request.
enum Schedule {
    /// Requests that are due, and whether more will be.
    Open {
        due: Mutex<(VecDeque<Instant>, bool)>,
        news: Notify,
    },
    Until(Instant),
    /// The number of the last request, and of those that were sent.
    Count {
        last: u64,
        sent: Mutex<u64>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["open", address, path, rate, seconds, connections] => {
            let (rate, seconds) = (rate.parse()?, seconds.parse()?);
            let (target, length) =
                (Target { address, path, fields: &[] }, Duration::from_secs_f64(seconds));
            open(&target, rate, length, connections.parse()?).await
        }
        ["closed", address, path, seconds, connections, fields @ ..] => {
            let end = Instant::now() + Duration::from_secs_f64(seconds.parse()?);
            let target = Target { address, path, fields };
            closed(&target, Schedule::Until(end), connections.parse()?).await?.print(None);
            Ok(())
        }
        ["fill", address, path, count, connections] => {
            let schedule = Schedule::Count { last: count.parse()?, sent: Mutex::new(0) };
            let target = Target { address, path, fields: &[] };
            closed(&target, schedule, connections.parse()?).await?.print(None);
            Ok(())
        }
        _ => Err("usage: load open ADDRESS PATH RATE SECONDS CONNECTIONS | \
                  load closed ADDRESS PATH SECONDS CONNECTIONS [FIELD…] | \
                  load fill ADDRESS PATH COUNT CONNECTIONS"
            .into()),
    }
}

/// What is requested.
struct Target<'a> {
    address: &'a str,
    path: &'a str,
    fields: &'a [&'a str],
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
    target: &Target<'_>,
    rate: f64,
    length: Duration,
    connections: usize,
) -> Result<(), Failure> {
    let schedule = Schedule::Open { due: Mutex::default(), news: Notify::new() };
    let load = Load::start(target, schedule, connections).await?;
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
    target: &Target<'_>,
    schedule: Schedule,
    connections: usize,
) -> Result<Measured, Failure> {
    let load = Load::start(target, schedule, connections).await?;
    load.end(Instant::now()).await
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
        target: &Target<'_>,
        schedule: Schedule,
        connections: usize,
    ) -> Result<Self, Failure> {
        let (schedule, figures) = (Arc::new(schedule), Arc::default());
        let mut streams = Vec::new();
        for _ in 0..connections {
            let stream = TcpStream::connect(target.address).await?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let run = |stream| {
            let connection = Connection {
                stream,
                request: Request::new(target, &schedule),
                schedule: Arc::clone(&schedule),
                figures: Arc::clone(&figures),
                buffer: vec![0; 256 * 1024],
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
            Self::Until(end) => {
                let now = Instant::now();
                (now < *end).then_some((now, 0))
            }
            Self::Count { last, sent } => {
                let mut sent = locked(sent);
                *sent += 1;
                (*sent <= *last).then_some((Instant::now(), *sent))
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

/// The bytes of a request.
struct Request {
    bytes: Vec<u8>,
    /// How much of it stands before the number, if it has one.
    before_number: Option<usize>,
    rest: Vec<u8>,
}

impl Request {
    fn new(target: &Target<'_>, schedule: &Schedule) -> Self {
        let before = format!("GET {}", target.path);
        let fields: String = target.fields.iter().map(|field| format!("{field}\r\n")).collect();
        let rest = format!(" HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", target.address).into_bytes();
        let is_numbered = matches!(schedule, Schedule::Count { .. });
        Self {
            before_number: is_numbered.then_some(before.len()),
            bytes: [before.as_bytes(), &rest].concat(),
            rest,
        }
    }

    fn numbered(&mut self, number: u64) -> Result<&[u8], std::io::Error> {
        if let Some(length) = self.before_number {
            self.bytes.truncate(length);
            write!(self.bytes, "{number}")?;
            self.bytes.extend_from_slice(&self.rest);
        }
        Ok(&self.bytes)
    }
}

struct Connection {
    stream: TcpStream,
    request: Request,
    schedule: Arc<Schedule>,
    figures: Arc<Mutex<Figures>>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn run(mut self) -> Result<(), Failure> {
        while let Some((due, number)) = self.schedule.next().await {
            self.stream.write_all(self.request.numbered(number)?).await?;
            let bytes = self.receive().await?;
            let mut figures = locked(&self.figures);
            figures.times.add(due.elapsed());
            figures.bytes += bytes;
        }
        Ok(())
    }

    /// Reads one response, and returns its length.
    async fn receive(&mut self) -> Result<usize, Failure> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err("the server closed a connection".into());
            }
            filled += read;
            if let Some(length) = length(&self.buffer[..filled])? {
                if filled == length {
                    return Ok(length);
                }
                if filled > length || length > self.buffer.len() {
                    return Err(format!("{filled} bytes of a response of {length}").into());
                }
            }
        }
    }
}

/// The length of a response, once its head is complete.
fn length(bytes: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end])?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if status.starts_with("HTTP/1.1 304") {
        return Ok(Some(end + 4));
    }
    if !status.starts_with("HTTP/1.1 200") {
        return Err(format!("a response is {status}").into());
    }
    let fields = lines.filter_map(|line| line.split_once(':'));
    let mut lengths = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, value) = lengths.next().ok_or("a response has no Content-Length")?;
    Ok(Some(end + 4 + value.trim().parse::<usize>()?))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
