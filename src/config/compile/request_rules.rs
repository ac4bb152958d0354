//! Compilation of `query`, `vary` and `bypass`: the parts of a request that matter to a route.

use http::HeaderName;
use serde_json::Value;

use super::problems::Problems;
use crate::{
    config::file::{BypassTable, QueryTable, VaryTable},
    key::uri::{
        DefaultValue, NamePattern, NamePatternError, QueryForwarding, QueryOrder, QueryRule,
        ValueRule,
    },
    policy::storable::carries_client_address,
    route::{
        AddedVary, BypassRule,
        condition::{HeaderCondition, QueryCondition},
    },
};

pub(super) fn query_rule(table: &QueryTable, problems: &mut Problems<'_>) -> QueryRule {
    let name = |text: &str| {
        NamePattern::parse(text).map_err(|error| match error {
            NamePatternError::Empty => "expected a parameter name",
            NamePatternError::Wildcard => "a `*` is allowed only at the beginning or the end",
        })
    };
    QueryRule {
        ignore: problems.each(table.ignore.as_ref(), name).into(),
        only: table.only.as_ref().map(|only| problems.each(Some(only), name).into()),
        order: if table.sort == Some(true) { QueryOrder::Sorted } else { QueryOrder::AsSent },
        forwarding: problems
            .one_of(
                table.forward.as_ref(),
                &[("kept", QueryForwarding::Kept), ("all", QueryForwarding::All)],
            )
            .unwrap_or_default(),
        values: ValueRule {
            lists: problems.each(table.lists.as_ref(), name).into(),
            defaults: defaults(table, problems),
        },
    }
}

/// Returns the default values of query parameters, which requests may omit.
fn defaults(table: &QueryTable, problems: &mut Problems<'_>) -> Box<[DefaultValue]> {
    let mut defaults = Vec::with_capacity(table.defaults.len());
    for (name, values) in &table.defaults {
        let value = match values.0.as_slice() {
            [Value::String(text)] => text.clone(),
            [value @ (Value::Number(_) | Value::Bool(_))] => value.to_string(),
            _ => {
                problems.error(&name.span(), "expected one value, such as `page = \"1\"`");
                continue;
            }
        };
        if name.get_ref().is_empty() {
            problems.error(&name.span(), "expected a parameter name");
            continue;
        }
        defaults.push(DefaultValue { name: name.get_ref().as_str().into(), value: value.into() });
    }
    defaults.into()
}

pub(super) fn vary_rule(table: &VaryTable, problems: &mut Problems<'_>) -> AddedVary {
    let header = |text: &str| match text.parse::<HeaderName>() {
        Ok(name) if carries_client_address(name.as_str().as_bytes()) => Err(
            "this field holds the client's address, which no key contains; use `cache = false` instead",
        ),
        name => name.map_err(|_| "invalid field name"),
    };
    let cookie = |text: &str| {
        let is_name = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_name && !text.contains(['=', ';', ',']) {
            Ok(text.into())
        } else {
            Err("invalid cookie name")
        }
    };
    AddedVary {
        headers: problems.each(table.headers.as_ref(), header).into(),
        cookies: problems.each(table.cookies.as_ref(), cookie).into(),
    }
}

pub(super) fn bypass(table: &BypassTable, problems: &mut Problems<'_>) -> BypassRule {
    let query = |text: &str| {
        QueryCondition::parse(text).ok_or("expected `name` or `name=value`, such as `nocache=true`")
    };
    let header = |text: &str| {
        HeaderCondition::parse(text).ok_or("expected `name` or `name: value`, such as `x-export`")
    };
    BypassRule {
        query: problems.each(table.query.as_ref(), query).into(),
        headers: problems.each(table.header.as_ref(), header).into(),
        refresh: table.refresh.as_ref().is_some_and(|flag| flag.value),
    }
}
