//! Listening sockets: TCP and Unix, shared by several accepting threads.

use std::{
    fmt,
    fs::Permissions,
    io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::{
    placement::{PlacedConnection, Placement},
    refusal::RequestRefusal,
    unread::UnreadAccounts,
};

const BACKLOG: i32 = 4096;

/// A listening socket.
///
/// Clones accept on the same socket, so several runtimes can share it. They serve about the same
/// number of connections each. All listeners with the same [`ListenerCounters`] share one limit on
/// connections.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: BoundSocket,
    pub(super) counters: Arc<ListenerCounters>,
    pub(super) placement: Arc<Placement>,
}

#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(TcpListener),
    Unix(UnixListener, Arc<SocketFile>),
}

/// Options of a TCP socket.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpOptions {
    /// Whether an IPv6 socket rejects IPv4 clients, because another socket listens for them on the
    /// same port.
    pub only_v6: bool,
    /// Whether other processes may listen on the same address (`SO_REUSEPORT`).
    pub reuse_port: bool,
}

/// The address of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundAddress {
    /// An address and port.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Counters of one listener, or of several listeners that share them.
#[derive(Debug, Default)]
pub struct ListenerCounters {
    /// Number of open connections.
    pub open: AtomicUsize,
    /// Number of accepted connections.
    pub accepted: AtomicU64,
    /// Number of connections rejected by the limit.
    pub refused: AtomicU64,
    /// Number of TLS handshakes that failed or timed out.
    pub handshakes_failed: AtomicU64,
    /// Number of failures to accept, such as too many open files.
    pub accept_errors: AtomicU64,
    /// Number of open tunnels.
    pub tunnels: AtomicUsize,
    /// Number of upgrades rejected by the limit on tunnels.
    pub tunnels_refused: AtomicU64,
    /// Number of responses aborted because the client did not read them.
    pub stalled: AtomicU64,
    /// Total size of large request heads in progress, in bytes.
    pub(super) large_head_bytes: AtomicUsize,
    /// Total size of the responses that wait for their client, by client.
    pub(super) unread: UnreadAccounts,
    refused_requests: [AtomicU64; RequestRefusal::ALL.len()],
}

impl ListenerCounters {
    /// Returns the number of requests that the server refused, by reason.
    pub fn refused_requests(&self) -> impl Iterator<Item = (RequestRefusal, u64)> {
        let counts = self.refused_requests.iter().map(|count| count.load(Relaxed));
        RequestRefusal::ALL.into_iter().zip(counts)
    }

    pub(super) fn count_refusal(&self, refusal: RequestRefusal) {
        let index = RequestRefusal::ALL.iter().position(|known| *known == refusal);
        if let Some(count) = index.and_then(|index| self.refused_requests.get(index)) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts a response that was aborted because the client did not read it.
    pub(super) fn count_stalled(&self) {
        self.stalled.fetch_add(1, Relaxed);
    }

    /// Counts a connection as open, and as served by its thread. Returns `None` if `limit`
    /// connections are open already.
    pub(super) fn acquire(
        self: &Arc<Self>,
        limit: usize,
        placed: Option<PlacedConnection>,
    ) -> Option<OpenConnection> {
        let open_connection = OpenConnection { counters: Arc::clone(self), _placed: placed };
        self.accepted.fetch_add(1, Relaxed);
        if self.open.fetch_add(1, Relaxed) < limit {
            return Some(open_connection);
        }
        self.refused.fetch_add(1, Relaxed);
        None
    }

    /// Counts a rejected connection as open while it reads its response. Returns `None` if `limit`
    /// connections are open already.
    pub(super) fn acquire_for_rejection(self: &Arc<Self>, limit: usize) -> Option<OpenConnection> {
        let open_connection = OpenConnection { counters: Arc::clone(self), _placed: None };
        (self.open.fetch_add(1, Relaxed) < limit).then_some(open_connection)
    }
}

/// Counts a connection as open until this guard is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection {
    counters: Arc<ListenerCounters>,
    _placed: Option<PlacedConnection>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.counters.open.fetch_sub(1, Relaxed);
    }
}

impl Listener {
    /// Binds a TCP socket. With port 0, the system chooses the port.
    pub fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        Self::bind_tcp_with(address, TcpOptions::default())
    }

    /// Binds a TCP socket with options.
    pub fn bind_tcp_with(address: SocketAddr, options: TcpOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if options.only_v6 && address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Accepted connections inherit these options, which detect vanished clients even in tunnels.
        socket.set_tcp_keepalive(&keep_alive())?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self::new(BoundSocket::Tcp(socket.into())))
    }

    /// Binds a Unix socket with these permissions.
    ///
    /// Replaces a stale socket file. Fails if a process listens on the file, or the file is not a
    /// socket.
    pub fn bind_unix(path: &Path, mode: u32) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let file = SocketFile::new(path)?;
        // The permissions are set before clients can connect.
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self::new(BoundSocket::Unix(socket.into(), Arc::new(file))))
    }

    /// Replaces the counters. Listeners with the same counters share one limit on connections.
    #[must_use]
    pub fn sharing(self, counters: &Arc<ListenerCounters>) -> Self {
        Self { counters: Arc::clone(counters), ..self }
    }

    /// Returns another handle to the same socket.
    pub fn try_clone(&self) -> io::Result<Self> {
        let socket = match &self.socket {
            BoundSocket::Tcp(socket) => BoundSocket::Tcp(socket.try_clone()?),
            BoundSocket::Unix(socket, file) => {
                BoundSocket::Unix(socket.try_clone()?, Arc::clone(file))
            }
        };
        let (counters, placement) = (Arc::clone(&self.counters), Arc::clone(&self.placement));
        Ok(Self { socket, counters, placement })
    }

    /// Returns the bound address, with the port that the system chose.
    pub fn local_addr(&self) -> io::Result<BoundAddress> {
        match &self.socket {
            BoundSocket::Tcp(socket) => socket.local_addr().map(BoundAddress::Tcp),
            BoundSocket::Unix(_, file) => Ok(BoundAddress::Unix(file.path.clone())),
        }
    }

    /// Returns the counters, which other listeners may share.
    pub fn counters(&self) -> &Arc<ListenerCounters> {
        &self.counters
    }

    fn new(socket: BoundSocket) -> Self {
        Self { socket, counters: Arc::default(), placement: Arc::default() }
    }
}

/// How long a client may acknowledge nothing, or accept nothing of what waits for it, until the
/// kernel drops the connection. While data is in flight, the kernel sends no keep-alive probes.
/// A longer `idle_timeout` has no effect on a client that accepts nothing.
const USER_TIMEOUT: Duration = Duration::from_mins(3);

/// Returns keep-alive settings that probe a silent peer after two minutes. It is dropped after
/// [`USER_TIMEOUT`].
fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_mins(2))
        .with_interval(Duration::from_secs(10))
        .with_retries(3)
}

/// A socket file; removed when dropped, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_path_buf(), identity: identity_of(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity_of(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _gone_already = std::fs::remove_file(&self.path);
        }
    }
}

/// Returns the device and inode of a file.
fn identity_of(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Removes a socket file that no process listens on. Keeps any other file, so that binding fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        _ => return Ok(()),
    }
    // The socket does not block: `connect` would wait for a listener with a full queue.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&socket2::SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_file_is_replaced_and_ours_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("larder.sock");
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind_unix(&path, 0o660).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let clone = listener.try_clone().unwrap();
        let again = Listener::bind_unix(&path, 0o666).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert!(path.exists(), "still used by the clone");
        drop(clone);
        assert!(!path.exists());
    }

    #[test]
    fn accepted_connections_inherit_the_options_that_find_vanished_clients() {
        let listener =
            Listener::bind_tcp_with("127.0.0.1:0".parse().unwrap(), TcpOptions::default());
        let BoundSocket::Tcp(socket) = listener.unwrap().socket else { panic!("TCP") };
        socket.set_nonblocking(false).unwrap();
        let _client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        let options = socket2::SockRef::from(&accepted);
        assert!(options.keepalive().unwrap());
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    #[test]
    fn a_file_that_is_no_socket_of_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (file, path) = (folder.path().join("file"), folder.path().join("larder.sock"));
        std::fs::write(&file, "precious").unwrap();
        assert!(Listener::bind_unix(&file, 0o666).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        let listener = Listener::bind_unix(&path, 0o666).unwrap();
        std::fs::remove_file(&path).unwrap();
        let successor = Listener::bind_unix(&path, 0o666).unwrap();
        drop(listener);
        assert!(path.exists(), "that of the successor");
        drop(successor);
    }

    #[test]
    fn both_families_may_listen_on_one_port() {
        let only_v6 = TcpOptions { only_v6: true, ..TcpOptions::default() };
        let first = Listener::bind_tcp("0.0.0.0:0".parse().unwrap()).unwrap();
        let BoundAddress::Tcp(address) = first.local_addr().unwrap() else { unreachable!() };
        let other = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, address.port()));
        assert!(Listener::bind_tcp(other).is_err(), "it takes IPv4 clients, too");
        Listener::bind_tcp_with(other, only_v6).unwrap();
    }

    #[test]
    fn connections_beyond_the_limit_are_not_counted_in() {
        let counters = Arc::new(ListenerCounters::default());
        let first = counters.acquire(1, None);
        assert!(first.is_some());
        assert!(counters.acquire(1, None).is_none());
        drop(first);
        assert!(counters.acquire(1, None).is_some());
        assert_eq!((counters.open.load(Relaxed), counters.refused.load(Relaxed)), (0, 1));
    }
}
