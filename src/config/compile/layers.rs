//! Merging of defaults, tiers and routes.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use serde_json_path::JsonPath;

use super::{
    problems::Problems,
    request_rules::{bypass, query_rule, vary_rule},
    ttl,
};
use crate::{
    coding::ContentCoding,
    config::{
        file::{
            BypassTable, CompareTable, DefaultsTable, Located, QueryTable, RouteSection, Text,
            Texts, TierTable, TtlValue, VaryTable,
        },
        report::Finding,
        suggest::{did_you_mean, nearest},
    },
    key::uri::QueryRule,
    policy::{CacheRule, ClientCacheControl, Partition, Ttl, TtlFrom},
    route::{
        AddedVary, BypassRule, ComparisonRule, SampleRate, UserPlaceholder, Verification, json_path,
    },
};

/// The keys that defaults, tiers and routes have in common.
#[derive(Clone, Copy)]
struct CommonKeys<'a> {
    cache: Option<bool>,
    sensitive: Option<bool>,
    partition: Option<&'a Text>,
    ttl: Option<&'a Located<TtlValue>>,
    ttl_from: Option<&'a Text>,
    stale_while_revalidate: Option<&'a Text>,
    stale_if_error: Option<&'a Text>,
    stale_if_disconnected: Option<&'a Text>,
    tags: Option<&'a Texts>,
    query: Option<&'a Located<QueryTable>>,
    vary: Option<&'a Located<VaryTable>>,
    bypass: Option<&'a Located<BypassTable>>,
    store_unless: Option<&'a Texts>,
    client_cache: Option<&'a Text>,
    client_cache_control: Option<&'a Text>,
    encode: Option<&'a Texts>,
    encode_private: Option<&'a Located<bool>>,
    detect_leaks: Option<bool>,
    shadow: Option<&'a Located<bool>>,
    audit: Option<&'a Text>,
    compare: Option<&'a Located<CompareTable>>,
}

macro_rules! keys {
    ($table:expr, $cache:expr, $sensitive:expr) => {
        CommonKeys {
            cache: $cache,
            sensitive: $sensitive,
            partition: $table.partition.as_ref(),
            ttl: $table.ttl.as_ref(),
            ttl_from: $table.ttl_from.as_ref(),
            stale_while_revalidate: $table.stale_while_revalidate.as_ref(),
            stale_if_error: $table.stale_if_error.as_ref(),
            stale_if_disconnected: $table.stale_if_disconnected.as_ref(),
            tags: $table.tags.as_ref(),
            query: $table.query.as_ref(),
            vary: $table.vary.as_ref(),
            bypass: $table.bypass.as_ref(),
            store_unless: $table.store_unless.as_ref(),
            client_cache: $table.client_cache.as_ref(),
            client_cache_control: $table.client_cache_control.as_ref(),
            encode: $table.encode.as_ref(),
            encode_private: $table.encode_private.as_ref(),
            detect_leaks: $table.detect_leaks.as_ref().map(|flag| flag.value),
            shadow: $table.shadow.as_ref(),
            audit: $table.audit.as_ref(),
            compare: $table.compare.as_ref(),
        }
    };
}

/// The caching settings of one layer: defaults, a tier or a route.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer<'a> {
    cache: Option<bool>,
    sensitive: Option<bool>,
    partition: Option<Partition>,
    ttl: Ttl,
    ttl_from: Option<TtlFrom>,
    stale_while_revalidate: Option<Duration>,
    stale_if_error: Option<Duration>,
    stale_if_disconnected: Option<Duration>,
    client_cache_control: Option<ClientCacheControl>,
    shadow: Option<bool>,
    audit: Option<SampleRate>,
    comparison: Option<ComparisonRule>,
    pub(super) tags: Option<&'a Texts>,
    pub(super) query: Option<QueryRule>,
    pub(super) vary: Option<AddedVary>,
    pub(super) bypass: Option<Located<BypassRule>>,
    pub(super) store_unless: Option<Arc<[JsonPath]>>,
    pub(super) client_cache: Option<HeaderValue>,
    encode: Option<Box<[ContentCoding]>>,
    encode_private: Option<bool>,
    pub(super) detect_leaks: Option<bool>,
}

impl<'a> Layer<'a> {
    pub(super) fn of_defaults(table: &'a DefaultsTable, problems: &mut Problems<'_>) -> Self {
        Self::read(keys!(table, None, None), problems)
    }

    pub(super) fn of_tier(table: &'a TierTable, problems: &mut Problems<'_>) -> Self {
        Self::read(keys!(table, table.cache, table.sensitive), problems)
    }

    pub(super) fn of_route(table: &'a RouteSection, problems: &mut Problems<'_>) -> Self {
        Self::read(keys!(table, table.cache, table.sensitive), problems)
    }

    fn read(keys: CommonKeys<'a>, problems: &mut Problems<'_>) -> Self {
        let bypass = keys.bypass.map(|table| Located {
            value: bypass(table, problems),
            span: table.refresh.as_ref().map_or(&table.span, |flag| &flag.span).clone(),
        });
        Self {
            cache: keys.cache,
            sensitive: keys.sensitive,
            partition: keys.partition.and_then(|text| partition(text, problems)),
            ttl: ttl::compile(keys.ttl, problems),
            ttl_from: ttl_from(keys.ttl_from, problems),
            stale_while_revalidate: problems.duration(keys.stale_while_revalidate),
            stale_if_error: problems.duration(keys.stale_if_error),
            stale_if_disconnected: problems.duration(keys.stale_if_disconnected),
            client_cache_control: client_cache_control(keys.client_cache_control, problems),
            shadow: keys.shadow.map(|flag| flag.value),
            audit: keys.audit.and_then(|text| sample_rate(text, problems)),
            comparison: keys.compare.map(|table| comparison(table, problems)),
            tags: keys.tags,
            query: keys.query.map(|table| query_rule(table, problems)),
            vary: keys.vary.map(|table| vary_rule(table, problems)),
            bypass,
            store_unless: keys.store_unless.map(|texts| paths(texts, problems)),
            client_cache: keys.client_cache.and_then(|text| field_value(text, problems)),
            encode: keys.encode.map(|texts| codings(texts, problems)),
            encode_private: keys.encode_private.map(|flag| flag.value),
            detect_leaks: keys.detect_leaks,
        }
    }

    /// Merges a lower layer into this one, which takes precedence. `ttl` is merged by status. All
    /// other keys are replaced as a whole: a route's `tags` or `query` replace those of its tier.
    pub(super) fn over(self, lower: &Self) -> Self {
        let lower = lower.clone();
        Self {
            cache: self.cache.or(lower.cache),
            sensitive: self.sensitive.or(lower.sensitive),
            partition: self.partition.or(lower.partition),
            ttl: self.ttl.over(&lower.ttl),
            ttl_from: self.ttl_from.or(lower.ttl_from),
            stale_while_revalidate: self.stale_while_revalidate.or(lower.stale_while_revalidate),
            stale_if_error: self.stale_if_error.or(lower.stale_if_error),
            stale_if_disconnected: self.stale_if_disconnected.or(lower.stale_if_disconnected),
            client_cache_control: self.client_cache_control.or(lower.client_cache_control),
            shadow: self.shadow.or(lower.shadow),
            audit: self.audit.or(lower.audit),
            comparison: self.comparison.or(lower.comparison),
            tags: self.tags.or(lower.tags),
            query: self.query.or(lower.query),
            vary: self.vary.or(lower.vary),
            bypass: self.bypass.or(lower.bypass),
            store_unless: self.store_unless.or(lower.store_unless),
            client_cache: self.client_cache.or(lower.client_cache),
            encode: self.encode.or(lower.encode),
            encode_private: self.encode_private.or(lower.encode_private),
            detect_leaks: self.detect_leaks.or(lower.detect_leaks),
        }
    }

    /// Returns the content codings of the merged layers. Private responses are not encoded without
    /// `encode_private`: their lengths would reveal secrets next to text that an attacker chooses
    /// (BREACH).
    pub(super) fn codings(&self) -> Box<[ContentCoding]> {
        let is_private = self.partition.as_ref().is_some_and(Partition::needs_identity);
        if is_private && self.encode_private != Some(true) {
            return Box::default();
        }
        self.encode.clone().unwrap_or_default()
    }

    /// Returns how stored responses are verified. Shadow mode compares every response, so it takes
    /// precedence.
    pub(super) fn verification(&self) -> Verification {
        match self.audit.filter(|rate| !rate.is_zero()) {
            _ if self.shadow == Some(true) => Verification::Shadow,
            Some(rate) => Verification::Audit(rate),
            None => Verification::Off,
        }
    }

    /// Returns the parts of responses that comparisons ignore.
    pub(super) fn comparison(&self) -> ComparisonRule {
        self.comparison.clone().unwrap_or_default()
    }

    /// Returns the caching rule of the merged layers. A partition by exact credentials serves
    /// nothing stale while the origin is unreachable, as their expiry is unknown.
    pub(super) fn rule(&self, users: UserPlaceholder) -> CacheRule {
        let partition = self.partition.clone().unwrap_or_default();
        let is_exact = partition == Partition::User && users == UserPlaceholder::Undefined;
        let if_disconnected =
            self.stale_if_disconnected.unwrap_or(CacheRule::STALE_IF_DISCONNECTED);
        CacheRule {
            cache: self.cache.unwrap_or(true),
            sensitive: self.sensitive.unwrap_or(false),
            partition,
            ttl: self.ttl.clone(),
            ttl_from: self.ttl_from.unwrap_or_default(),
            stale_while_revalidate: self.stale_while_revalidate,
            stale_if_error: self.stale_if_error,
            stale_if_disconnected: if is_exact { Duration::ZERO } else { if_disconnected },
            client_cache_control: self.client_cache_control.unwrap_or_default(),
        }
    }
}

fn codings(texts: &Texts, problems: &mut Problems<'_>) -> Box<[ContentCoding]> {
    let words = ContentCoding::ALL.map(|coding| (coding.as_str(), coding));
    let mut codings = Vec::with_capacity(texts.len());
    for text in texts.iter() {
        match problems.one_of(Some(text), &words) {
            Some(coding) if codings.contains(&coding) => {
                problems.error(&text.span, "this coding is listed twice");
            }
            coding => codings.extend(coding),
        }
    }
    codings.into()
}

fn sample_rate(text: &Text, problems: &mut Problems<'_>) -> Option<SampleRate> {
    let read = |text: &str| {
        SampleRate::parse(text).ok_or("expected a percentage in quotes such as `\"1%\"`")
    };
    problems.read(text, read)
}

fn comparison(table: &CompareTable, problems: &mut Problems<'_>) -> ComparisonRule {
    let ignore = table.ignore.as_ref().map(|texts| paths(texts, problems));
    ComparisonRule { ignore: ignore.unwrap_or_default() }
}

fn partition(text: &Text, problems: &mut Problems<'_>) -> Option<Partition> {
    let partition = Partition::parse(text);
    if partition.is_none() {
        let message =
            "expected `everyone`, `authenticated`, `user`, or claims such as `claim:tenant`";
        let help = did_you_mean(nearest(text, ["everyone", "authenticated", "user"]));
        problems.push(Finding::error(Some(text.span.clone()), message).maybe_help(help));
    }
    partition
}

fn ttl_from(text: Option<&Text>, problems: &mut Problems<'_>) -> Option<TtlFrom> {
    let words = [
        ("origin", TtlFrom::Origin),
        ("rule", TtlFrom::Rule),
        ("min", TtlFrom::Min),
        ("max", TtlFrom::Max),
    ];
    problems.one_of(text, &words)
}

fn client_cache_control(
    text: Option<&Text>,
    problems: &mut Problems<'_>,
) -> Option<ClientCacheControl> {
    let words = [("honor", ClientCacheControl::Honor), ("ignore", ClientCacheControl::Ignore)];
    problems.one_of(text, &words)
}

fn field_value(text: &Text, problems: &mut Problems<'_>) -> Option<HeaderValue> {
    problems.read(text, |text| HeaderValue::from_str(text).map_err(|_| "invalid field value"))
}

fn paths(texts: &Texts, problems: &mut Problems<'_>) -> Arc<[JsonPath]> {
    let mut paths = Vec::with_capacity(texts.len());
    for text in texts.iter() {
        match json_path::parse(text) {
            Ok(path) => paths.push(path),
            Err(error) => {
                let finding = Finding::error(Some(text.span.clone()), error.to_string());
                problems.push(finding.help("a JSONPath begins with `$`, as in `$.errors[0]`"));
            }
        }
    }
    paths.into()
}
