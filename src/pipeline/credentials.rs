//! What a request says about who asks: found once, when it is received.

use std::{borrow::Cow, cell::RefCell};

use http::{HeaderMap, HeaderValue, header};

use super::site::{Site, SiteId};
use crate::{
    field::presence::Presence,
    key::{
        CacheKey, DigestKey, digest,
        target::{Forwarding, QueryRule, purge_url},
    },
    policy::{CredentialRules, Credentials, Reason, credentials::CookieFindings},
    route::Route,
};

/// What a request says about who asks, and whether cookies choose what it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// What it carries.
    pub credentials: Credentials,
    is_selecting: bool,
}

impl Identity {
    /// Looks through the query and the fields of a request. Refuses one whose cookies servers may read
    /// differently: the cache has no business with it.
    pub fn of(
        site: &Site,
        route: &Route,
        (query, headers): (Option<&str>, &HeaderMap),
        presence: Presence,
    ) -> Result<Self, Reason> {
        let in_fields = site.credentials.in_fields(headers, presence, &route.vary.headers);
        let credentials = in_query(&site.credentials, &route.query, query).with(in_fields);
        if !presence.has(Presence::COOKIE) {
            return Ok(Self { credentials, is_selecting: false });
        }
        let findings = read_cookies(site, route, headers);
        let by_ttl = route.rule.has_ttl();
        if findings.are_ambiguous(by_ttl) {
            return Err(Reason::AmbiguousCookie);
        }
        let credentials = credentials.with(findings.credentials());
        Ok(Self { credentials, is_selecting: by_ttl && findings.are_selecting() })
    }

    /// The key of the request, whose target has this one: the cookies that choose what is shown are part of
    /// it where a `ttl` may make the answer fresh.
    pub fn key(
        self,
        site: &Site,
        route: &Route,
        headers: &HeaderMap,
        target: CacheKey,
    ) -> CacheKey {
        if !self.is_selecting {
            return target;
        }
        target
            .selected_by(|out| site.credentials.write_selecting(headers, &route.vary.cookies, out))
    }
}

/// What a query carries. A credential that reaches the origin and is not in the key separates nothing by
/// itself: it counts as one in a field.
fn in_query(rules: &CredentialRules, rule: &QueryRule, query: Option<&str>) -> Credentials {
    let found = rules.in_query(query);
    if !found.has(Credentials::PARAMETER) || rule.forwarding == Forwarding::Kept {
        return found;
    }
    let count = |query: &str| rules.credential_parameters(query).count();
    let kept = query.and_then(|query| rule.kept(query));
    let are_keyed = kept.as_deref().map(count) == query.map(count);
    if are_keyed { found } else { found.with(Credentials::FIELD) }
}

/// The query with a digest in place of each credential; `None` if it has none. Without a key there is no
/// digest either: that is the form of all of them.
pub fn masked(query: &str, rules: &CredentialRules, key: Option<&DigestKey>) -> Option<String> {
    let mut secrets = rules.credential_parameters(query).peekable();
    secrets.peek()?;
    let mut masked = String::with_capacity(query.len() + 32);
    for (place, pair) in query.split('&').enumerate() {
        if place > 0 {
            masked.push('&');
        }
        let Some(secret) = secrets.next_if(|secret| secret.place == place) else {
            masked.push_str(pair);
            continue;
        };
        masked.push_str(secret.name);
        masked.push('=');
        masked.push(purge_url::MASK);
        if let Some(key) = key {
            masked.push_str(&digest::hex(key.digest(pair.as_bytes())));
        }
    }
    Some(masked)
}

/// The query of a target in the form by which purges select it: as far as its route keeps it, and without
/// credentials.
pub fn purge_query<'a>(site: &Site, route: &Route, query: Option<&'a str>) -> Option<Cow<'a, str>> {
    let kept = route.query.kept(query?)?;
    Some(masked(&kept, &site.credentials, None).map_or(kept, Cow::Owned))
}

/// The rules by which cookies choose among the responses of a route, if they do.
pub fn selecting_rules<'a>(site: &'a Site, route: &Route) -> Option<&'a CredentialRules> {
    route.rule.has_ttl().then_some(&site.credentials)
}

/// `Cookie` values that each thread remembers, and how long each may be: at most 2 MiB.
const SLOTS: usize = 1024;
const LONGEST: usize = 2048;

/// What the cookies of a value came to under a configuration.
struct Remembered {
    site: SiteId,
    value: Box<[u8]>,
    findings: CookieFindings,
}

thread_local! {
    static LATELY: RefCell<Vec<Option<Remembered>>> =
        RefCell::new((0..SLOTS).map(|_| None).collect());
}

/// Reads the cookies of a request. Clients send the same ones over and over: what a value came to is
/// remembered, which leaves a comparison of bytes.
fn read_cookies(site: &Site, route: &Route, headers: &HeaderMap) -> CookieFindings {
    let settled = &route.vary.cookies;
    let mut lines = headers.get_all(header::COOKIE).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) if settled.is_empty() && line.len() <= LONGEST => {
            remembered(site, line, || site.credentials.in_cookies(headers, settled))
        }
        (_, None) => site.credentials.in_cookies(headers, settled),
        // HTTP/1.1 knows one line only: servers take the first, the last, or join them somehow.
        (_, Some(_)) => CookieFindings::AMBIGUOUS,
    }
}

fn remembered(
    site: &Site,
    line: &HeaderValue,
    read: impl FnOnce() -> CookieFindings,
) -> CookieFindings {
    let value = line.as_bytes();
    LATELY.with_borrow_mut(|slots| {
        let Some(slot) = slots.get_mut(slot_of(value)) else { return read() };
        if let Some(known) = slot
            && known.site == site.id
            && *known.value == *value
        {
            return known.findings;
        }
        let findings = read();
        *slot = Some(Remembered { site: site.id, value: value.into(), findings });
        findings
    })
}

/// Values of different clients mostly differ in their length or in one of these bytes.
fn slot_of(value: &[u8]) -> usize {
    let step = (value.len() / 8).max(1);
    let sample = value.iter().rev().step_by(step);
    sample.fold(value.len(), |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte)))
        % SLOTS
}
