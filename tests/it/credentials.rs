//! Requests that say who asks: which fields, parameters and cookies count, and what is shared despite them.
