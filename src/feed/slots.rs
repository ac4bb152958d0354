//! The slots of listeners, limited in total and per client.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::{
    reader::{ListenerClient, Recipient, UserChannel},
    settings::Settings,
};
use crate::{fence::Selector, telemetry::Metrics, user::PartitionMember};

pub(super) struct ListenerSlots {
    table: Mutex<SlotTable>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct SlotTable {
    count: usize,
    by_client: HashMap<ListenerClient, usize>,
    users: HashMap<u64, Arc<UserChannel>>,
    last: u64,
}

/// A slot of one listener, released when dropped.
pub(super) struct ListenerSlot {
    slots: Arc<ListenerSlots>,
    client: Option<ListenerClient>,
    /// The channel of the listener's user, if identified.
    pub(super) channel: Option<Arc<UserChannel>>,
    number: u64,
}

impl ListenerSlots {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { table: Mutex::default(), metrics }
    }

    /// Notifies the listeners whose users are among these recipients.
    pub(super) fn wake(&self, recipients: &[Recipient]) {
        if recipients.is_empty() {
            return;
        }
        let taken = self.table.lock();
        let concerned = taken.users.values();
        concerned
            .filter(|channel| recipients.iter().any(|recipient| recipient.is(&channel.user)))
            .for_each(|channel| channel.changed.notify_waiters());
    }

    /// Ends the streams of credentials that these selectors revoke.
    pub(super) fn end(&self, selectors: &[Selector]) {
        let may_end =
            |selector: &Selector| matches!(selector, Selector::Credential(_) | Selector::All(_));
        if selectors.iter().any(may_end) {
            let taken = self.table.lock();
            let ended = taken.users.values().filter(|channel| channel.is_ended_by(selectors));
            ended.for_each(|channel| channel.end());
        }
    }

    /// Ends the streams of all users, because revocations may be missing.
    pub(super) fn end_all(&self) {
        self.table.lock().users.values().for_each(|channel| channel.end());
    }

    /// Reserves a slot. Returns `None` if a limit is reached.
    pub(super) fn take(
        self: &Arc<Self>,
        settings: &Settings,
        client: Option<ListenerClient>,
        user: Option<&Arc<PartitionMember>>,
    ) -> Option<ListenerSlot> {
        let mut taken = self.table.lock();
        if taken.count >= settings.listeners {
            return None;
        }
        if let Some(client) = &client {
            let count = taken.by_client.get(client).copied().unwrap_or_default();
            if count >= settings.per_client {
                return None;
            }
            taken.by_client.insert(client.clone(), count + 1);
        }
        taken.count += 1;
        taken.last += 1;
        let number = taken.last;
        let channel = user.map(|user| Arc::new(UserChannel::new(Arc::clone(user))));
        if let Some(channel) = &channel {
            taken.users.insert(number, Arc::clone(channel));
        }
        self.metrics.feed.listeners.inc();
        drop(taken);
        Some(ListenerSlot { slots: Arc::clone(self), client, channel, number })
    }
}

impl Drop for ListenerSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.table.lock();
        taken.count = taken.count.saturating_sub(1);
        taken.users.remove(&self.number);
        if let Some(client) = &self.client
            && let Some(count) = taken.by_client.get_mut(client)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.by_client.remove(client);
            }
        }
        self.slots.metrics.feed.listeners.dec();
    }
}
