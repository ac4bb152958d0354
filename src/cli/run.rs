//! `larder run`: runs the proxy.

use std::{
    ffi::OsStr,
    fmt::Display,
    io::Write,
    marker::PhantomData,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    sync::Arc,
};

use clap::{Args, builder::TypedValueParser, error::ErrorKind};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::{
    app::{self, ConfigWatcher, Node, NodeDependencies, Workers},
    config::{AccessLogFormat, CliOverrides, Config, ListenAddress, LoadedConfig, masked_url},
    origin::ServerUrl,
    pipeline::Clock,
    redis,
    server::FastPathMode,
    telemetry::log::{StderrLog, unbuffered},
};

/// The default configuration file.
pub(super) const DEFAULT_FILE: &str = "proxy.toml";

/// The flags of `larder run`. Flags override the configuration file.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArguments {
    /// The configuration file. Defaults to ./proxy.toml, unless --origin is given.
    #[arg(long, short, value_name = "FILE", env = "LARDER_CONFIG")]
    pub config: Option<PathBuf>,
    /// The URL of the origin: http, https or h2c. Several URLs share the load.
    #[arg(
        long, short, value_name = "URL", env = "LARDER_ORIGIN", value_delimiter = ',',
        value_parser = MaskedUrlParser::<ServerUrl>::default()
    )]
    pub origin: Vec<ServerUrl>,
    /// A public listener: an IP address and port, or `unix:` and a path. Can be repeated.
    #[arg(long, short, value_name = "ADDRESS", env = "LARDER_LISTEN", value_delimiter = ',')]
    pub listen: Vec<ListenAddress>,
    /// The Redis that nodes share, such as `redis://user:password@host:6379/0`.
    #[arg(
        long, value_name = "URL", env = "LARDER_REDIS", hide_env_values = true,
        value_parser = MaskedUrlParser::<redis::Settings>::default()
    )]
    pub redis: Option<redis::Settings>,
    /// The admin listener, for health checks, metrics and purges.
    #[arg(long, value_name = "ADDRESS", env = "LARDER_ADMIN")]
    pub admin: Option<ListenAddress>,
    /// The format of the access log on standard output: json, text or off.
    #[arg(long, value_name = "FORM", env = "LARDER_ACCESS_LOG")]
    pub access_log: Option<AccessLogFormat>,
}

/// A parser of URL flags whose errors show the URL without its credentials.
struct MaskedUrlParser<T>(PhantomData<fn() -> T>);

impl<T> Default for MaskedUrlParser<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for MaskedUrlParser<T> {
    fn clone(&self) -> Self {
        Self(PhantomData)
    }
}

impl<T> TypedValueParser for MaskedUrlParser<T>
where
    T: FromStr<Err: Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let text = value.to_string_lossy();
        T::from_str(&text).map_err(|error| {
            let (url, name) = (masked_url(&text), argument.map(ToString::to_string));
            let name = name.unwrap_or_default();
            let message = format!("invalid value '{url}' for '{name}': {error}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        })
    }
}

impl RunArguments {
    /// Returns the configuration file to load. `None` if `--origin` is given without `--config`.
    pub fn file(&self) -> Option<&Path> {
        match &self.config {
            Some(file) => Some(file),
            None if self.origin.is_empty() => Some(Path::new(DEFAULT_FILE)),
            None => None,
        }
    }

    /// Loads the configuration from its file. Called again on each reload.
    pub fn configuration(&self) -> LoadedConfig {
        let flags = CliOverrides {
            listen: self.listen.clone(),
            origin: self.origin.clone(),
            admin: self.admin.clone(),
            redis: self.redis.clone(),
            access_log: self.access_log,
        };
        match self.file() {
            Some(file) => LoadedConfig::from_file(file, &flags),
            None => LoadedConfig::from_flags(&flags),
        }
    }
}

/// Runs the proxy until SIGTERM or SIGINT. A second signal terminates it at once.
pub(crate) fn execute(arguments: &RunArguments) -> ExitCode {
    let stderr_log = StderrLog::start();
    let _flush = FlushOnDrop(&stderr_log);
    run(arguments, &stderr_log).unwrap_or_else(|error| {
        stderr_log.print(&format!("error: {error:#}\n"));
        ExitCode::FAILURE
    })
}

/// Flushes the last log messages when dropped. After a panic, these include the panic's message.
struct FlushOnDrop<'a>(&'a StderrLog);

impl Drop for FlushOnDrop<'_> {
    fn drop(&mut self) {
        self.0.flush();
    }
}

fn run(arguments: &RunArguments, stderr_log: &StderrLog) -> anyhow::Result<ExitCode> {
    let LoadedConfig { config, files } = arguments.configuration();
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            stderr_log.print(&error.styled());
            return Ok(ExitCode::FAILURE);
        }
    };
    if !config.warnings.problems.is_empty() {
        stderr_log.print(&format!("{}\n", config.warnings.styled()));
    }
    stderr_log.subscribe(&config.log.level.to_string());
    let watch = ConfigWatcher::begin(&files);
    app::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(serve(config, arguments.clone(), watch));
    // Tasks that wait for a hanging disk do not delay the exit.
    runtime.shutdown_background();
    ended
}

async fn serve(
    config: Config,
    arguments: RunArguments,
    watch: ConfigWatcher,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let options = NodeDependencies {
        clock: Clock::System,
        access_log: stdout(),
        workers: Workers::per_core(),
        fast_path: FastPathMode::default(),
    };
    let node = Arc::new(Node::start(&config, options)?);
    log_addresses(&node);
    let (requests, hangups) = mpsc::channel(1);
    let read = move || arguments.configuration();
    let watch = tokio::spawn(watch.run(Arc::clone(&node), read, hangups));
    signals.wait_for_stop(&requests).await;
    tracing::info!("stopping: finishing current requests, refusing new connections");
    watch.abort();
    let cut = tokio::select! {
        cut = node.drain() => cut,
        () = signals.wait_for_stop(&requests) => node.open_connections(),
    };
    node.flush_log();
    if cut > 0 {
        tracing::warn!(connections = cut, "closed connections with unfinished requests");
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns standard output, or a sink if it is closed.
fn stdout() -> Box<dyn Write + Send> {
    match unbuffered(std::io::stdout()) {
        Ok(stdout) => Box::new(stdout),
        Err(_) => Box::new(std::io::sink()),
    }
}

/// The signals that a node handles.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal to stop, and forwards each SIGHUP.
    async fn wait_for_stop(&mut self, reload: &mpsc::Sender<()>) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    // If the channel is full, a reload is already pending.
                    let _coming = reload.try_send(());
                }
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
            }
        }
    }
}

fn log_addresses(node: &Node) {
    for address in node.addresses() {
        tracing::info!("listening on {address}");
    }
    if let Some(address) = node.admin_address() {
        tracing::info!("health and metrics on {address}");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn arguments(line: &[&str]) -> RunArguments {
        let line = ["larder", "run"].iter().chain(line);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Run(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_alone_suffice() {
        let line =
            ["--origin", "http://a:1", "--origin", "https://b", "--listen", ":0", "--admin", ":1"];
        let arguments = arguments(&line);
        assert_eq!(arguments.file(), None);
        let config = arguments.configuration().config.unwrap();
        let origins: Vec<String> = config.origin.urls.iter().map(ToString::to_string).collect();
        assert_eq!(origins, ["http://a:1", "https://b"]);
        assert_eq!(config.listen, ["0.0.0.0:0".parse().unwrap()]);
        assert_eq!(config.admin.listen, Some("0.0.0.0:1".parse().unwrap()));
    }

    #[test]
    fn without_flags_there_is_a_usual_file() {
        assert_eq!(arguments(&[]).file(), Some(Path::new("proxy.toml")));
        assert_eq!(arguments(&["-c", "a", "-o", "http://b"]).file(), Some(Path::new("a")));
    }

    #[test]
    fn a_wrong_url_is_shown_without_its_password() {
        for (flag, url) in [
            ("--redis", "redis://u:hunter2@host:port"),
            ("--redis", "u:hunter2@host"),
            ("--origin", "http://u:hunter2@host"),
        ] {
            let error = Cli::try_parse_from(["larder", "run", flag, url]).unwrap_err().to_string();
            assert!(error.contains("@host") && error.contains(flag), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_wrong_flag_is_explained() {
        let error = Cli::try_parse_from(["larder", "run", "--origin", "localhost:3000"]);
        assert!(error.unwrap_err().to_string().contains("expected a URL such as"));
    }
}
