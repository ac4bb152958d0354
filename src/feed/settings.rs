//! Settings of the feed: access, and the tags that it shows.

use http::{HeaderValue, header::InvalidHeaderValue};
use url::Url;

use super::reader::Recipient;
use crate::fence::{Purge, Selector};

/// The settings in the `[events]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Web origins that may read the feed.
    pub origins: CorsOrigins,
    /// The tags that clients may see.
    pub tags: Vec<TagPattern>,
    /// Maximum number of listeners.
    pub listeners: usize,
    /// Maximum number of listeners of one user or address.
    pub per_client: usize,
}

/// Allowed web origins (RFC 6454), in addition to the proxy's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    /// Any origin.
    Any,
    /// Only these values of `Origin`.
    Only(Vec<HeaderValue>),
}

/// A pattern of visible tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagPattern {
    /// This tag.
    Exact(Box<str>),
    /// All tags with this prefix.
    Prefix(Box<str>),
    /// Tags with a user name between these texts, visible to that user only.
    User(Box<str>, Box<str>),
}

/// Why a tag pattern is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTagPattern {
    #[error("a tag is empty")]
    Empty,
    #[error("tags cannot contain control characters")]
    Control,
    #[error("`*` is only allowed at the end")]
    Star,
    #[error("the only placeholder is `{{user}}`, at most once")]
    Placeholder,
    #[error("`*` cannot be combined with `{{user}}`: it would match other users")]
    UserStar,
}

/// The text is not a web origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an origin such as `https://app.example.com`, or `*`")]
pub struct InvalidCorsOrigin;

/// The part of a purge that clients may see.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct VisibleTags<'a> {
    pub(super) tags: Vec<&'a str>,
    pub(super) everything: bool,
    /// Private tags with their recipients.
    pub(super) private: Vec<(Recipient, &'a str)>,
}

impl Settings {
    /// Returns whether the feed shows tags of single users.
    pub fn has_user_tags(&self) -> bool {
        self.tags.iter().any(TagPattern::is_of_user)
    }

    /// Returns whether all visible tags are private, so that unidentified clients see nothing.
    pub fn is_for_users_only(&self) -> bool {
        !self.tags.is_empty() && self.tags.iter().all(TagPattern::is_of_user)
    }

    /// Returns the visible part of a purge, or `None` if nothing is visible.
    ///
    /// Only tags are visible: URLs and prefixes would reveal what other users request.
    pub(super) fn visible_tags<'a>(&self, purge: &'a Purge) -> Option<VisibleTags<'a>> {
        let mut shown = VisibleTags { tags: Vec::new(), everything: false, private: Vec::new() };
        for selector in &purge.selectors {
            match ScopedTag::of(selector) {
                Some(ScopedTag { tag, owner: None }) if self.is_public(tag) => shown.tags.push(tag),
                Some(scoped_tag) => shown.private.extend(self.private(&scoped_tag)),
                None if *selector == Selector::Everything => shown.everything = true,
                None => {}
            }
        }
        let is_nothing = !shown.everything && shown.tags.is_empty() && shown.private.is_empty();
        (!is_nothing).then_some(shown)
    }

    fn is_public(&self, tag: &str) -> bool {
        self.tags.iter().any(|pattern| pattern.matches(tag))
    }

    /// Returns a private tag with each of its recipients.
    fn private<'a>(&self, scoped_tag: &ScopedTag<'a>) -> Vec<(Recipient, &'a str)> {
        if !self.has_user_tags() {
            return Vec::new();
        }
        let (tag, owner) = (scoped_tag.tag, scoped_tag.owner.map(Box::from));
        if owner.is_some() && self.is_public(tag) {
            return vec![(Recipient { user: None, owner }, tag)];
        }
        let users = self.tags.iter().filter_map(|pattern| pattern.user_in(tag));
        let recipient = |user: &str| Recipient { user: Some(user.into()), owner: owner.clone() };
        users.map(|user| (recipient(user), tag)).collect()
    }
}

/// The tag of a selector, and the owner whose responses the selector is restricted to, if any.
struct ScopedTag<'a> {
    tag: &'a str,
    owner: Option<&'a str>,
}

impl<'a> ScopedTag<'a> {
    /// Returns the tag of a selector, possibly restricted to an owner, route or version. Returns
    /// `None` if the selector does not have exactly one tag.
    fn of(selector: &'a Selector) -> Option<Self> {
        let terms = match selector {
            Selector::All(terms) => terms,
            one => std::slice::from_ref(one),
        };
        let (mut tag, mut owner) = (None, None);
        for term in terms {
            let known = match term {
                Selector::Route(_) | Selector::Version(_) => continue,
                Selector::Tag(text) => tag.replace(&**text),
                Selector::User(text) => owner.replace(&**text),
                _ => return None,
            };
            if known.is_some() {
                return None;
            }
        }
        Some(Self { tag: tag?, owner })
    }
}

impl TagPattern {
    /// Parses a tag, a prefix followed by `*`, or a tag with `{user}`.
    pub fn parse(text: &str) -> Result<Self, InvalidTagPattern> {
        let (tag, is_prefix) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        if text.is_empty() {
            return Err(InvalidTagPattern::Empty);
        }
        if text.contains(char::is_control) {
            return Err(InvalidTagPattern::Control);
        }
        if let Some((before, after)) = text.split_once("{user}") {
            return Self::of_user(before, after);
        }
        if text.contains(['{', '}']) {
            return Err(InvalidTagPattern::Placeholder);
        }
        if tag.contains('*') {
            return Err(InvalidTagPattern::Star);
        }
        Ok(if is_prefix { Self::Prefix(tag.into()) } else { Self::Exact(tag.into()) })
    }

    fn of_user(before: &str, after: &str) -> Result<Self, InvalidTagPattern> {
        if before.contains(['{', '}']) || after.contains(['{', '}']) {
            return Err(InvalidTagPattern::Placeholder);
        }
        if before.contains('*') || after.contains('*') {
            return Err(InvalidTagPattern::UserStar);
        }
        Ok(Self::User(before.into(), after.into()))
    }

    /// Returns whether everyone may see this tag.
    pub fn matches(&self, tag: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *tag,
            Self::Prefix(prefix) => tag.starts_with(&**prefix),
            Self::User(..) => false,
        }
    }

    /// Returns whether the pattern contains `{user}`.
    pub fn is_of_user(&self) -> bool {
        matches!(self, Self::User(..))
    }

    /// Returns the name of the only user who may see this tag, if the pattern matches.
    fn user_in<'a>(&self, tag: &'a str) -> Option<&'a str> {
        let Self::User(before, after) = self else { return None };
        let user = tag.strip_prefix(&**before)?.strip_suffix(&**after)?;
        (!user.is_empty()).then_some(user)
    }
}

impl Default for CorsOrigins {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

impl CorsOrigins {
    /// Parses a web origin into the form that browsers send.
    pub fn parse(text: &str) -> Result<HeaderValue, InvalidCorsOrigin> {
        let url = Url::parse(text).map_err(|_| InvalidCorsOrigin)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_plain = url.username().is_empty() && url.password().is_none();
        let is_web = matches!(url.scheme(), "http" | "https");
        if !(is_bare && is_plain && is_web) || text.ends_with('/') {
            return Err(InvalidCorsOrigin);
        }
        let origin = url.origin().ascii_serialization();
        HeaderValue::try_from(origin).map_err(|_: InvalidHeaderValue| InvalidCorsOrigin)
    }

    /// Returns the `Access-Control-Allow-Origin` for a request with this `Origin`, or `None` if
    /// that origin is not allowed.
    pub(super) fn allowed_origin(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Only(origins) => origin.filter(|origin| origins.contains(origin)).cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{PurgeMode, PurgeSource};

    fn settings(tags: &[&str]) -> Settings {
        let tags = tags.iter().map(|text| TagPattern::parse(text).unwrap()).collect();
        Settings { origins: CorsOrigins::default(), tags, listeners: 1, per_client: 1 }
    }

    fn purge(selectors: Vec<Selector>) -> Purge {
        Purge {
            mode: PurgeMode::Hard,
            selectors,
            source: PurgeSource::Api,
            reason: Some("why".to_owned()),
            warm: false,
        }
    }

    #[test]
    fn only_visible_tags_are_sent() {
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
        let shown = settings.visible_tags(&mixed).unwrap();
        assert_eq!((shown.tags, shown.everything), (vec!["tile:a", "kpi", "tile:"], false));
        assert_eq!(settings.visible_tags(&of(vec![tag("secret")])), None);
        assert_eq!(settings.visible_tags(&of(vec![Selector::Url("/kpi".into())])), None);
        assert_eq!(settings.visible_tags(&of(vec![Selector::Prefix("/".into())])), None);
        assert_eq!(settings.visible_tags(&Purge::boundary()), None);
        let all = of(vec![Selector::Everything, tag("secret")]);
        let expected = VisibleTags { tags: vec![], everything: true, private: vec![] };
        assert_eq!(settings.visible_tags(&all), Some(expected));
    }

    #[test]
    fn a_users_tag_is_for_that_user_and_an_owners_for_the_owner() {
        let settings = settings(&["kpi", "stocks:{user}"]);
        assert!(settings.has_user_tags() && !settings.is_for_users_only());
        let tag = |tag: &str| Selector::Tag(tag.into());
        let of_owner = |tag| Selector::All([Selector::User("o".into()), tag].into());
        let shown = |selectors| {
            let purge = purge(selectors);
            let shown = settings.visible_tags(&purge)?;
            assert!(!shown.everything);
            let private = shown.private.iter();
            let private = private.map(|(to, tag)| {
                (to.user.as_deref().map(str::to_owned), to.owner.is_some(), (*tag).to_owned())
            });
            Some((shown.tags.iter().map(ToString::to_string).collect(), private.collect()))
        };
        let to =
            |user: Option<&str>, owner, tag: &str| (user.map(str::to_owned), owner, tag.to_owned());
        let none = Vec::<String>::new;
        let own = vec![to(Some("42"), false, "stocks:42")];
        assert_eq!(shown(vec![tag("stocks:42")]), Some((none(), own)));
        let both = vec![to(Some("42"), true, "stocks:42")];
        assert_eq!(shown(vec![of_owner(tag("stocks:42"))]), Some((none(), both)));
        let owned = vec![to(None, true, "kpi")];
        assert_eq!(shown(vec![of_owner(tag("kpi"))]), Some((none(), owned)));
        assert_eq!(shown(vec![tag("stocks:"), of_owner(tag("secret"))]), None);
        assert_eq!(shown(vec![of_owner(Selector::Url("/a".into()))]), None);
    }

    #[test]
    fn patterns_are_exact_or_end_in_a_star() {
        assert_eq!(TagPattern::parse("a"), Ok(TagPattern::Exact("a".into())));
        assert_eq!(TagPattern::parse("a:*"), Ok(TagPattern::Prefix("a:".into())));
        assert_eq!(TagPattern::parse("*"), Ok(TagPattern::Prefix("".into())));
        assert_eq!(TagPattern::parse(""), Err(InvalidTagPattern::Empty));
        assert_eq!(TagPattern::parse("a*b"), Err(InvalidTagPattern::Star));
        assert_eq!(TagPattern::parse("a**"), Err(InvalidTagPattern::Star));
        assert_eq!(TagPattern::parse("a:{user}!"), Ok(TagPattern::User("a:".into(), "!".into())));
        assert_eq!(TagPattern::parse("a:{name}"), Err(InvalidTagPattern::Placeholder));
        assert_eq!(TagPattern::parse("{user}:{user}"), Err(InvalidTagPattern::Placeholder));
        assert_eq!(TagPattern::parse("a:{user}*"), Err(InvalidTagPattern::UserStar));
        assert_eq!(TagPattern::parse("a\n"), Err(InvalidTagPattern::Control));
    }

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        let origin = CorsOrigins::parse("HTTPS://App.example.com:443").unwrap();
        assert_eq!(origin, "https://app.example.com");
        assert_eq!(CorsOrigins::parse("http://[::1]:8080").unwrap(), "http://[::1]:8080");
        for wrong in ["app.example.com", "https://a/", "https://a/b", "https://u@a", "ftp://a", ""]
        {
            assert_eq!(CorsOrigins::parse(wrong), Err(InvalidCorsOrigin), "{wrong}");
        }
        let only = CorsOrigins::Only(vec![origin.clone()]);
        assert_eq!(only.allowed_origin(Some(&origin)), Some(origin.clone()));
        assert_eq!(
            only.allowed_origin(Some(&HeaderValue::from_static("https://evil.example"))),
            None
        );
        assert_eq!(only.allowed_origin(None), None);
        assert_eq!(CorsOrigins::Any.allowed_origin(Some(&origin)).unwrap(), "*");
    }
}
