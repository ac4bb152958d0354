//! Events as they go over the wire: written once, however many listen.

use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;

use super::{
    position::{Token, written},
    settings::Shown,
};
use crate::{
    fence::{Fence, Record},
    field::Timestamp,
};

/// A purge as clients hear of it.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) place: Fence,
    pub(super) at: Timestamp,
    frame: Bytes,
    /// Where in the frame its JSON stands.
    document: Range<usize>,
}

#[derive(Serialize)]
struct Document<'a> {
    seq: u64,
    at: String,
    mode: &'static str,
    tags: &'a [&'a str],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    everything: bool,
}

impl Event {
    /// The event of the record at this place.
    pub(super) fn new(place: Fence, record: &Record, shown: &Shown<'_>) -> Self {
        let document = Document {
            seq: place.seq,
            at: written(record.at),
            mode: record.purge.mode.as_str(),
            tags: &shown.tags,
            everything: shown.everything,
        };
        let document = serde_json::to_string(&document).unwrap_or_default();
        let before = format!("id: {}\nevent: purge\ndata: ", place.seq);
        let within = before.len()..before.len() + document.len();
        let frame = Bytes::from(format!("{before}{document}\n\n{}", stand(place)));
        Self { place, at: record.at, frame, document: within }
    }

    /// As an event stream has it.
    pub(super) fn frame(&self) -> Bytes {
        self.frame.clone()
    }

    /// As JSON.
    pub(super) fn document(&self) -> Bytes {
        self.frame.slice(self.document.clone())
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        self.frame.len() + size_of::<Self>()
    }
}

/// What a client hears that has nothing to go on from.
pub(super) fn hello(place: Fence) -> String {
    named("hello", place)
}

/// What a client hears that may have missed something.
pub(super) fn reset(place: Fence) -> String {
    named("reset", place)
}

fn named(name: &str, place: Fence) -> String {
    let seq = place.seq;
    format!("id: {seq}\nevent: {name}\ndata: {{\"seq\":{seq}}}\n\n{}", stand(place))
}

/// Where a client stands now, as an event that nobody need listen to: its id tells the log as well, and is what
/// the client sends back as `Last-Event-ID`. So the id of a purge is its number. It has data because there are
/// clients that remember no id without.
pub(super) fn stand(place: Fence) -> String {
    format!("id: {}\nevent: place\ndata: {{\"seq\":{}}}\n\n", Token(place), place.seq)
}

/// A sign of life: a comment, and where the client stands.
pub(super) fn heartbeat(place: Option<Fence>) -> String {
    place.map_or_else(|| ":\n\n".to_owned(), |place| format!(":\n{}", stand(place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{LogId, Mode, Purge, Source};

    const PLACE: Fence = Fence { log: LogId(0xab), seq: 7 };

    fn event(tags: Vec<&str>, everything: bool) -> Event {
        let purge =
            Purge { mode: Mode::Soft, selectors: vec![], source: Source::Api, reason: None };
        let at = Timestamp::from_millis(1_768_024_230_050);
        Event::new(PLACE, &Record { seq: 7, at, purge }, &Shown { tags, everything })
    }

    #[test]
    fn an_event_has_its_number_its_document_and_where_it_leaves_the_client() {
        let event = event(vec!["a\nb", "c"], false);
        let document =
            r#"{"seq":7,"at":"2026-01-10T05:50:30.050Z","mode":"soft","tags":["a\nb","c"]}"#;
        let stand = "id: 7-00000000000000ab\nevent: place\ndata: {\"seq\":7}\n\n";
        let frame = format!("id: 7\nevent: purge\ndata: {document}\n\n{stand}");
        assert_eq!(event.frame(), frame);
        assert_eq!(event.document(), document);
    }

    #[test]
    fn a_purge_of_everything_says_so() {
        let document: serde_json::Value =
            serde_json::from_slice(&event(vec![], true).document()).unwrap();
        assert_eq!(document["everything"], true);
        assert_eq!(document["tags"], serde_json::json!([]));
    }
}
