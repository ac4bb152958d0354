//! Cache directives of requests and responses (RFC 9111 §5.2), and targeted ones (RFC 9213).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use sfv::BareItem;
use smallvec::SmallVec;

use crate::field::{list, structured};

use super::surrogate;

/// The largest number of seconds that is told apart (RFC 9111 §1.2.2).
pub const MAX_DELTA_SECONDS: u32 = 1 << 31;

/// The targeted field for caches like this one (RFC 9213 §3.1).
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Seconds that a directive gives, clamped to 2^31; an invalid number is as none at all.
///
/// Signs, fractions, letters and single quotes make a number invalid; double quotes do not.
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    let mut seconds: u32 = 0;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        seconds = seconds.saturating_mul(10).saturating_add(u32::from(byte - b'0'));
    }
    Some(seconds.min(MAX_DELTA_SECONDS))
}

/// One directive: its name without case, its argument without double quotes.
struct Directive<'a> {
    name: &'a [u8],
    argument: Option<&'a [u8]>,
}

impl<'a> Directive<'a> {
    fn parse(member: &'a [u8]) -> Self {
        let equals = member.iter().position(|byte| *byte == b'=');
        let Some((name, rest)) = equals.and_then(|at| member.split_at_checked(at)) else {
            return Self { name: member, argument: None };
        };
        let argument = rest.get(1..).unwrap_or_default();
        // Whitespace around `=` is no directive by the grammar. The name still counts, so that
        // `no-store =x` forbids; the argument is spoiled, so that `max-age= 9` gives no freshness.
        let argument = if name.ends_with(b" ") || name.ends_with(b"\t") { b" " } else { argument };
        Self { name: list::trim(name), argument: Some(unquote(argument)) }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    fn seconds(&self) -> Option<u32> {
        delta_seconds(self.argument.unwrap_or_default())
    }
}

fn unquote(argument: &[u8]) -> &[u8] {
    match argument {
        [b'"', inner @ .., b'"'] => inner,
        plain => plain,
    }
}

/// Which field a response's directives were taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// `CDN-Cache-Control`: everything else is ignored (RFC 9213 §2.2).
    CdnCacheControl,
    /// `Surrogate-Control`: everything else is ignored.
    SurrogateControl,
    /// `Cache-Control`, and `Expires` where that is silent.
    #[default]
    CacheControl,
}

/// What a response's cache directives say to a shared cache (RFC 9111 §5.2.2).
///
/// Of a directive given twice the first counts; a freshness that is no number counts as zero, so that
/// invalid information makes a response stale (§4.2.1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a directive that is there or not")]
pub struct ResponseDirectives {
    /// Where these directives come from.
    pub source: Source,
    /// `max-age`, in seconds.
    pub max_age: Option<u32>,
    /// `s-maxage`, in seconds.
    pub s_maxage: Option<u32>,
    /// `stale-while-revalidate`, in seconds (RFC 5861 §3).
    pub stale_while_revalidate: Option<u32>,
    /// `stale-if-error`, in seconds (RFC 5861 §4).
    pub stale_if_error: Option<u32>,
    /// `no-store`.
    pub no_store: bool,
    /// `no-cache` without field names.
    pub no_cache: bool,
    /// `private` without field names.
    pub private: bool,
    /// `public`.
    pub public: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// Fields that `no-cache="…"` and `private="…"` name: not to be stored.
    pub withheld: SmallVec<[HeaderName; 2]>,
}

impl ResponseDirectives {
    /// Reads the directives that apply here: the first valid one of `CDN-Cache-Control`,
    /// `Surrogate-Control` and `Cache-Control`, all its lines together.
    ///
    /// A targeted field that is broken or empty is ignored as a whole.
    pub fn parse(response: &HeaderMap) -> Self {
        Self::parse_cdn_cache_control(response)
            .or_else(|| Self::parse_surrogate_control(response))
            .unwrap_or_else(|| Self::parse_cache_control(response))
    }

    fn parse_cdn_cache_control(response: &HeaderMap) -> Option<Self> {
        let dictionary = structured::dictionary(response, CDN_CACHE_CONTROL)?;
        let mut directives = Self { source: Source::CdnCacheControl, ..Self::default() };
        for (key, entry) in &dictionary {
            let name = key.as_str().as_bytes();
            match structured::bare_item(entry) {
                Some(BareItem::Boolean(false)) => {}
                Some(BareItem::Boolean(true)) => {
                    directives.set(&Directive { name, argument: None });
                }
                Some(BareItem::Integer(number)) => {
                    let digits = i64::from(*number).to_string();
                    directives.set(&Directive { name, argument: Some(digits.as_bytes()) });
                }
                Some(BareItem::String(text)) => {
                    let argument = Some(text.as_str().as_bytes());
                    directives.set(&Directive { name, argument });
                }
                _ => directives.set(&Directive { name, argument: Some(b"") }),
            }
        }
        Some(directives)
    }

    fn parse_surrogate_control(response: &HeaderMap) -> Option<Self> {
        let (max_age, no_store) = match surrogate::parse(response)? {
            surrogate::Control::NoStore => (None, true),
            surrogate::Control::MaxAge(seconds) => (Some(seconds), false),
        };
        Some(Self { source: Source::SurrogateControl, max_age, no_store, ..Self::default() })
    }

    fn parse_cache_control(response: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for member in list::members(response, header::CACHE_CONTROL) {
            directives.set(&Directive::parse(member));
        }
        directives
    }

    fn set(&mut self, directive: &Directive<'_>) {
        let freshness = || Some(directive.seconds().unwrap_or(0));
        match directive {
            d if d.is("max-age") => self.max_age = self.max_age.or_else(freshness),
            d if d.is("s-maxage") => self.s_maxage = self.s_maxage.or_else(freshness),
            d if d.is("no-store") => self.no_store = true,
            d if d.is("no-cache") => self.no_cache |= !self.withhold(d.argument),
            d if d.is("private") => self.private |= !self.withhold(d.argument),
            d if d.is("public") => self.public = true,
            d if d.is("must-revalidate") => self.must_revalidate = true,
            d if d.is("proxy-revalidate") => self.proxy_revalidate = true,
            d if d.is("must-understand") => self.must_understand = true,
            d if d.is("immutable") => self.immutable = true,
            d if d.is("stale-while-revalidate") => {
                self.stale_while_revalidate = self.stale_while_revalidate.or(d.seconds());
            }
            d if d.is("stale-if-error") => {
                self.stale_if_error = self.stale_if_error.or(d.seconds());
            }
            _ => {}
        }
    }

    /// Notes the field names that qualify a directive; whether there were any, all well-formed.
    ///
    /// An argument that is no list of names does not narrow its directive.
    fn withhold(&mut self, argument: Option<&[u8]>) -> bool {
        let Some(argument) = argument else {
            return false;
        };
        let mut names: SmallVec<[HeaderName; 2]> = SmallVec::new();
        for member in list::split(argument).filter(|member| !member.is_empty()) {
            let Ok(name) = HeaderName::from_bytes(member) else {
                return false;
            };
            names.push(name);
        }
        let qualified = !names.is_empty();
        self.withheld.append(&mut names);
        qualified
    }
}

/// What a request's cache directives say (RFC 9111 §5.2.1).
///
/// Numbers that are invalid are as if they were not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    /// `max-age`, in seconds.
    pub max_age: Option<u32>,
    /// `min-fresh`, in seconds.
    pub min_fresh: Option<u32>,
    /// `max-stale`, in seconds; without a number, the largest.
    pub max_stale: Option<u32>,
    /// `stale-if-error`, in seconds (RFC 5861 §4).
    pub stale_if_error: Option<u32>,
    /// `no-cache`, or `Pragma: no-cache` where there is no `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
}

impl RequestDirectives {
    /// Reads the directives of a request; costs two look-ups where there are none.
    pub fn parse(request: &HeaderMap) -> Self {
        let mut directives = Self::default();
        if !request.contains_key(header::CACHE_CONTROL) {
            if let Some(pragma) = request.get(header::PRAGMA) {
                directives.no_cache = is_no_cache(pragma);
            }
            return directives;
        }
        for member in list::members(request, header::CACHE_CONTROL) {
            directives.set(&Directive::parse(member));
        }
        directives
    }

    fn set(&mut self, directive: &Directive<'_>) {
        match directive {
            d if d.is("no-cache") => self.no_cache = true,
            d if d.is("max-age") => self.max_age = self.max_age.or(d.seconds()),
            d if d.is("no-store") => self.no_store = true,
            d if d.is("only-if-cached") => self.only_if_cached = true,
            d if d.is("min-fresh") => self.min_fresh = self.min_fresh.or(d.seconds()),
            d if d.is("max-stale") => {
                let given =
                    if d.argument.is_none() { Some(MAX_DELTA_SECONDS) } else { d.seconds() };
                self.max_stale = self.max_stale.or(given);
            }
            d if d.is("stale-if-error") => {
                self.stale_if_error = self.stale_if_error.or(d.seconds());
            }
            _ => {}
        }
    }
}

fn is_no_cache(pragma: &HeaderValue) -> bool {
    list::split(pragma.as_bytes()).any(|member| member.eq_ignore_ascii_case(b"no-cache"))
}

#[cfg(test)]
mod tests;
