//! The Lua scripts of the log. Each script also takes a deadline, see [`Script::run`].

use crate::redis::Script;

const SERVER: &str = include_str!("scripts/server.lua");
const NODES: &str = include_str!("scripts/nodes.lua");

pub(super) struct Scripts {
    /// Returns a view of the stream, and renews the node's lease.
    pub(super) view: Script,
    pub(super) read: Script,
    pub(super) append: Script,
    /// Reports this node's position to other nodes.
    pub(super) report: Script,
    pub(super) leave: Script,
    /// Renews or releases a leader lease.
    pub(super) renew_lease: Script,
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
