//! Connections to Redis.
//!
//! [`Settings`] hold the address and the credentials. A [`RedisConnector`] is created from them
//! once, and creates [`RedisClient`]s: a client that hangs is dropped and replaced. A [`Script`] is
//! an atomic step in Redis that has no effect after its deadline.

mod client;
mod clock;
mod inline;
mod script;
mod settings;
mod tls;

pub use client::RedisConnector;
pub(crate) use clock::{RoundTrip, ServerClocks};
pub(crate) use script::{Script, ScriptCall, is_overdue, time};
pub use tls::TlsError;
pub(crate) use {client::RedisClient, client::RedisClientKind};
pub(crate) use {settings::Password, settings::RedisAddress, settings::SettingsError};
pub use {settings::Settings, settings::TlsSettings};
