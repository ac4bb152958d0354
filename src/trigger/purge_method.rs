//! The `PURGE` method on the public listener, compatible with nginx, Varnish and Fastly. Pure.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use ipnet::IpNet;

use super::{
    access::{Authorization, RequiredPermission, Tokens},
    client,
    selector::{self, UrlNormalizer},
};
use crate::{
    fence::{Purge, PurgeMode, PurgeSource, Selector},
    key::uri::TargetUri,
    policy::tag,
    problem::Problem,
};

pub(crate) const PURGE: &str = "PURGE";

/// The request field with tags for a hard purge.
const XKEY_PURGE: HeaderName = HeaderName::from_static("xkey-purge");

/// The request field with tags for a soft purge.
const XKEY_SOFT: HeaderName = HeaderName::from_static("xkey-softpurge");

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");

const FASTLY_SOFT: HeaderName = HeaderName::from_static("fastly-soft-purge");

/// The clients that may send `PURGE`.
#[derive(Clone, Default)]
pub(crate) struct PurgeAccess {
    /// The tokens of the admin listener.
    pub tokens: Tokens,
    /// The networks from which clients need no token.
    pub networks: Vec<IpNet>,
    /// Proxies whose `X-Forwarded-For` and `Forwarded` are trusted.
    pub trusted_proxies: Vec<IpNet>,
}

impl PurgeAccess {
    /// Returns whether any client may purge. If `false`, `PURGE` requests are passed to the origin.
    pub(crate) fn is_enabled(&self) -> bool {
        !self.networks.is_empty() || self.tokens.any_grants(RequiredPermission::Purge)
    }

    /// Checks whether a request from this peer may purge. If not, returns the response to send as
    /// the error.
    pub(crate) fn authorize(
        &self,
        peer: Option<IpAddr>,
        headers: &HeaderMap,
    ) -> Result<(), Box<Response<Bytes>>> {
        let client = client::address(peer, headers, &self.trusted_proxies);
        if client
            .is_some_and(|client| self.networks.iter().any(|network| network.contains(&client)))
        {
            return Ok(());
        }
        match self.tokens.authorize(RequiredPermission::Purge, headers) {
            Authorization::Granted => Ok(()),
            Authorization::Unauthenticated => {
                Err(Box::new(with_bearer_challenge(token_required().into_response())))
            }
            Authorization::Forbidden | Authorization::Unconfigured => {
                let detail = "Neither this address (`admin.purge_from`) nor this token may purge. \
                              Behind a proxy, the address is the client that a trusted proxy names in `X-Forwarded-For`.";
                let problem = Problem::new(StatusCode::FORBIDDEN, "Not allowed to purge", detail);
                Err(Box::new(problem.into_response()))
            }
        }
    }
}

/// The problem document for a missing or invalid token, for use with [`with_bearer_challenge`].
pub(crate) fn token_required() -> Problem {
    let detail = "Send `Authorization: Bearer` with an admin token that has this permission.";
    Problem::new(StatusCode::UNAUTHORIZED, "Token required", detail)
}

/// Adds a `WWW-Authenticate` field that requests a bearer token (RFC 9110 §11.6.1).
pub(crate) fn with_bearer_challenge(mut response: Response<Bytes>) -> Response<Bytes> {
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Returns true if `Fastly-Soft-Purge` requests a soft purge.
pub(crate) fn is_fastly_soft_purge(headers: &HeaderMap) -> bool {
    headers.get(&FASTLY_SOFT).is_some_and(|value| value == "1")
}

/// Returns the tags in `Surrogate-Key`, separated by spaces or commas.
pub(crate) fn surrogate_keys(headers: &HeaderMap) -> Vec<String> {
    let mut keys = Vec::new();
    tag::read_spaced(headers, &SURROGATE_KEY, &mut keys);
    keys
}

/// Converts a `PURGE` request to a purge of the tags in its fields, or else of its URL.
pub(crate) fn plan(
    target: &TargetUri<'_>,
    headers: &HeaderMap,
    normalize: &UrlNormalizer,
) -> Result<Purge, Box<Problem>> {
    let is_soft = headers.contains_key(&XKEY_SOFT) || is_fastly_soft_purge(headers);
    let mode = if is_soft { PurgeMode::Soft } else { PurgeMode::Hard };
    let selectors = if has_tag_fields(headers) { tags(headers)? } else { normalize(target) };
    Ok(Purge { mode, selectors, source: PurgeSource::Method, reason: None, warm: false })
}

fn has_tag_fields(headers: &HeaderMap) -> bool {
    tag::has_any(headers) || [XKEY_PURGE, XKEY_SOFT].iter().any(|name| headers.contains_key(name))
}

fn tags(headers: &HeaderMap) -> Result<Vec<Selector>, Box<Problem>> {
    let mut tags = tag::read(headers);
    tag::read_spaced(headers, &XKEY_PURGE, &mut tags);
    tag::read_spaced(headers, &XKEY_SOFT, &mut tags);
    let fail = |detail: String| Box::new(Problem::new(StatusCode::BAD_REQUEST, "No purge", detail));
    if tags.is_empty() {
        return Err(fail("The field for tags contains no tag.".to_owned()));
    }
    let selector = |tag: &String| selector::tag(tag);
    tags.iter()
        .map(selector)
        .collect::<Result<_, _>>()
        .map_err(|error| fail(format!("Invalid tag: {error}.")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::uri::Scheme, trigger::access::Token};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn planned(
        lines: &[(&'static str, &'static str)],
    ) -> Result<(PurgeMode, Vec<Selector>), String> {
        let target = TargetUri { scheme: Scheme::Http, host: "h", path: "/a", query: Some("b") };
        let normal = |target: &TargetUri<'_>| {
            vec![Selector::Url(format!("{}{}", target.host, target.path).into())]
        };
        let purge = plan(&target, &headers(lines), &normal).map_err(|problem| problem.detail)?;
        assert_eq!((purge.source, purge.reason), (PurgeSource::Method, None));
        Ok((purge.mode, purge.selectors))
    }

    fn tags(tags: &[&str]) -> Vec<Selector> {
        tags.iter().map(|tag| Selector::Tag((*tag).into())).collect()
    }

    #[test]
    fn the_target_is_purged_or_the_tags_that_are_named() {
        let url = vec![Selector::Url("h/a".into())];
        assert_eq!(planned(&[]), Ok((PurgeMode::Hard, url.clone())));
        assert_eq!(planned(&[("fastly-soft-purge", "1")]), Ok((PurgeMode::Soft, url.clone())));
        assert_eq!(planned(&[("fastly-soft-purge", "0")]), Ok((PurgeMode::Hard, url)));
        let both = [("surrogate-key", "a b"), ("xkey", "c")];
        assert_eq!(planned(&both), Ok((PurgeMode::Hard, tags(&["a", "b", "c"]))));
        assert_eq!(planned(&[("xkey-purge", "a, b")]), Ok((PurgeMode::Hard, tags(&["a", "b"]))));
        assert_eq!(planned(&[("xkey-softpurge", "a")]), Ok((PurgeMode::Soft, tags(&["a"]))));
    }

    #[test]
    fn a_field_for_tags_without_a_tag_purges_nothing_else() {
        for field in [("xkey", " , "), ("xkey-softpurge", ""), ("cache-groups", "a")] {
            assert!(planned(&[field]).is_err(), "{field:?}");
        }
    }

    #[test]
    fn addresses_and_tokens_may_purge() {
        let purge_access = PurgeAccess {
            tokens: Tokens::new(vec![
                Token::full_access("secret"),
                Token::new("reader", vec![RequiredPermission::Read]),
            ]),
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            trusted_proxies: Vec::new(),
        };
        let status = |peer: &str, lines: &[(&'static str, &'static str)]| {
            let refused = purge_access.authorize(peer.parse().ok(), &headers(lines)).err();
            refused.map_or(200, |response| response.status().as_u16())
        };
        assert_eq!(status("10.1.2.3", &[]), 200);
        assert_eq!(status("::ffff:10.1.2.3", &[]), 200);
        assert_eq!(status("1.2.3.4", &[("authorization", "Bearer secret")]), 200);
        assert_eq!(status("", &[("authorization", "Bearer secret")]), 200, "a Unix socket");
        assert_eq!(status("1.2.3.4", &[]), 401);
        assert_eq!(status("", &[]), 401);
        assert_eq!(status("1.2.3.4", &[("authorization", "Bearer x")]), 401);
        assert_eq!(status("1.2.3.4", &[("authorization", "Bearer reader")]), 403);
        assert_eq!(status("10.1.2.3", &[("x-forwarded-for", "10.1.2.4")]), 401);
        let by_address = PurgeAccess { tokens: Tokens::default(), ..purge_access };
        let refused = by_address.authorize("1.2.3.4".parse().ok(), &HeaderMap::new()).unwrap_err();
        assert_eq!(refused.status(), 403);
        assert!(by_address.is_enabled() && !PurgeAccess::default().is_enabled());
    }
}
