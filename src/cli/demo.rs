//! `larder demo`: the product in one command.

use std::process::ExitCode;

use clap::Args;

/// The flags of `larder demo`.
#[derive(Debug, Clone, Default, Args)]
pub struct Arguments {}

/// Runs the demo until it is told to stop.
pub fn execute(_: &Arguments) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
