//! State shared by all listeners of a node: recent events, and notifications of new events.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Notify, futures::Notified};

use super::{
    event::{self, Event},
    position::{PositionToken, ResumePosition},
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

/// Distributes events to listeners.
///
/// A listener holds only its position, so slow listeners cost no memory. It resumes from the ring
/// buffer, or receives a `reset`.
pub(super) struct Hub {
    settings: ArcSwapOption<Settings>,
    state: RwLock<HubState>,
    changed: Notify,
    pub(super) slots: Arc<ListenerSlots>,
    pub(super) metrics: Arc<Metrics>,
}

#[derive(Default)]
struct HubState {
    ring: EventRing,
    status: HubStatus,
}

/// The listeners to notify of a record: everyone, or single recipients.
#[derive(Debug, Default)]
struct NotifiedListeners {
    is_public: bool,
    recipients: Vec<Recipient>,
}

/// Whether listeners are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum HubStatus {
    /// The configuration has no `[events]` section.
    #[default]
    Disabled,
    Active,
    /// The node is shutting down.
    Closed,
}

#[derive(Debug)]
pub(super) enum NextFrame {
    /// Send these bytes, and move to this position.
    Send(Bytes, Fence),
    Wait(Option<Fence>),
    /// Wait until this node knows the log of the listener's position.
    WaitForLog,
    End,
}

/// The events since a position.
pub(super) struct Backlog {
    pub(super) position: Fence,
    /// The events as JSON; `None` if some are missing.
    pub(super) events: Option<Vec<Bytes>>,
}

impl Hub {
    pub(super) fn new(settings: Option<Settings>, metrics: Arc<Metrics>) -> Self {
        let status = if settings.is_some() { HubStatus::Active } else { HubStatus::Disabled };
        Self {
            settings: ArcSwapOption::from_pointee(settings),
            state: RwLock::new(HubState { ring: EventRing::default(), status }),
            changed: Notify::new(),
            slots: Arc::new(ListenerSlots::new(Arc::clone(&metrics))),
            metrics,
        }
    }

    pub(super) fn settings(&self) -> Option<Arc<Settings>> {
        self.settings.load_full()
    }

    /// Replaces the settings. `None` ends all streams.
    ///
    /// If the visible tags change, the kept events are dropped.
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

    /// Ends all streams, and rejects new streams.
    pub(super) fn close(&self) {
        self.state.write().status = HubStatus::Closed;
        self.changed.notify_waiters();
    }

    /// Applies an update, and notifies the listeners unless it is a record without visible tags.
    pub(super) fn publish(&self, update: &LogUpdate) {
        let is_news = match update {
            LogUpdate::Begin { fence, at, records } => {
                let mut state = self.state.write();
                state.ring.begin(*fence, *at);
                for (log, record) in records {
                    self.take(&mut state.ring, *log, record);
                }
                drop(state);
                // Records of revocations may be missing.
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

    /// Adds a record to the ring, and returns the listeners to notify.
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

    /// Returns what a listener at `position` does next. A listener without a position receives a
    /// `reset`.
    ///
    /// If this node does not know the log of the position, a listener waits if it `may_be_ahead`,
    /// and receives a `reset` otherwise.
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

    /// Returns the start position of a listener, and the first bytes of its stream. The position is
    /// `None` if the listener must be reset.
    pub(super) fn begin(
        &self,
        since: Option<ResumePosition>,
        now: Timestamp,
    ) -> (Option<Fence>, String) {
        let state = self.state.read();
        let Some(last) = state.ring.position() else {
            // No log is known yet. The listener's position is checked once there is a log.
            let position = since.and_then(|since| state.ring.find(since, now));
            return (position, String::new());
        };
        match since.map(|since| state.ring.find(since, now)) {
            None => (Some(last), event::hello(last)),
            Some(Some(position)) => (Some(position), event::position_event(position)),
            Some(None) => (None, String::new()),
        }
    }

    /// Returns the events since a position, or `None` if no log is known yet.
    pub(super) fn backlog(
        &self,
        since: Option<ResumePosition>,
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

    pub(super) fn position(&self) -> Option<Fence> {
        self.state.read().ring.position()
    }

    /// Returns a future that completes at the next change after this call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

impl Backlog {
    /// Returns the position in the form that clients send back.
    pub(super) fn token(&self) -> String {
        PositionToken(self.position).to_string()
    }
}
