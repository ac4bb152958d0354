//! Sharing of responses among requests with credentials (RFC 9111 §3.5).

use super::{Credentials, Freshness, Reason, freshness::Constraints};

impl Freshness {
    /// Returns the reason for not sharing the response with these credentials, if there is one.
    ///
    /// `Authorization` requires `public`, `s-maxage` or `must-revalidate` (RFC 9111 §3.5). Other
    /// fields and session cookies require `public` or `s-maxage`. An unknown cookie, or a signature
    /// in the query, requires freshness from the origin itself, or a response that is validated
    /// before each use.
    pub fn sharing_refusal(&self, credentials: Credentials) -> Option<Reason> {
        if credentials == Credentials::NONE || self.constraints.has_any(Constraints::SHAREABLE) {
            return None;
        }
        let revalidates = self.constraints.has_any(Constraints::MUST_REVALIDATE);
        let is_guess =
            !self.lifetime.is_zero() && !self.constraints.has_any(Constraints::FRESH_BY_ORIGIN);
        let refusals = [
            (Credentials::AUTHORIZATION, !revalidates, Reason::Authorization),
            (Credentials::FIELD, true, Reason::CredentialField),
            (Credentials::SESSION_COOKIE, true, Reason::CookieRequest),
            (Credentials::SIGNATURE, is_guess, Reason::SignedTarget),
            (Credentials::UNKNOWN_COOKIE, is_guess, Reason::UnknownCookie),
        ];
        let mut refusals = refusals.into_iter();
        refusals
            .find(|(carried, applies, _)| *applies && credentials.has(*carried))
            .map(|(_, _, reason)| reason)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::field::Timestamp;

    #[test]
    fn what_is_shared_depends_on_what_the_origin_says() {
        let freshness = |lifetime: u64, constraints| Freshness {
            received_at: Timestamp::from_seconds(1),
            initial_age: Duration::ZERO,
            lifetime: Duration::from_secs(lifetime),
            stale_while_revalidate: None,
            stale_if_error: None,
            usable_for: None,
            constraints,
        };
        let guess = freshness(60, Constraints::default());
        let explicit = freshness(60, Constraints::FRESH_BY_ORIGIN);
        let validated = freshness(0, Constraints::default());
        let revalidated =
            freshness(60, Constraints::FRESH_BY_ORIGIN.with(Constraints::MUST_REVALIDATE));
        let public = freshness(60, Constraints::SHAREABLE);
        let all = [&guess, &explicit, &validated, &revalidated, &public];
        let withheld =
            |credentials| all.map(|freshness| freshness.sharing_refusal(credentials).is_some());
        assert_eq!(withheld(Credentials::NONE), [false; 5]);
        assert_eq!(withheld(Credentials::PARAMETER), [false; 5]);
        assert_eq!(withheld(Credentials::AUTHORIZATION), [true, true, true, false, false]);
        assert_eq!(withheld(Credentials::FIELD), [true, true, true, true, false]);
        assert_eq!(withheld(Credentials::SESSION_COOKIE), [true, true, true, true, false]);
        assert_eq!(withheld(Credentials::UNKNOWN_COOKIE), [true, false, false, false, false]);
        assert_eq!(withheld(Credentials::SIGNATURE), [true, false, false, false, false]);
        let both = Credentials::AUTHORIZATION.with(Credentials::SESSION_COOKIE);
        assert_eq!(revalidated.sharing_refusal(both), Some(Reason::CookieRequest));
        assert_eq!(guess.sharing_refusal(both), Some(Reason::Authorization));
    }
}
