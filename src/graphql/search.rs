//! The search for mutations in requests that cannot be parsed as a whole.

use super::members::may_name_mutation;

/// A search in the JSON of requests, part by part, in constant memory.
///
/// A request is a query if its document is part of it and none of its members is a string with the
/// word `mutation`. This holds whichever of two members with equal names a server uses, whether or
/// not a server ignores the case of names, and for variables of any depth.
#[derive(Debug, Default)]
pub(crate) struct MutationSearch {
    state: SearchState,
    /// The number of objects and arrays that are open.
    depth: usize,
    /// The depth of the members of requests: 1, or 2 in a batch.
    request_depth: usize,
    /// Whether the next string at `request_depth` is a name.
    expects_name: bool,
    /// Whether the current member is named `query`.
    name: NameMatch,
    /// Whether the current request has a document.
    has_document: bool,
    /// The number of requests so far.
    requests: usize,
    /// How many characters of the word `mutation` the last characters match.
    matched: usize,
    /// The last byte that was read.
    previous: u8,
    may_mutate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum SearchState {
    /// The next byte is outside of strings.
    #[default]
    Structure,
    String,
    /// The next byte follows a backslash.
    Escape,
    /// The next byte is in `\uXXXX`: the number of digits so far, and their value.
    CodeUnit(u8, u16),
}

/// Whether a name is `query`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum NameMatch {
    #[default]
    Other,
    /// The name so far matches this many first characters of `query`.
    Partly(usize),
    Query,
}

const WORD: &[u8] = b"mutation";
const QUERY: &[u8] = b"query";

/// The byte order mark, with which some editors begin a text.
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

impl MutationSearch {
    /// Begins a search in the body of a `POST` with this URL; `None` if the URL may contain a
    /// mutation.
    pub(crate) fn beside(url_query: Option<&str>) -> Option<Self> {
        (!may_name_mutation(url_query)).then(Self::default)
    }

    /// Returns whether a JSON text contains only queries, and certainly no mutation.
    pub(crate) fn is_query(json: &[u8]) -> bool {
        let mut search = Self::default();
        search.add(json);
        search.has_found_query()
    }

    /// Searches the next part of the text.
    pub(crate) fn add(&mut self, part: &[u8]) {
        for byte in part {
            self.add_byte(*byte);
        }
    }

    /// Returns whether the text is complete and contains only queries, and certainly no mutation.
    pub(crate) fn has_found_query(&self) -> bool {
        let is_complete = self.state == SearchState::Structure && self.depth == 0;
        is_complete && self.requests > 0 && !self.may_mutate
    }

    fn add_byte(&mut self, byte: u8) {
        // Some decoders read letters in longer forms, which RFC 3629 §3 forbids.
        self.may_mutate |= matches!(
            (self.previous, byte),
            (_, 0xc0 | 0xc1) | (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f)
        );
        self.previous = byte;
        self.state = match (self.state, byte) {
            (SearchState::Structure, _) => self.structure(byte),
            (SearchState::String, b'\\') => SearchState::Escape,
            (SearchState::String, b'"') => self.end_string(),
            (SearchState::String, _) => self.character(u16::from(byte)),
            (SearchState::Escape, b'u') => SearchState::CodeUnit(0, 0),
            // None of these escapes stands for a letter.
            (SearchState::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.character(u16::from(b' '))
            }
            (SearchState::Escape, _) => self.malformed(),
            (SearchState::CodeUnit(digits, value), _) => self.code_unit(digits, value, byte),
        };
    }

    fn structure(&mut self, byte: u8) -> SearchState {
        let is_member = self.depth == self.request_depth && self.depth > 0;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b'{' | b'[' => self.open(byte, is_member),
            b'}' | b']' => self.close(byte, is_member),
            b',' if is_member => (self.expects_name, self.name) = (true, NameMatch::Other),
            b':' if is_member => self.expects_name = false,
            b',' | b':' => self.may_mutate |= self.depth == 0,
            b'"' => return self.begin_string(is_member),
            b'0'..=b'9' | b'-' | b'+' | b'.' | b'a'..=b'z' | b'E' => self.other_value(is_member),
            _ => self.may_mutate |= self.requests > 0 || !BYTE_ORDER_MARK.contains(&byte),
        }
        SearchState::Structure
    }

    fn open(&mut self, bracket: u8, is_member: bool) {
        self.other_value(is_member);
        // The text continues after its end, or a batch contains something other than requests.
        self.may_mutate |= self.depth == 0 && self.request_depth > 0;
        self.may_mutate |= self.depth == 1 && self.request_depth == 2 && bracket == b'[';
        if self.depth == 0 {
            self.request_depth = if bracket == b'[' { 2 } else { 1 };
        }
        self.depth += 1;
        if self.depth == self.request_depth {
            (self.expects_name, self.has_document) = (true, false);
            self.name = NameMatch::Other;
            self.requests += 1;
        }
    }

    fn close(&mut self, bracket: u8, is_member: bool) {
        self.may_mutate |=
            self.depth == 0 || (is_member && (bracket == b']' || !self.has_document));
        self.depth = self.depth.saturating_sub(1);
    }

    fn begin_string(&mut self, is_member: bool) -> SearchState {
        // A request is an object.
        self.may_mutate |= self.depth < self.request_depth || self.depth == 0;
        self.matched = 0;
        if is_member && self.expects_name {
            self.name = NameMatch::Partly(0);
        }
        SearchState::String
    }

    /// Records a value that is not a string, and therefore not a document.
    fn other_value(&mut self, is_member: bool) {
        self.may_mutate |= is_member && (self.name == NameMatch::Query || self.expects_name);
        self.may_mutate |= self.depth == 0 && self.requests > 0;
    }

    /// Records a malformed string, which servers may read as a mutation.
    fn malformed(&mut self) -> SearchState {
        self.may_mutate = true;
        SearchState::String
    }

    /// Adds a character of a string: a byte, or an escaped code unit.
    ///
    /// Characters that lenient servers may drop, such as halves of surrogate pairs, do not end a
    /// word.
    fn character(&mut self, unit: u16) -> SearchState {
        let is_next =
            |word: &[u8], at: usize| word.get(at).is_some_and(|it| u16::from(*it) == unit);
        if self.is_in_name() {
            self.name = match self.name {
                NameMatch::Partly(at) if is_next(QUERY, at) => NameMatch::Partly(at + 1),
                _ => NameMatch::Other,
            };
        } else if self.depth == self.request_depth && unit < 0x80 {
            // The first letter occurs only once in the word, so a mismatch restarts the match.
            let continued = is_next(WORD, self.matched).then_some(self.matched + 1);
            self.matched = continued.unwrap_or_else(|| usize::from(is_next(WORD, 0)));
            self.may_mutate |= self.matched == WORD.len();
        }
        SearchState::String
    }

    fn code_unit(&mut self, digits: u8, value: u16, byte: u8) -> SearchState {
        let digit = char::from(byte).to_digit(16).and_then(|it| u16::try_from(it).ok());
        let Some(digit) = digit else { return self.malformed() };
        let value = value << 4 | digit;
        if digits == 3 { self.character(value) } else { SearchState::CodeUnit(digits + 1, value) }
    }

    fn end_string(&mut self) -> SearchState {
        if self.is_in_name() {
            let is_query = self.name == NameMatch::Partly(QUERY.len());
            self.name = if is_query { NameMatch::Query } else { NameMatch::Other };
        } else if self.depth == self.request_depth && self.name == NameMatch::Query {
            self.has_document = true;
        }
        SearchState::Structure
    }

    fn is_in_name(&self) -> bool {
        self.depth == self.request_depth && self.expects_name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_found_however_they_are_written() {
        let deep =
            format!(r#"{{"variables":{}{},"query":"{{a}}"}}"#, "[".repeat(500), "]".repeat(500));
        for json in [
            r#"{"query":"{a}"}"#,
            "\u{feff}{ \"query\" : \"{a}\" }\n",
            r#"{"query":"{a}","query":"query B { b }"}"#,
            r#"{"variables":{"query":7,"mutation":"mutation"},"query":"{ \"a\" \u006d }"}"#,
            r#"{"operationName":null,"extensions":{"a":[1.5e+3,true,{}]},"query":"muta tion"}"#,
            r#"{"\u0071uery":"{a}"}"#,
            r#"{"query":"{a(s:\"é\ud83d\ude00\\n\")}"}"#,
            r#"[{"query":"{a}"},{"query":"{b}","variables":[]}]"#,
            &deep,
        ] {
            assert!(MutationSearch::is_query(json.as_bytes()), "{json}");
            let mut search = MutationSearch::default();
            json.bytes().for_each(|byte| search.add(&[byte]));
            assert!(search.has_found_query(), "part by part: {json}");
        }
    }

    #[test]
    fn what_may_be_a_mutation_is_no_query() {
        for json in [
            "",
            "{}",
            "[]",
            "7",
            r#""query""#,
            r#"{"query":"mutation{a}"}"#,
            r#"{"query":"mmutation{a}"}"#,
            r#"{"query":"\u006Duta\u0074ion{a}"}"#,
            r#"{"query":"mut\ud800ation{a}"}"#,
            r#"{"query":"\mutation{a}"}"#,
            r#"{"query":"{a}","query":"mutation{a}"}"#,
            r#"{"query":"mutation{a}","query":"{a}"}"#,
            r#"{"query":"{a}","query":null}"#,
            r#"{"query":["{a}"]}"#,
            r#"{"query":{"query":"{a}"}}"#,
            r#"{"documentId":"m1"}"#,
            r#"{"variables":{"query":"{a}"},"documentId":"m1"}"#,
            r#"{"extensions":{"query":"{a}"}}"#,
            r#"{"Query":"{a}"}"#,
            r#"{"query":"{a}","Query":"mutation{a}"}"#,
            r#"{"queryX":"{a}"}"#,
            r#"{"query":"{a}""#,
            r#"{"query":"{a}"#,
            r#"{"query":"{a}"}}"#,
            r#"{"query":"{a}"}{"query":"mutation{a}"}"#,
            r#"{"query":"{a}"}7"#,
            r#"{'query':'mutation{a}',"query":"{a}"}"#,
            r#"{/* */"query":"{a}"}"#,
            r#"[{"query":"{a}"},{"query":"mutation{a}"}]"#,
            r#"[{"query":"{a}"},{"id":"m1"}]"#,
            r#"[{"query":"{a}"},"m1"]"#,
            r#"[{"query":"{a}"},["m1"]]"#,
            r#"[[{"query":"{a}"}]]"#,
            "{\"query\":\"m\0u\"}{",
        ] {
            assert!(!MutationSearch::is_query(json.as_bytes()), "{json}");
        }
        let wide: Vec<u8> =
            r#"{"query":"mutation{a}"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(!MutationSearch::is_query(&wide), "another encoding");
        // `m` in two and three bytes, which some decoders read (RFC 3629 §3 forbids it).
        for letter in [b"\xc1\xad".as_slice(), b"\xe0\x81\xad"] {
            let json = [b"{\"query\":\"", letter, b"utation{a}\"}"].concat();
            assert!(!MutationSearch::is_query(&json), "{letter:x?}");
        }
    }
}
