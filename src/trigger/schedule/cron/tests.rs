//! Tests of cron expressions: clock changes, leap days, unusual notations.

use proptest::prelude::*;

use super::*;

fn parse(cron: &str, zone: &str) -> CronExpression {
    CronExpression::parse(cron, time_zone(zone).unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    let second = text.parse::<jiff::Timestamp>().unwrap().as_second();
    Timestamp::from_seconds(u64::try_from(second).unwrap())
}

fn written(at: Timestamp) -> String {
    jiff::Timestamp::from_second(i64::try_from(at.seconds()).unwrap()).unwrap().to_string()
}

/// Returns the next due times in UTC, without year and seconds.
fn next(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cron = parse(cron, zone);
    let first = cron.next_after(at(after)).unwrap();
    let times = std::iter::successors(Some(first), |time| cron.next_after(*time));
    times.take(count).map(|time| written(time)[5..16].to_owned()).collect()
}

fn problem(text: &str) -> (String, &str) {
    let error = CronExpression::parse(text, TimeZone::UTC).unwrap_err();
    (error.to_string(), &text[error.at])
}

#[test]
fn times_are_those_of_the_zone() {
    assert_eq!(next("0 6 * * *", "UTC", "2026-01-10T06:00:00Z", 2), ["01-11T06:00", "01-12T06:00"]);
    assert_eq!(next("0 6 * * *", "Europe/Madrid", "2026-01-10T05:00:00Z", 1), ["01-11T05:00"]);
    assert_eq!(next("0 6 * * *", "Europe/Madrid", "2026-07-10T05:00:00Z", 1), ["07-11T04:00"]);
    assert_eq!(next("0 0 * * *", "Asia/Kathmandu", "2026-01-10T00:00:00Z", 1), ["01-10T18:15"]);
}

#[test]
fn the_next_time_is_after_the_given_one_to_the_millisecond() {
    let cron = parse("* * * * *", "UTC");
    let minute = at("2026-01-10T06:00:00Z").millis();
    let next = |millis| cron.next_after(Timestamp::from_millis(millis)).unwrap().millis();
    let last = |millis| cron.last_until(Timestamp::from_millis(millis)).unwrap().millis();
    assert_eq!(
        (next(minute - 1), next(minute), next(minute + 1)),
        (minute, minute + 60_000, minute + 60_000)
    );
    assert_eq!(
        (last(minute - 1), last(minute), last(minute + 1)),
        (minute - 60_000, minute, minute)
    );
}

#[test]
fn a_fixed_time_in_a_gap_is_due_right_after_it() {
    // On 29 March 2026 Madrid goes from 02:00 (01:00Z) to 03:00.
    let times = next("30 2 * * *", "Europe/Madrid", "2026-03-28T00:00:00Z", 3);
    assert_eq!(times, ["03-28T01:30", "03-29T01:00", "03-30T00:30"]);
    let times = next("30 2 29 3 *", "Europe/Madrid", "2026-01-01T00:00:00Z", 1);
    assert_eq!(times, ["03-29T01:00"]);
}

#[test]
fn times_that_repeat_are_left_out_in_a_gap() {
    let times = next("*/30 * * * *", "Europe/Madrid", "2026-03-29T00:30:00Z", 2);
    assert_eq!(times, ["03-29T01:00", "03-29T01:30"]);
    let times = next("15 * * * *", "Europe/Madrid", "2026-03-29T00:00:00Z", 3);
    assert_eq!(times, ["03-29T00:15", "03-29T01:15", "03-29T02:15"]);
}

#[test]
fn a_fixed_time_that_comes_twice_is_due_once() {
    // On 25 October 2026 Madrid goes from 03:00 (01:00Z) back to 02:00.
    let times = next("30 2 * * *", "Europe/Madrid", "2026-10-24T12:00:00Z", 2);
    assert_eq!(times, ["10-25T00:30", "10-26T01:30"]);
    let twice = parse("30 2 * * *", "Europe/Madrid");
    let last = |now| written(twice.last_until(at(now)).unwrap());
    assert_eq!(last("2026-10-25T00:45:00Z"), "2026-10-25T00:30:00Z");
    assert_eq!(last("2026-10-25T12:00:00Z"), "2026-10-25T00:30:00Z");
}

#[test]
fn times_that_repeat_go_on_through_both_hours() {
    let times = next("*/30 * * * *", "Europe/Madrid", "2026-10-25T00:00:00Z", 4);
    assert_eq!(times, ["10-25T00:30", "10-25T01:00", "10-25T01:30", "10-25T02:00"]);
    let times = next("0 * * * *", "America/New_York", "2026-11-01T04:30:00Z", 3);
    assert_eq!(times, ["11-01T05:00", "11-01T06:00", "11-01T07:00"]);
}

#[test]
fn a_leap_day_comes_in_leap_years() {
    let leap = parse("0 12 29 2 *", "UTC");
    let due = leap.next_after(at("2026-01-01T00:00:00Z")).unwrap();
    assert_eq!(written(due), "2028-02-29T12:00:00Z");
    assert_eq!(written(leap.next_after(due).unwrap()), "2032-02-29T12:00:00Z");
    assert_eq!(
        written(leap.next_after(at("2097-01-01T00:00:00Z")).unwrap()),
        "2104-02-29T12:00:00Z"
    );
    assert_eq!(
        written(leap.last_until(at("2026-01-01T00:00:00Z")).unwrap()),
        "2024-02-29T12:00:00Z"
    );
}

#[test]
fn last_days_nearest_weekdays_and_nth_weekdays_are_known() {
    let first = |cron| next(cron, "UTC", "2026-01-31T23:00:00Z", 3);
    assert_eq!(first("0 0 L * *"), ["02-28T00:00", "03-31T00:00", "04-30T00:00"]);
    // 15 February and 15 March 2026 are Sundays, 15 April is a Wednesday.
    assert_eq!(first("0 0 15W * *"), ["02-16T00:00", "03-16T00:00", "04-15T00:00"]);
    assert_eq!(first("0 0 LW * *"), ["02-27T00:00", "03-31T00:00", "04-30T00:00"]);
    assert_eq!(first("0 0 * * FRI#1"), ["02-06T00:00", "03-06T00:00", "04-03T00:00"]);
    assert_eq!(first("0 0 * * MON#5"), ["03-30T00:00", "06-29T00:00", "08-31T00:00"]);
    assert_eq!(first("0 0 * * FRIL"), ["02-27T00:00", "03-27T00:00", "04-24T00:00"]);
    assert_eq!(first("0 0 * * 7"), ["02-01T00:00", "02-08T00:00", "02-15T00:00"]);
}

#[test]
fn lists_ranges_steps_names_and_nicknames_are_known() {
    let first = |cron| next(cron, "UTC", "2026-01-01T00:00:00Z", 2);
    assert_eq!(first("5,10-11 0 * * *"), ["01-01T00:05", "01-01T00:10"]);
    assert_eq!(first("*/20 9-17/4 * * *"), ["01-01T09:00", "01-01T09:20"]);
    assert_eq!(first("0 0 1 jan-mar/2 *"), ["03-01T00:00", "01-01T00:00"]);
    assert_eq!(first("  0   0 * * sat,SUN "), ["01-03T00:00", "01-04T00:00"]);
    assert_eq!(first("@Weekly"), ["01-04T00:00", "01-11T00:00"]);
    assert_eq!(first("@hourly"), ["01-01T01:00", "01-01T02:00"]);
}

#[test]
fn a_day_of_the_month_and_one_of_the_week_are_either() {
    let times = next("0 0 13 * FRI", "UTC", "2026-02-01T00:00:00Z", 3);
    assert_eq!(times, ["02-06T00:00", "02-13T00:00", "02-20T00:00"]);
}

#[test]
fn syntax_errors_in_cron_expressions_have_positions() {
    assert_eq!(problem("0 6 * *").0, "a cron expression has five fields, not 4");
    assert_eq!(problem("0 0 6 * * *").0, "a cron expression has five fields, not 6");
    assert_eq!(problem("").0, "a cron expression has five fields, not 0");
    for (text, part) in [
        ("60 6 * * *", "60"),
        ("0 24 * * *", "24"),
        ("0 6 32 * *", "32"),
        ("0 6 * 13 *", "13"),
        ("0 6 * * MO", "MO"),
        ("SUN 6 * * *", "SUN"),
        ("0 6 * JANUARY *", "JANUARY"),
        ("1,,2 6 * * *", "1,,2"),
        ("0 , * * *", ","),
        ("*/0 6 * * *", "*/0"),
        ("5/10 6 * * *", "5/10"),
        ("0 17-9 * * *", "17-9"),
        ("0 6 * * FRI#6", "FRI#6"),
        ("0 6 L-1 * *", "L-1"),
        ("٣ 6 * * *", "٣"),
    ] {
        let (message, at) = problem(text);
        assert_eq!(at, part, "{text}");
        assert!(message.starts_with("invalid "), "{message}");
    }
    assert_eq!(problem("@midnite").0, "unknown nickname");
    assert_eq!(problem("0 0 30 2 *").0, "there is no such day in any year");
}

#[test]
fn zones_are_those_of_the_database() {
    assert_eq!(time_zone("europe/madrid").unwrap().iana_name(), Some("Europe/Madrid"));
    assert!(time_zone("UTC").is_some() && time_zone("Asia/Kolkata").is_some());
    for name in ["", "Europe/Madird", "+02:00", "CEST", "../UTC", "/etc/passwd", "Europe"] {
        assert_eq!(time_zone(name), None, "{name}");
    }
    assert!(time_zones().iter().any(|name| name == "Europe/Madrid"));
    assert_eq!(parse("@daily", "Europe/Madrid").to_string(), "@daily Europe/Madrid");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "[@*/0-9,LW#?+a-zA-Zµß -]{0,24}") {
        let _ = CronExpression::parse(&text, TimeZone::UTC);
    }

    #[test]
    fn no_field_makes_the_parser_panic(field in "[*/0-9,LW#?+A-Z-]{0,8}", place in 0..5_usize) {
        let mut fields = ["*"; 5];
        fields[place] = &field;
        let _ = CronExpression::parse(&fields.join(" "), TimeZone::UTC);
    }

    #[test]
    fn the_next_time_is_the_last_one_once_it_has_come(
        seconds in prop_oneof![
            1_700_000_000..2_000_000_000_u64,
            // Around 01:00Z on 29 March and on 25 October 2026, when clocks change.
            1_774_738_800..1_774_760_400_u64,
            1_792_882_800..1_792_904_400_u64,
        ],
        cron in prop::sample::select(vec![
            "*/7 * * * *", "30 2 * * *", "0 2 * * *", "0 */5 * * *", "15 1-3 * * SUN", "0 0 L * *",
        ]),
    ) {
        let cron = parse(cron, "Europe/Madrid");
        let now = Timestamp::from_seconds(seconds);
        let next = cron.next_after(now).unwrap();
        prop_assert!(next > now);
        prop_assert_eq!(cron.last_until(next), Some(next));
        let just_before = Timestamp::from_seconds(next.seconds() - 1);
        prop_assert!(cron.last_until(just_before).is_none_or(|last| last <= now));
    }
}
