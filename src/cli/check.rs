//! `larder check`: prints the routes of a configuration, or its errors.

use std::{
    collections::BTreeSet, fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration,
};

use clap::Args;

use super::{output, run::DEFAULT_FILE};
use crate::{
    app::{Explainer, run_tests},
    config::{CliOverrides, Config, Finding, format_duration},
    key::uri::QueryOrder,
    pipeline::explain::ExplainRequest,
    policy::{Partition, Ttl, TtlFrom},
    route::{ContentRule, Route, Verification},
    user::IdentitySource,
};

/// The flags of `larder check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE", env = "LARDER_CONFIG", default_value = DEFAULT_FILE)]
    pub config: PathBuf,
    /// Also explain a GET request to this URL; `larder explain` has more options.
    #[arg(long, value_name = "URL")]
    pub explain: Option<String>,
}

/// Prints the routes of a configuration, or fails with its errors or failed tests.
///
/// Warnings and errors are printed to standard error.
pub(crate) fn execute(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    match Config::load(&arguments.config, &CliOverrides::default()) {
        Ok(config) => {
            if !config.warnings.problems.is_empty() {
                anstream::eprintln!("{}", config.warnings.styled());
            }
            output::print(&summary(&config))?;
            if let Some(url) = &arguments.explain {
                let explanation = Explainer::new(&config)?.explain(&ExplainRequest::get(url))?;
                output::print(&format!("\n{explanation}"))?;
            }
            run(&config)
        }
        Err(error) => {
            anstream::eprint!("{}", error.styled());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs the tests of a configuration, and prints the failed expectations.
fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let failures = run_tests(config)?;
    if config.tests.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let failed: BTreeSet<&str> = failures.iter().map(|failure| &*failure.test).collect();
    let (tests, failed) = (config.tests.len(), failed.len());
    let findings = failures.iter().map(|failure| {
        let finding = Finding::error(Some(failure.at.clone()), failure.message.clone());
        finding.maybe_help(Some(failure.because.clone()).filter(|text| !text.is_empty()))
    });
    let report = config.warnings.with_findings(findings.collect());
    if report.has_errors() {
        anstream::eprintln!("{}", report.styled());
    }
    output::print(&format!("{}, {failed} failed\n", count(tests, "test")))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Returns the routes of a configuration as a table, and a line that confirms success.
pub fn summary(config: &Config) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(config.routes.routes().iter().map(|route| row(route)));
    rows.push(row(config.routes.unmatched()));
    let mut text = aligned(&rows);
    let open: Vec<&str> = without_partition(config).collect();
    if !open.is_empty() {
        let _ = writeln!(text, "\n{TTL_NOTE}");
    }
    if !open.is_empty() && config.user.identity_source != IdentitySource::None {
        let _ = writeln!(text, "{PARTITION_NOTE}: {}", open.join(", "));
    }
    let routes = count(config.routes.routes().len(), "route");
    let warnings = count(config.warnings.problems.len(), "warning");
    let _ = writeln!(text, "\n{}: valid, {routes}, {warnings}", config.warnings.file);
    text
}

/// A note on the requests that a `ttl` applies to, if the route has no partition.
const TTL_NOTE: &str = "Without a partition, a ttl applies only to requests without credentials and unknown cookies; other responses are shared only if the origin allows it: docs/credentials.md";

/// A note for routes whose `ttl` rarely helps requests with tokens.
const PARTITION_NOTE: &str =
    "These routes have a ttl and no partition, so requests with a token rarely hit";

/// Returns the names of the routes with a `ttl` and no partition.
fn without_partition(config: &Config) -> impl Iterator<Item = &str> {
    let routes = config.routes.routes().iter().filter(|route| {
        let rule = &route.rule;
        rule.cache && rule.has_ttl() && rule.partition == Partition::None
    });
    routes.map(|route| &*route.name)
}

const HEADINGS: [&str; 8] = [
    "name",
    "match",
    "ttl",
    "ttl_from",
    "stale_while_revalidate",
    "stale_if_error",
    "stale_if_disconnected",
    "details",
];

fn row(route: &Route) -> [String; 8] {
    let time = |duration: Option<Duration>| duration.map_or_else(|| "-".into(), format_duration);
    let rule = &route.rule;
    let name = route.name.to_string();
    let pattern = route.pattern.as_ref();
    let pattern = pattern.map_or_else(|| "(anything else)".into(), ToString::to_string);
    if !rule.cache {
        let [ttl, none] = ["not cached", "-"].map(str::to_owned);
        let [from, renewed, error, disconnected, details] = std::array::from_fn(|_| none.clone());
        return [name, pattern, ttl, from, renewed, error, disconnected, details];
    }
    [
        name,
        pattern,
        ttl(&rule.ttl),
        ttl_from(rule.ttl_from).to_owned(),
        time(rule.stale_while_revalidate),
        time(rule.stale_if_error),
        time(Some(rule.effective_stale_if_disconnected())),
        details(route),
    ]
}

/// Formats a TTL: `5m`, or one for each status.
fn ttl(ttl: &Ttl) -> String {
    if let Some(time) = ttl.successes_only() {
        return format_duration(time);
    }
    let times =
        ttl.iter().map(|(status, time)| format!("{} {}", status.as_str(), format_duration(time)));
    let times: Vec<String> = times.collect();
    if times.is_empty() { "-".to_owned() } else { times.join(", ") }
}

const fn ttl_from(from: TtlFrom) -> &'static str {
    match from {
        TtlFrom::Origin => "origin",
        TtlFrom::Rule => "rule",
        TtlFrom::Min => "min",
        TtlFrom::Max => "max",
    }
}

/// Returns the settings of a route that have no column and differ from the defaults.
fn details(route: &Route) -> String {
    let only = route.query.only.as_deref().map(|only| listed("query only", only));
    let flag = |is_set: bool, text: &str| if is_set { text.to_owned() } else { String::new() };
    let client_cache = route.client_cache.as_ref().and_then(|value| value.to_str().ok());
    let codings: Vec<&str> = route.encode.iter().map(|coding| coding.as_str()).collect();
    let partition = &route.rule.partition;
    let partition = (*partition != Partition::None).then(|| format!("partition {partition}"));
    let parts = [
        partition.unwrap_or_default(),
        flag(route.rule.sensitive, "sensitive"),
        only.unwrap_or_default(),
        listed("query without", &route.query.ignore),
        flag(route.query.order == QueryOrder::Sorted, "query sorted"),
        listed("query lists", &route.query.values.lists),
        listed("query defaults", &route.query.values.defaults),
        flag(route.content == ContentRule::Json, "POST of JSON is a read"),
        flag(route.content == ContentRule::Bytes, "POST is a read"),
        listed("vary", &route.vary.headers),
        listed("cookies", &route.vary.cookies),
        listed("tags", &route.tags),
        listed("tags from the body", &route.body_tags),
        listed("bypass by query", &route.bypass.query),
        listed("bypass by header", &route.bypass.headers),
        flag(route.bypass.refresh, "bypass refreshes the cache"),
        graphql(route),
        listed("not stored with", &route.store_unless),
        listed("clients", client_cache.as_slice()),
        listed("encode", &codings),
        listed("purges on write", &route.purged_on_write),
        flag(!route.writes_invalidate, "writes do not invalidate"),
        flag(route.writes_for_everyone, "purges on write for all users"),
        listed("warm on success", &route.warm_on_success),
        flag(route.logs_out, "logs out on success"),
        verification(route.verification),
        listed("compared without", &route.comparison.ignore),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join("; ") }
}

/// Describes how a route reads GraphQL.
fn graphql(route: &Route) -> String {
    let Some(rule) = route.graphql.as_deref() else { return String::new() };
    let operations = rule.operations.as_ref().map(|operations| {
        let times = operations.iter().map(|(name, time)| format!("{name} {}", ttl(time)));
        let times: Vec<String> = times.collect();
        listed(": operations", &times)
    });
    format!("GraphQL{}", operations.unwrap_or_default())
}

fn verification(verification: Verification) -> String {
    match verification {
        Verification::Off => String::new(),
        Verification::Shadow => "shadow".to_owned(),
        Verification::Audit(rate) => format!("audit {rate}"),
    }
}

fn listed(label: &str, words: &[impl ToString]) -> String {
    if words.is_empty() {
        return String::new();
    }
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    format!("{label} {}", words.join(", "))
}

/// Aligns columns to their widest cell, two spaces apart.
fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width_of = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..COLUMNS).map(width_of).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
