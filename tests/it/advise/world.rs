//! A simulated API and its users, and the access log that they would leave behind nginx.

use std::{collections::HashMap, fmt::Write as _};

/// The first moment of each log: 2026-11-23, a Monday, 00:00 UTC.
pub(super) const START: u64 = 1_795_392_000_000;

/// An API with its endpoints.
pub(super) struct World {
    pub(super) hours: u64,
    pub(super) clients: u64,
    pub(super) endpoints: Vec<Endpoint>,
}

/// Requests of one kind.
#[derive(Clone)]
pub(super) struct Endpoint {
    method: &'static str,
    /// The path; `{}` stands for a value.
    path: &'static str,
    values: Values,
    per_hour: u64,
    content: Content,
    is_personal: bool,
    /// Whether an expired login is refused now and then.
    needs_login: bool,
    /// Resources that a write changes; `{}` is the value of the path.
    changes: &'static [&'static str],
    queries: &'static [&'static str],
    milliseconds: u64,
}

/// The values of `{}`.
#[derive(Clone, Copy)]
pub(super) enum Values {
    None,
    Words(&'static [&'static str]),
    Numbers(u64),
    Tokens,
}

/// When a response changes.
#[derive(Clone, Copy)]
pub(super) enum Content {
    Never,
    /// Each time.
    Live,
    /// After this many seconds, at a time of its own for each target.
    Every(u64),
    /// After a write to one of these resources.
    Written(&'static [&'static str]),
}

pub(super) fn get(path: &'static str, per_hour: u64, content: Content) -> Endpoint {
    Endpoint {
        method: "GET",
        path,
        values: Values::None,
        per_hour,
        content,
        is_personal: false,
        needs_login: false,
        changes: &[],
        queries: &[""],
        milliseconds: 180,
    }
}

pub(super) fn write(
    method: &'static str,
    path: &'static str,
    per_hour: u64,
    changes: &'static [&'static str],
) -> Endpoint {
    Endpoint { method, changes, ..get(path, per_hour, Content::Live) }
}

impl Endpoint {
    pub(super) fn of(self, values: Values) -> Self {
        Self { values, ..self }
    }

    pub(super) fn queries(self, queries: &'static [&'static str]) -> Self {
        Self { queries, ..self }
    }

    pub(super) fn behind_login(self) -> Self {
        Self { needs_login: true, ..self }
    }

    pub(super) fn personal(self) -> Self {
        Self { is_personal: true, needs_login: true, ..self }
    }
}

/// Browsers, and the factor by which their content coding shrinks a response.
const BROWSERS: [(&str, u64); 4] = [
    ("Mozilla/5.0 (X11; Linux x86_64) Firefox/131.0", 30),
    ("Mozilla/5.0 (Macintosh) Safari/605.1", 30),
    ("Mozilla/5.0 (Windows NT 10.0) Chrome/129.0", 27),
    ("okhttp/4.12", 100),
];

impl World {
    /// Writes the log in nginx's format `combined` with `$request_time`.
    pub(super) fn log(&self, seed: u64) -> String {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut events = Vec::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let count = endpoint.per_hour * self.hours;
            let span = self.hours * 3_600_000;
            events.extend((0..count).map(|_| (rng.u64(0..span), index)));
        }
        events.sort_unstable();
        let mut state = State { rng, versions: HashMap::new(), text: String::new() };
        for (at, index) in events {
            state.request(&self.endpoints[index], at, self.clients);
        }
        state.text
    }
}

struct State {
    rng: fastrand::Rng,
    /// The number of writes to each resource, of each user if it is personal.
    versions: HashMap<String, u64>,
    text: String,
}

impl State {
    fn request(&mut self, endpoint: &Endpoint, at: u64, clients: u64) {
        // About twenty users are active at a time.
        let shift = at / 1_800_000 * 7;
        let client = (shift + self.rng.u64(0..20)) % clients;
        let value = match endpoint.values {
            Values::None => String::new(),
            Values::Words(words) => words[self.rng.usize(0..words.len())].to_owned(),
            Values::Numbers(count) => self.rng.u64(1..=count).to_string(),
            Values::Tokens => format!("{:032x}", self.rng.u128(..)),
        };
        let path = endpoint.path.replace("{}", &value);
        let query = endpoint.queries[self.rng.usize(0..endpoint.queries.len())];
        let query = query
            .replace("{now}", &(START + at).to_string())
            .replace("{random}", &self.rng.u32(..).to_string());
        let owner = if endpoint.is_personal { client.to_string() } else { String::new() };
        if endpoint.needs_login && self.rng.u32(0..100) == 0 {
            return self.line(client, at, (endpoint, &path, &query), (401, 42));
        }
        for resource in endpoint.changes {
            let resource = format!("{}/{owner}", resource.replace("{}", &value));
            *self.versions.entry(resource).or_default() += 1;
        }
        let content = self.version(endpoint, (&path, &value, &owner), at);
        let is_noise = |it: &&str| it.is_empty() || it.starts_with("utm_") || it.starts_with("_=");
        let mut kept: Vec<&str> = query.split('&').filter(|it| !is_noise(it)).collect();
        kept.retain(|it| *it != "page=1");
        kept.sort_unstable();
        // The order of lists makes no difference either.
        let mut kept: Vec<&str> = kept.iter().flat_map(|it| it.split(',')).collect();
        if query.starts_with("symbols=") {
            kept = vec![if query.contains("AAPL") { "two" } else { "one" }];
        }
        let size = 2000 + hash(&(&path, kept, &owner, content)) % 5000;
        let status = if endpoint.method == "GET" { 200 } else { 201 };
        self.line(client, at, (endpoint, &path, &query), (status, size));
    }

    /// The number of changes of a response so far.
    fn version(&mut self, endpoint: &Endpoint, of: (&str, &str, &str), at: u64) -> u64 {
        let (path, value, owner) = of;
        match endpoint.content {
            Content::Never => 0,
            Content::Live => self.rng.u64(..),
            Content::Every(seconds) => {
                let phase = hash(&path) % 100_000;
                (at + phase) / (seconds * 1000)
            }
            Content::Written(resources) => resources
                .iter()
                .map(|resource| format!("{}/{owner}", resource.replace("{}", value)))
                .map(|resource| self.versions.get(&resource).copied().unwrap_or_default())
                .sum(),
        }
    }

    fn line(
        &mut self,
        client: u64,
        at: u64,
        (endpoint, path, query): (&Endpoint, &str, &str),
        (status, size): (u16, u64),
    ) {
        let (browser, factor) = BROWSERS[usize::try_from(client).unwrap() % BROWSERS.len()];
        let time = jiff::Timestamp::from_millisecond((START + at).cast_signed()).unwrap();
        let time = time.strftime("%d/%b/%Y:%H:%M:%S +0000");
        let mark = if query.is_empty() { "" } else { "?" };
        let took = endpoint.milliseconds + self.rng.u64(0..40);
        writeln!(
            self.text,
            "198.51.{}.{} - - [{time}] \"{} {path}{mark}{query} HTTP/1.1\" {status} {} \"-\" \"{browser}\" 0.{took:03}",
            client / 250,
            client % 250,
            endpoint.method,
            size * factor / 100,
        )
        .unwrap();
    }
}

fn hash(value: &impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher as _};
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
