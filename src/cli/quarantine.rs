//! `larder quarantine`: lists the quarantined routes of a node's fleet, or clears them.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use super::{
    admin_client::{AdminAddress, AdminResponse},
    node::NodeArguments,
    output,
};
use crate::config::Permission;

/// The time limit of a call. To clear a quarantine, the node waits for other nodes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The path of the node's quarantine calls.
const CALL: &str = "/v1/quarantine";

/// The flags of `larder quarantine`.
#[derive(Debug, Clone, Args)]
pub struct QuarantineArguments {
    /// End the quarantine of this route on all nodes. Correct the cause first. Can be repeated.
    #[arg(long, value_name = "ROUTE", conflicts_with = "json")]
    pub clear: Vec<String>,
    /// Print the list as JSON.
    #[arg(long)]
    pub json: bool,
    /// The node to call.
    #[command(flatten)]
    pub node: NodeArguments,
    /// A token with `read` permission, or with `purge` permission for --clear. The environment
    /// variable is safer than the flag.
    #[arg(long, value_name = "TOKEN", env = "LARDER_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// A quarantined route in the list.
#[derive(Deserialize)]
struct ListedRoute {
    route: String,
    since: String,
    cause: String,
    path: String,
    places: Vec<String>,
}

#[derive(Deserialize)]
struct RouteList {
    routes: Vec<ListedRoute>,
}

/// Lists the quarantined routes, or clears the named ones.
pub(crate) fn execute(arguments: &QuarantineArguments) -> anyhow::Result<ExitCode> {
    let wanted = if arguments.clear.is_empty() { Permission::Read } else { Permission::Purge };
    let node = arguments.node.node()?;
    let (address, token) = node.address_and_token(arguments.token.as_deref(), wanted)?;
    let token = token.as_deref();
    if arguments.clear.is_empty() {
        let response = exchange(&address, &address.request(CALL, token)?)?;
        let body = success(&response, "nothing was listed")?;
        let text = if arguments.json { format!("{}\n", body.trim()) } else { text(&body)? };
        output::print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    for route in &arguments.clear {
        let path = format!("{CALL}/{}", utf8_percent_encode(route, NON_ALPHANUMERIC));
        let response = exchange(&address, &address.delete(&path, token)?)?;
        success(&response, &format!("the quarantine of `{route}` was not cleared"))?;
        output::print(&format!("cleared: {route}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn exchange(address: &AdminAddress, request: &[u8]) -> anyhow::Result<AdminResponse> {
    address.exchange(request, TIMEOUT).with_context(|| {
        format!(
            "no response from {address}; give the admin listener with --admin, or its configuration with --config"
        )
    })
}

/// Returns the body of a successful response, or an error with advice.
fn success(response: &AdminResponse, failure: &str) -> anyhow::Result<String> {
    let document: Option<Value> = serde_json::from_str(&response.body).ok();
    let detail = document.as_ref().and_then(|document| document.get("detail")?.as_str());
    match (response.status, detail) {
        (200 | 202, _) if document.is_some() => Ok(response.body.clone()),
        (401, _) => anyhow::bail!(
            "{failure}: the token is missing or wrong; set LARDER_ADMIN_TOKEN, or give the configuration that contains it with --config"
        ),
        (status, Some(detail)) => anyhow::bail!("{failure} ({status}): {detail}"),
        (status, None) => {
            anyhow::bail!("{failure}: unexpected status {status}; is this Larder's admin listener?")
        }
    }
}

/// Formats the list of quarantined routes as text.
fn text(body: &str) -> anyhow::Result<String> {
    let list: RouteList = serde_json::from_str(body).context("the list cannot be read")?;
    if list.routes.is_empty() {
        return Ok("no route is quarantined\n".to_owned());
    }
    let mut text = String::new();
    for ListedRoute { route, since, cause, path, places } in list.routes {
        writeln!(text, "{route}")?;
        writeln!(text, "  since  {since}")?;
        writeln!(text, "  path   {path}")?;
        let means = match cause.as_str() {
            "names-requester" => "each response contains the name of its own requester",
            _ => "responses depend on the requester",
        };
        writeln!(text, "  cause  {cause}: {means}")?;
        if !places.is_empty() {
            writeln!(text, "  places {}", places.join(", "))?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_shown_route_by_route() {
        assert_eq!(text(r#"{"routes":[]}"#).unwrap(), "no route is quarantined\n");
        let one = r#"{"route":"a","since":"2026-11-26T08:00:00Z","cause":"differs-by-requester","path":"/me","places":["$.email","$.name"]}"#;
        let expected = "a\n  since  2026-11-26T08:00:00Z\n  path   /me\n  cause  differs-by-requester: responses depend on the requester\n  places $.email, $.name\n";
        assert_eq!(text(&format!(r#"{{"routes":[{one}]}}"#)).unwrap(), expected);
        assert!(text("{}").is_err());
    }

    #[test]
    fn errors_come_with_advice() {
        let result = |status, body: &str| {
            let response = AdminResponse { status, body: body.to_owned() };
            success(&response, "not cleared").map_err(|error| error.to_string())
        };
        assert_eq!(result(200, "{}"), Ok("{}".to_owned()));
        assert!(result(401, "").unwrap_err().contains("LARDER_ADMIN_TOKEN"));
        let problem = r#"{"detail":"No route with this name is quarantined."}"#;
        let expected = "not cleared (404): No route with this name is quarantined.";
        assert_eq!(result(404, problem).unwrap_err(), expected);
        for (status, body) in [(404, "<html>"), (200, "<html>")] {
            assert!(result(status, body).unwrap_err().contains("is this Larder's admin listener?"));
        }
    }
}
