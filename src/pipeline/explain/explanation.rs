//! The explanation as data, and as the JSON of `POST /v1/explain` and `larder explain --json`.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

/// How Larder handles one request. Contains no credential values.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    pub request: RequestLine,
    pub route: ExplainedRoute,
    /// Header fields that were removed before any decision.
    pub removed: Vec<RemovedField>,
    /// The parts of the request that may identify the client.
    pub credentials: Vec<ExplainedCredential>,
    /// The group of clients that shares the response.
    pub partition: ExplainedPartition,
    /// The cache key; `None` if the cache is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<ExplainedKey>,
    /// The decisions about the request, up to the final one.
    pub decisions: Vec<ExplainedDecision>,
    pub outcome: ExplainedOutcome,
    /// How the request to the origin differs from the client's.
    pub origin: ExplainedOrigin,
    /// The stored response; `None` if nothing is stored or no node is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<ExplainedStored>,
    /// The last purge that selects the response; `None` if there is none or no node is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub purged: Option<ExplainedPurge>,
    /// How the given response is handled; `None` if none was given or the cache is not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<ExplainedResponse>,
    /// What the request invalidates if it is a successful write.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invalidates: Vec<String>,
    /// The selectors that purge the response; `None` if the cache is not used.
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
    /// The route's `match`; `None` for the default route.
    #[serde(rename = "match")]
    pub pattern: Option<String>,
    /// Earlier routes that do not match.
    pub before: Vec<UnmatchedRoute>,
    /// Alternative readings of the path; empty if all servers agree.
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
    /// The route that this reading selects.
    pub route: String,
}

/// A header field that was removed from the request.
#[derive(Debug, Clone, Serialize)]
pub struct RemovedField {
    pub name: String,
    pub why: &'static str,
}

/// A part of a request that may identify the client, without its value.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedCredential {
    /// The location in the request: `header`, `cookie` or `parameter`.
    pub place: &'static str,
    pub name: String,
    /// The kind of the header field, cookie or parameter, such as `credential` or `session`.
    pub kind: &'static str,
    /// The reason for the classification, and its effect.
    pub why: String,
}

/// The group of clients that shares the responses.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedPartition {
    /// The route's `partition`; `none` if it has none.
    pub kind: String,
    /// The meaning of `kind`.
    pub means: &'static str,
    /// The identity; `None` if the partition depends on none.
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
    /// The `Host` sent to the origin, if it differs from `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin_host: Option<String>,
    /// The path sent to the origin.
    pub path: String,
    /// The relevant part of the query, with masked credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    pub left_out: Vec<String>,
    /// A description of the body, if it is part of the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Fields set by a trusted proxy that describe the original request.
    pub forwarded: Vec<String>,
    pub cookies: Vec<String>,
    /// Fields and cookies that the route varies by.
    pub vary: Vec<String>,
    /// The kind of the partition; `None` without a partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Why responses with this key stay in the memory of one node, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_here: Option<&'static str>,
    /// An id that is equal for two requests if and only if their keys are equal.
    pub id: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedDecision {
    pub question: &'static str,
    pub answer: String,
    /// The reason; `None` unless the decision is final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedOutcome {
    /// `lookup`: from the cache, if possible. `refresh`: from the origin, and stored. `shadow`: from
    /// the origin, and the cache is measured. `pass`: from the origin, without the cache. `refused`:
    /// rejected by Larder.
    pub outcome: &'static str,
    /// The reason; `None` if the cache may respond.
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
    /// `memory`, or `redis` if this node does not have the response in memory.
    pub tier: &'static str,
    pub age: HumanDuration,
    /// Remaining freshness; `None` if the response is stale.
    pub fresh_for: Option<HumanDuration>,
    /// Time since the response became stale; `None` if it is fresh.
    pub stale_for: Option<HumanDuration>,
    /// Sequence number of the last purge record before the response was fetched.
    pub fetched_after: u64,
    /// The cause if a soft purge or a new namespace version made the response stale.
    pub made_stale_by: Option<&'static str>,
    /// Size of the response's body, in bytes.
    pub bytes: u64,
    /// The content coding for this client; `None` if the route does not encode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<ExplainedEncoding>,
    pub tags: Vec<String>,
    /// Number of variants stored for the target, if there are any.
    pub variants: Option<usize>,
}

/// The form in which the client receives a stored response.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ExplainedEncoding {
    /// The content coding; `None` if the response is sent as stored.
    pub coding: Option<&'static str>,
    /// The reason for the coding.
    pub means: &'static str,
}

/// A purge of the response.
#[derive(Debug, Clone, Serialize)]
pub struct ExplainedPurge {
    /// The sequence number of the purge in the purge log.
    pub seq: u64,
    pub at: String,
    /// `hard` or `soft`.
    pub mode: &'static str,
    /// The kind of trigger that sent the purge.
    pub source: &'static str,
    /// Whether the stored response was fetched after the purge.
    pub is_before: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedResponse {
    pub status: u16,
    pub stored: bool,
    /// The reason if the response is not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    pub means: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
    /// How long the response may be used.
    pub lifetime: Lifetime,
    /// Header fields that are not stored with the response.
    pub not_kept: Vec<String>,
    /// Request fields by which the response varies.
    pub varies_by: Vec<String>,
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<String>,
    /// The content coding for this client once the response is stored; `None` if the route does not
    /// encode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding: Option<ExplainedEncoding>,
}

/// The calculation of a lifetime.
#[derive(Debug, Clone, Serialize)]
pub struct Lifetime {
    /// The lifetime set by the origin, and the directive that sets it.
    pub by_origin: Option<(HumanDuration, &'static str)>,
    /// The lifetime set by the route's `ttl` for this status.
    pub by_ttl: Option<HumanDuration>,
    /// Which lifetime has priority: `origin`, `rule`, `min` or `max`.
    pub ttl_from: &'static str,
    /// The basis of the lifetime: `origin`, `ttl`, `heuristic` or `nothing`.
    pub basis: &'static str,
    /// The age of the response on arrival.
    pub age: HumanDuration,
    /// How long the response is fresh after its arrival.
    pub fresh_for: HumanDuration,
    /// How long the response may then be served stale during revalidation.
    pub stale_while_revalidate: HumanDuration,
    /// How long the response may then be served stale if the origin fails.
    pub stale_if_error: HumanDuration,
    /// How long the response may then be served stale if the origin is unreachable.
    pub stale_if_disconnected: HumanDuration,
    /// Whether the response is validated before each use.
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
    /// Whether a purge by user selects the response.
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
