//! A bounded queue in front of an output stream, emptied by a dedicated thread.

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use prometheus::IntCounter;

/// The size in bytes at which a batch accepts no further entries. A batch is written with one
/// system call.
const BATCH_BYTES: usize = 64 * 1024;

/// The first pause while a stream accepts no data. The pause doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);

/// The minimum interval between two reports of dropped entries.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The limits of the queue. Entries beyond either limit are dropped.
#[derive(Debug, Clone, Copy)]
pub(in crate::telemetry) struct QueueLimits {
    pub(in crate::telemetry) entries: usize,
    /// The total bytes of all entries.
    pub(in crate::telemetry) bytes: usize,
}

/// An output stream for log entries.
///
/// Writing queues an entry and returns at once. If the stream blocks or fails, entries are dropped
/// and counted.
#[derive(Debug)]
pub(crate) struct LogQueue {
    queue: SyncSender<QueueCommand>,
    waiting_bytes: Arc<AtomicUsize>,
    limit_bytes: usize,
    dropped: IntCounter,
}

enum QueueCommand {
    Entry(Vec<u8>),
    /// Requests a confirmation once all previous entries are written or dropped.
    Flush(SyncSender<()>),
}

/// Formats a report of the number of entries dropped since the last report.
///
/// The writer thread calls it at most once a second, and before each flush.
pub(in crate::telemetry) type DropReporter = Box<dyn Fn(u64) -> Vec<u8> + Send>;

impl LogQueue {
    /// Starts the writer thread, which ends when the queue is dropped and all entries are written.
    ///
    /// Each entry that is not written increments `dropped`.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub(in crate::telemetry) fn start(
        name: &str,
        to: impl Write + Send + 'static,
        (limits, dropped): (QueueLimits, IntCounter),
        drop_reporter: DropReporter,
    ) -> io::Result<Self> {
        let (queue, commands) = sync_channel(limits.entries);
        let waiting_bytes = Arc::<AtomicUsize>::default();
        let writer = QueueWriter {
            to,
            waiting_bytes: Arc::clone(&waiting_bytes),
            reported: dropped.get(),
            dropped: dropped.clone(),
            is_torn: false,
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || writer.run(&commands, &drop_reporter))?;
        Ok(Self { queue, waiting_bytes, limit_bytes: limits.bytes, dropped })
    }

    /// Queues an entry of whole lines, each with its line feed. Never blocks.
    pub(crate) fn write(&self, entry: impl Into<Vec<u8>>) {
        let entry = entry.into();
        let bytes = entry.len();
        let before = self.waiting_bytes.fetch_add(bytes, Relaxed);
        let has_room = before.saturating_add(bytes) <= self.limit_bytes;
        if !has_room || self.queue.try_send(QueueCommand::Entry(entry)).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Relaxed);
            self.dropped.inc();
        }
    }

    /// Waits until all previous entries are written or dropped, up to a time limit.
    ///
    /// Blocks the thread. Call it only at the end of the process.
    pub(crate) fn flush(&self, at_most: Duration) {
        let deadline = Instant::now() + at_most;
        let (done, flushed) = sync_channel(1);
        let mut command = QueueCommand::Flush(done);
        while let Err(refused) = self.queue.try_send(command) {
            let TrySendError::Full(again) = refused else { return };
            if Instant::now() >= deadline {
                return;
            }
            command = again;
            std::thread::sleep(FIRST_PAUSE);
        }
        let _late = flushed.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Duplicates a standard stream, without the lock and buffer of the standard library.
///
/// A write to the duplicate may block without blocking anything else.
///
/// # Errors
/// Fails if the stream is closed.
pub(crate) fn unbuffered(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

struct QueueWriter<W> {
    to: W,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: IntCounter,
    /// The number of dropped entries that have been reported.
    reported: u64,
    /// True if the last entry was written only in part.
    is_torn: bool,
}

impl<W: Write> QueueWriter<W> {
    fn run(mut self, commands: &Receiver<QueueCommand>, drop_reporter: &DropReporter) {
        let mut due = Instant::now() + REPORT_INTERVAL;
        loop {
            let flushes = match commands.recv_timeout(due.saturating_duration_since(Instant::now()))
            {
                Ok(first) => self.write_batch(first, commands),
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if !flushes.is_empty() || Instant::now() >= due {
                self.report_drops(drop_reporter);
                due = Instant::now() + REPORT_INTERVAL;
            }
            for done in flushes {
                let _gone = done.send(());
            }
        }
    }

    /// Writes a report of dropped entries. If that fails, they are reported again later.
    fn report_drops(&mut self, drop_reporter: &DropReporter) {
        let dropped = self.dropped.get();
        let text = drop_reporter(dropped - self.reported);
        match self.write_lines(&text) {
            Ok(()) => self.reported = dropped,
            Err(written) => self.is_torn |= written > 0,
        }
    }

    /// Writes this entry and those queued after it, up to a batch. Returns the flushes to confirm.
    fn write_batch(
        &mut self,
        first: QueueCommand,
        more: &Receiver<QueueCommand>,
    ) -> Vec<SyncSender<()>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                QueueCommand::Entry(entry) => {
                    bytes += entry.len();
                    entries.push(entry);
                }
                QueueCommand::Flush(done) => {
                    self.write_now(&entries);
                    self.waiting_bytes.fetch_sub(bytes, Relaxed);
                    return vec![done];
                }
            }
            next = if bytes < BATCH_BYTES { more.try_recv().ok() } else { None };
        }
        self.write_now(&entries);
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
        Vec::new()
    }

    fn write_now(&mut self, entries: &[Vec<u8>]) {
        if let Err(written) = self.write_lines(&entries.concat()) {
            self.count_lost(entries, written);
        }
    }

    /// Writes whole lines, starting on a new line. On failure, returns the number of bytes written.
    fn write_lines(&mut self, lines: &[u8]) -> Result<(), usize> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.is_torn {
            self.write_all(b"\n").map_err(|_| 0_usize)?;
            self.is_torn = false;
        }
        let written = self.write_all(lines);
        let _has_no_buffer = self.to.flush();
        written
    }

    /// Writes all bytes, and waits while a non-blocking stream is full. On failure, returns the
    /// number of bytes written.
    fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), usize> {
        let (length, mut pause) = (bytes.len(), FIRST_PAUSE);
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(written) if written > 0 => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    pause = FIRST_PAUSE;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LAST_PAUSE);
                }
                // The reader is gone or the disk is full. The next batch may succeed.
                Ok(_) | Err(_) => return Err(length - bytes.len()),
            }
        }
        Ok(())
    }

    fn count_lost(&mut self, entries: &[Vec<u8>], written: usize) {
        let mut end = 0;
        let mut lost = 0;
        for entry in entries {
            let start = end;
            end += entry.len();
            self.is_torn |= start < written && written < end;
            lost += u64::from(end > written);
        }
        self.dropped.inc_by(lost);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use parking_lot::Mutex;

    use super::*;

    const LIMITS: QueueLimits = QueueLimits { entries: 4, bytes: 100 };

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "dropped").unwrap()
    }

    /// A stream that accepts as much as the test allows.
    struct Scripted {
        results: Receiver<io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = self.results.recv().unwrap_or(Ok(bytes.len()))?.min(bytes.len());
            self.written.lock().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Results = Sender<io::Result<usize>>;

    fn scripted() -> (LogQueue, Results, Arc<Mutex<Vec<u8>>>) {
        let (script, results) = channel();
        let written = Arc::<Mutex<Vec<u8>>>::default();
        let to = Scripted { results, written: Arc::clone(&written) };
        let drop_reporter = Box::new(|lost| match lost {
            0 => Vec::new(),
            lost => format!("{lost} lost\n").into_bytes(),
        });
        let output = LogQueue::start("test", to, (LIMITS, counter()), drop_reporter).unwrap();
        (output, script, written)
    }

    fn text(written: &Mutex<Vec<u8>>) -> String {
        String::from_utf8(written.lock().clone()).unwrap()
    }

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn a_stuck_reader_costs_entries_not_time() {
        let (output, script, written) = scripted();
        (0..50).for_each(|_| output.write("a line\n"));
        assert!((36..=46).contains(&output.dropped.get()), "{}", output.dropped.get());
        output.flush(Duration::from_millis(1));
        drop(script);
        output.flush(PATIENCE);
        let (dropped, text) = (output.dropped.get(), text(&written));
        assert_eq!(text.matches("a line\n").count(), 50 - usize::try_from(dropped).unwrap());
        assert!(text.ends_with(&format!("{dropped} lost\n")), "{text}");
    }

    #[test]
    fn the_queue_has_a_limit_in_bytes() {
        let (output, _script, _written) = scripted();
        output.write(vec![b'a'; 60]);
        output.write(vec![b'b'; 60]);
        assert_eq!(output.dropped.get(), 1);
    }

    #[test]
    fn a_reader_that_comes_back_gets_whole_lines() {
        let (output, script, written) = scripted();
        output.write("first\n");
        script.send(Ok(3)).unwrap();
        script.send(Err(ErrorKind::BrokenPipe.into())).unwrap();
        script.send(Err(ErrorKind::WouldBlock.into())).unwrap();
        while output.dropped.get() == 0 {
            std::thread::yield_now();
        }
        drop(script);
        output.write("second\n");
        output.flush(PATIENCE);
        assert_eq!(text(&written), "fir\nsecond\n1 lost\n");
        assert_eq!(output.dropped.get(), 1);
    }

    #[test]
    fn entries_are_counted_that_an_error_cut_or_left_out() {
        let mut writer = QueueWriter {
            to: io::sink(),
            waiting_bytes: Arc::default(),
            dropped: counter(),
            reported: 0,
            is_torn: false,
        };
        let entries = [b"one\n".to_vec(), b"two\n".to_vec(), b"three\n".to_vec()];
        writer.count_lost(&entries, 4);
        assert_eq!((writer.dropped.get(), writer.is_torn), (2, false));
        writer.count_lost(&entries, 6);
        assert_eq!((writer.dropped.get(), writer.is_torn), (4, true));
    }
}
