//! Tests of ages and lifetimes.

use http::HeaderName;
use proptest::prelude::*;

use super::*;
use crate::policy::Ttl;

const NOW: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT

fn date_at(offset: i64) -> HeaderValue {
    Timestamp::from_seconds(NOW.saturating_add_signed(offset)).to_http_date()
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap()
}

struct Response {
    headers: HeaderMap,
    status: StatusCode,
    delay: u64,
}

fn response(fields: &[(&'static str, HeaderValue)]) -> Response {
    let fields = fields.iter().cloned();
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), value);
    }
    Response { headers, status: StatusCode::OK, delay: 0 }
}

impl Response {
    fn assess(&self, rule: &CacheRule) -> (Freshness, LifetimeBasis) {
        let received_at = Timestamp::from_seconds(NOW);
        let head = ResponseHead {
            status: self.status,
            headers: &self.headers,
            requested_at: Timestamp::from_millis(received_at.millis() - self.delay),
            received_at,
        };
        Freshness::on_receipt(&head, &ResponseDirectives::parse(&self.headers), rule)
    }

    fn ttl(&self) -> i64 {
        self.assess(&CacheRule::default()).0.ttl(Timestamp::from_seconds(NOW))
    }
}

#[test]
fn s_maxage_precedes_max_age_precedes_expires() {
    let past = ("expires", date_at(-7200));
    let cache_control = |value| ("cache-control", text(value));
    assert_eq!(response(&[cache_control("max-age=3600"), past.clone()]).ttl(), 3600);
    assert_eq!(response(&[cache_control("max-age=0, s-maxage=3600"), past]).ttl(), 3600);
    assert_eq!(response(&[cache_control("max-age=3600, s-maxage=1")]).ttl(), 1);
    let future = ("expires", date_at(3600));
    assert_eq!(response(&[cache_control("max-age=0"), future.clone()]).ttl(), 0);
    assert_eq!(response(&[("surrogate-control", text("max-age=9")), future]).ttl(), 9);
}

#[test]
fn expires_counts_from_date() {
    let ttl = |date, expires| response(&[("date", date), ("expires", expires)]).ttl();
    assert_eq!(ttl(date_at(0), date_at(100)), 100);
    assert_eq!(ttl(date_at(0), date_at(0)), 0);
    assert_eq!(ttl(date_at(400), date_at(300)), 0);
    assert_eq!(ttl(date_at(0), text("0")), 0);
    assert_eq!(ttl(text("foo"), date_at(10)), 10);
}

#[test]
fn a_broken_expires_is_explicit() {
    let (freshness, basis) = response(&[("expires", text("0")), ("last-modified", date_at(-9999))])
        .assess(&CacheRule::default());
    assert_eq!(basis, LifetimeBasis::Origin);
    assert_eq!(freshness.lifetime, Duration::ZERO);
    assert!(freshness.constraints.has_any(Constraints::EXPLICIT));
}

#[test]
fn age_is_the_larger_of_what_is_said_and_what_date_shows() {
    let age = |age: &str, date, delay| {
        let mut response = response(&[
            ("age", text(age)),
            ("date", date),
            ("cache-control", text("max-age=9999")),
        ]);
        response.delay = delay;
        response.assess(&CacheRule::default()).0.initial_age
    };
    assert_eq!(age("30", date_at(0), 0), Duration::from_secs(30));
    assert_eq!(age("30", date_at(-50), 0), Duration::from_secs(50));
    assert_eq!(age("30", date_at(50), 1500), Duration::from_millis(31_500));
}

#[test]
fn a_huge_age_is_clamped() {
    let old =
        response(&[("age", text("18446744073709551615")), ("cache-control", text("max-age=9"))]);
    let (freshness, _) = old.assess(&CacheRule::default());
    assert_eq!(freshness.initial_age, Duration::from_secs(MAX_DELTA_SECONDS.into()));
    let late = Timestamp::from_millis(u64::MAX);
    assert_eq!(freshness.age_seconds(late), MAX_DELTA_SECONDS);
    assert!(freshness.ttl(late) < 0);
}

#[test]
fn an_invalid_age_is_ignored_and_the_first_of_several_counts() {
    for (ages, ttl) in [
        (&["abc"][..], 3600),
        (&["-7200"], 3600),
        (&["7200.0"], 3600),
        (&["7200;foo=bar"], 3600),
        (&[""], 3600),
        (&["0, 0"], 3600),
        (&["0,7200"], 3600),
        (&["0", "7200"], 3600),
        (&["x, 7200"], 3600),
        (&["600, 600"], 3000),
        (&["600", "600"], 3000),
        (&["7200,0"], -3600),
        (&["7200, x"], -3600),
        (&["7200", "0"], -3600),
    ] {
        let mut fields = vec![("cache-control", text("max-age=3600"))];
        fields.extend(ages.iter().map(|age| ("age", text(age))));
        assert_eq!(response(&fields).ttl(), ttl, "{ages:?}");
    }
    let old = response(&[
        ("cache-control", text("max-age=3600")),
        ("date", date_at(-600)),
        ("age", text("x")),
    ]);
    assert_eq!(old.ttl(), 3000, "Date still shows an age");
}

#[test]
fn heuristic_freshness_is_a_tenth_and_at_most_a_day() {
    let ttl =
        |modified| response(&[("last-modified", date_at(modified)), ("date", date_at(0))]).ttl();
    assert_eq!(ttl(-5), 0);
    assert_eq!(ttl(-3600), 360);
    assert_eq!(ttl(-86_400 * 365), 86_400);
    assert_eq!(ttl(60), 0);
}

#[test]
fn heuristics_need_a_cacheable_status_or_public() {
    let mut response = response(&[("last-modified", date_at(-10_000)), ("date", date_at(0))]);
    for (status, expected) in [(200, 1000), (404, 1000), (201, 0), (403, 0), (503, 0), (599, 0)] {
        response.status = StatusCode::from_u16(status).unwrap();
        assert_eq!(response.ttl(), expected, "{status}");
    }
    response.headers.insert(header::CACHE_CONTROL, text("public"));
    assert_eq!(response.ttl(), 1000);
}

fn with_ttl(seconds: u64, ttl_from: TtlFrom) -> CacheRule {
    CacheRule {
        ttl: Ttl::for_successes(Duration::from_secs(seconds)),
        ttl_from,
        ..CacheRule::default()
    }
}

#[test]
fn the_rule_and_the_origin_share_the_word_as_configured() {
    let explicit = response(&[("cache-control", text("max-age=100"))]);
    let silent = response(&[]);
    for (from, expected, basis) in [
        (TtlFrom::Origin, 100, LifetimeBasis::Origin),
        (TtlFrom::Rule, 60, LifetimeBasis::Rule),
        (TtlFrom::Min, 60, LifetimeBasis::Rule),
        (TtlFrom::Max, 100, LifetimeBasis::Origin),
    ] {
        let (freshness, found) = explicit.assess(&with_ttl(60, from));
        assert_eq!((freshness.lifetime.as_secs(), found), (expected, basis), "{from:?}");
        let (freshness, found) = silent.assess(&with_ttl(60, from));
        assert_eq!((freshness.lifetime.as_secs(), found), (60, LifetimeBasis::Rule), "{from:?}");
    }
}

#[test]
fn a_rule_counts_from_receipt() {
    let old = response(&[("date", date_at(-7200)), ("age", text("50"))]);
    let (freshness, _) = old.assess(&with_ttl(60, TtlFrom::Origin));
    assert_eq!(freshness.ttl(Timestamp::from_seconds(NOW)), 60);
    assert_eq!(freshness.age_seconds(Timestamp::from_seconds(NOW)), 7200);
}

#[test]
fn a_rule_does_not_make_errors_fresh() {
    let mut error = response(&[]);
    for status in [201, 301, 308, 404, 405, 410, 414, 500, 501] {
        error.status = StatusCode::from_u16(status).unwrap();
        let (freshness, basis) = error.assess(&with_ttl(60, TtlFrom::Rule));
        assert_eq!(
            (freshness.lifetime, basis),
            (Duration::ZERO, LifetimeBasis::Unspecified),
            "{status}"
        );
    }
}

#[test]
fn a_status_may_have_a_ttl_of_its_own() {
    let ttl = [(404, 10), (200, 60)];
    let ttl = ttl.map(|(status, seconds)| {
        (StatusCode::from_u16(status).unwrap(), Duration::from_secs(seconds))
    });
    let rule = CacheRule { ttl: ttl.into_iter().collect(), ..CacheRule::default() };
    let mut silent = response(&[]);
    for (status, seconds) in [(200, 60), (404, 10), (203, 0), (410, 0)] {
        silent.status = StatusCode::from_u16(status).unwrap();
        assert_eq!(silent.assess(&rule).0.lifetime.as_secs(), seconds, "{status}");
    }
    let lower = Ttl::for_successes(Duration::from_secs(5));
    let both: Vec<_> = rule.ttl.over(&lower).iter().collect();
    let seconds = both.iter().map(|(status, time)| (status.as_u16(), time.as_secs()));
    assert_eq!(seconds.collect::<Vec<_>>(), [(200, 60), (203, 5), (204, 5), (404, 10)]);
    assert_eq!(
        (lower.successes_only(), rule.ttl.successes_only()),
        (Some(Duration::from_secs(5)), None)
    );
}

#[test]
fn only_a_longer_rule_overrides_no_cache() {
    let refusing = response(&[("cache-control", text("no-cache"))]);
    for (from, refuses) in [
        (TtlFrom::Origin, true),
        (TtlFrom::Rule, false),
        (TtlFrom::Min, true),
        (TtlFrom::Max, false),
    ] {
        let (freshness, _) = refusing.assess(&with_ttl(60, from));
        assert_eq!(freshness.constraints.has_any(Constraints::NO_CACHE), refuses, "{from:?}");
        assert_eq!(freshness.lifetime.is_zero(), refuses, "{from:?}");
    }
}

#[test]
fn constraints_survive_their_stored_form() {
    for bits in 0..=u8::MAX {
        let constraints = Constraints::from_bits(bits);
        assert_eq!(constraints.bits(), bits);
    }
}

proptest! {
    #[test]
    fn age_grows_and_ttl_shrinks(
        age in 0..=u64::from(MAX_DELTA_SECONDS),
        lifetime in 0..=u64::from(MAX_DELTA_SECONDS),
        at in any::<u64>(),
        later in any::<u64>(),
    ) {
        let freshness = Freshness {
            received_at: Timestamp::from_seconds(NOW),
            initial_age: Duration::from_secs(age),
            lifetime: Duration::from_secs(lifetime),
            stale_while_revalidate: None,
            stale_if_error: None,
            usable_for: None,
            constraints: Constraints::default(),
        };
        let (first, second) = (Timestamp::from_millis(at.min(later)), Timestamp::from_millis(at.max(later)));
        prop_assert!(freshness.current_age(first) <= freshness.current_age(second));
        prop_assert!(freshness.ttl(first) >= freshness.ttl(second));
        prop_assert!(freshness.is_fresh(first) || !freshness.is_fresh(second));
        prop_assert_eq!(freshness.ttl(first) < 0, freshness.staleness(first) > Duration::ZERO);
    }
}

#[test]
fn a_response_is_not_used_after_its_end() {
    let (fresh, _) =
        response(&[("cache-control", text("max-age=60"))]).assess(&CacheRule::default());
    let at = |seconds: i64| Timestamp::from_seconds(NOW.saturating_add_signed(seconds));
    let ending = fresh.ending_in(Duration::from_secs(20));
    assert!(ending.is_fresh(at(19)) && !ending.has_ended(at(19)));
    assert!(
        !ending.is_fresh(at(20))
            && ending.has_ended(at(20))
            && !ending.is_reusable_unvalidated(at(20))
    );
    assert_eq!((ending.ttl(at(5)), fresh.ttl(at(5))), (15, 55));
    assert!(!fresh.has_ended(at(1 << 30)), "no end was set");
    assert!(fresh.ending_in(Duration::ZERO).has_ended(at(0)));
    assert_eq!(ending.ending_in(Duration::from_secs(40)), ending, "the earlier end counts");
    assert!(ending.has_ended(at(-2)) && !ending.has_ended(at(-1)), "clocks differ a little");
}

#[test]
fn the_end_of_a_response_is_the_same_by_every_clock() {
    let (fresh, _) =
        response(&[("cache-control", text("max-age=60"))]).assess(&CacheRule::default());
    let ending = fresh.ending_in(Duration::from_secs(20));
    let elsewhere = Freshness { received_at: Timestamp::from_seconds(NOW + 5000), ..ending };
    assert!(!elsewhere.has_ended(Timestamp::from_seconds(NOW + 5019)));
    assert!(elsewhere.has_ended(Timestamp::from_seconds(NOW + 5020)));
}

#[test]
fn what_was_received_in_the_future_is_not_fresh() {
    let (freshness, _) =
        response(&[("cache-control", text("max-age=60"))]).assess(&CacheRule::default());
    let at = |seconds: i64| Timestamp::from_seconds(NOW.saturating_add_signed(seconds));
    assert!(freshness.is_fresh(at(0)) && freshness.is_fresh(at(-1)), "clocks differ a little");
    assert!(!freshness.is_fresh(at(-2)) && !freshness.is_fresh(at(-3600)));
}
