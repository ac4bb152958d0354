//! What an operator sees: the metric catalogue and the access log.
