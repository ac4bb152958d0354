//! Narrowing of identities by claims about permissions.
//!
//! Tokens of one user with different scopes share no responses, because the origin may respond
//! differently to each scope. Equivalent spellings of a claim count as equal. In doubt, spellings
//! count as different, which only costs hits.

use super::jwt::json::{self, JsonObject};

/// The claims that narrow an identity, unless the operator names other claims.
pub(crate) const DEFAULT_CLAIMS: [&str; 20] = [
    "acr",
    "act",
    "aud",
    "authorization_details",
    "azp",
    "client_id",
    "cognito:groups",
    "entitlements",
    "groups",
    "org_id",
    "permissions",
    "realm_access",
    "resource_access",
    "role",
    "roles",
    "scope",
    "scp",
    "tenant",
    "tenant_id",
    "tid",
];

/// Maximum depth of comparison; deeper values are compared as written.
const MAX_DEPTH: usize = 8;

/// Whether order matters in the list or the words of a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClaimSemantics {
    /// The order of lists and words matters.
    Plain,
    /// A list of strings is a set; a string is a set of one.
    Sets,
    /// A string is a set of words (RFC 6749 §3.3).
    Words,
}

/// Appends claims in a form that is equal only if the claims are equivalent.
pub(super) fn write(claims: &JsonObject<'_>, names: &[Box<str>], out: &mut Vec<u8>) {
    for name in names {
        if let Some(raw) = claims.get(name) {
            push(out, b'n', name.as_bytes());
            value(raw, semantics(name), MAX_DEPTH, out);
        }
    }
}

fn semantics(name: &str) -> ClaimSemantics {
    match name {
        "scope" | "scp" => ClaimSemantics::Words,
        "aud" | "cognito:groups" | "entitlements" | "groups" | "permissions" | "realm_access"
        | "resource_access" | "role" | "roles" => ClaimSemantics::Sets,
        _ => ClaimSemantics::Plain,
    }
}

fn value(raw: &str, semantics: ClaimSemantics, depth: usize, out: &mut Vec<u8>) {
    let is_known = depth > 0
        && match raw.as_bytes().first() {
            Some(b'"') => text(raw, semantics, out),
            Some(b'[') => list(raw, semantics, depth, out),
            Some(b'{') => object(raw, semantics, depth, out),
            _ => false,
        };
    if !is_known {
        push(out, b'r', raw.as_bytes());
    }
}

fn text(raw: &str, semantics: ClaimSemantics, out: &mut Vec<u8>) -> bool {
    let Some(text) = json::string(raw) else { return false };
    match semantics {
        ClaimSemantics::Plain => push(out, b's', text.as_bytes()),
        ClaimSemantics::Sets => push_set(vec![text], out),
        ClaimSemantics::Words => {
            let words = text.split(' ').filter(|word| !word.is_empty());
            push_set(words.map(str::to_owned).collect(), out);
        }
    }
    true
}

fn list(raw: &str, semantics: ClaimSemantics, depth: usize, out: &mut Vec<u8>) -> bool {
    let is_word = |text: &String| !text.is_empty() && !text.contains(' ');
    let texts = json::strings(raw).filter(|_| semantics != ClaimSemantics::Plain);
    if let Some(texts) = texts
        && (semantics != ClaimSemantics::Words || texts.iter().all(is_word))
    {
        push_set(texts, out);
        return true;
    }
    let Some(elements) = json::list(raw) else { return false };
    push(out, b'l', &elements.len().to_le_bytes());
    for element in elements {
        value(element, ClaimSemantics::Plain, depth - 1, out);
    }
    true
}

fn object(raw: &str, semantics: ClaimSemantics, depth: usize, out: &mut Vec<u8>) -> bool {
    let Some(object) = JsonObject::parse(raw) else { return false };
    push(out, b'o', &object.iter().count().to_le_bytes());
    for (name, raw) in object.iter() {
        push(out, b'n', name.as_bytes());
        value(raw, semantics, depth - 1, out);
    }
    true
}

fn push_set(mut texts: Vec<String>, out: &mut Vec<u8>) {
    texts.sort_unstable();
    texts.dedup();
    push(out, b'w', &texts.len().to_le_bytes());
    for text in texts {
        push(out, b's', text.as_bytes());
    }
}

fn push(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(claims: &str) -> Vec<u8> {
        let names = DEFAULT_CLAIMS.map(Box::from);
        let mut out = Vec::new();
        write(&JsonObject::parse(claims).unwrap(), &names, &mut out);
        out
    }

    #[test]
    fn spellings_of_the_same_rights_are_the_same() {
        for (one, other) in [
            (r#"{"scope":"a b"}"#, r#"{"scope":"b  a a"}"#),
            (r#"{"scope":"a b"}"#, r#"{"scope":["b","a"]}"#),
            (r#"{"aud":"a"}"#, r#"{"aud":["a"]}"#),
            (r#"{"roles":["a","b"]}"#, r#"{"roles":["\u0062", "a"]}"#),
            (
                r#"{"realm_access":{"roles":["a","b"]}}"#,
                r#"{ "realm_access" : {"roles":["b","a"]}}"#,
            ),
            (r#"{"act":{"sub":"a","x":1}}"#, r#"{"act":{"x":1,"sub":"a"}}"#),
            (r#"{"sub":"a","jti":"1","scope":"a"}"#, r#"{"sub":"b","scope":"a"}"#),
        ] {
            assert_eq!(encode(one), encode(other), "{one} {other}");
        }
    }

    #[test]
    fn different_rights_are_different() {
        let all = [
            r"{}",
            r#"{"scope":""}"#,
            r#"{"scope":null}"#,
            r#"{"scope":"a"}"#,
            r#"{"scope":"a b"}"#,
            r#"{"scope":["a b"]}"#,
            r#"{"scope":["a",""]}"#,
            r#"{"scp":"a b"}"#,
            r#"{"scope":"A"}"#,
            r#"{"roles":"a b"}"#,
            r#"{"roles":["a","b"]}"#,
            r#"{"roles":["a",["b"]]}"#,
            r#"{"roles":[["a"],"b"]}"#,
            r#"{"roles":[]}"#,
            r#"{"roles":1}"#,
            r#"{"roles":1.0}"#,
            r#"{"roles":18446744073709551617}"#,
            r#"{"roles":18446744073709551616}"#,
            r#"{"act":{"sub":"a"}}"#,
            r#"{"act":{"sub":"a","sub":"b"}}"#,
            r#"{"act":{"sub":"b","sub":"a"}}"#,
            r#"{"act":["a","b"]}"#,
            r#"{"act":["b","a"]}"#,
            r#"{"act":[[[[[[[[[["a","b"]]]]]]]]]]}"#,
            r#"{"act":[[[[[[[[[["b","a"]]]]]]]]]]}"#,
            r#"{"aud":"a","azp":"b"}"#,
            r#"{"aud":"b","azp":"a"}"#,
        ];
        for (place, one) in all.iter().enumerate() {
            for other in all.iter().skip(place + 1) {
                assert_ne!(encode(one), encode(other), "{one} {other}");
            }
        }
    }
}
