//! `larder health`: whether the Larder of this machine is ready, for health checks without a shell.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use super::{call::AdminAddress, run::DEFAULT_FILE};
use crate::config::{Config, Flags};

/// The flags of `larder health`.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// The configuration file that says where the admin listener is; without it, the usual address.
    #[arg(long, short, value_name = "FILE", env = "LARDER_CONFIG", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
    /// Where the admin listener is.
    #[arg(long, value_name = "ADDRESS", env = "LARDER_ADMIN")]
    pub admin: Option<AdminAddress>,
}

/// Asks `/readyz` and succeeds if the answer is 200.
pub fn execute(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let address = address(arguments)?;
    let answer = address.get("/readyz").with_context(|| format!("no answer from {address}"))?;
    if answer.status == 200 {
        println!("ready");
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!("not ready: {address} answers {}", answer.status)
}

/// A file that is missing or broken is not what is asked about: a running Larder keeps the configuration
/// that it started with.
fn address(arguments: &Arguments) -> anyhow::Result<AdminAddress> {
    if let Some(address) = &arguments.admin {
        return Ok(address.clone());
    }
    match Config::load(&arguments.config, &Flags::default()) {
        Ok(config) => Ok(config.admin.listen.context("the admin listener is turned off")?.into()),
        Err(_) => Ok(AdminAddress::usual()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::Ipv4Addr,
    };

    use super::*;
    use crate::config::ListenAddress;

    /// What is said of a listener that answers with this.
    fn verdict(answer: &'static str) -> Result<ExitCode, String> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let admin = Some(ListenAddress::Tcp(listener.local_addr().unwrap()).into());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                question.extend(byte);
            }
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
