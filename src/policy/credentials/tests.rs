//! Tests of credentials.

use http::{HeaderName, HeaderValue, header};

use super::*;
use crate::field::presence::FieldPresence;

fn rules() -> CredentialRules {
    CredentialRules::default()
}

fn kind(name: &str) -> CookieKind {
    rules().cookie_kind(name.as_bytes())
}

fn list(names: &[&str]) -> NameList {
    names.iter().copied().collect()
}

fn with_cookie(line: &str) -> http::HeaderMap {
    let value = HeaderValue::from_bytes(line.as_bytes()).unwrap();
    http::HeaderMap::from_iter([(header::COOKIE, value)])
}

fn found(line: &str) -> CookieFindings {
    rules().inspect_cookies(&with_cookie(line), &[])
}

#[test]
fn well_known_session_cookies_are_recognised() {
    for name in [
        "PHPSESSID",
        "phpsessid",
        "JSESSIONID",
        "connect.sid",
        "sid",
        "laravel_session",
        "_pomerium",
        "__Secure-next-auth.session-token",
        "__Host-session",
        "sb-access-token",
        "VouchCookie",
        "__ac",
        "wordpress_logged_in_x",
        ".AspNetCore.Identity.Application",
        "remember_me",
        "jwt",
        "_t",
        "CASTGC",
        "user",
        "ASP.NET_SessionId",
        ".ASPXAUTH",
        "_shibsession_64",
        "AWSELBAuthSessionCookie-0",
        "AppServiceAuthSession",
        "CF_Authorization",
        "_gitlab_session",
        "grafana_session",
        "appSession",
        "KEYCLOAK_IDENTITY",
        "LtpaToken2",
        "_oauth2_proxy_csrf_session",
        "CFID",
        "__SECURE-SID",
        "xf_user",
        "_ZopeId",
        "__client_uat",
        "idx",
        "MRHSession",
        "frontend",
        "rtFa",
        "FedAuth",
        "u_id",
        "CognitoIdentityServiceProvider.1.x.idToken",
        "sessionid",
        "fuelcid",
        "phpbb3_1_sid",
        "uid",
    ] {
        assert_eq!(kind(name), CookieKind::Session, "{name}");
    }
}

#[test]
fn analytics_consent_and_balancers_count_for_nothing() {
    for name in [
        "_ga",
        "_ga_ABC",
        "_gid",
        "_gat_UA-1",
        "_gcl_au",
        "_fbp",
        "_fbc",
        "_hjSession_1",
        "__utma",
        "_hjSessionUser_1",
        "_pk_id.1.a",
        "OptanonConsent",
        "OptanonAlertBoxClosed",
        "CookieConsent",
        "__cf_bm",
        "cf_clearance",
        "AWSALB",
        "AWSALBCORS",
        "__hstc",
        "hubspotutk",
        "intercom-id-x",
        "ajs_anonymous_id",
        "ajs_user_id",
        "amplitude_id",
        "mp_x_mixpanel",
        "_uetsid",
        "_ttp",
        "IDE",
        "csrftoken",
        "XSRF-TOKEN",
        "_csrf",
        "my_csrf_token",
        "didomi_token",
        "optimizelyEndUserId",
        ".AspNetCore.Antiforgery.x",
        "__RequestVerificationToken",
        "AMCV_1%40AdobeOrg",
        "ARRAffinity",
        "BIGipServerpool",
        "heroku-session-affinity",
        "ai_session",
        "aws-waf-token",
        "AMP_abc",
    ] {
        assert_eq!(kind(name), CookieKind::Harmless, "{name}");
    }
}

#[test]
fn what_chooses_and_what_is_unknown_is_told_apart() {
    for name in [
        "theme",
        "Theme",
        "__Host-theme",
        "lang",
        "NEXT_LOCALE",
        "currency",
        "region",
        "country",
        "tz",
        ".AspNetCore.Culture",
        "i18next",
        "ab_test_1",
        "experiment_x",
        "user_locale",
        "cart_currency",
    ] {
        assert_eq!(kind(name), CookieKind::Selecting, "{name}");
    }
    for name in ["flavour", "a", "b", "x-page", "_", "AWSALBX", "_gax", "visited"] {
        assert_eq!(kind(name), CookieKind::Unknown, "{name}");
    }
}

#[test]
fn the_operators_lists_come_before_the_built_in_ones() {
    let rules = CredentialRules {
        session_cookies: list(&["_ga", "both"]),
        selecting_cookies: list(&["sid", "both", "x*y"]),
        harmless_cookies: list(&["PHPSESSID", "both", "xy"]),
        ..CredentialRules::default()
    };
    let kind = |name: &str| rules.cookie_kind(name.as_bytes());
    assert_eq!((kind("_ga"), kind("both")), (CookieKind::Session, CookieKind::Session));
    assert_eq!((kind("sid"), kind("xy")), (CookieKind::Selecting, CookieKind::Selecting));
    assert_eq!(kind("PHPSESSID"), CookieKind::Harmless);
    let vary_cookies: [Box<str>; 2] = ["flavour".into(), "_ga".into()];
    let found = |line| rules.inspect_cookies(&with_cookie(line), &vary_cookies).credentials();
    assert_eq!(found("Flavour=x"), Credentials::NONE);
    assert_eq!(found("_ga=x"), Credentials::SESSION_COOKIE, "the operator says so");
}

#[test]
fn patterns_that_fit_everything_are_refused() {
    for pattern in ["", "*", "**", "_*", "a b", "a=b", "a;b", "\u{e4}"] {
        assert_eq!(NameList::check(pattern), Err(InvalidNamePattern), "{pattern}");
    }
    for pattern in ["_ga*", "*x*", ".AspNet*", "a:b", "x-shop-id"] {
        assert_eq!(NameList::check(pattern), Ok(()), "{pattern}");
    }
}

#[test]
fn duplicates_count_unless_they_are_harmless() {
    for line in ["a=1; a=2", "a=1; A=1", "a_b=1; a.b=2", "theme=a; theme=a", "sid=1; sid=2"] {
        assert!(found(line).are_ambiguous(false), "{line}");
    }
    for line in ["_ga=1; _ga=2; _GA=3", "a=1; b=1", ""] {
        assert!(!found(line).are_ambiguous(true), "{line}");
    }
    let many = |count: usize| {
        (0..count).map(|number| format!("c{number}=1")).collect::<Vec<_>>().join("; ")
    };
    assert!(!found(&many(128)).are_ambiguous(true) && found(&many(129)).are_ambiguous(false));
}

#[test]
fn a_loose_value_counts_only_where_cookies_are_in_the_key() {
    assert!(!found("a={\"b\":1}").are_ambiguous(true));
    assert!(!found("a={\"b\":1}; theme=dark").are_ambiguous(false));
    assert!(found("a={\"b\":1}; theme=dark").are_ambiguous(true));
    let vary_cookies: [Box<str>; 1] = ["a".into()];
    assert!(rules().inspect_cookies(&with_cookie("a=b c"), &vary_cookies).are_ambiguous(false));
    assert!(!found("koa:sess=1; AMCV_1%40AdobeOrg=2").are_ambiguous(true));
    assert!(found("AMCV_1%40AdobeOrg=2; a%62=1").are_ambiguous(false));
}

#[test]
fn selecting_cookies_have_one_form_for_all_orders() {
    let text = |line: &str| {
        let mut out = Vec::new();
        out.extend(rules().selecting_cookies(&with_cookie(line), &["region".into()]).join(&b';'));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(text("theme=dark; _ga=1; lang=de; region=eu"), "lang=de;theme=dark");
    assert_eq!(text("lang=de; x=y; theme=dark"), "lang=de;theme=dark");
    assert_ne!(text("Lang=de"), text("lang=de"));
    assert_eq!(text("_ga=1"), "");
}

#[test]
fn fields_say_who_asks() {
    let found = |rules: &CredentialRules,
                 fields: &[(&'static str, &'static str)],
                 separated: &[&'static str]| {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let fields = fields.collect::<http::HeaderMap>();
        let separated: Vec<_> =
            separated.iter().map(|name| HeaderName::from_static(name)).collect();
        rules.credentials_in_fields(&fields, FieldPresence::of(&fields), &separated, |_| false)
    };
    let plain = rules();
    assert_eq!(
        found(&plain, &[("authorization", "x"), ("accept", "*/*")], &[]),
        Credentials::AUTHORIZATION
    );
    assert_eq!(found(&plain, &[("x-api-key", "x")], &["x-api-key"]), Credentials::FIELD);
    assert_eq!(found(&plain, &[("x-tenant", "x")], &[]), Credentials::FIELD);
    assert_eq!(found(&plain, &[("x-tenant", "x")], &["x-tenant"]), Credentials::NONE);
    assert_eq!(
        found(&plain, &[("cookie", "x"), ("x-shop-id", "y")], &["x-shop-id"]),
        Credentials::NONE
    );
    let own = CredentialRules {
        fields: list(&["x-pin", "x-api-*"]),
        harmless_fields: list(&["x-user-*", "x-api-key"]),
        ..CredentialRules::default()
    };
    assert_eq!(found(&own, &[("x_pin", "x")], &[]), Credentials::FIELD);
    assert_eq!(found(&own, &[("x-user-theme", "x")], &[]), Credentials::NONE);
    assert_eq!(
        found(&own, &[("x-api-key", "x")], &[]),
        Credentials::FIELD,
        "what protects comes first"
    );
    assert_eq!(found(&own, &[("authorization", "x")], &[]), Credentials::AUTHORIZATION);
}

#[test]
fn parameters_are_recognised_by_their_whole_name() {
    let secret = Some(ParameterKind::Secret);
    for name in [
        "access_token",
        "api_key",
        "apikey",
        "API-Key",
        "token",
        "jwt",
        "session",
        "key",
        "%61pi_key",
    ] {
        assert_eq!(rules().parameter_kind(name), secret, "{name}");
    }
    for name in ["sig", "signature", "X-Amz-Signature", "x%2Damz-signature"] {
        assert_eq!(rules().parameter_kind(name), Some(ParameterKind::Signature), "{name}");
    }
    for name in ["pageToken", "nextToken", "keyword", "", "q", "sort_key", "author"] {
        assert_eq!(rules().parameter_kind(name), None, "{name}");
    }
    let own = CredentialRules { harmless_parameters: list(&["key"]), ..rules() };
    assert_eq!(own.parameter_kind("KEY"), None);
    let query = "a=1&&api_key=x&token&b=sig";
    let pairs: Vec<_> = rules()
        .credential_parameters(query)
        .map(|pair| (pair.position, pair.name, pair.value))
        .collect();
    assert_eq!(pairs, [(2, "api_key", "x"), (3, "token", "")]);
    assert_eq!(rules().credentials_in_query(Some(query)), Credentials::PARAMETER);
    assert!(rules().credentials_in_query(Some("sig=1")).has(Credentials::SIGNATURE));
    assert_eq!(rules().credentials_in_query(None), Credentials::NONE);
}

#[test]
fn lists_are_in_the_form_in_which_they_are_searched() {
    for list in [&SESSION_COOKIES, &SELECTING_COOKIES, &HARMLESS_COOKIES] {
        assert!(list.iter().all(|name| name.find('*').is_none_or(|star| star >= 3)));
        for name in list.iter().filter(|name| !name.contains('*')) {
            assert!(list.match_name(name.as_bytes()), "{name}");
        }
    }
    for name in SELECTING_COOKIES.iter().chain(HARMLESS_COOKIES.iter()) {
        assert!(!SESSION_COOKIES.match_name(name.replace('*', "x").as_bytes()), "{name}");
    }
}
