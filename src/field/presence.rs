//! The set of request fields that matter to a cache.

mod name_cache;

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use super::{
    forwarding::{ForwardingKind, OVERRIDES, is_underscore_alias},
    identity,
};
use name_cache::NameCache;

/// A set of request fields that matter to a cache.
///
/// Computed in one pass over the names, whereas each of a dozen lookups would hash a name. Most
/// requests carry few of these fields. Each thread caches the result for a name, so most names cost
/// one comparison of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldPresence(u16);

thread_local! {
    static CACHE: RefCell<NameCache<FieldPresence>> = RefCell::new(NameCache::new());
}

impl FieldPresence {
    /// `Cache-Control` or `Pragma`.
    pub const DIRECTIVES: Self = Self(1);
    pub const AUTHORIZATION: Self = Self(1 << 1);
    /// `If-None-Match` or `If-Modified-Since`, which a cache may evaluate.
    pub const CONDITION: Self = Self(1 << 2);
    /// `If-Match` or `If-Unmodified-Since`, which only the origin may evaluate.
    pub const ORIGIN_CONDITION: Self = Self(1 << 3);
    pub const RANGE: Self = Self(1 << 4);
    pub const UPGRADE: Self = Self(1 << 5);
    pub const VIA: Self = Self(1 << 6);
    /// A field that some origins treat as the method or target of the request.
    pub const OVERRIDE: Self = Self(1 << 7);
    pub const CONNECTION: Self = Self(1 << 8);
    /// A field that proxies set for the next server, see [`ForwardingKind`].
    pub const FORWARDING: Self = Self(1 << 9);
    /// A name with `_` that origins may mistake for a field that affects how they read the request.
    pub const UNDERSCORE_ALIAS: Self = Self(1 << 10);
    pub const COOKIE: Self = Self(1 << 11);
    /// A field that identifies the client by its name, see [`identity::classify`].
    pub const IDENTITY: Self = Self(1 << 12);
    pub const ACCEPT_ENCODING: Self = Self(1 << 13);

    /// Returns the set of fields present in a header section.
    pub fn of(headers: &HeaderMap) -> Self {
        let (mut found, mut is_custom) = (Self::default(), false);
        for name in headers.keys() {
            match Self::of_standard(name) {
                Some(presence) => found = found.with(presence),
                None => is_custom = true,
            }
        }
        if !is_custom {
            return found;
        }
        CACHE.with_borrow_mut(|known| {
            let custom = headers.keys().filter(|name| Self::of_standard(name).is_none());
            custom.fold(found, |found, name| found.with(Self::of_custom(name, known)))
        })
    }

    /// Returns the names of fields in `any_of`, and the set of all other fields.
    pub fn split_names(headers: &HeaderMap, any_of: Self) -> (SmallVec<[HeaderName; 8]>, Self) {
        let (mut names, mut others) = (SmallVec::new(), Self::default());
        CACHE.with_borrow_mut(|known| {
            for name in headers.keys() {
                let presence =
                    Self::of_standard(name).unwrap_or_else(|| Self::of_custom(name, known));
                if presence.has(any_of) {
                    names.push(name.clone());
                } else {
                    others = others.with(presence);
                }
            }
        });
        (names, others)
    }

    /// Returns whether any of these fields is present.
    pub const fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }

    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the set for a standard field, which may be empty; `None` for any other field.
    fn of_standard(name: &HeaderName) -> Option<Self> {
        Some(match *name {
            header::CACHE_CONTROL | header::PRAGMA => Self::DIRECTIVES,
            header::AUTHORIZATION => Self::AUTHORIZATION,
            header::COOKIE => Self::COOKIE,
            header::IF_NONE_MATCH | header::IF_MODIFIED_SINCE => Self::CONDITION,
            header::IF_MATCH | header::IF_UNMODIFIED_SINCE => Self::ORIGIN_CONDITION,
            header::ACCEPT_ENCODING => Self::ACCEPT_ENCODING,
            header::RANGE => Self::RANGE,
            header::UPGRADE => Self::UPGRADE,
            header::VIA => Self::VIA,
            header::CONNECTION => Self::CONNECTION,
            header::HOST
            | header::ACCEPT
            | header::ACCEPT_LANGUAGE
            | header::CONTENT_TYPE
            | header::DNT
            | header::ORIGIN
            | header::REFERER
            | header::UPGRADE_INSECURE_REQUESTS
            | header::USER_AGENT => Self::default(),
            _ => return None,
        })
    }

    fn of_custom(name: &HeaderName, known: &mut NameCache<Self>) -> Self {
        known.class(name.as_str(), Self::by_text)
    }

    fn by_text(name: &str) -> Self {
        if ForwardingKind::of(name).is_some() {
            return Self::FORWARDING.with(Self::of_identity(name));
        }
        if identity::is_everyday(name) {
            return Self::default();
        }
        if OVERRIDES.contains(&name) {
            return Self::OVERRIDE;
        }
        if is_underscore_alias(name) { Self::UNDERSCORE_ALIAS } else { Self::of_identity(name) }
    }

    fn of_identity(name: &str) -> Self {
        if identity::classify(name).is_some() { Self::IDENTITY } else { Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_there_is_found_and_nothing_else() {
        let mut headers = HeaderMap::new();
        assert_eq!(FieldPresence::of(&headers), FieldPresence::default());
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        assert_eq!(FieldPresence::of(&headers), FieldPresence::default());
        headers.insert(header::COOKIE, HeaderValue::from_static("a=b"));
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=0-"));
        let found = FieldPresence::of(&headers);
        assert!(found.has(FieldPresence::COOKIE) && found.has(FieldPresence::RANGE));
        assert!(!found.has(
            FieldPresence::DIRECTIVES.with(FieldPresence::CONDITION).with(FieldPresence::VIA)
        ));
    }
}
