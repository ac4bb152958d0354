//! Serde structs of the sections about schedules and polls.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use super::{
    located::{Located, Text, Texts},
    test::HeaderFields,
};

/// `[[schedule]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ScheduleSection {
    pub(in crate::config) name: Option<Text>,
    pub(in crate::config) cron: Option<Text>,
    pub(in crate::config) timezone: Option<Text>,
    pub(in crate::config) purge: Option<Texts>,
    pub(in crate::config) mode: Option<Text>,
    pub(in crate::config) warm: Option<Located<WarmValue>>,
    pub(in crate::config) host: Option<Texts>,
    pub(in crate::config) headers: HeaderFields,
}

/// `[[poll]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct PollSection {
    pub(in crate::config) name: Option<Text>,
    pub(in crate::config) url: Option<Text>,
    pub(in crate::config) every: Option<Text>,
    pub(in crate::config) version: Option<Text>,
    pub(in crate::config) purge: Option<Texts>,
    pub(in crate::config) mode: Option<Text>,
    pub(in crate::config) delay: Option<Text>,
    pub(in crate::config) warm: Option<Located<WarmValue>>,
    pub(in crate::config) host: Option<Texts>,
    pub(in crate::config) headers: HeaderFields,
    pub(in crate::config) alert_after: Option<Text>,
}

/// `warm`: the targets to prefetch.
#[derive(Debug)]
pub(in crate::config) enum WarmValue {
    /// Whether to prefetch purged targets that clients requested recently.
    Purged(bool),
    /// These paths.
    Paths(Vec<Text>),
}

impl<'de> Deserialize<'de> for WarmValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WarmVisitor)
    }
}

struct WarmVisitor;

impl<'de> Visitor<'de> for WarmVisitor {
    type Value = WarmValue;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a boolean or a list of paths")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<WarmValue, E> {
        Ok(WarmValue::Purged(flag))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut paths: A) -> Result<WarmValue, A::Error> {
        let mut texts = Vec::new();
        while let Some(path) = paths.next_element()? {
            texts.push(path);
        }
        Ok(WarmValue::Paths(texts))
    }
}
