//! Names of the log's keys. The keys share one hash slot, because scripts use several of them.

use aws_lc_rs::digest::{SHA256, digest};

use crate::purge::NodeId;

/// The names of all keys of a log.
#[derive(Debug)]
pub(super) struct LogKeys {
    pub(super) log: String,
    pub(super) nodes: String,
    /// Prefix of all keys other than the stream's.
    base: String,
}

impl LogKeys {
    pub(super) fn new(prefix: &str) -> Self {
        let log = format!("{prefix}:log");
        // The hash tag, in braces, selects the slot. Without a hash tag, the whole key does.
        let base = if has_hash_tag(&log) { log.clone() } else { format!("{{{log}}}") };
        Self { nodes: format!("{base}:nodes"), log, base }
    }

    /// Returns the keys that every script uses: the stream, and the hash of the nodes.
    pub(super) fn stream_and_nodes(&self) -> Vec<String> {
        vec![self.log.clone(), self.nodes.clone()]
    }

    /// Returns the channel on which a node receives the position reports of other nodes.
    pub(super) fn channel(&self, node: NodeId) -> String {
        format!("{}:node:{node}", self.base)
    }

    /// Returns the key for a name of any length. The key contains a digest of the name.
    pub(super) fn hashed(&self, kind: &str, name: &str) -> String {
        let digest = digest(&SHA256, name.as_bytes());
        let digest = const_hex::encode(digest.as_ref().get(..16).unwrap_or_default());
        format!("{}:{kind}:{digest}", self.base)
    }

    /// Returns the key of a leader lease or of a shared value.
    pub(super) fn named(&self, kind: &str, name: &str) -> String {
        format!("{}:{kind}:{name}", self.base)
    }
}

fn has_hash_tag(key: &str) -> bool {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_are_in_the_slot_of_the_stream() {
        let keys = LogKeys::new("larder");
        assert_eq!(keys.stream_and_nodes(), ["larder:log", "{larder:log}:nodes"]);
        assert_eq!(keys.channel(NodeId(10)), "{larder:log}:node:000000000000000a");
        assert_eq!(LogKeys::new("{shop}:larder").nodes, "{shop}:larder:log:nodes");
        assert_eq!(LogKeys::new("{}").nodes, "{{}:log}:nodes");
    }

    #[test]
    fn long_names_make_no_long_keys() {
        let keys = LogKeys::new("larder");
        let (one, other) = (keys.hashed("once", &"x".repeat(9999)), keys.hashed("once", "x"));
        assert_eq!(one.len(), other.len());
        assert_ne!(one, other);
    }
}
