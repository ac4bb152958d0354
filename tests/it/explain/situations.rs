//! The situations that are explained, and then brought about.

/// What happens before the request comes.
pub(crate) enum Step {
    /// The same target is asked for, with these fields; the origin answers with what is fresh for a minute.
    Get(&'static [(&'static str, &'static str)]),
    /// Seconds pass.
    Wait(u64),
    /// The target is purged, `hard` or `soft`.
    Purge(&'static str),
}

pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: &'static [(&'static str, &'static str)],
    pub(crate) body: &'static str,
}

pub(crate) struct Situation {
    pub(crate) name: &'static str,
    /// The configuration beside the origin.
    pub(crate) toml: &'static str,
    pub(crate) before: &'static [Step],
    pub(crate) method: &'static str,
    pub(crate) target: &'static str,
    pub(crate) fields: &'static [(&'static str, &'static str)],
    pub(crate) response: Response,
}

const OK: Response = Response { status: 200, fields: &[], body: "{}" };
const FRESH: Response = with(&[("cache-control", "max-age=60")]);
const PUBLIC: Response = with(&[("cache-control", "public, max-age=60")]);

const fn with(fields: &'static [(&'static str, &'static str)]) -> Response {
    Response { status: 200, fields, body: "{}" }
}

const GET: Situation = Situation {
    name: "",
    toml: "",
    before: &[],
    method: "GET",
    target: "/items/1",
    fields: &[],
    response: FRESH,
};

/// Signed with HS256: `{"sub":"c4n4ry5ecret","tenant":"c4n4ry5ecret","scope":"read"}`.
const ZOE: &str = "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJjNG40cnk1ZWNyZXQiLCJ0ZW5hbnQiOiJjNG40cnk1ZWNyZXQiLCJzY29wZSI6InJlYWQifQ.W69sr2aVazJRm7M5G4vYir7OldHeb9wUlh1_cmMaw00";
/// The same for `{"sub":"bob"}`.
const BOB: &str = "Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJib2IifQ.NpetUfydefyKjp5wnZYYl-wnnvPhylXJu_8OhsfZekU";

const USER: &str = "[user]\njwt = { header = \"authorization\", secret = \"0123456789abcdef0123456789abcdef-hs256\" }\n[[route]]\nname = \"items\"\nmatch = \"/items/{item}\"\nttl = \"5m\"\npartition = \"user\"\ntags = [\"items:{user}\"]\n[route.on_write]\npurge = [\"items:{user}\"]\n";
const RECHECK: &str = "[user]\nrecheck = \"10s\"\njwt = { header = \"authorization\", secret = \"0123456789abcdef0123456789abcdef-hs256\" }\n[[route]]\nname = \"items\"\nmatch = \"/items/{item}\"\nttl = \"5m\"\npartition = \"user\"\ntags = [\"items:{user}\"]\n[route.on_write]\npurge = [\"items:{user}\"]\n";
const AUTHENTICATED: &str = "[user]\njwt = { header = \"authorization\", secret = \"0123456789abcdef0123456789abcdef-hs256\" }\n[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\npartition = \"authenticated\"\n";
const CLAIM: &str = "[user]\njwt = { header = \"authorization\", secret = \"0123456789abcdef0123456789abcdef-hs256\" }\n[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\npartition = \"claim:tenant\"\n";

const TTL: &str = "[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\n";

const GRAPHQL: &str = "[[route]]\nname = \"graphql\"\nmatch = \"/graphql\"\ngraphql = true\noperation = { branchList = \"1h\" }\n";

pub(crate) const SITUATIONS: &[Situation] = &[
    // ── Routes and freshness ──
    Situation { name: "no-route", ..GET },
    Situation { name: "ttl-fills-silence", toml: TTL, response: OK, ..GET },
    Situation {
        name: "ttl-from-rule",
        toml: r#"
            [[route]]
            name = "posts"
            match = "POST /items/{item}"
            cache = false
            [[route]]
            name = "elsewhere"
            match = "other.test/items/{item}"
            [[route]]
            name = "items"
            match = "/items/{item}"
            ttl = "5m"
            ttl_from = "rule"
            tags = ["items", "item:{item}", "range:{?range}"]
            query = { ignore = ["utm_*"], sort = true }
            stale_while_revalidate = "30s"
            stale_if_error = "1h"
            client_cache = "public, max-age=5"
        "#,
        target: "/items/1?range=7d&utm_source=x&b=2&a=1",
        response: with(&[("cache-control", "max-age=60"), ("surrogate-key", "one two")]),
        ..GET
    },
    Situation { name: "no-freshness", response: OK, ..GET },
    Situation {
        name: "heuristic",
        response: with(&[("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT")]),
        ..GET
    },
    Situation {
        name: "age",
        response: with(&[("cache-control", "max-age=60"), ("age", "20")]),
        ..GET
    },
    Situation {
        name: "cache-false",
        toml: "[[route]]\nname = \"live\"\nmatch = \"/items/**\"\ncache = false\n",
        ..GET
    },
    Situation {
        name: "bypass",
        toml: "[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nbypass = { header = [\"x-export\"] }\n",
        fields: &[("x-export", "1")],
        ..GET
    },
    Situation {
        name: "bypass-refresh",
        toml: "[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nbypass = { query = [\"nocache\"], refresh = true }\nquery = { ignore = [\"nocache\"] }\n",
        target: "/items/1?nocache",
        ..GET
    },
    Situation {
        name: "status-ttl",
        toml: "[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = { \"200\" = \"5m\", \"404\" = \"10s\" }\n",
        response: Response { status: 404, ..OK },
        ..GET
    },
    Situation {
        name: "status-without-ttl",
        toml: TTL,
        response: Response { status: 302, fields: &[("location", "/")], body: "" },
        ..GET
    },
    // ── Targets and methods ──
    Situation {
        name: "readings-of-two-routes",
        toml: "[[route]]\nname = \"item\"\nmatch = \"/items/{item}\"\nttl = \"5m\"\n[[route]]\nname = \"parts\"\nmatch = \"/items/{item}/{part}\"\nttl = \"1m\"\n",
        target: "/items/a%2Fb",
        ..GET
    },
    Situation {
        name: "head-of-a-range-without-cache",
        before: &[Step::Get(&[])],
        method: "HEAD",
        fields: &[("cache-control", "no-cache"), ("range", "bytes=0-1")],
        ..GET
    },
    Situation { name: "request-without-store", fields: &[("cache-control", "no-store")], ..GET },
    Situation { name: "readings-of-one-route", toml: TTL, target: "/items/a%2Fb;c", ..GET },
    Situation {
        name: "write",
        toml: "[[route]]\nname = \"items\"\nmatch = \"/items/{item}\"\nttl = \"5m\"\non_write = { purge = [\"items\", \"item:{item}\"] }\n",
        method: "DELETE",
        response: OK,
        ..GET
    },
    Situation { name: "override", fields: &[("x-http-method-override", "DELETE")], ..GET },
    Situation {
        name: "upgrade",
        fields: &[("connection", "upgrade"), ("upgrade", "websocket")],
        ..GET
    },
    Situation { name: "precondition", fields: &[("if-match", "\"a\"")], ..GET },
    Situation { name: "host-not-served", toml: "hosts = [\"api.example.com\"]", ..GET },
    Situation { name: "head", method: "HEAD", ..GET },
    Situation { name: "range", fields: &[("range", "bytes=0-1")], ..GET },
    Situation { name: "only-if-cached", fields: &[("cache-control", "only-if-cached")], ..GET },
    Situation {
        name: "forwarding-fields-of-a-stranger",
        fields: &[
            ("x-forwarded-host", "evil.test"),
            ("x_forwarded_proto", "https"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
        ],
        ..GET
    },
    Situation {
        name: "forwarding-fields-of-a-proxy",
        toml: "trusted_proxies = [\"127.0.0.1\"]\n",
        fields: &[("x-forwarded-host", "shop.test"), ("x-forwarded-proto", "https")],
        ..GET
    },
    // ── Credentials ──
    Situation {
        name: "authorization",
        toml: TTL,
        fields: &[("authorization", "Bearer c4n4ry5ecret")],
        response: OK,
        ..GET
    },
    Situation {
        name: "authorization-public",
        fields: &[("authorization", "Bearer c4n4ry5ecret")],
        response: PUBLIC,
        ..GET
    },
    Situation { name: "api-key", fields: &[("x-api-key", "c4n4ry5ecret")], ..GET },
    Situation { name: "session-cookie", fields: &[("cookie", "sessionid=c4n4ry5ecret")], ..GET },
    Situation {
        name: "unknown-cookie",
        toml: TTL,
        fields: &[("cookie", "basket=c4n4ry5ecret; _ga=1")],
        response: OK,
        ..GET
    },
    Situation {
        name: "selecting-cookie",
        toml: TTL,
        fields: &[("cookie", "theme=c4n4ry5ecret")],
        response: OK,
        ..GET
    },
    Situation {
        name: "separated-cookie",
        toml: "[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\nvary = { headers = [\"accept-language\"], cookies = [\"basket\"] }\n",
        fields: &[("cookie", "basket=c4n4ry5ecret"), ("accept-language", "de")],
        response: OK,
        ..GET
    },
    Situation { name: "ambiguous-cookie", fields: &[("cookie", "a=1; a=2")], ..GET },
    Situation {
        name: "query-credential",
        toml: "[user]\ndigest_key = \"0123456789abcdef0123456789abcdef\"\n",
        target: "/items/1?api_key=c4n4ry5ecret&a=1",
        ..GET
    },
    Situation {
        name: "signed-target",
        toml: "[user]\ndigest_key = \"0123456789abcdef0123456789abcdef\"\n[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\n",
        target: "/items/1?sig=c4n4ry5ecret",
        response: OK,
        ..GET
    },
    // ── Responses ──
    Situation {
        name: "set-cookie",
        toml: TTL,
        response: with(&[("set-cookie", "a=c4n4ry5ecret")]),
        ..GET
    },
    Situation {
        name: "private",
        response: with(&[("cache-control", "private, max-age=60")]),
        ..GET
    },
    Situation {
        name: "no-store",
        toml: TTL,
        response: with(&[("cache-control", "no-store")]),
        ..GET
    },
    Situation {
        name: "no-cache",
        response: with(&[("cache-control", "no-cache"), ("etag", "\"a\"")]),
        ..GET
    },
    Situation {
        name: "vary-star",
        response: with(&[("cache-control", "max-age=60"), ("vary", "*")]),
        ..GET
    },
    Situation {
        name: "vary",
        fields: &[("accept-language", "de")],
        response: with(&[("cache-control", "max-age=60"), ("vary", "Accept-Language")]),
        ..GET
    },
    Situation {
        name: "store-unless",
        toml: "[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\nstore_unless = [\"$.errors[0]\"]\n",
        response: Response { body: "{\"errors\": [1]}", ..OK },
        ..GET
    },
    Situation { name: "too-large", toml: "[store]\nmax_object = \"1B\"\n", ..GET },
    // ── Something is stored ──
    Situation { name: "hit", before: &[Step::Get(&[])], ..GET },
    Situation { name: "expired", before: &[Step::Get(&[]), Step::Wait(61)], ..GET },
    Situation {
        name: "stale-while-revalidate",
        toml: "[defaults]\nstale_while_revalidate = \"30s\"\n",
        before: &[Step::Get(&[]), Step::Wait(70)],
        ..GET
    },
    Situation {
        name: "stale-if-error",
        toml: "[defaults]\nstale_if_error = \"1h\"\n",
        before: &[Step::Get(&[]), Step::Wait(61)],
        response: Response { status: 503, ..OK },
        ..GET
    },
    Situation { name: "purged", before: &[Step::Get(&[]), Step::Purge("hard")], ..GET },
    Situation { name: "soft-purged", before: &[Step::Get(&[]), Step::Purge("soft")], ..GET },
    Situation {
        name: "request-no-cache",
        before: &[Step::Get(&[])],
        fields: &[("cache-control", "no-cache")],
        ..GET
    },
    Situation {
        name: "credentials-and-a-stored-response",
        before: &[Step::Get(&[])],
        fields: &[("authorization", "Bearer c4n4ry5ecret")],
        ..GET
    },
    // ── Partitions ──
    Situation {
        name: "partition-everyone",
        toml: "[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\npartition = \"everyone\"\n",
        fields: &[
            ("authorization", "Bearer c4n4ry5ecret"),
            ("cookie", "sessionid=c4n4ry5ecret; theme=dark"),
        ],
        response: with(&[("set-cookie", "a=c4n4ry5ecret")]),
        ..GET
    },
    Situation {
        name: "partition-everyone-refused",
        toml: "[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\npartition = \"everyone\"\n",
        fields: &[("authorization", "Bearer c4n4ry5ecret")],
        response: Response { status: 401, ..OK },
        ..GET
    },
    Situation {
        name: "partition-exact-credentials",
        toml: "[user]\ndigest_key = \"0123456789abcdef0123456789abcdef\"\n[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\npartition = \"user\"\n",
        fields: &[
            ("authorization", "Bearer c4n4ry5ecret"),
            ("cookie", "basket=c4n4ry5ecret; _ga=1"),
        ],
        response: with(&[("cache-control", "private, max-age=60")]),
        ..GET
    },
    Situation {
        name: "partition-without-an-identity",
        toml: "[[route]]\nname = \"items\"\nmatch = \"/items/**\"\nttl = \"5m\"\npartition = \"user\"\n",
        response: OK,
        ..GET
    },
    Situation {
        name: "partition-user",
        toml: USER,
        fields: &[("authorization", ZOE)],
        response: with(&[("cache-control", "private, max-age=60"), ("vary", "Authorization")]),
        ..GET
    },
    Situation {
        name: "partition-user-stored",
        toml: USER,
        before: &[Step::Get(&[("authorization", ZOE)])],
        fields: &[("authorization", ZOE)],
        ..GET
    },
    Situation {
        name: "partition-user-of-another",
        toml: USER,
        before: &[Step::Get(&[("authorization", BOB)])],
        fields: &[("authorization", ZOE)],
        ..GET
    },
    Situation {
        name: "partition-user-recheck",
        toml: RECHECK,
        before: &[Step::Get(&[("authorization", ZOE)]), Step::Wait(11)],
        fields: &[("authorization", ZOE)],
        ..GET
    },
    Situation {
        name: "partition-user-write",
        toml: USER,
        method: "PUT",
        fields: &[("authorization", ZOE)],
        response: OK,
        ..GET
    },
    Situation {
        name: "partition-forged-token",
        toml: USER,
        fields: &[("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJjNG40cnk1ZWNyZXQifQ.")],
        ..GET
    },
    Situation {
        name: "partition-second-credential",
        toml: USER,
        fields: &[("authorization", ZOE), ("cookie", "sessionid=c4n4ry5ecret")],
        ..GET
    },
    Situation {
        name: "partition-authenticated",
        toml: AUTHENTICATED,
        fields: &[("authorization", ZOE)],
        response: OK,
        ..GET
    },
    Situation {
        name: "partition-authenticated-private",
        toml: AUTHENTICATED,
        fields: &[("authorization", ZOE)],
        response: with(&[("cache-control", "private, max-age=60")]),
        ..GET
    },
    Situation {
        name: "partition-authenticated-vary",
        toml: AUTHENTICATED,
        fields: &[("authorization", ZOE)],
        response: with(&[("cache-control", "max-age=60"), ("vary", "Authorization")]),
        ..GET
    },
    Situation {
        name: "partition-claim",
        toml: CLAIM,
        fields: &[("authorization", ZOE)],
        response: OK,
        ..GET
    },
    Situation {
        name: "partition-claim-missing",
        toml: CLAIM,
        fields: &[("authorization", BOB)],
        response: OK,
        ..GET
    },
    Situation {
        name: "graphql-operation",
        toml: GRAPHQL,
        target: "/graphql?query={branchList{id}}",
        ..GET
    },
];
