//! Compilation of `[events]`: event streams of purges for clients.

use super::problems::Problems;
use crate::{
    config::{
        file::{ConfigFile, EventsTable, Text, UserTable},
        report::Finding,
    },
    feed::{CorsOrigins, InvalidTagPattern, Settings, TagPattern},
};

/// Default of `events.listeners`.
const DEFAULT_LISTENERS: usize = 5000;

/// Default of `events.per_client`.
const DEFAULT_PER_CLIENT: usize = 100;

/// Compiles `[events]`; `None` if the section is absent.
pub(super) fn compile(
    file: &ConfigFile,
    connections: usize,
    problems: &mut Problems<'_>,
) -> Option<Settings> {
    let section = file.events.as_ref()?;
    let tags = section.tags.iter().flat_map(|texts| texts.iter());
    let tags: Vec<TagPattern> =
        tags.filter_map(|text| pattern(text, &file.user, problems)).collect();
    warn_about_covered(section, &tags, problems);
    if section.tags.as_ref().is_none_or(|texts| texts.is_empty()) {
        let message = "`events` has no `tags`: clients only receive purges of everything";
        let finding = Finding::warning(section.span.clone(), message);
        problems
            .push(finding.help("list the tags that clients may see, as in `tags = [\"tile:*\"]`"));
    }
    let listeners =
        problems.positive_count(section.listeners.as_ref()).unwrap_or(DEFAULT_LISTENERS);
    if let Some(count) = section.listeners.as_ref().filter(|_| listeners >= connections) {
        let message =
            "`limits.connections` is not above this: event listeners could occupy all connections";
        problems.push(Finding::warning(count.span.clone(), message));
    }
    let per_client =
        problems.positive_count(section.per_client.as_ref()).unwrap_or(DEFAULT_PER_CLIENT);
    let origins = origins(section, &tags, problems);
    Some(Settings { origins, tags, listeners, per_client })
}

fn pattern(text: &Text, users: &UserTable, problems: &mut Problems<'_>) -> Option<TagPattern> {
    let error = match TagPattern::parse(text) {
        Ok(pattern) if pattern.is_of_user() => {
            check_users(text, users, problems);
            return Some(pattern);
        }
        Ok(pattern) => return Some(pattern),
        Err(error) => error,
    };
    let finding = Finding::error(Some(text.span.clone()), error.to_string());
    problems.push(match error {
        InvalidTagPattern::Star => finding.help("use `tile:*` for all tags with this prefix"),
        _ => finding,
    });
    None
}

/// Checks that `{user}` in a tag stands for one user. The tag does not contain the issuer, so all
/// users must have the same issuer.
fn check_users(text: &Text, users: &UserTable, problems: &mut Problems<'_>) {
    let (message, help) = match (&users.jwt, &users.header) {
        (None, None) => (
            "`{user}` is not available: `[user]` configures no authentication",
            "configure `jwt`, or `header` of a trusted gateway, in `[user]`",
        ),
        (Some(jwt), _) if jwt.iss.as_ref().is_none_or(|issuers| issuers.len() != 1) => (
            "`{user}` needs one issuer: users of two issuers may have the same name",
            "set the issuer, as in `user.jwt.iss = \"https://issuer.example\"`",
        ),
        _ => return,
    };
    problems.push(Finding::error(Some(text.span.clone()), message).help(help));
}

/// Warns if tags for single users are also visible to everyone.
fn warn_about_covered(section: &EventsTable, tags: &[TagPattern], problems: &mut Problems<'_>) {
    let own = tags.iter().filter_map(|tag| match tag {
        TagPattern::User(before, _) => Some(before),
        _ => None,
    });
    let own: Vec<_> = own.collect();
    for text in section.tags.iter().flat_map(|texts| texts.iter()) {
        if let Ok(TagPattern::Prefix(prefix)) = TagPattern::parse(text)
            && own.iter().any(|before| before.starts_with(&*prefix))
        {
            let message =
                "this pattern shows everyone the tags that `{user}` restricts to one user";
            problems.push(Finding::warning(text.span.clone(), message));
        }
    }
}

fn origins(section: &EventsTable, tags: &[TagPattern], problems: &mut Problems<'_>) -> CorsOrigins {
    let texts = section.allow_origins.iter().flat_map(|texts| texts.iter());
    let mut only = Vec::new();
    let mut any = false;
    for text in texts {
        match CorsOrigins::parse(text) {
            _ if text.value == "*" => {
                any = true;
                if tags.iter().any(TagPattern::is_of_user) {
                    let message = "tags with `{user}` require a list of allowed origins";
                    let finding = Finding::error(Some(text.span.clone()), message);
                    problems
                        .push(finding.help("list the origins, as in `https://app.example.com`"));
                }
            }
            Ok(origin) => only.push(origin),
            Err(error) => problems.error(&text.span, error.to_string()),
        }
    }
    if any { CorsOrigins::Any } else { CorsOrigins::Only(only) }
}
