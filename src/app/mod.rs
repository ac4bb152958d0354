//! Wiring: turns a configuration into running listeners, and swaps it on reload.
