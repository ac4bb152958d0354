//! The origin: connections, balancing, health, retries, and what is rewritten on the way.
