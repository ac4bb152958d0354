//! Who reads the feed, and what of it is theirs.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{fence::Selector, user::PartitionMember};

/// Where a request for the feed comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Caller {
    /// The peer of the connection; none over Unix sockets.
    pub peer: Option<IpAddr>,
    /// The client's address: the peer, or whom a trusted proxy names. None if it is not known.
    pub client: Option<IpAddr>,
}

/// One client, as slots are counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum ListenerClient {
    User(Arc<str>),
    Address(IpAddr),
}

impl ListenerClient {
    /// Returns the client that takes a slot; none if it cannot be told from others.
    pub(super) fn of(caller: &Caller, user: Option<&PartitionMember>) -> Option<Self> {
        let owner = user.and_then(|user| user.owner.clone()).map(Self::User);
        owner.or_else(|| caller.client.or(caller.peer).map(Self::Address))
    }
}

/// For whom alone a tag is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recipient {
    /// The user of this name, where `{user}` stands for it.
    pub(super) user: Option<Box<str>>,
    /// The owner of what was purged.
    pub(super) owner: Option<Box<str>>,
}

impl Recipient {
    /// Whether it is this user.
    pub(super) fn is(&self, user: &PartitionMember) -> bool {
        let is_same = |wanted: &Option<Box<str>>, given: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| given == Some(&**wanted))
        };
        is_same(&self.user, user.user.as_deref()) && is_same(&self.owner, user.owner.as_deref())
    }
}

/// A user who listens, as the node wakes it and ends its stream.
pub(super) struct UserChannel {
    pub(super) user: Arc<PartitionMember>,
    credential: String,
    /// Told when there is something for this user alone, or its credential ends.
    pub(super) changed: Notify,
    is_ended: AtomicBool,
}

impl UserChannel {
    pub(super) fn new(user: Arc<PartitionMember>) -> Self {
        let (credential, is_ended) = (user.credential_name(), AtomicBool::new(false));
        Self { user, credential, changed: Notify::new(), is_ended }
    }

    /// Whether the log has ended its credential, or may have.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    /// Ends its stream.
    pub(super) fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Whether one of these selectors ends its credential.
    pub(super) fn is_ended_by(&self, selectors: &[Selector]) -> bool {
        selectors.iter().any(|selector| match selector {
            Selector::Credential(digest) => **digest == *self.credential,
            Selector::All(selectors) => self.is_ended_by(selectors),
            _ => false,
        })
    }
}
