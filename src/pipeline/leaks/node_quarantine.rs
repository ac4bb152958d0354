//! The quarantined routes of the fleet, as known to one node.

use crate::{
    leak::QuarantineTable,
    purge::PurgeLog,
    route::{QuarantineState, Route},
};

/// The quarantined routes, as known to this node.
pub(in crate::pipeline) struct NodeQuarantine {
    pub(super) table: QuarantineTable,
    /// Whether the state of the fleet has been read since this node started.
    pub(super) is_complete: bool,
}

impl NodeQuarantine {
    /// Returns the state at the start of a node. A standalone node has no fleet state to read.
    pub(in crate::pipeline) fn of(log: &PurgeLog) -> Self {
        Self { table: QuarantineTable::default(), is_complete: log.node().is_none() }
    }

    /// Returns the state of a route. Until the state of the fleet has been read, any route whose
    /// responses are shared among requesters may be quarantined.
    pub(in crate::pipeline) fn state_of(&self, route: &Route) -> QuarantineState {
        if self.table.contains(&route.name) {
            QuarantineState::Quarantined
        } else if self.is_complete || !route.shares_among_requesters() {
            QuarantineState::Open
        } else {
            QuarantineState::Unknown
        }
    }
}
