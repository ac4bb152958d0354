//! The explanation as data, and as the JSON of `POST /v1/explain` and `larder explain --json`.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

/// How Larder handles one request. Contains no credential values.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub request: RequestLine,
    pub route: ExplainedRoute,
    /// Fields removed before any decision.
    pub removed: Vec<RemovedField>,
    /// The parts of the request that may identify the client.
    pub credentials: Vec<ExplainedCredential>,
    /// The group of clients that shares the response.
    pub partition: ExplainedPartition,
    /// The cache key; none if the cache is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<ExplainedKey>,
    /// The decisions about the request, up to the final one.
    pub decisions: Vec<ExplainedDecision>,
    pub outcome: ExplainedOutcome,
    /// How the request to the origin differs from the client's.
    pub origin: ExplainedOrigin,
    /// The stored response, on a running node only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<ExplainedStored>,
    /// The last purge that selects the response, on a running node only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<ExplainedPurge>,
    /// How the given response is handled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<ExplainedResponse>,
    /// What a write by this request invalidates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invalidates: Vec<String>,
    /// The selectors that purge the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selectors: Option<Selectors>,
    pub answer: ClientResult,
}

/// Method and URL, with masked credentials.
#[derive(Debug, Clone, Serialize)]
pub struct RequestLine {
    pub method: String,
    pub url: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedRoute {
    pub name: String,
    /// Its `match`; none for the default route.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// Earlier routes that do not match.
    pub before: Vec<UnmatchedRoute>,
    /// Alternative readings of the path; none if all servers agree.
    pub readings: Vec<ExplainedReading>,
    /// Whether all readings select this route.
    pub agree: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct UnmatchedRoute {
    pub name: String,
    #[serde(rename = "match")]
    pub pattern: String,
    /// The part that does not match: `method`, `host` or `path`.
    pub differs: &'static str,
}

/// An alternative reading of a path.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedReading {
    /// How this reading arises.
    pub form: &'static str,
    /// The path in this reading.
    pub path: String,
    /// The route that it selects.
    pub route: String,
}

/// A field removed from the request.
#[derive(Debug, Clone, Serialize)]
pub struct RemovedField {
    pub name: String,
    pub why: &'static str,
}

/// A part of a request that may identify the client. Its value is never shown.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedCredential {
    /// Its location: `header`, `cookie` or `parameter`.
    pub place: &'static str,
    pub name: String,
    /// Its classification.
    pub kind: &'static str,
    /// The reason for the classification, and its effect.
    pub why: String,
}

/// The group of clients that shares the responses.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedPartition {
    /// The route's `partition`; `none` if it has none.
    pub kind: String,
    /// The meaning of that value.
    pub means: &'static str,
    /// The identity, if the partition depends on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<ExplainedIdentity>,
}

/// The identity of the client. Claim values are masked.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedIdentity {
    /// The token issuer; empty for gateways and exact credentials.
    pub issuer: String,
    /// The parts that form the identity.
    pub made_of: String,
    /// When the credential expires, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
}

/// The cache key in words. Requests share a response only if their keys are equal.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedKey {
    /// The method; `GET` also for `HEAD`.
    pub method: String,
    pub scheme: &'static str,
    /// The host requested by the client.
    pub host: String,
    /// The `Host` sent to the origin, if different.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_host: Option<String>,
    /// The path sent to the origin.
    pub path: String,
    /// The relevant part of the query, with masked credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    pub left_out: Vec<String>,
    /// What the key has of the body, if it is part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Fields set by a trusted proxy that describe the original request.
    pub forwarded: Vec<String>,
    pub cookies: Vec<String>,
    /// Fields and cookies that the route varies by.
    pub vary: Vec<String>,
    /// The kind of the partition, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Why responses with this key stay in the memory of one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_here: Option<&'static str>,
    /// An id that is equal for two requests if and only if their keys are.
    pub id: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedDecision {
    pub question: &'static str,
    pub answer: String,
    /// The reason, if the decision is final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedOutcome {
    /// `lookup`: from the cache, if possible. `refresh`: from the origin, and stored. `shadow`: from
    /// the origin, and the cache is measured. `pass`: from the origin, without the cache. `refused`:
    /// rejected by Larder.
    pub outcome: &'static str,
    /// The reason, unless the cache may respond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    pub means: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

/// How the request to the origin differs from the client's.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedOrigin {
    /// Request line and host sent to the origin.
    pub asked: String,
    /// Fields that Larder adds or changes.
    pub added: Vec<String>,
    /// Names of fields that Larder removes.
    pub left_out: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedStored {
    pub status: u16,
    /// `memory`, or `redis` if this node does not have it in memory.
    pub tier: &'static str,
    pub age: HumanDuration,
    /// Remaining freshness; none if it is stale.
    pub fresh_for: Option<HumanDuration>,
    /// Time since it became stale.
    pub stale_for: Option<HumanDuration>,
    /// The purge record that precedes its fetch.
    pub fetched_after: u64,
    /// The cause, if a soft purge or a new namespace version made it stale.
    pub made_stale_by: Option<&'static str>,
    /// Size of its body in bytes.
    pub bytes: u64,
    /// Its content coding for this client, if the route encodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<ExplainedEncoding>,
    pub tags: Vec<String>,
    /// Number of variants stored for the target, if there are any.
    pub variants: Option<usize>,
}

/// The form in which the client receives a stored response.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ExplainedEncoding {
    /// The content coding; none if the response is sent as it is stored.
    pub coding: Option<&'static str>,
    /// The reason.
    pub means: &'static str,
}

/// A purge of the response.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedPurge {
    /// Its sequence number in the purge log.
    pub seq: u64,
    pub at: String,
    /// `hard` or `soft`.
    pub mode: &'static str,
    /// The kind of trigger.
    pub source: &'static str,
    /// Whether the stored response was fetched after it.
    pub is_before: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedResponse {
    pub status: u16,
    pub stored: bool,
    /// The reason if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    pub means: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    /// How long it may be used.
    pub lifetime: Lifetime,
    /// Fields that are not stored with it.
    pub not_kept: Vec<String>,
    /// Request fields that it varies by.
    pub varies_by: Vec<String>,
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// Its content coding for this client once it is stored, if the route encodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<ExplainedEncoding>,
}

/// The calculation of a lifetime.
#[derive(Debug, Clone, Serialize)]
pub struct Lifetime {
    /// The lifetime set by the origin, with the directive.
    pub by_origin: Option<(HumanDuration, &'static str)>,
    /// The lifetime set by the route's `ttl` for this status.
    pub by_ttl: Option<HumanDuration>,
    /// Which lifetime has priority: `origin`, `rule`, `min` or `max`.
    pub ttl_from: &'static str,
    /// The basis of the result: `origin`, `ttl`, `heuristic` or `nothing`.
    pub basis: &'static str,
    /// Its age on arrival.
    pub age: HumanDuration,
    /// How long it is fresh from then on.
    pub fresh_for: HumanDuration,
    /// How long it may then be served stale during revalidation.
    pub stale_while_revalidate: HumanDuration,
    /// How long it may then be served stale if the origin fails.
    pub stale_if_error: HumanDuration,
    /// How long it may then be served stale if the origin is unreachable.
    pub stale_if_disconnected: HumanDuration,
    /// Whether it is validated before each use.
    pub validated: bool,
}

/// The selectors that purge a response.
#[derive(Debug, Clone, Serialize)]
pub struct Selectors {
    pub url: String,
    /// The tags known from the request and the given response.
    pub tags: Vec<String>,
    /// The tags taken from the JSON of the response.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub body_tags: Vec<String>,
    pub route: String,
    pub version: String,
    /// Whether a purge of its user selects it.
    pub by_user: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct ClientResult {
    /// The value of `X-API-Cache`, or the possible values.
    pub result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    pub means: String,
}

/// A duration; in JSON a number of seconds.
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
    /// Formats the duration as in the configuration: `1h30m`.
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
