//! Where forms are kept: once for each stored response, within the memory, and until a purge.

use futures_util::future::join_all;

use super::{BROWSER, ROUTE, encodable, get, json, made, origin_of, send, until_coded};
use crate::support::{
    proxy::Proxy,
    redis::Redis,
    script::{OriginResponse, ScriptedOrigin},
    within,
};

#[tokio::test]
async fn many_that_ask_at_once_share_one_encoding() {
    within(async {
        let body = json(300_000);
        let origin = origin_of(encodable(&*body)).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let replies = join_all((0..50).map(|_| get(&proxy, "/a", &[BROWSER]))).await;
        for reply in replies {
            assert!(["200 HIT br", "200 HIT -"].contains(&&*reply.summary()));
            assert!(reply.decoded() == body);
        }
        assert!(until_coded(&proxy, "/a", "br").await.decoded() == body);
        assert_eq!((made(&proxy).await, origin.requests()), (1, 1));
    })
    .await;
}

#[test]
fn a_response_that_is_replaced_while_it_waits_is_not_encoded() {
    // Encoders get no thread while the only one is in use.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(within(async {
        let origin = ScriptedOrigin::start(|request| match &*request.method {
            "PUT" => OriginResponse::status(204, ""),
            _ => encodable(format!("{}{}", json(40_000), request.before)),
        })
        .await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        let (open, closed) = std::sync::mpsc::channel::<()>();
        let gate = tokio::task::spawn_blocking(move || closed.recv());
        for path in ["/first", "/a"] {
            get(&proxy, path, &[]).await;
            assert_eq!(get(&proxy, path, &[BROWSER]).await.summary(), "200 HIT -");
        }
        send(&proxy, "PUT", "/a", &[]).await;
        assert_eq!(get(&proxy, "/a", &[]).await.cache(), "MISS");
        drop(open);
        assert!(gate.await.unwrap().is_err());
        until_coded(&proxy, "/a", "br").await;
        until_coded(&proxy, "/first", "br").await;
        assert_eq!(made(&proxy).await, 2);
    }));
}

#[tokio::test]
async fn a_purge_and_a_new_version_end_the_forms() {
    within(async {
        let origin =
            ScriptedOrigin::start(|request| encodable(format!("{}{}", json(4096), request.before)))
                .await;
        let file = format!("admin.purge_from = [\"127.0.0.1\"]\n{ROUTE}");
        let proxy = Proxy::with(&origin.url(), &file);
        get(&proxy, "/a", &[]).await;
        let first = get(&proxy, "/a", &[BROWSER]).await;
        assert_eq!(proxy.send("PURGE", "/a", &[]).await.status(), 200);
        let miss = get(&proxy, "/a", &[BROWSER]).await;
        assert_eq!(miss.summary(), "200 MISS -");
        let second = get(&proxy, "/a", &[BROWSER]).await;
        assert!(second.decoded() == miss.decoded());
        assert_ne!((second.etag(), &second.bytes), (first.etag(), &first.bytes));
    })
    .await;
}

#[tokio::test]
async fn forms_count_for_the_memory() {
    within(async {
        let origin = origin_of(encodable(json(60_000))).await;
        let proxy = Proxy::with(&origin.url(), ROUTE);
        get(&proxy, "/a", &[]).await;
        let memory = async || proxy.metric("larder_store_bytes", "tier=\"memory\"").await;
        let before = memory().await;
        let mut bytes = 0;
        for coding in ["br", "zstd", "gzip"] {
            bytes += until_coded(&proxy, "/a", coding).await.bytes.len() as u64;
        }
        let more = memory().await - before;
        assert!((bytes..bytes + bytes / 5 + 1000).contains(&more), "{more} for {bytes}");
    })
    .await;
}

#[tokio::test]
async fn a_form_for_which_there_is_no_room_is_made_once_and_not_kept() {
    within(async {
        let body = json(64_000);
        let origin = origin_of(encodable(&*body)).await;
        // There is room for the response, but not for a form beside it.
        let proxy = Proxy::with(&origin.url(), &format!("store.max_object = \"67000B\"\n{ROUTE}"));
        get(&proxy, "/a", &[]).await;
        for _ in 0..20 {
            let hit = get(&proxy, "/a", &[BROWSER]).await;
            assert!(hit.cache() == "HIT" && hit.decoded() == body);
        }
        assert_eq!(made(&proxy).await, 1);
        assert_eq!(get(&proxy, "/a", &[BROWSER]).await.coding(), "-");
    })
    .await;
}

#[tokio::test]
async fn each_node_makes_the_forms_of_what_redis_has() {
    within(async {
        let body = json(4096);
        let origin = origin_of(encodable(&*body)).await;
        let redis = Redis::start().await;
        let file = format!("[store]\n{}\n{ROUTE}", redis.store());
        let fleet = [Proxy::with(&origin.url(), &file), Proxy::with(&origin.url(), &file)];
        get(&fleet[0], "/a", &[]).await;
        let mut tags = Vec::new();
        for node in &fleet {
            loop {
                let reply = get(node, "/a", &[BROWSER]).await;
                if reply.summary() == "200 HIT br" {
                    assert!(reply.decoded() == body);
                    tags.push(reply.etag().to_owned());
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(tags[0], tags[1], "the same encoder makes the same bytes");
        assert_eq!(origin.requests(), 1);
    })
    .await;
}

#[tokio::test]
async fn without_memory_responses_are_sent_as_they_are_stored() {
    within(async {
        let origin = origin_of(encodable(json(4096))).await;
        let redis = Redis::start().await;
        let file = format!("[store]\n{}\nmemory = \"0\"\n{ROUTE}", redis.store());
        let proxy = Proxy::with(&origin.url(), &file);
        get(&proxy, "/a", &[BROWSER]).await;
        loop {
            let reply = get(&proxy, "/a", &[BROWSER]).await;
            assert_eq!(reply.coding(), "-");
            if reply.cache() == "HIT" {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(proxy.metric("larder_encodings_total", "").await, 0);
    })
    .await;
}
