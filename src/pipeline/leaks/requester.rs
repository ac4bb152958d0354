//! The requester of a request, for the leak detector: a keyed digest of all that may identify the
//! requester, and the requester's names.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    field::{
        cookie,
        identity::{self, IdentityFieldKind},
    },
    leak::RequesterNames,
    pipeline::{
        config_snapshot::ConfigSnapshot,
        credentials::{CredentialPairs, encode_pairs},
    },
    policy::credentials::{CookieKind, HARMLESS_COOKIES},
    route::Route,
};

/// Request fields that select content without identifying the requester. Requests that differ in
/// them are not compared.
const CONTENT_FIELDS: [&str; 12] = [
    "accept",
    "accept-language",
    "accept-version",
    "api-version",
    "origin",
    "prefer",
    "x-api-version",
    "x-currency",
    "x-language",
    "x-locale",
    "x-region",
    "x-timezone",
];

/// The word by which servers recognise mobile browsers.
const MOBILE: &[u8] = b"Mobi";

/// Returns a keyed digest of everything that may identify the requester, and the requester's names.
/// `None` if nothing identifies the requester.
///
/// Includes cookies that the operator lists as harmless, since the list may be wrong.
pub(super) fn requester_of(
    (config, route): (&ConfigSnapshot, &Route),
    headers: &HeaderMap,
) -> Option<([u8; 16], RequesterNames)> {
    let (mut pieces, mut names) = (CredentialPairs::new(), RequesterNames::default());
    for (name, value) in headers {
        if !identifies((config, route), name) {
            continue;
        }
        pieces.push((name.as_str().as_bytes(), value.as_bytes()));
        names.add_credential(value.as_bytes());
        if config.users.uses_field(name)
            && config.users.claim().is_none()
            && let Ok(user) = value.to_str()
        {
            names.add(user);
        }
    }
    for cookie in cookie::cookies(headers).filter(|it| cookie_identifies((config, route), it.name))
    {
        pieces.push((b"cookie", cookie.pair));
        names.add_credential(cookie.pair.get(cookie.name.len() + 1..).unwrap_or_default());
    }
    let digest = || config.digests.key.digest(&encode_pairs(pieces.clone()));
    (!pieces.is_empty()).then(|| (digest(), names))
}

/// Returns whether a field, other than `Cookie`, may identify the requester.
pub(super) fn identifies((config, route): (&ConfigSnapshot, &Route), name: &HeaderName) -> bool {
    if *name == header::COOKIE {
        return false;
    }
    *name == header::AUTHORIZATION
        || config.users.uses_field(name)
        || config.credentials.is_credential(name, &route.vary.headers)
        || match identity::classify(name.as_str()) {
            Some(IdentityFieldKind::Credential) => true,
            Some(IdentityFieldKind::Tenant) => !route.vary.headers.contains(name),
            None => false,
        }
}

fn cookie_identifies((config, route): (&ConfigSnapshot, &Route), name: &[u8]) -> bool {
    match config.credentials.kind_on_route(name, &route.vary.cookies) {
        Some(CookieKind::Session | CookieKind::Token | CookieKind::Unknown) => true,
        Some(CookieKind::Harmless) => !HARMLESS_COOKIES.match_name(name),
        Some(CookieKind::Selecting) | None => false,
    }
}

/// Removes cookies that origins do not use, such as those for analytics and load balancing. The
/// latter would route each requester to a different server.
pub(super) fn remove_harmless_cookies(headers: &mut HeaderMap) {
    let kept: Vec<&[u8]> = cookie::cookies(headers)
        .filter(|cookie| !HARMLESS_COOKIES.match_name(cookie.name))
        .map(|cookie| cookie.pair)
        .collect();
    match HeaderValue::from_bytes(&kept.join(&b"; "[..])) {
        Ok(value) if !kept.is_empty() => drop(headers.insert(header::COOKIE, value)),
        _ => drop(headers.remove(header::COOKIE)),
    }
}

/// Returns whether two requests ask for the same content, so that they differ only in the
/// requester.
pub(super) fn are_alike(
    (config, route): (&ConfigSnapshot, &Route),
    one: &HeaderMap,
    other: &HeaderMap,
) -> bool {
    let is_mobile = |headers: &HeaderMap| {
        headers.get(header::USER_AGENT).is_some_and(|agent| {
            agent.as_bytes().windows(MOBILE.len()).any(|window| window == MOBILE)
        })
    };
    let same = |name: &str| one.get_all(name).iter().eq(other.get_all(name).iter());
    let selecting = |headers| config.credentials.selecting_cookies(headers, &route.vary.cookies);
    is_mobile(one) == is_mobile(other)
        && CONTENT_FIELDS.into_iter().all(same)
        && selecting(one) == selecting(other)
}
