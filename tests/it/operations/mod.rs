//! What an operator relies on: logs, reloads, listeners, the end of a process, and replacing it.

mod admin_host;
mod drain;
mod listeners;
mod logs;
mod own_answers;
mod reload;
mod rolling;

use std::net::{Ipv4Addr, SocketAddr};

use crate::support::redis::free_port;

/// An address for a process that cannot say which one the system chose.
fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
