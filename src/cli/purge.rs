//! `larder purge`: purges stored responses by a call to the admin listener.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::{admin_client::AdminResponse, node::NodeArguments, output};
use crate::{
    config::{Config, Permission, nearest},
    user::IdentitySource,
};

/// The time limit for the node's response to a purge.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The path of the purge call, and the media type of its response.
const CALL: (&str, &str) = ("/v1/purge", "application/json");

/// The flags of `larder purge`.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("selectors").required(true).multiple(true))]
pub struct PurgeArguments {
    /// Purge responses with this tag. Selectors can be repeated, except --store-version.
    #[arg(long, short, value_name = "TAG", group = "selectors")]
    pub tag: Vec<String>,
    /// Purge all variants of a URL: `https://host/path`, `host/path`, or `/path` on every host.
    #[arg(long, short, value_name = "URL", group = "selectors")]
    pub url: Vec<String>,
    /// Purge every URL with this prefix.
    #[arg(long, value_name = "PREFIX", group = "selectors")]
    pub prefix: Vec<String>,
    /// Purge every URL that matches this pattern; `*` matches any text.
    #[arg(long, value_name = "PATTERN", group = "selectors")]
    pub pattern: Vec<String>,
    /// Purge everything.
    #[arg(long, group = "selectors")]
    pub everything: bool,
    /// Limit the purge to this user's responses. Without other selectors, purge all of them.
    #[arg(long, value_name = "USER", group = "selectors")]
    pub user: Vec<String>,
    /// The issuer of the users' tokens. Defaults to every configured issuer.
    #[arg(long, value_name = "ISSUER", requires = "user")]
    pub iss: Option<String>,
    /// Limit the purge to this route's responses. Without other selectors, purge all of them.
    #[arg(long, value_name = "ROUTE", group = "selectors")]
    pub route: Vec<String>,
    /// Limit the purge to this `store.version`. Without other selectors, purge all its responses.
    #[arg(long, value_name = "VERSION", group = "selectors")]
    pub store_version: Option<String>,
    /// Purge softly: a response becomes stale, and can be served once more during its refresh.
    #[arg(long)]
    pub soft: bool,
    /// Fetch recently requested responses again after the purge.
    #[arg(long)]
    pub warm: bool,
    /// The reason for the purge, stored in the purge log.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The node to call.
    #[command(flatten)]
    pub node: NodeArguments,
    /// A token with `purge` permission. The environment variable is safer than the flag.
    #[arg(long, value_name = "TOKEN", env = "LARDER_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Calls a node to purge, and prints the receipt.
pub(crate) fn execute(arguments: &PurgeArguments) -> anyhow::Result<ExitCode> {
    let node = arguments.node.node()?;
    let (address, token) = node.address_and_token(arguments.token.as_deref(), Permission::Purge)?;
    let request = address.post(CALL, token.as_deref(), &body(arguments))?;
    let response = address.exchange(&request, TIMEOUT).with_context(|| {
        format!(
            "no response from {address}; give the admin listener with --admin, or its configuration with --config"
        )
    })?;
    let receipt = receipt(&response)?;
    if let Some(config) = node.known_configuration() {
        let users = unknown_users(arguments, &config);
        for warning in unknown_routes(&arguments.route, &config).into_iter().chain(users) {
            anstream::eprintln!("warning: {warning}");
        }
    }
    output::print(&format!("{receipt}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns a warning if no response can belong to these users under this configuration.
fn unknown_users(arguments: &PurgeArguments, config: &Config) -> Option<String> {
    if arguments.user.is_empty() {
        return None;
    }
    let file = &config.warnings.file;
    let issuer = arguments.iss.as_deref();
    match &config.user.identity_source {
        IdentitySource::None => Some(format!(
            "{file} has neither `user.jwt` nor `user.header`, so no response belongs to a user with a name; purge by \
             tag, URL or route"
        )),
        IdentitySource::Token(rules) => issuer
            .filter(|issuer| {
                !rules.issuers.is_empty() && !rules.issuers.iter().any(|it| **it == **issuer)
            })
            .map(|issuer| format!("`user.jwt.iss` in {file} does not name `{issuer}`")),
        IdentitySource::Gateway(_) => issuer
            .map(|_| format!("users of `user.header` in {file} have no issuer; leave out `--iss`")),
    }
}

/// Returns warnings about routes missing from the configuration.
///
/// The purge continues, because responses of a renamed route may still be stored.
fn unknown_routes(routes: &[String], config: &Config) -> Vec<String> {
    let table = &config.routes;
    let names = || table.routes().iter().chain([table.unmatched()]).map(|route| &*route.name);
    let unknown = routes.iter().filter(|route| !names().any(|name| name == route.as_str()));
    unknown
        .map(|route| {
            let file = &config.warnings.file;
            let meant = nearest(route, names()).map(|name| format!("; did you mean `{name}`?"));
            format!("{file} has no route `{route}`{}", meant.unwrap_or_default())
        })
        .collect()
}

/// Returns the body of the purge call.
fn body(arguments: &PurgeArguments) -> String {
    let mut body = json!({
        "tags": arguments.tag,
        "urls": arguments.url,
        "prefixes": arguments.prefix,
        "patterns": arguments.pattern,
        "everything": arguments.everything,
        "users": arguments.user,
        "routes": arguments.route,
        "mode": if arguments.soft { "soft" } else { "hard" },
        "warm": arguments.warm,
    });
    let further = [
        ("iss", &arguments.iss),
        ("version", &arguments.store_version),
        ("reason", &arguments.reason),
    ];
    for (key, text) in further {
        if let (Some(text), Some(body)) = (text, body.as_object_mut()) {
            body.insert(key.to_owned(), Value::from(text.as_str()));
        }
    }
    body.to_string()
}

/// Returns the receipt in a response, or an error with advice.
fn receipt(response: &AdminResponse) -> anyhow::Result<&str> {
    let document: Value = serde_json::from_str(&response.body).unwrap_or_default();
    if (200..300).contains(&response.status) && document.get("seq").is_some() {
        return Ok(response.body.trim());
    }
    let detail = document.get("detail").and_then(Value::as_str);
    match (response.status, detail) {
        (401, _) => anyhow::bail!(
            "nothing was purged: the token is missing or wrong; set LARDER_ADMIN_TOKEN, or give the configuration that contains it with --config"
        ),
        (status, Some(detail)) => anyhow::bail!("nothing was purged ({status}): {detail}"),
        (status, None) => anyhow::bail!(
            "nothing was purged: unexpected status {status}; is this Larder's admin listener?"
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command, admin_client::AdminAddress};

    fn arguments(line: &[&str]) -> Result<PurgeArguments, String> {
        let line = ["larder", "purge"].iter().chain(line);
        match Cli::try_parse_from(line).map_err(|error| error.to_string())?.command {
            Command::Purge(arguments) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_flags_are_the_body_of_the_call() {
        let line = ["--tag", "a", "-t", "b", "--url", "/x", "--prefix", "/api", "--soft"];
        let body: Value = serde_json::from_str(&body(&arguments(&line).unwrap())).unwrap();
        let expected = json!({
            "tags": ["a", "b"], "urls": ["/x"], "prefixes": ["/api"], "patterns": [],
            "everything": false, "users": [], "routes": [], "mode": "soft", "warm": false,
        });
        assert_eq!(body, expected);
        let line =
            ["--warm", "--pattern", "/a/*", "--user", "u", "--iss", "https://i", "--route", "r"];
        let line = [&line[..], &["--store-version", "v1"]].concat();
        let body: Value = serde_json::from_str(&super::body(&arguments(&line).unwrap())).unwrap();
        for (key, expected) in [
            ("patterns", json!(["/a/*"])),
            ("users", json!(["u"])),
            ("iss", json!("https://i")),
            ("routes", json!(["r"])),
            ("version", json!("v1")),
            ("warm", json!(true)),
        ] {
            assert_eq!(body[key], expected, "{key}");
        }
        let body = super::body(&arguments(&["--everything", "--reason", "new data"]).unwrap());
        assert!(body.contains(r#""reason":"new data""#) && body.contains(r#""mode":"hard""#));
    }

    #[test]
    fn something_has_to_be_selected() {
        assert!(arguments(&["--soft"]).unwrap_err().contains("--everything"));
        assert!(arguments(&["--iss", "i", "-t", "a"]).unwrap_err().contains("--user"));
    }

    #[test]
    fn address_and_token_come_from_the_flags_or_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proxy.toml");
        let text = "origin = \"http://o\"\nadmin = { listen = \":9\", tokens = [{ token = \"r\", may = [\"read\"] }, { token = \"p\", may = [\"purge\"] }] }";
        std::fs::write(&file, text).unwrap();
        let destination = |line: &[&str]| {
            let line: Vec<&str> = ["-t", "a"].iter().chain(line).copied().collect();
            let PurgeArguments { node, token, .. } = arguments(&line).unwrap();
            let (address, token) = node
                .node()
                .unwrap()
                .address_and_token(token.as_deref(), Permission::Purge)
                .unwrap();
            (address.to_string(), token)
        };
        let file = file.to_str().unwrap();
        assert_eq!(destination(&["-c", file]), ("127.0.0.1:9".into(), Some("p".into())));
        let given = ["-c", file, "--admin", ":8", "--token", "t"];
        assert_eq!(destination(&given), ("127.0.0.1:8".into(), Some("t".into())));
    }

    #[test]
    fn the_request_is_complete_and_rejects_line_breaks() {
        let address = AdminAddress::default_address();
        let request = address.post(CALL, Some("secret"), "{}").unwrap();
        let expected = "POST /v1/purge HTTP/1.1\r\nHost: 127.0.0.1:9180\r\nAuthorization: Bearer secret\r\nAccept: application/json\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(String::from_utf8(request).unwrap(), expected);
        assert!(address.post(CALL, Some("a\r\nb"), "{}").is_err());
    }

    #[test]
    fn errors_come_with_advice() {
        let result = |status, body: &str| {
            let response = AdminResponse { status, body: body.to_owned() };
            receipt(&response).map(str::to_owned).map_err(|error| error.to_string())
        };
        assert_eq!(result(200, "{\"seq\":7}\n"), Ok("{\"seq\":7}".to_owned()));
        assert!(result(401, "").unwrap_err().contains("LARDER_ADMIN_TOKEN"));
        let problem = r#"{"detail":"Redis cannot be reached."}"#;
        assert_eq!(
            result(503, problem).unwrap_err(),
            "nothing was purged (503): Redis cannot be reached."
        );
        for (status, body) in [(404, "<html>"), (200, "<html>"), (200, "{}"), (204, "")] {
            let result = result(status, body).unwrap_err();
            assert!(result.contains("is this Larder's admin listener?"), "{result}");
        }
    }
}
