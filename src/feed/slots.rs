//! The limit of listeners, in total and per client.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::{
    hub::Hub,
    reader::{ListenerClient, Recipient, UserChannel},
    settings::Settings,
};
use crate::{fence::Selector, user::PartitionMember};

/// The listeners of this node.
#[derive(Default)]
pub(super) struct ListenerSlots(Mutex<SlotTable>);

#[derive(Default)]
struct SlotTable {
    count: usize,
    by_client: HashMap<ListenerClient, usize>,
    users: HashMap<u64, Arc<UserChannel>>,
    last: u64,
}

/// A slot of one listener, released when dropped.
pub(super) struct ListenerSlot {
    pub(super) hub: Arc<Hub>,
    client: Option<ListenerClient>,
    /// The channel of its user, if identified.
    pub(super) channel: Option<Arc<UserChannel>>,
    number: u64,
}

impl ListenerSlots {
    /// Notifies the listening recipients.
    pub(super) fn wake(&self, recipients: &[Recipient]) {
        if recipients.is_empty() {
            return;
        }
        let taken = self.0.lock();
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
            let taken = self.0.lock();
            let ended = taken.users.values().filter(|channel| channel.is_ended_by(selectors));
            ended.for_each(|channel| channel.end());
        }
    }

    /// Ends the streams of all users, because revocations may be missing.
    pub(super) fn end_all(&self) {
        self.0.lock().users.values().for_each(|channel| channel.end());
    }
}

impl ListenerSlot {
    /// Takes a slot, if the limits allow one more listener.
    pub(super) fn take(
        hub: &Arc<Hub>,
        settings: &Settings,
        client: Option<ListenerClient>,
        user: Option<&Arc<PartitionMember>>,
    ) -> Option<Self> {
        let mut taken = hub.slots.0.lock();
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
        hub.metrics.feed.listeners.inc();
        drop(taken);
        Some(Self { hub: Arc::clone(hub), client, channel, number })
    }
}

impl Drop for ListenerSlot {
    fn drop(&mut self) {
        let mut taken = self.hub.slots.0.lock();
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
        self.hub.metrics.feed.listeners.dec();
    }
}
