//! Keeps shared caches downstream from storing the responses of a partition.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::field::list;

/// Suffixes of the names of targeted fields (RFC 9213 §2.2) and of surrogate fields.
const TARGETED: [&str; 2] = ["cdn-cache-control", "surrogate-control"];

/// Makes a response `private`, so that shared caches downstream do not store it.
///
/// See RFC 9111 §5.2.2.7. Directives for the client's own cache stay. Directives for shared caches
/// are removed: `public`, `s-maxage`, `proxy-revalidate`, and targeted fields.
pub(crate) fn make_private(headers: &mut HeaderMap) {
    let is_targeted =
        |name: &&HeaderName| TARGETED.iter().any(|ending| name.as_str().ends_with(ending));
    let targeted: Vec<HeaderName> = headers.keys().filter(is_targeted).cloned().collect();
    for name in targeted {
        headers.remove(name);
    }
    let mut value = b"private".to_vec();
    for member in list::members(headers, header::CACHE_CONTROL) {
        if !is_for_shared_caches(member) {
            value.extend_from_slice(b", ");
            value.extend_from_slice(member);
        }
    }
    let value = HeaderValue::from_bytes(&value);
    headers.insert(
        header::CACHE_CONTROL,
        value.unwrap_or(const { HeaderValue::from_static("private, no-store") }),
    );
}

/// Returns whether a directive is redundant if the response is `private`.
fn is_for_shared_caches(directive: &[u8]) -> bool {
    let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default();
    [&b"public"[..], b"s-maxage", b"proxy-revalidate", b"private"]
        .iter()
        .any(|known| list::trim(name).eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        make_private(&mut headers);
        headers
    }

    #[test]
    fn shared_caches_are_told_nothing_and_the_client_the_same_as_before() {
        for (before, after) in [
            ("", "private"),
            ("max-age=60", "private, max-age=60"),
            ("public, max-age=60, s-maxage=600", "private, max-age=60"),
            ("Public,S-MaxAge=\"1\" , must-revalidate", "private, must-revalidate"),
            ("no-store", "private, no-store"),
            ("private=\"x-user\", max-age=1", "private, max-age=1"),
            ("no-cache=\"set-cookie, a\", proxy-revalidate", "private, no-cache=\"set-cookie, a\""),
        ] {
            assert_eq!(private(&[("cache-control", before)])["cache-control"], after, "{before}");
        }
        let both = private(&[("cache-control", "public"), ("cache-control", "max-age=5")]);
        assert_eq!(both["cache-control"], "private, max-age=5");
    }

    #[test]
    fn fields_for_one_kind_of_cache_are_taken_off() {
        let headers = private(&[
            ("cdn-cache-control", "max-age=60"),
            ("cloudflare-cdn-cache-control", "max-age=60"),
            ("surrogate-control", "max-age=60"),
            ("expires", "0"),
        ]);
        let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(headers["cache-control"], "private");
    }
}
