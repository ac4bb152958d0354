//! Scripts, run by their digest and sent only where the server does not know them yet.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use fred::{error::Error, interfaces::LuaInterface, types::Value};

use crate::redis::Client;

const SERVER: &str = include_str!("scripts/server.lua");
const NODES: &str = include_str!("scripts/nodes.lua");

/// A script and the digest that Redis knows it by.
pub(super) struct Script {
    text: String,
    digest: String,
}

/// All of them.
pub(super) struct Scripts {
    /// Looks at the stream, and renews the node's lease.
    pub(super) look: Script,
    /// Appends a record.
    pub(super) append: Script,
    /// Tells that records are applied.
    pub(super) report: Script,
    /// Signs the node off.
    pub(super) leave: Script,
    /// Renews or gives up what is held.
    pub(super) hold: Script,
}

impl Default for Scripts {
    fn default() -> Self {
        Self {
            look: Script::new(&[SERVER, NODES, include_str!("scripts/look.lua")]),
            append: Script::new(&[SERVER, NODES, include_str!("scripts/append.lua")]),
            report: Script::new(&[include_str!("scripts/report.lua")]),
            leave: Script::new(&[NODES, include_str!("scripts/leave.lua")]),
            hold: Script::new(&[include_str!("scripts/hold.lua")]),
        }
    }
}

impl Script {
    fn new(parts: &[&str]) -> Self {
        let text = parts.concat();
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let mut spelled = String::with_capacity(2 * digest.as_ref().len());
        for byte in digest.as_ref() {
            let _always_fits = write!(spelled, "{byte:02x}");
        }
        Self { text, digest: spelled }
    }

    /// Runs it on these keys, which are all in one slot.
    pub(super) async fn run(
        &self,
        client: &Client,
        keys: Vec<String>,
        arguments: Vec<String>,
    ) -> Result<Value, Error> {
        // The client's futures are large.
        match Box::pin(client.evalsha(&*self.digest, keys.clone(), arguments.clone())).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => {
                Box::pin(client.eval(&*self.text, keys, arguments)).await
            }
            answer => answer,
        }
    }
}
