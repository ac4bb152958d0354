//! What all listeners of a node share: the last events, and the signal that there are more.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::{Notify, futures::Notified};

use super::{
    event::{self, Event},
    position::{Since, Token},
    reader::Addressee,
    records::Heard,
    ring::{After, Ring},
    seats::Seats,
    settings::Settings,
};
use crate::{
    fence::{Fence, LogId, Record},
    field::Timestamp,
    telemetry::Metrics,
    user::Member,
};

/// Events in, listeners out. A listener holds its place and nothing else, so that a slow one costs no
/// memory: it goes on from the ring, or is told that it missed something.
pub(super) struct Hub {
    settings: ArcSwapOption<Settings>,
    state: RwLock<State>,
    changed: Notify,
    pub(super) seats: Seats,
    pub(super) metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    ring: Ring,
    life: Life,
}

/// Who has to know of a record.
#[derive(Debug, Default)]
struct News {
    /// Everybody has.
    is_public: bool,
    /// These users have.
    addressees: Vec<Addressee>,
}

/// Whether anybody may listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Life {
    /// Nobody yet, or no more: the configuration has no `[events]`.
    #[default]
    Off,
    On,
    /// The node ends.
    Over,
}

/// What a listener does next.
#[derive(Debug)]
pub(super) enum Look {
    /// It sends this, and stands here then.
    Send(Bytes, Fence),
    /// It waits; it stands here.
    Wait(Option<Fence>),
    /// It waits for this node to hear of the log that it names.
    WaitForLog,
    /// It ends.
    End,
}

/// What is known since some place.
pub(super) struct Known {
    /// The last record.
    pub(super) place: Fence,
    /// What came since, as JSON; none where that is not known.
    pub(super) events: Option<Vec<Bytes>>,
}

impl Hub {
    pub(super) fn new(settings: Option<Settings>, metrics: Arc<Metrics>) -> Self {
        let life = if settings.is_some() { Life::On } else { Life::Off };
        Self {
            settings: ArcSwapOption::from_pointee(settings),
            state: RwLock::new(State { ring: Ring::default(), life }),
            changed: Notify::new(),
            seats: Seats::default(),
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
        if state.life != Life::Over {
            state.life = if after.is_some() { Life::On } else { Life::Off };
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Sends everybody away, and who comes later as well.
    pub(super) fn close(&self) {
        self.state.write().life = Life::Over;
        self.changed.notify_waiters();
    }

    /// Tells what was heard of the log: everybody, where it is more than that something hidden was purged.
    pub(super) fn tell(&self, heard: &Heard) {
        let is_news = match heard {
            Heard::Begin { fence, at, records } => {
                let mut state = self.state.write();
                state.ring.begin(*fence, *at);
                for (log, record) in records {
                    self.take(&mut state.ring, *log, record);
                }
                drop(state);
                // What ended credentials may be missing.
                self.seats.end_all();
                true
            }
            Heard::Record(log, record) => {
                let news = self.take(&mut self.state.write().ring, *log, record);
                self.seats.end(&record.purge.selectors);
                self.seats.wake(&news.addressees);
                news.is_public
            }
        };
        if is_news {
            self.changed.notify_waiters();
        }
    }

    /// Who has to know of it.
    fn take(&self, ring: &mut Ring, log: LogId, record: &Record) -> News {
        let Some(place) = ring.expects(Fence { log, seq: record.seq }) else {
            return News::default();
        };
        let settings = self.settings.load();
        let shown = settings.as_ref().and_then(|settings| settings.shown(&record.purge));
        let event = shown.map(|shown| Event::new(place, record, &shown));
        let next = ring.place().map(|last| Fence { seq: last.seq.saturating_add(1), ..last });
        let is_event = event.as_ref().is_some_and(Event::is_public);
        let is_public = is_event || next != Some(place);
        let addressees = event.as_ref().map(Event::addressees).unwrap_or_default();
        ring.advance(place, record.at, event);
        News { is_public, addressees }
    }

    /// What is next for a listener who stands here. `place` is `None` where it stands nowhere yet. One who
    /// may be ahead of this node waits where it names a log that is not known here.
    pub(super) fn look(
        &self,
        place: Option<Fence>,
        may_be_ahead: bool,
        user: Option<&Member>,
    ) -> Look {
        let state = self.state.read();
        if state.life != Life::On {
            return Look::End;
        }
        match state.ring.after(place, user) {
            After::Events(mut events) => {
                let Some(event) = events.next() else { return Look::Wait(place) };
                Look::Send(event.frame(user), event.place)
            }
            After::Nothing(place) => Look::Wait(place),
            After::Elsewhere(_) if may_be_ahead => Look::WaitForLog,
            After::Unknown(place) | After::Elsewhere(place) => {
                drop(state);
                self.metrics.feed.resets.inc();
                Look::Send(event::reset(place).into(), place)
            }
        }
    }

    /// Where a listener begins who wants to go on from `since`, or who is new; and what it is told first.
    pub(super) fn begin(&self, since: Option<Since>, now: Timestamp) -> (Option<Fence>, String) {
        let state = self.state.read();
        let Some(last) = state.ring.place() else {
            // A place is looked for as soon as there is anything to find it in.
            let place = since.and_then(|since| state.ring.find(since, now));
            return (place, String::new());
        };
        match since.map(|since| state.ring.find(since, now)) {
            None => (Some(last), event::hello(last)),
            Some(Some(place)) => (Some(place), event::stand(place)),
            Some(None) => (None, String::new()),
        }
    }

    /// What is known since then; none before anything is known of a log.
    pub(super) fn since(
        &self,
        since: Option<Since>,
        now: Timestamp,
        user: Option<&Member>,
    ) -> Option<Known> {
        let state = self.state.read();
        let place = state.ring.place()?;
        let found = since.and_then(|since| state.ring.find(since, now));
        let events = found.and_then(|found| match state.ring.after(Some(found), user) {
            After::Events(events) => Some(events.map(|event| event.document(user)).collect()),
            After::Nothing(_) => Some(Vec::new()),
            After::Unknown(_) | After::Elsewhere(_) => None,
        });
        Some(Known { place, events })
    }

    /// The last record heard; none before anything is known of a log.
    pub(super) fn place(&self) -> Option<Fence> {
        self.state.read().ring.place()
    }

    /// The signal that there may be something new: for what happens after this is called.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }
}

impl Known {
    /// The place as clients send it back.
    pub(super) fn token(&self) -> String {
        Token(self.place).to_string()
    }
}
