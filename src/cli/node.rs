//! Which node a command calls: the one that the flags, the environment or the configuration names.
//!
//! A doubt is an error: at the default address another node may listen, and a purge there does harm.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;

use super::{admin_client::AdminAddress, run::DEFAULT_FILE};
use crate::config::{Config, ConfigError, Flags, ListenAddress, Permission};

/// The flags that name a node.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArguments {
    /// The configuration file of the node: its admin listener and a token. Without it and
    /// `LARDER_CONFIG`, ./proxy.toml; without that file, 127.0.0.1:9180, where a Larder without
    /// configuration has its admin listener.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the admin listener is: an address and a port, a URL, or `unix:` and a path. Without it,
    /// `LARDER_ADMIN`.
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<AdminAddress>,
}

/// A node as the command line and the environment name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTarget {
    /// Its admin listener, if it is named by itself.
    admin: Option<AdminAddress>,
    /// Its file; none if it runs without one.
    file: Option<PathBuf>,
    /// Whether the file may be missing, because it was not named.
    is_optional: bool,
}

impl NodeArguments {
    /// The node that these flags name, with the process's environment.
    ///
    /// # Errors
    /// If `--config` and `LARDER_ADMIN` name different nodes.
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
                 name the admin listener with --admin, or unset LARDER_ADMIN",
                file.display(),
            );
        }
        let admin = self.admin.clone().or(by_variable);
        let named = self.config.clone().or_else(|| variable("LARDER_CONFIG").map(PathBuf::from));
        // `larder run` reads no file either if the environment names the origin.
        let default_file =
            || variable("LARDER_ORIGIN").is_none().then(|| PathBuf::from(DEFAULT_FILE));
        Ok(NodeTarget { admin, is_optional: named.is_none(), file: named.or_else(default_file) })
    }
}

impl NodeTarget {
    /// The admin listener.
    ///
    /// # Errors
    /// If it stands in a file that does not load, or has none.
    pub fn address(&self) -> anyhow::Result<AdminAddress> {
        if let Some(admin) = &self.admin {
            return Ok(admin.clone());
        }
        match self.configuration("name the admin listener with --admin")? {
            Some(config) => listener(&config),
            None => Ok(AdminAddress::default_address()),
        }
    }

    /// The admin listener and a token that may do this there: `token`, or else one of the file.
    ///
    /// # Errors
    /// Those of [`NodeTarget::address`], also if only the token stands in the file.
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

    /// The configuration in the node's file, if there is one and it loads.
    pub fn known_configuration(&self) -> Option<Config> {
        Config::load(self.file.as_ref()?, &Flags::default()).ok()
    }

    /// The configuration. None if the node runs without a file, or nobody named one and there is none.
    fn configuration(&self, advice: &str) -> anyhow::Result<Option<Config>> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        match Config::load(file, &Flags::default()) {
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

/// The admin listener of a configuration.
fn listener(config: &Config) -> anyhow::Result<AdminAddress> {
    let file = &config.warnings.file;
    let listen = config.admin.listen.clone().with_context(|| {
        format!(
            "no node was called: {file} turns the admin listener off; if the node has one all the \
             same, name it with --admin"
        )
    })?;
    if matches!(&listen, ListenAddress::Tcp(address) if address.port() == 0) {
        bail!(
            "no node was called: {file} leaves the port of the admin listener to the system; name \
             the listener with --admin"
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
