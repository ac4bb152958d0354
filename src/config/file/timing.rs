//! The serde structs of the sections about what happens without a request: schedules and polls.

use serde::Deserialize;

use super::at::{Text, Texts};

/// `[[schedule]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct ScheduleSection {
    pub(in crate::config) cron: Option<Text>,
    pub(in crate::config) timezone: Option<Text>,
    pub(in crate::config) purge: Option<Texts>,
    pub(in crate::config) warm: Option<Texts>,
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
    pub(in crate::config) alert_after: Option<Text>,
}
