//! Connections that switch from HTTP to another protocol, such as WebSocket (RFC 9110 §7.8).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use super::{ListenerCounters, Settings, listener::OpenConnection};

/// Number of checks on a tunnel during one idle timeout.
const TICKS: u32 = 4;

/// Opens tunnels for one connection, up to the limit on the number of tunnels.
#[derive(Debug, Default)]
pub struct TunnelLimiter {
    /// The guard that counts the connection as open.
    open_connection: Weak<OpenConnection>,
    /// `None` if no listener has accepted the connection: it cannot become a tunnel.
    counters: Option<Arc<ListenerCounters>>,
    limit: usize,
    idle_timeout: Duration,
}

/// A connection that is a tunnel or is becoming a tunnel. Until dropped, the value counts as an
/// open connection and as an open tunnel.
#[derive(Debug)]
pub struct Tunnel {
    _open_connection: Option<Arc<OpenConnection>>,
    counters: Arc<ListenerCounters>,
    idle_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both directions have ended.
    Closed,
    /// No bytes passed during the idle timeout.
    Idle,
}

impl TunnelLimiter {
    pub(super) fn new(
        open_connection: &Arc<OpenConnection>,
        counters: &Arc<ListenerCounters>,
        settings: &Settings,
    ) -> Self {
        Self {
            open_connection: Arc::downgrade(open_connection),
            counters: Some(Arc::clone(counters)),
            limit: settings.tunnels,
            idle_timeout: settings.tunnel_idle_timeout,
        }
    }

    /// Counts a tunnel as open. Returns `None` if the limit is reached.
    pub fn open(&self) -> Option<Tunnel> {
        let counters = self.counters.as_ref()?;
        let tunnel = Tunnel {
            _open_connection: self.open_connection.upgrade(),
            counters: Arc::clone(counters),
            idle_timeout: self.idle_timeout,
        };
        if counters.tunnels.fetch_add(1, Relaxed) < self.limit {
            return Some(tunnel);
        }
        counters.tunnels_refused.fetch_add(1, Relaxed);
        None
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.counters.tunnels.fetch_sub(1, Relaxed);
    }
}

impl Tunnel {
    /// Relays bytes in both directions, until both directions have ended or the idle timeout has
    /// passed (up to a quarter more).
    ///
    /// The end of one direction is forwarded immediately. The other direction continues.
    pub async fn relay<C, O>(self, client: C, origin: O) -> io::Result<TunnelEnd>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        O: AsyncRead + AsyncWrite + Unpin,
    {
        let activity = TunnelActivity::default();
        let mut client = Metered { stream: client, activity: &activity };
        let mut origin = Metered { stream: origin, activity: &activity };
        tokio::select! {
            relayed = copy_bidirectional(&mut client, &mut origin) => {
                relayed.map(|_| TunnelEnd::Closed)
            }
            () = activity.wait_idle(self.idle_timeout) => Ok(TunnelEnd::Idle),
        }
    }
}

/// Counts the reads and writes of a tunnel.
#[derive(Default)]
struct TunnelActivity(AtomicU64);

impl TunnelActivity {
    /// Waits until the tunnel has been idle for the idle timeout (up to a quarter more).
    async fn wait_idle(&self, idle_timeout: Duration) {
        let tick = (idle_timeout / TICKS).max(Duration::from_millis(1));
        let (mut seen, mut ticks) = (self.0.load(Relaxed), 0);
        while ticks < TICKS {
            tokio::time::sleep(tick).await;
            let now = self.0.load(Relaxed);
            ticks = if now == seen { ticks + 1 } else { 0 };
            seen = now;
        }
    }
}

/// One side of a tunnel, with its reads and writes counted.
struct Metered<'a, S> {
    stream: S,
    activity: &'a TunnelActivity,
}

impl<S> Metered<'_, S> {
    fn note(&self) {
        self.activity.0.fetch_add(1, Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.note();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.note();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    fn tunnels(limit: usize) -> TunnelLimiter {
        let (open_connection, counters) = (Weak::new(), Some(Arc::default()));
        TunnelLimiter { open_connection, counters, limit, idle_timeout: Duration::from_mins(1) }
    }

    #[test]
    fn there_are_so_many_tunnels_and_no_more() {
        let tunnels = tunnels(1);
        let first = tunnels.open().unwrap();
        assert!(tunnels.open().is_none());
        let counters = tunnels.counters.as_ref().unwrap();
        assert_eq!(counters.tunnels.load(Relaxed), 1);
        drop(first);
        assert!(tunnels.open().is_some());
        assert_eq!(counters.tunnels_refused.load(Relaxed), 1);
    }

    #[test]
    fn a_tunnel_keeps_the_place_of_its_connection() {
        let counters = Arc::<ListenerCounters>::default();
        let open_connection = Arc::new(counters.acquire(9, None).unwrap());
        let tunnels = TunnelLimiter::new(&open_connection, &counters, &Settings::default());
        let tunnel = tunnels.open();
        drop(open_connection);
        assert_eq!(counters.open.load(Relaxed), 1);
        drop(tunnel);
        assert_eq!(counters.open.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_ends_once_nothing_has_gone_through_it_for_long() {
        let ((mut client, near), (far, mut origin)) = (duplex(64), duplex(64));
        let tunnels = tunnels(1);
        let tunnel = tokio::spawn(tunnels.open().unwrap().relay(near, far));
        let started = Instant::now();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(50)).await;
            client.write_all(b"ping").await.unwrap();
            origin.read_exact(&mut [0; 4]).await.unwrap();
        }
        assert_eq!(tunnel.await.unwrap().unwrap(), TunnelEnd::Idle);
        assert!((560..=575).contains(&started.elapsed().as_secs()));
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_one_open() {
        let ((mut client, near), (far, mut origin)) = (duplex(64), duplex(64));
        let tunnels = tunnels(1);
        let tunnel = tokio::spawn(tunnels.open().unwrap().relay(near, far));
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        origin.read_to_end(&mut all).await.unwrap();
        origin.write_all(b"answer").await.unwrap();
        drop(origin);
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(
            (&*all, tunnel.await.unwrap().unwrap()),
            (&b"questionanswer"[..], TunnelEnd::Closed)
        );
    }
}
