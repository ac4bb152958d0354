//! `larder advise --shadow`: which routes in shadow mode can go live.

use super::{run, text};

/// A report as `GET /v1/shadow` returns it.
const REPORT: &str = r#"{"routes": [
    {"route": "profile", "mode": "shadow", "since": "2026-11-26T09:00:00Z", "requests": 1500,
     "results": {"HIT": 1499, "MISS": 1}, "hit_ratio": 0.999, "collapsed": 0,
     "saved": {"requests": 1499, "bytes": 3069, "seconds": 0.041}, "compared": 1499, "wrong": 50,
     "ages": [{"until": 1, "compared": 99, "wrong": 50}, {"compared": 1400, "wrong": 0}],
     "inputs": {}, "samples": [], "advice": ["the responses depend on the credentials: set a `partition`"]},
    {"route": "tiles", "mode": "shadow", "requests": 2000, "hit_ratio": 0.95, "compared": 1900,
     "wrong": 0, "ages": [{"until": 60, "compared": 1900, "wrong": 0}], "inputs": {}, "samples": [],
     "advice": ["no wrong response in 1900 comparisons: remove `shadow`"]},
    {"route": "reports", "mode": "shadow", "requests": 3, "hit_ratio": 0.3, "compared": 1, "wrong": 0,
     "ages": [], "inputs": {}, "samples": [], "advice": []},
    {"route": "live", "mode": "audit", "requests": 3, "compared": 3, "wrong": 0, "ages": [],
     "inputs": {}, "samples": [], "advice": []}
]}"#;

const CONFIG: &str = "origin = \"http://o\"\n[[route]]\nname = \"tiles\"\nmatch = \"GET /tiles/{tile}\"\nttl = \"1m\"\n";

#[test]
fn routes_in_shadow_mode_go_live_if_nothing_was_wrong() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("proxy.toml"), CONFIG).unwrap();
    let output =
        run(directory.path(), &["--shadow", "-", "--config", "proxy.toml"], REPORT.as_bytes());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        r#"# Proposed by `larder advise` from the figures of shadow mode. Change these routes in proxy.toml.

# 1,500 requests in shadow mode since 2026-11-26T09:00:00Z. Expected: 99.9 % hits.
# 50 of 1,499 compared responses differed: 50 of 99 up to 1s old.
[[route]]
name = "profile"
shadow = true                               # not yet: the responses depend on the credentials: set a `partition`

# 2,000 requests in shadow mode. Expected: 95.0 % hits.
# None of 1,900 compared responses differed from the origin's.
[[route]]
name = "tiles"
match = "GET /tiles/{tile}"
shadow = false                              # go live: all 1,900 compared responses were right

# 3 requests in shadow mode. Expected: 30.0 % hits.
# None of 1 compared responses differed from the origin's.
[[route]]
name = "reports"
shadow = true                               # not yet: only 1 stored responses could be compared
"#
    );
}

#[test]
fn a_report_that_is_none_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    for (report, problem) in [
        ("<html>", "the report is not that of `larder shadow --json`"),
        ("{\"routes\": []}", "no route is in shadow mode"),
    ] {
        let output = run(directory.path(), &["--shadow", "-"], report.as_bytes());
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(text(&output.stderr).contains(problem), "{}", text(&output.stderr));
    }
}
