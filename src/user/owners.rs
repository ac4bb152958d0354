//! By which names purges select what belongs to a user.

use std::sync::Arc;

use super::Users;

impl Users {
    /// Returns the owners by which purges select what belongs to a user: under this issuer, or else under
    /// each that the configuration accepts.
    pub fn owners(&self, issuer: Option<&str>, claim: &str) -> Vec<Arc<str>> {
        vec![self.owner(issuer.unwrap_or_default(), claim)]
    }
}
