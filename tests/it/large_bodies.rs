//! Large bodies from sealed files in memory: clients get the right bytes to the end, and the files
//! stay within their bounds.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::net::TcpSocket;

use crate::{
    lifecycle::File,
    support::{
        fleet::short_sleep,
        process::Process,
        proxy::{request, sum},
        wire::{RawOrigin, Reply, Wire},
        within_seconds,
    },
};

/// An origin whose bodies have the length in the first segment of their path, and change with each
/// version. A `POST` starts a new version.
struct Versions {
    origin: RawOrigin,
    version: Arc<AtomicUsize>,
}

impl Versions {
    async fn start() -> Self {
        let version = Arc::<AtomicUsize>::default();
        let current = Arc::clone(&version);
        let origin = RawOrigin::start(move |mut wire, _| {
            let version = Arc::clone(&current);
            async move {
                while let Some(head) = wire.try_read_head().await {
                    let mut words = head.split(' ');
                    let (method, target) = (words.next().unwrap(), words.next().unwrap());
                    if method == "POST" {
                        version.fetch_add(1, Relaxed);
                    }
                    let version = version.load(Relaxed);
                    let body = if method == "GET" { body(target, version) } else { String::new() };
                    let reply = format!(
                        "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"{version}\"\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    if !wire.try_write(reply).await {
                        return;
                    }
                }
            }
        });
        Self { origin: origin.await, version }
    }

    /// Returns the current body of a target.
    fn body(&self, target: &str) -> String {
        body(target, self.version.load(Relaxed))
    }

    /// Requests a target, and checks that the response has its current body.
    async fn get(&self, wire: &mut Wire, target: &str) -> Reply {
        let reply = wire.exchange(get(target)).await;
        assert!(reply.body == self.body(target), "{}", reply.head);
        reply
    }

    /// Starts Larder in front of the origin.
    async fn larder(&self, toml: &str) -> Process {
        let toml = format!("defaults.detect_leaks = false\n{toml}");
        let file = File::new(&self.origin.url(), &toml);
        Process::run_with_files(&["--config", file.path().to_str().unwrap()], FILES).await
    }
}

/// Starts an origin, and Larder in front of it.
async fn start(toml: &str) -> (Versions, Process) {
    let versions = Versions::start().await;
    let process = versions.larder(toml).await;
    (versions, process)
}

/// Returns a body in which each line differs from all others.
fn body(target: &str, version: usize) -> String {
    let length = target.split('/').nth(1).unwrap().parse().unwrap();
    let mut body = String::with_capacity(length + 64);
    let mut line = 0;
    while body.len() < length {
        writeln!(body, "{target} {version} {line}").unwrap();
        line += 1;
    }
    body.truncate(length);
    body
}

/// Few clients, so that there are descriptors for files.
const FEW_CLIENTS: &str = "[limits]\nconnections = 20\ntunnels = 10\n";

/// The lowest limit on open files with which 64 of them are for bodies.
const FILES: &str = "-n 256";
const MAX_BODY_FILES: usize = 64;

const LARGE: &str = "/1100000/a";

fn get(target: &str) -> String {
    request("GET", target, &[])
}

/// Returns the number of open body files of a process.
fn body_files(process: &Process) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    let links = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("/memfd:larder-body")).count()
}

async fn wait_for_body_files(process: &Process, count: usize) {
    while body_files(process) != count {
        short_sleep().await;
    }
}

/// Stores a target and hits it, until its body is in a file. `others` are the files that exist
/// before.
async fn make_file(process: &Process, (versions, target): (&Versions, &str), others: usize) {
    let mut wire = Wire::connect(process.address).await;
    while body_files(process) == others {
        versions.get(&mut wire, target).await;
    }
}

/// Connects like a client that reads slowly: with a small buffer for what it receives.
async fn connect_slowly(address: SocketAddr) -> Wire {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 << 10).unwrap();
    Wire::new(socket.connect(address).await.unwrap())
}

#[tokio::test]
async fn the_second_hit_on_a_large_body_makes_its_file() {
    within_seconds(60, async {
        let (versions, process) = start(FEW_CLIENTS).await;
        let mut wire = Wire::connect(process.address).await;
        for target in ["/1000000/small", LARGE] {
            for expected in ["MISS", "HIT", "HIT"] {
                assert_eq!(versions.get(&mut wire, target).await.cache(), expected);
            }
        }
        wait_for_body_files(&process, 1).await;
        for _ in 0..3 {
            assert_eq!(versions.get(&mut wire, LARGE).await.cache(), "HIT");
            wire.exchange(get("/1000000/small")).await;
        }
        assert_eq!(body_files(&process), 1);
    })
    .await;
}

#[tokio::test]
async fn pipelined_responses_from_files_and_memory_come_complete_and_in_order() {
    within_seconds(60, async {
        let (versions, process) = start(FEW_CLIENTS).await;
        make_file(&process, (&versions, LARGE), 0).await;
        make_file(&process, (&versions, "/2000000/b"), 1).await;
        let small = process.get("/10/c").await.body;
        let [range, condition] = [("Range", "bytes=50000-89999"), ("If-None-Match", "\"0\"")]
            .map(|field| request("GET", LARGE, &[field]));
        let head = request("HEAD", LARGE, &[]);
        let (large, larger) = (versions.body(LARGE), versions.body("/2000000/b"));
        let mut wire = Wire::connect(process.address).await;
        for _ in 0..4 {
            // The first of them takes the usual path, or ends the batch.
            wire.exchange(get("/10/c")).await;
            for sent in [
                [get("/10/c"), get(LARGE), get("/2000000/b")].concat(),
                [&*head, &*get("/2000000/b"), &*range, &*condition].concat(),
                [&*get(LARGE), &*range, &*head].concat(),
            ] {
                wire.write(sent).await;
            }
            for expected in [&small, &large, &larger] {
                assert!(wire.read_reply().await.body == *expected);
            }
            assert_eq!(wire.read_reply_to("HEAD").await.header("content-length"), Some("1100000"));
            assert!(wire.read_reply().await.body == larger);
            assert!(wire.read_reply().await.body == large[50_000..90_000]);
            assert_eq!(wire.read_reply().await.status(), 304);
            assert!(wire.read_reply().await.body == large);
            assert!(wire.read_reply().await.body == large[50_000..90_000]);
            assert_eq!(wire.read_reply_to("HEAD").await.status(), 200);
        }
    })
    .await;
}

/// More than the buffers between the two take. Memory and file together are less than 16 MiB: a
/// client that reads more of an evicted response causes pressure, and has to read within 3 s.
const HUGE: &str = "/7000000/huge";

/// Room for a huge body twice.
const MUCH_MEMORY: &str = "[limits]\nconnections = 20\ntunnels = 10\n\
                           [store]\nmemory = \"1GiB\"\nmax_object = \"64MiB\"\n";

#[tokio::test]
async fn a_client_that_stops_in_the_middle_gets_the_old_bytes_to_the_end() {
    within_seconds(60, async {
        let (versions, process) = start(MUCH_MEMORY).await;
        make_file(&process, (&versions, HUGE), 0).await;
        let old = versions.body(HUGE);
        let mut slow = connect_slowly(process.address).await;
        slow.exchange(get("/10/c")).await;
        slow.write([get(HUGE), get("/10/c")].concat()).await;
        let head = slow.read_head().await;
        let mut read = slow.read_exact(100_000).await;
        let write = request("POST", HUGE, &[("content-length", "0")]);
        assert_eq!(Wire::connect(process.address).await.exchange(write).await.status(), 200);
        make_file(&process, (&versions, HUGE), 1).await;
        assert_ne!(versions.body(HUGE), old);
        assert_eq!(body_files(&process), 2, "the client reads from the old file");
        read += &slow.read_exact(old.len() - read.len()).await;
        assert!(read == old, "{head}");
        assert_eq!(slow.read_reply().await.body, body("/10/c", 0));
        wait_for_body_files(&process, 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_lets_a_client_read_a_file_to_its_end() {
    within_seconds(60, async {
        let (versions, process) = start(MUCH_MEMORY).await;
        make_file(&process, (&versions, HUGE), 0).await;
        let mut slow = connect_slowly(process.address).await;
        slow.write(get(HUGE)).await;
        slow.read_head().await;
        process.signal("TERM");
        process.wait_for_message("stopping").await;
        assert!(slow.read_to_end().await == versions.body(HUGE));
        assert!(process.ended().await.success());
    })
    .await;
}

#[tokio::test]
async fn files_are_bounded_by_the_limit_on_open_files() {
    within_seconds(60, async {
        let (versions, process) = start(MUCH_MEMORY).await;
        let targets: Vec<_> = (0..MAX_BODY_FILES + 20).map(|n| format!("/1060000/{n}")).collect();
        let mut wire = Wire::connect(process.address).await;
        while body_files(&process) < MAX_BODY_FILES {
            for target in &targets {
                versions.get(&mut wire, target).await;
            }
        }
        for target in targets.iter().chain(&targets) {
            assert_eq!(versions.get(&mut wire, target).await.cache(), "HIT");
        }
        assert_eq!(body_files(&process), MAX_BODY_FILES);
        // If clients may need all descriptors, there is none for files.
        let process = versions.larder("").await;
        let mut wire = Wire::connect(process.address).await;
        for _ in 0..5 {
            versions.get(&mut wire, LARGE).await;
            assert_eq!(body_files(&process), 0);
        }
    })
    .await;
}

#[tokio::test]
async fn files_take_a_quarter_of_the_memory_and_go_with_their_responses() {
    const MAX_FILES: usize = (32 << 20) / 1_100_000;
    within_seconds(60, async {
        let toml = format!("{FEW_CLIENTS}[store]\nmemory = \"128MiB\"\n");
        let (versions, process) = start(&toml).await;
        let mut wire = Wire::connect(process.address).await;
        while body_files(&process) < MAX_FILES - 3 {
            for target in 0..MAX_FILES + 10 {
                versions.get(&mut wire, &format!("/1100000/{target}")).await;
            }
        }
        assert!(body_files(&process) <= MAX_FILES);
        let stored = process.get_admin("/metrics").await.body;
        let stored = sum(&stored, "larder_store_bytes", "memory");
        assert!(stored <= 128 << 20, "{stored}");
        // Each connection requests once, so that no further file is made.
        for target in 0.. {
            if body_files(&process) == 0 {
                break;
            }
            for _ in 0..2 {
                process.get(&format!("/1100000/new/{target}")).await;
            }
        }
    })
    .await;
}
