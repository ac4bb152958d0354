//! Entries of the stream.

use crate::{
    fence::{Fence, LogId, PurgeRecord},
    field::Timestamp,
    purge::{NodeId, WatermarkRaise, identifier::from_hex},
};

/// Maximum sequence number: larger integers are not exact in Redis scripts.
const MAX_SEQ: u64 = 999_999_999_999_999;

/// An entry as read from Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct StreamEntry {
    pub(super) id: String,
    pub(super) fields: Vec<(String, String)>,
}

/// A position in the stream, with the data that identifies its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamPosition {
    pub(super) fence: Fence,
    /// Random value of the entry; `None` if no entry was read.
    pub(super) nonce: Option<u64>,
    /// Run id of the Redis server that stored the entry; empty if the ACL denies access to it.
    pub(super) run: Box<str>,
}

/// A decoded entry of a Larder log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogEntry {
    pub(super) position: StreamPosition,
    /// The cause of the new log if this entry begins a log, else `None`.
    pub(super) begins: Option<WatermarkRaise>,
    /// The node that appended the entry and waits for position reports, if known.
    pub(super) by: Option<NodeId>,
    pub(super) record: PurgeRecord,
}

impl StreamEntry {
    /// Returns the entry's position, or `None` if Larder did not write the entry.
    pub(super) fn position(&self) -> Option<StreamPosition> {
        let seq = self.id.strip_suffix("-0")?.parse().ok().filter(|seq| *seq <= MAX_SEQ)?;
        let log = LogId(from_hex(self.field("log")?)?);
        let nonce = Some(from_hex(self.field("nonce")?)?);
        let run = self.field("run").unwrap_or_default().into();
        Some(StreamPosition { fence: Fence { log, seq }, nonce, run })
    }

    /// Decodes the entry. Returns `None` if Larder did not write the entry.
    ///
    /// An unreadable record purges everything, which covers its unknown selectors.
    pub(super) fn to_log_entry(&self) -> Option<LogEntry> {
        let position = self.position()?;
        let at = self.field("at").and_then(|at| at.parse().ok()).unwrap_or_default();
        let record = self.field("record").unwrap_or_default().as_bytes();
        let record = PurgeRecord::from_json(position.fence.seq, Timestamp::from_millis(at), record);
        let begins = self.field("begins").map(WatermarkRaise::from_name);
        let by = self.field("by").and_then(from_hex).map(NodeId);
        Some(LogEntry { position, begins, by, record })
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields.find_map(|(given, value)| (given == name).then_some(value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{Purge, PurgeMode, Selector};

    fn entry(id: &str, fields: &[(&str, &str)]) -> StreamEntry {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        StreamEntry { id: id.into(), fields: fields.collect() }
    }

    const LOG: (&str, &str) = ("log", "00000000000000aa");
    const NONCE: (&str, &str) = ("nonce", "00000000000000bb");

    #[test]
    fn an_entry_round_trips() {
        let purge = Purge { selectors: vec![Selector::Tag("a".into())], ..Purge::boundary() };
        let json = purge.to_json();
        let by = ("by", "00000000000000cc");
        let fields =
            [LOG, NONCE, by, ("run", "r"), ("at", "1234"), ("record", &json), ("more", "?")];
        let log_entry = entry("7-0", &fields).to_log_entry().unwrap();
        assert_eq!(log_entry.position.fence, Fence { log: LogId(0xaa), seq: 7 });
        assert_eq!((log_entry.position.nonce, &*log_entry.position.run), (Some(0xbb), "r"));
        assert_eq!(
            log_entry.record,
            PurgeRecord { seq: 7, at: Timestamp::from_millis(1234), purge }
        );
        assert_eq!((log_entry.begins, log_entry.by), (None, Some(NodeId(0xcc))));
    }

    #[test]
    fn foreign_entries_are_rejected() {
        for strange in [
            entry("7-1", &[LOG, NONCE]),
            entry("1000000000000000-0", &[LOG, NONCE]),
            entry("7", &[LOG, NONCE]),
            entry("7-0", &[NONCE]),
            entry("7-0", &[LOG]),
            entry("7-0", &[LOG, ("nonce", "bb")]),
            entry("7-0", &[LOG, ("nonce", "\u{fffd}")]),
            StreamEntry::default(),
        ] {
            assert_eq!(strange.position(), None, "{strange:?}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_purges_everything() {
        for record in [None, Some(("record", "")), Some(("record", r#"{"mode":"wild"}"#))] {
            let fields: Vec<_> = [LOG, NONCE].into_iter().chain(record).collect();
            let purge = entry("7-0", &fields).to_log_entry().unwrap().record.purge;
            assert_eq!(
                (purge.mode, purge.selectors),
                (PurgeMode::Hard, vec![Selector::Everything])
            );
        }
    }
}
