//! The configuration in force, read on every request and replaced hardly ever.

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::site::Site;

/// A site that can be replaced while it is read.
///
/// Each thread keeps the site it read last: as long as it is the current one, reading it costs the look
/// at one number that is written only on reload, and no count that other cores change too.
pub struct Current {
    site: ArcSwap<Site>,
    /// Unique among all sites of all pipelines of the process.
    version: AtomicU64,
}

static VERSIONS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static LAST: RefCell<Option<(u64, Arc<Site>)>> = const { RefCell::new(None) };
}

impl Current {
    /// This site, for the beginning.
    pub fn new(site: Site) -> Self {
        Self { site: ArcSwap::from_pointee(site), version: AtomicU64::new(next_version()) }
    }

    /// Replaces the site for the requests that come from now on. A thread may keep the old one until its
    /// next request, so what works in the background of the old one is stopped here.
    pub fn replace(&self, site: Site) {
        let old = self.site.swap(Arc::new(site));
        self.version.store(next_version(), Ordering::Release);
        old.origin.retire();
    }

    /// Reads the site.
    pub fn with<T>(&self, read: impl FnOnce(&Arc<Site>) -> T) -> T {
        let version = self.version.load(Ordering::Acquire);
        LAST.with_borrow_mut(|last| {
            if last.as_ref().is_none_or(|(known, _)| *known != version) {
                *last = None;
            }
            let (_, site) = last.get_or_insert_with(|| (version, self.site.load_full()));
            read(site)
        })
    }
}

fn next_version() -> u64 {
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}
