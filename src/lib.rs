//! Larder: a caching reverse proxy for HTTP APIs.
//!
//! The rooms, from the pure centre outwards. `ARCHITECTURE.md` draws the same map and says which room
//! may import which.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod entry;
pub mod field;
pub mod key;
pub mod origin;
pub mod pipeline;
pub mod policy;
pub mod problem;
pub mod route;
pub mod server;
pub mod store;
pub mod telemetry;
