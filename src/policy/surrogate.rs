//! `Surrogate-Control` (W3C Edge Architecture, 2001), as far as caching goes.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::field::list;

use super::directive::delta_seconds;

/// What a request to the origin says in `Surrogate-Capability`, so that it can address Larder alone.
pub const CAPABILITY: HeaderValue = HeaderValue::from_static("larder=\"Surrogate/1.0\"");

/// The device token that directives for Larder alone carry.
const DEVICE_TOKEN: &[u8] = b"larder";

const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// What `Surrogate-Control` decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    /// `no-store`.
    NoStore,
    /// `max-age`, in seconds.
    MaxAge(u32),
}

/// Reads the directives that are meant for every surrogate or for this one.
///
/// Nothing if there are none, so that `Cache-Control` decides. Directives for this device come before
/// those for all; `no-store` comes before `max-age`.
pub(super) fn parse(response: &HeaderMap) -> Option<Control> {
    let mut for_all = None;
    let mut for_us = None;
    for member in list::members(response, SURROGATE_CONTROL) {
        let Some((directive, target)) = directive(member) else {
            continue;
        };
        match target {
            None => for_all = Some(stricter(for_all, directive)),
            Some(target) if target.eq_ignore_ascii_case(DEVICE_TOKEN) => {
                for_us = Some(stricter(for_us, directive));
            }
            Some(_) => {}
        }
    }
    for_us.or(for_all)
}

/// The first directive stays, unless a later one forbids.
fn stricter(known: Option<Control>, next: Control) -> Control {
    match (known, next) {
        (_, Control::NoStore) | (None, _) => next,
        (Some(known), _) => known,
    }
}

/// Reads `max-age=60+30;device`: the directive, and the device it is meant for.
fn directive(member: &[u8]) -> Option<(Control, Option<&[u8]>)> {
    let mut parts = member.splitn(2, |byte| *byte == b';').map(list::trim);
    let directive = parts.next()?;
    let target = parts.next();
    if directive.eq_ignore_ascii_case(b"no-store") {
        return Some((Control::NoStore, target));
    }
    let (name, value) = directive.split_at_checked(b"max-age=".len())?;
    if !name.eq_ignore_ascii_case(b"max-age=") {
        return None;
    }
    // After `+` stands how long a stale response may be used; the RFC's directives say that here.
    let fresh = value.split(|byte| *byte == b'+').next()?;
    Some((Control::MaxAge(delta_seconds(fresh)?), target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &'static str) -> Option<Control> {
        let mut response = HeaderMap::new();
        response.insert(SURROGATE_CONTROL, HeaderValue::from_static(value));
        parse(&response)
    }

    #[test]
    fn directives_for_all_or_for_us_count() {
        assert_eq!(read("max-age=3600"), Some(Control::MaxAge(3600)));
        assert_eq!(read("foobar, MaX-aGe=3600+60"), Some(Control::MaxAge(3600)));
        assert_eq!(read("max-age=60;larder, max-age=1"), Some(Control::MaxAge(60)));
        assert_eq!(read("max-age=60, no-store"), Some(Control::NoStore));
        assert_eq!(read("content=\"ESI/1.0\", no-store;larder"), Some(Control::NoStore));
    }

    #[test]
    fn directives_for_others_and_broken_ones_do_not() {
        for value in
            ["max-age=3600;not-for-you", "foo", "max-age =100", "max-age= 100", "max-age=x", ""]
        {
            assert_eq!(read(value), None, "{value}");
        }
    }
}
