//! Requests that say who asks: which fields, parameters and cookies count, and what is shared despite them.

use super::support::{
    fleet::{Fleet, short_sleep},
    gate::Gate,
    proxy::{Proxy, request},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    wire::Wire,
    within,
};

/// Answers with the value of the field and says nothing about freshness.
async fn silent_about(field: &'static str) -> ScriptedOrigin {
    ScriptedOrigin::start(move |request| {
        OriginResponse::ok(request.header(field).unwrap_or("nobody"))
    })
    .await
}

/// Answers with the whole `Cookie` field and says nothing about freshness.
async fn silent() -> ScriptedOrigin {
    silent_about("cookie").await
}

const TTL: &str = "[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1h\"";

/// Fields that commonly carry a key, a token, a user or a session.
const FIELDS: [&str; 40] = [
    "X-Api-Key",
    "X_Api_Key",
    "Api-Key",
    "ApiKey",
    "X-Auth-Token",
    "X-Access-Token",
    "X-Token",
    "Token",
    "X-Session-Id",
    "X-Session-Token",
    "X-User-Id",
    "X-User",
    "X-Username",
    "X-Amz-Security-Token",
    "X-Goog-Api-Key",
    "Ocp-Apim-Subscription-Key",
    "X-Functions-Key",
    "X-Shopify-Access-Token",
    "X-Shopify-Storefront-Access-Token",
    "X-Jwt-Assertion",
    "Remote-User",
    "X-Remote-User",
    "X-Client-Cert",
    "X-SSL-Client-S-DN",
    "Cf-Access-Jwt-Assertion",
    "Cf-Access-Client-Secret",
    "X-Goog-Iap-Jwt-Assertion",
    "X-Amzn-Oidc-Data",
    "X-MS-Client-Principal-Name",
    "X-MS-Token-Aad-Id-Token",
    "Dpop",
    "Signature",
    "X-Tenant-Id",
    "X-Parse-Session-Token",
    "Private-Token",
    "X-Vault-Token",
    "X-Authentik-Username",
    "X-Algolia-API-Key",
    "X-Secret",
    "Proxy-Authorization",
];

#[tokio::test]
async fn the_key_of_one_client_opens_nothing_to_another() {
    within(async {
        for field in FIELDS {
            let origin = ScriptedOrigin::start(move |request| {
                let name = request.head.to_ascii_lowercase().replace('_', "-");
                let who = ["zoe", "bob", "wrong"].into_iter().find(|who| name.contains(who));
                OriginResponse::ok(who.unwrap_or("nobody"))
            })
            .await;
            let proxy = Proxy::with(&origin.url(), TTL);
            for who in ["zoe", "bob", "wrong"] {
                let reply = proxy.get_with("/a", &[(field, who)]).await;
                assert_eq!(reply.cache(), "MISS", "{field}");
                let reason = reply.header("cache-status").unwrap();
                assert!(reason.ends_with("detail=credential-field"), "{field}: {reason}");
            }
            assert_eq!(proxy.get("/a").await.summary(), "200 MISS nobody", "{field}");
            assert_eq!(proxy.get("/a").await.summary(), "200 HIT nobody", "{field}");
            let again = proxy.get_with("/a", &[(field, "zoe")]).await;
            assert_eq!(again.cache(), "MISS", "{field}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_guess_from_last_modified_is_not_shared_with_a_key_either() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let who = request.header("x-api-key").unwrap_or("nobody");
            OriginResponse::ok(who).with("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        for who in ["ada", "bob"] {
            let reply = proxy.get_with("/a", &[("X-Api-Key", who)]).await;
            assert_eq!(reply.summary(), format!("200 MISS {who}"));
        }
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS nobody");
    })
    .await;
}

#[tokio::test]
async fn a_key_shares_what_the_origin_calls_public() {
    within(async {
        for control in ["public, max-age=60", "s-maxage=60", "public"] {
            let origin =
                ScriptedOrigin::always(OriginResponse::ok("a").with("cache-control", control))
                    .await;
            let proxy = Proxy::with(&origin.url(), TTL);
            proxy.get_with("/a", &[("X-Api-Key", "ada")]).await;
            let bob = proxy.get_with("/a", &[("X-Api-Key", "bob")]).await;
            assert_eq!(bob.summary(), "200 HIT a", "{control}");
        }
        for control in ["max-age=60", "max-age=60, must-revalidate"] {
            let origin =
                ScriptedOrigin::always(OriginResponse::ok("a").with("cache-control", control))
                    .await;
            let proxy = Proxy::before(&origin.url());
            proxy.get_with("/a", &[("X-Api-Key", "ada")]).await;
            let bob = proxy.get_with("/a", &[("X-Api-Key", "bob")]).await;
            assert_eq!(bob.cache(), "MISS", "{control}");
        }
    })
    .await;
}

/// Names that frameworks, applications and gateways give to the cookies of a session.
const SESSIONS: &str = "PHPSESSID phpsessid JSESSIONID JSESSIONID.1a2b ASP.NET_SessionId .ASPXAUTH \
    .AspNetCore.Cookies .AspNetCore.Identity.Application .AspNet.ApplicationCookie \
    ASPSESSIONIDABCDEFGH sessionid session connect.sid sid laravel_session _rails_session \
    _myapp_session remember_web_abc remember_user_token ci_session symfony wordpress_logged_in_abc \
    wordpress_sec_abc wp-postpass_abc SSESSabc SESSabc _secure_session_id frontend adminhtml \
    mage-cache-sessid next-auth.session-token __Secure-next-auth.session-token.0 \
    authjs.session-token auth0 appSession okta-oauth-state idx KEYCLOAK_IDENTITY KEYCLOAK_SESSION \
    CognitoIdentityServiceProvider.x.accessToken sb-abc-auth-token sb-access-token __session \
    __clerk_db_jwt __client_uat _oauth2_proxy _oauth2_proxy_0 authelia_session authentik_session \
    authentik_proxy_abc _pomerium VouchCookie CASTGC TGC _shibsession_abc SimpleSAML \
    SimpleSAMLAuthToken _t __ac _ZopeId _gitlab_session grafana_session CF_Authorization \
    AWSELBAuthSessionCookie-0 AppServiceAuthSession MSISAuth FedAuth rtFa user user_id username uid \
    login remember_token jwt token access_token refresh_token id_token auth XSESSIONID SMSESSION \
    iPlanetDirectoryPro LtpaToken2 ObSSOCookie MRHSession GX_SESSION_ID CFID CFTOKEN koa.sess \
    koa:sess express:sess fastapiusersauth sails.sid adonis-session session_id phpbb3_abc_sid \
    MoodleSession xf_user bb_userid ipb_member_id member_id cart_token customer_sig \
    secure_customer_sig __Host-session api_key";

#[tokio::test]
async fn session_cookies_share_nothing_that_is_not_public() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let who = request.header("cookie").unwrap_or("nobody");
            match request.target.as_str() {
                "/explicit" => OriginResponse::fresh(who),
                "/public" => OriginResponse::fresh("all").with("cache-control", "public"),
                _ => OriginResponse::ok(who),
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), TTL);
        assert!(SESSIONS.split_whitespace().count() > 90);
        proxy.get("/public").await;
        for name in SESSIONS.split_whitespace() {
            for target in ["/silent", "/explicit"] {
                for who in ["ada", "bob"] {
                    let cookie = format!("a=b; {name}={who}");
                    let reply = proxy.get_with(target, &[("Cookie", &cookie)]).await;
                    assert_eq!(reply.summary(), format!("200 MISS {cookie}"), "{name}");
                    assert!(
                        reply.header("cache-status").unwrap().ends_with("detail=cookie-request")
                    );
                }
            }
            let reply = proxy.get_with("/public", &[("Cookie", &format!("{name}=ada"))]).await;
            assert_eq!(reply.cache(), "HIT", "{name}");
        }
        assert_eq!(proxy.get("/silent").await.summary(), "200 MISS nobody");
    })
    .await;
}

#[tokio::test]
async fn an_unknown_cookie_shares_what_the_origin_made_fresh_and_no_guess() {
    within(async {
        const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        let origin = ScriptedOrigin::start(|request| {
            let response = OriginResponse::ok(request.header("cookie").unwrap_or("nobody"));
            match request.target.as_str() {
                "/max-age" => response.with("cache-control", "max-age=60"),
                "/public" => response.with("cache-control", "public"),
                "/zero" => response.with("cache-control", "max-age=0"),
                "/modified" => response.with("last-modified", OLD),
                _ => response,
            }
        })
        .await;
        let ada = [("Cookie", "flavour=ada")];
        let with_ttl = format!("{TTL}\nttl_from = \"max\"");
        for (toml, target) in [(TTL, "/silent"), (&*with_ttl, "/zero"), ("", "/modified")] {
            let proxy = Proxy::with(&origin.url(), toml);
            let reply = proxy.get_with(target, &ada).await;
            assert_eq!(reply.summary(), "200 MISS flavour=ada", "{target}");
            assert!(reply.header("cache-status").unwrap().ends_with("detail=unknown-cookie"));
            assert_eq!(proxy.get(target).await.summary(), "200 MISS nobody", "{target}");
            assert_eq!(proxy.get(target).await.summary(), "200 HIT nobody", "{target}");
            let again = proxy.get_with(target, &ada).await;
            assert_eq!(again.summary(), "200 MISS flavour=ada", "{target}");
        }
        for (toml, target) in [("", "/max-age"), (TTL, "/max-age"), (TTL, "/public")] {
            let proxy = Proxy::with(&origin.url(), toml);
            proxy.get_with(target, &ada).await;
            let shared = proxy.get_with(target, &[("Cookie", "flavour=bob")]).await;
            assert_eq!(shared.summary(), "200 HIT flavour=ada", "{target}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_unknown_cookie_still_validates_what_the_origin_judges() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.header("if-none-match") {
            Some(_) => OriginResponse::status(304, ""),
            None => OriginResponse::ok("a").with("cache-control", "no-cache").with("etag", "\"1\""),
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        let reply = proxy.get_with("/a", &[("Cookie", "flavour=ada")]).await;
        assert_eq!(reply.summary(), "200 REVALIDATED a");
    })
    .await;
}

/// What analytics and consent leave in a browser.
const HARMLESS: &str = "_ga=GA1.1.1234567890.1700000000; _ga_ABCDEF1234=GS2.1.s1746825440$o1$g0$t1746825440$j0; \
    _gid=GA1.2.1234; _gcl_au=1.1.1234.5678; _fbp=fb.1.1700000000.123; _hjSessionUser_123=eyJpZCI6ImEifQ==; \
    _hjSession_123=eyJpZCI6ImEifQ==; OptanonConsent=isGpcEnabled=0&datestamp=x&groups=C0001%3A1%2CC0002%3A0; \
    OptanonAlertBoxClosed=2024-01-01T00:00:00.000Z; __cf_bm=abc.def-1700000000-1.0.1.1-x; AWSALB=abc/def+g==; \
    mp_abc_mixpanel=%7B%22distinct_id%22%3A%20%22a%22%7D";

/// The fields that a browser sends, and what proxies on the way add.
fn as_a_browser(cookie: &str) -> Vec<(&str, &str)> {
    vec![
        ("Host", "api.test"),
        ("Connection", "keep-alive"),
        ("sec-ch-ua-platform", "\"Linux\""),
        ("X-Requested-With", "XMLHttpRequest"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0.0.0"),
        ("Accept", "application/json, text/plain, */*"),
        ("sec-ch-ua", "\"Chromium\";v=\"140\""),
        ("sec-ch-ua-mobile", "?0"),
        ("X-XSRF-TOKEN", "4e1b2c"),
        ("X-CSRF-Token", "4e1b2c"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Mode", "cors"),
        ("Sec-Fetch-Dest", "empty"),
        ("Sec-Fetch-User", "?1"),
        ("Referer", "https://api.test/"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "de-DE,de;q=0.9"),
        ("Priority", "u=1, i"),
        ("X-Amzn-Trace-Id", "Root=1-67891233-abcdef"),
        ("X-Real-IP", "192.0.2.1"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Port", "443"),
        ("X-Correlation-Token", "abc"),
        ("Idempotency-Key", "abc"),
        ("CF-Ray", "230b030023ae2822-SJC"),
        ("CF-Connecting-IP", "192.0.2.1"),
        ("Cdn-Loop", "cloudflare"),
        ("traceparent", "00-80e1afed08e019fc1110464cfa66635c-7a085853722dc6d2-01"),
        ("baggage", "sentry-environment=production"),
        ("sentry-trace", "80e1-7a08-1"),
        ("X-Datadog-Trace-Id", "123"),
        ("newrelic", "eyJ2"),
        ("Cookie", cookie),
    ]
}

#[tokio::test]
async fn browsers_with_analytics_and_consent_share_hits() {
    within(async {
        let origin = silent().await;
        let proxy = Proxy::with(&origin.url(), TTL);
        proxy.get("/a").await;
        for cookie in [
            HARMLESS,
            "_ga=1; csrftoken=abc; XSRF-TOKEN=def",
            "_ga=1; _ga=2; _gid=3; _gid=4",
            "__utma=1.2.3; _pk_id.1.ab=x; hubspotutk=y; __hstc=1; ajs_anonymous_id=%22a%22; \
             intercom-id-abc=1; amplitude_idabc=x; _uetsid=1; _ttp=2; IDE=3; cf_clearance=4; \
             CookieConsent={stamp:%27abc%3D%3D%27%2Cnecessary:true}; AMCV_1234%40AdobeOrg=1; \
             cmapi_cookie_privacy=permit 1,2,3; _clck=1; _clsk=2; euconsent-v2=x",
        ] {
            let reply = proxy.get_with("/a", &as_a_browser(cookie)).await;
            assert_eq!(reply.summary(), "200 HIT nobody", "{cookie}");
        }
    })
    .await;
}

#[tokio::test]
async fn selecting_cookies_separate_what_a_ttl_makes_fresh() {
    within(async {
        let origin = silent().await;
        let proxy = Proxy::with(&origin.url(), TTL);
        let cookies = [
            None,
            Some("theme=dark"),
            Some("theme=light"),
            Some("Theme=dark"),
            Some("lang=de; theme=dark"),
        ];
        for cookie in cookies {
            let fields: Vec<_> = cookie.iter().map(|cookie| ("Cookie", *cookie)).collect();
            let own = cookie.unwrap_or("nobody");
            let first = proxy.get_with("/a", &fields).await;
            assert_eq!(first.summary(), format!("200 MISS {own}"));
            let second = proxy.get_with("/a", &fields).await;
            assert_eq!(second.summary(), format!("200 HIT {own}"));
            for reply in [first, second] {
                assert_eq!(
                    reply.header("vary").is_some_and(|vary| vary == "Cookie"),
                    cookie.is_some()
                );
            }
        }
        let mixed = proxy.get_with("/a", &[("Cookie", "theme=dark; _ga=1; lang=de")]).await;
        assert_eq!(
            mixed.summary(),
            "200 HIT lang=de; theme=dark",
            "neither order nor others count"
        );
    })
    .await;
}

#[tokio::test]
async fn selecting_cookies_are_the_origins_to_name_where_it_says_how_long() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::fresh(request.header("cookie").unwrap_or("nobody"))
        })
        .await;
        let proxy = Proxy::before(&origin.url());
        proxy.get_with("/a", &[("Cookie", "theme=dark")]).await;
        let reply = proxy.get_with("/a", &[("Cookie", "theme=light")]).await;
        assert_eq!((reply.summary().as_str(), reply.header("vary")), ("200 HIT theme=dark", None));
    })
    .await;
}

#[tokio::test]
async fn a_route_settles_the_cookies_that_it_names() {
    within(async {
        let origin = silent().await;
        let toml = format!("{TTL}\nvary = {{ cookies = [\"flavour\"] }}");
        let proxy = Proxy::with(&origin.url(), &toml);
        for flavour in ["a", "b", "c"] {
            let cookie = format!("flavour={flavour}");
            for word in ["MISS", "HIT"] {
                let reply = proxy.get_with("/a", &[("Cookie", &cookie)]).await;
                assert_eq!(reply.summary(), format!("200 {word} {cookie}"));
            }
        }
        let other = proxy.get_with("/a", &[("Cookie", "flavour=a; other=x")]).await;
        assert_eq!(other.cache(), "MISS", "others stay what they are");
    })
    .await;
}

#[tokio::test]
async fn a_cookie_that_parsers_read_differently_is_passed() {
    within(async {
        let origin =
            ScriptedOrigin::always(OriginResponse::fresh("all").with("cache-control", "public"))
                .await;
        let toml = format!("{TTL}\nvary = {{ cookies = [\"currency\"] }}");
        let proxy = Proxy::with(&origin.url(), &toml);
        let plain = proxy.get_with("/a", &[("Cookie", "currency=EUR; a=b")]).await;
        assert_eq!(plain.cache(), "MISS");
        for cookie in [
            "currency=EUR; currency=EVIL",
            "currency=EUR; Currency=EVIL",
            "curr.ency=EUR; curr_ency=EVIL",
            "a=b, currency=EVIL",
            "a=b currency=EVIL",
            "_ga=b, currency=EVIL",
            "_ga, currency=EVIL",
            "a=\"b; currency=EVIL\"",
            "a=\"b\\\"; currency=EVIL; c=\"d\"",
            "currency",
            "_ga=1; other",
            "=EVIL",
            "currency =EVIL",
            "cur rency=EVIL",
            "curr%65ncy=EVIL",
            "currency[a]=EVIL",
            "$Version=1; currency=EVIL",
            "a=b\tcurrency=EVIL",
            "\u{a0}currency=EVIL",
            "currency=EUR; a=b c",
            "currency=EUR; a={\"b\":1}",
            "currency=E\u{fc}R",
            "currency= EUR",
        ] {
            let reply = proxy.get_with("/a", &[("Cookie", cookie)]).await;
            assert_eq!(reply.cache(), "BYPASS", "{cookie}");
            let status = reply.header("cache-status").unwrap();
            assert!(status.ends_with("detail=ambiguous-cookie"), "{cookie}: {status}");
        }
        let lines = [("Cookie", "currency=EUR"), ("Cookie", "currency=EVIL")];
        assert_eq!(proxy.get_with("/a", &lines).await.cache(), "BYPASS");
        let other = proxy.get_with("/a", &[("Cookie", "Currency=EUR")]).await;
        assert_eq!(other.cache(), "MISS", "another spelling is another cookie, or the same");
        assert_eq!(proxy.get_with("/a", &[("Cookie", "currency=EUR; a=b;")]).await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn very_many_and_very_long_cookies_are_no_trouble() {
    within(async {
        let origin = silent().await;
        let proxy = Proxy::with(&origin.url(), &format!("limits.header_bytes = \"64KiB\"\n{TTL}"));
        proxy.get("/a").await;
        let long = format!("_ga={}", "x".repeat(8000));
        assert_eq!(proxy.get_with("/a", &[("Cookie", &long)]).await.cache(), "HIT");
        let harmless: Vec<_> = (0..300).map(|number| format!("_ga_{number}=1")).collect();
        let harmless = harmless.join("; ");
        assert_eq!(proxy.get_with("/a", &[("Cookie", &harmless)]).await.cache(), "HIT");
        let unknown: Vec<_> = (0..300).map(|number| format!("c{number}=1")).collect();
        assert_eq!(
            proxy.get_with("/a", &[("Cookie", &unknown.join("; "))]).await.cache(),
            "BYPASS"
        );
        let tiny = "a;".repeat(15_000);
        assert_eq!(proxy.get_with("/a", &[("Cookie", &tiny)]).await.cache(), "BYPASS");
        for empty in ["", ";", "; ;"] {
            assert_eq!(
                proxy.get_with("/a", &[("Cookie", empty)]).await.cache(),
                "HIT",
                "{empty:?}"
            );
        }
        let old = [("Cookie2", "$Version=1")];
        assert_eq!(proxy.get_with("/a", &old).await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_lists_goes_before_what_is_built_in() {
    within(async {
        let origin = silent().await;
        let user = "[user]\ncredentials = [\"X-Shop-*\"]\nharmless_fields = [\"x-api-key\"]\n\
                    session_cookies = [\"_ga\", \"my*id\"]\nharmless_cookies = [\"PHPSESSID\", \"flavour\", \"legacy_*\"]\n\
                    selecting_cookies = [\"sid\"]\n";
        let proxy = Proxy::with(&origin.url(), &format!("{user}{TTL}"));
        proxy.get("/a").await;
        for (field, word) in [
            (("X_Shop_Number", "1"), "MISS"),
            (("X-Api-Key", "1"), "HIT"),
            (("Cookie", "_ga=1"), "MISS"),
            (("Cookie", "my.own.id=1"), "MISS"),
            (("Cookie", "PHPSESSID=1; flavour=2; legacy_x=3"), "HIT"),
        ] {
            assert_eq!(proxy.get_with("/a", &[field]).await.cache(), word, "{field:?}");
        }
        for word in ["MISS", "HIT"] {
            assert_eq!(proxy.get_with("/a", &[("Cookie", "sid=1")]).await.cache(), word);
        }
        proxy.reconfigure(&origin.url(), TTL);
        assert_eq!(proxy.get_with("/a", &[("Cookie", "_ga=1")]).await.cache(), "HIT");
        assert_eq!(proxy.get_with("/a", &[("X-Api-Key", "1")]).await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn a_tenant_counts_as_credentials_unless_the_route_separates_by_it() {
    within(async {
        let origin = silent_about("x-tenant-id").await;
        let proxy = Proxy::with(&origin.url(), TTL);
        for _ in 0..2 {
            assert_eq!(proxy.get_with("/a", &[("X-Tenant-Id", "a")]).await.summary(), "200 MISS a");
        }
        let toml = format!("{TTL}\nvary = {{ headers = [\"x-tenant-id\"] }}");
        let proxy = Proxy::with(&origin.url(), &toml);
        for tenant in ["a", "b"] {
            for word in ["MISS", "HIT"] {
                let reply = proxy.get_with("/a", &[("X-Tenant-Id", tenant)]).await;
                assert_eq!(reply.summary(), format!("200 {word} {tenant}"));
            }
        }
        let key = [("X-Tenant-Id", "a"), ("X-Api-Key", "b")];
        assert_eq!(proxy.get_with("/a", &key).await.cache(), "MISS");
    })
    .await;
}

#[tokio::test]
async fn a_key_in_the_query_separates_and_is_not_logged() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.target.as_str())).await;
        let proxy = Proxy::with(&origin.url(), TTL);
        for target in ["/a?api_key=ada", "/a?api_key=bob", "/a"] {
            for word in ["MISS", "HIT"] {
                assert_eq!(proxy.get(target).await.summary(), format!("200 {word} {target}"));
            }
        }
        proxy.log(6).await;
        assert!(!proxy.log_text().contains("ada"));
    })
    .await;
}

#[tokio::test]
async fn a_key_in_the_query_outside_the_cache_key_is_shared_with_no_other() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.target.as_str())).await;
        let query = "query = { ignore = [\"api_key\"], forward = \"all\" }";
        let proxy = Proxy::with(&origin.url(), &format!("{TTL}\n{query}"));
        for target in ["/a?api_key=ada", "/a?api_key=bob"] {
            let reply = proxy.get(target).await;
            assert_eq!(reply.summary(), format!("200 MISS {target}"));
            assert!(reply.header("cache-status").unwrap().ends_with("detail=credential-field"));
        }
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS /a");
        assert_eq!(proxy.get("/a?api_key=ada").await.summary(), "200 MISS /a?api_key=ada");
    })
    .await;
}

#[tokio::test]
async fn a_signed_target_is_not_kept_longer_than_the_origin_says() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            if request.target.contains("fresh") {
                OriginResponse::fresh("a")
            } else {
                OriginResponse::ok("a")
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), TTL);
        for (number, name) in
            ["X-Amz-Signature", "x-amz-signature", "sig", "Signature", "X%2DAmz-Signature"]
                .iter()
                .enumerate()
        {
            for word in ["MISS", "MISS"] {
                let reply = proxy.get(&format!("/a?{name}=1")).await;
                assert_eq!(reply.cache(), word, "{name}");
                assert!(reply.header("cache-status").unwrap().ends_with("detail=signed-target"));
            }
            for word in ["MISS", "HIT"] {
                assert_eq!(
                    proxy.get(&format!("/fresh/{number}?{name}=1")).await.cache(),
                    word,
                    "{name}"
                );
            }
        }
        let user = "[user]\nharmless_parameters = [\"sig\"]\n";
        let proxy = Proxy::with(&origin.url(), &format!("{user}{TTL}"));
        for word in ["MISS", "HIT"] {
            assert_eq!(proxy.get("/a?sig=1&pageToken=2").await.cache(), word);
        }
    })
    .await;
}

#[tokio::test]
async fn keys_and_unknown_cookies_share_no_fetch_that_a_ttl_makes_fresh() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let who = request.header("x-api-key").or(request.header("cookie")).unwrap_or("nobody");
            OriginResponse::ok(who).after(&held)
        })
        .await;
        let proxy = Proxy::with(&origin.url(), TTL);
        let identities = [
            Some(("X-Api-Key", "ada")),
            Some(("X-Api-Key", "bob")),
            Some(("Cookie", "flavour=ada")),
            Some(("Cookie", "flavour=bob")),
            Some(("Cookie", "theme=ada")),
            None,
        ];
        let mut wires = Vec::new();
        for identity in identities {
            let mut wire = proxy.connect().await;
            wire.write(request("GET", "/a", identity.as_slice())).await;
            wires.push(wire);
        }
        origin.wait_for_requests(identities.len()).await;
        gate.open();
        for (identity, mut wire) in identities.iter().zip(wires) {
            let expected = identity.map_or("nobody", |(_, value)| value);
            assert_eq!(wire.read_reply().await.body, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_with_an_unknown_cookie_takes_no_guess_of_anothers_fetch() {
    within(async {
        const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (field, shared) in
            [(("last-modified", OLD), false), (("cache-control", "max-age=60"), true)]
        {
            let gate = Gate::closed();
            let held = gate.clone();
            let origin = ScriptedOrigin::start(move |request| {
                let response = OriginResponse::ok(request.header("cookie").unwrap_or("nobody"));
                response.with(field.0, field.1).after(&held)
            })
            .await;
            let proxy = Proxy::before(&origin.url());
            let mut leader = proxy.connect().await;
            leader.write(request("GET", "/a", &[])).await;
            origin.wait_for_requests(1).await;
            let mut follower = proxy.connect().await;
            follower.write(request("GET", "/a", &[("Cookie", "flavour=ada")])).await;
            while proxy.metric("larder_collapsed_requests_total", "").await < 1 {}
            gate.open();
            assert_eq!(leader.read_reply().await.body, "nobody");
            let expected = if shared { "nobody" } else { "flavour=ada" };
            assert_eq!(follower.read_reply().await.body, expected, "{field:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_gets_nothing_stale_that_it_may_not_share() {
    within(async {
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("all"),
            OriginResponse::status(503, "down"),
        ])
        .await;
        let toml = format!("{TTL}\nstale_if_error = \"1h\"\nstale_while_revalidate = \"1h\"");
        let proxy = Proxy::with(&origin.url(), &toml);
        proxy.get("/a").await;
        proxy.advance(3601);
        for field in [("X-Api-Key", "ada"), ("Cookie", "flavour=ada"), ("Cookie", "sid=1")] {
            assert_eq!(proxy.get_with("/a", &[field]).await.status(), 503, "{field:?}");
        }
        assert_eq!(proxy.get("/a").await.summary(), "200 STALE all");
    })
    .await;
}

#[tokio::test]
async fn a_key_in_the_query_reaches_the_origin_and_is_shared_with_no_other() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::fresh(request.target.clone())).await;
        let toml = "admin.token = \"t\"\nadmin.purge_from = [\"127.0.0.0/8\"]\n";
        let proxy = Proxy::with(&origin.url(), toml);
        for target in ["/a?b=1&access_token=one", "/a?b=1&access_token=two", "/a?b=1;api_key=x"] {
            assert_eq!(proxy.get(target).await.summary(), format!("200 MISS {target}"));
            assert_eq!(proxy.get(target).await.summary(), format!("200 HIT {target}"));
        }
        proxy.send("PURGE", "/a?b=1&access_token=three", &[]).await;
        let token = [("Authorization", "Bearer t")];
        let mut admin = Wire::connect(proxy.admin_address()).await;
        let purges = admin.exchange(request("GET", "/v1/purges", &token)).await.body;
        assert!(purges.contains("access_token") && !purges.contains("three"), "{purges}");
        for target in ["/a?b=1&access_token=one", "/a?b=1&access_token=two"] {
            assert_eq!(proxy.get(target).await.cache(), "MISS", "a purge does not tell them apart");
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_in_the_query_is_stored_in_redis_as_a_keyed_digest_or_not_at_all() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("x")).await;
        for (user, shared) in
            [("", "MISS"), ("[user]\ndigest_key = \"0123456789abcdef0123456789abcdef\"", "HIT")]
        {
            let redis = Redis::start().await;
            let store = format!("[store]\nredis = \"{}\"\n{user}", redis.url());
            let fleet = Fleet::start(2, &origin.url(), &store).await;
            fleet.ready(&redis).await;
            let target = "/a?api_key=secret7";
            assert_eq!(fleet.get(0, target).await.cache(), "MISS");
            assert_eq!(fleet.get(0, target).await.cache(), "HIT");
            assert_eq!(fleet.get(0, "/plain").await.cache(), "MISS");
            while redis.keys("*:e:*").await.is_empty() {
                short_sleep().await;
            }
            if shared == "HIT" {
                while redis.keys("*:e:*").await.len() < 2 {
                    short_sleep().await;
                }
            }
            assert_eq!(fleet.get(1, target).await.cache(), shared, "{user}");
            for key in redis.keys("*:e:*").await {
                let value = redis.command(&["GET", &key]).await;
                let text = format!("{key} {}", value.text());
                assert!(text.contains("api.test"), "{text}");
                assert!(!text.contains("secret7"), "{text}");
            }
        }
    })
    .await;
}
