//! `larder health`: whether the Larder of this machine is ready, for health checks without a shell.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use super::run::DEFAULT_FILE;
use crate::config::{Config, Flags, ListenAddress};

/// Connecting, asking and each wait for an answer take at most this long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the admin listener is where nobody says anything.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

const QUESTION: &[u8] = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// The flags of `larder health`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// The configuration file that says where the admin listener is; without it, the usual address.
    #[arg(long, short, value_name = "FILE", env = "LARDER_CONFIG", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
    /// Where the admin listener is.
    #[arg(long, value_name = "ADDRESS", env = "LARDER_ADMIN")]
    pub admin: Option<ListenAddress>,
}

/// Asks `/readyz` and succeeds if the answer is 200.
pub fn execute(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let address = address(arguments)?;
    let status = ask(&address).with_context(|| format!("no answer from {address}"))?;
    if status == "200" {
        println!("ready");
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!("not ready: {address} answers {status}")
}

/// A file that is missing or broken is not what is asked about: a running Larder keeps the configuration
/// that it started with.
fn address(arguments: &Arguments) -> anyhow::Result<ListenAddress> {
    if let Some(address) = &arguments.admin {
        return Ok(address.clone());
    }
    match Config::load(&arguments.config, &Flags::default()) {
        Ok(config) => config.admin.listen.context("the admin listener is turned off"),
        Err(_) => Ok(ListenAddress::Tcp(USUAL)),
    }
}

/// The status code of the answer.
fn ask(address: &ListenAddress) -> io::Result<String> {
    match address {
        ListenAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(&reachable(*address), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            converse(stream)
        }
        ListenAddress::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            converse(stream)
        }
    }
}

/// Who listens on every address is reached on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The head of an answer fits into far fewer bytes than are read.
fn converse(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(QUESTION)?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let mut words = answer.split_ascii_whitespace();
    let status = words.next().filter(|version| version.starts_with("HTTP/1.")).and(words.next());
    status.map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a listener that answers with this.
    fn verdict(answer: &'static str) -> Result<ExitCode, String> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let admin = Some(ListenAddress::Tcp(listener.local_addr().unwrap()));
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = [0; QUESTION.len()];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let said = execute(&Arguments { config: PathBuf::new(), admin });
        server.join().unwrap();
        said.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn ready_is_what_answers_200() {
        assert_eq!(verdict("HTTP/1.1 200 OK\r\n\r\nready\n"), Ok(ExitCode::SUCCESS));
        let draining = verdict("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert!(draining.starts_with("not ready: ") && draining.ends_with(" answers 503"));
        assert!(verdict("SSH-2.0\r\n").unwrap_err().starts_with("no answer from "));
        assert!(verdict("").is_err());
    }
}
