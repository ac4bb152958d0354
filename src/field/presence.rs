//! Which fields a request carries, as far as a cache cares.

use http::{HeaderMap, HeaderName, header};

use super::forwarding::{Forwarding, OVERRIDES, is_misspelt};

/// A set of the request fields that concern a cache.
///
/// Found in one pass over the names, where a dozen look-ups would hash each name they look for: most
/// requests carry few of them, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Presence(u16);

impl Presence {
    /// `Cache-Control` or `Pragma`.
    pub const DIRECTIVES: Self = Self(1);
    /// `Authorization` or `Cookie`.
    pub const CREDENTIALS: Self = Self(1 << 1);
    /// `If-None-Match` or `If-Modified-Since`: a cache may judge them.
    pub const CONDITION: Self = Self(1 << 2);
    /// `If-Match` or `If-Unmodified-Since`: only the origin may.
    pub const ORIGIN_CONDITION: Self = Self(1 << 3);
    /// `Range`.
    pub const RANGE: Self = Self(1 << 4);
    /// `Upgrade`.
    pub const UPGRADE: Self = Self(1 << 5);
    /// `Via`.
    pub const VIA: Self = Self(1 << 6);
    /// `Connection`.
    pub const CONNECTION: Self = Self(1 << 8);

    /// A field that some origins take for the method or the target of the request.
    pub const OVERRIDE: Self = Self(1 << 7);
    /// A field by which proxies tell of a request, see [`Forwarding`].
    pub const FORWARDING: Self = Self(1 << 9);
    /// A name with `_` that origins may take for a field that decides how the request is read.
    pub const MISSPELT: Self = Self(1 << 10);

    /// Looks through the names of a header section.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |found, name| Self(found.0 | Self::by_name(name).0))
    }

    /// Whether any of these is there.
    pub const fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn by_name(name: &HeaderName) -> Self {
        match *name {
            header::CACHE_CONTROL | header::PRAGMA => Self::DIRECTIVES,
            header::AUTHORIZATION | header::COOKIE => Self::CREDENTIALS,
            header::IF_NONE_MATCH | header::IF_MODIFIED_SINCE => Self::CONDITION,
            header::IF_MATCH | header::IF_UNMODIFIED_SINCE => Self::ORIGIN_CONDITION,
            header::RANGE => Self::RANGE,
            header::UPGRADE => Self::UPGRADE,
            header::VIA => Self::VIA,
            header::CONNECTION => Self::CONNECTION,
            header::HOST | header::ACCEPT | header::USER_AGENT => Self::default(),
            _ if Forwarding::of(name.as_str()).is_some() => Self::FORWARDING,
            _ if OVERRIDES.contains(&name.as_str()) => Self::OVERRIDE,
            _ if is_misspelt(name) => Self::MISSPELT,
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        let mut headers = HeaderMap::new();
        assert_eq!(Presence::of(&headers), Presence::default());
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        assert_eq!(Presence::of(&headers), Presence::default());
        headers.insert(header::COOKIE, HeaderValue::from_static("a=b"));
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-"));
        let found = Presence::of(&headers);
        assert!(found.has(Presence::CREDENTIALS) && found.has(Presence::RANGE));
        assert!(!found.has(Presence::DIRECTIVES.with(Presence::CONDITION).with(Presence::VIA)));
    }
}
