//! The end of a process: what is told to balancers, what may go on, and for how long.

use std::time::Duration;

use larder::testing::server::Settings;
use tokio::net::TcpStream;

use crate::{
    lifecycle::File,
    support::{
        frames::{End, Http2Wire},
        gate::Gate,
        proxy::request,
        script::{OriginResponse, ScriptedOrigin},
        serving::{FnHandler, TestServer, reply},
        wire::{RawOrigin, Wire},
        within,
    },
};

#[tokio::test]
async fn during_the_delay_readiness_fails_and_clients_are_served() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "[limits]\ndrain_delay = \"1500ms\"");
        let process = file.run().await;
        let mut kept = Wire::connect(process.address).await;
        let reply = kept.exchange(request("GET", "/a", &[])).await;
        assert_eq!((reply.status(), reply.header("connection")), (200, None));
        process.signal("TERM");
        while process.get_admin("/readyz").await.status() != 503 {}
        let reply = process.get("/a").await;
        assert_eq!((reply.status(), reply.header("connection")), (200, Some("close")));
        let reply = kept.exchange(request("GET", "/a", &[])).await;
        assert_eq!((reply.status(), reply.header("connection")), (200, Some("close")));
        assert_eq!(kept.read_to_end().await, "");
        assert!(process.ended().await.success());
        assert!(TcpStream::connect(process.address).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "[limits]\ndrain_delay = \"10m\"");
        let process = file.run().await;
        process.signal("TERM");
        process.wait_for_message("stopping").await;
        process.signal("TERM");
        assert!(process.ended().await.success());
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_goes_on_for_the_time_of_the_drain() {
    within(async {
        let origin = RawOrigin::start(|mut wire, _| async move {
            wire.read_head().await;
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\n\r\n";
            wire.write(switch).await;
            while let Some(bytes) = wire.try_read_exact_bytes(1).await {
                wire.write(bytes).await;
            }
        })
        .await;
        let file = File::new(&origin.url(), "");
        let process = file.run().await;
        let mut wire = Wire::connect(process.address).await;
        let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
        wire.write(request("GET", "/chat", &upgrade)).await;
        assert!(wire.read_head().await.starts_with("HTTP/1.1 101 "));
        process.signal("TERM");
        while TcpStream::connect(process.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        for byte in ["a", "b"] {
            wire.write(byte).await;
            assert_eq!(wire.read_exact(1).await, byte);
        }
        drop(wire);
        assert!(process.ended().await.success());
        assert!(!process.messages().contains("did not end in time"), "{}", process.messages());
    })
    .await;
}

#[tokio::test]
async fn an_http2_client_is_told_twice_which_streams_are_served() {
    within(async {
        let (gate, held) = (Gate::closed(), Gate::closed());
        let (open, asked) = (gate.clone(), held.clone());
        let handler = FnHandler(move |_, _| {
            let (open, asked) = (open.clone(), asked.clone());
            async move {
                asked.open();
                open.passed().await;
                reply(200, "a")
            }
        });
        let serving = TestServer::start(handler, Settings::default());
        let mut frames = Http2Wire::connect(serving.address).await;
        frames.request(1, "GET", End::Stream).await;
        held.passed().await;
        serving.drain.leave();
        assert_eq!(frames.next_go_away().await, Some((0x7fff_ffff, 0)));
        frames.request(3, "GET", End::Stream).await;
        let last = frames.next_go_away().await.unwrap();
        assert_eq!(last.1, 0);
        gate.open();
        let promised: Vec<u32> = (1..=last.0).step_by(2).collect();
        assert_eq!(frames.ended(promised.len()).await, Some(promised));
        assert!(TcpStream::connect(serving.address).await.is_ok(), "others are accepted");
        serving.drain.start();
        assert_eq!(serving.drain.finished(Duration::from_secs(5)).await, 0);
    })
    .await;
}

#[tokio::test]
async fn clients_that_have_connected_are_served_although_the_drain_begins() {
    within(async {
        let serving =
            TestServer::start(FnHandler(|_, _| async { reply(200, "a") }), Settings::default());
        let mut wires = Vec::new();
        for _ in 0..20 {
            let mut wire = Wire::new(std_connect(&serving));
            wire.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            wires.push(wire);
        }
        serving.drain.start();
        for mut wire in wires {
            assert_eq!(wire.read_reply().await.status(), 200);
        }
    })
    .await;
}

/// Connects without giving the server a chance to run.
fn std_connect(serving: &TestServer) -> TcpStream {
    let stream = std::net::TcpStream::connect(serving.address).unwrap();
    stream.set_nonblocking(true).unwrap();
    TcpStream::from_std(stream).unwrap()
}
