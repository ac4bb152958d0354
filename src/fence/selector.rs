//! Selectors: which responses a purge selects.

use serde::{Deserialize, Serialize};

use super::{
    PurgeCandidate, ResponseAttributes, glob,
    url::{has_prefix, path_of, with_trailing_slash},
};

/// A selector of responses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// Responses with exactly this tag.
    Tag(Box<str>),
    /// All variants of one URL, in the normal form `host/path?query` of the cache key.
    ///
    /// Without a host, the selector applies to the path on every host. Scheme and default port are
    /// omitted.
    Url(Box<str>),
    /// Every URL whose normal form begins with this text.
    Prefix(Box<str>),
    /// Every URL that matches this pattern; each `*` matches any text, including none.
    ///
    /// Without a host, the selector applies to the path on every host.
    Pattern(Box<str>),
    /// Every response.
    Everything,
    /// The responses of this user.
    User(Box<str>),
    /// The responses of the route with this name.
    Route(Box<str>),
    /// The responses of this namespace version.
    Version(Box<str>),
    /// The origin's acceptance of the credential with this digest. Selects no response.
    Credential(Box<str>),
    /// Responses that all of these selectors select. An empty list selects everything.
    All(Box<[Self]>),
}

impl Selector {
    /// Returns whether the selector selects a response.
    ///
    /// A [`PurgeTable`](super::PurgeTable) gives the same result by hash, or selects more
    /// responses.
    pub fn selects<'a>(
        &self,
        candidate: &PurgeCandidate<'_, impl Iterator<Item = &'a str> + Clone>,
    ) -> bool {
        self.matches(candidate.url, candidate.attributes, &|tag| {
            candidate.tags.clone().any(|known| known == tag)
        })
    }

    /// Like [`selects`](Self::selects), with a predicate instead of the response's tags.
    pub(super) fn matches(
        &self,
        url: &[u8],
        attributes: ResponseAttributes<'_>,
        has_tag: &dyn Fn(&str) -> bool,
    ) -> bool {
        let path = || path_of(url).unwrap_or_default();
        let form = |text: &str| if text.starts_with('/') { path() } else { url };
        match self {
            Self::Everything => true,
            Self::Tag(tag) => has_tag(tag),
            Self::Url(wanted) => [url, path()].contains(&wanted.as_bytes()),
            Self::Prefix(prefix) => {
                [url, path()].iter().any(|it| has_prefix(it, prefix.as_bytes()))
            }
            Self::Pattern(pattern) => {
                let text = form(pattern);
                glob::matches(pattern, text)
                    || with_trailing_slash(text).is_some_and(|with_trailing_slash| {
                        glob::matches(pattern, &with_trailing_slash)
                    })
            }
            Self::User(user) => attributes.user == Some(user),
            Self::Route(route) => attributes.route == Some(route),
            Self::Version(version) => attributes.version == Some(version),
            Self::Credential(digest) => has_tag(&credential_tag(digest)),
            Self::All(selectors) => selectors.iter().all(|it| it.matches(url, attributes, has_tag)),
        }
    }

    /// Returns the terms of a conjunction as a flat list.
    pub(super) fn terms(&self) -> Vec<&Self> {
        match self {
            Self::All(selectors) => selectors.iter().flat_map(Self::terms).collect(),
            one => vec![one],
        }
    }
}

/// Returns the reserved tag of a credential.
///
/// The tag starts with a control character, which tags of responses never contain.
pub fn credential_tag(digest: &str) -> String {
    format!("\u{1}{digest}")
}
