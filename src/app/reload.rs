//! Reloading: a changed file or SIGHUP puts the new configuration in force, or keeps the old one and
//! says why.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::Node;
use crate::config::{Config, ConfigError};

/// Editors and deployments write in several steps; the last one counts.
const SETTLE: Duration = Duration::from_millis(250);

/// The files whose change means a new configuration.
pub struct Watch {
    files: Vec<PathBuf>,
    known: Vec<Option<Vec<u8>>>,
    changes: mpsc::Receiver<()>,
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches these files from now on. To be called before what they hold is put in force, so that no
    /// change is missed in between.
    pub fn begin(files: Vec<PathBuf>) -> Self {
        let (sender, changes) = mpsc::channel(1);
        let watcher = watcher(&files, sender);
        Self { known: contents(&files), files, changes, _watcher: watcher }
    }

    /// Reloads whenever `requests` says so, or a file changes, until `requests` ends.
    pub async fn run(
        mut self,
        node: Arc<Node>,
        read: impl Fn() -> Result<Config, ConfigError>,
        mut requests: mpsc::Receiver<()>,
    ) {
        loop {
            tokio::select! {
                request = requests.recv() => {
                    if request.is_none() {
                        return;
                    }
                    self.known = contents(&self.files);
                }
                Some(()) = self.changes.recv() => {
                    if !self.have_changed().await {
                        continue;
                    }
                }
            }
            reload(&node, &read);
        }
    }

    async fn have_changed(&mut self) -> bool {
        tokio::time::sleep(SETTLE).await;
        while self.changes.try_recv().is_ok() {}
        let now = contents(&self.files);
        let changed = now != self.known;
        self.known = now;
        changed
    }
}

/// What the files hold. Other files of their folders change too, and are no reason to reload.
fn contents(files: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    files.iter().map(|file| std::fs::read(file).ok()).collect()
}

fn reload(node: &Node, read: &impl Fn() -> Result<Config, ConfigError>) {
    // The certificates first: where they fail, nothing else has changed yet.
    let reloaded = read()
        .map_err(|error| anyhow::anyhow!("{error}"))
        .and_then(|config| node.reload_certificates().map(|()| config))
        .and_then(|config| node.reconfigure(&config));
    match reloaded {
        Ok(()) => tracing::info!("the new configuration is in force"),
        Err(error) => {
            node.reload_failed();
            tracing::error!("the old configuration stays in force: {error:#}");
        }
    }
}

/// Watches the folders of `files`: deployments replace files, and links to them, as a whole. Watches
/// only while it is kept.
fn watcher(files: &[PathBuf], changes: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let folders: Vec<PathBuf> = files.iter().map(|file| folder_of(file)).collect();
    let on_event = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel has a reload coming already.
            let _coming = changes.try_send(());
        }
    };
    let mut watcher = match notify::recommended_watcher(on_event) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "files are not watched; send SIGHUP to reload");
            return None;
        }
    };
    for folder in folders {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, folder = %folder.display(), "not watched; send SIGHUP to reload");
        }
    }
    Some(watcher)
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
