//! The clients of the feed: their identity, and the events that each may see.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{fence::Selector, user::PartitionMember};

/// The addresses of the sender of a feed request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller {
    /// The address of the connection's peer; `None` over Unix sockets.
    pub peer: Option<IpAddr>,
    /// The client's address: that of the peer, or the one that a trusted proxy forwards. `None` if
    /// it is uncertain.
    pub client: Option<IpAddr>,
}

/// The client to which the limit of listeners per client applies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ListenerClient {
    User(Arc<str>),
    Address(IpAddr),
}

impl ListenerClient {
    /// Returns the client, or `None` if it cannot be distinguished from other clients.
    pub(super) fn of(caller: &Caller, user: Option<&PartitionMember>) -> Option<Self> {
        let owner = user.and_then(|user| user.owner.clone()).map(Self::User);
        owner.or_else(|| caller.client.or(caller.peer).map(Self::Address))
    }
}

/// The recipient of a private tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipient {
    /// The user name matched by `{user}`; `None` for any user.
    pub(super) user: Option<Box<str>>,
    /// The owner of the purged responses; `None` for any owner.
    pub(super) owner: Option<Box<str>>,
}

impl Recipient {
    /// Returns whether this user is the recipient.
    pub(super) fn is(&self, user: &PartitionMember) -> bool {
        let is_same = |wanted: &Option<Box<str>>, given: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| given == Some(&**wanted))
        };
        is_same(&self.user, user.user.as_deref()) && is_same(&self.owner, user.owner.as_deref())
    }
}

/// The channel through which a listener is notified of events for its user.
pub(super) struct UserChannel {
    pub(super) user: Arc<PartitionMember>,
    credential: String,
    /// Notified of private events and of the end of the credential.
    pub(super) changed: Notify,
    is_ended: AtomicBool,
}

impl UserChannel {
    pub(super) fn new(user: Arc<PartitionMember>) -> Self {
        let (credential, is_ended) = (user.credential_name(), AtomicBool::new(false));
        Self { user, credential, changed: Notify::new(), is_ended }
    }

    /// Returns whether the credential was revoked, or may have been revoked.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    pub(super) fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Returns whether one of these selectors revokes the credential.
    pub(super) fn is_ended_by(&self, selectors: &[Selector]) -> bool {
        selectors.iter().any(|selector| match selector {
            Selector::Credential(digest) => **digest == *self.credential,
            Selector::All(selectors) => self.is_ended_by(selectors),
            _ => false,
        })
    }
}
