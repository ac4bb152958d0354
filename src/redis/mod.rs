//! Connections to Redis: where it is, and clients that can be thrown away.
//!
//! [`Settings`] say where Redis is and who asks. A [`Connector`] is made of them once, and makes
//! [`Client`]s: a client that hangs is dropped, and another one made, whatever becomes of its socket.

mod client;
mod settings;
mod tls;

pub use client::{Client, Connector, Purpose};
pub use settings::{Address, Password, Settings, SettingsError, Tls};
pub use tls::TlsError;
