//! Settings of a listener: limits, timeouts, TLS.

use std::{sync::Arc, time::Duration};

use super::{
    FastPathMode, Pressure,
    refusal::{RefusalObserver, RefusedRequest, RequestRefusal},
};

/// Settings of a listener, as plain values. The configuration has validated them.
#[derive(Clone)]
pub struct Settings {
    /// TLS with these certificates on TCP. Without them, and on Unix sockets, plain text.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Limit on open connections of all listeners that share counters; beyond it 503.
    pub connections: usize,
    /// Limit on a request's head, or an HTTP/2 header list, in bytes; beyond it 431.
    pub header_bytes: usize,
    /// Limit on a request's header lines; beyond it 431.
    pub header_count: usize,
    /// Limit on a request line in bytes; beyond it 414. HTTP/1.1 only.
    pub target_bytes: usize,
    /// Limit on a request body in bytes; beyond it 413. `u64::MAX` means no limit.
    pub body_bytes: u64,
    /// Longest pause in a request body.
    pub body_timeout: Duration,
    /// Time limit of a TLS handshake.
    pub handshake_timeout: Duration,
    /// Time limit of a request's head, from its first byte.
    pub header_timeout: Duration,
    /// Closes a connection without a request, or with a client that does not read, after this time
    /// (up to a quarter more).
    pub idle_timeout: Duration,
    /// Limit on concurrent requests of one HTTP/2 connection.
    pub streams: u32,
    /// Limit on open tunnels (WebSocket and other upgrades); beyond it 503.
    pub tunnels: usize,
    /// Closes a tunnel without traffic after this time (up to a quarter more).
    pub tunnel_idle_timeout: Duration,
    /// Whether memory or origin connections are scarce.
    pub pressure: Pressure,
    /// File descriptors reserved for this listener: it accepts clients when the process has no
    /// others left.
    pub reserved_files: usize,
    /// When repeated requests are responded to without hyper.
    pub fast_path: FastPathMode,
    /// Called with each request that the server refuses.
    pub on_refusal: Option<RefusalObserver>,
}

impl Settings {
    /// Reports a refused request to the observer.
    pub(super) fn report_refusal(&self, refused: &RefusedRequest<'_>) {
        if let Some(observer) = &self.on_refusal {
            observer(refused);
        }
    }

    /// Reports a request that could not be parsed.
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
            fast_path: FastPathMode::default(),
            on_refusal: None,
        }
    }
}
