//! How the process starts, changes its mind, tells what it does, and ends.

use std::{path::Path, sync::Arc};

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{
    certificate::Certificate,
    gate::Gate,
    process::Process,
    proxy::{Proxy, request, sum},
    script::{OriginResponse, ScriptedOrigin},
    wire::{RawOrigin, Wire},
    within,
};

/// A folder with a `proxy.toml` for this origin, and further text.
pub(crate) struct File(pub(crate) TempDir);

impl File {
    pub(crate) fn new(origin: &str, further: &str) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.write(origin, further);
        file
    }

    pub(crate) fn write(&self, origin: &str, further: &str) {
        self.write_raw(&format!(
            "listen = \"127.0.0.1:0\"\norigin = \"{origin}\"\n{further}\n\
             [admin]\nlisten = \"127.0.0.1:0\"\n"
        ));
    }

    /// As deployments do it: beside, and then in its place.
    pub(crate) fn write_raw(&self, text: &str) {
        let beside = self.0.path().join("proxy.toml.new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path()).unwrap();
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.path().join("proxy.toml")
    }

    pub(crate) async fn run(&self) -> Process {
        Process::run(&["--config", self.path().to_str().unwrap()]).await
    }
}

pub(crate) const IN_FORCE: &str = "configuration reloaded";
pub(crate) const KEPT: &str = "keeping the previous configuration";

#[tokio::test]
async fn sigterm_lets_requests_end_and_takes_no_new_ones() {
    within(async {
        let gate = Gate::closed();
        let origin =
            ScriptedOrigin::always(OriginResponse::ok("a").then(&gate, "b").after(&gate)).await;
        let file = File::new(&origin.url(), "");
        let process = file.run().await;
        assert_eq!(process.get_admin("/readyz").await.status(), 200);
        let mut wire = Wire::connect(process.address).await;
        wire.write(request("GET", "/a", &[])).await;
        origin.wait_for_requests(1).await;
        process.signal("TERM");
        process.wait_for_message("stopping").await;
        while TcpStream::connect(process.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert_eq!(process.get_admin("/readyz").await.status(), 503);
        assert_eq!(process.get_admin("/livez").await.status(), 200);
        gate.open();
        let reply = wire.read_reply().await;
        assert_eq!((reply.status(), reply.body.as_str()), (200, "ab"));
        assert_eq!(wire.read_to_end().await, "", "the connection is not kept");
        assert!(process.ended().await.success());
    })
    .await;
}

#[tokio::test]
async fn the_last_lines_of_the_log_are_written() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "");
        let process = file.run().await;
        for number in 0..100 {
            process.get(&format!("/{number}")).await;
        }
        process.signal("TERM");
        assert!(process.ended().await.success());
        assert_eq!(process.wait_for_access_log(100).await.lines().count(), 100);
    })
    .await;
}

#[tokio::test]
async fn a_drain_has_an_end() {
    within(async {
        let never = Gate::closed();
        let origin = ScriptedOrigin::always(OriginResponse::ok("a").after(&never)).await;
        let file = File::new(&origin.url(), "[limits]\ndrain = \"200ms\"");
        let process = file.run().await;
        let mut wire = Wire::connect(process.address).await;
        wire.write(request("GET", "/a", &[])).await;
        origin.wait_for_requests(1).await;
        process.signal("TERM");
        process.wait_for_message("closed connections with unfinished requests").await;
        assert!(process.ended().await.success());
    })
    .await;
}

#[tokio::test]
async fn sighup_puts_new_routes_in_force_and_keeps_the_cache() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "");
        let process = file.run().await;
        process.get("/kept").await;
        process.get("/checkout").await;
        let route = "[[route]]\nname = \"checkout\"\nmatch = \"/checkout\"\ncache = false";
        file.write(&origin.url(), route);
        process.signal("HUP");
        process.wait_for_message(IN_FORCE).await;
        assert_eq!(process.get("/kept").await.cache(), "HIT");
        assert_eq!(process.get("/checkout").await.cache(), "BYPASS");
    })
    .await;
}

#[tokio::test]
async fn a_changed_file_is_noticed() {
    within(async {
        let (old, new) = (ScriptedOrigin::always(OriginResponse::fresh("old")).await, "new");
        let new = ScriptedOrigin::always(OriginResponse::fresh(new)).await;
        let file = File::new(&old.url(), "");
        let process = file.run().await;
        assert_eq!(process.get("/a").await.body, "old");
        file.write(&new.url(), "");
        process.wait_for_message(IN_FORCE).await;
        assert_eq!(process.get("/a").await.summary(), "200 HIT old", "the cache is kept");
        assert_eq!(process.get("/b").await.body, "new");
    })
    .await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_why() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let file = File::new(&origin.url(), "");
        let process = file.run().await;
        let gauge = async || {
            let metrics = process.get_admin("/metrics").await.body;
            sum(&metrics, "larder_config_last_reload_successful", "")
        };
        assert_eq!(gauge().await, 1);
        process.get("/a").await;
        file.write_raw("origin = \"http://127.0.0.1:1\"\nlitsen = \"127.0.0.1:0\"\n");
        process.wait_for_message(KEPT).await;
        assert_eq!(gauge().await, 0);
        assert!(process.messages().contains("litsen"), "{}", process.messages());
        assert_eq!(process.get("/a").await.cache(), "HIT");
        assert_eq!(process.get("/b").await.summary(), "200 MISS a");
        file.write(&origin.url(), "server_timing = true");
        process.wait_for_message(IN_FORCE).await;
        assert_eq!(gauge().await, 1);
        assert!(process.get("/a").await.header("server-timing").is_some());
    })
    .await;
}

/// Whether a client that trusts this certificate alone can speak to the process.
async fn shows(process: &Process, certificate: &Certificate) -> bool {
    let stream = TcpStream::connect(process.address).await.unwrap();
    let connector = TlsConnector::from(certificate.client(&["http/1.1"]));
    let Ok(stream) = connector.connect("localhost".try_into().unwrap(), stream).await else {
        return false;
    };
    let reply = Wire::new(stream).exchange(request("GET", "/a", &[])).await;
    reply.status() == 200
}

#[tokio::test]
async fn changed_certificates_are_shown_to_new_connections() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a")).await;
        let (old, new) = (Certificate::new(), Certificate::new());
        let tls = format!("tls = {{ cert = {:?}, key = {:?} }}", old.chain(), old.key());
        let file = File::new(&origin.url(), &tls);
        let process = file.run().await;
        let trusting_old = Certificate::new();
        copy(&old, &trusting_old);
        assert!(shows(&process, &trusting_old).await && !shows(&process, &new).await);
        copy(&new, &old);
        process.wait_for_message(IN_FORCE).await;
        assert!(shows(&process, &new).await && !shows(&process, &trusting_old).await);
        std::fs::write(old.chain(), "no certificate").unwrap();
        process.wait_for_message(KEPT).await;
        assert!(shows(&process, &new).await, "a bad file changes nothing");
    })
    .await;
}

fn copy(from: &Certificate, to: &Certificate) {
    let copy = |from: &Path, to: &Path| std::fs::copy(from, to).unwrap();
    copy(&from.key(), &to.key());
    copy(&from.chain(), &to.chain());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments =
        ["--origin", "http://127.0.0.1:1", "--listen", &address, "--admin", "127.0.0.1:0"];
    let (status, printed) = Process::run_to_failure(&arguments);
    assert!(!status.success());
    assert!(printed.contains(&format!("cannot listen on {address}")), "{printed}");
    assert!(printed.contains("in use"), "the cause: {printed}");
    assert!(!printed.contains("panicked"), "{printed}");
}

#[tokio::test]
async fn flags_that_contradict_nothing_are_enough_and_bad_ones_are_explained() {
    let (status, printed) = Process::run_to_failure(&["--origin", "localhost:3000"]);
    assert_eq!(status.code(), Some(2));
    assert!(printed.contains("expected a URL such as"), "{printed}");
    let (status, printed) = Process::run_to_failure(&["--config", "/nowhere/proxy.toml"]);
    assert_eq!(status.code(), Some(1));
    assert!(printed.contains("/nowhere/proxy.toml"), "{printed}");
}

#[tokio::test]
async fn every_request_is_counted_once_and_logged_once() {
    within(async {
        let never = Gate::closed();
        let held = never.clone();
        let origin = ScriptedOrigin::start(move |request| match request.target.as_str() {
            "/hangs" => OriginResponse::ok("").after(&held),
            "/broken" => OriginResponse::status(500, "no"),
            "/swr" => OriginResponse::ok("a")
                .with("cache-control", "max-age=1, stale-while-revalidate=99"),
            "/midway" => OriginResponse::ok("first").then(&held, "last"),
            _ => OriginResponse::fresh("a").with("etag", "\"1\""),
        })
        .await;
        let proxy = Proxy::with(
            &origin.url(),
            "[[route]]\nname = \"off\"\nmatch = \"/off\"\ncache = false",
        );
        let mut sent = 0;
        for (method, target, fields) in [
            ("GET", "/a", vec![]),
            ("GET", "/a", vec![]),
            ("HEAD", "/a", vec![]),
            ("GET", "/a", vec![("If-None-Match", "\"1\"")]),
            ("GET", "/a", vec![("Range", "bytes=0-0")]),
            ("GET", "/a", vec![("Range", "bytes=9-")]),
            ("GET", "/a", vec![("Cache-Control", "no-cache")]),
            ("GET", "/b", vec![("Cache-Control", "only-if-cached")]),
            ("GET", "/c", vec![("Authorization", "x")]),
            ("POST", "/a", vec![]),
            ("OPTIONS", "*", vec![]),
            ("GET", "/off", vec![]),
            ("GET", "/broken", vec![]),
            ("GET", "/swr", vec![]),
        ] {
            proxy.send(method, target, &fields).await;
            sent += 1;
        }
        proxy.advance(5);
        proxy.get("/swr").await;
        sent += 1;
        for (target, expected) in [("/hangs", 10), ("/midway", 11)] {
            let mut wire = proxy.connect().await;
            wire.write(request("GET", target, &[])).await;
            origin.wait_for_requests(expected).await;
            if target == "/midway" {
                wire.read_until("first").await;
            }
            drop(wire);
            sent += 1;
        }
        let log = proxy.log(sent).await;
        assert_eq!(log.len(), sent);
        let metrics = proxy.admin("/metrics").await.body;
        let total = |labels: &str| sum(&metrics, "larder_requests_total", labels);
        assert_eq!(total(""), sent as u64);
        assert_eq!(total("class=\"aborted\""), 1);
        assert_eq!(sum(&metrics, "larder_request_duration_seconds_count", ""), sent as u64);
        for cache in ["HIT", "MISS", "EXPIRED", "REVALIDATED", "STALE", "BYPASS"] {
            let logged = log.iter().filter(|line| line["cache"] == cache).count();
            assert_eq!(total(&format!("cache=\"{cache}\"")), logged as u64, "{cache}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_aborted_request_is_logged_as_such() {
    within(async {
        let never = Gate::closed();
        let origin = ScriptedOrigin::always(OriginResponse::ok("").after(&never)).await;
        let proxy = Proxy::before(&origin.url());
        let mut wire = proxy.connect().await;
        wire.write(request("GET", "/a", &[])).await;
        origin.wait_for_requests(1).await;
        drop(wire);
        let log = proxy.log(1).await;
        assert_eq!((&log[0]["status"], &log[0]["path"]), (&499.into(), &"/a".into()));
    })
    .await;
}

#[tokio::test]
async fn the_log_tells_the_outcome_and_keeps_secrets() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::fresh("hello")).await;
        let route = "[[route]]\nname = \"items\"\nmatch = \"/items/{id}\"";
        let proxy = Proxy::with(&origin.url(), route);
        let secrets = [
            ("Authorization", "Bearer secret"),
            ("Cookie", "sid=secret"),
            ("X-Request-ID", "r-1"),
            ("Referer", "http://api.test/?token=secret"),
        ];
        proxy.get_with("/items/1?token=secret", &secrets).await;
        proxy.get("/items/2?token=secret").await;
        proxy.get("/items/2?token=secret").await;
        proxy.send("POST", "http://api.test/items/2?token=secret", &[]).await;
        let log = proxy.log(4).await;
        for (line, method, cache, reason) in [
            (&log[0], "GET", "MISS", Some("authorization")),
            (&log[1], "GET", "MISS", Some("cold")),
            (&log[2], "GET", "HIT", None),
            (&log[3], "POST", "BYPASS", Some("method-not-cacheable")),
        ] {
            assert_eq!(line["method"], method);
            assert_eq!(line["cache"], cache);
            assert_eq!(line["reason"].as_str(), reason);
            assert_eq!((&line["status"], &line["bytes"]), (&200.into(), &5.into()));
            assert_eq!((&line["route"], &line["host"]), (&"items".into(), &"api.test".into()));
            assert!(line["dur_ms"].as_f64().unwrap() >= 0.0);
        }
        assert_eq!((&log[0]["path"], &log[0]["request_id"]), (&"/items/1".into(), &"r-1".into()));
        let text = proxy.log_text();
        assert!(!text.contains("secret") && !text.contains("token"), "{text}");
    })
    .await;
}

#[tokio::test]
async fn a_request_has_one_name_in_the_log_and_at_the_origin() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a")).await;
        let proxy = Proxy::before(&origin.url());
        proxy.get("/a").await;
        let log = proxy.log(1).await;
        let id = log[0]["request_id"].as_str().unwrap().to_owned();
        assert_eq!(origin.last().header("x-request-id"), Some(id.as_str()));
    })
    .await;
}

#[tokio::test]
async fn the_log_survives_any_path() {
    within(async {
        let origin = ScriptedOrigin::always(OriginResponse::ok("a")).await;
        let proxy = Proxy::before(&origin.url());
        let paths = ["/\"quoted\"", "/back\\slash", "/%00%0a%22", "/ünïcode", "/{}|^`"];
        for path in paths {
            proxy.get(path).await;
        }
        let log = proxy.log(1).await;
        assert!(!log.is_empty(), "each line parses");
    })
    .await;
}

#[tokio::test]
async fn a_configuration_in_this_process_can_be_replaced_while_requests_run() {
    within(async {
        let gate = Gate::closed();
        let origin = ScriptedOrigin::always(OriginResponse::fresh("a").after(&gate)).await;
        let proxy = Arc::new(Proxy::before(&origin.url()));
        let asking = tokio::spawn({
            let proxy = Arc::clone(&proxy);
            async move { proxy.get("/a").await }
        });
        origin.wait_for_requests(1).await;
        let route = "[[route]]\nname = \"off\"\nmatch = \"/a\"\ncache = false";
        proxy.reconfigure(&origin.url(), route);
        gate.open();
        assert_eq!(asking.await.unwrap().summary(), "200 MISS a", "under the rules it came under");
        assert_eq!(proxy.get("/a").await.cache(), "BYPASS");
        proxy.reconfigure(&origin.url(), "");
        assert_eq!(proxy.get("/a").await.cache(), "HIT");
    })
    .await;
}

#[tokio::test]
async fn a_replaced_origin_is_let_go_even_if_no_request_comes() {
    within(async {
        let closed = Gate::closed();
        let gate = closed.clone();
        let old = RawOrigin::start(move |mut wire, _| {
            let gate = gate.clone();
            async move {
                wire.read_head().await;
                wire.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                wire.read_to_end().await;
                gate.open();
            }
        })
        .await;
        let new = ScriptedOrigin::always(OriginResponse::fresh("new")).await;
        let proxy = Proxy::before(&old.url());
        proxy.get("/a").await;
        proxy.reconfigure(&new.url(), "");
        closed.passed().await;
    })
    .await;
}
