//! Selectors: what a purge selects.

use serde::{Deserialize, Serialize};

use super::{
    PurgeCandidate, ResponseAttributes, glob,
    selector_index::{directory, path_of},
};

/// What a purge selects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// Responses with exactly this tag.
    Tag(Box<str>),
    /// All variants of one URL: `host/path?query` in the normal form of the cache key, without scheme
    /// and default port; from the path on, it means this target on any host.
    Url(Box<str>),
    /// Every URL whose normal form begins with this text, written like a URL.
    Prefix(Box<str>),
    /// Every URL whose normal form is this text, where each `*` stands for any text, even for none;
    /// from the path on, it means these targets on any host.
    Pattern(Box<str>),
    /// Every response.
    Everything,
    /// The responses that are this user's.
    User(Box<str>),
    /// Those stored under the route of this name.
    Route(Box<str>),
    /// Those stored in this version of the namespace.
    Version(Box<str>),
    /// What was noted of this credential, by its digest: that the origin accepts it. No response.
    Credential(Box<str>),
    /// What each of these selects; everything, where there are none.
    All(Box<[Self]>),
}

impl Selector {
    /// Whether it selects this response.
    ///
    /// A [`PurgeTable`](super::PurgeTable) says the same without looking at each selector, or selects more.
    pub fn selects<'a>(
        &self,
        candidate: &PurgeCandidate<'_, impl Iterator<Item = &'a str> + Clone>,
    ) -> bool {
        self.matches(candidate.url, candidate.attributes, &|tag| {
            candidate.tags.clone().any(|known| known == tag)
        })
    }

    /// The same where `has_tag` says which tags there are.
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

    /// The selectors all of which it takes, none of them of several.
    pub(super) fn terms(&self) -> Vec<&Self> {
        match self {
            Self::All(selectors) => selectors.iter().flat_map(Self::terms).collect(),
            one => vec![one],
        }
    }
}

/// The tag of what is noted of a credential. No response has it: tags have no control characters.
pub fn credential_tag(digest: &str) -> String {
    format!("\u{1}{digest}")
}

/// Whether a URL begins with a prefix; `/a` also with `/a/`, since its form has no trailing slash.
fn has_prefix(url: &[u8], prefix: &[u8]) -> bool {
    url.starts_with(prefix) || directory(url).is_some_and(|directory| directory == prefix)
}

/// The URL with a slash at the end of its path, if it has none.
fn with_trailing_slash(url: &[u8]) -> Option<Vec<u8>> {
    let mut with_trailing_slash = directory(url)?;
    with_trailing_slash.extend_from_slice(url.get(with_trailing_slash.len() - 1..)?);
    Some(with_trailing_slash)
}
