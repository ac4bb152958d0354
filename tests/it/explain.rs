//! `explain`: what it says of a request is what the proxy then does with it.

mod situations;

use larder::testing::{
    app::Explainer,
    config::{Config, Environment},
    pipeline::explain::{ExplainRequest, ExplainRequestResponse},
};
use serde_json::Value;

use crate::support::{
    proxy::{Proxy, request_with_body},
    script::{OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within, within_seconds,
};
use situations::{SITUATIONS, Situation, Step};

const CANARY: &str = "c4n4ry5ecret";

fn explain_request(situation: &Situation) -> ExplainRequest {
    let line = |(name, value): &(&str, &str)| format!("{name}: {value}");
    let response = &situation.response;
    ExplainRequest {
        method: situation.method.to_owned(),
        url: format!("http://api.test{}", situation.target),
        headers: situation.fields.iter().map(line).collect(),
        body: None,
        from: Some([127, 0, 0, 1].into()),
        response: Some(ExplainRequestResponse {
            status: response.status,
            headers: response.fields.iter().map(line).collect(),
            body: Some(response.body.to_owned()),
        }),
    }
}

/// The explanation by the configuration alone, as text and as data.
fn offline(situation: &Situation) -> (String, Value) {
    let file = format!("origin = \"http://origin.test\"\n{}\n", situation.toml);
    let config = Config::parse(&file, "proxy.toml", Environment::empty());
    let config = config.unwrap_or_else(|error| panic!("{}: {error}", situation.name));
    let explanation =
        Explainer::new(&config).unwrap().explain(&explain_request(situation)).unwrap();
    (explanation.to_string(), serde_json::to_value(&explanation).unwrap())
}

async fn explain(proxy: &Proxy, asked: &ExplainRequest, accept: &str) -> Reply {
    let body = serde_json::to_string(asked).unwrap();
    let mut wire = Wire::connect(proxy.admin_address()).await;
    wire.exchange(request_with_body(
        "POST",
        "/v1/explain",
        &[("host", "localhost"), ("accept", accept)],
        &body,
    ))
    .await
}

/// The explanation of a running node.
async fn live(proxy: &Proxy, situation: &Situation) -> (String, Value) {
    let asked = explain_request(situation);
    let text = explain(proxy, &asked, "text/plain").await;
    assert_eq!(text.status(), 200, "{}: {}", situation.name, text.body);
    let data = explain(proxy, &asked, "application/json").await;
    (text.body, serde_json::from_str(&data.body).unwrap())
}

fn scripted_response(situation: &Situation) -> OriginResponse {
    let response = &situation.response;
    let said = OriginResponse::status(response.status, response.body);
    response.fields.iter().fold(said, |said, (name, value)| said.with(name, value))
}

/// Brings a proxy into the state in which the request comes. Returns how many requests that took.
async fn prepare(proxy: &Proxy, situation: &Situation) -> usize {
    let mut requests = 0;
    for step in situation.before {
        match step {
            Step::Get(fields) => {
                proxy.get_with(situation.target, fields).await;
                requests += 1;
            }
            Step::Wait(seconds) => proxy.advance(*seconds),
            Step::Purge(mode) => {
                let soft = [("fastly-soft-purge", "1")];
                let fields = if *mode == "soft" { &soft[..] } else { &[] };
                assert_eq!(proxy.send("PURGE", situation.target, fields).await.status(), 200);
            }
        }
    }
    requests
}

/// The parameters of `Cache-Status` that a test looks at.
fn parameter<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let status = reply.header("cache-status")?;
    let mut parameters = status.split("; ");
    parameters.find_map(|parameter| match parameter.split_once('=') {
        Some((known, value)) => (known == name).then_some(value),
        None => (parameter == name).then_some(""),
    })
}

/// Text that is the same on every run.
fn steady(text: &str) -> String {
    let lines = text.lines().map(|line| {
        if let Some((_, rest)) = line.split_once(" by method") {
            return format!("  at  TIME by method{rest}");
        }
        match line.rsplit_once(' ') {
            Some((before, id)) if line.starts_with("  id ") && id.len() == 32 => {
                format!("{before} ID")
            }
            _ => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

async fn agrees(situation: &Situation) {
    let name = situation.name;
    // The first response is of another length than those that follow: a body tells which came.
    let scripted = scripted_response(situation);
    let first = OriginResponse::fresh("stored before");
    let has_before = !situation.before.is_empty();
    let origin = ScriptedOrigin::start(move |asked| {
        if asked.before == 0 && has_before { first.clone() } else { scripted.clone() }
    })
    .await;
    let toml = format!("admin.purge_from = [\"127.0.0.1\"]\n{}", situation.toml);
    let proxy = Proxy::with(&origin.url(), &toml);
    let requests = prepare(&proxy, situation).await;
    let counted = proxy.metric("larder_requests_total", "").await;
    let fetched = origin.requests();
    let (text, explained) = live(&proxy, situation).await;
    assert_eq!(origin.requests(), fetched, "{name}: explaining fetches nothing");
    assert_eq!(
        proxy.metric("larder_requests_total", "").await,
        counted,
        "{name}: nor is it counted"
    );

    let reply = proxy.send(situation.method, situation.target, situation.fields).await;
    let answer = &explained["answer"];
    assert_eq!(reply.cache(), answer["result"], "{name}\n{}\n{text}", reply.head);
    assert_eq!(
        parameter(&reply, "detail"),
        answer["reason"].as_str(),
        "{name}\n{}\n{text}",
        reply.head
    );
    let expected = &explained["response"];
    let is_answered_by_origin = parameter(&reply, "fwd").is_some();
    let is_stored = is_answered_by_origin && expected["stored"] == true;
    assert_eq!(parameter(&reply, "stored").is_some(), is_stored, "{name}\n{}\n{text}", reply.head);
    let ttl = parameter(&reply, "ttl").map(|ttl| ttl.parse::<i64>().unwrap());
    let expected_ttl = if is_stored {
        expected["lifetime"]["fresh_for"].as_i64()
    } else {
        let stored = &explained["stored"];
        let is_stored = matches!(reply.cache(), "HIT" | "STALE");
        let stale = || stored["stale_for"].as_i64().map(|stale| -stale);
        stored["fresh_for"].as_i64().or_else(stale).filter(|_| is_stored)
    };
    assert_eq!(ttl, expected_ttl, "{name}\n{}\n{text}", reply.head);
    // Beside them stand those that Larder has answered itself: purges.
    let mut log = proxy.log(requests + 1).await;
    while log.iter().filter(|line| line["route"] != "larder").count() <= requests {
        log = proxy.log(log.len() + 1).await;
    }
    let last = log.iter().rfind(|line| line["route"] != "larder").unwrap();
    assert_eq!(last["route"], explained["route"]["name"], "{name}");
    if let Some(cache_control) = expected["cache_control"].as_str().filter(|_| is_stored) {
        assert_eq!(reply.header("cache-control"), Some(cache_control), "{name}");
    }

    let text = if has_before { text } else { offline_agrees(situation, &explained) };
    assert!(!text.contains(CANARY), "{name}\n{text}");
    let settings = insta::Settings::clone_current();
    settings.bind(|| insta::assert_snapshot!(name, steady(&text)));
}

/// Without a node the same is said, but for what is stored.
fn offline_agrees(situation: &Situation, live: &Value) -> String {
    let (text, explained) = offline(situation);
    for part in
        ["route", "removed", "credentials", "key", "decisions", "outcome", "response", "answer"]
    {
        assert_eq!(explained[part], live[part], "{}: {part}", situation.name);
    }
    assert!(!explained.to_string().contains(CANARY), "{}", situation.name);
    text
}

#[tokio::test]
async fn what_is_explained_is_what_the_proxy_does() {
    within_seconds(120, async {
        assert!(SITUATIONS.len() >= 25);
        let mut failed = Vec::new();
        for situation in SITUATIONS {
            if tokio::spawn(agrees(situation)).await.is_err() {
                failed.push(situation.name);
            }
        }
        assert_eq!(failed, [""; 0], "see above");
    })
    .await;
}

#[test]
fn decisions_are_explained_in_the_order_in_which_they_are_made() {
    let config = r#"
        origin = "http://o.test"
        hosts = ["api.test"]
        [[route]]
        name = "item"
        match = "/items/{item}"
        bypass = { header = "x-bypass" }
        [[route]]
        name = "part"
        match = "/items/{item}/{part}"
    "#;
    let config = Config::parse(config, "proxy.toml", Environment::empty()).unwrap();
    let explainer = Explainer::new(&config).unwrap();
    // What stands in the way of a lookup, in order.
    let obstacles = [
        ("host: other.test", "misdirected"),
        ("method", "method-not-cacheable"),
        ("upgrade: websocket", "upgrade"),
        ("x-http-method-override: PUT", "ambiguous-target"),
        ("if-match: *", "precondition"),
        ("x-bypass: 1", "rule-bypass"),
        ("path", "ambiguous-target"),
        ("cookie: a=1; a=2", "ambiguous-cookie"),
    ];
    let mut questions = 0;
    for place in 0..obstacles.len() {
        let left = &obstacles[place..];
        let has = |name: &str| left.iter().any(|(obstacle, _)| *obstacle == name);
        let mut headers: Vec<String> = vec!["connection: upgrade".to_owned()];
        headers.extend(left.iter().filter(|it| it.0.contains(':')).map(|it| it.0.to_owned()));
        let asked = ExplainRequest {
            method: if has("method") { "POST" } else { "GET" }.to_owned(),
            url: format!("http://api.test/items/{}", if has("path") { "a%2Fb" } else { "a" }),
            headers,
            body: None,
            from: None,
            response: None,
        };
        let found = explainer.explain(&asked).unwrap();
        let last = found.decisions.last().unwrap();
        assert_eq!(last.reason, Some(left[0].1), "{found}");
        assert!(found.decisions.len() > questions, "each is decided after those before it");
        questions = found.decisions.len();
    }
}

#[tokio::test]
async fn a_credential_is_in_no_explanation() {
    let fields = [
        ("authorization", "Bearer {}"),
        ("proxy-authorization", "Basic {}"),
        ("x-api-key", "{}"),
        ("x-tenant-id", "{}"),
        ("x-forwarded-user", "{}"),
        ("x-forwarded-access-token", "{}"),
        ("cookie", "sessionid={}; unknown={}; theme={}; {}; _ga={}"),
        ("cookie", "{}"),
        ("cookie", "a=\"b; c={}; d\""),
        ("x-http-method-override", "{}"),
        ("x-original-url", "/?token={}"),
        ("forwarded", "for=1.1.1.1;host={}"),
        ("x_forwarded_user", "{}"),
        ("if-match", "\"{}\""),
        ("referer", "https://a.test/?token={}"),
    ];
    let targets =
        ["/a?access_token={}&sig={}&b=1", "/a?api_key={};x={}", "/a?TOKEN=%20{}", "/b?key={}"];
    for target in targets {
        for some in (0..fields.len()).map(|place| &fields[place..=place]).chain([&fields[..]]) {
            for trusted in ["[]", "[\"127.0.0.1\"]"] {
                let toml = format!(
                    "trusted_proxies = {trusted}\norigin = \"http://o.test\"\n[defaults]\nvary = {{ headers = [\"x-tenant-id\"] }}\n[[route]]\nname = \"a\"\nmatch = \"/a\"\nttl = \"1m\"\nquery = {{ ignore = [\"b\"], forward = \"all\" }}\n"
                );
                let config = Config::parse(&toml, "proxy.toml", Environment::empty()).unwrap();
                let asked = ExplainRequest {
                    method: "GET".to_owned(),
                    url: format!("http://api.test{target}").replace("{}", CANARY),
                    headers: some
                        .iter()
                        .map(|(name, value)| format!("{name}: {value}").replace("{}", CANARY))
                        .collect(),
                    body: None,
                    from: Some([127, 0, 0, 1].into()),
                    response: Some(ExplainRequestResponse {
                        status: 200,
                        headers: vec![
                            format!("set-cookie: a={CANARY}"),
                            "cache-control: public, max-age=60".to_owned(),
                            format!("location: /?token={CANARY}"),
                        ],
                        body: Some(CANARY.to_owned()),
                    }),
                };
                let explained = Explainer::new(&config).unwrap().explain(&asked).unwrap();
                let said = format!("{explained}{}", serde_json::to_string(&explained).unwrap());
                assert!(!said.contains(CANARY), "{target} {some:?}\n{explained}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_without_repeating_it() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a")).await;
        let proxy = Proxy::before(&origin.url());
        for body in [
            format!("{{\"url\": \"/\", \"no_such_key\": \"{CANARY}\"}}"),
            format!("{{\"url\": \"/\", \"headers\": [\"{CANARY}\"]}}"),
            format!("{{\"url\": \"https://user:{CANARY}@api.test/\"}}"),
            "{".to_owned(),
        ] {
            let mut wire = Wire::connect(proxy.admin_address()).await;
            let reply = wire
                .exchange(request_with_body("POST", "/v1/explain", &[("host", "localhost")], &body))
                .await;
            assert_eq!(reply.status(), 400, "{}", reply.body);
            assert!(!reply.body.contains(CANARY), "{}", reply.body);
        }
    })
    .await;
}
