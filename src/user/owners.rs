//! By which names purges select what belongs to a user.

use std::sync::Arc;

use super::{Authenticator, Verifier};

impl Authenticator {
    /// Returns the owners by which purges select what belongs to a user: under this issuer, or else under
    /// each that the configuration names. If it names none, issuers make no difference.
    pub fn owners(&self, issuer: Option<&str>, claim: &str) -> Vec<Arc<str>> {
        match (issuer, self.issuers()) {
            (Some(issuer), _) => vec![self.owner(issuer, claim)],
            (None, []) => vec![self.owner("", claim)],
            (None, issuers) => issuers.iter().map(|issuer| self.owner(issuer, claim)).collect(),
        }
    }

    /// The issuers that the configuration names.
    pub(super) fn issuers(&self) -> &[Box<str>] {
        match &self.verifier {
            Verifier::Token(tokens) => tokens.issuers(),
            Verifier::None | Verifier::Gateway(_) => &[],
        }
    }
}
