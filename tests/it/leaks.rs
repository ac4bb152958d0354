//! Leaks: a route whose responses depend on the requester is quarantined, and no other is.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use serde_json::{Value, json};

use super::support::{
    fleet::{Fleet, short_sleep},
    gate::Gate,
    process::Process,
    proxy::{Proxy, request, request_with_body},
    redis::Redis,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    token::{SECRET, bearer, bearer_of, by_token, outcome},
    wire::{Reply, Wire},
    within, within_seconds,
};

const QUARANTINED: &str = "BYPASS quarantined";
const COMPARISONS: &str = "larder_leak_comparisons_total";

/// Returns JSON that depends on the requester.
fn personal(request: &OriginRequest) -> OriginResponse {
    let user = request.header("authorization").unwrap_or("nobody");
    let body = json!({ "user": { "balance": user.len(), "id": user }, "at": request.before });
    OriginResponse::ok(body.to_string()).with("content-type", "application/json")
}

/// Sends a request with this `Authorization`.
async fn get(proxy: &Proxy, path: &str, authorization: &str) -> Reply {
    proxy.get_with(path, &[("authorization", authorization)]).await
}

/// Waits until the route is quarantined. Returns its entry in the list.
async fn until_quarantined(proxy: &Proxy) -> Value {
    loop {
        let list: Value = serde_json::from_str(&proxy.admin("/v1/quarantine").await.body).unwrap();
        if let Some(route) = list["routes"].get(0) {
            return route.clone();
        }
        short_sleep().await;
    }
}

/// Waits until this many comparisons have ended.
async fn until_compared(proxy: &Proxy, comparisons: u64) {
    while proxy.metric(COMPARISONS, "").await < comparisons {
        short_sleep().await;
    }
}

/// Returns whether no route is quarantined.
async fn is_open(proxy: &Proxy) -> bool {
    proxy.admin("/v1/quarantine").await.body == r#"{"routes":[]}"#
}

fn users() -> [String; 2] {
    [bearer("alice-1234", "read"), bearer("bob-56789", "read")]
}

#[tokio::test]
async fn a_shared_route_whose_responses_depend_on_the_requester_is_quarantined() {
    within(async {
        for partition in ["authenticated", "claim:scope"] {
            let origin = ScriptedOrigin::start(personal).await;
            let proxy = Proxy::with(&origin.url(), &by_token(partition));
            let [alice, bob] = users();
            get(&proxy, "/me", &alice).await;
            get(&proxy, "/me", &bob).await;
            let found = until_quarantined(&proxy).await;
            assert_eq!((&found["route"], &found["path"]), (&json!("a"), &json!("/me")));
            assert_eq!(found["cause"], "differs-by-requester");
            assert_eq!(found["places"], json!(["$.user.balance", "$.user.id"]));
            for user in [&alice, &bob, &alice] {
                let reply = get(&proxy, "/me", user).await;
                assert_eq!(outcome(&reply), QUARANTINED);
                assert!(reply.body.contains(user.as_str()), "it comes from the origin");
            }
            assert_eq!(outcome(&get(&proxy, "/another", &alice).await), QUARANTINED);
            assert_eq!(proxy.metric("larder_route_quarantined", "route=\"a\"").await, 1);
            assert_eq!(proxy.metric(COMPARISONS, "result=\"leak\"").await, 1);
            assert!(proxy.metric("larder_uncached_total", "reason=\"quarantined\"").await >= 4);
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_origin_declares_public_is_watched_by_its_hits() {
    within(async {
        let public =
            |request: &OriginRequest| personal(request).with("cache-control", "public, max-age=60");
        let origin = ScriptedOrigin::start(public).await;
        let proxy = Proxy::with(&origin.url(), "");
        let mut hits = 0;
        while is_open(&proxy).await {
            for user in ["Bearer alice", "Bearer robert"] {
                hits += usize::from(get(&proxy, "/me", user).await.cache() == "HIT");
            }
        }
        assert!((60..200).contains(&hits), "{hits}");
        let found = until_quarantined(&proxy).await;
        assert_eq!(found["route"], "unmatched");
    })
    .await;
}

#[tokio::test]
async fn a_session_that_the_operator_takes_for_harmless_is_found() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let who = request.header("cookie").unwrap_or("-").to_owned();
            OriginResponse::fresh(format!("<p>{}</p>\nHello {who}", request.before))
        })
        .await;
        let toml = "user.harmless_cookies = [\"portal\"]\n[[route]]\nname = \"a\"\nmatch = \"/**\"\nttl = \"1h\"";
        let proxy = Proxy::with(&origin.url(), toml);
        for user in ["portal=1", "portal=2"].iter().cycle().take(200) {
            proxy.get_with("/home", &[("cookie", user)]).await;
        }
        let found = until_quarantined(&proxy).await;
        assert_eq!((&found["route"], &found["places"]), (&json!("a"), &json!(["line 2"])));
    })
    .await;
}

#[tokio::test]
async fn a_page_that_names_its_user_is_found_whatever_else_changes_in_it() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let token = request.header("authorization").unwrap();
            let is_alice = token == bearer_of(&claims("alice@example.com"));
            let user = if is_alice { "alice" } else { "bob" };
            OriginResponse::ok(format!("<p n={}>{user}@example.com</p>", request.before))
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        for mail in ["alice@example.com", "bob@example.com"] {
            get(&proxy, "/profile", &bearer_of(&claims(mail))).await;
        }
        assert_eq!(until_quarantined(&proxy).await["cause"], "names-requester");
    })
    .await;
}

/// The claims of a user with this e-mail address.
fn claims(mail: &str) -> Value {
    let sub = mail.split_once('@').unwrap().0;
    json!({ "sub": sub, "email": mail, "iss": "i", "exp": 4_000_000_000_u64 })
}

#[tokio::test]
async fn equal_responses_to_different_requesters_cost_the_origin_nothing_more() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok(r#"{"a":1}"#)).await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        for number in 0..20 {
            let user = bearer(&format!("user-{number}"), "read");
            get(&proxy, "/a", &user).await;
            assert_eq!(get(&proxy, "/a", &user).await.cache(), "HIT");
        }
        assert_eq!(origin.requests(), 20, "each credential is checked once");
        assert_eq!(proxy.metric(COMPARISONS, "").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_slow_route_does_not_hide_the_leak_of_another() {
    within(async {
        let never = Gate::closed();
        let total = Arc::new(AtomicUsize::new(0));
        let gate = never.clone();
        let origin = ScriptedOrigin::start(move |request| {
            let is_slow = request.target == "/slow" && total.fetch_add(1, Relaxed) >= 2;
            let response = personal(request);
            if is_slow { response.after(&gate) } else { response }
        })
        .await;
        let route = by_token("authenticated");
        let (_, shared) = route.split_once("[[route]]").unwrap();
        let slow = shared.replace("\"a\"", "\"slow\"").replace("/**", "/slow");
        let toml = route.replace("[[route]]", &format!("[[route]]{slow}\n[[route]]"));
        let proxy = Proxy::with(&origin.url(), &toml);
        for path in ["/slow", "/me"] {
            for user in &users() {
                get(&proxy, path, user).await;
            }
        }
        assert_eq!(until_quarantined(&proxy).await["route"], "a");
        drop(never);
    })
    .await;
}

#[tokio::test]
async fn a_request_is_not_repeated_after_its_requester_has_logged_out() {
    within(async {
        let logout = "[[route]]\nname = \"out\"\nmatch = \"POST /logout\"\n\
                      on_success = { logout = true }\n[[route]]";
        let tokens = by_token("authenticated").replace("[[route]]", logout);
        let sessions = logout.trim_end_matches("[[route]]").to_owned();
        let bearers = ["alice-1234", "bob-56789", "carol-1234", "david-5678"]
            .map(|user| ("authorization", bearer(user, "read")));
        let cookies =
            ["1", "22", "333", "4444"].map(|user| ("cookie", format!("sessionid={user}")));
        for (toml, users) in [(tokens, bearers), (sessions, cookies)] {
            let field = users[0].0;
            let origin = ScriptedOrigin::start(move |request| {
                let user = request.header(field).unwrap_or("nobody");
                let body = json!({ "user": { "id": user } }).to_string();
                OriginResponse::ok(body).with("cache-control", "public, max-age=1")
            })
            .await;
            let proxy = Proxy::with(&origin.url(), &toml);
            let send = async |method: &str, path: &str, user: usize| {
                proxy.advance(2);
                proxy.send(method, path, &[(field, users[user].1.as_str())]).await
            };
            send("GET", "/me", 0).await;
            assert_eq!(send("POST", "/logout", 0).await.status(), 200);
            send("GET", "/me", 1).await;
            send("GET", "/other", 2).await;
            send("GET", "/other", 3).await;
            assert_eq!(until_quarantined(&proxy).await["path"], "/other", "{field}");
            let received = origin.received();
            let is_of_first =
                |request: &&OriginRequest| request.header(field) == Some(users[0].1.as_str());
            assert_eq!(received.iter().filter(is_of_first).count(), 2, "{field}: no repetition");
        }
    })
    .await;
}

/// Market data: a price that changes after each of these requests, and a number of each response.
async fn market(every: usize) -> ScriptedOrigin {
    let total = Arc::new(AtomicUsize::new(0));
    ScriptedOrigin::start(move |_| {
        let number = total.fetch_add(1, Relaxed);
        let tick = number / every;
        let rows: Vec<Value> = (0..20)
            .map(|row| json!({ "symbol": format!("S{row}"), "price": (tick * 7 + row) % 101 }))
            .collect();
        OriginResponse::ok(json!({ "request": number, "rows": rows }).to_string())
    })
    .await
}

#[tokio::test]
async fn market_data_that_changes_each_second_raises_no_alarm_in_ten_thousand_requests() {
    within_seconds(120, async {
        let origin = market(5).await;
        let toml = by_token("authenticated").replace("\"1h\"", "\"1s\"");
        let proxy = Proxy::with(&origin.url(), &toml);
        let users: Vec<String> =
            (0..50).map(|number| bearer(&format!("trader-{number:04}"), "read")).collect();
        let mut wire = proxy.connect().await;
        for number in 0..10_000 {
            let fields = [("authorization", users[number * 7 % users.len()].as_str())];
            let path = ["/quotes", "/market/tape", "/market/book"][number % 3];
            let reply = wire.exchange(request("GET", path, &fields)).await;
            assert_ne!(outcome(&reply), QUARANTINED, "{number}");
            if number % 40 == 0 {
                proxy.advance(1);
            }
        }
        until_compared(&proxy, 1).await;
        assert!(is_open(&proxy).await);
        assert_eq!(proxy.metric(COMPARISONS, "result=\"leak\"").await, 0);
        let further = proxy.metric("larder_origin_requests_total", "").await;
        let needed = proxy.metric("larder_requests_total", "").await
            - proxy.metric("larder_requests_total", "cache=\"HIT\"").await;
        assert!(further < needed + needed / 5, "{further} requests, {needed} needed");
    })
    .await;
}

#[tokio::test]
async fn what_differs_for_other_reasons_than_the_requester_is_no_leak() {
    within(async {
        let total = Arc::new(AtomicUsize::new(0));
        let turns = move |_: &OriginRequest| {
            let server = total.fetch_add(1, Relaxed) % 2;
            OriginResponse::ok(json!({ "server": server }).to_string())
        };
        let refused = |request: &OriginRequest| match request.header("authorization") {
            Some(token) if token == bearer_of(&claims("bob@example.com")) => {
                OriginResponse::status(403, "no")
            }
            _ => personal(request),
        };
        let unshared =
            |request: &OriginRequest| personal(request).with("cache-control", "private, max-age=9");
        let varied = |request: &OriginRequest| personal(request).with("vary", "authorization");
        let origins = [
            ScriptedOrigin::start(turns).await,
            ScriptedOrigin::start(refused).await,
            ScriptedOrigin::start(unshared).await,
            ScriptedOrigin::start(varied).await,
        ];
        for origin in origins {
            let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
            for number in 0..200 {
                let mail = ["alice@example.com", "bob@example.com"][number % 2];
                get(&proxy, "/a", &bearer_of(&claims(mail))).await;
            }
            assert!(is_open(&proxy).await);
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_request_brings_along_besides_credentials_is_no_leak() {
    within(async {
        let echo = |request: &OriginRequest| {
            let id = request.header("x-correlation-id").unwrap_or_default();
            OriginResponse::ok(json!({ "meta": { "id": id } }).to_string())
        };
        let origin = ScriptedOrigin::start(echo).await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        for (user, id) in users().iter().zip(["one", "two"]) {
            proxy.get_with("/a", &[("authorization", user), ("x-correlation-id", id)]).await;
        }
        for number in 0..400 {
            let (user, id) = (&users()[number % 2], ["one", "two"][number % 2]);
            proxy.get_with("/a", &[("authorization", user), ("x-correlation-id", id)]).await;
        }
        until_compared(&proxy, 1).await;
        assert!(is_open(&proxy).await);
    })
    .await;
}

#[tokio::test]
async fn requests_for_other_content_are_not_compared() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            OriginResponse::ok(request.header("accept-language").unwrap().to_owned())
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        for (user, language) in users().iter().zip(["de", "en"]).cycle().take(300) {
            let fields = [("authorization", user.as_str()), ("accept-language", language)];
            proxy.get_with("/a", &fields).await;
        }
        assert_eq!(proxy.metric(COMPARISONS, "").await, 0);
        assert!(is_open(&proxy).await);
    })
    .await;
}

#[tokio::test]
async fn routes_that_say_so_and_routes_that_share_nothing_are_not_watched() {
    within(async {
        let off = format!("{}\ndetect_leaks = false", by_token("authenticated"));
        for toml in [off, by_token("user"), by_token("everyone")] {
            let origin = ScriptedOrigin::start(personal).await;
            let proxy = Proxy::with(&origin.url(), &toml);
            for user in users().iter().cycle().take(200) {
                get(&proxy, "/me", user).await;
            }
            assert_eq!(proxy.metric(COMPARISONS, "").await, 0, "{toml}");
            assert!(is_open(&proxy).await, "{toml}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_quarantine_lasts_over_reloads_until_it_is_cleared_and_nothing_stored_survives_it() {
    within(async {
        let is_fixed = Arc::new(AtomicUsize::new(0));
        let fixed = Arc::clone(&is_fixed);
        let origin = ScriptedOrigin::start(move |request| match fixed.load(Relaxed) {
            0 => personal(request),
            _ => OriginResponse::ok("for all"),
        })
        .await;
        let toml = format!("admin.token = \"secret\"\n{}", by_token("authenticated"));
        let proxy = Proxy::with(&origin.url(), &toml);
        let [alice, bob] = users();
        get(&proxy, "/me", &alice).await;
        get(&proxy, "/me", &bob).await;
        while outcome(&get(&proxy, "/me", &alice).await) != QUARANTINED {
            short_sleep().await;
        }
        proxy.reconfigure(&origin.url(), &format!("{toml}\nstale_if_error = \"1h\""));
        assert_eq!(outcome(&get(&proxy, "/me", &alice).await), QUARANTINED);
        is_fixed.store(1, Relaxed);
        let cleared = clear(&proxy, "a").await;
        assert_eq!((cleared.status(), cleared.body.contains("\"seq\":")), (200, true));
        assert_eq!(get(&proxy, "/me", &alice).await.body, "for all");
        assert_eq!(outcome(&get(&proxy, "/me", &alice).await), "HIT -");
        for unknown in ["a", "b", "%zz"] {
            let reply = clear(&proxy, unknown).await;
            assert_eq!((reply.status(), reply.body.contains("Not quarantined")), (404, true));
        }
    })
    .await;
}

/// Ends the quarantine of a route by a call to the admin listener, which needs a token.
async fn clear(proxy: &Proxy, route: &str) -> Reply {
    let fields = [("Host", "localhost"), ("authorization", "Bearer secret")];
    let call = request("DELETE", &format!("/v1/quarantine/{route}"), &fields);
    Wire::connect(proxy.admin_address()).await.exchange(call).await
}

#[tokio::test]
async fn a_node_explains_a_quarantined_route() {
    within(async {
        let origin = ScriptedOrigin::start(personal).await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        let [alice, bob] = users();
        get(&proxy, "/me", &alice).await;
        get(&proxy, "/me", &bob).await;
        until_quarantined(&proxy).await;
        let body = json!({ "url": "http://api.test/me" }).to_string();
        let fields = [("Host", "localhost"), ("accept", "text/plain")];
        let call = request_with_body("POST", "/v1/explain", &fields, &body);
        let explained = Wire::connect(proxy.admin_address()).await.exchange(call).await.body;
        for line in ["Is the route quarantined?", "quarantined", "larder quarantine --clear ROUTE"]
        {
            assert!(explained.contains(line), "{explained}");
        }
    })
    .await;
}

/// The example in `docs/leaks.md`: its configuration, and what the command prints.
fn documented() -> (String, String) {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/leaks.md");
    let text = std::fs::read_to_string(file).unwrap();
    let block = |language: &str| {
        let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    (block("toml").replace("${JWT_SECRET}", SECRET), block("text"))
}

/// Runs `larder quarantine` against a proxy. Returns its exit code and all that it prints.
async fn command(proxy: &Proxy, arguments: &[&str]) -> (i32, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_larder"));
    for name in ["LARDER_CONFIG", "LARDER_ADMIN", "LARDER_ORIGIN"] {
        command.env_remove(name);
    }
    command.env("LARDER_ADMIN_TOKEN", "secret").arg("quarantine").args(arguments);
    command.args(["--admin", &proxy.admin_address().to_string()]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

/// Replaces the time in a list.
fn without_time(list: &str) -> String {
    let lines = list.lines().map(|line| match line.strip_prefix("  since") {
        Some(_) => "  since\n".to_owned(),
        None => format!("{line}\n"),
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_lists_what_leaks_as_documented_and_clears_it() {
    within(async {
        let origin = ScriptedOrigin::start(|request| {
            let user = request.header("authorization").unwrap().len();
            let body = json!({ "user": { "name": user }, "orders": [{ "id": user + 1 }] });
            OriginResponse::ok(body.to_string())
        })
        .await;
        let (toml, printed) = documented();
        let proxy = Proxy::with(&origin.url(), &format!("admin.token = \"secret\"\n{toml}"));
        assert_eq!(command(&proxy, &[]).await, (0, "no route is quarantined\n".to_owned()));
        let users = ["a", "longer"].map(|user| bearer(user, "read"));
        for user in users.iter().cycle() {
            let reply = get(&proxy, "/api/orders/mine", user).await;
            if outcome(&reply) == QUARANTINED {
                break;
            }
        }
        let (code, list) = command(&proxy, &[]).await;
        assert_eq!((code, without_time(&list)), (0, without_time(&printed)));
        let (_, json) = command(&proxy, &["--json"]).await;
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["routes"][0]["route"], "orders");
        let (code, printed) = command(&proxy, &["--clear", "order"]).await;
        assert!(code == 1 && printed.contains("not cleared (404)"), "{printed}");
        let cleared = command(&proxy, &["--clear", "orders"]).await;
        assert_eq!(cleared, (0, "cleared: orders\n".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn no_name_credential_or_value_of_a_user_is_shown_to_operators() {
    within(async {
        let users = ["alice@example.com", "bob@example.com"].map(|mail| bearer_of(&claims(mail)));
        let alice = users[0].clone();
        let origin = ScriptedOrigin::start(move |request| {
            let is_alice = request.header("authorization") == Some(&alice);
            let name = if is_alice { "Alice Secret" } else { "Bob Secret" };
            let mut body = json!({ "name": name });
            body[format!("{name}@example.com")] = json!(1);
            OriginResponse::ok(body.to_string())
        })
        .await;
        let proxy = Proxy::with(&origin.url(), &by_token("authenticated"));
        for user in &users {
            get(&proxy, "/me", user).await;
        }
        let found = until_quarantined(&proxy).await.to_string();
        let purges = proxy.admin("/v1/purges").await.body;
        let metrics = proxy.admin("/metrics").await.body;
        for text in [&found, &purges, &metrics, &proxy.log_text()] {
            for secret in ["Secret", "example.com", users[0].as_str(), users[1].as_str()] {
                assert!(!text.contains(secret), "{secret}: {text}");
            }
        }
        assert!(purges.contains("\"source\":\"quarantine\""), "{purges}");
    })
    .await;
}

// ── Fleets ──

/// The configuration of a fleet with one route of this partition.
fn fleet_toml(redis: &Redis) -> String {
    let route = by_token("authenticated");
    format!("{route}\n[store]\n{}", redis.store())
}

async fn send(fleet: &Fleet, node: usize, path: &str, user: &str) -> Reply {
    fleet.send(node, ("GET", path), &[("authorization", user)]).await
}

/// Waits until a node passes requests because of the quarantine, or no longer does.
async fn until(fleet: &Fleet, node: usize, is_quarantined: bool) {
    let user = bearer("carol-1234", "read");
    while (outcome(&send(fleet, node, "/c", &user).await) == QUARANTINED) != is_quarantined {
        short_sleep().await;
    }
}

async fn call(node: &Process, method: &str, path: &str) -> Reply {
    let call = request(method, path, &[("authorization", "Bearer secret")]);
    Wire::connect(node.admin).await.exchange(call).await
}

#[tokio::test]
async fn a_quarantine_reaches_every_node_survives_restarts_and_is_cleared_everywhere() {
    within_seconds(60, async {
        let origin = ScriptedOrigin::start(personal).await;
        let redis = Redis::start().await;
        let mut fleet = Fleet::start(3, &origin.url(), &fleet_toml(&redis)).await;
        fleet.ready(&redis).await;
        for user in users() {
            send(&fleet, 0, "/me", &user).await;
        }
        for node in 0..3 {
            until(&fleet, node, true).await;
        }
        fleet.kill(0);
        fleet.kill(1);
        fleet.replace(0).await;
        until(&fleet, 0, true).await;
        fleet.replace(1).await;
        fleet.ready(&redis).await;
        until(&fleet, 1, true).await;
        let listed = call(&fleet.nodes[1], "GET", "/v1/quarantine").await.body;
        assert!(listed.contains("\"route\":\"a\"") && listed.contains("$.user.id"), "{listed}");
        let cleared = call(&fleet.nodes[2], "DELETE", "/v1/quarantine/a").await;
        assert!([200, 202].contains(&cleared.status()), "{cleared:?}");
        for node in 0..3 {
            until(&fleet, node, false).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_quarantine_outlives_an_empty_redis_and_cannot_be_cleared_without_one() {
    within_seconds(60, async {
        let origin = ScriptedOrigin::start(personal).await;
        let redis = Redis::start().await;
        let mut fleet = Fleet::start(2, &origin.url(), &fleet_toml(&redis)).await;
        fleet.ready(&redis).await;
        for user in users() {
            send(&fleet, 0, "/me", &user).await;
        }
        until(&fleet, 0, true).await;
        until(&fleet, 1, true).await;
        redis.kill();
        while call(&fleet.nodes[0], "DELETE", "/v1/quarantine/a").await.status() != 503 {
            short_sleep().await;
        }
        until(&fleet, 0, true).await;
        redis.restart().await;
        fleet.ready(&redis).await;
        fleet.replace(1).await;
        until(&fleet, 1, true).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_cannot_know_the_quarantine_shares_nothing_among_requesters() {
    within_seconds(60, async {
        let redis = Redis::start().await;
        redis.kill();
        let origin = ScriptedOrigin::start(personal).await;
        let serve = "when_unsynced = \"serve\"\n";
        let proxy = Proxy::with(&origin.url(), &format!("{}\n{serve}", fleet_toml(&redis)));
        let [alice, bob] = users();
        for user in [&alice, &alice, &bob] {
            assert_eq!(outcome(&get(&proxy, "/me", user).await), "BYPASS unsynced");
        }
        let public = ScriptedOrigin::always(OriginResponse::fresh("all")).await;
        let toml = format!("[store]\n{}\n{serve}", redis.store());
        let without_users = Proxy::with(&public.url(), &toml);
        without_users.get("/a").await;
        assert_eq!(without_users.get("/a").await.cache(), "HIT", "nobody is identified");
        assert_eq!(outcome(&get(&without_users, "/a", "Bearer a").await), "BYPASS unsynced");
        redis.restart().await;
        for proxy in [&proxy, &without_users] {
            while outcome(&get(proxy, "/c", &alice).await) == "BYPASS unsynced" {
                short_sleep().await;
            }
        }
    })
    .await;
}
