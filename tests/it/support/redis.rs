//! Throw-away Redis servers: real `redis-server` processes on their own ports, with faults on
//! demand.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::{
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    certificate::SignedCertificate,
    process::{CapturedOutput, signal, stopped},
    resp::{Resp, Value},
    wire::Wire,
};

/// A password with characters that are special in URLs.
const PASSWORD: &str = "p@ss:w/rd%1";
const PASSWORD_IN_URL: &str = "p%40ss%3Aw%2Frd%251";
const USER: &str = "larder";

/// The time limit for a server to start, end or reply.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The transport of connections to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    /// TLS only, with a certificate from a test authority.
    Tls,
    Unix,
}

/// The authentication that a server requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RedisAuth {
    Anyone,
    /// `requirepass`: the password.
    Password,
    /// An ACL user with a password; the default user is disabled.
    User,
}

/// A reason why a server refuses writes. Reads continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteRefusal {
    /// `OOM`: memory is full and eviction is disabled.
    Memory,
    /// `READONLY`: a replica without its primary.
    Replica,
}

/// A Redis server without persistence, killed on drop.
pub(crate) struct Redis {
    running: Mutex<RunningServer>,
    folder: TempDir,
    port: u16,
    reach: Transport,
    access: RedisAuth,
    signed: SignedCertificate,
}

struct RunningServer {
    child: Child,
    log: CapturedOutput,
}

impl Redis {
    /// Starts a server on TCP without authentication.
    pub(crate) async fn start() -> Self {
        Self::with(Transport::Tcp, RedisAuth::Anyone).await
    }

    pub(crate) async fn with(reach: Transport, access: RedisAuth) -> Self {
        Self::configured(reach, access, "").await
    }

    /// Starts a server with additional configuration lines.
    pub(crate) async fn configured(reach: Transport, access: RedisAuth, further: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let signed = SignedCertificate::new();
        loop {
            let port = free_port();
            let file = folder.path().join("redis.conf");
            let text = config(&folder, port, reach, access, &signed);
            std::fs::write(&file, text + further).unwrap();
            if let Some(running) = spawn(&file).await {
                let running = Mutex::new(running);
                let redis = Self { running, folder, port, reach, access, signed };
                assert_eq!(redis.command(&["PING"]).await.text(), "PONG");
                return redis;
            }
        }
    }

    /// Returns its URL, with credentials.
    pub(crate) fn url(&self) -> String {
        let who = match self.access {
            RedisAuth::Anyone => String::new(),
            RedisAuth::Password => format!(":{PASSWORD_IN_URL}@"),
            RedisAuth::User => format!("{USER}:{PASSWORD_IN_URL}@"),
        };
        match self.reach {
            Transport::Tcp => format!("redis://{who}127.0.0.1:{}/0", self.port),
            Transport::Tls => format!("rediss://{who}localhost:{}/0", self.port),
            Transport::Unix => format!("redis+unix://{who}{}", self.socket().display()),
        }
    }

    /// Returns its configuration file.
    pub(crate) fn file(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("redis.conf")).unwrap()
    }

    /// Returns its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the keys of the table `[store]` that configure this server.
    pub(crate) fn store(&self) -> String {
        let mut keys = format!("redis = \"{}\"\n", self.url());
        if self.reach == Transport::Tls {
            writeln!(keys, "tls = {{ ca = \"{}\" }}", self.signed.authority().display()).unwrap();
        }
        keys
    }

    /// Returns the file of the authority that signed its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.signed.authority().to_owned()
    }

    // ── Faults ──

    /// Kills it, as in a crash.
    pub(crate) fn kill(&self) {
        self.running.lock().unwrap().end();
    }

    /// Restarts it empty on the same port. Kills it first if it runs.
    pub(crate) async fn restart(&self) {
        let _nothing_was_saved = std::fs::remove_file(self.folder.path().join("dump.rdb"));
        self.restore().await;
    }

    /// Saves its data to disk.
    pub(crate) async fn save(&self) {
        self.run(&["SAVE"]).await;
    }

    /// Restarts it on the same port with the last saved data. Kills it first if it runs.
    pub(crate) async fn restore(&self) {
        self.kill();
        let file = self.folder.path().join("redis.conf");
        let running = spawn(&file).await.expect("its port is taken");
        *self.running.lock().unwrap() = running;
        assert_eq!(self.command(&["PING"]).await.text(), "PONG");
    }

    /// Suspends it: connections are accepted and stay open, but nothing is read or sent.
    pub(crate) async fn stop(&self) {
        signal(self.id(), "STOP");
        stopped(self.id()).await;
    }

    /// Resumes it after `stop`.
    pub(crate) fn cont(&self) {
        signal(self.id(), "CONT");
    }

    /// Removes all data.
    pub(crate) async fn flush(&self) {
        self.run(&["FLUSHALL"]).await;
    }

    pub(crate) async fn refuse_writes(&self, refusal: WriteRefusal) {
        match refusal {
            WriteRefusal::Memory => self.run(&["CONFIG", "SET", "maxmemory", "1"]).await,
            WriteRefusal::Replica => self.run(&["REPLICAOF", "127.0.0.1", "1"]).await,
        }
    }

    /// Ends every refusal.
    pub(crate) async fn accept_writes(&self) {
        self.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
        self.run(&["REPLICAOF", "NO", "ONE"]).await;
    }

    /// Reloads its data slowly from disk, so that it replies `LOADING` to everything for about this
    /// time.
    ///
    /// Returns once loading has begun. The returned task ends when it is complete.
    pub(crate) async fn load(&self, time: Duration) -> JoinHandle<()> {
        const KEYS: u32 = 100;
        for number in 0..KEYS {
            let value = "x".repeat(2048);
            self.run(&["SET", &format!("harness:{number}"), &value]).await;
        }
        let keys = u32::try_from(self.dbsize().await).unwrap();
        let delay = (time / keys).as_micros().to_string();
        self.run(&["CONFIG", "SET", "key-load-delay", &delay]).await;
        self.run(&["CONFIG", "SET", "loading-process-events-interval-bytes", "1024"]).await;
        self.run(&["SAVE"]).await;
        let mut connection = self.connect().await.unwrap();
        let loading = tokio::spawn(async move {
            let reply = connection.command(&["DEBUG", "RELOAD", "NOSAVE"]).await.unwrap();
            assert_eq!(reply.text(), "OK");
        });
        while !self.command(&["DBSIZE"]).await.text().starts_with("LOADING ") {
            assert!(!loading.is_finished(), "it has loaded too fast");
        }
        loading
    }

    // ── Queries ──

    /// Returns the reply to a command, on a new connection.
    pub(crate) async fn command(&self, words: &[&str]) -> Value {
        let asked = async { self.connect().await?.command(words).await };
        let reply = timeout(TIMEOUT, asked).await.expect("Redis does not reply");
        reply.unwrap_or_else(|| panic!("Redis is gone; it has said:\n{}", self.log()))
    }

    /// Runs a command that has to succeed.
    pub(crate) async fn run(&self, words: &[&str]) {
        let reply = self.command(words).await;
        assert!(!reply.is_error(), "{words:?}: {}", reply.text());
    }

    /// Returns a field of a section of `INFO`.
    ///
    /// Asks again on a new connection if the first is closed: a sentinel closes those of a server that
    /// it promotes.
    pub(crate) async fn info(&self, section: &str, field: &str) -> String {
        let asked = async { self.connect().await?.command(&["INFO", section]).await };
        let reply = match timeout(TIMEOUT, asked).await.expect("Redis does not reply") {
            Some(reply) => reply,
            None => self.command(&["INFO", section]).await,
        };
        let text = reply.text();
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(name, _)| *name == field);
        found.unwrap_or_else(|| panic!("no {field} in\n{text}")).1.to_owned()
    }

    pub(crate) async fn dbsize(&self) -> u64 {
        self.command(&["DBSIZE"]).await.text().parse().unwrap()
    }

    /// Returns the keys that match a glob pattern, sorted.
    pub(crate) async fn keys(&self, pattern: &str) -> Vec<String> {
        let reply = self.command(&["KEYS", pattern]).await;
        let mut keys: Vec<String> = reply.members().iter().map(Value::text).collect();
        keys.sort();
        keys
    }

    /// Returns true if it replies to `PING` within the time limit, even with an error.
    pub(crate) async fn answers(&self, time_limit: Duration) -> bool {
        let asked = async { self.connect().await?.command(&["PING"]).await };
        timeout(time_limit, asked).await.is_ok_and(|reply| reply.is_some())
    }

    /// Opens an authenticated connection. `None` if no server listens.
    pub(crate) async fn connect(&self) -> Option<Resp> {
        let mut connection = Resp::over(self.wire().await?);
        let words: &[&str] = match self.access {
            RedisAuth::Anyone => return Some(connection),
            RedisAuth::Password => &["AUTH", PASSWORD],
            RedisAuth::User => &["AUTH", USER, PASSWORD],
        };
        let reply = connection.command(words).await?;
        assert!(!reply.is_error(), "{}", reply.text());
        Some(connection)
    }

    /// Opens a connection without authentication.
    pub(crate) async fn wire(&self) -> Option<Wire> {
        match self.reach {
            Transport::Tcp => Wire::try_connect(self.address()).await,
            Transport::Unix => Some(Wire::new(UnixStream::connect(self.socket()).await.ok()?)),
            Transport::Tls => {
                let stream = TcpStream::connect(self.address()).await.ok()?;
                let name = ServerName::try_from("localhost").unwrap();
                let tls = TlsConnector::from(self.signed.client()).connect(name, stream).await;
                Some(Wire::new(tls.ok()?))
            }
        }
    }

    /// Returns its log so far.
    pub(crate) fn log(&self) -> String {
        self.running.lock().unwrap().log.so_far()
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn id(&self) -> u32 {
        self.running.lock().unwrap().child.id()
    }
}

impl RunningServer {
    fn end(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns a port that stays free while its server is down.
///
/// It is outside the range of ports that the system assigns, and is returned only once.
pub(crate) fn free_port() -> u16 {
    const LOWEST: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let end: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let ports = end.checked_sub(LOWEST).filter(|ports| *ports > 100).expect("no ports to take");
    // Far from the first port of another test process.
    let begin = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(ports)).unwrap();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = LOWEST + begin.wrapping_add(number) % ports;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Starts a server and waits until it is ready. `None` if its port is in use.
async fn spawn(config: &std::path::Path) -> Option<RunningServer> {
    spawn_saying(config, &[], "eady to accept connections").await
}

/// Starts a server with additional arguments, and waits until it logs this text.
async fn spawn_saying(
    config: &std::path::Path,
    arguments: &[&str],
    ready: &str,
) -> Option<RunningServer> {
    let mut command = Command::new("redis-server");
    command
        .arg(config)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("redis-server is missing: apt-get install redis-server");
    let log = CapturedOutput::follow(child.stdout.take().unwrap());
    let running = RunningServer { child, log };
    let outcome = [ready, "Failed listening"];
    let settled = running.log.until(|text| outcome.iter().any(|words| text.contains(words)));
    let text = timeout(TIMEOUT, settled).await;
    let text = text.unwrap_or_else(|_| panic!("it does not start:\n{}", running.log.so_far()));
    text.contains(outcome[0]).then_some(running)
}

/// A sentinel, killed on drop.
pub(crate) struct Sentinel {
    _running: RunningServer,
    _folder: TempDir,
    pub(crate) port: u16,
}

impl Sentinel {
    /// Starts a sentinel that monitors this server as `primary`, with additional configuration
    /// lines.
    pub(crate) async fn of(primary: &Redis, quorum: usize, further: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        loop {
            let port = free_port();
            let file = folder.path().join("sentinel.conf");
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir \"{}\"\n\
                 sentinel monitor primary 127.0.0.1 {} {quorum}\n\
                 sentinel down-after-milliseconds primary 700\n\
                 sentinel failover-timeout primary 3000\n{further}",
                folder.path().display(),
                primary.port(),
            );
            std::fs::write(&file, text).unwrap();
            if let Some(running) = spawn_saying(&file, &["--sentinel"], "+monitor").await {
                return Self { _running: running, _folder: folder, port };
            }
        }
    }

    /// Returns the reply to a command.
    pub(crate) async fn command(&self, words: &[&str]) -> Value {
        let wire = Wire::try_connect((Ipv4Addr::LOCALHOST, self.port).into()).await.unwrap();
        Resp::over(wire).command(words).await.unwrap()
    }
}

fn config(
    folder: &TempDir,
    port: u16,
    reach: Transport,
    access: RedisAuth,
    signed: &SignedCertificate,
) -> String {
    let folder = folder.path().display();
    let mut text = format!(
        "bind 127.0.0.1\ndir \"{folder}\"\nsave \"\"\nappendonly no\nrdbcompression no\n\
         maxmemory-policy noeviction\nenable-debug-command yes\n"
    );
    let further = match reach {
        Transport::Tcp => format!("port {port}\n"),
        Transport::Unix => format!("port 0\nunixsocket \"{folder}/redis.sock\"\n"),
        Transport::Tls => format!(
            "port 0\ntls-port {port}\ntls-cert-file \"{}\"\ntls-key-file \"{}\"\n\
             tls-ca-cert-file \"{}\"\ntls-auth-clients no\n",
            signed.server.chain().display(),
            signed.server.key().display(),
            signed.authority().display(),
        ),
    };
    text.push_str(&further);
    match access {
        RedisAuth::Anyone => {}
        RedisAuth::Password => writeln!(text, "requirepass \"{PASSWORD}\"").unwrap(),
        RedisAuth::User => {
            writeln!(text, "user default off\nuser {USER} on \">{PASSWORD}\" ~* &* +@all").unwrap();
        }
    }
    text
}
