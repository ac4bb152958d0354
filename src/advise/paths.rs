//! The tree of the paths of all successful requests, with bounded memory.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::{log::LoggedRequest, segment};

/// Maximum number of segments in the tree. When it is reached, the least requested names become
/// values. A segment takes up to 2 KB, including the map of names below it.
const MAX_SEGMENTS: usize = 20_000;

/// Maximum number of segments of a path that is analysed.
const MAX_DEPTH: usize = 12;

/// Minimum number of clients that request a name before it is shown.
pub(super) const MIN_CLIENTS: usize = 3;

/// The tree of all paths. Each node is a segment.
#[derive(Debug, Default)]
pub(super) struct PathTree {
    pub(super) root: PathNode,
    segments: usize,
    /// Names with fewer requests than this became values.
    least: u64,
}

/// A segment of paths, and the segments below it.
#[derive(Debug, Default)]
pub(super) struct PathNode {
    /// Number of requests to this path and below it.
    pub(super) count: u64,
    /// Number of requests to this path itself.
    pub(super) ends: u64,
    /// Whether some of the requests to this path are writes.
    pub(super) has_writes: bool,
    clients: SmallVec<[u64; MIN_CLIENTS]>,
    pub(super) names: BTreeMap<String, PathNode>,
    /// The node shared by all values among the segments below; `None` if there are no values.
    pub(super) values: Option<Box<PathNode>>,
}

impl PathTree {
    /// Adds a successful request. Returns whether its path can be analysed.
    pub(super) fn add(&mut self, request: &LoggedRequest<'_>) -> bool {
        let Some(segments) = split(&request.path) else { return false };
        self.root.visit(request.client);
        if self.segments >= MAX_SEGMENTS {
            self.prune();
        }
        let mut node = &mut self.root;
        for name in segments {
            let is_known = node.names.contains_key(name);
            let is_value = !is_known && segment::is_value(name);
            let is_new = if is_value { node.values.is_none() } else { !is_known };
            self.segments += usize::from(is_new);
            node = if is_value {
                node.values.get_or_insert_default()
            } else {
                node.names.entry(name.to_owned()).or_default()
            };
            node.visit(request.client);
        }
        node.ends += 1;
        node.has_writes |= request.is_write();
        true
    }

    /// Returns whether the log shows several clients. Behind another proxy, all requests may have
    /// that proxy's address.
    pub(super) fn has_clients(&self) -> bool {
        self.root.clients() >= MIN_CLIENTS
    }

    /// Turns the least requested names into values, until the tree is at most half full.
    fn prune(&mut self) {
        while self.segments * 2 > MAX_SEGMENTS {
            self.least = (self.least * 2).max(2);
            self.segments = self.root.prune(self.least);
        }
    }
}

impl PathNode {
    fn visit(&mut self, client: Option<u64>) {
        self.count += 1;
        if let Some(client) = client
            && self.clients.len() < MIN_CLIENTS
            && !self.clients.contains(&client)
        {
            self.clients.push(client);
        }
    }

    /// Turns names with fewer than `least` requests into values, and drops the segments below them.
    /// Returns the number of remaining segments.
    fn prune(&mut self, least: u64) -> usize {
        let mut left = 0;
        for (name, mut node) in std::mem::take(&mut self.names) {
            if node.count < least {
                (node.names, node.values) = (BTreeMap::new(), None);
                self.values.get_or_insert_default().merge(node);
            } else {
                left += 1 + node.prune(least);
                self.names.insert(name, node);
            }
        }
        left + self.values.as_mut().map_or(0, |values| 1 + values.prune(least))
    }

    /// Returns the number of clients that requested the path or a path below it, up to
    /// [`MIN_CLIENTS`].
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Adds the counts of another node.
    pub(super) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.ends += other.ends;
        self.has_writes |= other.has_writes;
        for client in other.clients {
            if self.clients.len() < MIN_CLIENTS && !self.clients.contains(&client) {
                self.clients.push(client);
            }
        }
        for (name, node) in other.names {
            self.names.entry(name).or_default().merge(node);
        }
        if let Some(node) = other.values {
            self.values.get_or_insert_default().merge(*node);
        }
    }
}

/// Splits a path into segments. Returns `None` if there are too many segments, or if a segment
/// before the last is empty, `.` or `..`.
pub(super) fn split(path: &str) -> Option<SmallVec<[&str; 8]>> {
    let segments = path.strip_prefix('/')?.split('/').take(MAX_DEPTH + 1);
    let segments: SmallVec<[&str; 8]> = segments.collect();
    let (_, front) = segments.split_last()?;
    let is_plain = front.iter().all(|segment| !matches!(*segment, "" | "." | ".."));
    (is_plain && segments.len() <= MAX_DEPTH).then_some(segments)
}
