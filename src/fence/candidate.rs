//! The properties of a response that selectors match.

use std::sync::Arc;

/// The properties by which selectors match a stored or expected response.
#[derive(Debug, Clone, Copy)]
pub struct PurgeCandidate<'a, Tags> {
    /// The normalised URL: `host/path?query`.
    pub url: &'a [u8],
    /// The tags of the response.
    pub tags: Tags,
    /// The properties of the response other than URL and tags.
    pub attributes: ResponseAttributes<'a>,
}

/// Properties of a response other than URL and tags, with at most one value each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ResponseAttributes<'a> {
    /// The owner; `None` if the response is shared by everyone.
    pub user: Option<&'a str>,
    /// The name of the route under which the response is stored.
    pub route: Option<&'a str>,
    /// The namespace version in which the response is stored.
    pub version: Option<&'a str>,
}

/// The owned form of [`ResponseAttributes`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct OwnedResponseAttributes {
    /// The owner; `None` if the response is shared by everyone.
    pub user: Option<Arc<str>>,
    /// The name of the route under which the response is stored.
    pub route: Option<Arc<str>>,
    /// The namespace version in which the response is stored.
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
    /// Borrows the attributes.
    pub fn as_attributes(&self) -> ResponseAttributes<'_> {
        ResponseAttributes {
            user: self.user.as_deref(),
            route: self.route.as_deref(),
            version: self.version.as_deref(),
        }
    }
}
