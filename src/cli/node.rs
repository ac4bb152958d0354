//! Finds the node that a command calls: from flags, environment or configuration.
//!
//! Ambiguity is an error. Another node may listen at the default address, and a purge there would
//! do harm.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::{admin_client::AdminAddress, run::DEFAULT_FILE};
use crate::config::{CliOverrides, Config, ConfigError, ListenAddress, Permission};

/// The flags that select a node.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArguments {
    /// The configuration file of the node, with its admin listener and token. Defaults to
    /// `LARDER_CONFIG`, then to ./proxy.toml. Without ./proxy.toml, the default admin listener
    /// 127.0.0.1:9180 is used.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The admin listener of the node: an address and port, a URL, or `unix:` and a path. Defaults
    /// to `LARDER_ADMIN`.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<AdminAddress>,
}

/// A node as selected by the command line and the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTarget {
    /// The node's admin listener, if given explicitly.
    admin: Option<AdminAddress>,
    /// The node's configuration file; `None` for a node without a file.
    file: Option<PathBuf>,
    /// True for the default file, which may be missing. False if the user named the file.
    is_optional: bool,
}

impl NodeArguments {
    /// Returns the node that the flags and the environment select.
    ///
    /// # Errors
    /// Fails if `--config` and `LARDER_ADMIN` select different nodes.
    pub fn node(&self) -> anyhow::Result<NodeTarget> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.node_in(&variable)
    }

    fn node_in(&self, variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<NodeTarget> {
        let by_variable = match &self.admin {
            Some(_) => Ok(None),
            None => variable("LARDER_ADMIN").map(|text| text.parse::<AdminAddress>()).transpose(),
        };
        let by_variable = by_variable.map_err(|problem| anyhow!("LARDER_ADMIN: {problem}"))?;
        if let (Some(file), Some(other)) = (&self.config, &by_variable) {
            bail!(
                "no node was called: --config {} and LARDER_ADMIN={other} may name different nodes; \
                 give the admin listener with --admin, or unset LARDER_ADMIN",
                file.display(),
            );
        }
        let admin = self.admin.clone().or(by_variable);
        let named = self.config.clone().or_else(|| variable("LARDER_CONFIG").map(PathBuf::from));
        // With an origin in the environment, `larder run` reads no default file either.
        let default_file =
            || variable("LARDER_ORIGIN").is_none().then(|| PathBuf::from(DEFAULT_FILE));
        Ok(NodeTarget { admin, is_optional: named.is_none(), file: named.or_else(default_file) })
    }
}

impl NodeTarget {
    /// Returns the address of the admin listener.
    ///
    /// # Errors
    /// Fails if the address is in a file that does not load, or that disables the admin listener.
    pub fn address(&self) -> anyhow::Result<AdminAddress> {
        if let Some(admin) = &self.admin {
            return Ok(admin.clone());
        }
        match self.configuration("give the admin listener with --admin")? {
            Some(config) => listener(&config),
            None => Ok(AdminAddress::default_address()),
        }
    }

    /// Returns the address, and `token` or else a token with this permission from the file.
    ///
    /// # Errors
    /// Fails as [`NodeTarget::address`] does, or if the file with the token does not load.
    pub fn address_and_token(
        &self,
        token: Option<&str>,
        wanted: Permission,
    ) -> anyhow::Result<(AdminAddress, Option<String>)> {
        if let Some(token) = token {
            return Ok((self.address()?, Some(token.to_owned())));
        }
        let Some(config) = self.configuration("give --admin and LARDER_ADMIN_TOKEN")? else {
            return Ok((self.address()?, None));
        };
        let address = self.admin.clone().map_or_else(|| listener(&config), Ok)?;
        let token = config.admin.tokens.iter().find(|token| token.permissions.contains(&wanted));
        Ok((address, token.map(|token| token.secret.expose().to_owned())))
    }

    /// Returns the configuration in the node's file, if it exists and loads.
    pub fn known_configuration(&self) -> Option<Config> {
        Config::load(self.file.as_ref()?, &CliOverrides::default()).ok()
    }

    /// Returns the configuration, or `None` if the node has no file or the default file does not
    /// exist.
    fn configuration(&self, advice: &str) -> anyhow::Result<Option<Config>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        match Config::load(file, &CliOverrides::default()) {
            Ok(config) => Ok(Some(config)),
            Err(ConfigError::Unreadable { cause, .. })
                if self.is_optional && cause.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(load_error(file, &error, advice)),
        }
    }
}

fn load_error(file: &Path, error: &ConfigError, advice: &str) -> anyhow::Error {
    let file = file.display();
    anyhow!("no node was called: {file} does not load; correct it, or {advice}\n\n{error}")
}

/// Returns the address of a configuration's admin listener.
fn listener(config: &Config) -> anyhow::Result<AdminAddress> {
    let file = &config.warnings.file;
    let listen = config.admin.listen.clone().with_context(|| {
        format!(
            "no node was called: {file} disables the admin listener; if the node has one anyway, give its address with --admin"
        )
    })?;
    if matches!(&listen, ListenAddress::Tcp(address) if address.port() == 0) {
        bail!(
            "no node was called: {file} does not fix the port of the admin listener; give \
             its address with --admin"
        );
    }
    Ok(listen.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(
        config: Option<&str>,
        admin: Option<&str>,
        variables: &[(&str, &str)],
    ) -> Result<String, String> {
        let arguments = NodeArguments {
            config: config.map(PathBuf::from),
            admin: admin.map(|admin| admin.parse().unwrap()),
        };
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name)?;
            Some(found.1.to_owned())
        };
        let node = arguments.node_in(&variable).map_err(|error| error.to_string())?;
        let admin = node.admin.map_or("-".to_owned(), |admin| admin.to_string());
        let file = node.file.map_or("-".to_owned(), |file| file.display().to_string());
        Ok(format!("{admin} {file}{}", if node.is_optional { "?" } else { "" }))
    }

    #[test]
    fn flags_go_before_variables_and_these_before_the_usual_file() {
        let (a, b) = (("LARDER_CONFIG", "a.toml"), ("LARDER_ADMIN", ":1"));
        assert_eq!(node(None, None, &[]).unwrap(), "- proxy.toml?");
        assert_eq!(node(None, None, &[a]).unwrap(), "- a.toml");
        assert_eq!(node(Some("b.toml"), None, &[a]).unwrap(), "- b.toml");
        assert_eq!(node(None, None, &[a, b]).unwrap(), "127.0.0.1:1 a.toml");
        assert_eq!(node(Some("b.toml"), Some(":2"), &[b]).unwrap(), "127.0.0.1:2 b.toml");
        assert_eq!(node(None, None, &[("LARDER_ORIGIN", "http://o")]).unwrap(), "- -?");
    }

    #[test]
    fn a_file_on_the_command_line_and_an_address_in_the_environment_are_a_doubt() {
        let doubt = node(Some("b.toml"), None, &[("LARDER_ADMIN", ":1")]).unwrap_err();
        assert!(doubt.contains("b.toml") && doubt.contains("LARDER_ADMIN=127.0.0.1:1"), "{doubt}");
        let wrong = node(None, None, &[("LARDER_ADMIN", "a")]).unwrap_err();
        assert!(wrong.starts_with("LARDER_ADMIN: "), "{wrong}");
    }
}
