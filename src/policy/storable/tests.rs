//! Tests whether responses are stored.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::field::{Timestamp, presence::FieldPresence};

use super::*;
use crate::policy::{CredentialRules, Credentials, Ttl, TtlFrom};

const NOW: u64 = 784_111_777;

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

/// A response to store and its request.
struct Case {
    method: Method,
    request: HeaderMap,
    status: u16,
    rule: CacheRule,
}

impl Case {
    fn get() -> Self {
        Self {
            method: Method::GET,
            request: HeaderMap::new(),
            status: 200,
            rule: CacheRule::default(),
        }
    }

    fn status(status: u16) -> Self {
        Self { status, ..Self::get() }
    }

    fn with_request(fields: &[(&'static str, &'static str)]) -> Self {
        Self { request: headers(fields), ..Self::get() }
    }

    fn with_rule(rule: CacheRule) -> Self {
        Self { rule, ..Self::get() }
    }

    fn store(&self, fields: &[(&'static str, &'static str)]) -> Result<Freshness, Reason> {
        let response = headers(fields);
        let request = RequestHead {
            method: &self.method,
            authority: "api.example",
            target: "/a?b",
            headers: &self.request,
            credentials: self.credentials(),
        };
        let now = Timestamp::from_seconds(NOW);
        let response = ResponseHead {
            status: StatusCode::from_u16(self.status).unwrap(),
            headers: &response,
            requested_at: now,
            received_at: now,
        };
        let request_directives = RequestDirectives::parse(request.headers);
        let directives = ResponseDirectives::parse(response.headers);
        storable((&request, &request_directives), (&response, &directives), &self.rule)
    }

    fn credentials(&self) -> Credentials {
        let rules = CredentialRules::default();
        let in_fields = rules.credentials_in_fields(
            &self.request,
            FieldPresence::of(&self.request),
            &[],
            |_| false,
        );
        in_fields.with(rules.inspect_cookies(&self.request, &[]).credentials())
    }

    fn refusal(&self, fields: &[(&'static str, &'static str)]) -> Option<Reason> {
        self.store(fields).err()
    }

    fn cache_control(&self, value: &'static str) -> Option<Reason> {
        self.refusal(&[("cache-control", value)])
    }
}

const DATED: [(&str, &str); 2] =
    [("date", "Sun, 06 Nov 1994 08:49:37 GMT"), ("last-modified", "Sat, 05 Nov 1994 08:49:37 GMT")];

#[test]
fn explicit_freshness_is_stored_with_any_final_status() {
    for status in [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 503, 599] {
        assert_eq!(Case::status(status).cache_control("max-age=3600"), None, "{status}");
    }
    for status in [101, 304, 412, 416, 429] {
        let refused = Some(Reason::StatusNotCacheable);
        assert_eq!(Case::status(status).cache_control("max-age=3600"), refused, "{status}");
    }
    assert_eq!(Case::status(206).cache_control("max-age=3600"), Some(Reason::Range));
}

#[test]
fn heuristic_freshness_is_for_some_statuses() {
    for status in [200, 203, 204, 404, 405, 410, 414, 501] {
        assert_eq!(Case::status(status).refusal(&DATED), None, "{status}");
    }
    for status in [201, 202, 403, 502, 503, 504, 599] {
        let refused = Some(Reason::StatusNotCacheable);
        assert_eq!(Case::status(status).refusal(&DATED), refused, "{status}");
    }
    let public = [DATED[0], DATED[1], ("cache-control", "public")];
    assert_eq!(Case::status(599).refusal(&public), None);
}

#[test]
fn directives_forbid() {
    let get = Case::get();
    assert_eq!(get.cache_control("No-StOrE, max-age=10000"), Some(Reason::NoStore));
    assert_eq!(get.cache_control("private, max-age=3600"), Some(Reason::Private));
    assert_eq!(get.cache_control("private=\"a\", max-age=3600"), None);
    assert_eq!(get.cache_control("max-age=100, no-cache"), Some(Reason::NoCache));
    let validated = [("cache-control", "no-cache"), ("etag", "\"a\"")];
    assert!(get.store(&validated).unwrap().constraints.has_any(Constraints::NO_CACHE));
}

#[test]
fn must_understand_replaces_no_store_for_known_statuses() {
    assert_eq!(Case::status(404).cache_control("must-understand, no-store, max-age=9"), None);
    let unknown = Case::status(599).cache_control("max-age=3600, must-understand");
    assert_eq!(unknown, Some(Reason::MustUnderstand));
    let private = Case::status(404).cache_control("must-understand, private, max-age=9");
    assert_eq!(private, Some(Reason::Private));
}

#[test]
fn what_is_never_of_use_is_not_stored() {
    let get = Case::get();
    assert_eq!(get.refusal(&[]), Some(Reason::NoFreshness));
    assert_eq!(get.cache_control("max-age=0"), Some(Reason::ZeroTtl));
    assert_eq!(get.refusal(&[("expires", "0")]), Some(Reason::ZeroTtl));
    assert_eq!(get.refusal(&[("cache-control", "max-age=0"), ("etag", "\"a\"")]), None);
    assert_eq!(get.refusal(&[("etag", "\"a\"")]), None);
    let error = Case::status(404).refusal(&[("cache-control", "max-age=0"), ("etag", "\"a\"")]);
    assert_eq!(error, Some(Reason::ZeroTtl));
}

#[test]
fn a_window_for_stale_responses_is_of_use() {
    let get = Case::get();
    assert_eq!(get.cache_control("max-age=0, stale-while-revalidate=60"), None);
    let rule = CacheRule { stale_if_error: Some(Duration::from_mins(1)), ..CacheRule::default() };
    let case = Case::with_rule(rule);
    assert_eq!(case.cache_control("max-age=0"), Some(Reason::ZeroTtl));
    assert_eq!(case.cache_control("max-age=0, stale-if-error=60"), None);
    assert_eq!(case.refusal(&[]), Some(Reason::NoFreshness));
    assert_eq!(case.cache_control("max-age=0, must-revalidate"), Some(Reason::ZeroTtl));
    assert_eq!(case.cache_control("no-cache"), Some(Reason::NoCache));
    let error = Case { status: 502, ..case };
    assert_eq!(error.cache_control("max-age=0, stale-if-error=60"), Some(Reason::ZeroTtl));
}

#[test]
fn authorization_needs_permission() {
    let get = Case::with_request(&[("authorization", "FOO")]);
    assert_eq!(get.cache_control("max-age=3600"), Some(Reason::Authorization));
    assert_eq!(get.cache_control("max-age=3600, proxy-revalidate"), Some(Reason::Authorization));
    for permission in ["max-age=3600, public", "max-age=3600, must-revalidate", "s-maxage=3600"] {
        assert_eq!(get.cache_control(permission), None, "{permission}");
    }
}

#[test]
fn a_session_cookie_needs_permission_and_others_do_not() {
    let session = Case::with_request(&[("cookie", "PHPSESSID=1")]);
    assert_eq!(session.cache_control("max-age=3600"), Some(Reason::CookieRequest));
    let refused = Some(Reason::CookieRequest);
    assert_eq!(session.cache_control("max-age=3600, must-revalidate"), refused);
    assert_eq!(session.cache_control("max-age=3600, public"), None);
    assert_eq!(Case::with_request(&[("cookie", "a=b")]).cache_control("max-age=3600"), None);
}

#[test]
fn set_cookie_needs_a_positive_lifetime_from_the_origin() {
    let get = Case::get();
    let cookie = ("set-cookie", "a=b");
    let control = |value| ("cache-control", value);
    for value in ["public, max-age=3600", "max-age=9", "s-maxage=9", "max-age=0, s-maxage=9"] {
        assert_eq!(get.refusal(&[control(value), cookie]), None, "{value}");
    }
    let (cookie_alone, refused) = (&[cookie][..], Some(Reason::SetCookie));
    let never: [&[_]; 8] = [
        &[control("max-age=0"), cookie],
        &[control("public"), DATED[0], DATED[1], cookie],
        &[control("public, max-age=0"), cookie],
        &[control("public, max-age=9"), ("age", "9"), cookie],
        &[control("public"), ("expires", "-1"), cookie],
        &[control("s-maxage=x"), cookie],
        &[control("public; max-age=9"), cookie],
        cookie_alone,
    ];
    let ttl = Ttl::for_successes(Duration::from_mins(1));
    for ttl_from in [TtlFrom::Origin, TtlFrom::Rule, TtlFrom::Max] {
        let case =
            Case::with_rule(CacheRule { ttl: ttl.clone(), ttl_from, ..CacheRule::default() });
        for fields in never {
            assert_eq!(case.refusal(fields), refused, "{ttl_from:?} {fields:?}");
        }
    }
}

#[test]
fn what_clears_the_data_of_a_site_is_not_for_a_ttl() {
    let clears = ("clear-site-data", "\"cookies\"");
    let ttl = Ttl::for_successes(Duration::from_mins(1));
    let case = Case::with_rule(CacheRule { ttl, ..CacheRule::default() });
    assert_eq!(case.refusal(&[clears]), Some(Reason::SetCookie));
    assert_eq!(Case::get().refusal(&[DATED[0], DATED[1], clears]), Some(Reason::SetCookie));
    assert_eq!(case.refusal(&[("cache-control", "max-age=9"), clears]), None);
}

#[test]
fn some_statuses_have_no_ttl() {
    let check = |status| check_ttl_status(StatusCode::from_u16(status).unwrap());
    for status in [200, 203, 204, 301, 404, 410, 500, 503] {
        assert_eq!(check(status), Ok(()), "{status}");
    }
    for status in [405, 414, 431, 501] {
        assert_eq!(check(status), Err(TtlRefusal::ByAnyClient), "{status}");
    }
    for status in [100, 103, 206, 304, 412, 416, 417, 426, 429, 511, 600, 999] {
        assert_eq!(check(status), Err(TtlRefusal::NeverStored), "{status}");
    }
}

#[test]
fn a_rule_overrides_freshness_but_not_privacy() {
    let ttl = Ttl::for_successes(Duration::from_mins(1));
    let case = Case::with_rule(CacheRule {
        ttl: ttl.clone(),
        ttl_from: TtlFrom::Rule,
        ..CacheRule::default()
    });
    for value in ["max-age=0", "no-cache", "no-cache, max-age=0", "must-revalidate"] {
        assert_eq!(case.cache_control(value), None, "{value}");
    }
    assert_eq!(case.cache_control("private"), Some(Reason::Private));
    assert_eq!(case.cache_control("no-store"), Some(Reason::NoStore));
    let filled = Case::with_rule(CacheRule { ttl, ..CacheRule::default() });
    assert_eq!(filled.refusal(&[]), None);
    assert_eq!(filled.cache_control("max-age=0"), Some(Reason::ZeroTtl));
}

#[test]
fn requests_and_routes_may_refuse() {
    let no_store = [("cache-control", "no-store")];
    let refused = Case::with_request(&no_store).cache_control("max-age=9");
    assert_eq!(refused, Some(Reason::RequestNoStore));
    let rule =
        CacheRule { client_cache_control: ClientCacheControl::Ignore, ..CacheRule::default() };
    let ignoring = Case { rule, ..Case::with_request(&no_store) };
    assert_eq!(ignoring.cache_control("max-age=9"), None);
    let bypassed = Case::with_rule(CacheRule { cache: false, ..CacheRule::default() });
    assert_eq!(bypassed.cache_control("max-age=9"), Some(Reason::RuleBypass));
}

#[test]
fn streams_and_unbounded_variation_are_refused() {
    let get = Case::get();
    let fresh = ("cache-control", "max-age=3600");
    let stream = ("content-type", "Text/Event-Stream; charset=utf-8");
    assert_eq!(get.refusal(&[fresh, stream]), Some(Reason::Streaming));
    for vary in ["*", "*, *", ", *", "*, Foo", "Foo, *", "\"*\"", "*;", "Foo *", "Accept; Foo"] {
        assert_eq!(get.refusal(&[fresh, ("vary", vary)]), Some(Reason::VaryStar), "{vary}");
    }
    assert_eq!(get.refusal(&[fresh, ("vary", ""), ("vary", "*")]), Some(Reason::VaryStar));
    for vary in ["X-Forwarded-For", "Accept, forwarded", "x-request-id"] {
        assert_eq!(get.refusal(&[fresh, ("vary", vary)]), Some(Reason::VaryStar), "{vary}");
    }
    assert_eq!(get.refusal(&[fresh, ("vary", "Foo")]), None);
}

#[test]
fn what_a_purge_of_its_tags_could_miss_is_not_stored() {
    let fresh = ("cache-control", "max-age=3600");
    assert_eq!(Case::get().refusal(&[fresh, ("cache-groups", "\"a\", \"b\"")]), None);
    let many: &'static str = "t ".repeat(1001).leak();
    assert_eq!(Case::get().refusal(&[fresh, ("xkey", many)]), Some(Reason::TagLimit));
}

#[test]
fn the_answer_to_a_write_is_stored_if_it_says_that_it_answers_get() {
    let fresh = ("cache-control", "max-age=3600");
    let refused = Some(Reason::MethodNotCacheable);
    for method in [Method::POST, Method::PUT, Method::PATCH] {
        let write = Case { method, ..Case::get() };
        assert_eq!(write.refusal(&[fresh]), refused);
        assert_eq!(write.refusal(&[fresh, ("content-location", "/other")]), refused);
        assert_eq!(write.refusal(&[DATED[0], DATED[1], ("content-location", "/a?b")]), refused);
        assert_eq!(write.refusal(&[fresh, ("content-location", "/a?b")]), None);
        assert_eq!(write.refusal(&[fresh, ("content-location", "http://api.example/a?b")]), None);
    }
    let delete = Case { method: Method::DELETE, ..Case::get() };
    assert_eq!(delete.refusal(&[fresh, ("content-location", "/a?b")]), refused);
}

#[test]
fn targeted_directives_decide_alone() {
    let get = Case::get();
    // Neither blanks nor `;` hide a restriction, whatever the rule says.
    let ttl = Ttl::for_successes(Duration::from_mins(1));
    let case = Case::with_rule(CacheRule { ttl, ttl_from: TtlFrom::Rule, ..CacheRule::default() });
    for value in ["no-store; max-age=60", "max-age=60;no_store", "max-age=60 no-store"] {
        for field in ["cache-control", "cdn-cache-control", "surrogate-control"] {
            assert_eq!(case.refusal(&[(field, value)]), Some(Reason::NoStore), "{field} {value}");
        }
    }
    let forbidden = ("cache-control", "no-store, private");
    assert_eq!(get.refusal(&[forbidden, ("cdn-cache-control", "max-age=60")]), None);
    let targeted = [("cache-control", "max-age=60"), ("cdn-cache-control", "no-store")];
    assert_eq!(get.refusal(&targeted), Some(Reason::NoStore));
    assert_eq!(get.refusal(&[forbidden, ("cdn-cache-control", "&")]), Some(Reason::Private));
}
