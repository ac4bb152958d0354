//! The configuration in force, read on every request and replaced hardly ever.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::config_snapshot::ConfigSnapshot;

/// A site that can be replaced while it is read.
///
/// Each thread keeps the site it read last: as long as it is the current one, reading it costs the look
/// at one number that is written only on reload, and no count that other cores change too.
pub(super) struct SnapshotCell {
    config: ArcSwap<ConfigSnapshot>,
    /// Unique among all sites of all pipelines of the process.
    version: AtomicU64,
}

static VERSIONS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static LAST_READ: RefCell<Option<(u64, Arc<ConfigSnapshot>)>> = const { RefCell::new(None) };
}

impl SnapshotCell {
    /// This site, for the beginning.
    pub(super) fn new(config: ConfigSnapshot) -> Self {
        Self { config: ArcSwap::from_pointee(config), version: AtomicU64::new(next_version()) }
    }

    /// Replaces the site for the requests that come from now on. A thread may keep the old one until its
    /// next request, so what works in the background of the old one is stopped here.
    pub(super) fn replace(&self, config: ConfigSnapshot) {
        let old = self.config.swap(Arc::new(config));
        self.version.store(next_version(), Ordering::Release);
        old.origin.retire();
    }

    /// Reads the site.
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
