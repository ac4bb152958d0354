//! Selecting fields, by which a response varies, in canonical form (RFC 9111 §4.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use crate::field::{coding, list, preference};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Vary {
    /// The response serves requests with equal values of these fields. The set may be empty.
    Fields(VarySet),
    /// `*` or a malformed name: the response serves no other request.
    Star,
}

impl Vary {
    /// Parses `Vary` over all its lines, and adds fields that the response implicitly depends on.
    ///
    /// These are `Origin` if the response allows only one origin to read it (Fetch, "CORS protocol
    /// and HTTP caches"), and `Accept-Encoding` if it has a content coding.
    pub(crate) fn parse(response: &HeaderMap) -> Self {
        let mut set: VarySet = implied(response).into_iter().flatten().collect();
        for member in list::members(response, header::VARY) {
            // `*` is a valid field name, so it is checked first.
            match HeaderName::from_bytes(member) {
                Ok(name) if member != b"*" => set.insert(name),
                _ => return Self::Star,
            }
        }
        Self::Fields(set)
    }

    /// Returns whether `known` contains all listed fields; false for `*`.
    pub(crate) fn is_within(&self, known: &VarySet) -> bool {
        matches!(self, Self::Fields(set) if set.iter().all(|name| known.contains(name)))
    }
}

/// A sorted set of field names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct VarySet(SmallVec<[HeaderName; 2]>);

impl VarySet {
    pub fn insert(&mut self, name: HeaderName) {
        if let Err(place) = self.0.binary_search_by(|known| known.as_str().cmp(name.as_str())) {
            self.0.insert(place, name);
        }
    }

    pub fn extend(&mut self, other: &Self) {
        for name in &other.0 {
            self.insert(name.clone());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, name: &HeaderName) -> bool {
        self.0.binary_search_by(|known| known.as_str().cmp(name.as_str())).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the fields, sorted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &HeaderName> {
        self.0.iter()
    }

    /// Returns the selecting fields of a request in canonical form.
    ///
    /// If two requests have equal bytes, a response stored for one may serve the other.
    ///
    /// Each field is a line, `name:value`, or `name` if it is absent. Several lines of a field are
    /// joined, and whitespace around commas is removed. `Accept-Language` and `Accept-Encoding` are
    /// compared without regard to order and case, unless the latter lists an unknown coding.
    pub fn selecting_value(&self, request: &HeaderMap) -> Vec<u8> {
        self.selecting_value_with(request, Preferences::default())
    }

    /// Like [`selecting_value`](Self::selecting_value), but `other` replaces the request's
    /// preferences.
    pub fn selecting_value_with(&self, request: &HeaderMap, other: Preferences<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for name in &self.0 {
            out.extend_from_slice(name.as_str().as_bytes());
            if let Some(value) = other.of(name) {
                out.push(b':');
                out.extend_from_slice(value);
            } else if request.contains_key(name) {
                out.push(b':');
                write_field(request, name, &mut out);
            }
            out.push(b'\n');
        }
        out
    }
}

/// Canonical values of preference fields that replace those of a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Preferences<'a> {
    /// `Accept-Encoding`, as returned by [`canonical_codings`].
    pub codings: Option<&'a [u8]>,
    /// `Accept-Language`, as returned by [`languages`].
    pub languages: Option<&'a [u8]>,
}

impl<'a> Preferences<'a> {
    fn of(self, name: &HeaderName) -> Option<&'a [u8]> {
        match *name {
            header::ACCEPT_ENCODING => self.codings,
            header::ACCEPT_LANGUAGE => self.languages,
            _ => None,
        }
    }
}

/// Returns the canonical `Accept-Encoding` of a request.
///
/// `None` if the field is absent or malformed, or if it lists an unknown coding.
pub(crate) fn canonical_codings(request: &HeaderMap) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let is_there = request.contains_key(header::ACCEPT_ENCODING);
    (is_there && write_codings(request, &mut out).is_ok()).then_some(out)
}

/// Returns the canonical `Accept-Language` of a request; `None` if it is absent or malformed.
pub(crate) fn languages(request: &HeaderMap) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let is_there = request.contains_key(header::ACCEPT_LANGUAGE);
    (is_there && write_languages(request, &mut out).is_ok()).then_some(out)
}

/// Returns the language that a request prefers to all others, as written.
///
/// Returns `None` if several languages have the highest weight, if a weight is malformed, or if the
/// favourite is `*`. A response in this language is always the best response (RFC 9110 §12.5.4).
pub(crate) fn favourite_language(request: &HeaderMap) -> Option<&[u8]> {
    let lines = request.get_all(header::ACCEPT_LANGUAGE).into_iter();
    let mut favourite: Option<preference::Preference<'_>> = None;
    let mut is_shared = false;
    for range in lines.flat_map(|line| preference::preferences(line.as_bytes())) {
        let range = range.ok()?;
        let best = favourite.map_or(0, |known| known.weight);
        if range.weight > best {
            (favourite, is_shared) = (Some(range), false);
        } else if range.weight == best {
            is_shared = true;
        }
    }
    let item = favourite.filter(|_| !is_shared)?.item;
    (item != b"*").then_some(item)
}

/// Adds `fields`, and the fields that the response implicitly depends on, to its `Vary`. Adds each
/// field only once.
///
/// Downstream caches select responses by `Vary`.
pub(crate) fn add_to_vary<'a>(response: &mut HeaderMap, fields: impl Iterator<Item = &'a str>) {
    let implied = implied(response).into_iter().flatten().map(|name| canonical_name(&name));
    let mut missing = String::new();
    for name in implied.chain(fields) {
        let is_named =
            |listed: &[u8]| listed == b"*" || listed.eq_ignore_ascii_case(name.as_bytes());
        if list::members(response, header::VARY).any(is_named)
            || list::split(missing.as_bytes()).any(is_named)
        {
            continue;
        }
        if !missing.is_empty() {
            missing.push_str(", ");
        }
        missing.push_str(name);
    }
    if let Ok(value) = HeaderValue::try_from(missing)
        && !value.is_empty()
    {
        response.append(header::VARY, value);
    }
}

/// Returns the usual spelling of an implied field.
fn canonical_name(name: &HeaderName) -> &'static str {
    if *name == header::ORIGIN { "Origin" } else { "Accept-Encoding" }
}

/// Returns the fields that a response implicitly depends on.
fn implied(response: &HeaderMap) -> [Option<HeaderName>; 2] {
    let names_one = |value: &HeaderValue| value.as_bytes().trim_ascii() != b"*";
    let origin = response.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(names_one);
    let coded = response.contains_key(header::CONTENT_ENCODING);
    [origin.then_some(header::ORIGIN), coded.then_some(header::ACCEPT_ENCODING)]
}

impl FromIterator<HeaderName> for VarySet {
    fn from_iter<Names: IntoIterator<Item = HeaderName>>(names: Names) -> Self {
        let mut set = Self::default();
        for name in names {
            set.insert(name);
        }
        set
    }
}

fn write_field(request: &HeaderMap, name: &HeaderName, out: &mut Vec<u8>) {
    let known = match *name {
        header::ACCEPT_LANGUAGE => write_languages(request, out),
        header::ACCEPT_ENCODING => write_codings(request, out),
        _ => Err(InvalidPreference),
    };
    if known.is_err() {
        write_joined(request, name, out);
    }
}

/// The error for a malformed preference field, which is then compared like any other field.
struct InvalidPreference;

impl From<preference::InvalidWeight> for InvalidPreference {
    fn from(_: preference::InvalidWeight) -> Self {
        Self
    }
}

/// Appends all members of all lines, separated by single commas.
fn write_joined(request: &HeaderMap, name: &HeaderName, out: &mut Vec<u8>) {
    let members = request.get_all(name).into_iter().flat_map(|line| list::split(line.as_bytes()));
    for (place, member) in members.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
}

/// Appends `Accept-Language`, sorted by weight, then by case-folded name.
///
/// Order has no meaning (RFC 9110 §12.5.4). Many origins nevertheless use it for languages of equal
/// weight: see [`ties_with_earlier_language`].
fn write_languages(request: &HeaderMap, out: &mut Vec<u8>) -> Result<(), InvalidPreference> {
    let mut ranges = WeightedItems::default();
    for line in request.get_all(header::ACCEPT_LANGUAGE) {
        for range in preference::preferences(line.as_bytes()) {
            ranges.push(range?);
        }
    }
    if ranges.has_ties() {
        ranges.fold();
    }
    ranges.write(out);
    Ok(())
}

/// Returns whether a request lists another language of equal weight before `language`.
///
/// Origins that follow the order prefer the earlier language, so `language` is not used.
pub(crate) fn ties_with_earlier_language(request: &HeaderMap, language: &[u8]) -> bool {
    let lines = request.get_all(header::ACCEPT_LANGUAGE).into_iter();
    let ranges = lines.flat_map(|line| preference::preferences(line.as_bytes())).flatten();
    let mut before: SmallVec<[preference::Preference<'_>; 8]> = SmallVec::new();
    for range in ranges {
        if is_within(range.item, language) || is_within(language, range.item) {
            return before.iter().any(|earlier| earlier.weight == range.weight);
        }
        before.push(range);
    }
    false
}

/// Returns whether a language tag is covered by another, as `en-US` by `en` (RFC 4647 §3.4).
fn is_within(tag: &[u8], wider: &[u8]) -> bool {
    tag.split_at_checked(wider.len()).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(wider) && matches!(rest.first(), None | Some(b'-'))
    })
}

/// Appends `Accept-Encoding` in lower case, sorted by weight and name, if all codings are known.
///
/// Otherwise the field is compared like any other, because an origin may understand the unknown
/// coding. Weights are kept, because an origin may choose by them.
fn write_codings(request: &HeaderMap, out: &mut Vec<u8>) -> Result<(), InvalidPreference> {
    let mut codings = WeightedItems::default();
    for line in request.get_all(header::ACCEPT_ENCODING) {
        for coding in preference::preferences(line.as_bytes()) {
            let coding = coding?;
            if !coding::KNOWN.iter().any(|known| known.eq_ignore_ascii_case(coding.item)) {
                return Err(InvalidPreference);
            }
            codings.push(coding);
        }
    }
    codings.fold();
    codings.write(out);
    Ok(())
}

/// Members of a preference field, each with the difference from full weight.
#[derive(Default)]
struct WeightedItems(SmallVec<[(u16, SmallVec<[u8; 16]>); 8]>);

impl WeightedItems {
    fn push(&mut self, member: preference::Preference<'_>) {
        self.0.push((1000 - member.weight, SmallVec::from_slice(member.item)));
    }

    fn fold(&mut self) {
        self.0.iter_mut().for_each(|(_, item)| item.make_ascii_lowercase());
    }

    /// Returns whether several members have the same weight.
    fn has_ties(&self) -> bool {
        let mut lightness: SmallVec<[u16; 8]> = self.0.iter().map(|(light, _)| *light).collect();
        lightness.sort_unstable();
        lightness.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
    }

    /// Appends the members by descending weight.
    fn write(mut self, out: &mut Vec<u8>) {
        self.0.sort_unstable();
        self.0.dedup();
        for (place, (lightness, item)) in self.0.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(item);
            if *lightness > 0 {
                out.extend_from_slice(b";q=0.");
                out.extend_from_slice(&thousandths(1000 - lightness));
            }
        }
    }
}

/// Formats a number as three decimal digits.
fn thousandths(number: u16) -> [u8; 3] {
    let digit = |divisor: u16| b'0' + u8::try_from(number / divisor % 10).unwrap_or_default();
    [digit(100), digit(10), digit(1)]
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn set(names: &[&'static str]) -> VarySet {
        names.iter().map(|name| HeaderName::from_static(name)).collect()
    }

    fn value(name: &'static str, lines: &[&str]) -> String {
        let fields: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
        String::from_utf8(set(&[name]).selecting_value(&headers(&fields))).unwrap()
    }

    #[test]
    fn names_are_sorted_and_unique_over_all_lines() {
        let response = headers(&[("vary", "Foo, bar"), ("vary", ""), ("vary", "foo, Accept,")]);
        assert_eq!(Vary::parse(&response), Vary::Fields(set(&["accept", "bar", "foo"])));
        assert_eq!(Vary::parse(&HeaderMap::new()), Vary::Fields(VarySet::default()));
    }

    #[test]
    fn a_star_anywhere_or_a_broken_name_answers_nothing() {
        for text in ["*", "*, *", ", *", "*, Foo", "Foo, *", "not a name", "\"Foo\""] {
            assert_eq!(Vary::parse(&headers(&[("vary", text)])), Vary::Star, "{text}");
        }
        let lines = headers(&[("vary", ""), ("vary", "*")]);
        assert_eq!(Vary::parse(&lines), Vary::Star);
    }

    #[test]
    fn absent_and_empty_fields_differ() {
        assert_eq!(value("foo", &[]), "foo\n");
        assert_eq!(value("foo", &[""]), "foo:\n");
        let both = set(&["b", "a"]);
        let one = both.selecting_value(&headers(&[("a", "1")]));
        assert_eq!(one, b"a:1\nb\n");
        assert_ne!(one, both.selecting_value(&headers(&[("b", "1")])));
    }

    #[test]
    fn unknown_fields_are_joined_and_stripped_of_whitespace() {
        let expected = "foo:1,2\n";
        assert_eq!(value("foo", &["1, 2"]), expected);
        assert_eq!(value("foo", &["1", "2"]), expected);
        assert_eq!(value("foo", &[" 1 ,\t2 "]), expected);
        assert_ne!(value("foo", &["2,1"]), expected);
        assert_ne!(value("foo", &["1,,2"]), expected);
        assert_ne!(value("foo", &["\"1, 2\""]), value("foo", &["\"1,2\""]));
    }

    #[test]
    fn languages_are_compared_by_weight_alone() {
        let expected = "accept-language:de,en\n";
        for text in ["en, de", "de, en", "eN, De", " en ,   de", "de;q=1.0,en;q=1"] {
            assert_eq!(value("accept-language", &[text]), expected, "{text}");
        }
        assert_eq!(value("accept-language", &["en", "de"]), expected);
        assert_eq!(value("accept-language", &["fr;q=0.5, de"]), "accept-language:de,fr;q=0.500\n");
        assert_ne!(value("accept-language", &["de, fr"]), value("accept-language", &["de"]));
        assert_eq!(value("accept-language", &["de;q=x, A"]), "accept-language:de;q=x,A\n");
    }

    #[test]
    fn the_case_of_languages_counts_where_their_order_cannot() {
        let of = |text| value("accept-language", &[text]);
        assert_ne!(of("DE"), of("de"));
        assert_ne!(of("de-DE,en;q=0.5"), of("de-de,en;q=0.5"));
        assert_eq!(of("DE, en"), of("en, de"));
    }

    #[test]
    fn a_language_that_is_listed_later_with_the_same_weight_comes_second() {
        let second = |field: &'static str, language: &str| {
            ties_with_earlier_language(&headers(&[("accept-language", field)]), language.as_bytes())
        };
        assert!(second("de, fr", "fr") && second("it;q=0.5, de, fr", "fr"));
        assert!(
            !second("de, fr", "de") && !second("de, fr;q=0.9", "fr") && !second("de, fr", "en")
        );
        assert!(
            !second("en-US,en", "en") && !second("en, de", "en-GB") && second("de, en", "EN-gb")
        );
        assert!(!second("", "en"));
    }

    #[test]
    fn the_favourite_language_is_the_only_one_of_the_greatest_weight() {
        let of = |text| {
            let request = headers(&[("accept-language", text)]);
            favourite_language(&request).map(|it| String::from_utf8(it.to_vec()).unwrap())
        };
        assert_eq!(of("fr;q=0.5, de;q=1.0").as_deref(), Some("de"));
        assert_eq!(of("DE-at, en;q=0.9, fr;q=0.9").as_deref(), Some("DE-at"));
        for text in ["de, en", "fr;q=0.5, de, en", "*", "*, de;q=0.5", "de;q=0", "de, en;q=x", ""] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(favourite_language(&HeaderMap::new()), None);
        let two = headers(&[("accept-language", "fr;q=0.5"), ("accept-language", "de")]);
        assert_eq!(favourite_language(&two), Some(&b"de"[..]));
    }

    #[test]
    fn known_codings_are_compared_by_weight_alone() {
        let expected = "accept-encoding:br,deflate,gzip\n";
        for text in ["gzip, deflate, br", "deflate, gzip,BR", "br;q=1, gzip;q=1.0, deflate"] {
            assert_eq!(value("accept-encoding", &[text]), expected, "{text}");
        }
        assert_eq!(value("accept-encoding", &["gzip", "deflate, br"]), expected);
        let weighted = value("accept-encoding", &["gzip;q=0.5, br"]);
        assert_eq!(weighted, "accept-encoding:br,gzip;q=0.500\n");
        assert_ne!(value("accept-encoding", &["gzip, br;q=0.5"]), weighted);
        assert_ne!(value("accept-encoding", &["gzip, br"]), weighted);
        let refused = value("accept-encoding", &["gzip, identity;q=0"]);
        assert_eq!(refused, "accept-encoding:gzip,identity;q=0.000\n");
        assert_eq!(value("accept-encoding", &["identity"]), "accept-encoding:identity\n");
        assert_eq!(value("accept-encoding", &[]), "accept-encoding\n");
    }

    #[test]
    fn codings_that_are_not_known_stay_as_they_are() {
        for text in ["xxx,gzip", "gzip,xxx", "x-gzip", "gzip;q=0.5,xxx;q=x"] {
            assert_eq!(value("accept-encoding", &[text]), format!("accept-encoding:{text}\n"));
            assert_eq!(canonical_codings(&headers(&[("accept-encoding", text)])), None);
        }
        assert_eq!(canonical_codings(&HeaderMap::new()), None);
        let canonical = canonical_codings(&headers(&[("accept-encoding", "gzip, br")]));
        assert_eq!(canonical.as_deref(), Some(&b"br,gzip"[..]));
        let set = set(&["accept-encoding"]);
        let other = set.selecting_value_with(
            &headers(&[("accept-encoding", "gzip")]),
            Preferences { codings: canonical.as_deref(), ..Preferences::default() },
        );
        assert_eq!(other, set.selecting_value(&headers(&[("accept-encoding", "gzip, br")])));
    }

    #[test]
    fn what_a_response_shows_to_depend_on_selects_it() {
        let one = ("access-control-allow-origin", "https://a.test");
        let coded = ("content-encoding", "xxx");
        let all = headers(&[("access-control-allow-origin", "*")]);
        assert_eq!(Vary::parse(&headers(&[one])), Vary::Fields(set(&["origin"])));
        assert_eq!(Vary::parse(&all), Vary::Fields(VarySet::default()));
        let both = headers(&[one, coded, ("vary", "foo")]);
        assert_eq!(Vary::parse(&both), Vary::Fields(set(&["accept-encoding", "foo", "origin"])));
    }

    #[test]
    fn vary_names_each_field_once() {
        let named = |fields: &[(&'static str, &str)]| {
            let mut response = headers(fields);
            add_to_vary(&mut response, ["accept-language", "Cookie"].into_iter());
            let before = response.clone();
            add_to_vary(&mut response, ["accept-language", "Cookie"].into_iter());
            assert_eq!(response, before, "saying it again changes nothing");
            let lines = response.get_all("vary").into_iter().map(|line| line.to_str().unwrap());
            lines.collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(named(&[]), "accept-language, Cookie");
        assert_eq!(named(&[("vary", "cookie, Accept-Language")]), "cookie, Accept-Language");
        assert_eq!(named(&[("vary", "COOKIE")]), "COOKIE | accept-language");
        assert_eq!(named(&[("vary", "*")]), "*");
        let one = ("access-control-allow-origin", "https://a.test");
        assert_eq!(named(&[one]), "Origin, accept-language, Cookie");
    }

    proptest! {
        #[test]
        fn normalising_is_idempotent(
            name in prop_oneof![Just("accept-language"), Just("accept-encoding"), Just("foo")],
            line in "[a-b*;=q.,0-1 \"]{0,16}",
        ) {
            let once = value(name, &[&line]);
            let text = once[name.len() + 1..].trim_end_matches('\n').to_owned();
            prop_assert!(!text.contains('\n'));
            if name == "foo" {
                prop_assert_eq!(value(name, &[&text]), once);
            }
        }

        #[test]
        fn the_order_of_languages_does_not_matter(mut ranges in proptest::collection::vec("[a-c]{2}(;q=0\\.[1-3])?", 1..5)) {
            let first = value("accept-language", &[&ranges.join(",")]);
            ranges.reverse();
            prop_assert_eq!(value("accept-language", &[&ranges.join(" , ")]), first);
        }
    }
}
