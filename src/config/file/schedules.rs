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

/// A `[[schedule]]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScheduleSection {
    pub(crate) name: Option<Text>,
    pub(crate) cron: Option<Text>,
    pub(crate) timezone: Option<Text>,
    pub(crate) purge: Option<Texts>,
    pub(crate) mode: Option<Text>,
    pub(crate) warm: Option<Located<WarmValue>>,
    pub(crate) host: Option<Texts>,
    pub(crate) headers: HeaderFields,
}

/// A `[[poll]]` section.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PollSection {
    pub(crate) name: Option<Text>,
    pub(crate) url: Option<Text>,
    pub(crate) every: Option<Text>,
    pub(crate) version: Option<Text>,
    pub(crate) purge: Option<Texts>,
    pub(crate) mode: Option<Text>,
    pub(crate) delay: Option<Text>,
    pub(crate) warm: Option<Located<WarmValue>>,
    pub(crate) host: Option<Texts>,
    pub(crate) headers: HeaderFields,
    pub(crate) alert_after: Option<Text>,
}

/// `warm`: the targets to prefetch.
#[derive(Debug)]
pub(crate) enum WarmValue {
    /// Whether to prefetch purged targets that clients requested recently.
    Purged(bool),
    /// The paths to prefetch.
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
