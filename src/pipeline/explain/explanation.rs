//! What an explanation says, as data: `POST /v1/explain` and `larder explain --json` give it as JSON.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

/// Everything that is known of what Larder does with one request. It holds no value of a credential.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The request.
    pub request: RequestLine,
    /// The route that governs it.
    pub route: ExplainedRoute,
    /// The fields that are taken off it before anything is decided.
    pub removed: Vec<RemovedField>,
    /// What in it may say who asks.
    pub credentials: Vec<ExplainedCredential>,
    /// Who shares the response.
    pub partition: ExplainedPartition,
    /// The key of the response; none if the cache is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<ExplainedKey>,
    /// The decisions about the request, in order, up to the one that settles it.
    pub decisions: Vec<ExplainedDecision>,
    /// What becomes of the request.
    pub outcome: ExplainedOutcome,
    /// What the origin is sent, where that differs from what the client sent.
    pub origin: ExplainedOrigin,
    /// What is stored for it now; only from a running node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<ExplainedStored>,
    /// The last purge that selects such a response; only from a running node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<ExplainedPurge>,
    /// What becomes of the response, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<ExplainedResponse>,
    /// What a write through this request invalidates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invalidates: Vec<String>,
    /// How the response is purged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selectors: Option<Selectors>,
    /// What the client gets.
    pub answer: ClientResult,
}

/// Method and URL, credentials masked.
#[derive(Debug, Clone, Serialize)]
pub struct RequestLine {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
}

/// The route that governs a request.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedRoute {
    /// Its name.
    pub name: String,
    /// Its `match`; none for what no route matches.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// The routes that are tried before it and do not match.
    pub before: Vec<UnmatchedRoute>,
    /// How servers may read the path; none if all read it as it is.
    pub readings: Vec<ExplainedReading>,
    /// Whether all readings of the path select this route.
    pub agree: bool,
}

/// A route that does not match.
#[derive(Debug, Clone, Serialize)]
pub struct UnmatchedRoute {
    /// Its name.
    pub name: String,
    /// Its `match`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What about the request does not fit: `method`, `host` or `path`.
    pub differs: &'static str,
}

/// A reading of a path.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedReading {
    /// How it comes about.
    pub form: &'static str,
    /// The path so read.
    pub path: String,
    /// The route it selects.
    pub route: String,
}

/// A field that is taken off a request.
#[derive(Debug, Clone, Serialize)]
pub struct RemovedField {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: &'static str,
}

/// Something in a request that may say who asks. Its value is shown nowhere.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedCredential {
    /// Where it stands: `header`, `cookie` or `parameter`.
    pub place: &'static str,
    /// Its name.
    pub name: String,
    /// What it is taken for.
    pub kind: &'static str,
    /// Why it is taken for that, and what follows.
    pub why: String,
}

/// Who shares the responses.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedPartition {
    /// The route's `partition`; `none` if it has none.
    pub kind: String,
    /// What that means.
    pub means: &'static str,
    /// Who asks, if the partition depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<ExplainedIdentity>,
}

/// Who asks. The values of claims are masked.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedIdentity {
    /// Who says so; empty for a gateway or exact credentials.
    pub issuer: String,
    /// What the identity is made of.
    pub made_of: String,
    /// When the credential ends, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// The key in words. Two requests share a response only if their keys are the same.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedKey {
    /// The method; `GET` for a `HEAD`, too.
    pub method: String,
    /// The scheme.
    pub scheme: &'static str,
    /// The host that the client asks for.
    pub host: String,
    /// The `Host` that the origin is sent, if it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_host: Option<String>,
    /// The path as it is forwarded.
    pub path: String,
    /// The query as far as it counts, credentials masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The names of parameters that do not count.
    pub left_out: Vec<String>,
    /// Fields in which a trusted proxy says what the client asked for.
    pub forwarded: Vec<String>,
    /// Cookies that choose what is shown.
    pub cookies: Vec<String>,
    /// Fields and cookies that the route separates by.
    pub vary: Vec<String>,
    /// The kind of its partition, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Why responses under it stay in the memory of one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_here: Option<&'static str>,
    /// The same for two requests if, and only if, their keys are.
    pub id: String,
}

/// One decision about a request.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedDecision {
    /// What is asked.
    pub question: &'static str,
    /// The answer.
    pub answer: String,
    /// Whether it settles what becomes of the request, and by which reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedOutcome {
    /// `lookup`: the cache may answer. `refresh`: the origin answers, and that is stored. `pass`: the origin
    /// answers, the cache has no part in it. `refused`: Larder says no.
    pub outcome: &'static str,
    /// Why, unless the cache may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The same in a sentence.
    pub means: String,
    /// What to do if that is not wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

/// How the request that the origin gets differs from the client's.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedOrigin {
    /// The request line and host that it gets.
    pub asked: String,
    /// Fields that it gets and the client did not send, or not so.
    pub added: Vec<String>,
    /// Names of fields that it does not get.
    pub left_out: Vec<String>,
}

/// What is stored.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedStored {
    /// Its status.
    pub status: u16,
    /// `memory`, or `redis` if it is not in the memory of this node.
    pub tier: &'static str,
    /// How old it is.
    pub age: HumanDuration,
    /// For how long it is fresh yet; none if it is stale.
    pub fresh_for: Option<HumanDuration>,
    /// How long it has been stale.
    pub stale_for: Option<HumanDuration>,
    /// The record of the purge log that it was fetched after.
    pub fetched_after: u64,
    /// Whether a soft purge or a new version of the namespace makes it stale.
    pub made_stale_by: Option<&'static str>,
    /// Bytes of its body.
    pub bytes: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// How many variants are stored for its target, if there are any.
    pub variants: Option<usize>,
}

/// A purge.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedPurge {
    /// Its place in the purge log.
    pub seq: u64,
    /// When it came.
    pub at: String,
    /// `hard` or `soft`.
    pub mode: &'static str,
    /// Where it came from.
    pub source: &'static str,
    /// Whether what is stored was fetched after it.
    pub is_before: bool,
}

/// What becomes of a response.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedResponse {
    /// Its status.
    pub status: u16,
    /// Whether it is stored.
    pub stored: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The same in a sentence.
    pub means: String,
    /// What to do if that is not wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    /// For how long it is of use.
    pub lifetime: Lifetime,
    /// Fields that are not kept with it.
    pub not_kept: Vec<String>,
    /// Request fields by which it varies.
    pub varies_by: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// The `Cache-Control` that clients get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
}

/// The arithmetic of a lifetime.
#[derive(Debug, Clone, Serialize)]
pub struct Lifetime {
    /// What the origin says, and by which directive.
    pub by_origin: Option<(HumanDuration, &'static str)>,
    /// What the route's `ttl` says for this status.
    pub by_ttl: Option<HumanDuration>,
    /// Who decides between the two.
    pub ttl_from: &'static str,
    /// What decided: `origin`, `ttl`, `heuristic` or `nothing`.
    pub basis: &'static str,
    /// How old the response is when it arrives.
    pub age: HumanDuration,
    /// For how long it is fresh from then on.
    pub fresh_for: HumanDuration,
    /// For how long after that it may be served while it is renewed.
    pub stale_while_revalidate: HumanDuration,
    /// For how long after that it may be served if the origin fails.
    pub stale_if_error: HumanDuration,
    /// For how long after that it may be served if the origin cannot be reached.
    pub stale_if_disconnected: HumanDuration,
    /// Whether it is validated before each use.
    pub validated: bool,
}

/// What selects a response to purge it.
#[derive(Debug, Clone, Serialize)]
pub struct Selectors {
    /// Its URL in the form in which purges compare it.
    pub url: String,
    /// Its tags, as far as the request and the given response tell them.
    pub tags: Vec<String>,
    /// Tags that are made of the JSON of the response.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub body_tags: Vec<String>,
    /// Its route.
    pub route: String,
    /// Its version of the namespace.
    pub version: String,
    /// Whether a purge of its user selects it.
    pub by_user: bool,
}

/// What the client gets.
#[derive(Debug, Clone, Serialize)]
pub struct ClientResult {
    /// The value of `X-API-Cache`, or what it may be.
    pub result: &'static str,
    /// The `detail` of `Cache-Status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The same in a sentence.
    pub means: String,
}

/// A time, in JSON as seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.subsec_millis() == 0 {
            serializer.serialize_u64(self.0.as_secs())
        } else {
            serializer.serialize_f64(self.0.as_secs_f64())
        }
    }
}

impl fmt::Display for HumanDuration {
    /// As in the configuration: `1h30m`.
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return to.write_str("0s");
        }
        for (unit, millis) in
            [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)]
        {
            if rest >= millis {
                write!(to, "{}{unit}", rest / millis)?;
                rest %= millis;
            }
        }
        Ok(())
    }
}
