//! Explains the cache key and the request to the origin.

use http::{HeaderMap, HeaderName, Method, header};

use super::{
    explanation::{ExplainedKey, ExplainedOrigin},
    request::{PlannedRequest, shown_key_query, shown_query},
};
use crate::{
    field::forwarding::ForwardingKind,
    forward::{self, RequestSource, request_id},
    key::{
        CacheKey, OriginTarget, StoragePlacement, digest, is_selected_by_cookies, vary::VarySet,
    },
    pipeline::selecting_fields::selecting_values,
    route::Route,
};

/// Returns the names of a query's parameters as sent.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split('=').next().unwrap_or_default())
}

impl PlannedRequest<'_> {
    pub(super) fn key(&self, selecting: &VarySet) -> Option<ExplainedKey> {
        let key = &self.lookup()?.target;
        let target = key.origin_target()?;
        let route = self.matched_route();
        let origin_host = (target.host != target.requested_host).then(|| match &*target.host {
            "" => "set by each origin".to_owned(),
            host => host.to_owned(),
        });
        let (vary, partition) = (&route.vary, &route.rule.partition);
        let headers = selecting.iter().map(ToString::to_string);
        let cookies = vary.cookies.iter().map(|name| format!("cookie {name}"));
        Some(ExplainedKey {
            method: target.method.to_string(),
            scheme: target.scheme.as_str(),
            host: target.requested_host.to_string(),
            origin_host,
            path: target.path.to_string(),
            query: target.query.as_deref().map(shown_key_query),
            left_out: self.left_out(route),
            content: self.content(),
            forwarded: target.forwarded_fields.iter().map(|(name, _)| name.to_string()).collect(),
            cookies: self.selecting_cookies(key, route),
            vary: headers.chain(cookies).collect(),
            partition: partition.needs_identity().then(|| partition.to_string()),
            only_here: (target.storage_placement == StoragePlacement::Node).then_some(
                if route.rule.sensitive {
                    "the route is `sensitive`"
                } else {
                    "other nodes cannot compute this key without `user.digest_key`"
                },
            ),
            id: self.key_id(key, selecting),
        })
    }

    /// Describes the body in the key, without its bytes. `None` if the body is not part of the key.
    fn content(&self) -> Option<String> {
        let content = self.lookup()?.content.as_deref()?;
        let (form, bytes) = (content.form.describe(), content.bytes.len());
        Some(format!("{form}, {bytes} bytes"))
    }

    /// Returns a text that is equal for two requests if and only if they share responses.
    fn key_id(&self, key: &CacheKey, selecting: &VarySet) -> String {
        let vary = &self.matched_route().vary;
        if selecting.is_empty() && vary.cookies.is_empty() {
            return digest::hex(key.digest().to_be_bytes());
        }
        let values = selecting_values(selecting, vary, self.request.headers());
        digest::hex(key.variant(&values).digest().to_be_bytes())
    }

    fn left_out(&self, route: &Route) -> Vec<String> {
        let query = self.query().unwrap_or_default();
        let kept = route.query.kept(query).unwrap_or_default();
        let kept: Vec<&str> = names(&kept).collect();
        let mut left_out: Vec<String> = Vec::new();
        for name in names(query).filter(|name| !kept.contains(name)) {
            if !left_out.iter().any(|known| known == name) {
                left_out.push(name.to_owned());
            }
        }
        left_out
    }

    fn selecting_cookies(&self, key: &CacheKey, route: &Route) -> Vec<String> {
        if !is_selected_by_cookies(key.text()) {
            return Vec::new();
        }
        let pairs =
            self.config.credentials.selecting_cookies(self.request.headers(), &route.vary.cookies);
        let name = |pair: &&[u8]| {
            let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        };
        pairs.iter().map(name).collect()
    }

    pub(super) fn origin(&self) -> ExplainedOrigin {
        let headers = self.request.headers();
        let (method, uri) = (self.request.method(), self.request.uri());
        let lookup = self.lookup().filter(|_| !self.is_shadow());
        let key = lookup.map(|lookup| &lookup.target);
        let as_sent = || self.ingress().into_target(self.config, method, uri);
        let target = key.and_then(CacheKey::origin_target).unwrap_or_else(as_sent);
        let source = RequestSource {
            peer: self.connection.peer.map(|peer| peer.ip()),
            version: self.request.version(),
            is_trusted: self.config.trusts(self.connection),
            is_gateway: self.config.is_gateway(self.connection),
            request_id: request_id::from_headers(headers),
            cache: None,
        };
        let identity = &self.config.identity;
        let sent = forward::request::fields(headers, &target, &source, identity, |_| false);
        let sent = sent.to_map();
        ExplainedOrigin {
            asked: self.asked(method, &target),
            added: self.added(&sent),
            left_out: headers
                .keys()
                .filter(|name| !sent.contains_key(*name))
                .map(ToString::to_string)
                .collect(),
        }
    }

    fn asked(&self, method: &Method, target: &OriginTarget<'_>) -> String {
        let query =
            target.query_to_send().map(|query| format!("?{}", shown_query(self.config, query)));
        let (path, query) = (&target.path, query.unwrap_or_default());
        let host = if target.host.is_empty() { "its own host" } else { &*target.host };
        format!("{method} {path}{query} at {host}")
    }

    /// Returns the header fields that Larder adds or changes.
    fn added(&self, sent: &HeaderMap) -> Vec<String> {
        let headers = self.request.headers();
        let is_new = |name: &&HeaderName| {
            **name != header::HOST && !headers.get_all(*name).iter().eq(sent.get_all(*name).iter())
        };
        let line = |name: &HeaderName| {
            let is_ours = !self.config.trusts(self.connection)
                && ForwardingKind::of(name.as_str())
                    .is_some_and(|kind| kind != ForwardingKind::Identity);
            let values = sent.get_all(name).iter().filter_map(|value| value.to_str().ok());
            let values: Vec<&str> = values.filter(|_| is_ours).collect();
            if is_ours { format!("{name}: {}", values.join(", ")) } else { name.to_string() }
        };
        let mut names: Vec<&HeaderName> = sent.keys().filter(is_new).collect();
        names.sort_by_key(|name| name.as_str());
        names.into_iter().map(line).collect()
    }
}
