//! Access to Redis: passwords with special characters, and users with the documented minimum of
//! rights.

use std::{fmt::Write as _, net::Ipv4Addr, time::Duration};

use larder::testing::redis::Settings;

use crate::support::{
    fleet::{Fleet, short_sleep},
    log::LogNode,
    proxy::{request, request_with_body},
    redis::{Redis, Sentinel},
    redis_cluster::Cluster,
    resp::Resp,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    token::{SECRET, bearer},
    wire::{Reply, Wire},
    within, within_seconds,
};

const TOKEN: (&str, &str) = ("authorization", "Bearer secret");
const REDIS: &str = include_str!("../../docs/redis.md");
const PURGE_LOG: &str = include_str!("../../docs/purge-log.md");

/// Percent-encodes a text for a URL.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        write!(encoded, "%{byte:02X}").unwrap();
        encoded
    })
}

/// Passwords with special characters of inline commands, URLs and configuration files.
const PASSWORDS: [&str; 9] = [
    "two words",
    "a\ttab",
    "\"quoted\"",
    "it's",
    "back\\slash\\x41\\n",
    " \"'\\ ",
    "pä\u{df}wörd-密码",
    "new\r\nline",
    "p@ss:w/rd%1#?&=+",
];

#[tokio::test]
async fn a_password_may_have_any_text_in_it() {
    within_seconds(60, async {
        let redis = Redis::start().await;
        for (number, password) in PASSWORDS.into_iter().enumerate() {
            let user = if number % 2 == 0 { "plain" } else { "o'n\"e\\ü" };
            let secret = format!(">{password}");
            let user_may = ["ACL", "SETUSER", user, "reset", "on", &secret, "~*", "&*", "+@all"];
            redis.run(&user_may).await;
            let who = format!("redis://{}:{}@", encoded(user), encoded(password));
            let node =
                LogNode::of(&Settings::parse(&redis.url().replace("redis://", &who)).unwrap());
            tokio::time::timeout(Duration::from_secs(5), node.wait_until_following())
                .await
                .expect(password);
        }
    })
    .await;
}

#[tokio::test]
async fn the_default_users_password_may_have_any_text_in_it() {
    within_seconds(60, async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        for password in ["\"two\" words\\", "ü\t'"] {
            let redis = Redis::start().await;
            redis.run(&["CONFIG", "SET", "requirepass", password]).await;
            let who = format!("redis://:{}@", encoded(password));
            let store = format!("[store]\nredis = \"{}\"\n", redis.url().replace("redis://", &who));
            let fleet = Fleet::start(1, &origin.url(), &store).await;
            while !fleet.uses_redis(0).await {
                short_sleep().await;
            }
        }
    })
    .await;
}

/// Returns the ACL line that follows a text in a document, for this user and the default prefix.
fn rules(document: &str, follows: &str, user: &str) -> Vec<String> {
    let (_, rest) = document.split_once(follows).unwrap_or_else(|| panic!("no {follows:?}"));
    let (_, line) = rest.split_once("```text\nACL SETUSER larder ").expect("an ACL line");
    let (line, _) = line.split_once("\n```").unwrap();
    let line = line.replace("{prefix}", "larder").replace("{password}", "secret");
    let words = ["ACL", "SETUSER", user].into_iter().chain(line.split_whitespace());
    words.map(str::to_owned).collect()
}

/// Creates the user of an ACL line.
async fn admit(redis: &Redis, rules: &[String]) {
    redis.run(&rules.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// Checks that Redis denied no command.
async fn nothing_was_refused(redis: &Redis) {
    let log = redis.command(&["ACL", "LOG"]).await;
    assert_eq!(log.members(), [], "{log:?}");
}

/// A configuration that uses every feature based on Redis.
fn everything(origin: &str, store: &str) -> String {
    format!(
        "user.digest_key = \"a digest key of at least thirty-two bytes\"\n\
         user.jwt = {{ secret = \"{SECRET}\", iss = \"i\" }}\n\
         [defaults]\nstale_while_revalidate = \"1m\"\n\
         [[route]]\nname = \"login\"\nmatch = \"POST /login\"\n\
         on_success = {{ warm = [\"/me/warm\"] }}\n\
         [[route]]\nname = \"logout\"\nmatch = \"POST /logout\"\non_success = {{ logout = true }}\n\
         [[route]]\nname = \"me\"\nmatch = \"/me/**\"\npartition = \"user\"\nttl = \"1h\"\n\
         [[route]]\nname = \"short\"\nmatch = \"/short/**\"\nttl = \"1s\"\n\
         [[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"1h\"\n\
         tags = [\"item:{{$.items[*].id}}\"]\non_write = {{ purge = [\"item:1\"] }}\n\
         [[route]]\nname = \"all\"\nmatch = \"/**\"\nttl = \"1h\"\ntags = [\"all\"]\n\
         [[poll]]\nname = \"druid\"\nurl = \"{origin}/version\"\nevery = \"1s\"\n\
         version = \"$.loaded\"\npurge = [\"sales\"]\n\
         [[schedule]]\ncron = \"* * * * *\"\npurge = [\"daily\"]\nwarm = [\"/scheduled\"]\n\
         [[webhook]]\nname = \"shop\"\nscheme = \"bearer\"\nsecret = \"hook\"\n\
         id_from = \"x-delivery\"\n[[webhook.on]]\npurge = [\"order:{{$.id}}\"]\nwarm = true\n\
         [events]\ntags = [\"*\"]\n\
         [store]\n{store}encrypt_key = \"an encryption key of thirty-two bytes\"\n\
         grace = \"5m\"\nversion = \"v1\"\ntimeout = \"250ms\"\n"
    )
}

async fn api() -> ScriptedOrigin {
    let large = "x1y2z3-".repeat(200_000);
    ScriptedOrigin::start(move |request: &OriginRequest| match &*request.target {
        "/version" => OriginResponse::ok(format!("{{\"loaded\":{}}}", request.before)),
        "/me/refused" => OriginResponse::status(401, "no"),
        "/large" => {
            OriginResponse::fresh(large.clone()).with("cache-control", "max-age=60, no-transform")
        }
        "/varies" => OriginResponse::fresh("a").with("vary", "accept-language"),
        target if target.starts_with("/items") => {
            OriginResponse::fresh("{\"items\":[{\"id\":1},{\"id\":2}]}")
                .with("content-type", "application/json")
        }
        target => OriginResponse::fresh(format!("{target} {}", request.before)),
    })
    .await
}

async fn call(fleet: &Fleet, node: usize, path: &str, body: &str) -> Reply {
    let call = request_with_body("POST", path, &[TOKEN], body);
    Wire::connect(fleet.nodes[node].admin).await.exchange(call).await
}

/// Exercises every feature based on Redis.
async fn do_everything(fleet: &mut Fleet) {
    let ada = bearer("ada", "read");
    let token = [("authorization", &*ada)];
    for node in 0..fleet.nodes.len() {
        for target in ["/a", "/large", "/short/a", "/items/1", "/b"] {
            assert_eq!(fleet.get(node, target).await.status(), 200, "{target}");
        }
        for language in ["de", "en"] {
            fleet.send(node, ("GET", "/varies"), &[("accept-language", language)]).await;
        }
        for target in ["/me/a", "/me/b", "/me/refused"] {
            fleet.send(node, ("GET", target), &token).await;
        }
        fleet.send(node, ("GET", "/_larder/version"), &[]).await;
    }
    let waits = [("authorization", &*ada), ("x-larder-warm", "wait")];
    assert_eq!(fleet.send(0, ("POST", "/login"), &waits).await.status(), 200);
    assert_eq!(fleet.send(1, ("PUT", "/items/1"), &[]).await.status(), 200);
    fleet.purge(0, "{\"tags\":[\"all\"],\"mode\":\"soft\",\"warm\":true}").await;
    fleet.purge(1, "{\"urls\":[\"/b\"]}").await;
    let explained = call(fleet, 0, "/v1/explain", "{\"url\":\"http://api.test/a\"}").await;
    assert_eq!(explained.status(), 200, "{explained:?}");
    for delivery in ["one", "one", "two"] {
        let fields = [("authorization", "Bearer hook"), ("x-delivery", delivery)];
        let hook = request_with_body("POST", "/_larder/webhooks/shop", &fields, "{\"id\":7}");
        let reply = Wire::connect(fleet.addresses()[1]).await.exchange(hook).await;
        assert_eq!(reply.status(), 200, "{reply:?}");
    }
    assert_eq!(fleet.send(0, ("POST", "/logout"), &token).await.status(), 200);
    let listed = request("GET", "/v1/purges", &[TOKEN]);
    assert_eq!(Wire::connect(fleet.nodes[0].admin).await.exchange(listed).await.status(), 200);
    while fleet.total("larder_polls_total", "").await == 0 {
        short_sleep().await;
    }
    // A node of another version uses the stored responses; its predecessor signs off.
    fleet.rewrite("version = \"v1\"", "version = \"v2\"");
    fleet.nodes[1].signal("TERM");
    fleet.nodes[1].ended().await;
    fleet.replace(1).await;
    while !fleet.uses_redis(1).await {
        short_sleep().await;
    }
    fleet.get(1, "/a").await;
}

/// Checks that the other node serves a response stored by one node.
async fn is_shared(fleet: &Fleet, origin: &ScriptedOrigin) {
    for number in 0.. {
        let target = format!("/shared/{number}");
        fleet.get(0, &target).await;
        fleet.get(1, &target).await;
        if origin.received().iter().filter(|request| request.target == target).count() == 1 {
            return;
        }
        short_sleep().await;
    }
}

async fn until_used(fleet: &Fleet) {
    for node in 0..fleet.nodes.len() {
        while !fleet.uses_redis(node).await {
            short_sleep().await;
        }
    }
}

#[tokio::test]
async fn the_documented_user_may_do_all_that_larder_does() {
    within_seconds(90, async {
        let (redis, origin) = (Redis::start().await, api().await);
        admit(&redis, &rules(REDIS, "for all that Larder does", "limited")).await;
        let url = redis.url().replace("redis://", "redis://limited:secret@").replace("/0", "/3");
        let store = format!("redis = \"{url}\"\n");
        let mut fleet = Fleet::start(2, &origin.url(), &everything(&origin.url(), &store)).await;
        until_used(&fleet).await;
        is_shared(&fleet, &origin).await;
        do_everything(&mut fleet).await;
        let strange = "18446744073709551615-0";
        let mut connection = redis.connect().await.unwrap();
        connection.command(&["SELECT", "3"]).await.unwrap();
        let added = connection.command(&["XADD", "larder:log", strange, "hello", "there"]).await;
        assert!(!added.unwrap().is_error());
        while fleet.total("larder_purge_floor_rises_total", "").await == 0 {
            short_sleep().await;
        }
        nothing_was_refused(&redis).await;
    })
    .await;
}

#[tokio::test]
async fn the_documented_user_of_a_cluster_may_do_all_that_larder_does() {
    within_seconds(120, async {
        let (cluster, origin) = (Cluster::start(3, 0).await, api().await);
        let line = rules(REDIS, "For a cluster", "limited");
        for server in &cluster.servers {
            admit(server, &line).await;
        }
        let url = cluster.url().replace("://", "://limited:secret@");
        let store = format!("redis = \"{url}\"\n");
        let mut fleet = Fleet::start(2, &origin.url(), &everything(&origin.url(), &store)).await;
        until_used(&fleet).await;
        is_shared(&fleet, &origin).await;
        do_everything(&mut fleet).await;
        for server in &cluster.servers {
            nothing_was_refused(server).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_documented_users_of_sentinels_and_their_servers_may_do_all_that_larder_does() {
    within_seconds(90, async {
        let (redis, origin) = (Redis::start().await, api().await);
        admit(&redis, &rules(REDIS, "Behind sentinels", "limited")).await;
        let sentinel = Sentinel::of(&redis, 1, "").await;
        let line = rules(REDIS, "for the sentinels themselves, if", "watcher");
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        assert_eq!(sentinel.command(&line).await.text(), "OK");
        let url = format!(
            "redis-sentinel://limited:secret@127.0.0.1:{}?service=primary\
             &sentinel_username=watcher&sentinel_password=secret",
            sentinel.port
        );
        let store = format!("redis = \"{url}\"\n");
        let mut fleet = Fleet::start(2, &origin.url(), &everything(&origin.url(), &store)).await;
        until_used(&fleet).await;
        is_shared(&fleet, &origin).await;
        do_everything(&mut fleet).await;
        nothing_was_refused(&redis).await;
        assert_eq!(sentinel.command(&["ACL", "LOG"]).await.members(), []);
    })
    .await;
}

#[tokio::test]
async fn sentinels_have_passwords_of_their_own() {
    within_seconds(60, async {
        let redis = Redis::start().await;
        let (of_servers, of_sentinels) = ("se \"cret\"", "an'other \\ one");
        redis
            .run(&["ACL", "SETUSER", "u", "on", &format!(">{of_servers}"), "~*", "&*", "+@all"])
            .await;
        let sentinel = Sentinel::of(&redis, 1, "").await;
        let user = ["ACL", "SETUSER", "w", "on", &format!(">{of_sentinels}"), "+@all"];
        assert_eq!(sentinel.command(&user).await.text(), "OK");
        assert!(sentinel.command(&["ACL", "SETUSER", "default", "off"]).await.text() == "OK");
        let url = |password: &str| {
            format!(
                "redis-sentinel://u:{}@127.0.0.1:{}?service=primary\
                 &sentinel_username=w&sentinel_password={}",
                encoded(of_servers),
                sentinel.port,
                encoded(password)
            )
        };
        LogNode::start(&url(of_sentinels)).await.purge("a").await;
        let wire = Wire::connect((Ipv4Addr::LOCALHOST, sentinel.port).into()).await;
        let mut watcher = Resp::over(wire);
        assert_eq!(watcher.command(&["AUTH", "w", of_sentinels]).await.unwrap().text(), "OK");
        assert_eq!(watcher.command(&["ACL", "LOG", "RESET"]).await.unwrap().text(), "OK");
        let stranger = LogNode::of(&Settings::parse(&url("wrong")).unwrap());
        while watcher.command(&["ACL", "LOG"]).await.unwrap().members().is_empty() {
            short_sleep().await;
        }
        assert_eq!(stranger.fence().seq, 0, "it was not let in");
    })
    .await;
}

#[tokio::test]
async fn a_cluster_has_a_password() {
    within(async {
        let password = "two \"words\"\\";
        let cluster = Cluster::start(3, 0).await;
        for server in &cluster.servers {
            let secret = format!(">{password}");
            server.run(&["ACL", "SETUSER", "u", "on", &secret, "~*", "&*", "+@all"]).await;
        }
        let who = format!("://u:{}@", encoded(password));
        let node = LogNode::start(&cluster.url().replace("://", &who)).await;
        node.purge("a").await;
    })
    .await;
}

#[test]
fn every_acl_line_of_the_documents_is_run_by_a_test() {
    let lines = |text: &str| text.matches("ACL SETUSER").count();
    // The four above, and that of `purge_log::the_log_needs_no_more_than_what_is_documented`.
    assert_eq!((lines(REDIS), lines(PURGE_LOG)), (4, 1));
}
