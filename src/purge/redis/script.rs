//! The scripts of the log. Each of them takes a deadline as well, see [`Script::run`].

use crate::redis::Script;

const SERVER: &str = include_str!("scripts/server.lua");
const NODES: &str = include_str!("scripts/nodes.lua");

/// All of them.
pub(super) struct Scripts {
    /// Looks at the stream, and renews the node's lease.
    pub(super) view: Script,
    /// Reads records.
    pub(super) read: Script,
    /// Appends a record.
    pub(super) append: Script,
    /// Tells that records are applied.
    pub(super) report: Script,
    /// Signs the node off.
    pub(super) leave: Script,
    /// Renews or gives up what is held.
    pub(super) renew_lease: Script,
    /// Sets a value of the fleet.
    pub(super) set: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            view: Script::new(&[SERVER, NODES, include_str!("scripts/view.lua")]),
            read: Script::new(&[include_str!("scripts/read.lua")]),
            append: Script::new(&[SERVER, NODES, include_str!("scripts/append.lua")]),
            report: Script::new(&[include_str!("scripts/report.lua")]),
            leave: Script::new(&[NODES, include_str!("scripts/leave.lua")]),
            renew_lease: Script::new(&[include_str!("scripts/renew_lease.lua")]),
            set: Script::new(&[include_str!("scripts/set.lua")]),
        }
    }
}
