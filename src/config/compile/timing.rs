//! Schedules and polls.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use jiff::tz::TimeZone;
use serde_json_path::JsonPath;

use super::problems::Problems;
use crate::{
    config::{
        file::{At, PollSection, ScheduleSection, Text, Texts},
        report::Finding,
        suggest::{did_you_mean, listed, nearest},
    },
    trigger::{
        Poll, Schedule,
        poll::{Source, VersionFrom},
        schedule::{self, Calendar, CronError, CronProblem},
    },
    warm::WarmTarget,
};

/// The time between two polls where none is given.
const EVERY: Duration = Duration::from_secs(30);

/// The least and the most time between two polls.
const EVERY_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));

/// The schedules, without those that have problems.
pub(super) fn schedules(
    sections: &[At<ScheduleSection>],
    problems: &mut Problems<'_>,
) -> Vec<Schedule> {
    sections.iter().filter_map(|section| schedule(section, problems)).collect()
}

/// The polls, without those that have problems.
pub(super) fn polls(sections: &[At<PollSection>], problems: &mut Problems<'_>) -> Vec<Poll> {
    check_names(sections, problems);
    sections.iter().filter_map(|section| poll(section, problems)).collect()
}

fn schedule(section: &At<ScheduleSection>, problems: &mut Problems<'_>) -> Option<Schedule> {
    let zone = zone(section.timezone.as_ref(), problems);
    let is_there = problems.required(section.cron.as_ref(), &section.span, "schedule", "cron");
    let calendar = is_there.and(section.cron.as_ref()).and_then(|text| {
        let calendar = Calendar::parse(text, zone.clone().unwrap_or(TimeZone::UTC));
        calendar.map_err(|error| problems.push(cron_finding(text, &error, problems))).ok()
    });
    let purge = tags(section.purge.as_ref(), problems);
    let warm = targets(section.warm.as_ref(), problems);
    let is_idle = [&section.purge, &section.warm]
        .into_iter()
        .all(|texts| texts.as_ref().is_none_or(|texts| texts.is_empty()));
    if is_idle {
        let message = "`schedule` has neither `purge` nor `warm`: there is nothing to do";
        let finding = Finding::error(Some(section.span.clone()), message).doubtful();
        problems.push(finding.help("write `purge = [\"tag\"]`, or `warm = [\"/path\"]`"));
        return None;
    }
    zone?;
    Some(Schedule { calendar: calendar?, purge, warm })
}

fn cron_finding(text: &Text, error: &CronError, problems: &Problems<'_>) -> Finding {
    let finding = Finding::error(Some(problems.part(text, &error.at)), error.to_string());
    match error.problem {
        CronProblem::Count(_) => finding.help(
            "minute, hour, day of the month, month, day of the week, as in `0 6 * * MON-FRI`",
        ),
        CronProblem::Nickname => {
            let meant = did_you_mean(nearest(text, schedule::NICKNAMES));
            let known = || format!("known nicknames: {}", listed(schedule::NICKNAMES));
            finding.help(meant.unwrap_or_else(known))
        }
        CronProblem::Field(_) | CronProblem::Never => finding,
    }
}

fn zone(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<TimeZone> {
    let Some(text) = text else {
        return schedule::time_zone(schedule::DEFAULT_ZONE).or(Some(TimeZone::UTC));
    };
    let zone = schedule::time_zone(text);
    if zone.is_none() {
        let names = schedule::time_zones();
        let meant = did_you_mean(nearest(text, names.iter().map(String::as_str)));
        let help =
            meant.unwrap_or_else(|| "as in `Europe/Madrid`, `America/New_York`, `UTC`".into());
        let finding = Finding::error(Some(text.span.clone()), "there is no such time zone");
        problems.push(finding.help(help));
    }
    zone
}

fn tags(texts: Option<&Texts>, problems: &mut Problems<'_>) -> Box<[Box<str>]> {
    let tag = |text: &str| match text {
        "" => Err("a tag is empty"),
        _ if text.contains(char::is_control) => Err("a tag has no control characters"),
        _ if text.contains(['{', '}']) => {
            Err("this is a plain tag: there is no request that could fill in a placeholder")
        }
        _ => Ok(text.into()),
    };
    problems.each(texts, tag).into()
}

fn targets(texts: Option<&Texts>, problems: &mut Problems<'_>) -> Box<[WarmTarget]> {
    let mut targets = Vec::new();
    for text in texts.iter().flat_map(|texts| texts.iter()) {
        match WarmTarget::parse(text) {
            Ok(target) => targets.push(target),
            Err(error) => problems.error(&text.span, error.to_string()),
        }
    }
    targets.into()
}

fn poll(section: &At<PollSection>, problems: &mut Problems<'_>) -> Option<Poll> {
    let name = poll_name(section, problems);
    let source = problems
        .required(section.url.as_ref(), &section.span, "poll", "url")
        .and(section.url.as_ref())
        .and_then(|text| problems.read(text, |text| Source::parse(text).map_err(|_| URL)));
    let version = version(section.version.as_ref(), problems);
    let every = every(section.every.as_ref(), problems);
    let purge = tags(section.purge.as_ref(), problems);
    if section.purge.as_ref().is_none_or(|texts| texts.is_empty()) {
        let message = "`poll` has no `purge`: what depends on this version";
        problems.push(Finding::error(Some(section.span.clone()), message).doubtful());
        return None;
    }
    let alert_after = alert_after(section.alert_after.as_ref(), every, problems);
    Some(Poll { name: name?, source: source?, every, version: version?, purge, alert_after })
}

const URL: &str = "this is an `http` or `https` URL, as in `https://data.internal/version`";

fn poll_name(section: &At<PollSection>, problems: &mut Problems<'_>) -> Option<Box<str>> {
    let name = problems.required(section.name.as_ref(), &section.span, "poll", "name")?;
    if name.contains(|character: char| character.is_whitespace() || character.is_control()) {
        let text = section.name.as_ref()?;
        problems.error(&text.span, "a poll's name is one word: it labels logs and metrics");
        return None;
    }
    Some(name.into())
}

fn version(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<VersionFrom> {
    let Some(text) = text else {
        return Some(VersionFrom::Validator);
    };
    match JsonPath::parse(text) {
        Ok(path) => Some(VersionFrom::Payload(path)),
        Err(error) => {
            let start = error.position().min(text.len());
            let at = problems.part(text, &(start..text.len()));
            let finding = Finding::error(Some(at), "this is no JSON path from here on");
            problems.push(finding.help("as in `$.version` or `$[0].createdTime` (RFC 9535)"));
            None
        }
    }
}

fn every(text: Option<&Text>, problems: &mut Problems<'_>) -> Duration {
    let Some((text, every)) = text.zip(problems.duration(text)) else {
        return EVERY;
    };
    if every < EVERY_LIMITS.0 || every > EVERY_LIMITS.1 {
        problems.error(&text.span, "this is between `1s` and `1d`");
        return EVERY;
    }
    every
}

fn alert_after(
    text: Option<&Text>,
    every: Duration,
    problems: &mut Problems<'_>,
) -> Option<Duration> {
    let alert_after = problems.positive_duration(text)?;
    if let Some(text) = text.filter(|_| alert_after <= every) {
        let message = "`alert_after` is no more than `every`: the alert would never rest";
        problems.push(Finding::warning(text.span.clone(), message));
    }
    Some(alert_after)
}

fn check_names(sections: &[At<PollSection>], problems: &mut Problems<'_>) {
    let mut seen: BTreeMap<&str, &Range<usize>> = BTreeMap::new();
    for name in sections.iter().filter_map(|section| section.name.as_ref()) {
        if let Some(first) = seen.get(name.as_str()) {
            let finding = Finding::error(Some(name.span.clone()), "two polls have this name");
            problems.push(finding.context((*first).clone(), "the other one"));
        } else {
            seen.insert(name, &name.span);
        }
    }
}
