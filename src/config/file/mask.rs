//! Masking of secrets in the text of a file, for reports that show its lines.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::suggest::nearest;

/// Keys whose values are secrets in any table, because the table's name may be misspelt.
const SECRETS: [&str; 8] = [
    "token",
    "tokens",
    "secret",
    "secrets",
    "password",
    "encrypt_key",
    "encrypt_keys",
    "digest_key",
];

/// Keys of URLs, which may contain credentials.
const URLS: [&str; 5] = ["redis", "url", "urls", "origin", "jwks"];

/// The key of request fields, which may be credentials.
const FIELDS: &str = "headers";

/// Suffixes of URL parameters whose values are secrets.
const PARAMETERS: [&str; 4] = ["password=", "token=", "secret=", "key="];

/// Returns the text with each byte of a secret replaced by `*`. Secrets are the values of secret
/// keys, and credentials in URLs. The length, line breaks and references such as `${NAME}` stay.
pub(crate) fn masked(source: &str) -> String {
    let (document, errors) = DeTable::parse_recoverable(source);
    let mut mask = Mask { source, secrets: Vec::new() };
    mask.table(document.get_ref(), ValueKind::Plain);
    if !errors.is_empty() {
        mask.lines();
    }
    mask.apply()
}

/// Returns a URL with its credentials masked.
pub(crate) fn masked_url(url: &str) -> String {
    let mut mask = Mask { source: url, secrets: Vec::new() };
    mask.credentials(0..url.len(), ValueKind::Url);
    mask.apply()
}

/// How a value is masked: not at all, only its URL credentials, or completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Plain,
    Url,
    Secret,
}

impl ValueKind {
    fn of(name: &str, value: &DeValue<'_>) -> Self {
        let name = name.to_ascii_lowercase();
        // The tables in `admin.tokens` have their own keys, which are masked one by one.
        let has_own_keys = name == "tokens" && has_tables(value);
        if (is_secret(&name) && !has_own_keys) || (name == FIELDS && value.is_table()) {
            Self::Secret
        } else if URLS.contains(&name.as_str()) {
            Self::Url
        } else {
            Self::Plain
        }
    }
}

/// A text and the positions of its secrets.
struct Mask<'a> {
    source: &'a str,
    secrets: Vec<Range<usize>>,
}

impl Mask<'_> {
    fn table(&mut self, table: &DeTable<'_>, kind: ValueKind) {
        for (name, value) in table {
            let own = ValueKind::of(name.get_ref(), value.get_ref());
            self.value(value, if kind == ValueKind::Secret { kind } else { own });
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, kind: ValueKind) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, kind),
            DeValue::Array(array) => array.iter().for_each(|each| self.value(each, kind)),
            _ if kind == ValueKind::Secret => self.secrets.push(value.span()),
            _ => self.credentials(value.span(), kind),
        }
    }

    /// Masks credentials in a URL: everything before the last `@`, and secret parameters. Invalid
    /// URLs are masked too.
    fn credentials(&mut self, at: Range<usize>, kind: ValueKind) {
        let text = self.source.get(at.clone()).unwrap_or_default();
        let begin = match text.find("://") {
            Some(scheme) => scheme + 3,
            None if kind == ValueKind::Url => 0,
            None => return,
        };
        if let Some(end) = text.rfind('@').filter(|end| *end > begin) {
            self.secrets.push(at.start + begin..at.start + end);
        }
        let mut start = begin;
        for parameter in text.get(begin..).unwrap_or_default().split_inclusive(['?', '&']) {
            let end = parameter.trim_end_matches(['?', '&', '"', '\'']).len();
            let value = parameter.find('=').map_or(end, |sign| sign + 1);
            let name = parameter.get(..value).unwrap_or_default().to_ascii_lowercase();
            if PARAMETERS.iter().any(|secret| name.ends_with(secret)) {
                self.secrets.push(at.start + start + value..at.start + start + end.max(value));
            }
            start += parameter.len();
        }
    }

    /// Masks a text that is not valid TOML: the rest of each line after a secret key, and all lines
    /// up to the next key or table.
    fn lines(&mut self) {
        let (mut start, mut is_secret) = (0, false);
        for line in self.source.split_inclusive('\n') {
            let end = start + line.trim_end().len();
            match value_of_secret(line) {
                Some(at) => {
                    self.secrets.push(start + at..end);
                    is_secret = true;
                }
                None if begins_entry(line) => is_secret = false,
                None if is_secret => self.secrets.push(start..end),
                None => {}
            }
            self.credentials(start..end, ValueKind::Plain);
            start += line.len();
        }
    }

    fn apply(self) -> String {
        let mut bytes = self.source.as_bytes().to_vec();
        for secret in self.secrets {
            hide(bytes.get_mut(secret).unwrap_or_default());
        }
        String::from_utf8(bytes).unwrap_or_default()
    }
}

fn has_tables(value: &DeValue<'_>) -> bool {
    let mut elements = value.as_array().into_iter().flat_map(|array| array.iter());
    elements.any(|element| element.get_ref().is_table())
}

/// Returns whether a key holds a secret, or looks like a misspelling of such a key.
fn is_secret(name: &str) -> bool {
    let holds = |word| name.contains(word);
    ["token", "secret", "passw"].into_iter().any(holds) || nearest(name, SECRETS).is_some()
}

/// Returns the position after the first `=` that follows a secret key.
fn value_of_secret(line: &str) -> Option<usize> {
    let mut signs = line.match_indices('=').map(|(at, _)| at);
    let at = signs.find(|at| last_word(line.get(..*at).unwrap_or_default()).is_some_and(is_secret));
    at.map(|at| at + 1)
}

/// Returns the key at the end of a text.
fn last_word(text: &str) -> Option<&str> {
    let is_of_keys =
        |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    let text = text.trim_end().trim_end_matches(['"', '\'']);
    let word = text.rsplit(|character| !is_of_keys(character)).next()?;
    (!word.is_empty()).then_some(word)
}

fn begins_entry(line: &str) -> bool {
    let line = line.trim_start();
    let is_table = line.starts_with('[') && !line.starts_with("[\"");
    let key = line.split_once('=').map(|(key, _)| key.trim_end());
    let is_of_keys = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    is_table || key.is_some_and(|key| !key.is_empty() && key.bytes().all(is_of_keys))
}

/// Overwrites a text with `*`, except for enclosing quotes, line breaks and references.
fn hide(text: &mut [u8]) {
    let is_quote = |byte: &u8| matches!(byte, b'"' | b'\'' | b' ');
    let start = text.iter().position(|byte| !is_quote(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_quote(byte)).map_or(start, |last| last + 1);
    let mut rest = text.get_mut(start..end).unwrap_or_default();
    while let Some(first) = rest.first().copied() {
        let shown = reference_length(rest);
        if shown.is_none() && !matches!(first, b'\n' | b'\r') {
            rest.iter_mut().take(1).for_each(|byte| *byte = b'*');
        }
        rest = rest.get_mut(shown.unwrap_or(1)..).unwrap_or_default();
    }
}

/// Returns the length of a reference such as `${NAME}` at the beginning of a text.
fn reference_length(text: &[u8]) -> Option<usize> {
    let end = text.strip_prefix(b"${")?.iter().position(|byte| *byte == b'}')?;
    Some(end + 3)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_stand_and_nothing_else_is() {
        let cases = [
            ("admin.token = \"hunter2\"", "admin.token = \"*******\""),
            ("tokn = 'abc'", "tokn = '***'"),
            (
                "admin = { tokens = [{ token = \"ab\", may = [\"read\"] }] }",
                "admin = { tokens = [{ token = \"**\", may = [\"read\"] }] }",
            ),
            ("tokens = [\"ab\", 12]", "tokens = [\"**\", **]"),
            ("secrets = [\n  \"a\",\n]", "secrets = [\n  \"*\",\n]"),
            ("secret = \"${FILE}x${B}\"", "secret = \"${FILE}*${B}\""),
            ("secret = \"\"\"\na\nb\"\"\"", "secret = \"\"\"\n*\n*\"\"\""),
            ("headers = { Cookie = [\"a\"] }", "headers = { Cookie = [\"*\"] }"),
            ("vary = { headers = [\"accept\"] }", "vary = { headers = [\"accept\"] }"),
            ("redis = \"redis://u:p,@x@host:1/0\"", "redis = \"redis://******@host:1/0\""),
            ("redis = \"u:p@host\"", "redis = \"***@host\""),
            (
                "redis = \"redis://h?a=b&sentinel_password=p\"",
                "redis = \"redis://h?a=b&sentinel_password=*\"",
            ),
            (
                "poll = [{ url = \"http://u:p@h/v?token=t\" }]",
                "poll = [{ url = \"http://***@h/v?token=*\" }]",
            ),
            ("urls = [\"http://a\", \"http://u:p@b\"]", "urls = [\"http://a\", \"http://***@b\"]"),
            (
                "tls = { cert = \"a.pem\", key = \"b.pem\" }",
                "tls = { cert = \"a.pem\", key = \"b.pem\" }",
            ),
            ("token = \"ü\"", "token = \"**\""),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn secrets_of_a_text_that_is_no_toml_are_masked() {
        let cases = [
            ("token = \"abc\nlisten = 1", "token = \"***\nlisten = 1"),
            ("token = abc\n[log", "token = ***\n[log"),
            ("a = { token = \"b\", c = [ }", "a = { token = \"***********"),
            ("secrets = [\n \"a\",\n \"b\n]\nx = 1", "secrets = *\n \"***\n \"*\n*\nx = 1"),
            ("redis = redis://u:p@h", "redis = redis://***@h"),
        ];
        for (text, expected) in cases {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn the_documented_secrets_are_known() {
        for name in
            ["token", "tokens", "secret", "secrets", "encrypt_key", "encrypt_keys", "digest_key"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["key", "public_key", "tags", "when", "session_cookies", "credentials", "sort"]
        {
            assert!(!is_secret(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn lines_and_bytes_stay_where_they_are(text in "[a-z\"'=\\[\\]{}$@:/?&\\n ü]{0,60}") {
            let text = text.replace('a', "token");
            let masked = masked(&text);
            prop_assert_eq!(masked.len(), text.len());
            prop_assert_eq!(masked.matches('\n').count(), text.matches('\n').count());
        }
    }
}
