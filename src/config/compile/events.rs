//! What clients hear of purges, and which.

use super::problems::Problems;
use crate::{
    config::{
        file::{At, EventsTable, Text},
        report::Finding,
    },
    feed::{InvalidPattern, Origins, Settings, TagPattern},
};

/// How many may listen where nothing is said.
const LISTENERS: usize = 5000;

/// The settings of the section; none where there is none.
pub(super) fn compile(
    section: Option<&At<EventsTable>>,
    connections: usize,
    problems: &mut Problems<'_>,
) -> Option<Settings> {
    let section = section?;
    let tags = section.tags.iter().flat_map(|texts| texts.iter());
    let tags: Vec<TagPattern> = tags.filter_map(|text| pattern(text, problems)).collect();
    if section.tags.as_ref().is_none_or(|texts| texts.is_empty()) {
        let message = "`events` has no `tags`: clients hear of purges of everything only";
        let finding = Finding::warning(section.span.clone(), message);
        problems.push(finding.help("name the tags that they may see, as in `tags = [\"tile:*\"]`"));
    }
    let listeners = problems.positive_count(section.listeners.as_ref()).unwrap_or(LISTENERS);
    if let Some(count) = section.listeners.as_ref().filter(|_| listeners >= connections) {
        let message = "`limits.connections` is no more than this: listeners could take them all";
        problems.push(Finding::warning(count.span.clone(), message));
    }
    Some(Settings { origins: origins(section, problems), tags, listeners })
}

fn pattern(text: &Text, problems: &mut Problems<'_>) -> Option<TagPattern> {
    let error = match TagPattern::parse(text) {
        Ok(pattern) => return Some(pattern),
        Err(error) => error,
    };
    let finding = Finding::error(Some(text.span.clone()), error.to_string());
    problems.push(match error {
        InvalidPattern::Placeholder if text.contains("{user}") => finding
            .help("a user's own tags come with users, whom this version of Larder does not know"),
        InvalidPattern::Star => finding.help("as in `tile:*`, for all tags that begin so"),
        _ => finding,
    });
    None
}

fn origins(section: &EventsTable, problems: &mut Problems<'_>) -> Origins {
    let texts = section.allow_origins.iter().flat_map(|texts| texts.iter());
    let mut only = Vec::new();
    let mut any = false;
    for text in texts {
        match Origins::parse(text) {
            _ if text.value == "*" => any = true,
            Ok(origin) => only.push(origin),
            Err(error) => problems.error(&text.span, error.to_string()),
        }
    }
    if any { Origins::Any } else { Origins::Only(only) }
}
