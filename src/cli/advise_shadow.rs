//! `larder advise --shadow`: which routes in shadow mode can go live, from the figures of a node.

use std::{fmt::Write as _, io::Read as _, path::Path};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::{
    advise::{duration, number, percent, setting_line},
    config::{CliOverrides, Config},
};

/// Maximum size of a report in bytes.
const MAX_REPORT: u64 = 64 << 20;

/// Minimum number of comparisons, all without a difference, before `shadow = false` is proposed.
const MIN_COMPARED: u64 = 100;

/// The parts of the report of `larder shadow --json` and `GET /v1/shadow` that are used here.
#[derive(Debug, Deserialize)]
struct ShadowReport {
    routes: Vec<ShadowedRoute>,
}

#[derive(Debug, Deserialize)]
struct ShadowedRoute {
    route: String,
    mode: String,
    since: Option<String>,
    #[serde(default)]
    requests: u64,
    hit_ratio: Option<f64>,
    #[serde(default)]
    compared: u64,
    #[serde(default)]
    wrong: u64,
    #[serde(default)]
    ages: Vec<ComparedAge>,
    #[serde(default)]
    advice: Vec<String>,
}

/// Numbers of comparisons and differences, for stored responses up to `until` seconds old.
#[derive(Debug, Deserialize)]
struct ComparedAge {
    until: Option<f64>,
    compared: u64,
    wrong: u64,
}

/// Returns the proposal for the routes of a report. `config` is the file that contains them.
///
/// # Errors
/// Fails if the report cannot be read or has an unexpected form, or if the file does not load.
pub(super) fn proposal(report: &Path, config: Option<&Path>) -> anyhow::Result<String> {
    let text = read(report)?;
    let report: ShadowReport = serde_json::from_str(&text)
        .context("the report is not that of `larder shadow --json` or of `GET /v1/shadow`")?;
    let config = match config {
        Some(file) => Some(Config::load(file, &CliOverrides::default())?),
        None => None,
    };
    let shadowed: Vec<&ShadowedRoute> =
        report.routes.iter().filter(|route| route.mode == "shadow").collect();
    if shadowed.is_empty() {
        bail!("no route is in shadow mode; set `shadow = true` on the routes to try");
    }
    let mut text = String::from(
        "# Proposed by `larder advise` from the figures of shadow mode. Change these routes in proxy.toml.\n",
    );
    for route in shadowed {
        route.write(config.as_ref(), &mut text)?;
    }
    Ok(text)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_REPORT).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path);
        file.and_then(|file| file.take(MAX_REPORT).read_to_string(&mut text))
    };
    read.with_context(|| path.display().to_string())?;
    Ok(text)
}

impl ShadowedRoute {
    fn write(&self, config: Option<&Config>, text: &mut String) -> std::fmt::Result {
        let since = self.since.as_deref().map(|at| format!(" since {}", printable(at)));
        writeln!(
            text,
            "\n# {} requests in shadow mode{}. Expected: {} hits.",
            number(self.requests),
            since.unwrap_or_default(),
            percent(self.hit_ratio.unwrap_or_default()),
        )?;
        writeln!(text, "# {}", self.staleness())?;
        writeln!(text, "[[route]]\nname = {}", quoted(&self.route))?;
        let known = config.and_then(|config| {
            let mut routes = config.routes.routes().iter();
            routes.find(|route| *route.name == *self.route)
        });
        if let Some(pattern) = known.and_then(|route| route.pattern.as_ref()) {
            writeln!(text, "match = {}", quoted(&pattern.to_string()))?;
        }
        let (line, reason) = self.verdict();
        text.push_str(&setting_line(line, &printable(&reason)));
        Ok(())
    }

    /// Returns the line that sets `shadow`, and the reason.
    fn verdict(&self) -> (&'static str, String) {
        if self.wrong > 0 {
            let advice = self.advice.join("; ");
            return ("shadow = true", format!("not yet: {advice}"));
        }
        if self.compared < MIN_COMPARED {
            let compared = number(self.compared);
            let reason = format!("not yet: only {compared} stored responses could be compared");
            return ("shadow = true", reason);
        }
        let compared = number(self.compared);
        ("shadow = false", format!("go live: all {compared} compared responses were right"))
    }

    /// Describes how many stored responses differed, by their age.
    fn staleness(&self) -> String {
        let compared = number(self.compared);
        if self.wrong == 0 {
            return format!("None of {compared} compared responses differed from the origin's.");
        }
        let groups = self.ages.iter().filter(|group| group.wrong > 0).map(|group| {
            let age = group.until.map_or_else(
                || "of older ones".to_owned(),
                |seconds| format!("up to {} old", duration(seconds)),
            );
            format!("{} of {} {age}", number(group.wrong), number(group.compared))
        });
        let groups: Vec<String> = groups.collect();
        let wrong = number(self.wrong);
        format!("{wrong} of {compared} compared responses differed: {}.", groups.join(", "))
    }
}

/// Formats a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Returns a text without control characters, so that it does not end the comment that contains it.
fn printable(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}
