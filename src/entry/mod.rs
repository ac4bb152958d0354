//! A stored response and its compact form.
