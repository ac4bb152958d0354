//! Segments of paths: which of them are names of the API, and which are values.

/// Maximum length of a name. Longer segments are values.
const MAX_NAME: usize = 32;

/// First segments that say nothing about what is below them.
const GENERIC: [&str; 14] = [
    "ajax", "api", "apis", "app", "backend", "gateway", "internal", "json", "private", "public",
    "rest", "service", "services", "web",
];

/// Collections whose members are people or organizations. Their names are never shown.
const OWNERS: [&str; 26] = [
    "accounts",
    "authors",
    "clients",
    "companies",
    "contacts",
    "customers",
    "employees",
    "groups",
    "members",
    "organisations",
    "organizations",
    "orgs",
    "owners",
    "patients",
    "people",
    "persons",
    "profiles",
    "sellers",
    "shops",
    "stores",
    "students",
    "teams",
    "tenants",
    "usernames",
    "users",
    "workspaces",
];

/// Names that may follow a collection of people or organizations without naming one of its members.
const RESERVED: [&str; 10] =
    ["count", "current", "export", "import", "me", "new", "search", "self", "stats", "suggest"];

/// Returns whether a segment is a value, such as a number, a UUID, a date or a token, or may not be
/// shown.
pub(super) fn is_value(segment: &str) -> bool {
    let count = |test: fn(&u8) -> bool| segment.as_bytes().iter().filter(|it| test(it)).count();
    let digits = count(u8::is_ascii_digit);
    let is_name =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'~' | b'-');
    if segment.is_empty() || is_version(segment) {
        return false;
    }
    if segment.len() > MAX_NAME
        || !segment.bytes().all(is_name)
        || count(u8::is_ascii_alphabetic) == 0
    {
        return true;
    }
    let is_hex = segment.len() >= 8 && segment.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_mixed = count(u8::is_ascii_uppercase) > 0 && count(u8::is_ascii_lowercase) > 0;
    (is_hex && digits > 0)
        || (digits >= 3 && digits * 3 >= segment.len())
        || (segment.len() >= 8 && is_mixed && digits > 0)
        || is_counted(segment, digits)
}

/// Returns whether a segment is a name with a number, such as `order-7` or `p12`.
fn is_counted(segment: &str, digits: usize) -> bool {
    let stem = segment.trim_end_matches(|last: char| last.is_ascii_digit());
    digits > 0
        && segment.len() - stem.len() == digits
        && (stem.len() == 1 || stem.ends_with(['-', '_']))
}

/// Returns whether a segment is a version of an API, such as `v1` or `v2.1`.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|rest| {
        (1..=4).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// Returns whether a segment says nothing about what is below it, such as `api` or `v1`.
pub(super) fn is_generic(segment: &str) -> bool {
    is_version(segment) || GENERIC.contains(&&*segment.to_ascii_lowercase())
}

/// Returns whether the members of a collection are people or organizations.
pub(super) fn has_owners(collection: &str) -> bool {
    OWNERS.contains(&&*collection.to_ascii_lowercase())
}

/// Returns whether a name below a collection of people or organizations does not name a member.
pub(super) fn is_reserved(segment: &str) -> bool {
    RESERVED.contains(&segment)
}

/// Returns the singular of a collection's name: `tile` for `tiles`. `None` if it is not a plural.
pub(super) fn singular(collection: &str) -> Option<String> {
    const NO_PLURALS: [&str; 6] = ["ss", "us", "is", "ics", "news", "series"];
    let stem = |ending: &str| collection.strip_suffix(ending).filter(|stem| stem.len() >= 2);
    if NO_PLURALS.iter().any(|ending| collection.ends_with(ending)) {
        return None;
    }
    if let Some(stem) = stem("yses") {
        return Some(format!("{stem}ysis"));
    }
    if let Some(stem) = stem("ies") {
        return Some(format!("{stem}y"));
    }
    for ending in ["sses", "ches", "shes", "xes"] {
        if let Some(stem) = stem(ending) {
            let kept = ending.strip_suffix("es").unwrap_or_default();
            return Some(format!("{stem}{kept}"));
        }
    }
    stem("s").map(str::to_owned)
}

/// Words in the paths of logins, payments and the like, where a stored response would do harm.
const SENSITIVE: [&str; 24] = [
    "2fa",
    "auth",
    "cart",
    "checkout",
    "csrf",
    "download-url",
    "impersonate",
    "login",
    "logout",
    "mfa",
    "oauth",
    "oauth2",
    "otp",
    "password",
    "payment",
    "payments",
    "session",
    "sessions",
    "signin",
    "signout",
    "signup",
    "token",
    "tokens",
    "verify",
];

/// Returns whether a segment names a login, a payment or the like.
pub(super) fn is_sensitive(segment: &str) -> bool {
    SENSITIVE.contains(&&*segment.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_from_names() {
        for value in [
            "1",
            "2024-02-28",
            "550e8400-e29b-41d4-a716-446655440000",
            "deadbeef1",
            "order-7",
            "p12",
            "INV-00042",
            "dQw4w9WgXcQ",
            "a@example.com",
            "caf%C3%A9",
            "\\x00",
            "abcdefghijabcdefghijabcdefghijabc",
            "\"quoted\"",
            "1,2",
        ] {
            assert!(is_value(value), "{value}");
        }
        for name in [
            "tiles",
            "sales_pulse",
            "v1",
            "v2.1",
            "trade-notes",
            "oauth2",
            "30d",
            "feed.json",
            "",
            "openapi.json",
            "top10",
            "profit-factor",
        ] {
            assert!(!is_value(name), "{name}");
        }
    }

    #[test]
    fn members_are_named_after_their_collection() {
        let names = ["tiles", "categories", "analyses", "boxes", "classes", "stocks"];
        let members = ["tile", "category", "analysis", "box", "class", "stock"];
        assert_eq!(names.map(singular), members.map(|name| Some(name.to_owned())));
        assert_eq!(["kpi", "status", "analytics", "news", "s"].map(singular), [const { None }; 5]);
    }
}
