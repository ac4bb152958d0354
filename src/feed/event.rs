//! Events in wire format, encoded once for all listeners.

use std::ops::Range;

use bytes::Bytes;
use serde::Serialize;

use super::{
    position::{PositionToken, to_rfc3339},
    reader::Recipient,
    settings::VisibleTags,
};
use crate::{
    fence::{Fence, PurgeMode, PurgeRecord},
    field::Timestamp,
    user::PartitionMember,
};

/// A purge as shown to clients.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) position: Fence,
    pub(super) at: Timestamp,
    /// The part for everyone; `None` if all visible tags are private.
    public: Option<EncodedEvent>,
    /// The tags for single users.
    private: Option<Box<PrivateTags>>,
}

#[derive(Debug, Clone)]
struct EncodedEvent {
    frame: Bytes,
    /// Position of the JSON within the frame.
    document: Range<usize>,
}

/// Tags for single users, and the data to encode an event for one of them.
#[derive(Debug, Clone)]
struct PrivateTags {
    tags: Box<[(Recipient, Box<str>)]>,
    public_tags: Box<[Box<str>]>,
    everything: bool,
    mode: PurgeMode,
}

#[derive(Serialize)]
struct EventDocument<'a> {
    seq: u64,
    at: String,
    mode: &'static str,
    tags: &'a [&'a str],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    everything: bool,
}

impl Event {
    /// Creates the event of the record at this position.
    pub(super) fn new(position: Fence, record: &PurgeRecord, shown: &VisibleTags<'_>) -> Self {
        let (at, mode, everything) = (record.at, record.purge.mode, shown.everything);
        let is_public = everything || !shown.tags.is_empty();
        let public =
            is_public.then(|| EncodedEvent::new(position, at, mode, (&shown.tags, everything)));
        let private = (!shown.private.is_empty()).then(|| {
            let own = |(to, tag): &(Recipient, &str)| (to.clone(), Box::from(*tag));
            Box::new(PrivateTags {
                tags: shown.private.iter().map(own).collect(),
                public_tags: shown.tags.iter().map(|tag| Box::from(*tag)).collect(),
                everything,
                mode,
            })
        });
        Self { position, at, public, private }
    }

    /// Returns whether everyone may see a part of the event.
    pub(super) fn is_public(&self) -> bool {
        self.public.is_some()
    }

    /// Returns the recipients of the private tags.
    pub(super) fn recipients(&self) -> Vec<Recipient> {
        let tags = self.private.iter().flat_map(|private| private.tags.iter());
        tags.map(|(to, _)| to.clone()).collect()
    }

    /// Returns whether this user may see the event.
    pub(super) fn is_for(&self, user: Option<&PartitionMember>) -> bool {
        self.is_public() || self.own_tags(user).next().is_some()
    }

    /// Returns the frame of the event for this user's event stream.
    pub(super) fn frame(&self, user: Option<&PartitionMember>) -> Bytes {
        self.encoded(user).map(|encoded| encoded.frame).unwrap_or_default()
    }

    /// Returns the JSON of the event for this user.
    pub(super) fn document(&self, user: Option<&PartitionMember>) -> Bytes {
        let encoded = self.encoded(user);
        encoded.map(|encoded| encoded.frame.slice(encoded.document)).unwrap_or_default()
    }

    fn own_tags(&self, user: Option<&PartitionMember>) -> impl Iterator<Item = &str> {
        let tags =
            user.and(self.private.as_ref()).into_iter().flat_map(|private| private.tags.iter());
        let is_own = move |to: &Recipient| user.is_some_and(|user| to.is(user));
        tags.filter(move |(to, _)| is_own(to)).map(|(_, tag)| &**tag)
    }

    /// Returns the event for this user, or `None` if it is hidden. Public events share their bytes;
    /// an event with private tags is encoded for each user.
    fn encoded(&self, user: Option<&PartitionMember>) -> Option<EncodedEvent> {
        let mut own: Vec<&str> = self.own_tags(user).collect();
        let Some(private) = self.private.as_ref().filter(|_| !own.is_empty()) else {
            return self.public.clone();
        };
        let mut tags: Vec<&str> = private.public_tags.iter().map(|tag| &**tag).collect();
        own.retain(|tag| !tags.contains(tag));
        own.dedup();
        tags.append(&mut own);
        Some(EncodedEvent::new(self.position, self.at, private.mode, (&tags, private.everything)))
    }

    pub(super) fn size(&self) -> usize {
        let public = self.public.as_ref().map_or(0, |public| public.frame.len());
        let private = self.private.as_ref().map_or(0, |private| {
            let own = private.tags.iter().map(|(_, tag)| tag.len() + size_of::<Recipient>() + 64);
            own.sum::<usize>() + private.public_tags.iter().map(|tag| tag.len() + 16).sum::<usize>()
        });
        public + private + size_of::<Self>()
    }
}

impl EncodedEvent {
    fn new(
        position: Fence,
        at: Timestamp,
        mode: PurgeMode,
        (tags, everything): (&[&str], bool),
    ) -> Self {
        let (seq, at, mode) = (position.seq, to_rfc3339(at), mode.as_str());
        let document = EventDocument { seq, at, mode, tags, everything };
        let document = serde_json::to_string(&document).unwrap_or_default();
        let before = format!("id: {seq}\nevent: purge\ndata: ");
        let within = before.len()..before.len() + document.len();
        let frame = Bytes::from(format!("{before}{document}\n\n{}", position_event(position)));
        Self { frame, document: within }
    }
}

/// Returns the first event of a new client.
pub(super) fn hello(position: Fence) -> String {
    named_event("hello", position)
}

/// Returns the event for a client that may have missed purges.
pub(super) fn reset(position: Fence) -> String {
    named_event("reset", position)
}

fn named_event(name: &str, position: Fence) -> String {
    let seq = position.seq;
    format!("id: {seq}\nevent: {name}\ndata: {{\"seq\":{seq}}}\n\n{}", position_event(position))
}

/// Returns an event that only moves the client's `Last-Event-ID`.
///
/// Its id contains the log, while the id of a purge event is only a number. It has data, because
/// some clients ignore the ids of events without data.
pub(super) fn position_event(position: Fence) -> String {
    format!("id: {}\nevent: place\ndata: {{\"seq\":{}}}\n\n", PositionToken(position), position.seq)
}

/// Returns the last event of a stream whose user's credential expired or was revoked.
///
/// The event has no id, so that the client keeps its position.
pub(super) fn end_event(reason: &str) -> String {
    format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n")
}

/// Returns a heartbeat: a comment, and then a position event if the position is known.
pub(super) fn heartbeat(position: Option<Fence>) -> String {
    position
        .map_or_else(|| ":\n\n".to_owned(), |position| format!(":\n{}", position_event(position)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fence::{LogId, Purge, PurgeSource};

    const PLACE: Fence = Fence { log: LogId(0xab), seq: 7 };

    fn event(tags: Vec<&str>, everything: bool) -> Event {
        let purge = Purge {
            mode: PurgeMode::Soft,
            selectors: vec![],
            source: PurgeSource::Api,
            reason: None,
            warm: false,
        };
        let at = Timestamp::from_millis(1_768_024_230_050);
        Event::new(
            PLACE,
            &PurgeRecord { seq: 7, at, purge },
            &VisibleTags { tags, everything, private: vec![] },
        )
    }

    #[test]
    fn an_event_has_a_number_a_document_and_a_position() {
        let event = event(vec!["a\nb", "c"], false);
        let document =
            r#"{"seq":7,"at":"2026-01-10T05:50:30.050Z","mode":"soft","tags":["a\nb","c"]}"#;
        let position_event = "id: 7-00000000000000ab\nevent: place\ndata: {\"seq\":7}\n\n";
        let frame = format!("id: 7\nevent: purge\ndata: {document}\n\n{position_event}");
        assert_eq!(event.frame(None), frame);
        assert_eq!(event.document(None), document);
    }

    #[test]
    fn a_purge_of_everything_says_so() {
        let document: serde_json::Value =
            serde_json::from_slice(&event(vec![], true).document(None)).unwrap();
        assert_eq!(document["everything"], true);
        assert_eq!(document["tags"], serde_json::json!([]));
    }
}
