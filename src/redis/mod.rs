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

pub use client::{RedisClient, RedisClientKind, RedisConnector};
pub use clock::{RoundTrip, ServerClocks};
pub use script::{Script, ScriptCall, is_overdue, time};
pub use settings::{Password, RedisAddress, Settings, SettingsError, TlsSettings};
pub use tls::TlsError;
