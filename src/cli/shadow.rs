//! `larder shadow`: shows what shadow mode and audits have found on a running node.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use super::{node::NodeArguments, output};
use crate::config::{Permission, format_duration};

/// The time limit for the node's response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The flags of `larder shadow`.
#[derive(Debug, Clone, Args)]
pub struct ShadowArguments {
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// The node to call.
    #[command(flatten)]
    pub node: NodeArguments,
    /// A token with `read` permission. The environment variable is safer than the flag.
    #[arg(long, value_name = "TOKEN", env = "LARDER_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

/// Prints the report of a node. The exit code is 1 if a stored response was wrong.
pub(crate) fn execute(arguments: &ShadowArguments) -> anyhow::Result<ExitCode> {
    let report = fetch(arguments)?;
    output::print(&if arguments.json { format!("{report:#}\n") } else { text(&report) })?;
    let is_wrong = routes(&report).iter().any(|route| count(route, "wrong") > 0);
    Ok(if is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn fetch(arguments: &ShadowArguments) -> anyhow::Result<Value> {
    let node = arguments.node.node()?;
    let (address, token) = node.address_and_token(arguments.token.as_deref(), Permission::Read)?;
    let request = address.request("/v1/shadow", token.as_deref())?;
    let response = address.exchange(&request, TIMEOUT).with_context(|| {
        format!(
            "no response from {address}; give the admin listener with --admin, or its configuration with --config"
        )
    })?;
    let document: Value = serde_json::from_str(&response.body).unwrap_or_default();
    match (response.status, document.get("detail").and_then(Value::as_str)) {
        (200, _) => Ok(document),
        (401, _) => bail!(
            "the token is missing or wrong; set LARDER_ADMIN_TOKEN, or give the configuration that contains it with --config"
        ),
        (_, Some(detail)) => bail!("{detail}"),
        (status, None) => bail!("unexpected status {status}; is this Larder's admin listener?"),
    }
}

/// Formats a report as text.
pub fn text(report: &Value) -> String {
    let routes = routes(report);
    if routes.is_empty() {
        return "no route has `shadow` or `audit`: docs/shadow.md\n".to_owned();
    }
    let mut text = String::new();
    for route in routes {
        let _ = route_text(&mut text, route);
    }
    text
}

fn route_text(text: &mut String, route: &Value) -> std::fmt::Result {
    let (name, mode) = (string(route, "route"), string(route, "mode"));
    let since = route.get("since").and_then(Value::as_str);
    let since = since.map_or_else(|| "no requests yet".to_owned(), |at| format!("since {at}"));
    writeln!(text, "{name} ({mode}, {since})")?;
    let results = pairs(route.get("results"));
    let requests = if mode == "audit" { "audited hits" } else { "requests" };
    writeln!(text, "  {requests:12}  {}{}", count(route, "requests"), behind(&results))?;
    if let Some(saved) = route.get("saved") {
        let ratio = route.get("hit_ratio").and_then(Value::as_f64).unwrap_or_default();
        let bytes = count(saved, "bytes");
        let seconds = saved.get("seconds").and_then(Value::as_f64).unwrap_or_default();
        writeln!(text, "  hit ratio     {:.1} %", ratio * 100.0)?;
        let requests = count(saved, "requests");
        writeln!(text, "  saved         {requests} origin requests, {bytes} bytes, {seconds} s")?;
    }
    let (compared, wrong) = (count(route, "compared"), count(route, "wrong"));
    writeln!(text, "  compared      {compared}, {wrong} wrong")?;
    for (label, key) in
        [("not compared", "skipped"), ("not hits", "reasons"), ("not stored", "not_stored")]
    {
        let counts = pairs(route.get(key));
        if !counts.is_empty() {
            writeln!(text, "  {label:12}  {counts}")?;
        }
    }
    for group in list(route, "ages").iter().filter(|group| count(group, "wrong") > 0) {
        let until = group.get("until").and_then(Value::as_u64).map_or_else(
            || "older".to_owned(),
            |seconds| format!("up to {} old", format_duration(Duration::from_secs(seconds))),
        );
        let (wrong, compared) = (count(group, "wrong"), count(group, "compared"));
        writeln!(text, "  {until}: {wrong} of {compared} wrong")?;
    }
    list(route, "samples").iter().try_for_each(|sample| sample_text(text, sample))?;
    for advice in list(route, "advice") {
        writeln!(text, "  → {}", advice.as_str().unwrap_or_default())?;
    }
    Ok(())
}

fn sample_text(text: &mut String, sample: &Value) -> std::fmt::Result {
    let inputs: Vec<&str> = list(sample, "inputs").iter().filter_map(Value::as_str).collect();
    let inputs = if inputs.is_empty() {
        String::new()
    } else {
        format!(", stored for other {}", inputs.join(" and "))
    };
    let (times, path) = (count(sample, "count"), string(sample, "path"));
    let age = sample.get("age").and_then(Value::as_f64).unwrap_or_default();
    writeln!(text, "  {times} × {path}, last {age} s old{inputs}")?;
    for it in list(sample, "differences") {
        let (at, stored, live) = (string(it, "at"), string(it, "stored"), string(it, "live"));
        writeln!(text, "      {at}: {stored}, now {live}")?;
    }
    Ok(())
}

fn routes(report: &Value) -> &[Value] {
    list(report, "routes")
}

fn list<'a>(document: &'a Value, key: &str) -> &'a [Value] {
    document.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn string<'a>(document: &'a Value, key: &str) -> &'a str {
    document.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn count(document: &Value, key: &str) -> u64 {
    document.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// Formats counts with their names, the highest count first.
fn pairs(counts: Option<&Value>) -> String {
    let Some(counts) = counts.and_then(Value::as_object) else { return String::new() };
    let mut counts: Vec<(&str, u64)> =
        counts.iter().map(|(name, it)| (name.as_str(), it.as_u64().unwrap_or_default())).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let counts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    counts.join(", ")
}

fn behind(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
