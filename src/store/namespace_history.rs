//! The current and previous namespace version, as recorded for the fleet. Pure.

use std::{fmt, time::Duration};

use crate::field::Timestamp;

/// The fleet's record of the current namespace version, its start, and the previous version.
///
/// Formatted as `version millis previous`; the last part is optional. No version contains spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamespaceVersion {
    version: String,
    since: Timestamp,
    previous: Option<String>,
}

/// The consequences of the fleet's record for a starting node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamespaceHistory {
    /// The new record to store; `None` if the node must not change the known record.
    pub to_record: Option<NamespaceVersion>,
    /// The previous version, and the time until which its responses may be served stale, if any.
    pub previous: Option<(String, Timestamp)>,
}

impl NamespaceHistory {
    /// Compares the recorded version `known` with this node's `version`.
    ///
    /// A node of the previous version that starts within `grace` belongs to a deployment in
    /// progress, so it changes nothing. After `grace`, such a node makes its version the current
    /// one.
    pub(crate) fn resolve(
        known: Option<&str>,
        version: &str,
        now: Timestamp,
        grace: Duration,
    ) -> Self {
        let known = known.and_then(NamespaceVersion::parse);
        let record = match known {
            Some(known) if known.version == version => known,
            Some(known) => {
                let is_before = known.previous.as_deref() == Some(version);
                if is_before && now < known.since.saturating_add(grace) {
                    return Self { to_record: None, previous: None };
                }
                NamespaceVersion {
                    version: version.to_owned(),
                    since: now,
                    previous: Some(known.version),
                }
            }
            None => NamespaceVersion { version: version.to_owned(), since: now, previous: None },
        };
        let until = record.since.saturating_add(grace);
        let previous = record.previous.clone().filter(|_| now < until);
        Self { previous: previous.map(|version| (version, until)), to_record: Some(record) }
    }
}

impl NamespaceVersion {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        let version = parts.next().filter(|version| !version.is_empty())?.to_owned();
        let since = Timestamp::from_millis(parts.next()?.parse().ok()?);
        Some(Self { version, since, previous: parts.next().map(str::to_owned) })
    }
}

impl fmt::Display for NamespaceVersion {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} {}", self.version, self.since.millis())?;
        self.previous.as_ref().map_or(Ok(()), |previous| write!(to, " {previous}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_mins(5);

    /// Returns the new record, and the previous version to read, `seconds` after the epoch.
    fn at(seconds: u64, known: Option<&str>, version: &str) -> (Option<String>, Option<String>) {
        let now = Timestamp::from_seconds(seconds);
        let NamespaceHistory { to_record, previous } =
            NamespaceHistory::resolve(known, version, now, GRACE);
        let until = |until: Timestamp| until.seconds();
        (
            to_record.map(|record| record.to_string()),
            previous.map(|(version, at)| format!("{version} until {}", until(at))),
        )
    }

    #[test]
    fn the_first_version_has_none_before_it() {
        assert_eq!(at(1000, None, "v1"), (Some("v1 1000000".to_owned()), None));
        assert_eq!(at(2000, Some("v1 1000000"), "v1"), (Some("v1 1000000".to_owned()), None));
    }

    #[test]
    fn a_new_version_has_the_one_before_it_until_grace_is_over() {
        let bumped = Some("v2 2000000 v1".to_owned());
        assert_eq!(
            at(2000, Some("v1 1000000"), "v2"),
            (bumped.clone(), Some("v1 until 2300".to_owned()))
        );
        let known = bumped.as_deref();
        assert_eq!(
            at(2299, known, "v2"),
            (bumped.clone(), Some("v1 until 2300".to_owned())),
            "another node"
        );
        assert_eq!(at(2300, known, "v2"), (bumped.clone(), None));
        let third = (Some("v3 2100000 v2".to_owned()), Some("v2 until 2400".to_owned()));
        assert_eq!(at(2100, known, "v3"), third, "two bumps in a row");
    }

    #[test]
    fn a_node_of_the_version_before_changes_nothing_unless_it_comes_to_stay() {
        let known = Some("v2 2000000 v1");
        assert_eq!(at(2299, known, "v1"), (None, None));
        assert_eq!(
            at(2300, known, "v1"),
            (Some("v1 2300000 v2".to_owned()), Some("v2 until 2600".to_owned()))
        );
    }

    #[test]
    fn what_nobody_can_read_is_forgotten() {
        for known in ["", "v1", "v1 soon", " 1"] {
            assert_eq!(
                at(1000, Some(known), "v2"),
                (Some("v2 1000000".to_owned()), None),
                "{known}"
            );
        }
    }
}
