//! Tests of schedules, polls and prefetching.

use std::time::Duration;

use super::{errors, parse, warnings};
use crate::{
    config::Config,
    fence::PurgeMode,
    trigger::poll::{DocumentUrl, VersionFrom},
};

fn with_origin(text: &str) -> Config {
    parse(&format!("origin = \"http://origin\"\n{text}"))
}

#[test]
fn schedules_are_understood() {
    let config = with_origin(
        r#"
        [[schedule]]
        cron = "0 0 * * *"
        purge = ["daily", "kpi"]
        [[schedule]]
        cron = "@hourly"
        timezone = "europe/madrid"
        purge = "hourly"
        warm = ["/a?b=c", "https://api.test/d"]
        "#,
    );
    let shown: Vec<String> =
        config.schedules.iter().map(|schedule| schedule.cron.to_string()).collect();
    assert_eq!(shown, ["0 0 * * * UTC", "@hourly Europe/Madrid"]);
    assert_eq!(config.schedules[0].purge.join(" "), "daily kpi");
    assert_eq!(config.schedules[0].warm.targets.len(), 0);
    let warm: Vec<String> =
        config.schedules[1].warm.targets.iter().map(ToString::to_string).collect();
    assert_eq!(warm, ["/a?b=c", "https://api.test/d"]);
}

#[test]
fn polls_are_understood() {
    let config = with_origin(
        r#"
        [[poll]]
        name = "druid"
        url = "http://overlord:8090/druid/indexer/v1/completeTasks"
        every = "1s"
        version = "$[0].createdTime"
        purge = ["sales"]
        alert_after = "2h"
        [[poll]]
        name = "prices"
        url = "https://u:p@data.test/prices.csv"
        purge = "prices"
        "#,
    );
    let druid = &config.polls[0];
    let url = "http://overlord:8090/druid/indexer/v1/completeTasks";
    assert_eq!(druid.source, DocumentUrl::parse(url).unwrap());
    assert_eq!(
        (druid.every, druid.alert_after),
        (Duration::from_secs(1), Some(Duration::from_hours(2)))
    );
    assert!(matches!(druid.version, VersionFrom::Payload(..)));
    let prices = &config.polls[1];
    assert_eq!(
        (&*prices.name, prices.every, prices.alert_after),
        ("prices", Duration::from_secs(30), None)
    );
    assert_eq!(prices.version, VersionFrom::Validator);
    assert!(prices.source.authorization.is_some() && !format!("{config:?}").contains("dTpw"));
}

#[test]
fn schedules_and_polls_say_how_they_purge_and_what_they_fetch() {
    let config = with_origin(
        r#"
        public_host = "https://api.test"
        [[schedule]]
        name = "morning"
        cron = "@daily"
        purge = ["kpi"]
        mode = "soft"
        warm = ["/a", "other.test/b"]
        host = ["one.test", "http://two.test:81"]
        headers = { accept-encoding = "gzip", origin = ["https://x.test", "https://y.test"] }
        [[poll]]
        name = "sales"
        url = "http://data.test/"
        version = "$[*].id"
        purge = ["sales"]
        delay = "20s"
        warm = true
        [[poll]]
        name = "prices"
        url = "http://data.test/"
        purge = ["prices"]
        warm = "/prices"
        "#,
    );
    let morning = &config.schedules[0];
    assert_eq!((morning.label(), morning.mode), ("morning", PurgeMode::Soft));
    let targets: Vec<String> = morning.warm.targets.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["one.test/a", "http://two.test:81/a", "other.test/b"]);
    let origins = morning.warm.headers.get_all("origin").into_iter().count();
    assert_eq!((morning.warm.headers.len(), origins), (3, 2));
    let (sales, prices) = (&config.polls[0], &config.polls[1]);
    assert_eq!((sales.delay, sales.mode), (Some(Duration::from_secs(20)), PurgeMode::Hard));
    assert!(sales.warm.purged && sales.warm.targets.is_empty());
    assert_eq!(prices.warm.targets[0].to_string(), "https://api.test/prices");
}

#[test]
fn what_a_warm_up_cannot_be_is_pointed_at() {
    let text = r#"
public_host = "ftp://api.test"
[[schedule]]
name = "one two"
cron = "@daily"
warm = ["/a"]
host = "api.test/a"
headers = { host = "x", "if-none-match" = "y", accept = 5 }
[[schedule]]
name = "a"
cron = "@daily"
purge = ["t"]
mode = "sotf"
[[schedule]]
name = "a"
cron = "@daily"
warm = true
[[poll]]
name = "p"
url = "http://d/"
purge = ["t"]
delay = "2d"
warm = 3
"#;
    insta::assert_snapshot!(errors(text), @r#"
    error: expected a host such as `api.example.com` or `https://api.example.com`
     --> proxy.toml:3:15
      |
    3 | public_host = "ftp://api.test"
      |               ^^^^^^^^^^^^^^^^

    error: expected one word as the name of a schedule, since it labels logs and metrics
     --> proxy.toml:5:8
      |
    5 | name = "one two"
      |        ^^^^^^^^^

    error: expected a host such as `api.example.com` or `https://api.example.com`
     --> proxy.toml:8:8
      |
    8 | host = "api.test/a"
      |        ^^^^^^^^^^^^

    error: this request field cannot be set for a prefetch
     --> proxy.toml:9:13
      |
    9 | headers = { host = "*", "if-none-match" = "*", accept = * }
      |             ^^^^

    error: this request field cannot be set for a prefetch
     --> proxy.toml:9:25
      |
    9 | headers = { host = "*", "if-none-match" = "*", accept = * }
      |                         ^^^^^^^^^^^^^^^

    error: expected a string that a header field can hold
     --> proxy.toml:9:48
      |
    9 | headers = { host = "*", "if-none-match" = "*", accept = * }
      |                                                ^^^^^^

    error: expected one of `hard`, `soft`
      --> proxy.toml:14:8
       |
    14 | mode = "sotf"
       |        ^^^^^^
       |
       = help: did you mean `soft`?

    error: another schedule has this name
      --> proxy.toml:16:8
       |
    11 | name = "a"
       |        --- the other one
    ...
    16 | name = "a"
       |        ^^^

    error: expected at most `1d`
      --> proxy.toml:23:9
       |
    23 | delay = "2d"
       |         ^^^^

    error: `poll.warm` must be `true`, a path or a list of paths, not a number
      --> proxy.toml:24:8
       |
    24 | warm = 3
       |        ^
    "#);
}

#[test]
fn keys_for_paths_are_warned_about_without_paths() {
    let found = warnings(
        "[[schedule]]\ncron = \"@daily\"\npurge = [\"t\"]\nwarm = true\nhost = \"a.test\"\nheaders = { accept = \"x\" }\n",
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|it| it.contains("has no effect")), "{found:?}");
}

#[test]
fn routes_tell_what_a_success_has_fetched() {
    let config = with_origin(
        r#"
        [[route]]
        name = "login"
        match = "POST /users/{user}/login"
        on_success = { warm = ["/api/stocks", "/users/{user}/notes"] }
        "#,
    );
    let targets = config.routes.routes()[0].targets_to_warm("/users/7/login", None);
    assert_eq!(targets, ["/api/stocks", "/users/7/notes"]);
}

#[test]
fn cron_expressions_and_zones_are_pointed_at() {
    let text = r#"
[[schedule]]
cron = "0 25 * * *"
purge = ["daily"]
[[schedule]]
cron = "0 6 * *"
timezone = "Europe/Madird"
purge = ["daily"]
[[schedule]]
cron = "@dayly"
warm = ["dashboard"]
[[schedule]]
cron = "@daily"
"#;
    insta::assert_snapshot!(errors(text), @r#"
    error: invalid hour: expected `0` to `23`, `*`, `9-17`, `*/2`, or a list
     --> proxy.toml:4:11
      |
    4 | cron = "0 25 * * *"
      |           ^^

    error: a cron expression has five fields, not 4
     --> proxy.toml:7:9
      |
    7 | cron = "0 6 * *"
      |         ^^^^^^^
      |
      = help: expected minute, hour, day of month, month, day of week, such as `0 6 * * MON-FRI`

    error: unknown time zone
     --> proxy.toml:8:12
      |
    8 | timezone = "Europe/Madird"
      |            ^^^^^^^^^^^^^^^
      |
      = help: did you mean `Europe/Madrid`?

    error: unknown nickname
      --> proxy.toml:11:9
       |
    11 | cron = "@dayly"
       |         ^^^^^^
       |
       = help: did you mean `@daily`?

    error: expected a path, such as `/dashboard?range=7d` or `api.example.com/dashboard`
      --> proxy.toml:12:9
       |
    12 | warm = ["dashboard"]
       |         ^^^^^^^^^^^
    "#);
}

#[test]
fn polls_and_what_they_lack_are_pointed_at() {
    let text = r#"
[[poll]]
name = "a"
url = "ftp://data.test/"
version = "$.data["
every = "500ms"
purge = ["order:{id}"]
[[poll]]
name = "a"
url = "http://data.test/"
"#;
    insta::assert_snapshot!(errors(text), @r#"
    error: expected an `http` or `https` URL such as `https://data.internal/version`
     --> proxy.toml:5:7
      |
    5 | url = "ftp://data.test/"
      |       ^^^^^^^^^^^^^^^^^^

    error: invalid JSONPath from here on
     --> proxy.toml:6:18
      |
    6 | version = "$.data["
      |                  ^
      |
      = help: use a path such as `$.version` or `$[*].id` (RFC 9535)

    error: expected between `1s` and `1d`
     --> proxy.toml:7:9
      |
    7 | every = "500ms"
      |         ^^^^^^^

    error: placeholders are not available here, since there is no request
     --> proxy.toml:8:10
      |
    8 | purge = ["order:{id}"]
      |          ^^^^^^^^^^^^

    error: another poll has this name
      --> proxy.toml:10:8
       |
     4 | name = "a"
       |        --- the other one
    ...
    10 | name = "a"
       |        ^^^
    "#);
}

#[test]
fn targets_of_routes_are_pointed_at() {
    let text = r#"
[[route]]
name = "login"
match = "POST /users/{user}/login"
on_success = { warm = ["/a/{usr}", "api.test/b", "/c d"] }
"#;
    insta::assert_snapshot!(errors(text), @r#"
    error: unknown placeholder `{usr}`
     --> proxy.toml:6:28
      |
    6 | on_success = { warm = ["/a/{usr}", "api.test/b", "/c d"] }
      |                            ^^^^^
      |
      = help: placeholders of this route: `{user}`, `{?parameter}`

    error: expected a path that begins with `/`; the host is that of the request
     --> proxy.toml:6:37
      |
    6 | on_success = { warm = ["/a/{usr}", "api.test/b", "/c d"] }
      |                                     ^^^^^^^^^^

    error: invalid characters in a path; encode them as in `/a%20b`
     --> proxy.toml:6:51
      |
    6 | on_success = { warm = ["/a/{usr}", "api.test/b", "/c d"] }
      |                                                   ^^^^
    "#);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let poll = |rest: &str| {
        format!("[[poll]]\nname = \"a\"\nurl = \"http://d/\"\npurge = [\"t\"]\n{rest}")
    };
    for (text, expected) in [
        (poll("every = \"2d\""), "between `1s` and `1d`"),
        (poll("alert_after = \"0s\""), "a value above zero"),
        (poll("").replace("\"a\"", "\"a b\""), "one word as the name of a poll"),
        (poll("").replace("[\"t\"]", "[]"), "`poll` has no `purge`"),
        (poll("").replace("[\"t\"]", "[\"\"]"), "empty tag"),
        ("[[poll]]".to_owned(), "`poll` has no `url`"),
        ("[[schedule]]\npurge = [\"t\"]".to_owned(), "`schedule` has no `cron`"),
        ("[[schedule]]\ncron = \"@daily\"\npurge = []".to_owned(), "neither `purge` nor `warm`"),
        (
            "[[schedule]]\ncron = \"0 0 31 2 *\"\npurge = [\"t\"]".to_owned(),
            "no such day in any year",
        ),
    ] {
        let errors = errors(&text);
        assert!(errors.contains(expected), "{text} gives\n{errors}");
    }
    let found = warnings(&poll("alert_after = \"30s\""));
    assert!(found.len() == 1 && found[0].contains("would always fire"), "{found:?}");
}
