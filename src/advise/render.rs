//! The proposal as a fragment of `proxy.toml`.

use std::fmt::{self, Write as _};

use super::{
    advisor::Advisor,
    paths::MIN_CLIENTS,
    proposal::Proposal,
    proposed_route::{ProposedRoute, ProposedSetting, TagName},
    reasons,
};

/// The column in which reasons begin. Longer lines shift it.
const COLUMN: usize = 44;

/// Maximum number of templates without a route that are listed.
const MAX_LEFT: usize = 20;

/// The `[user]` section, printed if the proposal has partitions.
const USER: &str = r#"
# Who is asking. Put in your issuer, or see docs/identities.md for gateways and sessions. Until then
# requests with a token pass through.
[user]
jwt = { jwks = "https://issuer.example/.well-known/jwks.json", iss = "https://issuer.example", aud = "api", claim = "sub" }
"#;

/// A proposal with the advisor that made it. `Display` writes it as TOML.
#[derive(Debug)]
pub struct ProposedTable<'a> {
    /// The advisor, after its last pass.
    pub advisor: &'a Advisor,
    /// What the advisor proposes.
    pub proposal: &'a Proposal,
}

impl fmt::Display for ProposedTable<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { advisor, proposal } = self;
        heading(formatter, advisor, proposal)?;
        if proposal.has_partitions {
            formatter.write_str(USER)?;
        }
        for route in &proposal.routes {
            write_route(formatter, route)?;
        }
        write_left(formatter, proposal)?;
        write_limits(formatter, advisor)
    }
}

fn heading(
    formatter: &mut fmt::Formatter<'_>,
    advisor: &Advisor,
    proposal: &Proposal,
) -> fmt::Result {
    let log = &advisor.log;
    #[expect(clippy::cast_precision_loss, reason = "statistics")]
    let share = (proposal.hits / proposal.reads.max(1) as f64).abs();
    writeln!(
        formatter,
        "# Proposed by `larder advise` from {} requests in {}.",
        reasons::number(log.requests),
        reasons::duration(log.span().round()),
    )?;
    writeln!(
        formatter,
        "# Expected: {} of {} reads are hits; the origin receives the others.",
        reasons::percent(share),
        reasons::number(proposal.reads),
    )?;
    formatter.write_str(
        "# Append this to a proxy.toml with your `origin`, run `larder check`, and read each reason: a log\n\
         # shows what happened, and not what may happen.\n",
    )
}

fn write_route(formatter: &mut fmt::Formatter<'_>, route: &ProposedRoute) -> fmt::Result {
    formatter.write_char('\n')?;
    for line in &route.about {
        writeln!(formatter, "# {line}")?;
    }
    writeln!(formatter, "[[route]]\nname = \"{}\"", route.name)?;
    writeln!(formatter, "match = \"{}\"", route.pattern())?;
    for setting in &route.settings {
        write_setting(formatter, setting)?;
    }
    let line = |key: &str, tags: &[TagName]| {
        let list = reasons::listed(tags.iter().map(ToString::to_string));
        if key == "tags" {
            format!("tags = {list}")
        } else {
            format!("on_write = {{ purge = {list} }}")
        }
    };
    if !route.tags.is_empty() {
        let reason = "names for purges by calls, webhooks and writes".to_owned();
        write_setting(formatter, &ProposedSetting { line: line("tags", &route.tags), reason })?;
    }
    if !route.purged.is_empty() {
        let reason = "responses with these tags changed after such a write".to_owned();
        write_setting(
            formatter,
            &ProposedSetting { line: line("on_write", &route.purged), reason },
        )?;
    }
    Ok(())
}

/// Formats a line, followed by its reason as a comment.
pub(crate) fn setting_line(line: &str, reason: &str) -> String {
    let width = COLUMN.max(line.len() + 2);
    format!("{line:width$}# {reason}\n")
}

fn write_setting(formatter: &mut fmt::Formatter<'_>, setting: &ProposedSetting) -> fmt::Result {
    formatter.write_str(&setting_line(&setting.line, &setting.reason))
}

fn write_left(formatter: &mut fmt::Formatter<'_>, proposal: &Proposal) -> fmt::Result {
    if proposal.left.is_empty() {
        return Ok(());
    }
    formatter.write_str("\n# Without a route, so the origin's own headers decide:\n")?;
    let mut left: Vec<_> = proposal.left.iter().collect();
    left.sort_by_key(|(_, reads, _)| std::cmp::Reverse(*reads));
    for (template, reads, reason) in left.iter().take(MAX_LEFT) {
        let reads = reasons::number(*reads);
        writeln!(formatter, "#   {template}: {} ({reads} reads)", reasons::left(*reason))?;
    }
    if let Some(more) = left.len().checked_sub(MAX_LEFT).filter(|more| *more > 0) {
        writeln!(formatter, "#   and {more} more")?;
    }
    Ok(())
}

/// Writes what no access log can show, and what this log lacks.
fn write_limits(formatter: &mut fmt::Formatter<'_>, advisor: &Advisor) -> fmt::Result {
    let log = &advisor.log;
    let is_most = |count: u64| count * 2 > log.requests;
    let mut notes = vec![
        "vary: the origin's `Vary` counts anyway. If it omits a header or cookie, add `vary`.",
        "changes from outside: batch jobs and other systems. Add a [[webhook]], [[poll]] or [[schedule]].",
        "equal sizes: a change that keeps the size is not seen. Log the ETag for better lifetimes.",
        "names and tags: rename them as you like. `query.only` is stricter than `ignore`.",
        "client_cache, early_refresh, warming and prefetching: decisions of yours.",
    ];
    if is_most(log.without_query) {
        notes.push("queries: this log omits them, so the expected hits are too many, and lifetimes may be too short.");
    }
    if log.clients.len() < MIN_CLIENTS {
        notes.push("clients: this log does not tell them apart, so responses that differ between users look like changes.");
    }
    if log.unusual_paths > 0 {
        notes
            .push("unusual paths: those with empty segments, or with more than 12, were left out.");
    }
    if log.graphql > 0 {
        notes.push("GraphQL: a log does not show operations. Use `graphql = true` with a lifetime for each operation.");
    }
    if log.failures * 1000 > log.requests {
        notes.push("failures: the origin failed now and then. `stale_if_error = \"10m\"` in [defaults] bridges that.");
    }
    if log.hosts.len() > 1 {
        notes.push(
            "hosts: the log has several, and the routes match all. --host HOST looks at one.",
        );
    }
    formatter.write_str("\n# Not visible in the log:\n")?;
    notes.iter().try_for_each(|note| writeln!(formatter, "#   {note}"))
}
