//! Names of request fields that commonly identify the client.
//!
//! No standard lists such fields, so the words of a name decide: `X-Shopify-Access-Token` contains
//! the word *token*. A false positive costs hits. A false negative serves one client's response to
//! another.

use super::name::{PatternSet, StaticNameSet, WordSet, is_same};

/// How a field identifies the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityFieldKind {
    /// The name suggests a key, a token, a user or a session.
    Credential,
    /// The name suggests the party that the request is for: a tenant, an organization, an account.
    Tenant,
}

/// Classifies a field name; `None` if it does not identify the client.
///
/// Ignores case, and treats `-` and `_` alike. Does not cover `Authorization` and `Cookie`. First
/// dismisses names that browsers, proxies and tracers send, then compares words.
pub(crate) fn classify(name: &str) -> Option<IdentityFieldKind> {
    let bytes = name.as_bytes();
    if is_everyday(name) || HARMLESS.match_name(bytes) {
        return None;
    }
    if NAMES.match_name(bytes) {
        return Some(IdentityFieldKind::Credential);
    }
    let words = || bytes.split(|byte| matches!(byte, b'-' | b'_' | b'.'));
    if words().any(is_credential_word) {
        return Some(IdentityFieldKind::Credential);
    }
    words().any(|word| TENANT_WORDS.has(word)).then_some(IdentityFieldKind::Tenant)
}

/// Returns whether browsers, proxies or tracers send this field with most requests.
///
/// Such names are dismissed before any comparison of words.
pub(crate) fn is_everyday(name: &str) -> bool {
    name.starts_with("sec-") || EVERYDAY.has(name)
}

/// Names that browsers, proxies and tracers send with most requests, sorted by length.
#[rustfmt::skip]
static EVERYDAY: StaticNameSet = StaticNameSet::new(&[
    "via", "cf-ray", "baggage", "cdn-loop", "priority", "save-data", "x-real-ip", "cf-visitor",
    "tracestate", "traceparent", "x-amz-cf-id", "x-b3-spanid", "cf-ipcountry", "sentry-trace",
    "x-b3-sampled", "x-b3-traceid", "x-csrf-token", "x-request-id", "x-xsrf-token",
    "true-client-ip", "x-forwarded-by", "x-amzn-trace-id", "x-forwarded-for", "cf-connecting-ip",
    "x-forwarded-host", "x-forwarded-port", "x-requested-with", "x-forwarded-proto",
    "x-forwarded-server", "x-cloud-trace-context",
]);

fn is_credential_word(word: &[u8]) -> bool {
    CREDENTIAL_WORDS.has(word)
        || ENDINGS.iter().any(|ending| {
            let start = word.len().checked_sub(ending.len());
            start
                .and_then(|start| word.get(start..))
                .is_some_and(|end| is_same(end, ending.as_bytes()))
        })
}

/// Words that mark a credential. Names are split into words at `-`, `_` and `.`.
pub static CREDENTIAL_WORDS: WordSet = WordSet::new(&[
    "accesskey",
    "assertion",
    "auth",
    "authenticated",
    "authentication",
    "authorization",
    "bearer",
    "clientcert",
    "cookie",
    "cookie2",
    "credential",
    "credentials",
    "dpop",
    "email",
    "group",
    "groups",
    "hmac",
    "identity",
    "jwt",
    "key",
    "login",
    "member",
    "oauth",
    "oidc",
    "otp",
    "passwd",
    "principal",
    "role",
    "roles",
    "saml",
    "session",
    "sid",
    "signature",
    "sso",
    "subject",
    "ticket",
    "tokens",
    "uid",
    "user",
    "userid",
    "userinfo",
    "username",
    "users",
]);

/// Word endings that mark a credential.
pub const ENDINGS: [&str; 5] = ["token", "apikey", "secret", "password", "sessionid"];

/// Names of credentials that contain no word of [`CREDENTIAL_WORDS`].
pub static NAMES: PatternSet = PatternSet::new(&[
    "cf-access-*",
    "client-cert*",
    "client-id",
    "remote-name",
    "ssl-client-*",
    "x-amzn-mtls-*",
    "x-arr-clientcert*",
    "x-authelia-*",
    "x-authentik-*",
    "x-client-cert*",
    "x-client-dn",
    "x-client-id",
    "x-client-verify",
    "x-consumer-*",
    "x-forwarded-client-cert*",
    "x-forwarded-tls-client-cert*",
    "x-goog-iap-*",
    "x-parse-application-id",
    "x-pomerium-*",
    "x-remote-extra-*",
    "x-remote-name",
    "x-ssl-cert*",
    "x-ssl-client-*",
    "x-tls-client-*",
    "x-vouch-*",
    "x-webauth-*",
]);

/// Words that mark a tenant.
pub static TENANT_WORDS: WordSet = WordSet::new(&[
    "account",
    "accountid",
    "company",
    "customer",
    "customerid",
    "org",
    "organisation",
    "organization",
    "orgid",
    "project",
    "shop",
    "store",
    "team",
    "tenant",
    "tenantid",
    "workspace",
]);

/// Names that contain a word for credentials or tenants but do not identify the client.
///
/// Examples are anti-forgery tokens, idempotency keys, trace IDs, and browser descriptions.
pub static HARMLESS: PatternSet = PatternSet::new(&[
    "antiforgery-token",
    "cache-key",
    "correlation-token",
    "csrf*",
    "idempotency-key",
    "request-verification-token",
    "requestverificationtoken",
    "surrogate-key",
    "trace-token",
    "user-agent",
    "x-amz-user-agent",
    "x-antiforgery-token",
    "x-cache-key",
    "x-correlation-token",
    "x-csrf*",
    "x-device-user-agent",
    "x-forwarded-user-agent",
    "x-idempotency-key",
    "x-original-user-agent",
    "x-request-verification-token",
    "x-surrogate-key",
    "x-trace-token",
    "x-user-agent",
    "x-xsrf*",
    "xsrf*",
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_who_asks_are_recognised() {
        for name in [
            "x-api-key",
            "api-key",
            "apikey",
            "x-apikey",
            "x-auth-token",
            "x-access-token",
            "x_api_key",
            "x-session-id",
            "x-user-id",
            "x-amz-security-token",
            "x-goog-api-key",
            "x-username",
            "ocp-apim-subscription-key",
            "x-functions-key",
            "x-shopify-access-token",
            "token",
            "x-token",
            "x-jwt-assertion",
            "x-jwt-payload",
            "x-forwarded-user",
            "x-forwarded-email",
            "x-forwarded-groups",
            "x-forwarded-access-token",
            "x-forwarded-client-cert",
            "remote-user",
            "x-remote-user",
            "x-remote-group",
            "x-client-cert",
            "x-ssl-client-verify",
            "signature",
            "cf-access-jwt-assertion",
            "x-goog-iap-jwt-assertion",
            "x-goog-authenticated-user-email",
            "x-amzn-oidc-data",
            "x-ms-client-principal-id",
            "x-ms-token-aad-access-token",
            "dpop",
            "x-auth-request-email",
            "x-consumer-custom-id",
            "x-parse-session-token",
            "authtoken",
            "x-hub-signature-256",
            "x-secret",
            "proxy-authorization",
            "x-password",
            "cookie2",
        ] {
            assert_eq!(classify(name), Some(IdentityFieldKind::Credential), "{name}");
        }
        for name in ["x-tenant-id", "x-tenant", "x-org-id", "x-account-id", "x_workspace"] {
            assert_eq!(classify(name), Some(IdentityFieldKind::Tenant), "{name}");
        }
    }

    #[test]
    fn names_that_everybody_sends_say_nothing() {
        for name in [
            "host",
            "user-agent",
            "accept-language",
            "x-csrf-token",
            "x-xsrf-token",
            "csrf-token",
            "idempotency-key",
            "sec-fetch-user",
            "sec-websocket-key",
            "x-correlation-token",
            "sec-ch-ua-platform",
            "x-amzn-trace-id",
            "x-forwarded-for",
            "x-requested-with",
            "origin",
            "x-user-agent",
            "x-ms-client-request-id",
            "authority",
            "x-author",
            "keys",
            "turkey",
            "remote-addr",
            "x-ssl-cipher",
            "dnt",
            "x-b3-traceid",
            "x-client-version",
            "x-monkey",
            "access-control-request-headers",
            "x-client-data",
            "forwarded",
            "via",
            "x-datadog-trace-id",
        ] {
            assert_eq!(classify(name), None, "{name}");
        }
    }

    #[test]
    fn lists_are_in_the_form_in_which_they_are_searched() {
        for pattern in NAMES.iter().chain(HARMLESS.iter()) {
            assert!(pattern.find('*').is_none_or(|star| star >= 3), "{pattern}");
        }
        assert!(EVERYDAY.iter().is_sorted_by_key(str::len));
    }
}
