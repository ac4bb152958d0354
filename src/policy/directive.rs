//! Cache directives of requests and responses (RFC 9111 §5.2), also in targeted fields (RFC 9213).

mod delta_seconds;
mod member;

use http::{HeaderMap, HeaderName, header};
use sfv::{BareItem, Dictionary, ListEntry};
use smallvec::SmallVec;

use crate::field::{list, structured};

use super::surrogate;
pub use delta_seconds::MAX_DELTA_SECONDS;
pub(crate) use delta_seconds::delta_seconds;
use member::{Argument, Directive};
pub(crate) use member::{RestrictiveDirective, restrictions};

/// The targeted field for CDN caches (RFC 9213 §3.1).
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The field from which a response's directives were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::enum_variant_names, reason = "the names of the fields")]
pub enum DirectiveSource {
    /// `CDN-Cache-Control`. Other cache fields are ignored (RFC 9213 §2.2).
    CdnCacheControl,
    /// `Surrogate-Control`. `Cache-Control` and `Expires` are ignored.
    SurrogateControl,
    /// `Cache-Control`, or `Expires` if `Cache-Control` gives no lifetime.
    #[default]
    CacheControl,
}

/// The cache directives of a response, as they apply to a shared cache (RFC 9111 §5.2.2).
///
/// If a directive is repeated, the first one counts. An invalid lifetime counts as zero, so that
/// the response is stale (§4.2.1). Permissions have to be well-formed. Restrictions count in any
/// spelling and with any separators, except in the quoted argument of an extension directive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a directive that is there or not")]
pub struct ResponseDirectives {
    /// The field that the directives were taken from.
    pub source: DirectiveSource,
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
    /// `public`, or a valid `s-maxage`: the response may be shared despite credentials (§3.5).
    pub shareable: bool,
    /// `must-revalidate`.
    pub must_revalidate: bool,
    /// `proxy-revalidate`; also set for a malformed `proxy-revalidate` or `must-revalidate`.
    pub proxy_revalidate: bool,
    /// `must-understand`.
    pub must_understand: bool,
    /// `immutable` (RFC 8246).
    pub immutable: bool,
    /// Fields named by `no-cache="…"` and `private="…"`, which are not stored.
    pub qualified_fields: SmallVec<[HeaderName; 2]>,
}

impl ResponseDirectives {
    /// Parses the directives of a response. Call once per message.
    ///
    /// Uses the first valid field, with all its lines: `CDN-Cache-Control`, `Surrogate-Control`,
    /// `Cache-Control`. A targeted field is ignored if it is empty or malformed, or if a known
    /// directive has a value of another type (RFC 9213 §2.1). The restrictions in an ignored field
    /// still count.
    pub fn parse(response: &HeaderMap) -> Self {
        let mut directives = Self::default();
        // Most responses have no targeted field; one pass over the names detects this.
        if !response.keys().any(is_targeted) {
            directives.read_cache_control(response);
            return directives;
        }
        if directives.read_cdn_cache_control(response) {
            return Self { source: DirectiveSource::CdnCacheControl, ..directives };
        }
        if directives.read_surrogate_control(response) {
            return Self { source: DirectiveSource::SurrogateControl, ..directives };
        }
        let is_forbidden = directives.no_store;
        directives.read_cache_control(response);
        // `must-understand` overrides the `no-store` in the same field only.
        directives.must_understand &= !is_forbidden;
        directives
    }

    /// Applies `CDN-Cache-Control`. Returns whether the field is valid and not empty.
    fn read_cdn_cache_control(&mut self, response: &HeaderMap) -> bool {
        for member in list::members(response, CDN_CACHE_CONTROL) {
            let text = member::strip_false_key(member);
            self.apply_restrictions(text, Directive::parse(text).as_ref());
        }
        let dictionary = structured::dictionary(response, CDN_CACHE_CONTROL);
        let Some(dictionary) = dictionary.filter(is_well_typed) else { return false };
        for (key, entry) in &dictionary {
            let name = key.as_str().as_bytes();
            match structured::bare_item(entry) {
                Some(BareItem::Boolean(true)) => self.apply(&Directive { name, argument: None }),
                Some(BareItem::Integer(number)) => {
                    let digits = i64::from(*number).to_string();
                    let argument = Some(Argument::Token(digits.as_bytes()));
                    self.apply(&Directive { name, argument });
                }
                _ => {}
            }
        }
        true
    }

    /// Applies `Surrogate-Control`. Returns whether the field has a directive for this cache.
    fn read_surrogate_control(&mut self, response: &HeaderMap) -> bool {
        let surrogate = surrogate::parse(response);
        for member in &surrogate.applicable {
            self.apply_restrictions(member, Directive::parse(member).as_ref());
        }
        match surrogate.directive {
            None => return false,
            Some(surrogate::SurrogateDirective::NoStore) => self.no_store = true,
            Some(surrogate::SurrogateDirective::MaxAge(seconds)) => self.max_age = Some(seconds),
        }
        true
    }

    fn read_cache_control(&mut self, response: &HeaderMap) {
        if !response.contains_key(header::CACHE_CONTROL) {
            // `Pragma` is undefined in responses (§5.4), but its senders intend `no-cache`.
            self.no_cache |= has_pragma(response);
        }
        for member in list::members(response, header::CACHE_CONTROL) {
            let directive = Directive::parse(member);
            self.apply_restrictions(member, directive.as_ref());
            match directive {
                Some(directive) => self.apply(&directive),
                None => self.apply_malformed(member),
            }
        }
    }

    /// Applies the restrictive directives in a list member.
    fn apply_restrictions(&mut self, member: &[u8], directive: Option<&Directive<'_>>) {
        let text = match directive {
            Some(Directive { name, argument: Some(Argument::Quoted(names)) }) => {
                let is_qualifiable = is_named(name, "no-cache") || is_named(name, "private");
                if is_qualifiable && self.add_qualified_fields(names) {
                    return;
                }
                name
            }
            _ => member,
        };
        for word in restrictions(text) {
            match word {
                RestrictiveDirective::NoStore => self.no_store = true,
                RestrictiveDirective::NoCache => self.no_cache = true,
                RestrictiveDirective::Private => self.private = true,
                RestrictiveDirective::Revalidate => self.proxy_revalidate = true,
            }
        }
    }

    /// Applies the permissions and lifetimes of a well-formed directive.
    fn apply(&mut self, directive: &Directive<'_>) {
        let Directive { name, argument } = *directive;
        let seconds = argument.and_then(|argument| delta_seconds(argument.text()));
        match name {
            _ if is_named(name, "max-age") => self.set_max_age(seconds),
            _ if is_named(name, "s-maxage") => self.set_s_maxage(seconds),
            _ if is_named(name, "stale-while-revalidate") => {
                self.stale_while_revalidate = self.stale_while_revalidate.or(seconds);
            }
            _ if is_named(name, "stale-if-error") => {
                self.stale_if_error = self.stale_if_error.or(seconds);
            }
            _ if argument.is_some() => {}
            _ if is_named(name, "public") => (self.public, self.shareable) = (true, true),
            _ if is_named(name, "must-revalidate") => self.must_revalidate = true,
            _ if is_named(name, "must-understand") => self.must_understand = true,
            _ if is_named(name, "immutable") => self.immutable = true,
            _ => {}
        }
    }

    /// Records a malformed `max-age` or `s-maxage` as zero.
    fn apply_malformed(&mut self, member: &[u8]) {
        if member::has_word(member, "max-age") {
            self.set_max_age(None);
        }
        if member::has_word(member, "s-maxage") {
            self.set_s_maxage(None);
        }
    }

    fn set_max_age(&mut self, seconds: Option<u32>) {
        self.max_age.get_or_insert(seconds.unwrap_or(0));
    }

    fn set_s_maxage(&mut self, seconds: Option<u32>) {
        if self.s_maxage.is_none() {
            self.s_maxage = Some(seconds.unwrap_or(0));
            self.shareable |= seconds.is_some();
        }
    }

    /// Adds the field names in a directive's argument. Returns `false` if the argument is empty or
    /// malformed: the directive then applies to the whole response.
    fn add_qualified_fields(&mut self, argument: &[u8]) -> bool {
        let mut names: SmallVec<[HeaderName; 2]> = SmallVec::new();
        for member in list::split(argument).filter(|member| !member.is_empty()) {
            let Ok(name) = HeaderName::from_bytes(member) else {
                return false;
            };
            names.push(name);
        }
        let qualified = !names.is_empty();
        self.qualified_fields.append(&mut names);
        qualified
    }
}

/// Returns whether a field is targeted: its directives are for certain caches only.
fn is_targeted(name: &HeaderName) -> bool {
    *name == CDN_CACHE_CONTROL || *name == surrogate::SURROGATE_CONTROL
}

fn is_named(name: &[u8], wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted.as_bytes())
}

/// Returns whether each known directive has a value of the right type (RFC 9213 §2.1).
fn is_well_typed(dictionary: &Dictionary) -> bool {
    dictionary.iter().all(|(key, entry)| has_type_of(key.as_str(), entry))
}

fn has_type_of(name: &str, entry: &ListEntry) -> bool {
    let item = structured::bare_item(entry);
    match name {
        "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error" => {
            matches!(item, Some(BareItem::Integer(_)))
        }
        "no-cache" | "private" => {
            matches!(item, Some(BareItem::Boolean(_) | BareItem::String(_)))
        }
        "no-store" | "public" | "must-revalidate" | "proxy-revalidate" | "must-understand"
        | "immutable" => matches!(item, Some(BareItem::Boolean(_))),
        _ => true,
    }
}

/// Returns whether the fields include `Pragma: no-cache` (§5.4).
fn has_pragma(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::PRAGMA).iter();
    lines
        .any(|line| restrictions(line.as_bytes()).any(|word| word == RestrictiveDirective::NoCache))
}

/// The cache directives of a request (RFC 9111 §5.2.1). Invalid numbers are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestDirectives {
    /// `max-age`, in seconds.
    pub max_age: Option<u32>,
    /// `min-fresh`, in seconds.
    pub min_fresh: Option<u32>,
    /// `max-stale`, in seconds; [`MAX_DELTA_SECONDS`] if the directive has no number.
    pub max_stale: Option<u32>,
    /// `stale-if-error`, in seconds (RFC 5861 §4).
    pub stale_if_error: Option<u32>,
    /// `no-cache`, or `Pragma: no-cache` if there is no `Cache-Control`.
    pub no_cache: bool,
    /// `no-store`.
    pub no_store: bool,
    /// `only-if-cached`.
    pub only_if_cached: bool,
}

impl RequestDirectives {
    /// Parses the directives of a request. Call once per message. Costs two lookups if the request
    /// has no directives. `no-store` and `no-cache` count in any spelling and with any separators.
    pub fn parse(request: &HeaderMap) -> Self {
        let mut directives = Self::default();
        if !request.contains_key(header::CACHE_CONTROL) {
            directives.no_cache = has_pragma(request);
            return directives;
        }
        for member in list::members(request, header::CACHE_CONTROL) {
            directives.read(member);
        }
        directives
    }

    fn read(&mut self, member: &[u8]) {
        let directive = Directive::parse(member);
        let text = match &directive {
            Some(Directive { name, argument: Some(Argument::Quoted(_)) }) => name,
            _ => member,
        };
        for word in restrictions(text) {
            self.no_cache |= word == RestrictiveDirective::NoCache;
            self.no_store |= word == RestrictiveDirective::NoStore;
        }
        if let Some(directive) = directive {
            self.set(&directive);
        }
    }

    fn set(&mut self, directive: &Directive<'_>) {
        let Directive { name, argument } = *directive;
        let seconds = argument.and_then(|argument| delta_seconds(argument.text()));
        match name {
            _ if is_named(name, "max-age") => self.max_age = self.max_age.or(seconds),
            _ if is_named(name, "only-if-cached") => self.only_if_cached = true,
            _ if is_named(name, "min-fresh") => self.min_fresh = self.min_fresh.or(seconds),
            _ if is_named(name, "max-stale") => {
                let given = if argument.is_none() { Some(MAX_DELTA_SECONDS) } else { seconds };
                self.max_stale = self.max_stale.or(given);
            }
            _ if is_named(name, "stale-if-error") => {
                self.stale_if_error = self.stale_if_error.or(seconds);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
