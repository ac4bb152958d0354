//! `larder explain` names the coding in which a client then gets the response, or the reason.

use larder::testing::pipeline::explain::{ExplainRequest, ExplainRequestResponse};
use serde_json::Value;

use super::{BROWSER, ROUTE, encodable, get, json, origin_of};
use crate::support::{
    proxy::{Proxy, request_with_body},
    wire::Wire,
    within,
};

async fn explain(proxy: &Proxy, asked: &ExplainRequest) -> Value {
    let body = serde_json::to_string(asked).unwrap();
    let fields = [("host", "localhost"), ("accept", "application/json")];
    let mut wire = Wire::connect(proxy.admin_address()).await;
    let reply = wire.exchange(request_with_body("POST", "/v1/explain", &fields, &body)).await;
    serde_json::from_str(&reply.body).expect(&reply.body)
}

fn explain_request(headers: &[&str]) -> ExplainRequest {
    ExplainRequest {
        method: "GET".to_owned(),
        url: "http://api.test/a".to_owned(),
        headers: headers.iter().map(|line| (*line).to_owned()).collect(),
        body: None,
        from: None,
        response: None,
    }
}

#[tokio::test]
async fn the_coding_of_a_hit_is_explained() {
    within(async {
        let origin = origin_of(encodable(json(4096))).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[BROWSER]).await;
        for (fields, coding) in [
            (&[("accept-encoding", "br")][..], Some("br")),
            (&[("accept-encoding", "zstd, gzip")], Some("zstd")),
            (&[("accept-encoding", "deflate")], None),
            (&[("accept-encoding", "br"), ("cache-control", "no-transform")], None),
            (&[("accept-encoding", "br"), ("range", "bytes=0-1")], None),
            (&[], None),
        ] {
            let lines: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let explained = explain(&proxy, &explain_request(&lines)).await;
            let encoding = &explained["stored"]["encoding"];
            assert_eq!(encoding["coding"].as_str(), coding, "{fields:?}");
            assert!(encoding["means"].as_str().unwrap().ends_with('.'), "{encoding}");
            let hit = get(&proxy, "/a", fields).await;
            assert_eq!(hit.header("content-encoding"), coding, "{fields:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_coding_of_a_given_response_is_explained() {
    within(async {
        let origin = origin_of(encodable("x")).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        let (long, short) = (json(2000), "x".to_owned());
        for (fields, body, coding, means) in [
            (&["content-type: application/json"][..], &long, Some("br"), "content coding"),
            (&["content-type: application/json"], &short, None, "shorter than 1 KiB"),
            (&["content-type: image/png"], &long, None, "Content-Type"),
            (&["content-type: text/css", "content-digest: x=:AA==:"], &long, None, "digest"),
            (&["content-type: text/css", "content-encoding: br"], &long, None, "has encoded"),
            (&["content-type: text/css", "cache-control: no-transform"], &long, None, "forbids"),
        ] {
            let mut asked = explain_request(&["accept-encoding: gzip, br"]);
            asked.response = Some(ExplainRequestResponse {
                status: 200,
                headers: fields.iter().map(|line| (*line).to_owned()).collect(),
                body: Some(body.clone()),
            });
            let explained = explain(&proxy, &asked).await;
            let encoding = &explained["response"]["encoding"];
            assert_eq!(encoding["coding"].as_str(), coding, "{fields:?}");
            assert!(encoding["means"].as_str().unwrap().contains(means), "{encoding}");
        }
        proxy.reconfigure(&origin.url(), "");
        let explained = explain(&proxy, &explain_request(&["accept-encoding: br"])).await;
        assert!(!explained.to_string().contains("\"encoding\""), "{explained}");
    })
    .await;
}
