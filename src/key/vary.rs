//! Selecting fields: which request fields a response varies by, and one form for equal ones
//! (RFC 9111 §4.1).

use http::{HeaderMap, HeaderName, header};
use smallvec::SmallVec;

use crate::field::{list, preference};

/// What a response says about the requests it may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vary {
    /// It answers requests that agree in these fields; in the simplest case there are none.
    By(VarySet),
    /// `*`, or something that is no field name: it answers no other request.
    Anything,
}

impl Vary {
    /// Reads `Vary` over all its lines.
    pub fn parse(response: &HeaderMap) -> Self {
        let mut set = VarySet::default();
        for member in list::members(response, header::VARY) {
            // `*` is a valid field name, so it has to be looked for first.
            match HeaderName::from_bytes(member) {
                Ok(name) if member != b"*" => set.insert(name),
                _ => return Self::Anything,
            }
        }
        Self::By(set)
    }
}

/// A set of field names in one order, whatever order they were given in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct VarySet(SmallVec<[HeaderName; 2]>);

impl VarySet {
    /// Adds a field.
    pub fn insert(&mut self, name: HeaderName) {
        if let Err(place) = self.0.binary_search_by(|known| known.as_str().cmp(name.as_str())) {
            self.0.insert(place, name);
        }
    }

    /// Adds every field of another set.
    pub fn extend(&mut self, other: &Self) {
        for name in &other.0 {
            self.insert(name.clone());
        }
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The fields, sorted.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &HeaderName> {
        self.0.iter()
    }

    /// The selecting fields of a request in canonical form: equal bytes mean that a response stored for
    /// one request may answer the other.
    ///
    /// Each field is a line, `name:value` or `name` if it is absent. Several lines of a field are
    /// joined, whitespace around commas is left out; `Accept-Language` is independent of order and
    /// case, `Accept-Encoding` is the set of codings that are known here.
    pub fn selecting_value(&self, request: &HeaderMap) -> Vec<u8> {
        let mut value = Vec::new();
        self.write_selecting_value(request, &mut value);
        value
    }

    /// Appends [`selecting_value`](Self::selecting_value) to a buffer.
    pub fn write_selecting_value(&self, request: &HeaderMap, out: &mut Vec<u8>) {
        for name in &self.0 {
            out.extend_from_slice(name.as_str().as_bytes());
            if request.contains_key(name) {
                out.push(b':');
                write_field(request, name, out);
            }
            out.push(b'\n');
        }
    }
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
        _ => Err(Unreadable),
    };
    if known.is_err() {
        write_joined(request, name, out);
    }
}

/// A field that breaks its grammar is compared as any other is.
struct Unreadable;

impl From<preference::InvalidWeight> for Unreadable {
    fn from(_: preference::InvalidWeight) -> Self {
        Self
    }
}

/// All lines, all members, with single commas between them.
fn write_joined(request: &HeaderMap, name: &HeaderName, out: &mut Vec<u8>) {
    let members = request.get_all(name).into_iter().flat_map(|line| list::split(line.as_bytes()));
    for (place, member) in members.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
}

/// `Accept-Language`: lower case, sorted by weight, then by name.
///
/// Order carries no meaning there, only weight does (RFC 9110 §12.5.4).
fn write_languages(request: &HeaderMap, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let mut ranges: SmallVec<[(u16, SmallVec<[u8; 16]>); 8]> = SmallVec::new();
    for line in request.get_all(header::ACCEPT_LANGUAGE) {
        for range in preference::preferences(line.as_bytes()) {
            let range = range?;
            let mut language = SmallVec::from_slice(range.item);
            language.make_ascii_lowercase();
            // Heavier ones first.
            ranges.push((1000 - range.weight, language));
        }
    }
    ranges.sort_unstable();
    ranges.dedup();
    for (place, (lightness, language)) in ranges.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(language);
        if *lightness > 0 {
            out.extend_from_slice(b";q=");
            out.extend_from_slice(&thousandths(1000 - lightness));
        }
    }
    Ok(())
}

/// Three decimal digits.
fn thousandths(number: u16) -> [u8; 3] {
    let digit = |divisor: u16| b'0' + u8::try_from(number / divisor % 10).unwrap_or_default();
    [digit(100), digit(10), digit(1)]
}

/// Codings that responses are known to come in, in the order in which they are written.
const CODINGS: [&[u8]; 6] = [b"br", b"deflate", b"gzip", b"identity", b"zstd", b"*"];

/// `Accept-Encoding`: the known codings that are acceptable, whatever their weight, and the ones that
/// are not.
fn write_codings(request: &HeaderMap, out: &mut Vec<u8>) -> Result<(), Unreadable> {
    let mut acceptable = [None; CODINGS.len()];
    for line in request.get_all(header::ACCEPT_ENCODING) {
        for coding in preference::preferences(line.as_bytes()) {
            let coding = coding?;
            let name: &[u8] =
                if coding.item.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { coding.item };
            for (known, slot) in CODINGS.iter().zip(&mut acceptable) {
                if name.eq_ignore_ascii_case(known) {
                    *slot = slot.or(Some(coding.weight > 0));
                }
            }
        }
    }
    let start = out.len();
    let others_refused = acceptable.last() == Some(&Some(false));
    for (coding, acceptable) in CODINGS.iter().zip(acceptable) {
        // `identity` is acceptable without being named, unless everything unnamed is refused.
        let says_nothing = acceptable == Some(true) && *coding == b"identity" && !others_refused;
        let Some(acceptable) = acceptable.filter(|_| !says_nothing) else {
            continue;
        };
        if out.len() > start {
            out.push(b',');
        }
        out.extend_from_slice(if acceptable { b"" } else { b"!" });
        out.extend_from_slice(coding);
    }
    Ok(())
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
        assert_eq!(Vary::parse(&response), Vary::By(set(&["accept", "bar", "foo"])));
        assert_eq!(Vary::parse(&HeaderMap::new()), Vary::By(VarySet::default()));
    }

    #[test]
    fn a_star_anywhere_or_a_broken_name_answers_nothing() {
        for text in ["*", "*, *", ", *", "*, Foo", "Foo, *", "not a name", "\"Foo\""] {
            assert_eq!(Vary::parse(&headers(&[("vary", text)])), Vary::Anything, "{text}");
        }
        let lines = headers(&[("vary", ""), ("vary", "*")]);
        assert_eq!(Vary::parse(&lines), Vary::Anything);
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
        assert_eq!(value("accept-language", &["fr;q=0.5, de"]), "accept-language:de,fr;q=500\n");
        assert_ne!(value("accept-language", &["de, fr"]), value("accept-language", &["de"]));
        assert_eq!(value("accept-language", &["de;q=x, A"]), "accept-language:de;q=x,A\n");
    }

    #[test]
    fn codings_are_the_set_of_known_ones() {
        let expected = "accept-encoding:br,gzip\n";
        for text in ["gzip, br", "br;q=0.5, X-GZIP", "br, gzip, identity, sdch"] {
            assert_eq!(value("accept-encoding", &[text]), expected, "{text}");
        }
        assert_eq!(
            value("accept-encoding", &["gzip, identity;q=0"]),
            "accept-encoding:gzip,!identity\n"
        );
        assert_eq!(value("accept-encoding", &["*"]), "accept-encoding:*\n");
        assert_eq!(value("accept-encoding", &["*;q=0, gzip"]), "accept-encoding:gzip,!*\n");
        assert_eq!(value("accept-encoding", &["identity"]), "accept-encoding:\n");
        let identity_only = value("accept-encoding", &["identity, *;q=0"]);
        assert_eq!(identity_only, "accept-encoding:identity,!*\n");
        assert_eq!(value("accept-encoding", &[]), "accept-encoding\n");
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
