//! A whole proxy in this process, with a configuration text, free ports, a manual clock and a
//! captured access log.

use std::{
    fmt::Write as _,
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use larder::testing::{
    app::{Node, NodeDependencies, Workers},
    config::{Config, Environment},
    pipeline::Clock,
    server::{BoundAddress, FastPathMode},
};
use serde_json::Value;
use tokio::sync::watch;

use super::{
    fleet::short_sleep,
    wire::{Reply, Wire},
};

pub(crate) struct Proxy {
    pub(crate) node: Node,
    pub(crate) address: SocketAddr,
    clock: Clock,
    log: Log,
}

impl Proxy {
    /// Starts a proxy in front of this origin, without further configuration.
    pub(crate) fn before(origin: &str) -> Self {
        Self::with(origin, "")
    }

    /// Starts a proxy in front of this origin. `toml` has further top-level keys, then tables.
    pub(crate) fn with(origin: &str, toml: &str) -> Self {
        Self::with_fast_path(origin, toml, fast_path())
    }

    /// Starts the same proxy with this mode of the fast path, whatever the environment says.
    pub(crate) fn with_fast_path(origin: &str, toml: &str, fast_path: FastPathMode) -> Self {
        let clock = Clock::manual();
        let log = Log::default();
        let options = NodeDependencies {
            clock: clock.clone(),
            access_log: log.writer(),
            workers: Workers::CurrentRuntime,
            fast_path,
        };
        let node = Node::start(&config(origin, toml), options).unwrap();
        let address = node.tcp_address().unwrap();
        Self { node, address, clock, log }
    }

    /// Applies another configuration.
    pub(crate) fn reconfigure(&self, origin: &str, toml: &str) {
        self.node.reconfigure(&config(origin, toml)).unwrap();
    }

    /// Advances the clock by this many seconds.
    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Sets the system's clock back by this many seconds, as an operator would.
    pub(crate) fn set_back(&self, seconds: u64) {
        self.clock.set_back(Duration::from_secs(seconds));
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[]).await
    }

    pub(crate) async fn get_with(&self, target: &str, fields: &[(&str, &str)]) -> Reply {
        self.send("GET", target, fields).await
    }

    /// Sends a request on a new connection.
    pub(crate) async fn send(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Reply {
        let mut wire = self.connect().await;
        wire.write(request(method, target, fields)).await;
        wire.read_reply_to(method).await
    }

    /// Requests `GET path` from the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> Reply {
        let mut wire = Wire::connect(self.admin_address()).await;
        wire.exchange(request("GET", path, &[("Host", "localhost")])).await
    }

    /// Waits until the node follows the purge log in Redis. Until then, it uses no stored response.
    pub(crate) async fn until_synced(&self) {
        while !self.admin("/readyz").await.body.contains("purge log: synced") {
            short_sleep().await;
        }
    }

    /// Returns the address of the admin listener.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        let Some(BoundAddress::Tcp(address)) = self.node.admin_address() else { unreachable!() };
        *address
    }

    /// Returns the sum of a metric over all label sets that contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> u64 {
        sum(&self.admin("/metrics").await.body, name, labels)
    }

    /// Waits for the first `lines` lines of the access log.
    pub(crate) async fn log(&self, lines: usize) -> Vec<Value> {
        let text = self.log.lines(lines).await;
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// Waits until the access log has this text, and returns it.
    pub(crate) async fn log_with(&self, text: &str) -> String {
        let mut log = self.log.text.subscribe();
        log.wait_for(|log| log.contains(text)).await.unwrap().clone()
    }

    /// Returns the access log so far.
    pub(crate) fn log_text(&self) -> String {
        self.log.text.borrow().clone()
    }
}

/// Returns the mode of the fast path for all proxies of this test run. `LARDER_TEST_FAST_PATH` may
/// say `eager`, to try the fast path for every plain request, or `off`.
pub(crate) fn fast_path() -> FastPathMode {
    match std::env::var("LARDER_TEST_FAST_PATH").as_deref() {
        Ok("eager") => FastPathMode::Eager,
        Ok("off") => FastPathMode::Off,
        Ok(other) => panic!("LARDER_TEST_FAST_PATH={other}"),
        Err(_) => FastPathMode::default(),
    }
}

/// Returns the sum of a metric in an exposition over all label sets that contain `labels`.
pub(crate) fn sum(exposition: &str, name: &str, labels: &str) -> u64 {
    let of_metric = exposition.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && line.contains(labels)
    });
    of_metric.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// Builds a request without a body.
pub(crate) fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: api.test\r\n");
    }
    for (name, value) in fields {
        write!(text, "{name}: {value}\r\n").unwrap();
    }
    text + "\r\n"
}

/// Builds a request with a body.
pub(crate) fn request_with_body(
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> String {
    let length = body.len().to_string();
    let fields = [fields, &[("content-length", &length)]].concat();
    request(method, target, &fields) + body
}

fn config(origin: &str, toml: &str) -> Config {
    // Tests use one host name for the admin listener and the proxy.
    let hosts = "admin.hosts = [\"api.test\"]\n";
    let hosts = if toml.contains("admin.hosts") { "" } else { hosts };
    let text = format!(
        "listen = \"127.0.0.1:0\"\norigin.urls = [\"{origin}\"]\nadmin.listen = \"127.0.0.1:0\"\n{hosts}{toml}\n"
    );
    match Config::parse(&text, "test.toml", Environment::empty()) {
        Ok(config) => config,
        Err(error) => panic!("{error}\n{text}"),
    }
}

#[derive(Clone, Default)]
struct Log {
    text: Arc<watch::Sender<String>>,
}

impl Log {
    fn writer(&self) -> Box<dyn Write + Send> {
        Box::new(Writer(Vec::new(), self.clone()))
    }

    async fn lines(&self, lines: usize) -> String {
        let mut text = self.text.subscribe();
        text.wait_for(|text| text.matches('\n').count() >= lines).await.unwrap().clone()
    }
}

struct Writer(Vec<u8>, Log);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.0);
        let text = String::from_utf8(bytes).expect("a log in UTF-8");
        self.1.text.send_modify(|log| log.push_str(&text));
        Ok(())
    }
}
