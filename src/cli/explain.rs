//! `larder explain`: explains how a request is handled, and why.

use std::{net::IpAddr, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use super::{admin_client::AdminAddress, node::NodeArguments, output, run::DEFAULT_FILE};
use crate::{
    app::Explainer,
    config::{CliOverrides, Config},
    pipeline::explain::{ExplainRequest, ExplainRequestResponse},
};

/// The time limit for a node's response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The flags of `larder explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArguments {
    /// The method of the request, such as GET.
    #[arg(value_name = "METHOD")]
    pub method: String,
    /// The URL of the request: `https://host/path?query`, or `/path`.
    #[arg(value_name = "URL")]
    pub url: String,
    /// A request header. Can be repeated. Values of credentials are never shown.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The request body.
    #[arg(long, value_name = "TEXT")]
    pub body: Option<String>,
    /// The client's address, for trusted proxies and gateways.
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<IpAddr>,
    /// The status of the origin's response, to explain also whether and how long it is stored.
    #[arg(long, value_name = "STATUS")]
    pub response: Option<u16>,
    /// A header of the origin's response. Can be repeated.
    #[arg(long = "response-header", value_name = "NAME: VALUE")]
    pub response_headers: Vec<String>,
    /// The body of the origin's response.
    #[arg(long, value_name = "TEXT")]
    pub response_body: Option<String>,
    /// Ask a running node, which also looks up the stored response. Implied by --admin.
    #[arg(long)]
    pub live: bool,
    /// Print the explanation as JSON.
    #[arg(long)]
    pub json: bool,
    /// The configuration, or the node to call.
    #[command(flatten)]
    pub node: NodeArguments,
    /// A token with `read` permission, for --live. The environment variable is safer than the flag.
    #[arg(long, value_name = "TOKEN", env = "LARDER_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Explains the request that the flags describe, and prints the explanation.
pub(crate) fn execute(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let request = explain_request(arguments);
    if arguments.live || arguments.node.admin.is_some() {
        output::print(&ask_node(arguments, &request)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let named = arguments.node.config.clone();
    let named = named.or_else(|| std::env::var_os("LARDER_CONFIG").map(Into::into));
    let file = named.as_deref().unwrap_or_else(|| Path::new(DEFAULT_FILE));
    let config = match Config::load(file, &CliOverrides::default()) {
        Ok(config) => config,
        Err(error) => {
            anstream::eprint!("{}", error.styled());
            return Ok(ExitCode::FAILURE);
        }
    };
    let explanation = Explainer::new(&config)?.explain(&request)?;
    output::print(&if arguments.json {
        format!("{}\n", serde_json::to_string_pretty(&explanation)?)
    } else {
        explanation.to_string()
    })?;
    Ok(ExitCode::SUCCESS)
}

fn explain_request(arguments: &ExplainArguments) -> ExplainRequest {
    let is_given = arguments.response.is_some()
        || !arguments.response_headers.is_empty()
        || arguments.response_body.is_some();
    ExplainRequest {
        method: arguments.method.clone(),
        url: arguments.url.clone(),
        headers: arguments.headers.clone(),
        body: arguments.body.clone(),
        from: arguments.from,
        response: is_given.then(|| ExplainRequestResponse {
            status: arguments.response.unwrap_or(200),
            headers: arguments.response_headers.clone(),
            body: arguments.response_body.clone(),
        }),
    }
}

/// Returns the explanation of a running node, in the requested format.
fn ask_node(arguments: &ExplainArguments, request: &ExplainRequest) -> anyhow::Result<String> {
    let node = arguments.node.node()?;
    let (address, token) =
        node.address_and_token(arguments.token.as_deref(), crate::config::Permission::Read)?;
    let body = serde_json::to_string(request)?;
    let call = http_request(&address, token.as_deref(), (&body, arguments.json))?;
    let response = address.exchange(&call, TIMEOUT).with_context(|| {
        format!(
            "no response from {address}; give the admin listener with --admin, or its configuration with --config"
        )
    })?;
    let document: Value = serde_json::from_str(&response.body).unwrap_or_default();
    match (response.status, document.get("detail").and_then(Value::as_str)) {
        (200, _) if arguments.json => Ok(format!("{document:#}\n")),
        (200, _) => Ok(response.body),
        (401, _) => bail!(
            "the token is missing or wrong; set LARDER_ADMIN_TOKEN, or give the configuration that contains it with --config"
        ),
        (_, Some(detail)) => bail!("{detail}"),
        (status, None) => bail!("unexpected status {status}; is this Larder's admin listener?"),
    }
}

fn http_request(
    address: &AdminAddress,
    token: Option<&str>,
    (body, json): (&str, bool),
) -> anyhow::Result<Vec<u8>> {
    let accept = if json { "application/json" } else { "text/plain" };
    address.post(("/v1/explain", accept), token, body)
}
