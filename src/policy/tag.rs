//! Tags in response fields: names by which an origin groups its responses for purging.

use http::{HeaderMap, HeaderName};

/// Fields whose tags are separated by spaces or commas, as Fastly and Varnish have them.
const SPACED: [HeaderName; 2] =
    [HeaderName::from_static("surrogate-key"), HeaderName::from_static("xkey")];

/// Fields whose tags are separated by commas, as Cloudflare and Akamai have them.
const LISTED: [HeaderName; 2] =
    [HeaderName::from_static("cache-tag"), HeaderName::from_static("edge-cache-tag")];

/// Takes the tag fields out of a response and gives their tags, in order and without empty ones. They
/// are the cache's business, not the client's.
pub fn take(response: &mut HeaderMap) -> Vec<String> {
    let mut tags = Vec::new();
    if !response.keys().any(|name| SPACED.contains(name) || LISTED.contains(name)) {
        return tags;
    }
    for name in &SPACED {
        drain(response, name, &[' ', ','], &mut tags);
    }
    for name in &LISTED {
        drain(response, name, &[','], &mut tags);
    }
    tags
}

fn drain(response: &mut HeaderMap, name: &HeaderName, separators: &[char], tags: &mut Vec<String>) {
    let http::header::Entry::Occupied(lines) = response.entry(name) else { return };
    let (_, lines) = lines.remove_entry_mult();
    for line in lines {
        let Ok(line) = line.to_str() else { continue };
        let found = line.split(separators).map(str::trim).filter(|tag| !tag.is_empty());
        tags.extend(found.map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn tags_of_every_convention_are_read_and_their_fields_removed() {
        let mut response = HeaderMap::new();
        for (name, value) in [
            ("surrogate-key", "a  b"),
            ("surrogate-key", "c"),
            ("xkey", "d, e"),
            ("cache-tag", "f g,, h"),
            ("edge-cache-tag", "i"),
            ("cache-groups", "\"kept\""),
        ] {
            response.append(name, HeaderValue::from_static(value));
        }
        assert_eq!(take(&mut response), ["a", "b", "c", "d", "e", "f g", "h", "i"]);
        assert_eq!(response.keys().collect::<Vec<_>>(), ["cache-groups"]);
    }
}
