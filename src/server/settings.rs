//! Settings of a listener: limits, timeouts, TLS.

use std::{sync::Arc, time::Duration};

use super::{
    FastPathMode, Pressure,
    refusal::{RefusalObserver, RefusedRequest, RequestRefusal},
};

/// Settings of a listener, as plain values. The configuration has validated them.
#[derive(Clone)]
pub struct Settings {
    /// TLS settings for TCP sockets; `None` for plain text. Unix sockets always use plain text.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Maximum number of open connections of all listeners that share counters. Further clients get
    /// a 503.
    pub connections: usize,
    /// Maximum size of a request's head, or of an HTTP/2 header list, in bytes. Requests above it
    /// get a 431.
    pub header_bytes: usize,
    /// Maximum number of header lines in a request. Requests with more lines get a 431.
    pub header_count: usize,
    /// Maximum length of an HTTP/1.1 request line, in bytes. Requests above it get a 414.
    pub target_bytes: usize,
    /// Maximum length of a request body, in bytes. Requests above it get a 413. `u64::MAX` means no
    /// limit.
    pub body_bytes: u64,
    /// Maximum time to wait for the next bytes of a request body.
    pub body_timeout: Duration,
    /// Maximum time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Maximum time for a request's head, from its first byte.
    pub header_timeout: Duration,
    /// Time after which a connection is closed if it has no request, or if its client does not read
    /// (up to a quarter more).
    pub idle_timeout: Duration,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// Maximum number of open tunnels (WebSocket and other upgrades). Further upgrades get a 503.
    pub tunnels: usize,
    /// Time after which a tunnel without traffic is closed (up to a quarter more).
    pub tunnel_idle_timeout: Duration,
    /// The flag that is set while memory or origin connections are scarce.
    pub pressure: Pressure,
    /// Number of file descriptors reserved for this listener, so that it can still accept clients
    /// when the process has no descriptors left.
    pub reserved_files: usize,
    /// The mode of the fast path: which requests are responded to without hyper.
    pub fast_path: FastPathMode,
    /// A function that is called with each request that the server refuses, if set.
    pub on_refusal: Option<RefusalObserver>,
}

impl Settings {
    /// Reports a refused request to the observer, if there is one.
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
