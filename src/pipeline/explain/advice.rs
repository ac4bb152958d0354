//! Advice to operators, by reason.

use crate::{policy::Reason, user::Authenticator};

/// Returns what an operator can do about a reason, if anything.
pub(super) fn advice_on(reason: Reason, users: &Authenticator) -> Option<&'static str> {
    Some(match reason {
        Reason::NoIdentity if !users.is_configured() => {
            "send a session cookie or a key; list it in `[user]` if its name says nothing"
        }
        Reason::NoIdentity if users.claim().is_none() => {
            "send the field of `user.header` from an address in `from` (with `larder explain`, say `--from`)"
        }
        Reason::RuleBypass => "see `cache` and `bypass` of the route",
        Reason::Misdirected => "add the host to `hosts`",
        Reason::AmbiguousTarget => {
            "ask for the path in its plain spelling, and without headers that replace method or target"
        }
        Reason::Authorization | Reason::CookieRequest | Reason::CredentialField => {
            "give the route a `partition`, or let the origin say `public` if everyone may have the response"
        }
        Reason::UnknownCookie => {
            "list the cookie in `user.harmless_cookies`, `user.selecting_cookies` or the route's `vary.cookies`"
        }
        Reason::AmbiguousCookie => "let clients send each cookie once, in the form of RFC 6265",
        Reason::SignedTarget => {
            "let the origin send `max-age`, not longer than the signature holds"
        }
        Reason::NoIdentity | Reason::UnverifiedToken => {
            "send a valid token, and check `[user]`: key, issuer and audience"
        }
        Reason::SecondCredential => {
            "list the other credential as harmless in `[user]` if it says nothing about who asks"
        }
        Reason::VaryCredential => "`partition = \"user\"` stores it, for its user alone",
        Reason::CredentialsNeeded => "use `partition = \"authenticated\"`: it keeps credentials",
        Reason::SetCookie => {
            "let the origin set cookies on other responses, or say `public` and `max-age` beside them"
        }
        Reason::Private => "`partition = \"user\"` stores private responses, for their user alone",
        Reason::VaryStar => "let the origin name the request headers in `Vary` that it looks at",
        Reason::StatusNotCacheable => {
            "give the status a time of its own, as in `ttl = { \"404\" = \"10s\" }`"
        }
        Reason::NoFreshness => "give the route a `ttl`, or let the origin send `max-age`",
        Reason::ZeroTtl => "`ttl_from = \"rule\"` lets the route's `ttl` win over the origin",
        Reason::TooLarge => "raise `store.max_object`",
        Reason::IgnoredParameter => "leave `query.forward` at `kept`",
        _ => return None,
    })
}
