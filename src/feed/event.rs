//! Events as they go over the wire: encoded once, however many listen.

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

/// A purge as clients hear of it.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) position: Fence,
    pub(super) at: Timestamp,
    /// What everybody hears; none if nothing of it is for everybody.
    public: Option<EncodedEvent>,
    /// What users hear besides.
    private: Option<Box<PrivateTags>>,
}

/// An event as it goes over the wire.
#[derive(Debug, Clone)]
struct EncodedEvent {
    frame: Bytes,
    /// Where in the frame its JSON stands.
    document: Range<usize>,
}

/// The tags for single users, and what an event for one of them is made of.
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
    /// The event of the record at this position.
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

    /// Whether some of it is for everybody.
    pub(super) fn is_public(&self) -> bool {
        self.public.is_some()
    }

    /// For whom alone some of it is.
    pub(super) fn recipients(&self) -> Vec<Recipient> {
        let tags = self.private.iter().flat_map(|private| private.tags.iter());
        tags.map(|(to, _)| to.clone()).collect()
    }

    /// Whether this reader hears of it.
    pub(super) fn is_for(&self, user: Option<&PartitionMember>) -> bool {
        self.is_public() || self.own_tags(user).next().is_some()
    }

    /// As an event stream has it for this reader.
    pub(super) fn frame(&self, user: Option<&PartitionMember>) -> Bytes {
        self.encoded(user).map(|encoded| encoded.frame).unwrap_or_default()
    }

    /// As JSON for this reader.
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

    /// Everybody's bytes are shared; those for one user are encoded each time.
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

    /// Bytes that it takes.
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

/// What a client hears that has nothing to go on from.
pub(super) fn hello(position: Fence) -> String {
    named_event("hello", position)
}

/// What a client hears that may have missed something.
pub(super) fn reset(position: Fence) -> String {
    named_event("reset", position)
}

fn named_event(name: &str, position: Fence) -> String {
    let seq = position.seq;
    format!("id: {seq}\nevent: {name}\ndata: {{\"seq\":{seq}}}\n\n{}", position_event(position))
}

/// Where a client stands now, as an event that nobody need listen to: its id tells the log as well, and is what
/// the client sends back as `Last-Event-ID`. So the id of a purge is its number. It has data because there are
/// clients that remember no id without.
pub(super) fn position_event(position: Fence) -> String {
    format!("id: {}\nevent: place\ndata: {{\"seq\":{}}}\n\n", PositionToken(position), position.seq)
}

/// The last that a user hears whose credential has ended. It has no id: the client stays where it was.
pub(super) fn end_event(reason: &str) -> String {
    format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n")
}

/// A sign of life: a comment, and where the client stands.
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
    fn an_event_has_its_number_its_document_and_where_it_leaves_the_client() {
        let event = event(vec!["a\nb", "c"], false);
        let document =
            r#"{"seq":7,"at":"2026-01-10T05:50:30.050Z","mode":"soft","tags":["a\nb","c"]}"#;
        let stand = "id: 7-00000000000000ab\nevent: place\ndata: {\"seq\":7}\n\n";
        let frame = format!("id: 7\nevent: purge\ndata: {document}\n\n{stand}");
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
