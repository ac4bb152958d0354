//! The explanation as text.

use std::fmt::{self, Display, Formatter};

use super::explanation::{
    ExplainedEncoding, ExplainedKey, ExplainedResponse, ExplainedStored, Explanation,
    HumanDuration, Lifetime, Selectors, UnmatchedRoute,
};

/// Maximum number of non-matching routes that are listed by name.
const NAMED: usize = 4;

impl Display for Explanation {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        writeln!(to, "{} {}", self.request.method, self.request.url)?;
        self.write_route(to)?;
        if !self.removed.is_empty() {
            let rows = self.removed.iter().map(|it| (it.name.as_str(), it.why.to_owned()));
            section(to, "Removed from the request", rows)?;
        }
        self.write_who_asks(to)?;
        if let Some(key) = &self.key {
            section(to, "Key: requests with equal keys share a response", key.rows())?;
        }
        self.write_decisions(to)?;
        section(to, "The origin", self.origin_rows())?;
        if let Some(stored) = &self.stored {
            section(to, "Stored response", stored.rows())?;
        }
        self.write_purge(to)?;
        if let Some(response) = &self.response {
            section(to, "Given response", response.rows())?;
        }
        if !self.invalidates.is_empty() {
            let rows = [("on success, purges", self.invalidates.join(", "))];
            section(to, "Write", rows)?;
        }
        if let Some(selectors) = &self.selectors {
            section(to, "Selectors that purge the response", selectors.rows())?;
        }
        let reason = self.answer.reason.map(|reason| format!(", detail={reason}"));
        let result = format!("{}{}", self.answer.result, reason.unwrap_or_default());
        section(to, "The client gets", [("X-API-Cache", result), ("", self.answer.means.clone())])
    }
}

impl Explanation {
    fn write_route(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let route = &self.route;
        let pattern = route.pattern.as_deref().unwrap_or("(no route matches)");
        let mut rows = vec![(route.name.as_str(), pattern.to_owned())];
        let near = route.before.iter().filter(|route| route.differs != "path");
        let far = route.before.iter().filter(|route| route.differs == "path");
        let (named, others): (Vec<_>, Vec<_>) =
            near.chain(far).enumerate().partition(|(place, _)| *place < NAMED);
        rows.extend(named.into_iter().map(|(_, route)| (route.name.as_str(), not_matching(route))));
        if !others.is_empty() {
            rows.push(("…", format!("and {} more before it do not match", others.len())));
        }
        for reading in &route.readings {
            let agreement =
                if reading.route == route.name { "the same route" } else { "another route" };
            rows.push((reading.form, format!("{}  {} ({agreement})", reading.path, reading.route)));
        }
        if route.readings.is_empty() {
            rows.push(("path", "all servers read it alike".to_owned()));
        }
        section(to, "Route: the first match", rows)
    }

    fn write_who_asks(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let named = self.credentials.iter().map(|found| {
            (found.name.as_str(), format!("{} {}: {}", found.kind, found.place, found.why))
        });
        let mut rows: Vec<_> = named.collect();
        if rows.is_empty() {
            rows.push(("credentials", "none".to_owned()));
        }
        let partition = &self.partition;
        rows.push(("partition", format!("{}: {}", partition.kind, partition.means)));
        if let Some(identity) = &partition.identity {
            rows.push(("identity", identity.made_of.clone()));
            if !identity.issuer.is_empty() {
                rows.push(("issuer", identity.issuer.clone()));
            }
        }
        section(to, "Identity (values are not shown)", rows)
    }

    fn write_decisions(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let rows = self.decisions.iter().map(|decision| {
            let reason = decision.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            (decision.question, format!("{}{reason}", decision.answer))
        });
        section(to, "Decisions", rows)?;
        let outcome = &self.outcome;
        writeln!(to, "  → {}: {}", outcome.outcome, outcome.means)?;
        write_advice(to, outcome.advice)
    }

    fn origin_rows(&self) -> Vec<(&'static str, String)> {
        let origin = &self.origin;
        let mut rows = vec![("request", origin.asked.clone())];
        if !origin.added.is_empty() {
            rows.push(("headers added", origin.added.join("\n")));
        }
        if !origin.left_out.is_empty() {
            rows.push(("headers removed", origin.left_out.join(", ")));
        }
        rows
    }

    fn write_purge(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let Some(purge) = &self.purged else { return Ok(()) };
        let (mode, source) = (purge.mode, purge.source);
        let after = if purge.is_before { "; the stored response was fetched after it" } else { "" };
        let text = format!("{} by {source}, {mode}, record {}{after}", purge.at, purge.seq);
        section(to, "Last purge", [("at", text)])
    }
}

fn not_matching(route: &UnmatchedRoute) -> String {
    format!("{}  does not match: another {}", route.pattern, route.differs)
}

impl ExplainedKey {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("method", self.method.clone()),
            ("scheme", self.scheme.to_owned()),
            ("host", self.host.clone()),
            ("path", self.path.clone()),
            ("query", self.query.clone().unwrap_or_else(|| "none".to_owned())),
        ];
        let further = [
            ("host at the origin", self.origin_host.clone()),
            ("ignored parameters", listed(&self.left_out)),
            ("body", self.content.clone()),
            ("set by a proxy", listed(&self.forwarded)),
            ("cookies", listed(&self.cookies)),
            ("vary", listed(&self.vary)),
            ("partition", self.partition.clone()),
            ("in memory only", self.only_here.map(str::to_owned)),
            ("id", Some(self.id.clone())),
        ];
        rows.extend(further.into_iter().filter_map(|(label, text)| Some((label, text?))));
        rows
    }
}

impl ExplainedStored {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let freshness = match (self.fresh_for, self.stale_for) {
            (Some(left), _) => format!("fresh for {left}"),
            (None, Some(since)) => format!("stale for {since}"),
            (None, None) => String::new(),
        };
        let stale = self.made_stale_by.map(|by| format!(", made stale by {by}"));
        let mut rows = vec![
            ("status", format!("{}, {} bytes, in {}", self.status, self.bytes, self.tier)),
            ("age", format!("{}, {freshness}{}", self.age, stale.unwrap_or_default())),
            ("fetched after", format!("record {} of the purge log", self.fetched_after)),
        ];
        let variants = self.variants.map(|count| count.to_string());
        let encoding = self.encoding.map(ExplainedEncoding::text);
        let further =
            [("encoding", encoding), ("tags", listed(&self.tags)), ("variants", variants)];
        rows.extend(further.into_iter().filter_map(|(label, text)| Some((label, text?))));
        rows
    }
}

impl ExplainedEncoding {
    fn text(self) -> String {
        format!("{}: {}", self.coding.unwrap_or("none"), self.means)
    }
}

impl ExplainedResponse {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let reason = self.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let stored =
            if self.stored { "yes".to_owned() } else { format!("no{reason}: {}", self.means) };
        let mut rows = vec![("status", self.status.to_string()), ("stored", stored)];
        rows.extend(self.advice.map(|advice| ("to change that", advice.to_owned())));
        rows.extend(self.lifetime.rows());
        let further = [
            ("headers not stored", listed(&self.not_kept)),
            ("varies by", listed(&self.varies_by)),
            ("tags", listed(&self.tags)),
            ("Cache-Control", self.cache_control.clone()),
            ("encoding", self.encoding.map(ExplainedEncoding::text)),
        ];
        rows.extend(further.into_iter().filter_map(|(label, text)| Some((label, text?))));
        rows
    }
}

impl Lifetime {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let by_origin = match self.by_origin {
            Some((time, directive)) => format!("{time} ({directive})"),
            None => "nothing".to_owned(),
        };
        let by_ttl = self.by_ttl.map_or_else(|| "nothing".to_owned(), |time| time.to_string());
        let basis = match self.basis {
            "origin" => "the origin decides",
            "ttl" => "the route's `ttl` decides",
            "heuristic" => "a tenth of the time since `Last-Modified`",
            _ => "no lifetime given",
        };
        let mut rows = vec![
            ("set by the origin", by_origin),
            ("set by the `ttl`", format!("{by_ttl}, with ttl_from = \"{}\"", self.ttl_from)),
        ];
        if self.age != HumanDuration(std::time::Duration::ZERO) {
            rows.push(("age", format!("{} on arrival", self.age)));
        }
        rows.push(("fresh for", format!("{}: {basis}", self.fresh_for)));
        if self.validated {
            rows.push(("before each use", "revalidated with the origin".to_owned()));
        }
        let windows = [
            ("then, during refresh", self.stale_while_revalidate),
            ("then, on errors", self.stale_if_error),
            ("then, if unreachable", self.stale_if_disconnected),
        ];
        for (label, window) in windows {
            if window != HumanDuration(std::time::Duration::ZERO) {
                rows.push((label, format!("served stale for {window}")));
            }
        }
        rows
    }
}

impl Selectors {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![("--url", self.url.clone())];
        let further =
            [("--tag", listed(&self.tags)), ("--tag of its JSON", listed(&self.body_tags))];
        rows.extend(further.into_iter().filter_map(|(label, text)| Some((label, text?))));
        rows.push(("--route", self.route.clone()));
        rows.push(("--store-version", self.version.clone()));
        if self.by_user {
            rows.push(("--user", "the user of the response".to_owned()));
        }
        rows
    }
}

fn listed(words: &[String]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(", "))
}

/// Writes a title, and rows of labels and texts in two columns.
fn section<'a>(
    to: &mut Formatter<'_>,
    title: &str,
    rows: impl IntoIterator<Item = (&'a str, String)>,
) -> fmt::Result {
    let rows: Vec<(&str, String)> = rows.into_iter().collect();
    let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or_default();
    writeln!(to, "\n{title}")?;
    for (label, text) in rows {
        for (place, line) in text.lines().enumerate() {
            let label = if place == 0 { label } else { "" };
            writeln!(to, "  {label:width$}  {}", printable(line))?;
        }
    }
    Ok(())
}

/// Replaces control characters, which terminals would interpret.
fn printable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
}

fn write_advice(to: &mut Formatter<'_>, advice: Option<&'static str>) -> fmt::Result {
    match advice {
        Some(advice) => writeln!(to, "  To change that: {advice}."),
        None => Ok(()),
    }
}
