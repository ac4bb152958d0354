//! What selectors look at.

use std::sync::Arc;

/// A response, or one that is still to come, as selectors see it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a, Tags> {
    /// The URL in its normal form: `host/path?query`.
    pub url: &'a [u8],
    /// The tags.
    pub tags: Tags,
    /// What else it is known by.
    pub facets: Facets<'a>,
}

/// What a response is known by besides URL and tags: one of each at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Facets<'a> {
    /// Whose it is; none where it is for everyone.
    pub user: Option<&'a str>,
    /// The name of the route under which it was stored.
    pub route: Option<&'a str>,
    /// The version of the namespace in which it is stored.
    pub version: Option<&'a str>,
}

/// [`Facets`] that belong to nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct OwnFacets {
    /// Whose it is; none where it is for everyone.
    pub user: Option<Arc<str>>,
    /// The name of the route under which it is stored.
    pub route: Option<Arc<str>>,
    /// The version of the namespace in which it is stored.
    pub version: Option<Arc<str>>,
}

impl From<Facets<'_>> for OwnFacets {
    fn from(facets: Facets<'_>) -> Self {
        let Facets { user, route, version } = facets;
        let [user, route, version] = [user, route, version].map(|facet| facet.map(Arc::from));
        Self { user, route, version }
    }
}

impl OwnFacets {
    /// The same, borrowed.
    pub fn as_facets(&self) -> Facets<'_> {
        Facets {
            user: self.user.as_deref(),
            route: self.route.as_deref(),
            version: self.version.as_deref(),
        }
    }
}
