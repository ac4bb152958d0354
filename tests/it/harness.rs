//! The harness does what the tests believe it does: Redis servers, fleets, load.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use crate::support::{
    fleet::Fleet,
    gate::Gate,
    load::{Load, LoadFailure, LoadReport, LoadResponse, RequestNumber, Sample},
    redis::{Redis, RedisAuth, Transport, WriteRefusal},
    resp::{Resp, Value},
    script::{OriginResponse, ScriptedOrigin},
    wire::RawOrigin,
    within,
};

/// How long to wait for what does not come, and for what does.
const SHORT_WAIT: Duration = Duration::from_millis(300);
const AGE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn redis_can_be_reached_in_each_way_by_those_who_may() {
    within(async {
        for reach in [Transport::Tcp, Transport::Tls, Transport::Unix] {
            for access in [RedisAuth::Anyone, RedisAuth::Password, RedisAuth::User] {
                let redis = Redis::with(reach, access).await;
                assert_eq!(redis.command(&["SET", "a", "b"]).await.text(), "OK", "{reach:?}");
                assert_eq!(redis.command(&["GET", "a"]).await, Value::Bulk(b"b".to_vec()));
                let mut stranger = Resp::over(redis.wire().await.unwrap());
                let refused = stranger.command(&["GET", "a"]).await.unwrap().is_error();
                assert_eq!(refused, access != RedisAuth::Anyone, "{reach:?} {access:?}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_url_of_redis_says_how_it_is_reached() {
    within(async {
        let plain = Redis::start().await;
        assert!(plain.store().starts_with("redis = \"redis://127.0.0.1:"), "{}", plain.store());
        let tls = Redis::with(Transport::Tls, RedisAuth::Password).await;
        assert!(tls.url().starts_with("rediss://:p%40ss%3Aw%2Frd%251@localhost:"), "{}", tls.url());
        assert!(tls.store().contains("\ntls = { ca = \"/"), "{}", tls.store());
        let unix = Redis::with(Transport::Unix, RedisAuth::User).await;
        assert!(unix.url().starts_with("redis+unix://larder:p%40ss"), "{}", unix.url());
        assert!(unix.url().ends_with("/redis.sock"), "{}", unix.url());
    })
    .await;
}

#[tokio::test]
async fn redis_replies_with_every_kind_of_value() {
    within(async {
        let redis = Redis::start().await;
        let script = "return {1, 'a', false, {2}, redis.status_reply('fine')}";
        let reply = redis.command(&["EVAL", script, "0"]).await;
        assert_eq!(
            reply.members(),
            [
                Value::Integer(1),
                Value::Bulk(b"a".to_vec()),
                Value::Null,
                Value::Array(vec![Value::Integer(2)]),
                Value::Simple("fine".to_owned())
            ]
        );
        assert!(redis.command(&["NO", "SUCH"]).await.is_error());
        let mut connection = redis.connect().await.unwrap();
        let bytes: Vec<u8> = (0..=255).collect();
        connection.command(&[b"SET".as_slice(), b"bytes", &bytes]).await.unwrap();
        assert_eq!(connection.command(&["GET", "bytes"]).await, Some(Value::Bulk(bytes)));
    })
    .await;
}

#[tokio::test]
async fn a_killed_redis_is_gone_and_comes_back_empty_at_the_same_place() {
    within(async {
        for reach in [Transport::Tcp, Transport::Unix] {
            let redis = Redis::with(reach, RedisAuth::Anyone).await;
            let (url, run) = (redis.url(), redis.info("server", "run_id").await);
            let mut connection = redis.connect().await.unwrap();
            redis.command(&["SET", "a", "b"]).await;
            assert_eq!((redis.dbsize().await, redis.keys("*").await), (1, vec!["a".to_owned()]));
            redis.kill();
            assert_eq!(connection.command(&["PING"]).await, None);
            assert!(redis.connect().await.is_none() && !redis.answers(SHORT_WAIT).await);
            redis.restart().await;
            assert!(redis.answers(AGE).await);
            assert_eq!((redis.dbsize().await, redis.url()), (0, url));
            assert_ne!(redis.info("server", "run_id").await, run);
            redis.restart().await;
            assert!(redis.log().contains("eady to accept connections"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_stopped_redis_takes_connections_and_says_nothing() {
    within(async {
        let redis = Redis::start().await;
        redis.command(&["SET", "a", "b"]).await;
        redis.stop().await;
        assert!(redis.connect().await.is_some());
        assert!(!redis.answers(SHORT_WAIT).await);
        redis.cont();
        assert_eq!(redis.command(&["GET", "a"]).await.text(), "b");
        redis.stop().await;
        redis.restart().await;
        assert_eq!(redis.dbsize().await, 0);
        redis.stop().await;
    })
    .await;
}

#[tokio::test]
async fn redis_refuses_writes_until_it_accepts_them() {
    within(async {
        let redis = Redis::start().await;
        redis.command(&["SET", "a", "b"]).await;
        for (refusal, code) in
            [(WriteRefusal::Memory, "OOM "), (WriteRefusal::Replica, "READONLY ")]
        {
            redis.refuse_writes(refusal).await;
            for write in [&["SET", "c", "d"][..], &["XADD", "log", "*", "e", "f"]] {
                let reply = redis.command(write).await.text();
                assert!(reply.starts_with(code), "{refusal:?}: {reply}");
            }
            assert_eq!(redis.command(&["GET", "a"]).await.text(), "b");
            redis.accept_writes().await;
            assert_eq!(redis.command(&["SET", "c", "d"]).await.text(), "OK");
        }
        redis.flush().await;
        assert_eq!(redis.dbsize().await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_loading_redis_says_so_and_has_everything_afterwards() {
    within(async {
        let redis = Redis::start().await;
        redis.command(&["SET", "a", "b"]).await;
        let loading = redis.load(Duration::from_millis(500)).await;
        assert!(redis.command(&["GET", "a"]).await.text().starts_with("LOADING "));
        assert!(redis.answers(AGE).await);
        loading.await.unwrap();
        assert_eq!(redis.command(&["GET", "a"]).await.text(), "b");
    })
    .await;
}

#[tokio::test]
async fn redis_servers_share_nothing() {
    within(async {
        let (one, other) = (Redis::start().await, Redis::start().await);
        assert_ne!(one.url(), other.url());
        one.command(&["SET", "a", "b"]).await;
        assert_eq!((one.dbsize().await, other.dbsize().await), (1, 0));
        let address = one.url();
        drop(one);
        let port = address.rsplit_once(':').unwrap().1.split_once('/').unwrap().0;
        let there = std::net::TcpStream::connect(("127.0.0.1", port.parse().unwrap()));
        assert!(there.is_err(), "it is killed when dropped");
    })
    .await;
}

#[tokio::test]
async fn the_nodes_of_a_fleet_stand_before_one_origin_and_can_be_killed() {
    within(async {
        let origin = ScriptedOrigin::start(|request| OriginResponse::fresh(&request.target)).await;
        let mut fleet = Fleet::start(3, &origin.url(), "").await;
        let addresses: BTreeSet<_> = fleet.addresses().into_iter().collect();
        assert_eq!(addresses.len(), 3);
        for node in 0..3 {
            assert_eq!(fleet.get(node, "/a").await.body, "/a");
            assert_eq!(fleet.get(node, "/a").await.cache(), "HIT");
            assert_eq!(fleet.metric(node, "larder_requests_total", "").await, 2);
            assert!((1 << 20..1 << 30).contains(&fleet.nodes[node].memory()));
        }
        fleet.kill(1);
        let asked = Load::over(&fleet.addresses()).clients(3).each(1).await;
        let failed: Vec<usize> = asked.failures().iter().map(|sample| sample.node).collect();
        assert_eq!(failed, [1]);
        fleet.replace(1).await;
        assert_eq!(fleet.get(1, "/b").await.summary(), "200 MISS /b");
    })
    .await;
}

#[tokio::test]
async fn a_load_asks_each_node_alike_and_tells_what_came() {
    within(async {
        let origin = ScriptedOrigin::start(|request| match request.target.as_str() {
            "/3/4" => OriginResponse::status(404, "gone").with("x-api-cache", "MISS"),
            _ => OriginResponse::ok(&request.target).with("x-api-cache", "HIT"),
        })
        .await;
        let target = |turn: RequestNumber| format!("/{}/{}", turn.client, turn.before);
        let outcome = Load::over(&[origin.address(), origin.address()])
            .clients(5)
            .asking(target)
            .each(6)
            .await;
        assert_eq!((outcome.samples.len(), origin.requests()), (30, 30));
        let of_first = outcome.samples.iter().filter(|sample| sample.node == 0).count();
        assert_eq!(of_first, 3 * 6);
        let failures = outcome.failures();
        assert_eq!((failures.len(), failures[0].target.as_str()), (1, "/3/4"));
        assert_eq!(failures[0].answer.as_ref().map(|answer| answer.status), Ok(404));
        let words: Vec<_> = outcome.cache().into_iter().collect();
        assert_eq!(words, [("HIT", 29), ("MISS", 1)]);
        let answered = outcome.samples.iter().filter_map(|sample| sample.answer.as_ref().ok());
        assert_eq!(answered.filter(|answer| answer.body.starts_with('/')).count(), 29);
        assert!(outcome.to_string().starts_with("30 requests, 1 failed, p50 "), "{outcome}");
    })
    .await;
}

#[tokio::test]
async fn a_load_begins_everywhere_at_once_and_keeps_its_connections() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |_| OriginResponse::ok("a").after(&held)).await;
        let load = tokio::spawn(Load::over(&[origin.address()]).clients(50).each(3));
        origin.wait_for_requests(50).await;
        gate.open();
        let outcome = load.await.unwrap();
        assert!(outcome.failures().is_empty(), "{outcome}");
        assert_eq!((outcome.samples.len(), origin.connections()), (150, 50));
    })
    .await;
}

#[tokio::test]
async fn a_steady_load_counts_latency_from_when_a_request_was_due() {
    within(async {
        let gate = Gate::closed();
        let held = gate.clone();
        let origin = ScriptedOrigin::start(move |request| match request.target.as_str() {
            "/0/20" => OriginResponse::ok("slow").after(&held),
            _ => OriginResponse::ok("quick"),
        })
        .await;
        let pause = Duration::from_millis(10);
        let target = |turn: RequestNumber| format!("/{}/{}", turn.client, turn.before);
        let load = Load::over(&[origin.address()]).clients(2).every(pause).asking(target).start();
        while !origin.received().iter().any(|request| request.target == "/0/20") {
            load.more(1).await;
        }
        assert!(load.open() >= 1);
        load.more(30).await;
        gate.open();
        load.more(60).await;
        let outcome = load.stop().await;
        assert!(outcome.failures().is_empty(), "{outcome}");
        let slow = outcome.samples.iter().filter(|sample| sample.latency > pause * 10);
        assert!(slow.count() >= 10, "those that were due meanwhile are slow too: {outcome}");
        let begin = outcome.samples.iter().map(|sample| sample.at).min().unwrap();
        let calm = outcome.between(begin, begin + pause * 10);
        assert!((19..=21).contains(&calm.samples.len()), "{calm}");
    })
    .await;
}

#[tokio::test]
async fn a_load_tells_how_a_request_failed_and_goes_on() {
    within(async {
        let origin = RawOrigin::start(|mut wire, number| async move {
            while let Some(head) = wire.try_read_head().await {
                let whole = number > 0 || head.starts_with("GET /0 ");
                let length = if whole { 1 } else { 2 };
                wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\na")).await;
                if !whole {
                    return;
                }
            }
        })
        .await;
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = nobody.local_addr().unwrap();
        drop(nobody);
        let target = |turn: RequestNumber| format!("/{}", turn.before);
        let broken = Load::over(&[origin.address]).asking(target).each(4).await;
        let answers: Vec<_> = broken.samples.iter().map(|each| each.answer.clone().err()).collect();
        assert_eq!(answers, [None, Some(LoadFailure::Broken), None, None]);
        let refused = Load::over(&[refusing]).each(2).await;
        assert!(refused.samples.iter().all(|each| each.answer == Err(LoadFailure::Refused)));
    })
    .await;
}

#[tokio::test]
async fn percentiles_are_of_the_nearest_rank() {
    let begin = Instant::now();
    let sample = |number: u64| Sample {
        at: begin,
        latency: Duration::from_millis(number),
        node: 0,
        target: String::new(),
        answer: Ok(LoadResponse { status: 200, cache: "HIT".to_owned(), body: String::new() }),
    };
    let outcome = LoadReport { samples: (1..=200).rev().map(sample).collect() };
    let found = [1, 50, 99, 100].map(|rank| outcome.percentile(rank).as_millis());
    assert_eq!(found, [2, 100, 198, 200]);
}
