//! The configuration file: its shape, its errors, and its translation into each room's settings.
