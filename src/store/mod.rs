//! Where stored responses live: one trait, and the stores that keep its contract.
