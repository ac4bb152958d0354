//! What a listener is told: limits, times, TLS.

use std::{sync::Arc, time::Duration};

use super::{
    Pressure,
    refusal::{RefusalObserver, RefusedRequest, RequestRefusal},
};

/// Everything the server needs to know; plain values, checked by whoever reads the configuration.
#[derive(Clone)]
pub struct Settings {
    /// TLS with these certificates on TCP; plain text without, and on Unix sockets.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections open at once on all listeners that share their counters; beyond them clients get a 503.
    pub connections: usize,
    /// Bytes of a request's head, or of an HTTP/2 header list; beyond them 431.
    pub header_bytes: usize,
    /// Header lines in a request; beyond them 431.
    pub header_count: usize,
    /// Bytes of a request line; beyond them 414. HTTP/1.1 only.
    pub target_bytes: usize,
    /// Bytes of a request body; beyond them 413. `u64::MAX` means no limit.
    pub body_bytes: u64,
    /// A request body may be silent for this long.
    pub body_timeout: Duration,
    /// A TLS handshake takes at most this long.
    pub handshake_timeout: Duration,
    /// A request's head takes at most this long from its first byte.
    pub header_timeout: Duration,
    /// A connection without a request, or whose client does not read, is closed after this long (up to
    /// a quarter more).
    pub idle_timeout: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Tunnels (WebSocket and other upgrades) open at once; beyond them upgrades get a 503.
    pub tunnels: usize,
    /// A tunnel through which nothing goes is closed after this long (up to a quarter more).
    pub tunnel_idle_timeout: Duration,
    /// Whether memory or connections to the origin are short.
    pub pressure: Pressure,
    /// File descriptors kept for this listener: it accepts clients where the process has no others left.
    pub reserved_files: usize,
    /// Called with each request that is refused before any handler is asked.
    pub on_refusal: Option<RefusalObserver>,
}

impl Settings {
    /// Tells of a request that is refused.
    pub(super) fn report_refusal(&self, refused: &RefusedRequest<'_>) {
        if let Some(observer) = &self.on_refusal {
            observer(refused);
        }
    }

    /// Tells of a request that could not be read.
    pub(super) fn report_unread_refusal(&self, refusal: RequestRefusal) {
        self.report_refusal(&RefusedRequest::unread(refusal));
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tls: None,
            connections: 16_384,
            header_bytes: 32 * 1024,
            header_count: 100,
            target_bytes: 16 * 1024,
            body_bytes: u64::MAX,
            body_timeout: Duration::from_mins(1),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(75),
            streams: 100,
            tunnels: usize::MAX,
            tunnel_idle_timeout: Duration::from_hours(1),
            pressure: Pressure::default(),
            reserved_files: 0,
            on_refusal: None,
        }
    }
}
