//! Shadow mode: clients get the origin's responses, and Larder measures what the cache would do.

use std::{collections::BTreeMap, fmt::Write as _};

use larder::testing::cli::shadow::text;
use serde_json::{Value, json};

use crate::support::{
    gate::Gate,
    proxy::{Proxy, request_with_body},
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    wire::Wire,
    within, within_seconds,
};

const SHADOW: &str = "[[route]]\nname = \"data\"\nmatch = \"/**\"\nttl = \"1m\"\nshadow = true\n";

/// The report of the first route.
async fn report(proxy: &Proxy) -> Value {
    whole_report(proxy).await["routes"][0].clone()
}

async fn whole_report(proxy: &Proxy) -> Value {
    let reply = proxy.admin("/v1/shadow").await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    serde_json::from_str(&reply.body).unwrap()
}

/// An origin that sends JSON with the value of a request header.
async fn by_header(name: &'static str) -> ScriptedOrigin {
    ScriptedOrigin::start(move |request| {
        let value = request.header(name).unwrap_or("none");
        OriginResponse::ok(json!({"for": value, "size": [1, 2]}).to_string())
    })
    .await
}

#[tokio::test]
async fn clients_get_the_origins_responses_and_hits_are_counted() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok(r#"{"a":1}"#)).await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        for _ in 0..10 {
            let reply = proxy.get("/a").await;
            assert_eq!(reply.summary(), r#"200 BYPASS {"a":1}"#);
            let status = reply.header("cache-status").unwrap();
            assert!(status.ends_with("; fwd=bypass; fwd-status=200; detail=shadow"), "{status}");
        }
        assert_eq!(origin.requests(), 10);
        let report = report(&proxy).await;
        assert_eq!(report["requests"], 10);
        assert_eq!(report["results"], json!({"HIT": 9, "MISS": 1}));
        assert_eq!(report["hit_ratio"], 0.9);
        assert_eq!((&report["compared"], &report["wrong"]), (&json!(9), &json!(0)));
        assert_eq!(report["saved"]["bytes"], 63);
        assert_eq!(proxy.metric("larder_shadow_requests_total", "cache=\"HIT\"").await, 9);
        assert_eq!(proxy.metric("larder_comparisons_total", "result=\"same\"").await, 9);
        assert_eq!(proxy.metric("larder_store_entries", "tier=\"memory\"").await, 0);
        assert_eq!(proxy.metric("larder_store_entries", "tier=\"shadow\"").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_users_data_on_a_shared_route_is_found_within_a_hundred_requests() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let user = request.header("authorization").unwrap_or("nobody");
            OriginResponse::ok(format!(r#"{{"profile":{{"email":"{user}@example.com"}}}}"#))
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}partition = \"everyone\"\n"));
        for number in 0..100 {
            let user = format!("Bearer {}", ["alice", "bob", "carol"][number % 3]);
            let reply = proxy.get_with("/me", &[("authorization", &user)]).await;
            assert!(reply.body.contains(&user), "each client gets its own response");
        }
        let report = report(&proxy).await;
        assert_eq!(report["results"], json!({"HIT": 99, "MISS": 1}));
        assert_eq!((&report["compared"], &report["wrong"]), (&json!(99), &json!(66)));
        let sample = &report["samples"][0];
        assert_eq!(sample["inputs"], json!(["credentials"]));
        assert_eq!(sample["path"], "/me");
        assert_eq!(sample["differences"][0]["at"], "$.profile.email");
        let advice = report["advice"][0].as_str().unwrap();
        assert!(advice.contains("partition"), "{advice}");
        for user in ["alice", "bob", "carol"] {
            assert!(!report.to_string().contains(user), "{report}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_right_rule_gives_no_wrong_response() {
    within(async {
        let user = "partition = \"user\"\n";
        let language = "vary = { headers = [\"accept-language\"] }\n";
        for (rule, field) in [(user, "authorization"), (language, "accept-language")] {
            let origin = by_header(field).await;
            let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}{rule}"));
            for number in 0..120 {
                let value = ["Bearer a", "Bearer b", "Bearer c"][number % 3];
                let reply = proxy.get_with("/a", &[(field, value)]).await;
                assert!(reply.body.contains(value));
            }
            let report = report(&proxy).await;
            assert_eq!((&report["wrong"], &report["compared"]), (&json!(0), &json!(117)));
            assert_eq!(report["results"], json!({"HIT": 117, "MISS": 3}), "{field}");
            let advice = "no wrong response in 117 comparisons: remove `shadow`";
            assert_eq!(report["advice"], json!([advice]));
        }
    })
    .await;
}

#[tokio::test]
async fn what_makes_the_difference_is_named() {
    within(async {
        let everyone = "partition = \"everyone\"\n";
        for (field, values, rule, input) in [
            ("accept-language", ["de", "fr"], "", "language"),
            ("x-plan", ["gold", "free"], "", "fields"),
            ("cookie", ["basket=a", "basket=b"], everyone, "cookies"),
        ] {
            let origin = by_header(field).await;
            let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}{rule}"));
            for value in values {
                proxy.get_with("/a", &[(field, value)]).await;
            }
            let report = report(&proxy).await;
            assert_eq!(report["wrong"], 1, "{field}: {report}");
            assert_eq!(report["samples"][0]["inputs"], json!([input]));
        }
        let origin = ScriptedOrigin::start(|request| OriginResponse::ok(&request.target)).await;
        let proxy =
            Proxy::with(&origin.url(), &format!("{SHADOW}query = {{ ignore = [\"page\"] }}\n"));
        assert_eq!(proxy.get("/a?page=1").await.body, "/a?page=1", "the origin gets all of it");
        assert_eq!(proxy.get("/a?page=2").await.body, "/a?page=2");
        let report = report(&proxy).await;
        assert_eq!(report["samples"][0]["inputs"], json!(["query"]));
        assert!(report["advice"][0].as_str().unwrap().contains("check `query`"));
    })
    .await;
}

#[tokio::test]
async fn data_that_changes_is_wrong_from_some_age_on() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(
                json!({"price": request.before / 3, "at": request.before}).to_string(),
            )
        })
        .await;
        let compare = "compare = { ignore = [\"$.at\"] }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}{compare}"));
        for _ in 0..5 {
            proxy.get("/a").await;
            proxy.advance(10);
        }
        let report = report(&proxy).await;
        assert_eq!((&report["compared"], &report["wrong"]), (&json!(4), &json!(2)));
        assert_eq!(
            report["ages"],
            json!([
                {"until": 10, "compared": 1, "wrong": 0},
                {"until": 30, "compared": 2, "wrong": 1},
                {"until": 60, "compared": 1, "wrong": 1},
            ])
        );
        assert_eq!(report["inputs"], json!({"none": {"compared": 4, "wrong": 2}}));
        let advice = report["advice"][0].as_str().unwrap();
        assert!(advice.ends_with("responses up to 10 s old were right"), "{advice}");
        let staleness = proxy.admin("/metrics").await.body;
        let line = "larder_staleness_seconds_bucket{mode=\"shadow\",route=\"data\",le=\"30\"} 1";
        assert!(staleness.contains(line), "{staleness}");
    })
    .await;
}

#[tokio::test]
async fn what_was_measured_is_never_served() {
    within(async {
        let redis = Redis::start().await;
        let origin =
            ScriptedOrigin::start(|request| OriginResponse::ok(request.before.to_string())).await;
        let store = format!("[store]\n{}", redis.store());
        let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}{store}"));
        proxy.until_synced().await;
        for turn in 0..3 {
            assert_eq!(proxy.get("/a").await.summary(), format!("200 BYPASS {turn}"));
        }
        let entries = redis.keys("*:e:*").await;
        assert!(entries.iter().all(|key| key.ends_with(":e:probe")), "{entries:?}");
        let active = SHADOW.replace("shadow = true", "shadow = false");
        proxy.reconfigure(&origin.url(), &format!("{active}{store}"));
        assert_eq!(proxy.get("/a").await.summary(), "200 MISS 3");
        assert_eq!(proxy.get("/a").await.summary(), "200 HIT 3");
        proxy.reconfigure(&origin.url(), &format!("{SHADOW}{store}"));
        assert_eq!(proxy.get("/a").await.summary(), "200 BYPASS 4");
        let report = report(&proxy).await;
        let results = json!({"HIT": 1});
        assert_eq!(report["results"], results, "the figures begin anew, and not what is kept");
    })
    .await;
}

#[tokio::test]
async fn a_reload_that_leaves_the_route_alone_keeps_its_figures() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a")).await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        proxy.get("/a").await;
        proxy.reconfigure(&origin.url(), SHADOW);
        proxy.get("/a").await;
        assert_eq!(report(&proxy).await["results"], json!({"HIT": 1, "MISS": 1}));
        proxy.reconfigure(&origin.url(), &SHADOW.replace("1m", "2m"));
        assert_eq!(report(&proxy).await["requests"], 0);
        proxy.advance(1);
        proxy.get("/a").await;
        assert_eq!(report(&proxy).await["results"], json!({"MISS": 1}));
        proxy.reconfigure(&origin.url(), "");
        assert_eq!(whole_report(&proxy).await, json!({"routes": []}));
    })
    .await;
}

#[tokio::test]
async fn a_request_that_a_reload_overtakes_counts_for_the_rule_that_it_came_under() {
    within(async {
        let origin = ScriptedOrigin::start(|request| OriginResponse::ok(&request.body)).await;
        let old = format!("{SHADOW}key = \"json-body\"\n");
        let new = old.replace("1m", "2m");
        let proxy = Proxy::with(&origin.url(), &old);
        let fields = [("content-type", "application/json"), ("expect", "100-continue")];
        let whole = request_with_body("POST", "/a", &fields, r#"{"q":"a"}"#);
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        let mut late = proxy.connect().await;
        late.write(format!("{head}\r\n\r\n")).await;
        late.read_until("100 Continue\r\n\r\n").await;
        proxy.reconfigure(&origin.url(), &new);
        late.write(body).await;
        assert_eq!(late.read_reply().await.cache(), "BYPASS");
        assert_eq!(report(&proxy).await["requests"], 0, "it is none of the new rule");
        proxy.advance(1);
        for _ in 0..2 {
            let fields = [("content-type", "application/json")];
            let again = request_with_body("POST", "/a", &fields, r#"{"q":"a"}"#);
            proxy.connect().await.exchange(again).await;
        }
        assert_eq!(report(&proxy).await["results"], json!({"HIT": 1, "MISS": 1}));
        proxy.reconfigure(&origin.url(), &new);
        assert_eq!(report(&proxy).await["requests"], 2, "a reload that changes nothing keeps them");
    })
    .await;
}

#[tokio::test]
async fn kinds_of_differences_that_occur_once_do_not_keep_out_those_that_matter() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let words = ["id", "name", "price", "size"];
            let chosen: usize = request.target.rsplit('/').next().unwrap().parse().unwrap();
            let is_chosen = |(at, _): &(usize, &&str)| chosen >> at & 1 == 1;
            let chosen = words.iter().enumerate().filter(is_chosen);
            let members = chosen.map(|(_, word)| ((*word).to_owned(), json!(request.before)));
            OriginResponse::ok(Value::Object(members.collect()).to_string())
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        for kind in 1..=14 {
            proxy.get(&format!("/{kind}")).await;
            proxy.get(&format!("/{kind}")).await;
        }
        for _ in 0..5 {
            proxy.get("/15").await;
        }
        let report = report(&proxy).await;
        let samples = report["samples"].as_array().unwrap();
        let counts: Vec<(&Value, &Value)> =
            samples.iter().map(|sample| (&sample["path"], &sample["count"])).collect();
        assert!(counts.contains(&(&json!("/15"), &json!(4))), "{counts:?}");
        assert_eq!((samples.len(), &report["unsampled"]), (10, &json!(5)));
    })
    .await;
}

#[tokio::test]
async fn names_of_members_that_may_be_data_are_not_shown() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let mut scores = json!({"id": 1});
            scores["alice"] = json!(request.before);
            scores["bob-smith"] = json!({"points": request.before});
            OriginResponse::ok(json!({"scores": scores}).to_string())
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        for _ in 0..3 {
            proxy.get("/scores").await;
        }
        let report = report(&proxy).await;
        let places = &report["samples"][0]["differences"];
        let places: Vec<&str> =
            places.as_array().unwrap().iter().map(|it| it["at"].as_str().unwrap()).collect();
        assert_eq!(places, ["$.scores.*", "$.scores.*.points"]);
        for text in [report.to_string(), proxy.log_text()] {
            assert!(!text.contains("alice") && !text.contains("smith"), "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_write_through_the_proxy_purges_what_the_shadow_would_serve() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.method.as_str() {
            "GET" => OriginResponse::ok(request.before.to_string()),
            _ => OriginResponse::ok("written").with("content-location", "/a"),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        proxy.get("/a").await;
        let mut wire = proxy.connect().await;
        let write = wire.exchange(request_with_body("POST", "/a", &[], "x")).await;
        assert_eq!(write.cache(), "BYPASS");
        assert_eq!(proxy.get("/a").await.body, "1");
        let report = report(&proxy).await;
        assert_eq!(report["results"], json!({"MISS": 2}));
        assert_eq!(report["reasons"], json!({"cold": 1, "purged": 1}));
        assert_eq!(report["wrong"], 0);
    })
    .await;
}

#[tokio::test]
async fn requests_at_the_same_time_would_share_a_fetch() {
    within(async {
        let gate = Gate::closed();
        let origin = ScriptedOrigin::always(OriginResponse::ok("a").after(&gate)).await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        let (_, ()) = tokio::join!(
            async { tokio::join!(proxy.get("/a"), proxy.get("/a"), proxy.get("/a")) },
            async {
                origin.wait_for_requests(3).await;
                gate.open();
            }
        );
        let report = report(&proxy).await;
        assert_eq!((&report["collapsed"], &report["requests"]), (&json!(2), &json!(3)));
        assert_eq!(report["results"], json!({"MISS": 3}));
        assert_eq!(report["hit_ratio"], 0.667);
    })
    .await;
}

#[tokio::test]
async fn responses_without_a_whole_body_are_not_compared() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let tagged = |status| OriginResponse::status(status, "").with("etag", "\"1\"");
            if request.header("range").is_some() {
                return OriginResponse::status(206, "b").with("content-range", "bytes 0-0/1");
            }
            match request.header("if-none-match") {
                Some("\"1\"") => tagged(304),
                Some(_) => OriginResponse::status(304, "").with("etag", "\"2\""),
                None => OriginResponse::ok("b").with("etag", "\"1\""),
            }
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        proxy.get("/a").await;
        let same = proxy.get_with("/a", &[("if-none-match", "\"1\"")]).await;
        assert_eq!((same.status(), same.cache()), (304, "BYPASS"));
        assert_eq!(proxy.send("HEAD", "/a", &[]).await.status(), 200);
        proxy.get_with("/a", &[("if-none-match", "\"2\"")]).await;
        proxy.get_with("/a", &[("range", "bytes=0-0")]).await;
        let report = report(&proxy).await;
        assert_eq!(report["results"], json!({"HIT": 4, "MISS": 1}));
        assert_eq!((&report["compared"], &report["wrong"]), (&json!(2), &json!(0)));
        assert_eq!(report["skipped"], json!({"partial": 2}));
    })
    .await;
}

#[tokio::test]
async fn failures_of_the_origin_reach_clients_and_count_as_bridged() {
    within(async {
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("a"),
            OriginResponse::status(503, "down"),
            OriginResponse::status(503, "down"),
        ])
        .await;
        let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}stale_if_error = \"1h\"\n"));
        proxy.get("/a").await;
        assert_eq!(proxy.get("/a").await.summary(), "503 BYPASS down");
        proxy.advance(61);
        assert_eq!(proxy.get("/a").await.summary(), "503 BYPASS down");
        let report = report(&proxy).await;
        assert_eq!(report["results"], json!({"HIT": 1, "MISS": 1, "STALE": 1}));
        assert_eq!(report["reasons"], json!({"cold": 1, "stale-if-error": 1}));
        assert_eq!(
            (&report["wrong"], &report["skipped"]),
            (&json!(0), &json!({"origin-error": 1}))
        );
    })
    .await;
}

#[tokio::test]
async fn responses_that_would_not_be_stored_are_counted_by_reason() {
    within(async {
        let origin =
            ScriptedOrigin::always(OriginResponse::ok("a").with("set-cookie", "a=b")).await;
        let bypass = "bypass = { query = [\"nocache\"] }\n";
        let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}{bypass}"));
        assert_eq!(proxy.get("/a").await.header("set-cookie"), Some("a=b"));
        proxy.get("/a").await;
        proxy.get("/a?nocache").await;
        let report = report(&proxy).await;
        assert_eq!(report["results"], json!({"BYPASS": 1, "MISS": 2}));
        assert_eq!(report["not_stored"], json!({"set-cookie": 2}));
        assert_eq!((&report["hit_ratio"], &report["compared"]), (&json!(0.0), &json!(0)));
    })
    .await;
}

#[tokio::test]
async fn a_response_that_breaks_off_is_neither_stored_nor_compared() {
    within(async {
        let gate = Gate::closed();
        gate.open();
        let origin = ScriptedOrigin::in_turn([
            OriginResponse::ok("a").cut(&gate),
            OriginResponse::ok("a").then(&gate, "b"),
            OriginResponse::ok("a").then(&gate, "b"),
            OriginResponse::ok("a").cut(&gate),
        ])
        .await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        for _ in 0..4 {
            let mut wire = proxy.connect().await;
            wire.write("GET /a HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").await;
            wire.read_to_end().await;
        }
        let report = report(&proxy).await;
        assert_eq!(report["results"], json!({"HIT": 2, "MISS": 2}));
        assert_eq!(
            (&report["compared"], &report["skipped"]),
            (&json!(1), &json!({"interrupted": 1}))
        );
    })
    .await;
}

#[tokio::test]
async fn long_documents_are_compared_by_value_too() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let rows: Vec<Value> = (0..5000).map(|id| json!({"id": id, "sum": id * 2})).collect();
            let body = match request.before {
                0 => json!({"rows": rows}).to_string(),
                1 => serde_json::to_string_pretty(&json!({"rows": rows})).unwrap(),
                _ => json!({"rows": rows}).to_string().replace("\"sum\":9000", "\"sum\":9001"),
            };
            OriginResponse::ok(body)
        })
        .await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        for _ in 0..3 {
            proxy.get("/a").await;
        }
        let report = loop {
            let report = report(&proxy).await;
            if report["compared"] == 2 {
                break report;
            }
        };
        assert_eq!(report["wrong"], 1);
        assert_eq!(report["samples"][0]["differences"][0]["at"], "$.rows[*].sum");
    })
    .await;
}

#[tokio::test]
async fn a_search_in_shadow_mode_is_keyed_by_its_body() {
    within(async {
        let origin = ScriptedOrigin::start(|request| OriginResponse::ok(&request.body)).await;
        let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}key = \"json-body\"\n"));
        let json = [("content-type", "application/json")];
        for body in [r#"{"q":"a"}"#, r#"{ "q": "a" }"#, r#"{"q":"b"}"#] {
            let mut wire = proxy.connect().await;
            let reply = wire.exchange(request_with_body("POST", "/search", &json, body)).await;
            assert_eq!(reply.cache(), "BYPASS");
        }
        let report = report(&proxy).await;
        assert_eq!(report["results"], json!({"HIT": 1, "MISS": 2}));
        assert_eq!((&report["compared"], &report["wrong"]), (&json!(1), &json!(0)));
    })
    .await;
}

#[tokio::test]
async fn the_report_in_the_documents_is_what_is_reported() {
    within(async {
        let document = std::fs::read_to_string("docs/shadow.md").unwrap();
        let block = |language: &str| {
            let start = format!("```{language}\n");
            let rest = document.split_once(start.as_str()).unwrap().1;
            rest.split_once("```").unwrap().0.to_owned()
        };
        let (config, shown) = (block("toml"), block("text"));
        let config = config.lines().filter(|line| !line.starts_with("origin")).fold(
            String::new(),
            |mut text, line| {
                writeln!(text, "{line}").unwrap();
                text
            },
        );
        let origin = ScriptedOrigin::start(|request| {
            let user = request.header("authorization").unwrap_or_default();
            let user = user.trim_start_matches("Bearer ");
            OriginResponse::ok(json!({"name": user, "plan": "free"}).to_string())
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &config);
        for number in 0..100 {
            let user = ["Bearer anna", "Bearer bert"][number % 2];
            proxy.get_with("/api/profile", &[("authorization", user)]).await;
        }
        // Times differ from run to run.
        let masked = |text: &str| {
            let lines = text.lines().map(|line| match line {
                line if line.contains("since ") => line.split("since ").next().unwrap(),
                line if line.contains(" bytes, ") => line.split(" bytes, ").next().unwrap(),
                line => line,
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(masked(&shown), masked(&text(&whole_report(&proxy).await)));
    })
    .await;
}

/// A request of a sequence: method, target, fields, and seconds that pass before it.
type Step = (&'static str, &'static str, &'static [(&'static str, &'static str)], u64);

const ANNA: &[(&str, &str)] = &[("authorization", "Bearer anna")];
const BERT: &[(&str, &str)] = &[("authorization", "Bearer bert")];
const DE: &[(&str, &str)] = &[("accept-language", "de")];
const FR: &[(&str, &str)] = &[("accept-language", "fr")];

/// An API with responses of all kinds, and no two responses to different requests alike.
async fn varied_origin() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        let path = request.target.split('?').next().unwrap();
        let language = request.header("accept-language").unwrap_or("en");
        let user = request.header("authorization").unwrap_or("nobody");
        match path {
            "/language" => OriginResponse::ok(language).with("vary", "accept-language"),
            "/mine" => OriginResponse::ok(user),
            "/cookie" => OriginResponse::ok("a").with("set-cookie", "a=b"),
            "/missing" => OriginResponse::status(404, "none"),
            "/never" => OriginResponse::ok("a").with("cache-control", "no-store"),
            "/broken" => OriginResponse::status(500, "broken"),
            _ => OriginResponse::ok("a"),
        }
    })
    .await
}

/// The routes of that API, with this further line.
fn varied_routes(shadow: &str) -> String {
    let route = |name: &str, keys: &str| {
        format!("[[route]]\nname = \"{name}\"\nmatch = \"/{name}\"\nttl = \"1m\"\n{shadow}{keys}\n")
    };
    let plain = "stale_while_revalidate = \"1h\"\nquery = { ignore = [\"utm_*\"] }";
    [
        route("plain", plain),
        route("mine", "partition = \"user\""),
        route("shared", "partition = \"everyone\""),
        route("rest", "bypass = { query = [\"nocache\"] }").replace("\"/rest\"", "\"/**\""),
    ]
    .concat()
}

/// Two proxies before one API: the rules of one are on, those of the other in shadow mode.
struct Compared {
    live: Proxy,
    shadow: Proxy,
    /// The results that the shadow has reported so far.
    reported: BTreeMap<String, u64>,
}

impl Compared {
    fn before(origin: &ScriptedOrigin) -> Self {
        let live = Proxy::with(&origin.url(), &varied_routes(""));
        let shadow = Proxy::with(&origin.url(), &varied_routes("shadow = true\n"));
        Self { live, shadow, reported: BTreeMap::new() }
    }

    /// Sends the request to both. Returns what happened, and what the shadow says would have.
    async fn take(&mut self, (method, target, fields, seconds): Step) -> [String; 2] {
        for proxy in [&self.live, &self.shadow] {
            proxy.advance(seconds);
        }
        let happened = self.live.send(method, target, fields).await.cache().to_owned();
        assert_eq!(self.shadow.send(method, target, fields).await.cache(), "BYPASS");
        if happened == "STALE" {
            while explained(&self.live, target).await["answer"]["result"] == "STALE" {}
        }
        let would_be = self.newly_reported().await;
        [happened, would_be]
    }

    /// Returns the result of the request since the last call; that of a write is not measured.
    async fn newly_reported(&mut self) -> String {
        let report = whole_report(&self.shadow).await;
        let mut results = BTreeMap::new();
        for route in report["routes"].as_array().unwrap() {
            assert_eq!(route["wrong"], 0, "{route}");
            for (result, count) in route["results"].as_object().into_iter().flatten() {
                *results.entry(result.clone()).or_default() += count.as_u64().unwrap();
            }
        }
        let before = std::mem::replace(&mut self.reported, results);
        let is_new = |result: &&String| {
            self.reported[*result] > before.get(*result).copied().unwrap_or_default()
        };
        let new: Vec<&String> = self.reported.keys().filter(is_new).collect();
        assert!(new.len() <= 1, "{new:?}");
        new.first().map_or("write", |result| result.as_str()).to_owned()
    }
}

#[tokio::test]
async fn what_is_measured_is_what_happens_to_every_request() {
    within(async {
        let steps: &[Step] = &[
            ("GET", "/plain", &[], 0),
            ("GET", "/plain?utm_source=x", &[], 1),
            ("HEAD", "/plain", &[], 1),
            ("GET", "/plain", &[("range", "bytes=0-0")], 1),
            ("GET", "/plain", &[("cache-control", "no-cache")], 1),
            ("GET", "/plain", &[("cache-control", "no-store")], 1),
            ("GET", "/plain", &[], 60),
            ("GET", "/plain", &[], 1),
            ("GET", "/plain", &[], 90),
            ("GET", "/plain", &[], 1000),
            ("POST", "/plain", &[], 1),
            ("GET", "/plain", &[], 1),
            ("GET", "/language", DE, 1),
            ("GET", "/language", FR, 1),
            ("GET", "/language", DE, 1),
            ("GET", "/language", &[], 1),
            ("GET", "/mine", ANNA, 1),
            ("GET", "/mine", BERT, 1),
            ("GET", "/mine", ANNA, 1),
            ("GET", "/mine", &[], 1),
            ("GET", "/shared", ANNA, 1),
            ("GET", "/shared", BERT, 1),
            ("GET", "/cookie", &[], 1),
            ("GET", "/cookie", &[], 1),
            ("GET", "/missing", &[], 1),
            ("GET", "/missing", &[], 1),
            ("GET", "/never", &[], 1),
            ("GET", "/never?nocache", &[], 1),
            ("GET", "/broken", &[], 1),
            ("GET", "/unknown", &[("cookie", "a=1; a=2")], 1),
        ];
        let origin = varied_origin().await;
        let mut compared = Compared::before(&origin);
        for step in steps {
            let [happened, would_be] = compared.take(*step).await;
            let expected = if step.0 == "POST" { "write" } else { &*happened };
            assert_eq!(would_be, expected, "{step:?}");
        }
        assert_eq!(whole_report(&compared.shadow).await["routes"].as_array().unwrap().len(), 4);
    })
    .await;
}

#[tokio::test]
async fn what_is_measured_is_what_happens_in_any_order() {
    within_seconds(60, async {
        let targets = [
            "/plain",
            "/plain?utm_source=x",
            "/plain?page=2",
            "/language",
            "/mine",
            "/shared",
            "/cookie",
            "/missing",
            "/never",
            "/other",
            "/other?nocache",
        ];
        let fields: [&[(&str, &str)]; 9] = [
            &[],
            &[],
            &[],
            ANNA,
            BERT,
            DE,
            FR,
            &[("cache-control", "no-cache")],
            &[("cache-control", "max-age=10")],
        ];
        for seed in 0..4 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let origin = varied_origin().await;
            let mut compared = Compared::before(&origin);
            let mut taken: Vec<Step> = Vec::new();
            for _ in 0..100 {
                let method = if rng.u8(0..20) == 0 { "DELETE" } else { "GET" };
                let seconds = [0, 1, 5, 30, 70][rng.usize(0..5)];
                let (target, fields) =
                    (targets[rng.usize(0..targets.len())], fields[rng.usize(0..fields.len())]);
                taken.push((method, target, fields, seconds));
                let [happened, would_be] = compared.take((method, target, fields, seconds)).await;
                let expected = if method == "DELETE" { "write" } else { &*happened };
                assert_eq!(would_be, expected, "{seed}: {taken:#?}");
            }
        }
    })
    .await;
}

/// Returns the explanation of a `GET` for this target.
async fn explained(proxy: &Proxy, target: &str) -> Value {
    let body = json!({"url": format!("http://api.test{target}")}).to_string();
    let fields = [("host", "localhost"), ("content-type", "application/json")];
    let mut wire = Wire::connect(proxy.admin_address()).await;
    let reply = wire.exchange(request_with_body("POST", "/v1/explain", &fields, &body)).await;
    serde_json::from_str(&reply.body).unwrap()
}

#[tokio::test]
async fn an_explanation_says_what_the_cache_would_do() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a")).await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        let before = explained(&proxy, "/a").await;
        assert_eq!(
            (&before["outcome"]["outcome"], &before["outcome"]["reason"]),
            (&json!("shadow"), &json!("shadow"))
        );
        let means = before["answer"]["means"].as_str().unwrap();
        assert!(means.contains("Without `shadow`: MISS (cold)."), "{means}");
        proxy.get("/a").await;
        let after = explained(&proxy, "/a").await;
        assert_eq!(
            (&after["answer"]["result"], &after["stored"]["status"]),
            (&json!("BYPASS"), &json!(200))
        );
        let means = after["answer"]["means"].as_str().unwrap();
        assert!(means.contains("Without `shadow`: HIT."), "{means}");
    })
    .await;
}

#[tokio::test]
async fn public_data_that_changes_is_not_taken_for_a_users() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(json!({"price": request.before / 13}).to_string())
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &format!("{SHADOW}partition = \"everyone\"\n"));
        for number in 0..100 {
            let user = format!("Bearer {number}");
            proxy.get_with("/a", &[("authorization", &user)]).await;
            proxy.advance(3);
        }
        let report = report(&proxy).await;
        assert!(report["wrong"].as_u64().unwrap() > 30, "{report}");
        let advice = report["advice"][0].as_str().unwrap();
        assert!(advice.starts_with("the data changes while it is stored"), "{report}");
    })
    .await;
}

#[tokio::test]
async fn a_stream_without_end_is_passed_and_not_copied() {
    within(async {
        let gate = Gate::closed();
        let events = OriginResponse::ok("data: 1\n\n")
            .with("content-type", "text/event-stream")
            .then(&gate, "data: 2\n\n");
        let origin = ScriptedOrigin::always(events).await;
        let proxy = Proxy::with(&origin.url(), SHADOW);
        let mut wire = proxy.connect().await;
        wire.write("GET /a HTTP/1.1\r\nHost: api.test\r\n\r\n").await;
        wire.read_until("data: 1\n\n").await;
        gate.open();
        wire.read_until("data: 2\n\n").await;
        wire.read_until("0\r\n\r\n").await;
        assert_eq!(report(&proxy).await["not_stored"], json!({"streaming": 1}));
    })
    .await;
}
