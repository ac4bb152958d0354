//! Random requests: two with one key get one answer from an origin that answers by every detail of
//! what it receives, and what it receives means what the client sent.

use std::{collections::HashMap, fmt::Write as _, net::SocketAddr};

use larder::testing::purge::planted::PlantedBug;
use serde_json::{Value, json};

use crate::support::{
    process::Process,
    proxy::{Proxy, request, request_with_body},
    random::Random,
    script::{OriginRequest, OriginResponse, ScriptedOrigin},
    wire::{Reply, Wire},
    within_seconds,
};

const REQUESTS: usize = 3000;

const ROUTES: &str = "[[route]]\nname = \"search\"\nmatch = \"/search\"\nkey = \"json-body\"\nttl = \"1h\"\n\
    query = { ignore = [\"utm_*\"], lists = [\"symbols\"], defaults = { page = 1 } }\n\
    [[route]]\nname = \"bytes\"\nmatch = \"/bytes\"\nkey = \"body\"\nttl = \"1h\"\n\
    [[route]]\nname = \"rest\"\nmatch = \"/**\"\nttl = \"1h\"\n";

/// Fields that no key has, because they are the client's or the hop's (and an origin that reads them
/// has to say so in `Vary`).
const UNKEYED: [&str; 6] =
    ["via:", "x-request-id:", "x-forwarded-for:", "forwarded:", "accept:", "cache-control:"];

const QUERIES: [&str; 10] = [
    "",
    "?page=1",
    "?page=2",
    "?symbols=b,a",
    "?symbols=a,b&page=1",
    "?symbols=a%2Cb",
    "?utm_x=1",
    "?page=1&page=2",
    "?symbols=b,a;c",
    "?p%61ge=1&symbols=b,a",
];

const TYPES: [&str; 5] = [
    "application/json",
    "application/json;charset=utf-8",
    "application/json; charset=latin1",
    "text/plain",
    "application/ld+json",
];

/// Values as written. Some mean the same to some parsers only.
const LEAVES: [&str; 12] = [
    "1",
    "1.0",
    "1e0",
    "10000000000000000000000001",
    "true",
    "null",
    "\"a\"",
    "\"\\u0061\"",
    "\"é\"",
    "\"\\u00e9\"",
    "\"\\/\"",
    "[]",
];

/// What may follow a document, and mostly makes it none.
const RESTS: [&str; 4] = [" ", "}", "\"\\ud800\"", "//"];

struct Asked {
    method: &'static str,
    target: String,
    fields: Vec<(&'static str, &'static str)>,
    body: String,
    is_chunked: bool,
}

impl Asked {
    fn random(random: &mut Random) -> Self {
        let method = *random.pick(&["POST", "POST", "POST", "QUERY", "QUERY", "GET", "HEAD"]);
        let path = *random.pick(&["/search", "/search", "/bytes", "/other"]);
        let target = format!("{path}{}", random.pick(&QUERIES));
        let mut fields = Vec::new();
        if random.one_in(3) {
            // Is answered by the origin, which so says what it is asked for with this key.
            fields.push(("cache-control", "no-store"));
        }
        if matches!(method, "GET" | "HEAD") {
            return Self { method, target, fields, body: String::new(), is_chunked: false };
        }
        let usual = random.below(TYPES.len() * 3);
        fields.push(("content-type", TYPES.get(usual).copied().unwrap_or(TYPES[0])));
        if random.one_in(12) {
            fields.push(("content-encoding", *random.pick(&["identity", "gzip"])));
        }
        if random.one_in(20) {
            fields.push(("content-digest", "sha-256=:AA==:"));
        }
        let mut body = spelled(random, 2);
        if random.one_in(10) {
            body.push_str(RESTS[random.below(RESTS.len())]);
        }
        Self { method, target, fields, body, is_chunked: random.one_in(3) }
    }

    fn text(&self, random: &mut Random) -> String {
        if matches!(self.method, "GET" | "HEAD") {
            return request(self.method, &self.target, &self.fields);
        }
        if !self.is_chunked {
            return request_with_body(self.method, &self.target, &self.fields, &self.body);
        }
        let fields =
            [&self.fields[..], &[("transfer-encoding", "chunked"), ("trailer", "x-t")]].concat();
        let mut text = request(self.method, &self.target, &fields);
        let mut rest = self.body.as_str();
        while !rest.is_empty() {
            let mut at = (1 + random.below(9)).min(rest.len());
            while !rest.is_char_boundary(at) {
                at += 1;
            }
            let (chunk, after) = rest.split_at(at);
            write!(text, "{:X}\r\n{chunk}\r\n", chunk.len()).unwrap();
            rest = after;
        }
        text + "0\r\nx-t: 1\r\n\r\n"
    }

    async fn explained(&self, admin: SocketAddr) -> Value {
        let headers: Vec<String> =
            self.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let url = format!("http://api.test{}", self.target);
        let mut asked = json!({ "method": self.method, "url": url, "headers": headers });
        if !self.body.is_empty() {
            asked["body"] = json!(self.body);
        }
        let fields = [("host", "localhost"), ("accept", "application/json")];
        let call = request_with_body("POST", "/v1/explain", &fields, &asked.to_string());
        let reply = Wire::connect(admin).await.exchange(call).await;
        serde_json::from_str(&reply.body).unwrap()
    }
}

/// Writes one of few documents in one of many spellings.
fn spelled(random: &mut Random, depth: usize) -> String {
    let space = |random: &mut Random| {
        if random.one_in(3) { *random.pick(&[" ", "\n", "\t\r\n"]) } else { "" }
    };
    if depth == 0 || random.one_in(3) {
        return (*random.pick(&LEAVES)).to_owned();
    }
    if random.one_in(3) {
        let members: Vec<String> =
            (0..random.below(3)).map(|_| spelled(random, depth - 1)).collect();
        return format!(
            "[{}{}]",
            space(random),
            members.join(&format!("{},{}", space(random), space(random)))
        );
    }
    let mut names = vec!["\"a\"", "\"b\"", "\"é\""];
    names.truncate(1 + random.below(3));
    if random.one_in(2) {
        names.reverse();
    }
    if random.one_in(8) {
        names.push("\"\\u0061\"");
    }
    let members: Vec<String> = names
        .iter()
        .map(|name| {
            format!(
                "{}{name}{}:{}{}",
                space(random),
                space(random),
                space(random),
                spelled(random, depth - 1)
            )
        })
        .collect();
    format!("{{{}{}}}", members.join(","), space(random))
}

fn seen(request: &OriginRequest) -> String {
    let is_keyed = |line: &&str| {
        let line = line.to_ascii_lowercase();
        !UNKEYED.iter().any(|name| line.starts_with(name))
    };
    let head: Vec<&str> = request.head.lines().filter(is_keyed).collect();
    format!("{}\n{}", head.join("\n"), request.body)
}

/// Returns what is wrong with an answer, as far as it alone shows.
fn wrong(asked: &Asked, reply: &Reply) -> Option<String> {
    let (head, received) = reply.body.split_once("\n\n")?;
    let is_json = |text: &str| serde_json::from_str::<Value>(text).ok();
    let same = match (is_json(&asked.body), is_json(received)) {
        (Some(sent), Some(received)) => sent == received,
        (None, _) => asked.body == received,
        (Some(_), None) => false,
    };
    let length = format!("content-length: {}", received.len());
    let is_framed =
        reply.cache() == "BYPASS" || received.is_empty() || head.to_lowercase().contains(&length);
    (!same || !is_framed).then(|| format!("sent {}\nreceived {head}\n{received}", asked.body))
}

async fn origin() -> ScriptedOrigin {
    ScriptedOrigin::start(|request| OriginResponse::ok(seen(request))).await
}

/// Sends random requests. Returns the number of hits and of rewritten bodies, or what is wrong.
async fn run(
    (address, admin): (SocketAddr, SocketAddr),
    requests: usize,
) -> Result<(usize, usize), String> {
    let (mut random, mut answers) = (Random::seeded(12), HashMap::<String, String>::new());
    let (mut hits, mut rewritten) = (0, 0);
    let mut wire = Wire::connect(address).await;
    for number in 0..requests {
        let asked = Asked::random(&mut random);
        let text = asked.text(&mut random);
        wire.write(&text).await;
        let reply = wire.read_reply_to(asked.method).await;
        let fail = |why: &str| Err(format!("{number}: {text}\n{}\n{why}", reply.head));
        if reply.status() != 200 {
            return fail("expected 200");
        }
        if let Some(wrong) = wrong(&asked, &reply).filter(|_| asked.method != "HEAD") {
            return fail(&wrong);
        }
        hits += usize::from(reply.cache() == "HIT");
        let explained = asked.explained(admin).await;
        let is_keyed = explained["outcome"]["outcome"] == "lookup";
        if is_keyed == (reply.cache() == "BYPASS") {
            return fail(&format!("{explained:#}"));
        }
        if !is_keyed || asked.method == "HEAD" {
            continue;
        }
        let id = explained["key"]["id"].as_str().unwrap().to_owned();
        rewritten += usize::from(!reply.body.ends_with(&asked.body));
        let first = answers.entry(id).or_insert_with(|| reply.body.clone());
        if *first != reply.body {
            return fail(&format!("first {first}\nthen {}", reply.body));
        }
    }
    Ok((hits, rewritten))
}

#[tokio::test]
async fn requests_with_one_key_get_one_answer_that_says_what_each_of_them_meant() {
    within_seconds(120, async {
        let origin = origin().await;
        let proxy = Proxy::with(&origin.url(), ROUTES);
        match run((proxy.address, proxy.admin_address()), REQUESTS).await {
            Ok((hits, rewritten)) => {
                assert!(hits > REQUESTS / 5, "{hits} hits");
                assert!(rewritten > REQUESTS / 10, "{rewritten} rewritten");
            }
            Err(wrong) => panic!("{wrong}"),
        }
    })
    .await;
}

#[tokio::test]
#[cfg_attr(not(feature = "planted-bugs"), ignore = "no bugs in this build: tests/run.sh checker")]
async fn a_body_that_is_keyed_otherwise_than_it_is_forwarded_is_found() {
    within_seconds(120, async {
        let origin = origin().await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.toml");
        let url = origin.url();
        let text = format!(
            "listen = \"127.0.0.1:0\"\norigin = \"{url}\"\nadmin.listen = \"127.0.0.1:0\"\n{ROUTES}"
        );
        std::fs::write(&file, text).unwrap();
        let bug = [("LARDER_PLANTED", PlantedBug::ContentAsSent.as_str())];
        let proxy = Process::run_with(&["--config", file.to_str().unwrap()], &bug).await;
        let found = run((proxy.address, proxy.admin), REQUESTS).await;
        assert!(found.is_err(), "nothing was found in {REQUESTS} requests");
    })
    .await;
}
