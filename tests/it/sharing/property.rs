//! Random requests: whatever is answered is what the origin says to exactly this method, target, host and
//! these fields about the target.

use larder::testing::purge::planted::PlantedBug;

use crate::support::{
    process::Process,
    proxy::Proxy,
    random::Random,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within_seconds,
};

const REQUESTS: usize = 4000;

const SEGMENTS: [&str; 14] = [
    "api",
    "%61pi",
    "%61PI",
    "API",
    "a%2Fb",
    "a%2fb",
    "..",
    ".",
    "",
    "x;y",
    "\\x",
    "caf%C3%A9",
    "%252e",
    "%25252e",
];

/// Hosts as sent, and their canonical form over `http` and `https`.
const HOSTS: [(&str, [&str; 2]); 8] = [
    ("api.test", ["api.test"; 2]),
    ("API.Test", ["api.test"; 2]),
    ("api.test.", ["api.test"; 2]),
    ("api.test:", ["api.test"; 2]),
    ("api.test:80", ["api.test", "api.test:80"]),
    ("api.test:443", ["api.test:443", "api.test"]),
    ("api.test:8080", ["api.test:8080"; 2]),
    ("other.test", ["other.test"; 2]),
];

/// Query pairs, and whether they are part of the key where `utm_*` is ignored.
const PAIRS: [(&str, bool); 12] = [
    ("a=1", true),
    ("a=2", true),
    ("%61=1", true),
    ("b", true),
    ("", true),
    ("utm_x=1", false),
    ("utm_x=2", false),
    ("utm%5Fx=3", false),
    ("utm_y=1;a=2", true),
    ("utm_y=1%3ba=2", true),
    ("utm_y=%00", true),
    ("utm%255Fx=4", true),
];

const FIELDS: [(&str, &str); 14] = [
    ("X-Forwarded-Host", "a.test"),
    ("X-Forwarded-Host", "b.test"),
    ("X-Forwarded-Proto", "http"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Prefix", "/one"),
    ("X-Forwarded-Prefix", "/two"),
    ("X-Forwarded-Port", "8443"),
    ("X-Forwarded-For", "192.0.2.7"),
    ("X_Forwarded_Host", "evil.test"),
    ("X_Forwarded_Prefix", "/evil"),
    ("X-Real-IP", "192.0.2.8"),
    ("Front-End-Https", "on"),
    ("Accept-Language", "de"),
    ("Cookie", "_ga=GA1.2.3"),
];

/// What the origin is to see, in this order.
const SEEN: [&str; 7] = [
    "host",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "x-forwarded-port",
    "front-end-https",
    "x_forwarded_host",
];

struct Asking {
    method: &'static str,
    path: String,
    pairs: Option<Vec<(&'static str, bool)>>,
    host: (&'static str, [&'static str; 2]),
    fields: Vec<(&'static str, &'static str)>,
}

impl Asking {
    fn random(random: &mut Random) -> Self {
        let segments = 1 + random.below(3);
        let picked: Vec<&str> = (0..segments).map(|_| *random.pick(&SEGMENTS)).collect();
        let path = format!("/{}", picked.join("/"));
        let pairs = (!random.one_in(3))
            .then(|| (0..=random.below(3)).map(|_| *random.pick(&PAIRS)).collect());
        let mut fields: Vec<(&str, &str)> = Vec::new();
        for _ in 0..random.below(3) {
            let field = *random.pick(&FIELDS);
            if !fields.iter().any(|(name, _)| *name == field.0) {
                fields.push(field);
            }
        }
        let method = if random.one_in(8) { "HEAD" } else { "GET" };
        Self { method, path, pairs, host: *random.pick(&HOSTS), fields }
    }

    fn target(&self, is_kept: impl Fn(bool) -> bool) -> String {
        let Some(pairs) = &self.pairs else { return self.path.clone() };
        let kept: Vec<&str> =
            pairs.iter().filter(|(_, kept)| is_kept(*kept)).map(|(pair, _)| *pair).collect();
        let (is_whole, query) = (kept.len() == pairs.len(), kept.join("&"));
        if query.is_empty() && !is_whole {
            return self.path.clone();
        }
        format!("{}?{query}", self.path)
    }

    fn told(&self, is_trusted: bool, name: &str) -> Option<&'static str> {
        let field = self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        field.filter(|_| is_trusted).map(|(_, value)| *value)
    }

    /// What the origin has to be asked, by the rules and not by the code under test.
    fn expected(&self, is_trusted: bool, is_passed: bool) -> String {
        let told = |name| self.told(is_trusted, name);
        let scheme = told("x-forwarded-proto").or(told("front-end-https").map(|_| "https"));
        let is_secure = scheme == Some("https");
        let host = self.host.1[usize::from(is_secure)];
        let fields = [
            host,
            told("x-forwarded-host").unwrap_or(host),
            told("x-forwarded-proto").unwrap_or("http"),
            told("x-forwarded-prefix").unwrap_or("-"),
            told("x-forwarded-port").unwrap_or("-"),
            told("front-end-https").unwrap_or("-"),
            "-",
        ];
        format!("{} {}", self.target(|kept| kept || is_passed), fields.join(" "))
    }

    fn text(&self) -> String {
        let mut fields = vec![("Host", self.host.0)];
        fields.extend(&self.fields);
        crate::support::proxy::request(self.method, &self.target(|_| true), &fields)
    }
}

fn seen(request: &OriginRequest) -> String {
    let fields = SEEN.iter().map(|name| request.header(name).unwrap_or("-"));
    [request.target.as_str()].into_iter().chain(fields).collect::<Vec<_>>().join(" ")
}

async fn origin() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| {
        OriginResponse::ok(seen(request)).with("cache-control", "public, max-age=600")
    })
    .await
}

/// Sends random requests; how many were hits, or the first wrong answer.
async fn run(mut wire: Wire, is_trusted: bool, seed: u64) -> Result<usize, String> {
    let mut random = Random::seeded(seed);
    let mut hits = 0;
    for number in 0..REQUESTS {
        let asking = Asking::random(&mut random);
        wire.write(asking.text()).await;
        let reply: Reply = wire.read_reply_to(asking.method).await;
        if reply.status() != 200 {
            return Err(format!("{}\n{}", asking.text(), reply.head));
        }
        let expected = asking.expected(is_trusted, reply.cache() == "BYPASS");
        if asking.method == "GET" && reply.body != expected {
            let (text, head) = (asking.text(), &reply.head);
            return Err(format!(
                "{number}: {text}{head}\nexpected {expected}\nreceived {}",
                reply.body
            ));
        }
        hits += usize::from(reply.cache() == "HIT");
    }
    Ok(hits)
}

fn routes(is_trusted: bool) -> String {
    let trusted = if is_trusted { "trusted_proxies = [\"127.0.0.0/8\"]\n" } else { "" };
    format!(
        "{trusted}[[route]]\nname = \"api\"\nmatch = \"/api/**\"\nquery = {{ ignore = [\"utm_*\"] }}\n\
         [[route]]\nname = \"rest\"\nmatch = \"/**\"\nquery = {{ ignore = [\"utm_*\"] }}\n"
    )
}

#[tokio::test]
async fn every_answer_is_what_the_origin_says_to_this_very_request() {
    within_seconds(120, async {
        for (seed, is_trusted) in [(1, true), (2, false)] {
            let origin = origin().await;
            let proxy = Proxy::with(&origin.url(), &routes(is_trusted));
            match run(proxy.connect().await, is_trusted, seed).await {
                Ok(hits) => assert!(hits > 200, "only {hits} hits"),
                Err(wrong) => panic!("{wrong}"),
            }
        }
    })
    .await;
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_target_that_is_normalised_before_it_is_forwarded_is_found() {
    within_seconds(120, async {
        let origin = origin().await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.toml");
        let url = origin.url();
        let text = format!(
            "listen = \"127.0.0.1:0\"\norigin = \"{url}\"\nadmin.listen = \"127.0.0.1:0\"\n{}",
            routes(false)
        );
        std::fs::write(&file, text).unwrap();
        let bug = [("LARDER_PLANTED", PlantedBug::NormalisedTarget.as_str())];
        let proxy = Process::run_with(&["--config", file.to_str().unwrap()], &bug).await;
        let found = run(Wire::connect(proxy.address).await, false, 1).await;
        assert!(found.is_err(), "nothing was found in {REQUESTS} requests");
    })
    .await;
}
