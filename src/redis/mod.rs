//! Connections to Redis: where it is, and clients that can be thrown away.
//!
//! [`Settings`] say where Redis is and who asks. A [`RedisConnector`] is made of them once, and makes
//! [`RedisClient`]s: a client that hangs is dropped, and another one made, whatever becomes of its socket.
//! A [`Script`] is one step in Redis that has no effect after its deadline.

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
