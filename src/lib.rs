//! Larder: a caching reverse proxy for HTTP APIs.
//!
//! A pure centre decides, ports do the I/O, a pipeline walks each request through both. To read along
//! with a request, begin at [`pipeline`]; to know what is cached and why, at [`policy`].
//!
//! - **Pure**, functions of headers, rule and `now`: [`field`] (grammar), [`policy`] (RFC 9111), [`key`]
//!   (which stored response is asked for), [`route`] (which rule governs), [`fence`] (what purges select).
//! - **Ports**: [`entry`] and [`store`] (what is stored, and where), [`purge`] (the log of what is gone),
//!   [`origin`] (who is asked), [`user`] (who asks), [`redis`] (connections that stores and logs share).
//! - **The proxy**: [`server`] (connections), [`pipeline`] (the life of a request), [`problem`] (how
//!   Larder says no), [`tls`] (certificates towards servers).
//! - **Around it**: [`trigger`] (what purges: webhooks, `PURGE`, schedules, polls), [`feed`] (who hears of
//!   it), [`warm`] (what is fetched ahead), [`telemetry`] and [`admin`] (what operators see), [`config`] (what they say), [`app`]
//!   (wiring), [`cli`] (commands).
//! - **For the tests**: [`purge::planted`] (bugs that they have to find), `sync` (locks that models replace).
//!
//! Lower rooms never import upper ones. `ARCHITECTURE.md` has the table of who may import whom, and a
//! test that holds the source against it. The library is there for the binary, the tests and the fuzz
//! targets; its interface is no promise to anyone else.

#[cfg(all(feature = "planted-bugs", not(debug_assertions)))]
compile_error!("`planted-bugs` are bugs that tests have to find: they are for no release");
#[cfg(all(feature = "models", not(debug_assertions)))]
compile_error!("`models` replaces locks by those of a test's scheduler: it is for no release");

mod admin;
mod app;
mod cli;
mod config;
mod entry;
mod feed;
mod fence;
mod field;
mod forward;
mod key;
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
mod tls;
mod trigger;
mod user;
mod warm;

pub use cli::main;
