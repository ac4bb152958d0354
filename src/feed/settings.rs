//! What the configuration makes of the feed: whom it is for, and what it shows.

use http::{HeaderValue, header::InvalidHeaderValue};
use url::Url;

use crate::fence::{Purge, Selector};

/// The section `[events]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Pages of which other origins may read the feed.
    pub origins: Origins,
    /// The tags that are shown.
    pub tags: Vec<TagPattern>,
    /// How many may listen at once; further ones are refused.
    pub listeners: usize,
}

/// Origins in the sense of browsers (RFC 6454), beside the proxy's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Every one.
    Any,
    /// These, as browsers write them in `Origin`.
    Only(Vec<HeaderValue>),
}

/// Which tags are shown: one, or all that begin like this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagPattern {
    /// Exactly this.
    Exact(Box<str>),
    /// What begins like this.
    Prefix(Box<str>),
}

/// Why a text is no pattern of tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It is empty.
    #[error("a tag is empty")]
    Empty,
    /// It has control characters.
    #[error("a tag has no control characters")]
    Control,
    /// A `*` stands before its end.
    #[error("a `*` stands at the end only")]
    Star,
    /// It has a placeholder.
    #[error(
        "there are no placeholders here: who listens is not known, and sees what everybody sees"
    )]
    Placeholder,
}

/// A text is no origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is an origin, as in `https://app.example.com`, or `*`")]
pub struct InvalidOrigin;

/// What of a purge clients are shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown<'a> {
    /// The tags, as far as they are shown.
    pub(super) tags: Vec<&'a str>,
    /// Whether it selects everything.
    pub(super) everything: bool,
}

impl Settings {
    /// What clients are shown of a purge; none where that is nothing.
    ///
    /// Everything but tags stays hidden: a URL or a prefix tells what others look at.
    pub(super) fn shown<'a>(&self, purge: &'a Purge) -> Option<Shown<'a>> {
        let mut shown = Shown { tags: Vec::new(), everything: false };
        for selector in &purge.selectors {
            match shared(selector) {
                Selector::Tag(tag) if self.tags.iter().any(|pattern| pattern.matches(tag)) => {
                    shown.tags.push(tag);
                }
                Selector::Everything => shown.everything = true,
                _ => {}
            }
        }
        (shown.everything || !shown.tags.is_empty()).then_some(shown)
    }
}

/// What a selector says of the responses that are for everyone: a tag among those of a route or a version
/// is told of like the tag. What is purged of one user's is nobody else's business.
fn shared(selector: &Selector) -> &Selector {
    let Selector::All(selectors) = selector else { return selector };
    let is_bound = |one: &&Selector| matches!(one, Selector::Route(_) | Selector::Version(_));
    let mut wanted = selectors.iter().filter(|one| !is_bound(one));
    match (wanted.next(), wanted.next()) {
        (Some(tag @ Selector::Tag(_)), None) => tag,
        _ => selector,
    }
}

impl TagPattern {
    /// Reads a tag, or a prefix with a `*` after it.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let (tag, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if text.is_empty() {
            return Err(InvalidPattern::Empty);
        }
        if text.contains(char::is_control) {
            return Err(InvalidPattern::Control);
        }
        if text.contains(['{', '}']) {
            return Err(InvalidPattern::Placeholder);
        }
        if tag.contains('*') {
            return Err(InvalidPattern::Star);
        }
        Ok(if is_prefix { Self::Prefix(tag.into()) } else { Self::Exact(tag.into()) })
    }

    /// Whether this tag is shown.
    pub fn matches(&self, tag: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *tag,
            Self::Prefix(prefix) => tag.starts_with(&**prefix),
        }
    }
}

impl Default for Origins {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl Origins {
    /// Reads one origin into the form in which browsers write it.
    pub fn parse(text: &str) -> Result<HeaderValue, InvalidOrigin> {
        let url = Url::parse(text).map_err(|_| InvalidOrigin)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_plain = url.username().is_empty() && url.password().is_none();
        let is_web = matches!(url.scheme(), "http" | "https");
        if !(is_bare && is_plain && is_web) || text.ends_with('/') {
            return Err(InvalidOrigin);
        }
        let origin = url.origin().ascii_serialization();
        HeaderValue::try_from(origin).map_err(|_: InvalidHeaderValue| InvalidOrigin)
    }

    /// The `Access-Control-Allow-Origin` for a request with this `Origin`.
    pub(super) fn allow(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Only(origins) => origin.filter(|origin| origins.contains(origin)).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{Mode, Source};

    fn settings(tags: &[&str]) -> Settings {
        let tags = tags.iter().map(|text| TagPattern::parse(text).unwrap()).collect();
        Settings { origins: Origins::default(), tags, listeners: 1 }
    }

    fn purge(selectors: Vec<Selector>) -> Purge {
        Purge {
            mode: Mode::Hard,
            selectors,
            source: Source::Api,
            reason: Some("why".to_owned()),
            warm: false,
        }
    }

    #[test]
    fn only_tags_that_are_shown_leave_the_house() {
        let settings = settings(&["tile:*", "kpi"]);
        let tag = |tag: &str| Selector::Tag(tag.into());
        let of = |selectors| purge(selectors);
        let mixed = of(vec![
            tag("tile:a"),
            tag("secret"),
            tag("kpi"),
            tag("kpi2"),
            tag("xtile:b"),
            tag("tile:"),
            Selector::Url("h/tile:a".into()),
            Selector::Prefix("tile:".into()),
            Selector::All([Selector::User("u".into()), tag("tile:of-user")].into()),
        ]);
        let shown = settings.shown(&mixed).unwrap();
        assert_eq!((shown.tags, shown.everything), (vec!["tile:a", "kpi", "tile:"], false));
        assert_eq!(settings.shown(&of(vec![tag("secret")])), None);
        assert_eq!(settings.shown(&of(vec![Selector::Url("/kpi".into())])), None);
        assert_eq!(settings.shown(&of(vec![Selector::Prefix("/".into())])), None);
        assert_eq!(settings.shown(&Purge::boundary()), None);
        let all = of(vec![Selector::Everything, tag("secret")]);
        assert_eq!(settings.shown(&all), Some(Shown { tags: vec![], everything: true }));
    }

    #[test]
    fn patterns_are_exact_or_end_in_a_star() {
        assert_eq!(TagPattern::parse("a"), Ok(TagPattern::Exact("a".into())));
        assert_eq!(TagPattern::parse("a:*"), Ok(TagPattern::Prefix("a:".into())));
        assert_eq!(TagPattern::parse("*"), Ok(TagPattern::Prefix("".into())));
        assert_eq!(TagPattern::parse(""), Err(InvalidPattern::Empty));
        assert_eq!(TagPattern::parse("a*b"), Err(InvalidPattern::Star));
        assert_eq!(TagPattern::parse("a**"), Err(InvalidPattern::Star));
        assert_eq!(TagPattern::parse("a:{user}"), Err(InvalidPattern::Placeholder));
        assert_eq!(TagPattern::parse("a\n"), Err(InvalidPattern::Control));
    }

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        let origin = Origins::parse("HTTPS://App.example.com:443").unwrap();
        assert_eq!(origin, "https://app.example.com");
        assert_eq!(Origins::parse("http://[::1]:8080").unwrap(), "http://[::1]:8080");
        for wrong in ["app.example.com", "https://a/", "https://a/b", "https://u@a", "ftp://a", ""]
        {
            assert_eq!(Origins::parse(wrong), Err(InvalidOrigin), "{wrong}");
        }
        let only = Origins::Only(vec![origin.clone()]);
        assert_eq!(only.allow(Some(&origin)), Some(origin.clone()));
        assert_eq!(only.allow(Some(&HeaderValue::from_static("https://evil.example"))), None);
        assert_eq!(only.allow(None), None);
        assert_eq!(Origins::Any.allow(Some(&origin)).unwrap(), "*");
    }
}
