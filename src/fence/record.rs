//! Purges and the records of a purge log.

use serde::{Deserialize, Deserializer, Serialize};

use super::Selector;
use crate::field::Timestamp;

/// A purge without a position in the log. Its JSON form is the content of a record.
///
/// Unknown members make a record unreadable, because they may widen the purge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purge {
    /// Whether the selected responses become unusable or stale.
    pub mode: PurgeMode,
    /// The selectors, combined by *or*.
    pub selectors: Vec<Selector>,
    /// The trigger of the purge.
    #[serde(deserialize_with = "deserialize_source")]
    pub source: PurgeSource,
    /// The reason given by the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether nodes fetch recently requested responses again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warm: bool,
}

/// A purge at a position in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgeRecord {
    /// Sequence number, increasing by one.
    pub seq: u64,
    /// When the record was appended, by the clock of the log.
    pub at: Timestamp,
    /// The purge itself.
    pub purge: Purge,
}

/// Whether a purged response may still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeMode {
    /// The response must not be used.
    #[default]
    Hard,
    /// The response is stale, and may be served while it is revalidated.
    Soft,
}

/// The trigger of a purge.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeSource {
    /// A call of the admin API.
    Api,
    /// The `PURGE` method.
    Method,
    /// A webhook, by name.
    Webhook(Box<str>),
    /// A write through the proxy.
    Write,
    /// A schedule, by name or by cron expression.
    Schedule(Box<str>),
    /// A changed data version, by the name of its poll.
    Poll(Box<str>),
    /// The origin rejected credentials that it had accepted before.
    Refusal,
    /// A user cleared their own stored responses.
    Clear,
    /// A route was quarantined, or its quarantine cleared.
    Quarantine,
    /// Larder itself, for example when a log begins or records were lost.
    Larder,
    /// A source known only to another release of Larder.
    Unknown,
}

/// Parses a source. Accepts unknown sources, because the source does not change what is purged.
fn deserialize_source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PurgeSource, D::Error> {
    let source = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(source).unwrap_or(PurgeSource::Unknown))
}

/// The reason given in a loss record.
const LOSS: &str = "records before this one may be lost";

impl Purge {
    /// Creates a record that marks the start of a log and selects nothing.
    pub fn boundary() -> Self {
        let (mode, source) = (PurgeMode::Hard, PurgeSource::Larder);
        Self { mode, selectors: Vec::new(), source, reason: None, warm: false }
    }

    /// Creates a loss record: earlier records may be missing on some nodes. The record selects
    /// nothing.
    pub fn loss() -> Self {
        Self { reason: Some(LOSS.to_owned()), ..Self::boundary() }
    }

    /// Returns whether this is a [loss record](Self::loss).
    pub fn is_loss(&self) -> bool {
        self.source == PurgeSource::Larder
            && self.selectors.is_empty()
            && self.reason.as_deref() == Some(LOSS)
    }

    /// Returns the JSON that [`PurgeRecord::from_json`] reads.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the purge that replaces an unreadable record, which may have selected anything.
    fn unreadable() -> Self {
        Self {
            mode: PurgeMode::Hard,
            selectors: vec![Selector::Everything],
            source: PurgeSource::Unknown,
            reason: Some("record not readable by this version of Larder".to_owned()),
            warm: false,
        }
    }
}

impl PurgeRecord {
    /// Decodes the record at this position.
    ///
    /// An unreadable record purges everything. It may be damaged, or another release of Larder may
    /// have written it with unknown selectors.
    pub fn from_json(seq: u64, at: Timestamp, json: &[u8]) -> Self {
        let purge = serde_json::from_slice(json).unwrap_or_else(|_| Purge::unreadable());
        Self { seq, at, purge }
    }
}

impl PurgeMode {
    /// Returns the mode's name in calls and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hard => "hard",
            Self::Soft => "soft",
        }
    }
}

impl PurgeSource {
    /// Returns the kind of source, for metrics and logs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Method => "method",
            Self::Webhook(_) => "webhook",
            Self::Write => "write",
            Self::Schedule(_) => "schedule",
            Self::Poll(_) => "poll",
            Self::Refusal => "refusal",
            Self::Clear => "clear",
            Self::Quarantine => "quarantine",
            Self::Larder => "larder",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    fn read(json: &[u8]) -> Purge {
        PurgeRecord::from_json(1, Timestamp::from_millis(2), json).purge
    }

    #[test]
    fn the_form_of_records_stays_as_it_is() {
        let text = || "x".into();
        let purge = Purge {
            mode: PurgeMode::Soft,
            selectors: vec![
                Selector::Tag(text()),
                Selector::Url(text()),
                Selector::Prefix(text()),
                Selector::Pattern(text()),
                Selector::Everything,
                Selector::User(text()),
                Selector::Route(text()),
                Selector::Version(text()),
                Selector::Credential(text()),
                Selector::All([Selector::Tag(text()), Selector::User(text())].into()),
            ],
            source: PurgeSource::Webhook(text()),
            reason: Some("because".to_owned()),
            warm: true,
        };
        let json = r#"{"mode":"soft","selectors":[{"tag":"x"},{"url":"x"},{"prefix":"x"},{"pattern":"x"},"everything",{"user":"x"},{"route":"x"},{"version":"x"},{"credential":"x"},{"all":[{"tag":"x"},{"user":"x"}]}],"source":{"webhook":"x"},"reason":"because","warm":true}"#;
        assert_eq!(purge.to_json(), json);
        let boundary = r#"{"mode":"hard","selectors":[],"source":"larder"}"#;
        assert_eq!(Purge::boundary().to_json(), boundary);
        let loss = r#"{"mode":"hard","selectors":[],"source":"larder","reason":"records before this one may be lost"}"#;
        assert_eq!(Purge::loss().to_json(), loss);
        assert!(read(loss.as_bytes()).is_loss() && !Purge::boundary().is_loss());
    }

    #[test]
    fn an_unreadable_record_purges_everything() {
        for json in [
            "",
            "{",
            "null",
            "[]",
            r#"{"mode":"hard","selectors":[{"tag":"x"}]"#,
            r#"{"mode":"hard","selectors":[{"tag":"x"}],"source":"api"}}"#,
            r#"{"mode":"hard","selectors":[{"regex":"x*"}],"source":"api"}"#,
            r#"{"mode":"hard","selectors":[{"all":[{"tag":"x"},{"regex":"x*"}]}],"source":"api"}"#,
            r#"{"mode":"hard","selectors":[{"all":{"tag":"x"}}],"source":"api"}"#,
            r#"{"mode":"hard","selectors":["nothing"],"source":"api"}"#,
            r#"{"mode":"hard","selectors":[{"tag":"x","user":"y"}],"source":"api"}"#,
            r#"{"mode":"hard","selectors":[{"tag":7}],"source":"api"}"#,
            r#"{"mode":"gentle","selectors":[],"source":"api"}"#,
            r#"{"mode":"hard","selectors":[],"source":"api","patterns":["x*"]}"#,
            r#"{"mode":"hard","selectors":[],"selectors":[],"source":"api"}"#,
            r#"{"mode":"hard","source":"api"}"#,
        ] {
            let purge = read(json.as_bytes());
            assert_eq!(purge.mode, PurgeMode::Hard, "{json}");
            assert_eq!(purge.selectors, [Selector::Everything], "{json}");
        }
        assert_eq!(read(b"\xff").selectors, [Selector::Everything]);
    }

    #[test]
    fn an_unknown_source_is_no_reason_to_purge_more() {
        for source in [r#""oracle""#, r#"{"oracle":"x"}"#, "7", "null"] {
            let json =
                format!(r#"{{"mode":"soft","selectors":[{{"tag":"x"}}],"source":{source}}}"#);
            let purge = read(json.as_bytes());
            assert_eq!(purge.source, PurgeSource::Unknown, "{source}");
            assert_eq!(purge.selectors, [Selector::Tag("x".into())], "{source}");
        }
    }

    fn selectors() -> impl Strategy<Value = Selector> {
        let text = || any::<String>().prop_map(String::into_boxed_str);
        let one = prop_oneof![
            text().prop_map(Selector::Tag),
            text().prop_map(Selector::Url),
            text().prop_map(Selector::Prefix),
            text().prop_map(Selector::Pattern),
            text().prop_map(Selector::User),
            text().prop_map(Selector::Route),
            text().prop_map(Selector::Version),
            text().prop_map(Selector::Credential),
            Just(Selector::Everything),
        ];
        one.prop_recursive(2, 6, 3, |inner| {
            vec(inner, 0..3).prop_map(|selectors| Selector::All(selectors.into()))
        })
    }

    fn sources() -> impl Strategy<Value = PurgeSource> {
        let plain = [
            PurgeSource::Api,
            PurgeSource::Method,
            PurgeSource::Write,
            PurgeSource::Quarantine,
            PurgeSource::Larder,
            PurgeSource::Unknown,
        ];
        prop_oneof![
            prop::sample::select(plain.to_vec()),
            any::<String>().prop_map(|name| PurgeSource::Webhook(name.into())),
            any::<String>().prop_map(|cron| PurgeSource::Schedule(cron.into())),
            any::<String>().prop_map(|name| PurgeSource::Poll(name.into())),
        ]
    }

    proptest! {
        #[test]
        fn every_purge_survives(
            mode in prop::sample::select(vec![PurgeMode::Hard, PurgeMode::Soft]),
            selectors in vec(selectors(), 0..5),
            source in sources(),
            reason in option::of(any::<String>()),
            warm in any::<bool>(),
        ) {
            let purge = Purge { mode, selectors, source, reason, warm };
            prop_assert_eq!(read(purge.to_json().as_bytes()), purge);
        }
    }
}
