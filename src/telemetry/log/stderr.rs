//! Larder's own messages on standard error: a `tracing` subscriber that never blocks.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::{self, Write as _},
    io::{self, IsTerminal as _, Write},
    panic::PanicHookInfo,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::IntCounter;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::{
        MakeWriter,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    layer::{Context, SubscriberExt as _},
    registry::Registry,
    util::SubscriberInitExt as _,
};

use super::{
    queue::{LogQueue, QueueLimits, unbuffered},
    repetition::{RepetitionLimiter, SuppressedMessage},
    text::{escape, is_deceptive},
};

const LIMITS: QueueLimits = QueueLimits { entries: 4096, bytes: 1 << 20 };

/// The time limit at shutdown for writing the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Number of entries that this process could not write.
pub(in crate::telemetry) static DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "larder_log_dropped_total",
        "Log entries dropped because standard error was too slow or failed.",
    )
});

/// Number of messages that this process suppressed as repetitions.
pub(in crate::telemetry) static SUPPRESSED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "larder_log_repeated_total",
        "Warnings and errors not written because they repeat an earlier one.",
    )
});

#[expect(clippy::expect_used, reason = "names are constants of this file")]
fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("a valid name")
}

/// The standard error of the process. Writing to it never blocks, fails or panics.
#[derive(Clone)]
pub(crate) struct StderrLog {
    queue: Option<Arc<LogQueue>>,
    repetitions: Arc<Mutex<RepetitionLimiter>>,
    has_colour: bool,
}

impl StderrLog {
    /// Starts to write to standard error. If standard error is closed, all output is dropped.
    pub(crate) fn start() -> Self {
        let repetitions = Arc::<Mutex<RepetitionLimiter>>::default();
        let has_colour = io::stderr().is_terminal();
        let suppressed = Arc::clone(&repetitions);
        let drop_reporter =
            Box::new(move |lost| summary(lost, &suppressed.lock().ended(Instant::now())));
        let queue = unbuffered(io::stderr()).and_then(|stderr| {
            let queue = (LIMITS, DROPPED.clone());
            LogQueue::start("log", stderr, queue, drop_reporter)
        });
        Self { queue: queue.ok().map(Arc::new), repetitions, has_colour }
    }

    /// Installs this log as the global `tracing` subscriber, and a panic hook that logs to it.
    ///
    /// `directives` filter the events, and `LARDER_LOG` overrides them. Both use `tracing`'s filter
    /// syntax.
    pub(crate) fn subscribe(&self, directives: &str) {
        let filter =
            EnvFilter::try_from_env("LARDER_LOG").unwrap_or_else(|_| EnvFilter::new(directives));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(self.clone())
            .with_ansi(self.has_colour)
            .with_target(false)
            .log_internal_errors(false);
        let limit = RepetitionLayer(Arc::clone(&self.repetitions));
        let _another_is_set = Registry::default().with(filter).with(limit).with(lines).try_init();
        std::panic::set_hook(Box::new(log_panic));
    }

    /// Writes text that is not an event, such as errors in a configuration.
    pub(crate) fn print(&self, text: &str) {
        let mut stripped =
            anstream::AutoStream::new(Vec::new(), anstream::AutoStream::choice(&io::stderr()));
        let _in_memory = stripped.write_all(text.as_bytes());
        if let Some(queue) = &self.queue {
            queue.write(stripped.into_inner());
        }
    }

    /// Flushes the last lines. Blocks for up to a second.
    pub(crate) fn flush(&self) {
        let Some(queue) = &self.queue else { return };
        let last = self.repetitions.lock().take();
        let last = summary(0, &last);
        if !last.is_empty() {
            queue.write(last);
        }
        queue.flush(LAST_LINES);
    }
}

/// Logs a panic. Replaces the standard library's panic hook, which blocks on standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(thread, "{panic}\n{backtrace}");
    } else {
        tracing::error!(thread, "{panic}");
    }
}

/// Returns the lines that report dropped and suppressed messages.
fn summary(lost: u64, repeated: &[SuppressedMessage]) -> Vec<u8> {
    let at = now();
    let mut lines = String::new();
    if lost > 0 {
        let _infallible = writeln!(
            lines,
            "{at}  WARN {lost} log entries were dropped: standard error was too slow or failed"
        );
    }
    for SuppressedMessage { level, message, times } in repeated {
        let _infallible = writeln!(lines, "{at} {level:>5} {message} (repeated {times} times)");
    }
    lines.into_bytes()
}

/// Returns the current time in the subscriber's format.
fn now() -> String {
    let mut text = String::new();
    let _infallible = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

impl<'a> MakeWriter<'a> for StderrLog {
    type Writer = EventWriter<'a>;

    fn make_writer(&'a self) -> EventWriter<'a> {
        EventWriter(self)
    }
}

/// A writer for one event, which `tracing` passes in one piece.
pub(crate) struct EventWriter<'a>(&'a StderrLog);

impl Write for EventWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(queue) = &self.0.queue {
            queue.write(escape_controls(bytes, self.0.has_colour));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes characters that could change how the event's lines are displayed.
fn escape_controls(bytes: &[u8], has_colour: bool) -> Vec<u8> {
    let is_plain = |byte: u8| byte == b'\n' || (b' '..0x7f).contains(&byte);
    if bytes.iter().all(|byte| is_plain(*byte)) {
        return bytes.to_vec();
    }
    let mut shown = String::with_capacity(bytes.len() + 16);
    for character in String::from_utf8_lossy(bytes).chars() {
        // On a terminal, escape sequences are from the subscriber, which has escaped values.
        let is_own = matches!(character, '\n' | '\t') || (has_colour && character == '\u{1b}');
        if is_own || !is_deceptive(character) {
            shown.push(character);
        } else {
            let _infallible = escape(character, &mut shown);
        }
    }
    shown.into_bytes()
}

/// Suppresses repeated warnings and errors. Other levels are rare or explicitly enabled.
struct RepetitionLayer(Arc<Mutex<RepetitionLimiter>>);

impl<S: Subscriber> Layer<S> for RepetitionLayer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return true;
        }
        let mut message = MessageVisitor::default();
        event.record(&mut message);
        let is_admitted = self.0.lock().admit(level, &message.0, Instant::now());
        if !is_admitted {
            SUPPRESSED.inc();
        }
        is_admitted
    }
}

/// The text of an event, without its fields, which vary.
#[derive(Default)]
struct MessageVisitor(String);

impl Visit for MessageVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _infallible = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_hide_or_reorder_text_are_escaped_and_lines_kept() {
        let shown = |text: &str, colour| {
            String::from_utf8(escape_controls(text.as_bytes(), colour)).unwrap()
        };
        assert_eq!(shown("a\n\tb ü\n", false), "a\n\tb ü\n");
        assert_eq!(shown("a\u{202e}b\r\u{1b}[2J\n", false), "a\\u202eb\\u000d\\u001b[2J\n");
        assert_eq!(shown("\u{1b}[33m WARN\u{1b}[0m\n", true), "\u{1b}[33m WARN\u{1b}[0m\n");
    }

    #[test]
    fn a_summary_reports_missing_messages() {
        let repeated =
            SuppressedMessage { level: Level::WARN, message: "Redis is gone".into(), times: 7 };
        let text = String::from_utf8(summary(3, &[repeated])).unwrap();
        assert!(text.contains(" WARN 3 log entries were dropped"), "{text}");
        assert!(text.contains(" WARN Redis is gone (repeated 7 times)"), "{text}");
        assert!(summary(0, &[]).is_empty());
    }
}
