//! The configuration file: its shape, its errors, and its translation into each room's settings.
//!
//! `file` knows TOML and nothing else; `compile` makes of it the plain, checked [`Config`]; `report`
//! shows what is wrong with it.

mod compile;
mod environment;
mod file;
pub mod report;
pub mod secret;
pub mod settings;
mod suggest;
mod value;

use std::path::Path;

use crate::redis;

pub use environment::Environment;
pub use report::{ConfigError, Finding, Report};
pub use secret::Secret;
pub use settings::{
    AccessLog, Admin, CertificateFiles, Config, Expectation, Expected, GivenResponse, Health,
    Limits, ListenAddress, Log, LogLevel, Origin, OriginConnections, OriginHost, OriginScheme,
    OriginTls, OriginUrl, Permission, Store, TestCase, Token, WhenUnsynced,
};
pub use suggest::nearest;
pub use value::format_duration;

/// What the command line says; it goes before the file.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// In place of `listen`, if there are any.
    pub listen: Vec<ListenAddress>,
    /// In place of `origin.urls`, if there are any.
    pub origin: Vec<OriginUrl>,
    /// In place of `admin.listen`.
    pub admin: Option<ListenAddress>,
    /// In place of `store.redis`.
    pub redis: Option<redis::Settings>,
    /// In place of `log.access`.
    pub access_log: Option<AccessLog>,
}

impl Config {
    /// Reads a file, with this process's environment.
    pub fn load(path: &Path, flags: &Flags) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Unreadable { file: file.clone(), cause })?;
        Self::parse_with(&text, &file, Environment::process(), flags)
    }

    /// Reads the text of a file of this name. Touches nothing but `environment`.
    pub fn parse(
        text: &str,
        file: &str,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        Self::parse_with(text, file, environment, &Flags::default())
    }

    /// The same with a command line.
    pub fn parse_with(
        text: &str,
        file: &str,
        environment: Environment<'_>,
        flags: &Flags,
    ) -> Result<Self, ConfigError> {
        let mut findings = Vec::new();
        let config = file::read(text, environment, &mut findings)
            .and_then(|sections| compile::compile(&sections, flags, text, &mut findings));
        let report = Report::new(file, text, findings);
        match config {
            Some(config) if !report.has_errors() => Ok(Self { warnings: report, ..config }),
            _ => Err(ConfigError::Invalid(report)),
        }
    }

    /// The configuration of a command line alone.
    pub fn from_flags(flags: &Flags) -> Result<Self, ConfigError> {
        Self::parse_with("", "command line", Environment::empty(), flags)
    }
}

#[cfg(test)]
mod tests;
