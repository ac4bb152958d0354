//! Joins the `Cookie` fields that HTTP/2 clients split (RFC 9113 §8.2.3). Pure.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};

/// Joins several `Cookie` fields into one with `"; "`. Leaves a single field unchanged.
///
/// Empty fields are left out, because some parsers stop at an empty pair.
///
/// Used only for HTTP/2, whose clients split the field for compression. Over HTTP/1.1, the fields
/// stay unchanged. In an HTTP/2 header list each field counts 32 extra bytes, so the joined field
/// is smaller and every size limit still holds.
pub(super) fn join(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = Vec::new();
    let mut is_sensitive = false;
    for crumb in headers.get_all(header::COOKIE) {
        if !joined.is_empty() && !crumb.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
        is_sensitive |= crumb.is_sensitive();
    }
    // Joining valid values by visible characters gives a valid value.
    if let Ok(mut cookie) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        cookie.set_sensitive(is_sensitive);
        headers.insert(header::COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(crumbs: &[&'static str]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for crumb in crumbs {
            headers.append(header::COOKIE, HeaderValue::from_static(crumb));
            headers.append(header::ACCEPT, HeaderValue::from_static("a"));
        }
        join(&mut headers);
        assert_eq!(headers.get_all(header::ACCEPT).iter().count(), crumbs.len());
        let values = headers.get_all(header::COOKIE).iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn several_fields_become_one_in_their_order() {
        assert_eq!(joined(&[]), [""; 0]);
        assert_eq!(joined(&["a=1"]), ["a=1"]);
        assert_eq!(joined(&["a=1", "b=2; c=3", "a=4"]), ["a=1; b=2; c=3; a=4"]);
    }

    #[test]
    fn empty_fields_are_left_out_and_empty_values_stay() {
        assert_eq!(joined(&["a=", "b="]), ["a=; b="]);
        assert_eq!(joined(&["a=1", "", "b=2", ""]), ["a=1; b=2"]);
        assert_eq!(joined(&["", "a=1"]), ["a=1"]);
        assert_eq!(joined(&["", ""]), [""]);
    }

    #[test]
    fn what_a_client_keeps_from_compression_stays_so() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1"));
        let mut secret = HeaderValue::from_static("sid=2");
        secret.set_sensitive(true);
        headers.append(header::COOKIE, secret);
        join(&mut headers);
        assert!(headers.get(header::COOKIE).unwrap().is_sensitive());
    }
}
