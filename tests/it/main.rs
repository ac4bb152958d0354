//! Black-box tests: real sockets, scripted origins, no sleeping.

mod check;
