//! Black-box tests: real sockets, scripted origins, no sleeping.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "all of this is test code; clippy only excuses functions marked as tests"
)]

mod advise;
mod architecture;
mod audit;
mod bodies;
mod caching;
mod check;
mod checker;
mod clear;
mod clients;
mod collapse;
mod commands;
mod continuity;
mod cors;
mod credentials;
mod deferred;
mod docs;
mod encoding;
mod events;
mod events_of_users;
mod explain;
mod failures;
mod fast_path;
mod fences;
mod fleet;
mod graphql;
mod harness;
mod hostile;
mod identities;
mod large_bodies;
mod leaks;
mod lifecycle;
mod namespaces;
mod operations;
mod origin;
mod origin_connections;
mod origin_http2;
mod outcomes;
mod owners;
mod partitions;
mod passthrough;
mod poisoning;
mod purge_log;
mod purge_reach;
mod purging;
mod query_values;
mod race;
mod receipts;
mod redis_access;
mod redis_failover;
mod redis_faults;
mod redis_hangs;
mod refusals;
mod request_content;
mod routes;
mod sensitive;
mod server;
mod shadow;
mod shares;
mod sharing;
mod storing;
mod support;
mod timers;
mod variants;
mod vendors;
mod warm;
mod writes;
