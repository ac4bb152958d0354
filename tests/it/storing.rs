//! What may be stored and for how long: directives, statuses, bodies, bypasses.
