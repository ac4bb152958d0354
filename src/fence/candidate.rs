//! What selectors look at.

use std::sync::Arc;

/// A response, or one that is still to come, as selectors see it.
#[derive(Debug, Clone, Copy)]
pub struct PurgeCandidate<'a, Tags> {
    /// The URL in its normal form: `host/path?query`.
    pub url: &'a [u8],
    /// The tags.
    pub tags: Tags,
    /// What else it is known by.
    pub attributes: ResponseAttributes<'a>,
}

/// What a response is known by besides URL and tags: one of each at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ResponseAttributes<'a> {
    /// Whose it is; none where it is for everyone.
    pub user: Option<&'a str>,
    /// The name of the route under which it was stored.
    pub route: Option<&'a str>,
    /// The version of the namespace in which it is stored.
    pub version: Option<&'a str>,
}

/// [`ResponseAttributes`] that belong to nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct OwnedResponseAttributes {
    /// Whose it is; none where it is for everyone.
    pub user: Option<Arc<str>>,
    /// The name of the route under which it is stored.
    pub route: Option<Arc<str>>,
    /// The version of the namespace in which it is stored.
    pub version: Option<Arc<str>>,
}

impl From<ResponseAttributes<'_>> for OwnedResponseAttributes {
    fn from(attributes: ResponseAttributes<'_>) -> Self {
        let ResponseAttributes { user, route, version } = attributes;
        let [user, route, version] =
            [user, route, version].map(|attribute| attribute.map(Arc::from));
        Self { user, route, version }
    }
}

impl OwnedResponseAttributes {
    /// The same, borrowed.
    pub fn as_attributes(&self) -> ResponseAttributes<'_> {
        ResponseAttributes {
            user: self.user.as_deref(),
            route: self.route.as_deref(),
            version: self.version.as_deref(),
        }
    }
}
