//! Connections to Redis: where it is, and clients that can be thrown away.
//!
//! [`Settings`] say where Redis is and who asks. A [`Connector`] is made of them once, and makes
//! [`Client`]s: a client that hangs is dropped, and another one made, whatever becomes of its socket.
//! A [`Script`] is one step in Redis that has no effect after its deadline.

mod client;
mod clock;
mod inline;
mod script;
mod settings;
mod tls;

pub use client::{Client, Connector, Purpose};
pub use clock::{Clocks, RoundTrip};
pub use script::{Call, Script, is_overdue, time};
pub use settings::{Address, Password, Settings, SettingsError, Tls};
pub use tls::TlsError;
