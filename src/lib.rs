//! Larder: a caching reverse proxy for HTTP APIs.
//!
//! The core makes all caching decisions without I/O. Ports do the I/O, and the pipeline takes each
//! request through both. To follow a request, start at [`pipeline`]. For what is cached and why,
//! start at [`policy`].
//!
//! - **Pure**, functions of headers, rule and `now`: [`field`] (field grammar), [`policy`] (RFC 9111),
//!   [`key`] (cache keys), [`route`] (matching rules), [`fence`] (what purges select),
//!   [`coding`] (content codings), [`comparison`] (stored and live responses).
//! - **Ports**: [`entry`] and [`store`] (stored responses), [`purge`] (the purge log), [`origin`]
//!   (upstream servers), [`user`] (identities), [`redis`] (connections that stores and logs share).
//! - **The proxy**: [`server`] (client connections), [`pipeline`] (the life of a request), [`leak`]
//!   (responses that depend on their requesters), [`problem`] (error documents), [`tls`] (PEM files
//!   and TLS to servers), [`body_file`] (bodies that the kernel sends from memory), [`threads`]
//!   (numbers of threads and cores).
//! - **Around it**: [`trigger`] (webhooks, `PURGE`, schedules, polls), [`feed`] (purge events for
//!   clients), [`warm`] (prefetching), [`telemetry`] and [`admin`] (for operators), [`advise`]
//!   (routes from logs), [`config`] (configuration), [`app`] (wiring), [`cli`] (commands).
//! - **For tests**: [`purge::planted`] (bugs that tests have to find), `sync` (locks that models replace).
//!
//! Lower modules never import upper modules. `ARCHITECTURE.md` has the table of allowed imports,
//! and a test compares the source with it. The library serves the binary, the tests and the fuzz
//! targets. Its interface is not stable.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("`planted-bugs` are bugs that tests have to find: they are for no release");
#[cfg(all(feature = "models", not(debug_assertions)))]
compile_error!("`models` replaces locks by those of a test's scheduler: it is for no release");

mod admin;
mod advise;
mod app;
mod body_file;
mod cli;
mod coding;
mod comparison;
mod config;
mod entry;
mod feed;
mod fence;
mod field;
mod forward;
mod graphql;
mod key;
mod leak;
mod origin;
mod parsing;
mod pipeline;
mod policy;
mod problem;
mod purge;
mod redis;
mod route;
mod server;
mod store;
mod sync;
mod telemetry;
#[doc(hidden)]
pub mod testing;
mod threads;
mod tls;
mod trigger;
mod user;
mod warm;

pub use cli::main;
