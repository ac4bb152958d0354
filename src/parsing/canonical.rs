//! The canonical text of a JSON document, which preserves the document's meaning.

use smallvec::SmallVec;

/// Maximum depth of a document. Deeper documents have no canonical text.
const MAX_DEPTH: usize = 64;

/// Why a document has no canonical text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCanonical {
    /// The document is not JSON in UTF-8 (RFC 8259).
    Malformed,
    /// An object has two members with the same name. Parsers use the first, the last, or neither.
    DuplicateName,
    /// A string contains a lone surrogate, which UTF-8 cannot encode.
    LoneSurrogate,
    /// The document is nested deeper than 64 levels.
    TooDeep,
}

/// Returns the canonical text of a JSON document.
///
/// The text has no white space, sorts the members of objects by name, and escapes in strings only
/// what RFC 8259 requires. Numbers stay as written, because parsers differ over `1`, `1.0` and
/// numbers that no double can represent. Takes about as long as parsing.
///
/// # Errors
/// Fails if the text is not JSON, or if parsers differ over its meaning.
pub fn canonical(json: &[u8]) -> Result<Vec<u8>, NotCanonical> {
    if std::str::from_utf8(json).is_err() {
        return Err(NotCanonical::Malformed);
    }
    let mut rewriter = Rewriter { json, position: 0, text: Vec::with_capacity(json.len()) };
    rewriter.value(0)?;
    match rewriter.next_token() {
        None => Ok(rewriter.text),
        Some(_) => Err(NotCanonical::Malformed),
    }
}

/// Reads a document once, and writes its canonical text.
struct Rewriter<'a> {
    json: &'a [u8],
    position: usize,
    text: Vec<u8>,
}

/// The position of a member in the canonical text.
#[derive(Clone, Copy)]
struct Member {
    start: usize,
    name_end: usize,
    end: usize,
}

impl Rewriter<'_> {
    fn peek(&self) -> Option<u8> {
        self.json.get(self.position).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.position += 1;
        Some(byte)
    }

    /// Returns the next byte that is not white space, without consuming it.
    fn next_token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.position += 1;
        }
        self.peek()
    }

    /// Consumes the next byte that is not white space.
    fn take_token(&mut self) -> Option<u8> {
        self.next_token()?;
        self.next()
    }

    fn value(&mut self, depth: usize) -> Result<(), NotCanonical> {
        if depth > MAX_DEPTH {
            return Err(NotCanonical::TooDeep);
        }
        match self.next_token() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(NotCanonical::Malformed),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), NotCanonical> {
        self.copy();
        let begin = self.text.len();
        let mut members: SmallVec<[Member; 16]> = SmallVec::new();
        if self.next_token() == Some(b'}') {
            self.copy();
            return Ok(());
        }
        loop {
            if self.next_token() != Some(b'"') {
                return Err(NotCanonical::Malformed);
            }
            let start = self.text.len();
            self.string()?;
            let name_end = self.text.len();
            if self.take_token() != Some(b':') {
                return Err(NotCanonical::Malformed);
            }
            self.text.push(b':');
            self.value(depth + 1)?;
            members.push(Member { start, name_end, end: self.text.len() });
            match self.take_token() {
                Some(b',') => self.text.push(b','),
                Some(b'}') => break,
                _ => return Err(NotCanonical::Malformed),
            }
        }
        self.sort(begin, &mut members)?;
        self.text.push(b'}');
        Ok(())
    }

    /// Sorts the members of an object whose text starts at `begin`.
    fn sort(&mut self, begin: usize, members: &mut [Member]) -> Result<(), NotCanonical> {
        let name = |text: &[u8], member: &Member| -> Box<[u8]> {
            text.get(member.start..member.name_end).unwrap_or_default().into()
        };
        let order = |one: &Member, other: &Member| {
            let name = |member: &Member| self.text.get(member.start..member.name_end);
            name(one).cmp(&name(other))
        };
        let is_sorted = members.is_sorted_by(|one, other| order(one, other).is_lt());
        if is_sorted {
            return Ok(());
        }
        members.sort_by(order);
        let is_repeated = |pair: &[Member]| match pair {
            [one, other] => name(&self.text, one) == name(&self.text, other),
            _ => false,
        };
        if members.windows(2).any(is_repeated) {
            return Err(NotCanonical::DuplicateName);
        }
        let mut sorted = Vec::with_capacity(self.text.len() - begin);
        for member in members.iter() {
            if !sorted.is_empty() {
                sorted.push(b',');
            }
            sorted.extend_from_slice(self.text.get(member.start..member.end).unwrap_or_default());
        }
        self.text.truncate(begin);
        self.text.append(&mut sorted);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), NotCanonical> {
        self.copy();
        if self.next_token() == Some(b']') {
            self.copy();
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            match self.take_token() {
                Some(b',') => self.text.push(b','),
                Some(b']') => break,
                _ => return Err(NotCanonical::Malformed),
            }
        }
        self.text.push(b']');
        Ok(())
    }

    /// Copies the next byte unchanged.
    fn copy(&mut self) {
        let byte = self.next();
        self.text.extend(byte);
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), NotCanonical> {
        let end = self.position + word.len();
        if self.json.get(self.position..end) != Some(word) {
            return Err(NotCanonical::Malformed);
        }
        self.position = end;
        self.text.extend_from_slice(word);
        Ok(())
    }

    /// Copies a number as written (RFC 8259 §6).
    fn number(&mut self) -> Result<(), NotCanonical> {
        if self.peek() == Some(b'-') {
            self.copy();
        }
        if self.peek() == Some(b'0') {
            self.copy();
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.copy();
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.copy();
            if let Some(b'+' | b'-') = self.peek() {
                self.copy();
            }
            self.digits()?;
        }
        Ok(())
    }

    /// Copies one or more digits.
    fn digits(&mut self) -> Result<(), NotCanonical> {
        let before = self.position;
        while let Some(b'0'..=b'9') = self.peek() {
            self.copy();
        }
        if self.position == before { Err(NotCanonical::Malformed) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<(), NotCanonical> {
        self.copy();
        loop {
            let rest = self.json.get(self.position..).unwrap_or_default();
            let length = rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f))
                .ok_or(NotCanonical::Malformed)?;
            self.text.extend_from_slice(rest.get(..length).unwrap_or_default());
            self.position += length;
            match self.next() {
                Some(b'"') => {
                    self.text.push(b'"');
                    return Ok(());
                }
                Some(b'\\') => {
                    let character = self.escaped()?;
                    self.write(character);
                }
                _ => return Err(NotCanonical::Malformed),
            }
        }
    }

    /// Consumes the rest of an escape sequence, and returns the character that it stands for.
    fn escaped(&mut self) -> Result<char, NotCanonical> {
        Ok(match self.next() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.code_point(),
            _ => return Err(NotCanonical::Malformed),
        })
    }

    /// Consumes the digits of `\uXXXX` and, for a surrogate pair, the second escape sequence.
    fn code_point(&mut self) -> Result<char, NotCanonical> {
        let first = self.code_unit()?;
        let code = match first {
            0xd800..=0xdbff => {
                if (self.next(), self.next()) != (Some(b'\\'), Some(b'u')) {
                    return Err(NotCanonical::LoneSurrogate);
                }
                let second = self.code_unit()?;
                if !matches!(second, 0xdc00..=0xdfff) {
                    return Err(NotCanonical::LoneSurrogate);
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        char::from_u32(code).ok_or(NotCanonical::LoneSurrogate)
    }

    fn code_unit(&mut self) -> Result<u32, NotCanonical> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or(NotCanonical::Malformed)?;
        }
        Ok(unit)
    }

    /// Writes a character of a string, escaped only if it has to be.
    fn write(&mut self, character: char) {
        let short = match character {
            '"' => b'"',
            '\\' => b'\\',
            '\u{8}' => b'b',
            '\u{c}' => b'f',
            '\n' => b'n',
            '\r' => b'r',
            '\t' => b't',
            '\0'..='\u{1f}' => {
                let escape = format!("\\u{:04x}", u32::from(character));
                return self.text.extend_from_slice(escape.as_bytes());
            }
            other => {
                let mut bytes = [0; 4];
                return self.text.extend_from_slice(other.encode_utf8(&mut bytes).as_bytes());
            }
        };
        self.text.extend_from_slice(&[b'\\', short]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn text(json: &str) -> String {
        String::from_utf8(canonical(json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn spellings_of_one_document_have_one_text() {
        for (json, expected) in [
            (" { \"b\" : 1 ,\r\n\t\"a\" : [ ] } ", r#"{"a":[],"b":1}"#),
            (
                r#"{"a":{},"b":{"d":[1,{"f":0,"e":0}],"c":true}}"#,
                r#"{"a":{},"b":{"c":true,"d":[1,{"e":0,"f":0}]}}"#,
            ),
            (r#"{"b":1,"ab":2,"a":3}"#, r#"{"a":3,"ab":2,"b":1}"#),
            (r#"{"\u0061":1}"#, r#"{"a":1}"#),
            (
                r#""\u00e9\/\ud83d\uDE00\u0000\u001F\n\u000a\"\\\b\f\r\t""#,
                "\"é/😀\\u0000\\u001f\\n\\n\\\"\\\\\\b\\f\\r\\t\"",
            ),
            ("\"é\u{7f}\u{2028}\"", "\"é\u{7f}\u{2028}\""),
            ("null", "null"),
            ("[false,null,\"\"]", "[false,null,\"\"]"),
        ] {
            assert_eq!(text(json), expected, "{json}");
            assert_eq!(text(expected), expected, "the text is its own canonical text");
        }
    }

    #[test]
    fn numbers_stay_as_written() {
        for number in
            ["0", "-0", "1", "1.0", "1e0", "1E+2", "10000000000000000000000001", "0.1", "-1.5e-7"]
        {
            assert_eq!(text(number), number);
        }
    }

    #[test]
    fn what_parsers_read_differently_has_no_canonical_text() {
        use NotCanonical::{DuplicateName, LoneSurrogate, Malformed};
        for (json, expected) in [
            (r#"{"a":1,"a":2}"#, DuplicateName),
            (r#"{"a":1,"b":0,"\u0061":1}"#, DuplicateName),
            (r#"[{"a":{"b":1,"b":1}}]"#, DuplicateName),
            (r#""\ud800""#, LoneSurrogate),
            (r#""\ud800\u0041""#, LoneSurrogate),
            (r#""\udc00\ud800""#, LoneSurrogate),
            (r#""\ud800x\udc00""#, LoneSurrogate),
            ("", Malformed),
            ("{", Malformed),
            ("{}{}", Malformed),
            ("{\"a\":1,}", Malformed),
            ("{a:1}", Malformed),
            ("{\"a\" 1}", Malformed),
            ("[1,]", Malformed),
            ("[1 2]", Malformed),
            ("01", Malformed),
            ("1.", Malformed),
            (".5", Malformed),
            ("+1", Malformed),
            ("1e", Malformed),
            ("-", Malformed),
            ("NaN", Malformed),
            ("tru", Malformed),
            ("'a'", Malformed),
            ("\"a\nb\"", Malformed),
            (r#""\x41""#, Malformed),
            (r#""\u00g0""#, Malformed),
            ("\"a", Malformed),
            ("\u{feff}1", Malformed),
            ("// comment\n1", Malformed),
        ] {
            assert_eq!(canonical(json.as_bytes()), Err(expected), "{json}");
        }
        assert_eq!(canonical(b"\"\xe9\""), Err(Malformed), "not UTF-8");
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(canonical(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(canonical("[".repeat(60_000).as_bytes()), Err(NotCanonical::TooDeep));
    }

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-zé\"\\\\/\u{0}-\u{1f}😀]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-cé\"\n]{0,3}", inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_text_means_the_same(document in document()) {
            for json in [document.to_string(), format!("{document:#}")] {
                let text = canonical(json.as_bytes()).unwrap();
                prop_assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), document.clone());
                prop_assert_eq!(&canonical(&text).unwrap(), &text);
            }
        }

        #[test]
        fn no_text_makes_it_panic_and_all_that_parsers_take_is_read(json in "[\\[\\]{}\",:\\\\u0d81e.a \\-+]{0,24}") {
            let parsed = serde_json::from_str::<Value>(&json);
            match canonical(json.as_bytes()) {
                Ok(text) => prop_assert_eq!(serde_json::from_slice::<Value>(&text).ok(), parsed.ok()),
                Err(NotCanonical::Malformed) => prop_assert!(parsed.is_err(), "{}", json),
                Err(_) => {}
            }
        }
    }
}
