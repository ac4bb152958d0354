//! Reloads the configuration on SIGHUP or when a file changes. Keeps the old configuration if the
//! new one is invalid.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::Node;
use crate::config::LoadedConfig;

/// The interval between checks of the files. A change counts once two checks find the same content,
/// because editors and deployments write in several steps.
const INTERVAL: Duration = Duration::from_millis(250);

/// Watches configuration files by reading them several times a second.
///
/// The watcher compares the files' content and uses no file system events. Files may be replaced in
/// place, by rename, by a link, or with their folder. Network file systems and bind mounts, which
/// have no events, work as well. Other files in the folder do not matter.
pub(crate) struct ConfigWatcher {
    digests: FileDigests,
}

/// The digest of each file's content, because some files hold secrets. `None` for unreadable files
/// and pipes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct FileDigests(BTreeMap<PathBuf, Option<Box<[u8]>>>);

impl FileDigests {
    fn of<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        Self(files.into_iter().map(|file| (file.clone(), content(file))).collect())
    }

    /// Reads the same files again, and returns their digests.
    fn reread(&self) -> Self {
        Self::of(self.0.keys())
    }

    /// Changes the set of watched files. Digests of files that stay are kept, so that no change
    /// since the last read is missed.
    fn track(&mut self, files: &[PathBuf], keep_others: bool) {
        if !keep_others {
            self.0.retain(|file, _| files.contains(file));
        }
        for file in files {
            self.0.entry(file.clone()).or_insert_with(|| content(file));
        }
    }
}

fn content(file: &Path) -> Option<Box<[u8]>> {
    // Opening a pipe waits for its writer, and its content can be read only once.
    let is_regular = std::fs::metadata(file).is_ok_and(|found| found.is_file());
    if !is_regular {
        return None;
    }
    std::fs::read(file).ok().map(|content| digest(&SHA256, &content).as_ref().into())
}

impl ConfigWatcher {
    /// Starts watching these files. Call it before applying their content, so that no change in
    /// between is missed.
    pub(crate) fn begin(files: &[PathBuf]) -> Self {
        Self { digests: FileDigests::of(files) }
    }

    /// Reloads on each message in `requests` and on each file change, until `requests` is closed.
    pub(crate) async fn run(
        mut self,
        node: Arc<Node>,
        read: impl Fn() -> LoadedConfig + Send + Sync + 'static,
        mut requests: mpsc::Receiver<()>,
    ) {
        let read = Arc::new(read);
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pending = None;
        loop {
            let is_requested = tokio::select! {
                request = requests.recv() => match request {
                    Some(()) => true,
                    None => return,
                },
                _ = ticks.tick() => false,
            };
            let digests = self.digests.clone();
            // A hanging disk blocks reloads and nothing else.
            let Ok(now) = spawn_blocking(move || digests.reread()).await else { continue };
            if !is_requested && now == self.digests {
                pending = None;
            } else if is_requested || pending.as_ref() == Some(&now) {
                pending = None;
                self.digests = now;
                self.reload(&node, &read).await;
            } else {
                pending = Some(now);
            }
        }
    }

    async fn reload<R>(&mut self, node: &Arc<Node>, read: &Arc<R>)
    where
        R: Fn() -> LoadedConfig + Send + Sync + 'static,
    {
        let (node, read, mut digests) = (Arc::clone(node), Arc::clone(read), self.digests.clone());
        let reloaded = spawn_blocking(move || {
            let LoadedConfig { config, files } = read();
            // Files of an invalid configuration are watched as well, because one of them may be
            // corrected.
            digests.track(&files, true);
            let reloaded = config
                .map_err(|error| anyhow::anyhow!("{error}"))
                .and_then(|config| node.reconfigure(&config));
            if reloaded.is_ok() {
                digests.track(&files, false);
            }
            report(&node, reloaded);
            digests
        });
        match reloaded.await {
            Ok(digests) => self.digests = digests,
            Err(error) => tracing::error!(%error, "keeping the previous configuration"),
        }
    }
}

fn report(node: &Node, reloaded: anyhow::Result<()>) {
    match reloaded {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(error) => {
            node.reload_failed();
            tracing::error!("keeping the previous configuration: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_compared_by_the_content_at_their_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(at(name)).unwrap();
            std::fs::write(at(name).join("file"), text).unwrap();
        };
        write("one", "a");
        write("two", "b");
        std::os::unix::fs::symlink(at("one"), at("current")).unwrap();
        let files = [at("current").join("file"), at("missing")];
        let first = FileDigests::of(&files);
        assert_eq!(first.reread(), first);
        write("other", "c");
        assert_eq!(first.reread(), first, "other files do not count");
        std::os::unix::fs::symlink(at("two"), at("next")).unwrap();
        std::fs::rename(at("next"), at("current")).unwrap();
        let swapped = first.reread();
        assert_ne!(swapped, first, "a link to another folder");
        std::fs::remove_dir_all(at("two")).unwrap();
        let removed = swapped.reread();
        assert_ne!(removed, swapped);
        write("two", "b");
        assert_eq!(removed.reread(), swapped, "a folder that was made again");
        std::fs::write(at("missing"), "").unwrap();
        assert_ne!(swapped.reread(), swapped);
    }

    #[test]
    fn a_pipe_that_nothing_writes_to_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let (done, looked) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(FileDigests::of([&pipe]).0));
        let found = looked.recv_timeout(Duration::from_secs(10)).expect("it waits for a writer");
        assert!(found.into_values().all(|content| content.is_none()));
    }

    #[test]
    fn tracked_files_keep_their_digests() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        std::fs::write(&old, "read").unwrap();
        let mut digests = FileDigests::of([&old]);
        std::fs::write(&old, "changed since").unwrap();
        digests.track(&[old.clone(), new.clone()], false);
        assert_ne!(digests.reread(), digests);
        digests.track(std::slice::from_ref(&new), true);
        assert_eq!(digests.0.len(), 2);
        digests.track(&[new], false);
        assert_eq!(digests.0.len(), 1);
    }
}
