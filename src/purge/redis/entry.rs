//! What an entry of the stream says.

use crate::{
    fence::{Fence, LogId, Record},
    field::Timestamp,
    purge::{NodeId, Rise},
};

/// The last place there can be: what Redis's scripts can still count exactly.
const HIGHEST: u64 = 999_999_999_999_999;

/// An entry as Redis answers with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: String,
    pub(super) fields: Vec<(String, String)>,
}

/// A place in the stream, as its entry tells it from every other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) fence: Fence,
    /// Drawn for this entry alone; none where no entry was read.
    pub(super) nonce: Option<u64>,
    /// The run of the server that took it; empty where nobody may know.
    pub(super) run: Box<str>,
}

/// An entry that a log of Larder's wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) mark: Mark,
    /// Why a log begins here, where one does.
    pub(super) begins: Option<Rise>,
    /// Who appended it, and waits to hear that it is applied.
    pub(super) by: Option<NodeId>,
    pub(super) record: Record,
}

impl Entry {
    /// Its place; nothing where the entry is none of ours.
    pub(super) fn mark(&self) -> Option<Mark> {
        let seq = self.id.strip_suffix("-0")?.parse().ok().filter(|seq| *seq <= HIGHEST)?;
        let log = LogId(hexadecimal(self.field("log")?)?);
        let nonce = Some(hexadecimal(self.field("nonce")?)?);
        let run = self.field("run").unwrap_or_default().into();
        Some(Mark { fence: Fence { log, seq }, nonce, run })
    }

    /// All of it; nothing where the entry is none of ours. A record that cannot be read purges
    /// everything: whatever it says, that covers it.
    pub(super) fn line(&self) -> Option<Line> {
        let mark = self.mark()?;
        let at = self.field("at").and_then(|at| at.parse().ok()).unwrap_or_default();
        let record = self.field("record").unwrap_or_default().as_bytes();
        let record = Record::read(mark.fence.seq, Timestamp::from_millis(at), record);
        let begins = self.field("begins").map(Rise::named);
        let by = self.field("by").and_then(hexadecimal).map(NodeId);
        Some(Line { mark, begins, by, record })
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields.find_map(|(given, value)| (given == name).then_some(value.as_str()))
    }
}

/// Numbers in the stream are 16 hexadecimal digits.
pub(super) fn spelled(number: u64) -> String {
    format!("{number:016x}")
}

pub(super) fn hexadecimal(text: &str) -> Option<u64> {
    (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{Mode, Purge, Selector};

    fn entry(id: &str, fields: &[(&str, &str)]) -> Entry {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Entry { id: id.into(), fields: fields.collect() }
    }

    const LOG: (&str, &str) = ("log", "00000000000000aa");
    const NONCE: (&str, &str) = ("nonce", "00000000000000bb");

    #[test]
    fn an_entry_of_ours_is_read_back() {
        let purge = Purge { selectors: vec![Selector::Tag("a".into())], ..Purge::boundary() };
        let json = purge.write();
        let by = ("by", "00000000000000cc");
        let fields =
            [LOG, NONCE, by, ("run", "r"), ("at", "1234"), ("record", &json), ("more", "?")];
        let line = entry("7-0", &fields).line().unwrap();
        assert_eq!(line.mark.fence, Fence { log: LogId(0xaa), seq: 7 });
        assert_eq!((line.mark.nonce, &*line.mark.run), (Some(0xbb), "r"));
        assert_eq!(line.record, Record { seq: 7, at: Timestamp::from_millis(1234), purge });
        assert_eq!((line.begins, line.by), (None, Some(NodeId(0xcc))));
    }

    #[test]
    fn what_others_wrote_is_none_of_ours() {
        for strange in [
            entry("7-1", &[LOG, NONCE]),
            entry("1000000000000000-0", &[LOG, NONCE]),
            entry("7", &[LOG, NONCE]),
            entry("7-0", &[NONCE]),
            entry("7-0", &[LOG]),
            entry("7-0", &[LOG, ("nonce", "bb")]),
            entry("7-0", &[LOG, ("nonce", "\u{fffd}")]),
            Entry::default(),
        ] {
            assert_eq!(strange.mark(), None, "{strange:?}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_purges_everything() {
        for record in [None, Some(("record", "")), Some(("record", r#"{"mode":"wild"}"#))] {
            let fields: Vec<_> = [LOG, NONCE].into_iter().chain(record).collect();
            let purge = entry("7-0", &fields).line().unwrap().record.purge;
            assert_eq!((purge.mode, purge.selectors), (Mode::Hard, vec![Selector::Everything]));
        }
    }

    #[test]
    fn numbers_are_spelled_as_they_are_read() {
        for number in [0, 1, 0xfeed, u64::MAX] {
            assert_eq!(hexadecimal(&spelled(number)), Some(number));
        }
    }
}
