//! The access log: one line a request, written by a thread of its own, never waited for.

use std::{
    fmt::Write as _,
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    time::{Duration, Instant},
};

use http::Method;
use prometheus::IntCounter;

use crate::{
    field::{Rfc3339, Timestamp},
    policy::{cache_status::CacheResult, reason::Reason},
};

/// Lines that may wait for the writer; about 2 MiB.
const QUEUE: usize = 8192;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// `key=value` pairs for people.
    Text,
}

/// Where lines go. A line that finds the queue full is dropped and counted: a slow disk or a full pipe
/// slows no request down.
pub struct AccessLog {
    format: Format,
    lines: SyncSender<Message>,
    dropped: IntCounter,
}

/// What the writer is told.
enum Message {
    Line(String),
    /// To say so once all lines before are written.
    Flush(SyncSender<()>),
}

/// What is logged of one request. No query, no header values, no body: they may hold personal data.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// When the request's head had been read.
    pub at: Timestamp,
    /// The request's `X-Request-ID`, if it has one.
    pub request_id: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The host asked for.
    pub host: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The status; 499 where the client went away before there was one.
    pub status: u16,
    /// Body bytes sent.
    pub bytes: u64,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// The outcome clients read in `X-API-Cache`.
    pub cache: CacheResult,
    /// Why it was not a hit.
    pub reason: Option<Reason>,
}

impl AccessLog {
    /// Starts the writer thread. It ends when the log is dropped and all lines are written.
    pub fn start(
        format: Format,
        to: impl Write + Send + 'static,
        dropped: IntCounter,
    ) -> io::Result<Self> {
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&queue, to))?;
        Ok(Self { format, lines, dropped })
    }

    /// Queues one line. Never blocks.
    pub fn write(&self, line: &Line<'_>) {
        let text = match self.format {
            Format::Json => line.json(),
            Format::Text => line.text(),
        };
        if self.lines.try_send(Message::Line(text)).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits until all lines so far are written, for as long as this at most. Blocks: for the end of
    /// the process, when no request is left to hold up.
    pub fn flush(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(refused) = self.lines.try_send(message) {
            let TrySendError::Full(again) = refused else { return };
            if Instant::now() >= deadline {
                return;
            }
            message = again;
            std::thread::sleep(Duration::from_millis(1));
        }
        // A writer that is stuck for longer has lost its reader.
        let _late = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

fn write_lines(queue: &Receiver<Message>, to: impl Write) {
    let mut to = io::BufWriter::with_capacity(64 * 1024, to);
    while let Ok(first) = queue.recv() {
        let mut waiting = Vec::new();
        for message in std::iter::once(first).chain(queue.try_iter()) {
            match message {
                // A reader that went away is no reason to stop serving; the next line may find another.
                Message::Line(line) => drop(to.write_all(line.as_bytes())),
                Message::Flush(done) => waiting.push(done),
            }
        }
        let _unwritten = to.flush();
        for done in waiting {
            let _gone = done.send(());
        }
    }
}

impl Line<'_> {
    fn json(&self) -> String {
        let mut text = String::with_capacity(320);
        let _infallible = write!(
            text,
            r#"{{"ts":"{}","request_id":"{}","method":"{}","host":"{}","path":"{}","route":"{}","status":{},"bytes":{},"dur_ms":{:.3},"cache":"{}","#,
            Rfc3339(self.at),
            Escaped(self.request_id),
            self.method,
            Escaped(self.host),
            Escaped(self.path),
            Escaped(self.route),
            self.status,
            self.bytes,
            self.duration.as_secs_f64() * 1e3,
            self.cache.as_str(),
        );
        let _infallible = match self.reason {
            Some(reason) => writeln!(text, r#""reason":"{}"}}"#, reason.as_str()),
            None => writeln!(text, r#""reason":null}}"#),
        };
        text
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(200);
        let _infallible = writeln!(
            text,
            "{} {:<11} {} {} {}{} {}B {:.3}ms{}{} route={} id={}",
            Rfc3339(self.at),
            self.cache.as_str(),
            self.status,
            self.method,
            Escaped(self.host),
            Escaped(self.path),
            self.bytes,
            self.duration.as_secs_f64() * 1e3,
            if self.reason.is_some() { " reason=" } else { "" },
            self.reason.map_or("", Reason::as_str),
            Escaped(self.route),
            Escaped(self.request_id),
        );
        text
    }
}

/// Text that can stand between JSON quotes, and on one line.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' => to.write_str("\\\"")?,
                '\\' => to.write_str("\\\\")?,
                control if control.is_control() => write!(to, "\\u{:04x}", u32::from(control))?,
                plain => to.write_char(plain)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(path: &'a str, method: &'a Method) -> Line<'a> {
        Line {
            at: Timestamp::from_millis(1_709_164_799_123),
            request_id: "abc",
            method,
            host: "api.example.com",
            path,
            route: "tiles",
            status: 200,
            bytes: 12,
            duration: Duration::from_micros(1500),
            cache: CacheResult::Hit,
            reason: None,
        }
    }

    #[test]
    fn a_json_line_is_json_whatever_the_path_holds() {
        let text = line("/a\"b\\c\u{7f}", &Method::GET).json();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed["path"], "/a\"b\\c\u{7f}");
        assert_eq!(parsed["ts"], "2024-02-28T23:59:59.123Z");
        assert_eq!(parsed["dur_ms"], 1.5);
        assert!(text.ends_with('\n') && text.matches('\n').count() == 1);
    }

    #[test]
    fn a_stuck_reader_costs_lines_not_time() {
        struct Stuck(std::sync::mpsc::Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                let _released = self.0.recv();
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (release, gate) = std::sync::mpsc::channel();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let log = AccessLog::start(Format::Text, Stuck(gate), dropped.clone()).unwrap();
        let path = "/x".repeat(40_000);
        (0..QUEUE + 100).for_each(|_| log.write(&line(&path, &Method::GET)));
        assert!(dropped.get() > 0);
        drop(release);
    }
}
