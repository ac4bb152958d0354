//! Black-box tests: real sockets, scripted origins, no sleeping.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "all of this is test code; clippy only excuses functions marked as tests"
)]

mod architecture;
mod caching;
mod check;
mod collapse;
mod continuity;
mod docs;
mod events;
mod fences;
mod fleet;
mod harness;
mod hostile;
mod lifecycle;
mod origin;
mod passthrough;
mod poisoning;
mod purge_log;
mod purging;
mod race;
mod receipts;
mod redis_faults;
mod routes;
mod server;
mod support;
mod timers;
mod vendors;
mod warm;
mod writes;
