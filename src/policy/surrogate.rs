//! `Surrogate-Control` (W3C Edge Architecture, 2001), limited to caching.

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use crate::field::list;

use super::directive::{delta_seconds, restrictions};

/// The device token that addresses Larder alone.
const DEVICE_TOKEN: &[u8] = b"larder";

pub(super) const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// The `Surrogate-Control` directive that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SurrogateDirective {
    /// `no-store`.
    NoStore,
    /// `max-age`, in seconds.
    MaxAge(u32),
}

/// The parts of `Surrogate-Control` that concern this cache.
#[derive(Debug, Default)]
pub(super) struct SurrogateControl<'a> {
    /// The well-formed directive that applies. If `None`, `Cache-Control` decides.
    pub(super) directive: Option<SurrogateDirective>,
    /// The list members that address this cache. Restrictions apply even if a member is malformed.
    pub(super) applicable: SmallVec<[&'a [u8]; 2]>,
}

/// Parses the directives for all surrogates and for Larder. Directives for Larder take precedence.
/// `no-store` takes precedence over `max-age`.
pub(super) fn parse(response: &HeaderMap) -> SurrogateControl<'_> {
    let (mut for_all, mut for_larder) = (None, None);
    for member in list::members(response, SURROGATE_CONTROL) {
        let known = match TargetDevice::of(member) {
            TargetDevice::Any => &mut for_all,
            TargetDevice::Larder => &mut for_larder,
            TargetDevice::Others | TargetDevice::Unclear => continue,
        };
        if let Some(directive) = directive(member) {
            *known = Some(stricter(*known, directive));
        }
    }
    let concerns = |member: &&[u8]| match TargetDevice::of(member) {
        TargetDevice::Any => for_larder.is_none(),
        TargetDevice::Larder | TargetDevice::Unclear => true,
        TargetDevice::Others => false,
    };
    let applicable = list::members(response, SURROGATE_CONTROL).filter(concerns).collect();
    SurrogateControl { directive: for_larder.or(for_all), applicable }
}

/// The device that a member addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TargetDevice {
    Any,
    Larder,
    /// Another device, named by its token.
    Others,
    /// The text after `;` is not a device: perhaps another directive, as in `no-store; max-age=0`.
    Unclear,
}

impl TargetDevice {
    fn of(member: &[u8]) -> Self {
        let mut parts = member.splitn(2, |byte| *byte == b';');
        let Some(device) = parts.nth(1).map(list::trim) else { return Self::Any };
        if device.eq_ignore_ascii_case(DEVICE_TOKEN) {
            return Self::Larder;
        }
        let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let is_device = !device.is_empty()
            && device.iter().all(is_token_byte)
            && restrictions(device).next().is_none()
            && !DIRECTIVES.iter().any(|name| device.eq_ignore_ascii_case(name));
        if is_device { Self::Others } else { Self::Unclear }
    }
}

/// Directives, other than restrictions, that are often written after `;` by mistake.
const DIRECTIVES: [&[u8]; 6] =
    [b"public", b"max-age", b"s-maxage", b"immutable", b"no-transform", b"must-understand"];

/// Returns `NoStore` if one of the directives is `NoStore`, else the first directive.
fn stricter(known: Option<SurrogateDirective>, next: SurrogateDirective) -> SurrogateDirective {
    match (known, next) {
        (_, SurrogateDirective::NoStore) | (None, _) => next,
        (Some(known), _) => known,
    }
}

/// Parses a directive such as `max-age=60+30;device`. Returns `None` if it is unknown or malformed.
fn directive(member: &[u8]) -> Option<SurrogateDirective> {
    let directive = list::trim(member.split(|byte| *byte == b';').next()?);
    if directive.eq_ignore_ascii_case(b"no-store") {
        return Some(SurrogateDirective::NoStore);
    }
    let (name, value) = directive.split_at_checked(b"max-age=".len())?;
    if !name.eq_ignore_ascii_case(b"max-age=") {
        return None;
    }
    // The number after `+` is a window for stale responses, for which RFC 5861 has directives.
    let fresh = value.split(|byte| *byte == b'+').next()?;
    Some(SurrogateDirective::MaxAge(delta_seconds(fresh)?))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(value: &'static str) -> Option<SurrogateDirective> {
        let mut response = HeaderMap::new();
        response.insert(SURROGATE_CONTROL, HeaderValue::from_static(value));
        parse(&response).directive
    }

    fn applicable(value: &'static str) -> usize {
        let mut response = HeaderMap::new();
        response.insert(SURROGATE_CONTROL, HeaderValue::from_static(value));
        parse(&response).applicable.len()
    }

    #[test]
    fn directives_for_all_or_for_us_count() {
        assert_eq!(read("max-age=3600"), Some(SurrogateDirective::MaxAge(3600)));
        assert_eq!(read("foobar, MaX-aGe=3600+60"), Some(SurrogateDirective::MaxAge(3600)));
        assert_eq!(read("max-age=60;larder, max-age=1"), Some(SurrogateDirective::MaxAge(60)));
        assert_eq!(read("max-age=60, no-store"), Some(SurrogateDirective::NoStore));
        assert_eq!(read("content=\"ESI/1.0\", no-store;larder"), Some(SurrogateDirective::NoStore));
    }

    #[test]
    fn directives_for_others_and_broken_ones_do_not() {
        for value in
            ["max-age=3600;not-for-you", "foo", "max-age =100", "max-age= 100", "max-age=x", ""]
        {
            assert_eq!(read(value), None, "{value}");
        }
    }

    #[test]
    fn what_is_not_clearly_for_others_concerns_this_cache() {
        for (value, count) in [
            ("no-store; max-age=0", 1),
            ("max-age=0; private", 1),
            ("no-store; must-revalidate, no-store;PUBLIC", 2),
            ("no-store;squid, max-age=9;squid/2", 1),
            ("no-store, max-age=9;larder", 1),
            ("no-store, max-age =9;larder", 2),
        ] {
            assert_eq!(applicable(value), count, "{value}");
        }
        assert_eq!(read("no-store, max-age=9;larder"), Some(SurrogateDirective::MaxAge(9)));
    }
}
