//! The configuration file: its shape, its errors, and its compilation into settings of each module.
//!
//! `file` parses TOML, `compile` turns the result into the checked [`Config`], and `report` formats
//! errors and warnings.

mod compile;
mod environment;
mod file;
mod flags;
mod listen;
pub(crate) mod report;
pub(crate) mod secret;
pub(crate) mod settings;
mod suggest;
mod value;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use crate::origin::settings::OriginTls;

pub use environment::Environment;
pub(crate) use file::masked_url;
pub use flags::CliOverrides;
pub(crate) use listen::ListenAddress;
pub(crate) use report::{ConfigError, ConfigReport, Finding};
pub use settings::Config;
pub(crate) use settings::{
    AccessLogFormat, Assertion, AssertionKind, LimitsConfig, Permission, StoreConfig, TestCase,
};
pub(crate) use suggest::nearest;
pub(crate) use value::format_duration;

/// A configuration or its errors, and the files to watch for changes.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: Result<Config, ConfigError>,
    /// The file itself, and files that it refers to: secrets, certificates, keys and authorities.
    pub files: Vec<PathBuf>,
}

impl LoadedConfig {
    /// Reads a file and the files that it names, with the environment of this process.
    pub fn from_file(path: &Path, flags: &CliOverrides) -> Self {
        let secrets = RefCell::new(vec![path.to_path_buf()]);
        let process = Environment::process();
        let read = |secret: &Path| {
            secrets.borrow_mut().push(secret.to_path_buf());
            (process.file)(secret)
        };
        let config = Config::load_in(path, Environment { file: &read, ..process }, flags);
        Self::of(config, secrets.take())
    }

    /// Creates the configuration from a command line alone, without a file.
    pub fn from_flags(flags: &CliOverrides) -> Self {
        Self::of(Config::from_flags(flags), Vec::new())
    }

    fn of(config: Result<Config, ConfigError>, mut files: Vec<PathBuf>) -> Self {
        files.extend(config.iter().flat_map(Config::certificate_files));
        files.sort();
        files.dedup();
        Self { config, files }
    }
}

impl Config {
    /// Reads a file with the environment of this process.
    pub fn load(path: &Path, flags: &CliOverrides) -> Result<Self, ConfigError> {
        Self::load_in(path, Environment::process(), flags)
    }

    fn load_in(
        path: &Path,
        environment: Environment<'_>,
        flags: &CliOverrides,
    ) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Unreadable { file: file.clone(), cause })?;
        Self::parse_with(&text, &file, environment, flags)
    }

    /// Returns the files with certificates, keys and authorities, which a reload reads again.
    fn certificate_files(&self) -> Vec<PathBuf> {
        let of_listeners = self.tls.iter().flat_map(|files| [&files.cert, &files.key]);
        let OriginTls { ca, cert, key, .. } = &self.origin.tls;
        of_listeners.chain([ca, cert, key].into_iter().flatten()).cloned().collect()
    }

    /// Returns the changed settings that take effect only after a restart.
    pub fn needs_restart(&self, started: &Self) -> Vec<&'static str> {
        let (limits, began) = (&self.limits, &started.limits);
        let limits =
            LimitsConfig { drain: began.drain, drain_delay: began.drain_delay, ..limits.clone() };
        let differences = [
            ("listen", self.listen != started.listen),
            ("reuse_port", self.reuse_port != started.reuse_port),
            ("tls", self.tls.is_some() != started.tls.is_some()),
            ("limits", limits != *began),
            ("admin.listen", self.admin.listen != started.admin.listen),
            ("store", self.store != started.store),
            ("log.level", self.log.level != started.log.level),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Parses a text; `file` is its name in messages. Reads other files only through `environment`.
    pub fn parse(
        text: &str,
        file: &str,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        Self::parse_with(text, file, environment, &CliOverrides::default())
    }

    /// Parses a text together with a command line; `file` is the name of the text in messages.
    pub fn parse_with(
        text: &str,
        file: &str,
        environment: Environment<'_>,
        flags: &CliOverrides,
    ) -> Result<Self, ConfigError> {
        let mut findings = Vec::new();
        let config = file::read(text, environment, &mut findings)
            .and_then(|sections| compile::compile(&sections, flags, text, &mut findings));
        let report = ConfigReport::new(file, &file::masked(text), findings);
        match config {
            Some(config) if !report.has_errors() => Ok(Self { warnings: report, ..config }),
            _ => Err(ConfigError::Invalid(report)),
        }
    }

    /// Creates the configuration from a command line alone, without a file.
    pub fn from_flags(flags: &CliOverrides) -> Result<Self, ConfigError> {
        Self::parse_with("", "command line", Environment::empty(), flags)
    }
}

#[cfg(test)]
mod tests;
