//! Advice to operators, by reason.

use crate::{policy::Reason, user::Authenticator};

/// Returns what an operator can do about a reason; `None` if there is nothing to do.
pub(super) fn advice_on(reason: Reason, users: &Authenticator) -> Option<&'static str> {
    Some(match reason {
        Reason::NoIdentity if !users.is_configured() => {
            "send a session cookie or a key; list it in `[user]` if its name is unusual"
        }
        Reason::NoIdentity if users.claim().is_none() => {
            "send the `user.header` field from an address in `from` (with `larder explain`, pass `--from`)"
        }
        Reason::Quarantined => {
            "correct the route's `partition` or the origin, then run `larder quarantine --clear ROUTE`; `larder quarantine` lists what differs"
        }
        Reason::BodyNotJson => {
            "send `Content-Type: application/json`, or set `key = \"body\"` if every POST on the route reads"
        }
        Reason::BodyKeyTooLarge => "send at most 64 KiB, or a `GET` for a stored query",
        Reason::Shadow => {
            "see the results with `larder shadow`, then remove `shadow` from the route"
        }
        Reason::RuleBypass => "check `cache` and `bypass` of the route",
        Reason::Misdirected => "add the host to `hosts`",
        Reason::AmbiguousTarget => {
            "request the path in its plain spelling, and without headers that override method or target"
        }
        Reason::Authorization | Reason::CookieRequest | Reason::CredentialField => {
            "set a `partition` on the route, or have the origin send `public` if the response is for everyone"
        }
        Reason::UnknownCookie => {
            "list the cookie in `user.harmless_cookies`, `user.selecting_cookies` or the route's `vary.cookies`"
        }
        Reason::AmbiguousCookie => "have clients send each cookie once, in the form of RFC 6265",
        Reason::SignedTarget => {
            "have the origin send a `max-age` no longer than the signature is valid"
        }
        Reason::NoIdentity | Reason::UnverifiedToken => {
            "send a valid token, and check `[user]`: key, issuer and audience"
        }
        Reason::SecondCredential => {
            "list the other credential as harmless in `[user]` if it does not identify the user"
        }
        Reason::VaryCredential => {
            "use `partition = \"user\"`: it stores the response for its user only"
        }
        Reason::CredentialsNeeded => "use `partition = \"authenticated\"`: it keeps credentials",
        Reason::SetCookie => {
            "have the origin set cookies on other responses, or send `public` and `max-age` with them"
        }
        Reason::Private => {
            "use `partition = \"user\"`: it stores private responses for their user only"
        }
        Reason::VaryStar => "have the origin list the request headers that it uses in `Vary`",
        Reason::StatusNotCacheable => {
            "set a `ttl` for the status, as in `ttl = { \"404\" = \"10s\" }`"
        }
        Reason::NoFreshness => "set a `ttl` on the route, or have the origin send `max-age`",
        Reason::ZeroTtl => "set `ttl_from = \"rule\"`: then the route's `ttl` overrides the origin",
        Reason::TooLarge => "raise `store.max_object`",
        Reason::IgnoredParameter => "leave `query.forward` at `kept`",
        _ => return None,
    })
}
