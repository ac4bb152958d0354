//! Proposals for routes, made from access logs.
//!
//! An [`Advisor`] reads the lines of a log four times: to find path templates, to count requests,
//! to compare responses, and to simulate the cache. The [`ProposedTable`] is a fragment of
//! `proxy.toml` with a reason for each line. It contains no user data: path segments and parameters
//! appear only if several clients use them and they look like API names.

mod advisor;
mod changes;
mod decide;
mod fold;
mod histogram;
mod interval;
mod log;
mod parameters;
mod paths;
mod proposal;
mod proposed_route;
mod reasons;
mod render;
mod sample;
mod segment;
mod simulation;
mod survey;
mod tags;
mod templates;
mod values;
mod writes;

pub use advisor::{AdviceOptions, Advisor};
pub(crate) use reasons::{duration, number, percent};
pub use render::ProposedTable;
pub(crate) use render::setting_line;
