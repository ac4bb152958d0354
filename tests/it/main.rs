//! Black-box tests: real sockets, scripted origins, no sleeping.

mod origin;
mod server;
mod support;
