//! Recent targets: the requests that warm-up repeats after a purge.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts};
use parking_lot::Mutex;

use super::{
    config_snapshot::ConfigSnapshot,
    content::RequestContent,
    credentials::selecting_rules,
    ingress::{self, IngressPeer, is_target_field},
    recent_clients::is_sent_again,
    selecting_fields,
};
use crate::{
    entry::StoredResponse,
    fence::{OwnedResponseAttributes, Purge, PurgeCandidate},
    field::cookie,
    key::{CacheKey, describes_content, vary::VarySet},
    policy::{CredentialRules, Credentials},
    warm::{ClientProfile, WarmClients, WarmRequest},
};

/// Maximum number of targets remembered.
const CAPACITY: usize = 1000;

/// Maximum number of variants of a target that are warmed if the warm-up request names no client.
const VARIANTS: usize = 16;

/// Maximum size of one request's fields, and of its URL and tags together, in bytes.
const MAX_BYTES: usize = 4096;

/// The requests whose responses were stored, with recently used ones first.
///
/// A request is recorded when its response is fetched. A hit only marks the stored response, once.
/// Unmarked requests are evicted first (the clock algorithm), so that targets requested once do not
/// displace those in use.
#[derive(Default)]
pub(super) struct RecentTargets(Mutex<ClockRing>);

#[derive(Default)]
struct ClockRing {
    targets: Vec<RecentTarget>,
    by_key: HashMap<u128, usize>,
    hand: usize,
}

/// One target, or one variant of it.
struct RecentTarget {
    key: u128,
    request: WarmRequest,
    url: Box<[u8]>,
    tags: Box<[Box<str>]>,
    attributes: OwnedResponseAttributes,
    /// The stored response. Only the store keeps it in memory.
    response: Weak<StoredResponse>,
    is_recently_used: bool,
}

/// A request that may be repeated.
pub(super) struct RepeatableRequest<'a> {
    pub request: &'a Parts,
    /// How the request reached this node.
    pub ingress_peer: IngressPeer,
    pub credentials: Credentials,
    /// The content that the origin receives, if it is part of the key.
    pub content: Option<&'a Arc<RequestContent>>,
    pub config: &'a ConfigSnapshot,
    pub route: usize,
}

/// The cookies that select among the responses of a route.
struct SelectingCookies<'a> {
    /// The cookies that the route names.
    named: &'a [Box<str>],
    /// The rules that find further selecting cookies; `None` if the route uses no such rules.
    rules: Option<&'a CredentialRules>,
}

impl SelectingCookies<'_> {
    /// Returns the selecting cookies of a request, as sent.
    fn of<'a>(&self, headers: &'a HeaderMap) -> Vec<&'a [u8]> {
        let named = self.named.iter().filter_map(|name| cookie::find(headers, name));
        let others = self.rules.map(|rules| rules.selecting_cookies(headers, self.named));
        named.chain(others.into_iter().flatten()).collect()
    }
}

impl RecentTargets {
    /// Records a request whose response is stored under this key. Ignores personal and sensitive
    /// requests.
    pub(super) fn note(
        &self,
        repeatable: &RepeatableRequest<'_>,
        (key, response): (&CacheKey, &Arc<StoredResponse>),
    ) {
        let RepeatableRequest { credentials, config, .. } = *repeatable;
        let route = config.route(repeatable.route);
        let is_own = credentials.are_personal() || route.rule.partition.needs_identity();
        if is_own || route.rule.sensitive {
            return;
        }
        let set = selecting_fields::selecting_set(config, route, &response.fields().unpack(0));
        let cookies =
            SelectingCookies { named: &route.vary.cookies, rules: selecting_rules(config, route) };
        let asked = (repeatable.request, repeatable.content.map(|content| &**content));
        if let Some(request) = repeated_request(asked, repeatable.ingress_peer, &set, &cookies) {
            self.insert(key.digest(), request, response);
        }
    }

    /// Records a request and the response to it, under the digest of its key.
    fn insert(&self, key: u128, request: WarmRequest, response: &Arc<StoredResponse>) {
        if response.url().len() + response.tags().map(str::len).sum::<usize>() > MAX_BYTES {
            return;
        }
        let recent = RecentTarget {
            key,
            request,
            url: response.url().into(),
            tags: response.tags().map(Into::into).collect(),
            attributes: OwnedResponseAttributes::from(response.attributes()),
            response: Arc::downgrade(response),
            is_recently_used: false,
        };
        self.0.lock().note(recent);
    }

    /// Returns the recent clients of a target on this host, one for each variant. Recently used
    /// variants come first.
    pub(super) fn clients_of(&self, host: &str, target: &str) -> Vec<ClientProfile> {
        let mut ring = self.0.lock();
        let targets = ring.targets.iter_mut().filter_map(|recent| {
            let client = recent.client_of(host, target)?;
            Some((!recent.is_recently_used(), client))
        });
        let mut clients: Vec<_> = targets.collect();
        clients.sort_by_key(|(is_cold, _)| *is_cold);
        clients.into_iter().take(VARIANTS).map(|(_, client)| client).collect()
    }

    /// Returns the requests whose responses a purge selects. Recently used ones come first.
    pub(super) fn selected_by(&self, purge: &Purge) -> Vec<WarmRequest> {
        let mut ring = self.0.lock();
        let selected = ring.targets.iter_mut().filter(|recent| recent.is_selected_by(purge));
        let mut selected: Vec<_> =
            selected.map(|recent| (!recent.is_recently_used(), recent.request.clone())).collect();
        selected.sort_by_key(|(is_cold, _)| *is_cold);
        selected.into_iter().map(|(_, request)| request).collect()
    }
}

impl ClockRing {
    fn note(&mut self, mut recent: RecentTarget) {
        let key = recent.key;
        if let Some(known) = self.by_key.get(&key).and_then(|index| self.targets.get_mut(*index)) {
            recent.is_recently_used = known.is_recently_used();
            *known = recent;
        } else if self.targets.len() < CAPACITY {
            self.by_key.insert(key, self.targets.len());
            self.targets.push(recent);
        } else {
            let index = self.evict();
            if let Some(old) = self.targets.get_mut(index) {
                self.by_key.remove(&old.key);
                *old = recent;
                self.by_key.insert(key, index);
            }
        }
    }

    /// Returns the next unmarked slot. Clears the marks that it passes, so the search terminates.
    fn evict(&mut self) -> usize {
        for _ in 0..2 * CAPACITY {
            self.hand = (self.hand + 1) % CAPACITY;
            if self.targets.get_mut(self.hand).is_some_and(|recent| !recent.take_recently_used()) {
                break;
            }
        }
        self.hand
    }
}

impl RecentTarget {
    fn is_selected_by(&self, purge: &Purge) -> bool {
        let tags = self.tags.iter().map(|tag| &**tag);
        let candidate =
            PurgeCandidate { url: &self.url, tags, attributes: self.attributes.as_attributes() };
        purge.selectors.iter().any(|selector| selector.selects(&candidate))
    }

    fn client_of(&self, host: &str, target: &str) -> Option<ClientProfile> {
        match &self.request.client {
            WarmClients::One(client)
                if *self.request.target == *target && self.request.content.is_none() =>
            {
                client.host.eq_ignore_ascii_case(host).then(|| client.clone())
            }
            _ => None,
        }
    }

    fn is_recently_used(&self) -> bool {
        self.is_recently_used
            || self.response.upgrade().is_some_and(|response| response.is_recently_used())
    }

    fn take_recently_used(&mut self) -> bool {
        let was_marked =
            self.response.upgrade().is_some_and(|response| response.take_recently_used());
        std::mem::take(&mut self.is_recently_used) || was_marked
    }
}

/// Returns a request that fetches the same response again. `None` if the response is personal, or
/// if the method is not `GET` and the key has no content.
///
/// The request has the fields that describe the target and the content, those by which the response
/// varies, and those that are always repeated.
fn repeated_request(
    (request, content): (&Parts, Option<&RequestContent>),
    IngressPeer { peer, secure }: IngressPeer,
    set: &VarySet,
    cookies: &SelectingCookies<'_>,
) -> Option<WarmRequest> {
    // If the route names cookies, only those cookies are repeated.
    let is_personal = |name: &HeaderName| {
        (*name == header::COOKIE && cookies.named.is_empty()) || *name == header::AUTHORIZATION
    };
    let is_read = request.method == Method::GET || content.is_some();
    if !is_read || set.iter().any(is_personal) {
        return None;
    }

    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let is_selecting = *name != header::COOKIE && set.contains(name);
        let is_kept =
            is_target_field(name) || is_selecting || (content.is_some() && describes_content(name));
        if is_kept || is_sent_again(name) {
            headers.append(name.clone(), value.clone());
        }
    }
    let cookies = cookies.of(&request.headers).join(&b"; "[..]);
    if !cookies.is_empty() {
        headers.insert(header::COOKIE, HeaderValue::from_bytes(&cookies).ok()?);
    }
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let target = request.uri.path_and_query()?.as_str();
    let content = content.map(RequestContent::to_warm);
    let length = content.as_ref().map_or(0, |content| content.bytes.len());
    if size + target.len() + length > MAX_BYTES {
        return None;
    }
    let host = ingress::requested_host(&request.headers);
    let client = ClientProfile::new((peer, secure), host, headers);
    let client = WarmClients::One(client);
    Some(WarmRequest { client, target: target.into(), content, report: None })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{Request, StatusCode};

    use super::*;
    use crate::{
        entry::{CompleteBody, ResponseDraft},
        fence::{FenceStamp, PurgeMode, PurgeSource, Selector},
        field::Timestamp,
        key::{OriginTarget, uri::Scheme},
        policy::{Freshness, freshness::Constraints},
    };

    fn response(path: &str, tag: &str) -> Arc<StoredResponse> {
        let draft = ResponseDraft {
            key: key(path),
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            freshness: Freshness {
                received_at: Timestamp::from_seconds(1),
                initial_age: Duration::ZERO,
                lifetime: Duration::from_mins(1),
                stale_while_revalidate: None,
                stale_if_error: None,
                usable_for: None,
                constraints: Constraints::default(),
            },
            tags: vec![tag.to_owned()],
            attributes: OwnedResponseAttributes::default(),
            stamp: FenceStamp::default(),
            requested_at: Timestamp::from_seconds(1),
        };
        Arc::new(draft.complete(&CompleteBody::for_test([])).unwrap())
    }

    fn key(path: &str) -> CacheKey {
        OriginTarget::plain(Scheme::Http, "h", path).key()
    }

    fn request_head(path: &str, fields: &[(&str, &str)]) -> Parts {
        let request = Request::get(path).header("host", "h");
        let request =
            fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    fn repeated(request: &Parts, names: &[&str], cookies: &[&str]) -> Option<WarmRequest> {
        let set = names.iter().map(|name| HeaderName::try_from(*name).unwrap()).collect();
        let cookies_named: Vec<Box<str>> = cookies.iter().map(|name| (*name).into()).collect();
        let rules = CredentialRules::default();
        let cookies = SelectingCookies { named: &cookies_named, rules: Some(&rules) };
        let peer = IngressPeer { peer: None, secure: true };
        repeated_request((request, None), peer, &set, &cookies)
    }

    fn note(recent_targets: &RecentTargets, path: &str, tag: &str) -> Arc<StoredResponse> {
        let response = response(path, tag);
        let request = repeated(&request_head(path, &[]), &[], &[]).unwrap();
        recent_targets.insert(key(path).digest(), request, &response);
        response
    }

    fn selected(recent_targets: &RecentTargets, tag: &str) -> Vec<String> {
        let (mode, source) = (PurgeMode::Hard, PurgeSource::Api);
        let selectors = vec![Selector::Tag(tag.into())];
        let purge = Purge { mode, selectors, source, reason: None, warm: true };
        recent_targets
            .selected_by(&purge)
            .iter()
            .map(|request| request.target.to_string())
            .collect()
    }

    #[test]
    fn what_a_purge_selects_is_asked_for_again_and_what_was_hit_first() {
        let recent_targets = RecentTargets::default();
        let responses = ["/a", "/b", "/c"].map(|path| note(&recent_targets, path, "t"));
        note(&recent_targets, "/d", "other");
        responses[1].mark_used();
        assert_eq!(selected(&recent_targets, "t"), ["/b", "/a", "/c"]);
        let _renewed = note(&recent_targets, "/b", "t");
        assert_eq!(selected(&recent_targets, "t"), ["/b", "/a", "/c"], "it was hit before");
        assert_eq!(selected(&recent_targets, "other"), ["/d"], "its response is no longer stored");
    }

    #[test]
    fn what_is_in_use_is_not_washed_out() {
        let recent_targets = RecentTargets::default();
        let used = note(&recent_targets, "/used", "t");
        for number in 0..3 * CAPACITY {
            used.mark_used();
            note(&recent_targets, &format!("/{number}"), "once");
        }
        assert_eq!(selected(&recent_targets, "t"), ["/used"]);
        assert_eq!(selected(&recent_targets, "once").len(), CAPACITY - 1);
        for number in 0..3 * CAPACITY {
            note(&recent_targets, &format!("/{number}"), "once");
        }
        assert!(selected(&recent_targets, "t").is_empty(), "nobody asks for it any more");
    }

    #[test]
    fn only_what_selects_the_response_is_sent_again() {
        let fields = [
            ("accept-language", "de"),
            ("user-agent", "me"),
            ("cookie", "theme=dark; flavour=x; _ga=1; zone=y"),
            ("x-forwarded-proto", "https"),
        ];
        let request =
            repeated(&request_head("/a?b", &fields), &["accept-language"], &["zone"]).unwrap();
        let (client, target) = (one(&request), &*request.target);
        assert_eq!((&*client.host, target), ("h", "/a?b"));
        assert!(client.connection.secure);
        assert_eq!(client.headers.len(), 3);
        assert_eq!(client.headers["cookie"], "zone=y; theme=dark");
        assert_eq!(client.headers["accept-language"], "de");
        assert_eq!(client.headers["x-forwarded-proto"], "https");
    }

    fn one(request: &WarmRequest) -> &ClientProfile {
        match &request.client {
            WarmClients::One(client) => client,
            WarmClients::Recent { .. } => panic!("{request:?}"),
        }
    }

    #[test]
    fn what_may_select_the_next_response_is_sent_again() {
        let fields = [("origin", "https://app.test"), ("accept-encoding", "br"), ("accept", "*/*")];
        let request = repeated(&request_head("/a", &fields), &[], &[]).unwrap();
        assert_eq!(one(&request).headers.len(), 2, "{:?}", one(&request).headers);
    }

    #[test]
    fn the_clients_of_a_target_are_one_for_each_variant() {
        let recent_targets = RecentTargets::default();
        let stored = ["de", "fr"].map(|language| {
            let response = response("/a", "t");
            let fields = [("accept-language", language)];
            let request =
                repeated(&request_head("/a", &fields), &["accept-language"], &[]).unwrap();
            recent_targets.insert(key(&format!("/a{language}")).digest(), request, &response);
            response
        });
        stored[1].mark_used();
        let clients = recent_targets.clients_of("H", "/a");
        let languages: Vec<_> =
            clients.iter().map(|it| it.headers["accept-language"].to_str().unwrap()).collect();
        assert_eq!(languages, ["fr", "de"]);
        assert!(recent_targets.clients_of("h", "/b").is_empty());
        assert!(recent_targets.clients_of("other", "/a").is_empty());
    }

    #[test]
    fn what_varies_by_who_asks_or_is_too_large_is_not_remembered() {
        assert!(repeated(&request_head("/a", &[("cookie", "a=b")]), &["cookie"], &[]).is_none());
        assert!(repeated(&request_head("/a", &[("x", &"y".repeat(5000))]), &["x"], &[]).is_none());
        let recent_targets = RecentTargets::default();
        note(&recent_targets, "/a", &"t".repeat(5000));
        assert!(selected(&recent_targets, &"t".repeat(5000)).is_empty());
        let mut request = request_head("/a", &[]);
        request.method = Method::POST;
        assert!(repeated(&request, &[], &[]).is_none());
    }
}
