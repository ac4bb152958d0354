//! Connections to Redis.
//!
//! [`Settings`] hold the address and the credentials. A [`RedisConnector`] is created from them
//! once, and creates [`RedisClient`]s: a client that hangs is dropped and replaced. A [`Script`] is
//! an atomic step in Redis that has no effect after its deadline.

mod client;
pub(crate) mod clock;
mod inline;
mod script;
pub(crate) mod settings;

pub use client::RedisConnector;
pub(crate) use client::{RedisClient, RedisClientKind};
pub(crate) use clock::ServerClocks;
pub(crate) use script::{Script, ScriptCall, is_overdue, time};
pub(crate) use settings::Password;
pub use settings::{Settings, TlsSettings};

pub(crate) use crate::tls::TlsError;
