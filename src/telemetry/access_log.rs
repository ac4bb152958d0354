//! The access log: one line per request, written by a dedicated thread without blocking requests.

use std::{fmt::Write as _, io, sync::Arc, time::Duration};

use http::Method;
use prometheus::IntCounter;

use super::log::{Escaped, LogQueue, QueueLimits};
use crate::{
    field::{Rfc3339, Timestamp},
    policy::cache_status::CacheResult,
};

/// The limits of the queue. A typical line has about 250 bytes, but a long path adds kilobytes.
const LIMITS: QueueLimits = QueueLimits { entries: 8192, bytes: 4 << 20 };

/// The format of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessLogEncoding {
    /// One JSON object per line.
    Json,
    /// `key=value` pairs.
    Text,
}

/// The access log in one format.
///
/// Lines that cannot be written are dropped and counted, so that a slow disk or a full pipe delays
/// no request.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    format: AccessLogEncoding,
    queue: Arc<LogQueue>,
}

/// The logged properties of a request.
///
/// The query, field values and bodies are not logged, because they may contain personal data.
#[derive(Debug, Clone)]
pub(crate) struct AccessLogEntry<'a> {
    /// The time at which the head of the request was complete.
    pub at: Timestamp,
    /// The request's `X-Request-ID`; empty if there is none.
    pub request_id: &'a str,
    /// The method; `None` if the request could not be parsed.
    pub method: Option<&'a Method>,
    /// The value of `Host`.
    pub host: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    pub route: &'a str,
    /// The status; 499 if the client disconnected before the response.
    pub status: u16,
    /// Body bytes sent.
    pub bytes: u64,
    /// The time from the request's head to the end of the response.
    pub duration: Duration,
    /// The outcome in `X-API-Cache`, or `None` if one of Larder's own endpoints responded.
    pub cache: Option<CacheResult>,
    /// The reason for a miss or rejection, from a closed list.
    pub reason: Option<&'static str>,
}

impl AccessLog {
    /// Starts the writer thread, which all access logs of a process share.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub(crate) fn queue(
        to: impl io::Write + Send + 'static,
        dropped: IntCounter,
    ) -> io::Result<Arc<LogQueue>> {
        let drop_reporter = Box::new(|lost| {
            if lost > 0 {
                tracing::warn!(lines = lost, "access-log lines were dropped");
            }
            Vec::new()
        });
        LogQueue::start("access-log", to, (LIMITS, dropped), drop_reporter).map(Arc::new)
    }

    pub(crate) fn new(format: AccessLogEncoding, queue: Arc<LogQueue>) -> Self {
        Self { format, queue }
    }

    /// Queues one line. Never blocks.
    pub(crate) fn write(&self, line: &AccessLogEntry<'_>) {
        self.queue.write(match self.format {
            AccessLogEncoding::Json => line.json(),
            AccessLogEncoding::Text => line.text(),
        });
    }
}

impl AccessLogEntry<'_> {
    fn cache_word(&self) -> Option<&'static str> {
        self.cache.map(CacheResult::as_str)
    }

    fn json(&self) -> String {
        let mut text = String::with_capacity(320);
        let _infallible = write!(
            text,
            r#"{{"ts":"{}","request_id":"{}","method":"{}","host":"{}","path":"{}","route":"{}","status":{},"bytes":{},"dur_ms":{:.3},"#,
            Rfc3339(self.at),
            Escaped(self.request_id),
            self.method.map_or("", Method::as_str),
            Escaped(self.host),
            Escaped(self.path),
            Escaped(self.route),
            self.status,
            self.bytes,
            self.duration.as_secs_f64() * 1e3,
        );
        for (name, word) in [("cache", self.cache_word()), ("reason", self.reason)] {
            let _infallible = match word {
                Some(word) => write!(text, r#""{name}":"{word}","#),
                None => write!(text, r#""{name}":null,"#),
            };
        }
        text.truncate(text.len() - 1);
        text.push_str("}\n");
        text
    }

    fn text(&self) -> String {
        let mut text = String::with_capacity(200);
        let _infallible = writeln!(
            text,
            "{} {:<11} {} {} {}{} {}B {:.3}ms{}{} route={} id={}",
            Rfc3339(self.at),
            self.cache_word().unwrap_or("-"),
            self.status,
            self.method.map_or("-", Method::as_str),
            Escaped(self.host),
            Escaped(self.path),
            self.bytes,
            self.duration.as_secs_f64() * 1e3,
            if self.reason.is_some() { " reason=" } else { "" },
            self.reason.unwrap_or_default(),
            Escaped(self.route),
            Escaped(self.request_id),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(path: &'a str, method: &'a Method) -> AccessLogEntry<'a> {
        AccessLogEntry {
            at: Timestamp::from_millis(1_709_164_799_123),
            request_id: "abc",
            method: Some(method),
            host: "api.example.com",
            path,
            route: "tiles",
            status: 200,
            bytes: 12,
            duration: Duration::from_micros(1500),
            cache: Some(CacheResult::Hit),
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
}
