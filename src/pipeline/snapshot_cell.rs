//! Holds the current configuration, which is read on every request and rarely replaced.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::config_snapshot::ConfigSnapshot;

/// A configuration snapshot that can be replaced while it is read.
///
/// Each thread keeps the snapshot that it read last. A read costs one load of a version that
/// changes only on reload. It touches no reference count shared with other cores.
pub(super) struct SnapshotCell {
    config: ArcSwap<ConfigSnapshot>,
    /// The version of the snapshot, unique among all snapshots of all pipelines in the process.
    version: AtomicU64,
}

static VERSIONS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static LAST_READ: RefCell<Option<(u64, Arc<ConfigSnapshot>)>> = const { RefCell::new(None) };
}

impl SnapshotCell {
    pub(super) fn new(config: Arc<ConfigSnapshot>) -> Self {
        Self { config: ArcSwap::new(config), version: AtomicU64::new(next_version()) }
    }

    /// Replaces the snapshot for new requests. Stops the background work of the old one, since a
    /// thread may keep it until its next request.
    pub(super) fn replace(&self, config: Arc<ConfigSnapshot>) {
        let old = self.config.swap(config);
        self.version.store(next_version(), Ordering::Release);
        old.origin.retire();
    }

    /// Replaces the snapshot with a changed one that has the same origin. Calls must not overlap
    /// with each other or with [`Self::replace`].
    pub(super) fn update(&self, change: impl FnOnce(&ConfigSnapshot) -> ConfigSnapshot) {
        let changed = change(&self.config.load());
        self.config.store(Arc::new(changed));
        self.version.store(next_version(), Ordering::Release);
    }

    pub(super) fn with<T>(&self, read: impl FnOnce(&Arc<ConfigSnapshot>) -> T) -> T {
        let version = self.version.load(Ordering::Acquire);
        LAST_READ.with_borrow_mut(|last| {
            if last.as_ref().is_none_or(|(known, _)| *known != version) {
                *last = None;
            }
            let (_, config) = last.get_or_insert_with(|| (version, self.config.load_full()));
            read(config)
        })
    }
}

fn next_version() -> u64 {
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}
