//! What all listeners of a node share: the last events, and the signal that there are more.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Notify, futures::Notified};

use super::{
    event::{self, Event},
    position::{PositionToken, Since},
    reader::Recipient,
    ring::{CatchUp, EventRing},
    settings::Settings,
    slots::ListenerSlots,
    source::LogUpdate,
};
use crate::{
    fence::{Fence, LogId, PurgeRecord},
    field::Timestamp,
    telemetry::Metrics,
    user::PartitionMember,
};

/// Events in, listeners out. A listener holds its position and nothing else, so that a slow one costs no
/// memory: it goes on from the ring, or is told that it missed something.
pub(super) struct Hub {
    settings: ArcSwapOption<Settings>,
    state: RwLock<HubState>,
    changed: Notify,
    pub(super) slots: ListenerSlots,
    pub(super) metrics: Arc<Metrics>,
}

#[derive(Default)]
struct HubState {
    ring: EventRing,
    status: HubStatus,
}

/// Who has to know of a record.
#[derive(Debug, Default)]
struct NotifiedListeners {
    /// Everybody has.
    is_public: bool,
    /// These users have.
    recipients: Vec<Recipient>,
}

/// Whether anybody may listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum HubStatus {
    /// Nobody yet, or no more: the configuration has no `[events]`.
    #[default]
    Disabled,
    Active,
    /// The node ends.
    Closed,
}

/// What a listener does next.
#[derive(Debug)]
pub(super) enum NextFrame {
    /// It sends this, and stands here then.
    Send(Bytes, Fence),
    /// It waits; it stands here.
    Wait(Option<Fence>),
    /// It waits for this node to hear of the log that it names.
    WaitForLog,
    /// It ends.
    End,
}

/// What is known since some position.
pub(super) struct Backlog {
    /// The last record.
    pub(super) position: Fence,
    /// What came since, as JSON; none where that is not known.
    pub(super) events: Option<Vec<Bytes>>,
}

impl Hub {
    pub(super) fn new(settings: Option<Settings>, metrics: Arc<Metrics>) -> Self {
        let status = if settings.is_some() { HubStatus::Active } else { HubStatus::Disabled };
        Self {
            settings: ArcSwapOption::from_pointee(settings),
            state: RwLock::new(HubState { ring: EventRing::default(), status }),
            changed: Notify::new(),
            slots: ListenerSlots::default(),
            metrics,
        }
    }

    pub(super) fn settings(&self) -> Option<Arc<Settings>> {
        self.settings.load_full()
    }

    /// Shows something else from now on. What was shown before is forgotten where it was chosen
    /// otherwise; nobody listens any more where there are no settings.
    pub(super) fn replace(&self, settings: Option<Settings>, now: Timestamp) {
        let mut state = self.state.write();
        let before = self.settings.swap(settings.map(Arc::new));
        let after = self.settings.load();
        let tags = |settings: &Option<Arc<Settings>>| settings.as_ref().map(|it| it.tags.clone());
        if tags(&before) != tags(&after) {
            state.ring.restart(now);
        }
        if state.status != HubStatus::Closed {
            state.status = if after.is_some() { HubStatus::Active } else { HubStatus::Disabled };
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Sends everybody away, and who comes later as well.
    pub(super) fn close(&self) {
        self.state.write().status = HubStatus::Closed;
        self.changed.notify_waiters();
    }

    /// Tells what was heard of the log: everybody, where it is more than that something hidden was purged.
    pub(super) fn publish(&self, update: &LogUpdate) {
        let is_news = match update {
            LogUpdate::Begin { fence, at, records } => {
                let mut state = self.state.write();
                state.ring.begin(*fence, *at);
                for (log, record) in records {
                    self.take(&mut state.ring, *log, record);
                }
                drop(state);
                // What ended credentials may be missing.
                self.slots.end_all();
                true
            }
            LogUpdate::Record(log, record) => {
                let notified = self.take(&mut self.state.write().ring, *log, record);
                self.slots.end(&record.purge.selectors);
                self.slots.wake(&notified.recipients);
                notified.is_public
            }
        };
        if is_news {
            self.changed.notify_waiters();
        }
    }

    /// Who has to know of it.
    fn take(&self, ring: &mut EventRing, log: LogId, record: &PurgeRecord) -> NotifiedListeners {
        let Some(position) = ring.next_position(Fence { log, seq: record.seq }) else {
            return NotifiedListeners::default();
        };
        let settings = self.settings.load();
        let shown = settings.as_ref().and_then(|settings| settings.visible_tags(&record.purge));
        let event = shown.map(|shown| Event::new(position, record, &shown));
        let next = ring.position().map(|last| Fence { seq: last.seq.saturating_add(1), ..last });
        let is_event = event.as_ref().is_some_and(Event::is_public);
        let is_public = is_event || next != Some(position);
        let recipients = event.as_ref().map(Event::recipients).unwrap_or_default();
        ring.advance(position, record.at, event);
        NotifiedListeners { is_public, recipients }
    }

    /// What is next for a listener who stands here. `position` is `None` where it stands nowhere yet. One who
    /// may be ahead of this node waits where it names a log that is not known here.
    pub(super) fn next_frame(
        &self,
        position: Option<Fence>,
        may_be_ahead: bool,
        user: Option<&PartitionMember>,
    ) -> NextFrame {
        let state = self.state.read();
        if state.status != HubStatus::Active {
            return NextFrame::End;
        }
        match state.ring.after(position, user) {
            CatchUp::Events(mut events) => {
                let Some(event) = events.next() else { return NextFrame::Wait(position) };
                NextFrame::Send(event.frame(user), event.position)
            }
            CatchUp::UpToDate(position) => NextFrame::Wait(position),
            CatchUp::OtherLog(_) if may_be_ahead => NextFrame::WaitForLog,
            CatchUp::Gap(position) | CatchUp::OtherLog(position) => {
                drop(state);
                self.metrics.feed.resets.inc();
                NextFrame::Send(event::reset(position).into(), position)
            }
        }
    }

    /// Where a listener begins who wants to go on from `since`, or who is new; and what it is told first.
    pub(super) fn begin(&self, since: Option<Since>, now: Timestamp) -> (Option<Fence>, String) {
        let state = self.state.read();
        let Some(last) = state.ring.position() else {
            // A position is looked for as soon as there is anything to find it in.
            let position = since.and_then(|since| state.ring.find(since, now));
            return (position, String::new());
        };
        match since.map(|since| state.ring.find(since, now)) {
            None => (Some(last), event::hello(last)),
            Some(Some(position)) => (Some(position), event::position_event(position)),
            Some(None) => (None, String::new()),
        }
    }

    /// What is known since then; none before anything is known of a log.
    pub(super) fn backlog(
        &self,
        since: Option<Since>,
        now: Timestamp,
        user: Option<&PartitionMember>,
    ) -> Option<Backlog> {
        let state = self.state.read();
        let position = state.ring.position()?;
        let found = since.and_then(|since| state.ring.find(since, now));
        let events = found.and_then(|found| match state.ring.after(Some(found), user) {
            CatchUp::Events(events) => Some(events.map(|event| event.document(user)).collect()),
            CatchUp::UpToDate(_) => Some(Vec::new()),
            CatchUp::Gap(_) | CatchUp::OtherLog(_) => None,
        });
        Some(Backlog { position, events })
    }

    /// The last record heard; none before anything is known of a log.
    pub(super) fn position(&self) -> Option<Fence> {
        self.state.read().ring.position()
    }

    /// The signal that there may be something new: for what happens after this is called.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

impl Backlog {
    /// The position as clients send it back.
    pub(super) fn token(&self) -> String {
        PositionToken(self.position).to_string()
    }
}
