//! Tests of conditions, updates and ranges.

use http::HeaderValue;

use super::*;

const RECEIVED: Timestamp = Timestamp::from_seconds(784_111_777);
const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
const LATER: &str = "Sunday, 06-Nov-94 09:00:00 GMT";

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

fn answer(
    request: &[(&'static str, &'static str)],
    stored: &[(&'static str, &'static str)],
) -> PreconditionOutcome {
    evaluate(&headers(request), StatusCode::OK, &headers(stored), RECEIVED)
}

#[test]
fn a_validating_request_carries_the_stored_validators_only() {
    let mut request = headers(&[
        ("if-none-match", "\"client\""),
        ("if-range", "\"client\""),
        ("range", "bytes=0-1"),
        ("accept", "*/*"),
    ]);
    let stored = headers(&[("etag", "W/\"a\""), ("last-modified", EARLIER)]);
    let outcome = make_conditional(&mut request, &stored, EtagOrigin::Origin);
    assert_eq!(outcome, Conditionality::Conditional);
    let expected =
        headers(&[("if-none-match", "W/\"a\""), ("if-modified-since", EARLIER), ("accept", "*/*")]);
    assert_eq!(request, expected);
}

#[test]
fn a_tag_made_by_larder_is_not_sent() {
    let mut request = headers(&[("if-none-match", "\"made\"")]);
    let stored = headers(&[("etag", "\"made\"")]);
    let outcome = make_conditional(&mut request, &stored, EtagOrigin::Larder);
    assert_eq!(outcome, Conditionality::Unconditional);
    assert!(request.is_empty());
}

#[test]
fn if_none_match_is_compared_weakly_and_comes_first() {
    let stored = [("etag", "\"a\""), ("last-modified", EARLIER), ("date", DATE)];
    let not_modified = PreconditionOutcome::NotModified;
    assert_eq!(answer(&[("if-none-match", "\"x\", W/\"a\"")], &stored), not_modified);
    assert_eq!(answer(&[("if-none-match", "*")], &stored), not_modified);
    let both = [("if-none-match", "\"x\""), ("if-modified-since", LATER)];
    assert_eq!(answer(&both, &stored), PreconditionOutcome::Full);
    let both = [("if-none-match", "\"a\""), ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT")];
    assert_eq!(answer(&both, &stored), not_modified);
}

#[test]
fn if_modified_since_falls_back_to_date_and_receipt() {
    let since = |date| [("if-modified-since", date)];
    let modified = [("last-modified", EARLIER), ("date", DATE)];
    assert_eq!(answer(&since(EARLIER), &modified), PreconditionOutcome::NotModified);
    assert_eq!(answer(&since(LATER), &modified), PreconditionOutcome::NotModified);
    assert_eq!(
        answer(&since("Sun, 06 Nov 1994 07:59:59 GMT"), &modified),
        PreconditionOutcome::Full
    );
    assert_eq!(answer(&since(LATER), &[("date", DATE)]), PreconditionOutcome::NotModified);
    assert_eq!(answer(&since(EARLIER), &[("date", DATE)]), PreconditionOutcome::Full);
    assert_eq!(answer(&since(DATE), &[]), PreconditionOutcome::NotModified);
    assert_eq!(answer(&since("yesterday"), &modified), PreconditionOutcome::Full);
    assert_eq!(answer(&[], &modified), PreconditionOutcome::Full);
}

#[test]
fn conditions_do_not_apply_to_errors() {
    let request = headers(&[("if-none-match", "*")]);
    let stored = headers(&[("etag", "\"a\"")]);
    let outcome = evaluate(&request, StatusCode::NOT_FOUND, &stored, RECEIVED);
    assert_eq!(outcome, PreconditionOutcome::Full);
}

#[test]
fn an_update_replaces_adds_and_keeps() {
    let stored = headers(&[
        ("a", "1"),
        ("b", "2"),
        ("etag", "\"a\""),
        ("content-length", "5"),
        ("content-encoding", "br"),
        ("content-md5", "x"),
        ("content-range", "x"),
        ("content-type", "text/plain"),
        ("date", EARLIER),
    ]);
    let update = headers(&[
        ("a", "3"),
        ("a", "4"),
        ("c", "5"),
        ("etag", "\"b\""),
        ("content-length", "0"),
        ("content-encoding", "gzip"),
        ("content-md5", "y"),
        ("content-range", "y"),
        ("content-type", "text/html"),
        ("set-cookie", "a=b"),
        ("connection", "d"),
        ("d", "6"),
        ("age", "7"),
    ]);
    let expected = headers(&[
        ("a", "3"),
        ("a", "4"),
        ("b", "2"),
        ("c", "5"),
        ("etag", "\"a\""),
        ("content-length", "5"),
        ("content-encoding", "br"),
        ("content-md5", "x"),
        ("content-range", "x"),
        ("content-type", "text/html"),
        ("date", DATE),
        ("age", "7"),
    ]);
    assert_eq!(freshen(&stored, &update, RECEIVED), expected);
}

#[test]
fn a_304_describes_no_content() {
    let mut response = headers(&[
        ("content-length", "5"),
        ("content-type", "x"),
        ("content-encoding", "br"),
        ("content-location", "/x"),
        ("etag", "\"a\""),
        ("vary", "accept"),
        ("access-control-allow-origin", "*"),
    ]);
    retain_for_not_modified(&mut response);
    let mut names: Vec<_> = response.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["access-control-allow-origin", "content-location", "etag", "vary"]);
}

#[test]
fn a_304_with_another_tag_is_about_another_representation() {
    let is_about = |stored: &'static str, update: &'static str| {
        confirms(&headers(&[("etag", stored)]), &headers(&[("etag", update)]))
    };
    assert!(is_about("\"a\"", "\"a\"") && is_about("W/\"a\"", "W/\"a\""));
    assert!(is_about("\"a\"", "W/\"a\""), "a weak one is compared weakly");
    assert!(!is_about("\"a\"", "\"b\"") && !is_about("\"a\"", "W/\"b\""));
    assert!(!is_about("W/\"a\"", "\"a\""), "a strong one is compared strongly");
    assert!(confirms(&headers(&[("etag", "\"a\"")]), &headers(&[])));
    assert!(confirms(&headers(&[]), &headers(&[("etag", "\"a\"")])));
}

#[test]
fn statuses_about_one_request_or_the_moment_are_not_about_the_resource() {
    let is_about = |status: &u16| is_about_resource(StatusCode::from_u16(*status).unwrap());
    assert!([200, 204, 301, 307, 401, 403, 404, 410].iter().all(is_about));
    let others = [206, 304, 400, 405, 406, 408, 412, 416, 421, 425, 429, 431, 500, 501, 503];
    assert!(!others.iter().any(is_about));
}

#[test]
fn ranges_are_cut_from_complete_responses() {
    let cut = |request: &[(&'static str, &'static str)], length| {
        let stored = headers(&[("etag", "\"a\"")]);
        match evaluate_range(&headers(request), StatusCode::OK, &stored, length) {
            RangeOutcome::Partial(range) => Some((range.first(), range.last())),
            RangeOutcome::Unsatisfiable => Some((u64::MAX, 0)),
            RangeOutcome::Full => None,
        }
    };
    assert_eq!(cut(&[("range", "bytes=0-1")], 11), Some((0, 1)));
    assert_eq!(cut(&[("range", "bytes=1-")], 11), Some((1, 10)));
    assert_eq!(cut(&[("range", "bytes=-1")], 11), Some((10, 10)));
    assert_eq!(cut(&[("range", "bytes=11-")], 11), Some((u64::MAX, 0)));
    assert_eq!(cut(&[("range", "bytes=0-1,4-5")], 11), None);
    assert_eq!(cut(&[("range", "bytes=0-1"), ("if-range", "\"a\"")], 11), Some((0, 1)));
    assert_eq!(cut(&[("range", "bytes=0-1"), ("if-range", "\"b\"")], 11), None);
    assert_eq!(cut(&[], 11), None);
}
