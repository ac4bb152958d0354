//! The command line, one file for each command.

mod admin_client;
pub(crate) mod advise;
mod advise_shadow;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod health;
pub(crate) mod node;
mod output;
pub(crate) mod purge;
pub(crate) mod quarantine;
pub(crate) mod run;
pub(crate) mod shadow;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A caching reverse proxy for HTTP APIs: fast, fresh, and up when the API is down.
#[derive(Debug, Parser)]
#[command(name = "larder", version, arg_required_else_help = true)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Propose routes from access logs, with a reason for each line.
    Advise(advise::AdviseArguments),
    /// Start the proxy.
    Run(run::RunArguments),
    /// Validate the configuration; print its routes or its errors.
    Check(check::CheckArguments),
    /// Run a demo: a slow sample API, Larder in front of it, and some traffic.
    Demo(demo::DemoArguments),
    /// Explain how the configuration, or a running node, handles a request.
    Explain(explain::ExplainArguments),
    /// Check whether a node is ready.
    Health(health::HealthArguments),
    /// Purge stored responses.
    Purge(purge::PurgeArguments),
    /// List the routes with leaks between users, or clear their quarantine.
    Quarantine(quarantine::QuarantineArguments),
    /// Show what shadow mode and audits have found on a running node.
    Shadow(shadow::ShadowArguments),
}

/// Runs the command line. Prints errors to standard error.
pub fn main() -> ExitCode {
    match execute(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Advise(arguments) => advise::execute(arguments),
        Command::Run(arguments) => Ok(run::execute(arguments)),
        Command::Check(arguments) => check::execute(arguments),
        Command::Demo(arguments) => demo::execute(arguments),
        Command::Explain(arguments) => explain::execute(arguments),
        Command::Health(arguments) => health::execute(arguments),
        Command::Purge(arguments) => purge::execute(arguments),
        Command::Quarantine(arguments) => quarantine::execute(arguments),
        Command::Shadow(arguments) => shadow::execute(arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
