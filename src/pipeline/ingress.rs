//! Ingress: how a request reached this node, and the resulting target.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, request::Parts};

use super::{config_snapshot::ConfigSnapshot, credentials::mask_credentials};
use crate::{
    field::forwarding::ForwardingKind,
    forward::forwarded_fields,
    key::{
        OriginTarget, ResponseInspection, StoragePlacement,
        uri::{QueryForwarding, QueryRule, Scheme, host},
    },
    policy::{Credentials, RequestHead},
    server::Connection,
};

/// How a request reached this node: scheme, host, and the forwarding fields of a trusted proxy.
pub(super) struct Ingress<'a> {
    scheme: Scheme,
    /// The requested host in canonical form.
    pub host: Cow<'a, str>,
    /// Forwarding fields from a trusted proxy that describe the target.
    forwarded: Vec<(HeaderName, HeaderValue)>,
}

impl<'a> Ingress<'a> {
    /// Returns the ingress of a request with these fields on this connection.
    pub(super) fn of(
        config: &ConfigSnapshot,
        headers: &'a HeaderMap,
        connection: &'a Connection,
    ) -> Self {
        let forwarded =
            if config.trusts(connection) { forwarded_fields::of(headers) } else { Vec::new() };
        let scheme = if connection.secure { Scheme::Https } else { Scheme::Http };
        let host = match (headers.get(header::HOST), forwarded_fields::scheme(&forwarded)) {
            (None, _) => Cow::Borrowed(""),
            (Some(_), Some(forwarded_scheme)) if forwarded_scheme != scheme => {
                host::canonical(requested_host(headers), forwarded_scheme)
            }
            (Some(given), _) => {
                connection.canonical_host(given, |given| host::canonical(given, scheme))
            }
        };
        Self { scheme, host, forwarded }
    }

    /// Returns the same ingress without the borrow of the request.
    pub(super) fn into_owned(self) -> Ingress<'static> {
        Ingress {
            scheme: self.scheme,
            host: Cow::Owned(self.host.into_owned()),
            forwarded: self.forwarded,
        }
    }

    /// Returns the target as received, for a request that bypasses the cache.
    pub(super) fn into_target(
        self,
        config: &'a ConfigSnapshot,
        method: &'a Method,
        uri: &'a Uri,
    ) -> OriginTarget<'a> {
        OriginTarget {
            method,
            scheme: self.scheme,
            host: config.host.of(&self.host).to_owned().into(),
            requested_host: self.host,
            path: uri.path().into(),
            query: uri.query().map(Cow::Borrowed),
            sent_query: None,
            storage_placement: StoragePlacement::Fleet,
            forwarded_fields: self.forwarded,
            partition: Cow::Borrowed(&[]),
            content: None,
            inspection: ResponseInspection::Plain,
        }
    }

    /// Returns the target for a `GET` that the cache may answer.
    pub(super) fn target<'b>(
        &'b self,
        config: &'b ConfigSnapshot,
        (path, query): (&'b str, Option<&'b str>),
        (rule, credentials): (&QueryRule, Credentials),
    ) -> OriginTarget<'b> {
        let kept = query.and_then(|query| rule.kept(query));
        let mut target = OriginTarget {
            method: &Method::GET,
            scheme: self.scheme,
            requested_host: Cow::Borrowed(&self.host),
            host: config.host.of(&self.host).into(),
            path: path.into(),
            query: kept,
            sent_query: query
                .filter(|_| rule.forwarding == QueryForwarding::All)
                .and_then(|query| rule.values.canonical(Cow::Borrowed(query))),
            storage_placement: StoragePlacement::Fleet,
            forwarded_fields: self.forwarded.clone(),
            partition: Cow::Borrowed(&[]),
            content: None,
            inspection: ResponseInspection::Plain,
        };
        if credentials.has(Credentials::PARAMETER) {
            mask_query(config, &mut target);
        }
        target
    }
}

/// Replaces credentials in the query of a key with digests. If only this process can compute the
/// digests, responses under the key stay in this node's memory.
fn mask_query(config: &ConfigSnapshot, target: &mut OriginTarget<'_>) {
    let Some(query) = target.query.take() else { return };
    match mask_credentials(&query, &config.credentials, Some(&config.digests.key)) {
        None => target.query = Some(query),
        Some(masked) => {
            target.sent_query = target.sent_query.take().or(Some(query));
            (target.query, target.storage_placement) =
                (Some(masked.into()), config.digests.storage_placement);
        }
    }
}

/// The connection on which a request arrived.
#[derive(Clone, Copy)]
pub(super) struct IngressPeer {
    /// The peer's address.
    pub peer: Option<SocketAddr>,
    /// Whether the connection is encrypted.
    pub secure: bool,
}

impl IngressPeer {
    /// Returns the peer of a connection.
    pub(super) fn of(connection: &Connection) -> Self {
        Self { peer: connection.peer, secure: connection.secure }
    }

    /// Returns the peer's IP address.
    pub(super) fn address(self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip().to_canonical())
    }
}

/// Returns whether a forwarding field describes the client's target, which is part of the key.
/// Fields from untrusted peers are already removed.
pub(super) fn is_target_field(name: &HeaderName) -> bool {
    ForwardingKind::of(name.as_str()) == Some(ForwardingKind::Target)
}

/// Returns the host of a request whose target is in origin form; empty if there is no `Host`.
pub(super) fn requested_host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Returns the head of a request in the form that the functions of `policy` take.
pub(super) fn request_head(request: &Parts, credentials: Credentials) -> RequestHead<'_> {
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = requested_host(&request.headers);
    let (method, headers) = (&request.method, &request.headers);
    RequestHead { method, authority, target, headers, credentials }
}
