//! The origin: each response contains the number of its request.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use super::targets::{self, Kind, Target};
use crate::support::{
    random::Random,
    wire::{RawOrigin, Wire, header},
};

/// Response time: usually short, sometimes long enough for purges in between.
const SOON: usize = 20;
const LATE: usize = 250;
/// A body of twice this size has several parts in Redis.
const HALF: usize = 150 << 10;

pub(super) struct Origin {
    raw: RawOrigin,
    shared: Arc<Shared>,
}

struct Shared {
    targets: Vec<Target>,
    target_index: HashMap<String, usize>,
    /// The last number issued.
    last: AtomicU64,
    version: AtomicU64,
    random: Mutex<Random>,
}

impl Origin {
    pub(super) async fn start(seed: u64) -> Self {
        let targets = targets::all();
        let paths = targets.iter().map(|target| target.path.clone());
        let target_index = paths.enumerate().map(|(index, path)| (path, index)).collect();
        let (last, version) = (AtomicU64::new(0), AtomicU64::new(0));
        let random = Mutex::new(Random::seeded(seed));
        let shared = Arc::new(Shared { targets, target_index, last, version, random });
        let raw = RawOrigin::start({
            let shared = Arc::clone(&shared);
            move |wire, _| converse(wire, Arc::clone(&shared))
        })
        .await;
        Self { raw, shared }
    }

    pub(super) fn url(&self) -> String {
        self.raw.url()
    }

    /// Returns the number of the last request.
    pub(super) fn last(&self) -> u64 {
        self.shared.last.load(SeqCst)
    }

    /// Changes the data version.
    pub(super) fn change_version(&self) {
        self.shared.version.fetch_add(1, SeqCst);
    }
}

/// A response without framing.
struct Answer {
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    fn new(status: u16, number: u64, body: String) -> Self {
        Self { status, fields: vec![("x-number", number.to_string())], body }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    fn head(&self, framing: &str) -> String {
        let lines = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let lines: String = lines.collect();
        format!("HTTP/1.1 {} Numbered\r\n{lines}{framing}\r\n", self.status)
    }

    async fn write(&self, wire: &mut Wire) -> bool {
        let framing = match self.status {
            204 | 304 => String::new(),
            _ => format!("content-length: {}\r\n", self.body.len()),
        };
        wire.try_write(self.head(&framing) + &self.body).await
    }

    /// Writes two chunks with a pause in between.
    async fn write_slowly(&self, wire: &mut Wire, pause: Duration) -> bool {
        let (first, second) = self.body.split_at(self.body.len() / 2);
        let head = self.head("transfer-encoding: chunked\r\n");
        let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
        if !wire.try_write(head + &chunk(first)).await {
            return false;
        }
        tokio::time::sleep(pause).await;
        wire.try_write(chunk(second) + "0\r\n\r\n").await
    }
}

async fn converse(mut wire: Wire, shared: Arc<Shared>) {
    while let Some(head) = wire.try_read_head().await {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        if target == "/version" {
            let version = shared.version.load(SeqCst);
            let answer = Answer::new(200, 0, format!("{{\"version\":{version}}}"));
            if !answer.with("content-type", "application/json").write(&mut wire).await {
                return;
            }
            continue;
        }
        let number = shared.last.fetch_add(1, SeqCst) + 1;
        if wire.try_read_body(&head).await.is_none() {
            return;
        }
        let path = target.split('?').next().unwrap();
        let target = &shared.targets[shared.target_index[path]];
        let pause = shared.pause();
        let is_kept = if method == "GET" {
            let answer = shared.representation(target, &head, number);
            tokio::time::sleep(pause).await;
            match target.kind {
                Kind::Large => answer.write_slowly(&mut wire, pause).await,
                _ => answer.write(&mut wire).await,
            }
        } else {
            tokio::time::sleep(pause).await;
            written(method, target, number).write(&mut wire).await
        };
        if !is_kept {
            return;
        }
    }
}

impl Shared {
    fn pause(&self) -> Duration {
        let mut random = self.random.lock().unwrap();
        let most = if random.one_in(6) { LATE } else { SOON };
        Duration::from_millis(random.below(most) as u64)
    }

    fn one_in(&self, chances: usize) -> bool {
        self.random.lock().unwrap().one_in(chances)
    }

    fn representation(&self, target: &Target, head: &str, number: u64) -> Answer {
        let tags = target.sent.join(" ");
        let answer = Answer::new(200, number, number.to_string()).with("surrogate-key", tags);
        let confirmed = header(head, "if-none-match").filter(|_| self.one_in(2));
        match target.kind {
            Kind::Revalidated => {
                let etag = confirmed.map_or(format!("\"{number}\""), str::to_owned);
                let status = if confirmed.is_some() { 304 } else { 200 };
                let answer = Answer { status, ..answer.with("etag", etag) };
                answer.with("cache-control", "max-age=1")
            }
            Kind::Refreshed => answer.with("cache-control", "max-age=1, stale-while-revalidate=60"),
            Kind::Rescued if self.one_in(4) => Answer { status: 503, ..answer },
            Kind::Rescued => answer.with("cache-control", "max-age=1, stale-if-error=60"),
            Kind::Varied => answer.with("vary", "x-color").with("cache-control", "max-age=600"),
            Kind::Grouped => answer
                .with("cache-groups", format!("\"g{}\"", target.quarter()))
                .with("cache-control", "max-age=600"),
            Kind::Described => {
                let body = format!("{{\"number\":{number},\"id\":\"j{}\"}}", target.quarter());
                let answer = Answer { body, ..answer }.with("content-type", "application/json");
                answer.with("cache-control", "max-age=600")
            }
            Kind::Large => {
                let body = format!("{number} {} {number}", "x".repeat(2 * HALF));
                Answer { body, ..answer }.with("cache-control", "max-age=600")
            }
            Kind::Plain | Kind::Written | Kind::Polled | Kind::Scheduled => {
                answer.with("cache-control", "max-age=600")
            }
        }
    }
}

/// Responds to a write, which changes what [`super::writes`] expects.
fn written(method: &str, target: &Target, number: u64) -> Answer {
    let nothing = |status| Answer::new(status, number, String::new());
    match method {
        "PUT" => Answer::new(200, number, number.to_string())
            .with("surrogate-key", target.sent.join(" "))
            .with("content-location", target.path.clone())
            .with("cache-control", "max-age=600"),
        "POST" => {
            let (folder, _) = target.path.rsplit_once('/').unwrap();
            let next = (target.quarter() + 1) % 4;
            nothing(303).with("location", format!("{folder}/{next}"))
        }
        "PATCH" => {
            let group = format!("\"g{}\"", target.quarter());
            nothing(204).with("cache-group-invalidation", group)
        }
        _ => nothing(204),
    }
}
