//! `larder health`: checks the readiness of a node, for containers without a shell.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::node::NodeArguments;

/// The flags of `larder health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArguments {
    /// The node to check.
    #[command(flatten)]
    pub node: NodeArguments,
}

/// Requests `/readyz` and succeeds if the node is ready.
pub(crate) fn execute(arguments: &HealthArguments) -> anyhow::Result<ExitCode> {
    let address = arguments.node.node()?.address()?;
    let response = address.get("/readyz").with_context(|| format!("no response from {address}"))?;
    let is_larder = response.body.starts_with("ready");
    match response.status {
        200 if is_larder => {
            println!("ready");
            Ok(ExitCode::SUCCESS)
        }
        200 => anyhow::bail!(
            "not ready: {address} responds with 200; is this Larder's admin listener?"
        ),
        status => anyhow::bail!("not ready: {address} responds with {status}"),
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

    /// Runs the health check against a listener that sends this response.
    fn verdict(response: &'static str) -> Result<ExitCode, String> {
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
            stream.write_all(response.as_bytes()).unwrap();
        });
        let result = execute(&HealthArguments { node: NodeArguments { config: None, admin } });
        server.join().unwrap();
        result.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn ready_is_what_answers_200() {
        assert_eq!(verdict("HTTP/1.1 200 OK\r\n\r\nready\n"), Ok(ExitCode::SUCCESS));
        let draining = verdict("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert!(draining.starts_with("not ready: ") && draining.ends_with(" responds with 503"));
        assert!(verdict("SSH-2.0\r\n").unwrap_err().starts_with("no response from "));
        assert!(verdict("").is_err());
        assert!(
            verdict("HTTP/1.1 200 OK\r\n\r\nhello\n").unwrap_err().ends_with("admin listener?")
        );
    }
}
