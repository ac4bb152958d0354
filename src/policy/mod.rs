//! RFC 9111 as pure functions: headers, rule and time in; verdict and reason out.

pub mod rule;

pub use rule::{ClientCacheControl, Rule, TtlFrom};
