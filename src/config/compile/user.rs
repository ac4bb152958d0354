//! Compilation of `[user]`: credentials and their use in keys.

use http::HeaderName;

use super::{identity, problems::Problems};
use crate::{
    config::{
        file::{Located, RouteSection, Text, Texts, UserTable},
        report::Finding,
        secret::Secret,
        settings::UserConfig,
    },
    field::identity::{IdentityFieldKind, classify},
    key::digest::MIN_DIGEST_KEY_LENGTH,
    policy::{
        CredentialRules,
        credentials::{CookieKind, InvalidNamePattern, NameList},
    },
    route::UserPlaceholder,
    user::IdentitySource,
};

/// Compiles `[user]`.
pub(super) fn compile(table: &UserTable, problems: &mut Problems<'_>) -> UserConfig {
    warn_about_fields(table.harmless_fields.as_ref(), problems);
    let identity_source = identity::identity_source(table, problems);
    let mut names = |texts: Option<&Texts>| name_list(texts, &[], problems);
    let credentials = CredentialRules {
        harmless_fields: names(table.harmless_fields.as_ref()),
        harmless_parameters: names(table.harmless_parameters.as_ref()),
        session_cookies: names(table.session_cookies.as_ref()),
        harmless_cookies: names(table.harmless_cookies.as_ref()),
        selecting_cookies: names(table.selecting_cookies.as_ref()),
        token_cookie: match &identity_source {
            IdentitySource::Token(rules) => rules.location.cookie().map(Into::into),
            IdentitySource::None | IdentitySource::Gateway(_) => None,
        },
        fields: name_list(table.credentials.as_ref(), &fields_of(&identity_source), problems),
    };
    UserConfig {
        credentials,
        digest_key: digest_key(table.digest_key.as_ref(), problems),
        identity_source,
        recheck: problems.positive_duration(table.recheck.as_ref()),
    }
}

/// Returns whether `{user}` is defined in the templates of this configuration.
pub(super) fn names(table: &UserTable) -> UserPlaceholder {
    match (&table.jwt, &table.header) {
        (None, None) => UserPlaceholder::Undefined,
        _ => UserPlaceholder::Defined,
    }
}

/// Returns the identity's fields whose names do not already mark them as credentials.
fn fields_of(identity_source: &IdentitySource) -> Vec<String> {
    let fields = identity_source.fields().map(HeaderName::as_str);
    let is_known = |name: &&str| {
        *name == "authorization" || classify(name) == Some(IdentityFieldKind::Credential)
    };
    fields.filter(|name| !is_known(name)).map(str::to_owned).collect()
}

fn name_list(texts: Option<&Texts>, own: &[String], problems: &mut Problems<'_>) -> NameList {
    let read = |text: &str| match NameList::check(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(InvalidNamePattern) => Err("expected a name, or a pattern with `*` such as `shop_*`"),
    };
    problems.each(texts, read).into_iter().chain(own.iter().cloned()).collect()
}

fn digest_key(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<Secret> {
    let text = text?;
    if text.len() < MIN_DIGEST_KEY_LENGTH {
        let message = format!("expected a key of at least {MIN_DIGEST_KEY_LENGTH} bytes");
        let help = "use a random one, such as the output of `openssl rand -base64 32`";
        problems.push(Finding::error(Some(text.span.clone()), message).help(help));
        return None;
    }
    Some(Secret::new(text.as_str()))
}

/// Warns about credentials and session cookies in `vary`.
pub(super) fn warn_about_vary(
    sections: &[Located<RouteSection>],
    rules: &CredentialRules,
    problems: &mut Problems<'_>,
) {
    let tables = sections.iter().filter_map(|section| section.vary.as_ref());
    for table in tables {
        for text in table.headers.iter().flat_map(|texts| texts.iter()) {
            let name = text.to_ascii_lowercase();
            let is_credential = name == "authorization"
                || rules.field_kind(&name) == Some(IdentityFieldKind::Credential);
            if is_credential {
                let message =
                    format!("`{name}` in `vary` has no effect on sharing: it is a credential");
                problems.push(Finding::warning(text.span.clone(), message).help(VARY_HEADERS));
            }
        }
        for text in table.cookies.iter().flat_map(|texts| texts.iter()) {
            if rules.cookie_kind(text.as_bytes()) == CookieKind::Session {
                let message = format!("`{}` is a known session cookie", text.as_str());
                problems.push(Finding::warning(text.span.clone(), message).help(VARY_COOKIES));
            }
        }
    }
}

const VARY_HEADERS: &str = "responses are shared only if the origin says `public` or `s-maxage`, despite `ttl`; \
                            if it is not a credential, list it in `user.harmless_fields`";

const VARY_COOKIES: &str = "each session gets separate responses until their `ttl` ends, even after a logout; \
                            if that is not intended, remove it from `vary`";

/// Warns about `Authorization` and `Cookie` in the list of harmless fields.
fn warn_about_fields(texts: Option<&Texts>, problems: &mut Problems<'_>) {
    let list = |text: &Text| NameList::from_iter([text.as_str()]);
    for text in texts.iter().flat_map(|texts| texts.iter()) {
        if let Some(name) =
            ["authorization", "cookie"].iter().find(|name| list(text).has(name.as_bytes()))
        {
            let (effect, help) = match *name {
                "cookie" => {
                    ("each cookie is judged by its name", "list the cookies in `harmless_cookies`")
                }
                _ => (
                    "it always counts as a credential",
                    "its responses are shared only if the origin says `public`, `s-maxage` or `must-revalidate`",
                ),
            };
            let message = format!("`{name}` in `harmless_fields` has no effect: {effect}");
            problems.push(Finding::warning(text.span.clone(), message).help(help));
        }
    }
}
