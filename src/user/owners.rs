//! Owner digests, by which purges select a user's responses.

use std::sync::Arc;

use super::{Authenticator, Verifier};

impl Authenticator {
    /// Returns the owner digests by which purges select a user's responses: one for `issuer`, or
    /// one for each configured issuer if it is `None`. Without configured issuers, digests ignore
    /// the issuer.
    pub fn owners(&self, issuer: Option<&str>, claim: &str) -> Vec<Arc<str>> {
        match (issuer, self.issuers()) {
            (Some(issuer), _) => vec![self.owner(issuer, claim)],
            (None, []) => vec![self.owner("", claim)],
            (None, issuers) => issuers.iter().map(|issuer| self.owner(issuer, claim)).collect(),
        }
    }

    /// Returns the configured issuers.
    pub(super) fn issuers(&self) -> &[Box<str>] {
        match &self.verifier {
            Verifier::Token(tokens) => tokens.issuers(),
            Verifier::None | Verifier::Gateway(_) => &[],
        }
    }
}
